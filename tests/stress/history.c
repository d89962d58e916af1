/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What an image has been, step by step. */

#include "tests/stress/history.h"

#include "core/image/snapshots.h"
#include "core/image/vmstate.h"
#include "tests/stress/model.h"

#include <stdlib.h>
#include <string.h>

static bool
copy_kept(struct kept *to, const struct kept *from, const struct params *params)
{
    *to = *from;
    if (!state_init(&to->state, params))
        return false;
    state_copy(&to->state, &from->state, params);
    return true;
}

static bool
copy_dirt(struct dirt *to, const struct dirt *from, const struct params *params)
{
    size_t sectors = params->most / 512 + 1;
    *to = *from;
    to->must = malloc(sectors);
    to->may = malloc(sectors);
    if (!to->must || !to->may)
        return false;
    memcpy(to->must, from->must, sectors);
    memcpy(to->may, from->may, sectors);
    return true;
}

static void
free_dirt(struct dirt *dirt)
{
    free(dirt->must);
    free(dirt->may);
}

bool
history_add(struct history *history, const struct run *run, size_t records, bool durable)
{
    struct version *versions =
        reallocarray(history->versions, history->count + 1, sizeof *history->versions);
    if (!versions)
        return false;
    history->versions = versions;
    struct version *version = &versions[history->count++];
    *version = (struct version){.secret = run->secret,
                                .keys = run->keys,
                                .records = records,
                                .durable = durable};
    if (!state_init(&version->active, &run->params))
        return false;
    state_copy(&version->active, &run->model.active, &run->params);
    for (unsigned i = 0; i < run->model.snapshot_count; i++, version->snapshot_count++)
        if (!copy_kept(&version->snapshots[i], &run->model.snapshots[i], &run->params))
            return false;
    for (unsigned i = 0; i < run->model.bitmap_count; i++, version->bitmap_count++)
        if (!copy_dirt(&version->bitmaps[i], &run->model.bitmaps[i], &run->params))
            return false;
    return true;
}

void
history_destroy(struct history *history)
{
    for (size_t i = 0; i < history->count; i++) {
        state_destroy(&history->versions[i].active);
        for (unsigned s = 0; s < history->versions[i].snapshot_count; s++)
            state_destroy(&history->versions[i].snapshots[s].state);
        for (unsigned b = 0; b < history->versions[i].bitmap_count; b++)
            free_dirt(&history->versions[i].bitmaps[b]);
    }
    free(history->versions);
    *history = (struct history){0};
}

bool
history_restore(const struct version *version, struct run *run)
{
    struct model *model = &run->model;
    state_copy(&model->active, &version->active, &run->params);
    for (unsigned i = 0; i < model->snapshot_count; i++)
        state_destroy(&model->snapshots[i].state);
    for (model->snapshot_count = 0; model->snapshot_count < version->snapshot_count;) {
        unsigned i = model->snapshot_count++;
        if (!copy_kept(&model->snapshots[i], &version->snapshots[i], &run->params))
            return false;
    }
    for (unsigned i = 0; i < model->bitmap_count; i++)
        free_dirt(&model->bitmaps[i]);
    for (model->bitmap_count = 0; model->bitmap_count < version->bitmap_count;) {
        unsigned i = model->bitmap_count++;
        if (!copy_dirt(&model->bitmaps[i], &version->bitmaps[i], &run->params))
            return false;
    }
    run->secret = version->secret;
    run->keys = version->keys;
    return true;
}

/* ---- the disk ---- */

static bool
known_size(const struct history *history, size_t first, size_t last, uint64_t size)
{
    for (size_t v = first; v <= last; v++)
        if (history->versions[v].active.size == size)
            return true;
    return false;
}

bool
history_check_disk(struct run *run, const struct history *history, size_t first, size_t last)
{
    struct q2_error err = {0};
    uint64_t size = q2_image_size(run->image);
    if (!known_size(history, first, last, size))
        return fail(run, "the disk has %llu bytes, which it never had", (unsigned long long)size);
    int rc = q2_image_read(run->image, 0, run->scratch, size, &err);
    if (!succeeded(run, rc, &err, "read"))
        return false;
    for (size_t v = first; v <= last; v++)
        if (memcmp(run->scratch, history->versions[v].active.disk, size) == 0)
            return true;
    for (uint64_t i = 0; i < size; i++) {
        bool known = false;
        for (size_t v = first; v <= last && !known; v++)
            known = run->scratch[i] == history->versions[v].active.disk[i];
        if (!known)
            return fail(run, "byte %llu is 0x%02x, not 0x%02x or what came later",
                        (unsigned long long)i, run->scratch[i],
                        history->versions[first].active.disk[i]);
    }
    return true;
}

/* ---- snapshots ---- */

static bool
same_kept(const struct kept *a, const struct kept *b, const struct params *params)
{
    return strcmp(a->name, b->name) == 0 && a->vm_size == b->vm_size &&
           a->state.size == b->state.size &&
           memcmp(a->state.disk, b->state.disk, params->most) == 0 &&
           memcmp(a->state.vm, b->state.vm, params->vm_most) == 0;
}

/* Whether all versions have the snapshot. */
static bool
always_there(const struct run *run, const struct history *history, size_t first, size_t last,
             const struct kept *kept)
{
    for (size_t v = first; v <= last; v++) {
        bool there = false;
        for (unsigned i = 0; i < history->versions[v].snapshot_count && !there; i++)
            there = same_kept(&history->versions[v].snapshots[i], kept, &run->params);
        if (!there)
            return false;
    }
    return true;
}

static bool
check_snapshot(struct run *run, const struct kept *kept)
{
    struct q2_error err = {0};
    unsigned index = 0;
    uint64_t vm_most = run->params.vm_most;
    uint8_t *vm = malloc(vm_most);
    int rc = q2_snapshot_find(run->image, kept->name, &index, &err);
    if (rc == 0)
        rc = q2_snapshot_load(run->image, index, &err);
    if (rc == 0)
        rc = vm ? q2_vmstate_read(run->image, 0, vm, vm_most, &err) : Q2_ERR_NOMEM;
    bool fine =
        succeeded(run, rc, &err, kept->name) && verify_content(run, run->image, &kept->state) &&
        (memcmp(vm, kept->state.vm, vm_most) == 0 || fail(run, "VM state of %s", kept->name));
    free(vm);
    return fine;
}

bool
history_check(struct run *run, const struct history *history, size_t first, size_t last)
{
    const struct version *version = &history->versions[first];
    bool fine = run_open(run, 0) && history_check_disk(run, history, first, last) && run_close(run);
    for (unsigned i = 0; fine && i < version->snapshot_count; i++)
        if (always_there(run, history, first, last, &version->snapshots[i]))
            fine =
                run_open(run, 0) && check_snapshot(run, &version->snapshots[i]) && run_close(run);
    return fine;
}
