/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Operations on whole states: snapshots, VM state, the size of the disk. */

#include "core/image/resize.h"
#include "core/image/snapshots.h"
#include "core/image/vmstate.h"
#include "tests/stress/ops.h"

#include <stdlib.h>
#include <string.h>

/* Refcounts of few bits may have no room for one more reference. */
static bool
narrow(struct run *run, int rc)
{
    return rc == Q2_ERR_RANGE && q2_image_geometry(run->image)->refcount_order <= 3;
}

/* An image with a data file has neither snapshots nor VM state. */
static bool
refused(struct run *run, int rc, const char *what)
{
    return rc == Q2_ERR_UNSUPPORTED || fail(run, "%s in spite of a data file: %d", what, rc);
}

/* ---- snapshots ---- */

static bool
verify_list(struct run *run)
{
    const struct model *model = &run->model;
    if (q2_snapshot_count(run->image) != model->snapshot_count)
        return fail(run, "%u snapshots instead of %u", q2_snapshot_count(run->image),
                    model->snapshot_count);
    for (unsigned i = 0; i < model->snapshot_count; i++) {
        const struct kept *kept = &model->snapshots[i];
        struct q2_snapshot_info info;
        q2_snapshot_info(run->image, i, &info);
        if (strcmp(info.name, kept->name) != 0 || info.vm_state_size != kept->vm_size ||
            info.disk_size != kept->state.size)
            return fail(run, "snapshot %u is '%s' with %llu bytes of disk and %llu of VM state", i,
                        info.name, (unsigned long long)info.disk_size,
                        (unsigned long long)info.vm_state_size);
    }
    return true;
}

static uint64_t
used_vm(const struct state *state)
{
    uint64_t used = state->vm_most;
    while (used > 0 && state->vm[used - 1] == 0)
        used--;
    return used;
}

/* The checker mentions names that occur twice. */
static void
choose_name(const struct model *model, uint64_t number, char *name)
{
    for (unsigned i = 0; i <= model->snapshot_count;) {
        snprintf(name, NAME_SIZE, "s%llu", (unsigned long long)number);
        for (i = 0; i < model->snapshot_count; i++)
            if (strcmp(model->snapshots[i].name, name) == 0)
                break;
        if (i == model->snapshot_count)
            return;
        number++;
    }
}

bool
op_snapshot(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    struct model *model = &run->model;
    char name[NAME_SIZE];
    struct q2_snapshot_options options = {.name = name, .date_seconds = 1};
    if (model->snapshot_count == MAX_SNAPSHOTS)
        return true;
    choose_name(model, arg[0] % 1000, name);
    options.vm_state_size = arg[1] % 2 ? used_vm(&model->active) : 0;
    say(run, " %s %llu", name, (unsigned long long)options.vm_state_size);
    int rc = q2_snapshot_create(run->image, &options, &err);
    if (run->params.data_file)
        return refused(run, rc, "a snapshot");
    if (narrow(run, rc))
        return verify_list(run) && verify_open(run);
    if (!succeeded(run, rc, &err, "snapshot_create"))
        return false;
    struct kept *kept = &model->snapshots[model->snapshot_count++];
    memcpy(kept->name, name, sizeof name);
    kept->vm_size = options.vm_state_size;
    if (!state_init(&kept->state, &run->params))
        return fail(run, "no memory for a snapshot's model");
    state_copy(&kept->state, &model->active, &run->params);
    if (kept->vm_size > 0)
        memset(model->active.vm, 0, model->active.vm_most);
    return verify_list(run);
}

bool
op_goto(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    struct model *model = &run->model;
    if (model->snapshot_count == 0)
        return true;
    unsigned index = (unsigned)(arg[0] % model->snapshot_count);
    say(run, " %u", index);
    int rc = q2_snapshot_goto(run->image, index, &err);
    if (narrow(run, rc) || (rc == Q2_ERR_UNSUPPORTED && model->bitmap_count > 0))
        return verify_open(run);
    if (!succeeded(run, rc, &err, "snapshot_goto"))
        return false;
    if (model->bitmap_count > 0)
        return fail(run, "a snapshot was applied in spite of bitmaps");
    state_copy(&model->active, &model->snapshots[index].state, &run->params);
    return verify_list(run) && (arg[1] % 2 || verify_open(run));
}

bool
op_delete(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    struct model *model = &run->model;
    if (model->snapshot_count == 0)
        return true;
    unsigned index = (unsigned)(arg[0] % model->snapshot_count);
    say(run, " %u", index);
    int rc = q2_snapshot_delete(run->image, index, &err);
    if (!succeeded(run, rc, &err, "snapshot_delete"))
        return false;
    state_destroy(&model->snapshots[index].state);
    model->snapshot_count--;
    memmove(&model->snapshots[index], &model->snapshots[index + 1],
            (model->snapshot_count - index) * sizeof *model->snapshots);
    return verify_list(run) && (arg[1] % 2 || verify_open(run));
}

static bool
verify_vm(struct run *run, const struct state *state)
{
    struct q2_error err = {0};
    uint8_t *bytes = malloc(state->vm_most);
    if (!bytes)
        return fail(run, "no memory for VM state");
    int rc = q2_vmstate_read(run->image, 0, bytes, state->vm_most, &err);
    bool same = rc == 0 && memcmp(bytes, state->vm, state->vm_most) == 0;
    free(bytes);
    return succeeded(run, rc, &err, "vmstate_read") && (same || fail(run, "VM state is wrong"));
}

/* Close, and read from a snapshot without changing anything. */
bool
op_load(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    struct model *model = &run->model;
    if (model->snapshot_count == 0)
        return true;
    unsigned index = (unsigned)(arg[0] % model->snapshot_count);
    say(run, " %u", index);
    if (!run_close(run) || !run_open(run, 0))
        return false;
    int rc = q2_snapshot_load(run->image, index, &err);
    return succeeded(run, rc, &err, "snapshot_load") &&
           verify_content(run, run->image, &model->snapshots[index].state) &&
           verify_vm(run, &model->snapshots[index].state) && run_close(run) &&
           run_open(run, Q2_IMAGE_WRITE);
}

/* ---- VM state ---- */

bool
op_vm_write(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    uint64_t most = run->params.vm_most;
    uint64_t offset = arg[0] % most, length = arg[1] % (most / (arg[1] % 5 + 1));
    length = length > most - offset ? most - offset : length;
    length = length > run->params.most ? run->params.most : length;
    say(run, " %llu+%llu", (unsigned long long)offset, (unsigned long long)length);
    fill(run->scratch, length, arg[2]);
    int rc = q2_vmstate_write(run->image, offset, run->scratch, length, &err);
    if (run->params.data_file)
        return length == 0 || refused(run, rc, "VM state");
    memcpy(run->model.active.vm + offset, run->scratch, length);
    return succeeded(run, rc, &err, "vmstate_write");
}

bool
op_vm_read(struct run *run, const uint64_t *arg)
{
    (void)arg;
    return verify_vm(run, &run->model.active);
}

bool
op_vm_discard(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    (void)arg;
    memset(run->model.active.vm, 0, run->params.vm_most);
    return succeeded(run, q2_vmstate_discard(run->image, &err), &err, "vmstate_discard");
}

/* ---- size ---- */

bool
op_resize(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    uint64_t size = (arg[0] % (run->params.most / 512) + 1) * 512;
    uint64_t unit = q2_image_geometry(run->image)->cluster_size;
    if (arg[1] % 2 && size / unit > 0)
        size = size / unit * unit;
    bool grows = size > run->model.active.size;
    enum q2_preallocation how = grows && arg[2] % 4 == 0 ? (arg[3] % 4) : Q2_PREALLOCATION_OFF;
    say(run, " to %llu preallocation %d", (unsigned long long)size, (int)how);
    int rc = q2_image_resize(run->image, size, how, &err);
    bool garbled = how != Q2_PREALLOCATION_OFF && run->params.crypt &&
                   q2_image_header(run->image)->version < 3;
    if (rc == Q2_ERR_UNSUPPORTED && (run->model.snapshot_count > 0 || garbled))
        return verify_open(run);
    if (!succeeded(run, rc, &err, "resize"))
        return false;
    model_resize(&run->model, size);
    return arg[1] % 3 != 0 || verify_open(run);
}
