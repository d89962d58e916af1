/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Operations on persistent bitmaps. */

#include "core/image/bitmaps.h"
#include "tests/stress/ops.h"

#include <stdlib.h>
#include <string.h>

static uint64_t
sectors(const struct run *run)
{
    return run->params.most / 512 + 1;
}

/* Where our bitmap is in the image. */
static bool
find(struct run *run, const struct dirt *dirt, unsigned *ret_index)
{
    struct q2_error err = {0};
    return succeeded(run, q2_bitmap_find(run->image, dirt->name, ret_index, &err), &err,
                     "bitmap_find");
}

static struct dirt *
pick(struct run *run, uint64_t arg)
{
    struct model *model = &run->model;
    return model->bitmap_count ? &model->bitmaps[arg % model->bitmap_count] : NULL;
}

bool
op_bitmap_add(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    struct model *model = &run->model;
    if (model->bitmap_count == MAX_BITMAPS)
        return true;
    struct dirt dirt = {.granularity = UINT64_C(512) << arg[1] % 9, .enabled = arg[2] % 4 != 0};
    snprintf(dirt.name, sizeof dirt.name, "b%llu", (unsigned long long)(arg[0] % 100));
    say(run, " %s %llu", dirt.name, (unsigned long long)dirt.granularity);
    int rc = q2_bitmap_add(run->image, dirt.name, dirt.granularity, dirt.enabled, &err);
    for (unsigned i = 0; i < model->bitmap_count; i++)
        if (strcmp(model->bitmaps[i].name, dirt.name) == 0)
            return rc == Q2_ERR_EXISTS || fail(run, "two bitmaps of one name: %d", rc);
    if (q2_image_header(run->image)->version < 3)
        return rc == Q2_ERR_UNSUPPORTED || fail(run, "a bitmap in version 2: %d", rc);
    /* The first cluster may be full. */
    if (rc == Q2_ERR_NOSPACE && run->params.cluster_bits == 9)
        return true;
    dirt.must = calloc(1, sectors(run));
    dirt.may = calloc(1, sectors(run));
    if (!dirt.must || !dirt.may) {
        free(dirt.must);
        free(dirt.may);
        return fail(run, "no memory for a bitmap's model");
    }
    model->bitmaps[model->bitmap_count++] = dirt;
    return succeeded(run, rc, &err, "bitmap_add");
}

bool
op_bitmap_remove(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    struct model *model = &run->model;
    struct dirt *dirt = pick(run, arg[0]);
    unsigned index = 0;
    if (!dirt)
        return true;
    if (!find(run, dirt, &index) ||
        !succeeded(run, q2_bitmap_remove(run->image, index, &err), &err, "bitmap_remove"))
        return false;
    free(dirt->must);
    free(dirt->may);
    *dirt = model->bitmaps[--model->bitmap_count];
    return true;
}

bool
op_bitmap_clear(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    struct dirt *dirt = pick(run, arg[0]);
    unsigned index = 0;
    if (!dirt)
        return true;
    memset(dirt->must, 0, sectors(run));
    memset(dirt->may, 0, sectors(run));
    return find(run, dirt, &index) &&
           succeeded(run, q2_bitmap_clear(run->image, index, &err), &err, "bitmap_clear");
}

bool
op_bitmap_enable(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    struct dirt *dirt = pick(run, arg[0]);
    unsigned index = 0;
    if (!dirt)
        return true;
    dirt->enabled = arg[1] % 3 != 0;
    return find(run, dirt, &index) &&
           succeeded(run, q2_bitmap_set_enabled(run->image, index, dirt->enabled, &err), &err,
                     "bitmap_set_enabled");
}

bool
op_bitmap_merge(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    struct dirt *to = pick(run, arg[0]), *from = pick(run, arg[1]);
    unsigned to_index = 0, from_index = 0;
    if (!to)
        return true;
    if (!find(run, to, &to_index) || !find(run, from, &from_index))
        return false;
    int rc = q2_bitmap_merge(run->image, to_index, run->image, from_index, &err);
    uint64_t unit = from->granularity / 512;
    for (uint64_t i = 0; i < sectors(run); i++) {
        to->must[i] |= from->must[i];
        for (uint64_t j = i / unit * unit; from->may[i] && j < (i / unit + 1) * unit; j++)
            if (j < sectors(run))
                to->may[j] = 1;
    }
    return succeeded(run, rc, &err, "bitmap_merge");
}

/* ---- looking ---- */

/* [from, to) is clean: nothing in it must be dirty. Or dirty: something in each granule may be. */
static bool
check_run(struct run *run, const struct dirt *dirt, bool dirty, uint64_t from, uint64_t to)
{
    uint64_t unit = dirt->granularity / 512, last = (to + 511) / 512;
    for (uint64_t i = from / 512; !dirty && i < last; i++)
        if (dirt->must[i])
            return fail(run, "bitmap %s says that %llu is clean", dirt->name,
                        (unsigned long long)i * 512);
    for (uint64_t i = from / 512; dirty && i < last; i += unit) {
        bool any = false;
        for (uint64_t j = i; j < i + unit && j < sectors(run); j++)
            any |= dirt->may[j];
        if (!any)
            return fail(run, "bitmap %s says that %llu is dirty", dirt->name,
                        (unsigned long long)i * 512);
    }
    return true;
}

bool
op_bitmap_look(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    struct model *model = &run->model;
    (void)arg;
    if (q2_bitmap_count(run->image) != model->bitmap_count)
        return fail(run, "%u bitmaps instead of %u", q2_bitmap_count(run->image),
                    model->bitmap_count);
    for (unsigned b = 0; b < model->bitmap_count; b++) {
        const struct dirt *dirt = &model->bitmaps[b];
        struct q2_bitmap_info info = {0};
        unsigned index = 0;
        if (!find(run, dirt, &index) ||
            !succeeded(run, q2_bitmap_info(run->image, index, &info, &err), &err, "bitmap_info"))
            return false;
        if (info.in_use || info.enabled != dirt->enabled || info.granularity != dirt->granularity)
            return fail(run, "bitmap %s: in use %d, enabled %d, granularity %llu", dirt->name,
                        info.in_use, info.enabled, (unsigned long long)info.granularity);
        for (uint64_t at = 0, end = 0; at < model->active.size; at = end) {
            bool dirty = false;
            int rc = q2_bitmap_extent(run->image, index, at, &dirty, &end, &err);
            if (!succeeded(run, rc, &err, "bitmap_extent"))
                return false;
            if (end <= at || end > model->active.size)
                return fail(run, "a run of bits from %llu to %llu", (unsigned long long)at,
                            (unsigned long long)end);
            if (!check_run(run, dirt, dirty, at, end))
                return false;
        }
    }
    return true;
}
