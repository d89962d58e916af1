/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The steps of a salvage, one map after the other. Of an image, snapshots come first, in their
 * order, and the active disk last: each state is what differs from the one before, so that what was
 * shared is shared again. A disk never shrinks where snapshots are, so a state with a smaller one
 * begins with an earlier snapshot; and where there is none that small, with one of nothing, which
 * goes in the end. */

#include "core/base/cleanup.h"
#include "core/image/resize.h"
#include "core/image/snapshots.h"
#include "core/image/vmstate.h"
#include "repair/salvage_parts.h"

#include <stdlib.h>
#include <string.h>

static const char base_name[] = "qcow2kit-salvage";

/* ---- the order ---- */

uint32_t
q2_salvage_map_at(const struct salvage *salvage, uint32_t turn)
{
    uint32_t count = salvage->source.map_count;
    return !salvage->is_image ? turn : turn + 1 < count ? turn + 1 : 0;
}

static const struct salvage_map *
map_at(const struct salvage *salvage, uint32_t turn)
{
    return &salvage->source.maps[q2_salvage_map_at(salvage, turn)];
}

/* Snapshots of which nothing is known are left out; the active disk never is. */
static bool
is_written(const struct salvage *salvage, uint32_t turn)
{
    return q2_salvage_map_at(salvage, turn) == 0 || !map_at(salvage, turn)->lost;
}

/* The last turn before `turn` whose disk is not larger; false: there is none. */
static bool
find_base(const struct salvage *salvage, uint32_t turn, uint32_t *ret_base)
{
    uint64_t size = salvage_image_size(map_at(salvage, turn)->disk_size);
    for (uint32_t i = turn; i-- > 0;)
        if (is_written(salvage, i) && salvage_image_size(map_at(salvage, i)->disk_size) <= size) {
            *ret_base = i;
            return true;
        }
    return false;
}

/* Turns before `turn` that are written. */
static uint32_t
count_written(const struct salvage *salvage, uint32_t turn)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < turn; i++)
        count += is_written(salvage, i);
    return count;
}

static bool
is_previous(const struct salvage *salvage, uint32_t turn, uint32_t base)
{
    while (--turn > base)
        if (is_written(salvage, turn))
            return false;
    return true;
}

/* ---- states of an image ---- */

static int
make_image(struct salvage *salvage, bool resume, struct q2_error *err)
{
    const struct salvage_source *source = &salvage->source;
    uint32_t turns = source->map_count, base, first = turns;
    uint64_t least = UINT64_MAX;
    salvage->empty_base = false;
    for (uint32_t i = 0; i < turns; i++) {
        if (!is_written(salvage, i))
            continue;
        first = first == turns ? i : first;
        uint64_t size = salvage_image_size(map_at(salvage, i)->disk_size);
        least = size < least ? size : least;
        salvage->empty_base |= i > first && !find_base(salvage, i, &base);
    }
    bool keep = salvage->options->keep_backing && source->backing_name;
    Q2_AUTOFREE char *backing = keep ? q2_salvage_backing_name(salvage) : NULL;
    if (keep && !backing)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a file name");
    const struct q2_create_options create = {
        .size = salvage->empty_base ? least : salvage_image_size(map_at(salvage, first)->disk_size),
        .version = 3,
        .cluster_size = source->geometry.cluster_size,
        .flags = source->geometry.extended_l2 ? Q2_CREATE_EXTENDED_L2 : 0,
        .backing_file = backing,
        .backing_format = keep ? source->backing_format : NULL,
        .crypt = source->cipher ? (enum q2_crypt_method)source->check->header.crypt_method
                                : Q2_CRYPT_NONE,
        .secret = source->cipher ? salvage->options->secret : NULL,
    };
    int rc = q2_salvage_target_open_image(&salvage->target, salvage->out, &create, resume, err);
    const struct q2_snapshot_options nothing = {.name = base_name, .id = base_name};
    if (rc == 0 && salvage->empty_base && q2_snapshot_count(salvage->target.image) == 0)
        rc = q2_snapshot_create(salvage->target.image, &nothing, err);
    return rc;
}

/* Make the active state one from which that of `turn` can be made. */
static int
begin_state(struct salvage *salvage, uint32_t turn, struct q2_error *err)
{
    struct q2_image *image = salvage->target.image;
    uint64_t size = salvage_image_size(map_at(salvage, turn)->disk_size);
    uint32_t base;
    bool has_base = find_base(salvage, turn, &base);
    int rc = 0;
    if (has_base && !is_previous(salvage, turn, base))
        rc = q2_snapshot_goto(image, salvage->empty_base + count_written(salvage, base), err);
    else if (!has_base && salvage->empty_base)
        rc = q2_snapshot_goto(image, 0, err);
    if (rc == 0)
        rc = q2_vmstate_discard(image, err);
    if (rc == 0 && q2_image_size(image) != size)
        rc = q2_image_resize(image, size, Q2_PREALLOCATION_OFF, err);
    /* What a disk gained is zeros, not what the backing file has. */
    if (rc == 0 && !has_base && salvage->empty_base)
        rc = q2_image_uncover(image, 0, size, err);
    return rc;
}

/* Make the active state a snapshot, if it is to be one and is none yet. */
static int
end_state(struct salvage *salvage, uint32_t turn, struct q2_error *err)
{
    const struct salvage_map *map = map_at(salvage, turn);
    struct q2_image *image = salvage->target.image;
    uint32_t index = salvage->empty_base + count_written(salvage, turn);
    if (!map->id)
        return 0;
    if (q2_snapshot_count(image) > index)
        return q2_vmstate_discard(image, err);
    const struct q2_snapshot_options options = {
        .name = map->name,
        .id = map->id,
        .vm_state_size = map->vm_state_size,
        .date_seconds = map->fixed.date_seconds,
        .date_nanoseconds =
            map->fixed.date_nanoseconds < 1000000000 ? map->fixed.date_nanoseconds : 0,
        .vm_clock_nanoseconds = map->fixed.vm_clock_nanoseconds,
        .has_icount = map->has_icount,
        .icount = map->icount,
    };
    return q2_snapshot_create(image, &options, err);
}

static int
finish_image(struct salvage *salvage, struct q2_error *err)
{
    struct q2_image *image = salvage->target.image;
    unsigned index;
    int rc = 0;
    if (salvage->empty_base && q2_snapshot_find(image, base_name, &index, NULL) == 0)
        rc = q2_snapshot_delete(image, index, err);
    return rc < 0 ? rc : q2_image_flush(image, err);
}

/* ---- one step ---- */

static int
reached(void *data, uint64_t offset, struct q2_error *err)
{
    return q2_salvage_reached(data, offset, err);
}

/* Begin with the target; *ret_base is the state that it has then, NULL for none. */
static int
begin_step(struct salvage *salvage, uint32_t turn, bool vm_state, uint64_t start, uint64_t length,
           const struct salvage_map **ret_base, struct q2_error *err)
{
    uint32_t base, map = q2_salvage_map_at(salvage, turn);
    if (salvage->is_image) {
        salvage->target.vm_state = vm_state;
        salvage->target.vm_length = length;
        *ret_base = !vm_state && find_base(salvage, turn, &base) ? map_at(salvage, base) : NULL;
        return vm_state || start ? 0 : begin_state(salvage, turn, err);
    }
    Q2_AUTOFREE char *path = q2_salvage_output_name(salvage, map, vm_state);
    if (!path)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a file name");
    return q2_salvage_target_open_raw(&salvage->target, path, length, start > 0, err);
}

static int
end_step(struct salvage *salvage, uint32_t turn, bool vm_state, uint64_t length,
         struct q2_error *err)
{
    int rc = q2_salvage_reached(salvage, length, err);
    if (rc < 0)
        return rc;
    if (!salvage->is_image)
        return q2_salvage_target_close(&salvage->target, err);
    return vm_state ? end_state(salvage, turn, err) : 0;
}

static int
run_step(struct salvage *salvage, uint32_t turn, bool vm_state, uint64_t start,
         struct q2_error *err)
{
    uint32_t number = q2_salvage_map_at(salvage, turn);
    const struct salvage_map *map = map_at(salvage, turn);
    struct salvage_copy copy = {
        .source = &salvage->source,
        .target = &salvage->target,
        .trust = &salvage->trust,
        .log = &salvage->log,
        .options = salvage->options,
        .map = number,
        .vm_state = vm_state,
        .base = vm_state ? map->vm_start : 0,
        .start = start,
        .length = vm_state ? map->vm_state_size : map->disk_size,
        .reached = reached,
        .reached_data = salvage,
        .progress = {.phase = number ? "snapshot" : "disk",
                     .name = map->name,
                     .done = salvage->done,
                     .total = salvage->total},
    };
    int rc = begin_step(salvage, turn, vm_state, start, copy.length, &copy.before, err);
    if (rc == 0 && start < copy.length)
        rc = q2_salvage_copy_run(&copy, err);
    return rc < 0 ? rc : end_step(salvage, turn, vm_state, copy.length, err);
}

/* A snapshot that is left out. */
static int
note_lost(struct salvage *salvage, uint32_t turn, bool vm_state, struct q2_error *err)
{
    const struct salvage_map *map = map_at(salvage, turn);
    const struct q2_salvage_range range = {
        .map = q2_salvage_map_at(salvage, turn),
        .length = vm_state ? map->vm_state_size : map->disk_size,
        .vm_state = vm_state,
        .state = Q2_SALVAGE_LOST,
        .why = map->lost,
    };
    return range.length ? q2_salvage_log_range(&salvage->log, &range, err) : 0;
}

/* ---- all steps ---- */

int
q2_salvage_steps(struct salvage *salvage, struct q2_error *err)
{
    const struct salvage_place *from = &salvage->from;
    bool begun = from->step > 0 || from->offset > 0;
    int rc = salvage->is_image ? make_image(salvage, begun, err) : 0;
    for (uint64_t step = 0; rc == 0 && step < 2 * (uint64_t)salvage->source.map_count; step++) {
        uint32_t turn = (uint32_t)(step / 2);
        bool vm_state = step % 2;
        const struct salvage_map *map = map_at(salvage, turn);
        uint64_t length = vm_state ? map->vm_state_size : map->disk_size;
        salvage->step = step;
        if (step < from->step) {
            salvage->done += length;
            continue;
        }
        if (!is_written(salvage, turn))
            rc = step > from->step || !from->offset ? note_lost(salvage, turn, vm_state, err) : 0;
        else if (length > 0 || !vm_state || salvage->is_image)
            rc = run_step(salvage, turn, vm_state, step == from->step ? from->offset : 0, err);
        salvage->done += length;
    }
    if (rc == 0 && salvage->is_image)
        rc = finish_image(salvage, err);
    int closed = q2_salvage_target_close(&salvage->target, rc < 0 ? NULL : err);
    return rc < 0 ? rc : closed;
}
