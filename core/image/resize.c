/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The size in the header is the instant of change. A disk that grows gets its L1 table, its mapping
 * and its zeros before; one that shrinks loses what is cut off after. So a crash leaves the old
 * disk or the new one; what else is mapped behind its end is dropped by whoever grows it again.
 *
 * The area of VM state begins where the disk ends, so it does not survive a change of size. */

#include "core/image/resize.h"

#include "core/image/disk.h"
#include "core/image/fill.h"
#include "core/image/snapshot_table.h"
#include "core/image/states.h"

#include <inttypes.h>

struct resize {
    struct q2_image *image;
    uint64_t old_size, new_size;
    uint64_t old_end, new_end; /* in whole clusters */
    enum q2_preallocation preallocation;
};

/* ---- what is refused ---- */

static int
check_snapshots(const struct q2_image *image, struct q2_error *err)
{
    if (!image->header.nb_snapshots || !image->snapshots)
        return 0;
    if (image->header.version < 3)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "%s: an image of version 2 with snapshots cannot change its size",
                            image->file->name);
    for (unsigned i = 0; i < image->snapshots->count; i++)
        if (!image->snapshots->entries[i].fixed.has_disk_size)
            return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                                "%s: the size cannot change, as there are snapshots that do not "
                                "say how large their disk is",
                                image->file->name);
    return 0;
}

static int
check(const struct resize *r, struct q2_error *err)
{
    const struct q2_image *image = r->image;
    uint64_t most = q2_l2_reach(&image->geometry) * (Q2_MAX_L1_BYTES / 8);
    if (r->new_size % 512)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "%s: a size of %" PRIu64 " bytes is not a multiple of 512",
                            image->file->name, r->new_size);
    if (r->new_size > most)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "%s: a size of %" PRIu64 " bytes is more than the %" PRIu64
                            " that clusters of %" PRIu64 " bytes can map",
                            image->file->name, r->new_size, most, image->geometry.cluster_size);
    if (r->new_size < r->old_size && r->preallocation != Q2_PREALLOCATION_OFF)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "%s: preallocation cannot be used when the disk becomes smaller",
                            image->file->name);
    if (r->preallocation != Q2_PREALLOCATION_OFF && image->geometry.encrypted &&
        image->header.version < 3)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "%s: clusters of an encrypted image of version 2 cannot be "
                            "preallocated: they would not read as zeros",
                            image->file->name);
    if (image->geometry.data_file && !image->data)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "%s: the size cannot change without the data file", image->file->name);
    return check_snapshots(image, err);
}

/* ---- the disk's size ---- */

static void
set_size(struct q2_image *image, uint64_t size)
{
    image->size = size;
    image->geometry.disk_size = size;
}

/* The instant of change, durable. What comes before must have been settled. */
static int
store_size(const struct resize *r, struct q2_error *err)
{
    struct q2_image *image = r->image;
    struct q2_header header = image->header;
    int rc = q2_bitmaps_resize(image, r->new_size, err);
    if (rc < 0)
        return rc;
    header.size = r->new_size;
    rc = q2_image_barrier(image, err);
    if (rc == 0)
        rc = q2_header_store(image, &header, err);
    if (rc < 0) {
        q2_bitmaps_resize(image, r->old_size, NULL);
        return rc;
    }
    return q2_image_barrier(image, err);
}

/* ---- growing ---- */

static int
grow_l1(struct q2_image *image, uint64_t size, struct q2_error *err)
{
    uint64_t needed = q2_l1_entries_for(&image->geometry, size);
    if (needed <= image->header.l1_size)
        return 0;
    int rc = q2_l1_replace(image, image->l1, image->header.l1_size, needed, err);
    return rc < 0 ? rc : q2_image_settle(image, err);
}

/* Guest bytes for which there is data below; as many as can be where nobody has looked. */
static uint64_t
bytes_below(const struct q2_image *image)
{
    if (!image->area.backing_file)
        return 0;
    return image->backing ? q2_disk_size(image->backing) : UINT64_MAX;
}

/* A data file has the guest's clusters at their places. */
static int
grow_data_file(const struct resize *r, struct q2_error *err)
{
    struct q2_file *file = r->image->data;
    uint64_t size, length = r->new_size - r->old_size;
    if (!r->image->geometry.data_file)
        return 0;
    int rc = q2_file_size(file, &size, err);
    if (rc == 0 && size > r->old_size) /* somebody has left something there */
        rc = q2_file_punch(file, r->old_size, q2_min(size - r->old_size, length), err);
    if (rc == 0 && r->preallocation == Q2_PREALLOCATION_FALLOC)
        rc = q2_file_reserve(file, r->old_size, length, err);
    else if (rc == 0 && size < r->new_size)
        rc = q2_file_truncate(file, r->new_size, err);
    if (rc == 0 && r->preallocation == Q2_PREALLOCATION_FULL)
        rc = q2_file_write_zeros(file, r->old_size, length, err);
    return rc;
}

/* Map what is added, so that it reads as zeros. The disk has its new size in memory. */
static int
fill_new(const struct resize *r, struct q2_error *err)
{
    struct q2_image *image = r->image;
    const uint64_t bits = image->geometry.cluster_bits;
    const bool raw = image->header.autoclear_features & Q2_AUTOCLEAR_RAW_DATA;
    struct q2_fill fill = {.map = raw || r->preallocation != Q2_PREALLOCATION_OFF,
                           .preallocation = r->preallocation,
                           .zero_until = q2_min(bytes_below(image), r->new_size)};
    int rc = 0;
    if (fill.map)
        return q2_fill(image, r->old_end, r->new_end, &fill, err);
    if (fill.zero_until <= r->old_end)
        return 0;
    uint64_t end = q2_units(fill.zero_until, (unsigned)bits) << bits;
    if (image->header.version >= 3)
        rc = q2_fill(image, r->old_end, end, &fill, err);
    else /* has no other way to say that something is zero */
        rc = q2_fill_zeros(image, r->old_end, fill.zero_until, err);
    return rc;
}

static int
grow(const struct resize *r, struct q2_error *err)
{
    struct q2_image *image = r->image;
    uint64_t below = bytes_below(image);
    int rc = q2_vmstate_drop(image, err);
    if (rc == 0)
        rc = grow_l1(image, r->new_size, err);
    /* What an interrupted change has left behind the end. */
    if (rc == 0)
        rc = q2_unmap(image, r->old_end, r->new_end, true, err);
    /* The rest of the last cluster; here the backing file still ends with the disk. */
    struct q2_run run;
    if (rc == 0 && r->old_size < r->old_end)
        rc = q2_map_run(image, r->old_size, 1, &run, err);
    if (rc == 0 && r->old_size < r->old_end &&
        (run.kind != Q2_CLUSTER_UNALLOCATED || below > r->old_size || image->geometry.extended_l2))
        rc = q2_fill_zeros(image, r->old_size, q2_min(r->old_end, r->new_size), err);
    if (rc == 0)
        rc = grow_data_file(r, err);
    if (rc < 0)
        return rc;

    set_size(image, r->new_size);
    rc = fill_new(r, err);
    if (rc == 0)
        rc = q2_image_settle(image, err);
    if (rc == 0)
        rc = store_size(r, err);
    if (rc < 0 && image->header.size == r->old_size) { /* as far as that goes */
        set_size(image, r->old_size);
        q2_unmap(image, r->old_end, r->new_end, true, NULL);
        q2_image_settle(image, NULL);
    }
    return rc;
}

/* ---- shrinking ---- */

/* Drop what maps guest clusters [new_end, old_end). */
static int
drop_mapping(const struct resize *r, struct q2_error *err)
{
    struct q2_image *image = r->image;
    uint64_t reach = q2_l2_reach(&image->geometry);
    uint64_t first = q2_units(r->new_end, image->geometry.cluster_bits + image->geometry.l2_bits);
    int rc = q2_unmap(image, r->new_end, q2_min(first * reach, r->old_end), true, err);
    for (uint64_t i = first; rc == 0 && i < image->header.l1_size; i++) {
        rc = q2_l1_drop(image, i, err);
        if (rc == 0)
            rc = q2_image_tidy(image, err);
    }
    return rc;
}

/* Data in the rest of the last cluster would come back when the disk grows again. */
static int
zero_tail(const struct resize *r, struct q2_error *err)
{
    struct q2_image *image = r->image;
    for (uint64_t at = r->new_size; at < r->new_end;) {
        struct q2_run run;
        int rc = q2_map_run(image, at, r->new_end - at, &run, err);
        if (rc < 0)
            return rc;
        if (run.kind == Q2_CLUSTER_STANDARD || run.kind == Q2_CLUSTER_COMPRESSED)
            rc = q2_fill_zeros(image, at, at + run.length, err);
        if (rc < 0)
            return rc;
        at += run.length;
    }
    return 0;
}

/* A block device keeps its size. */
static int
cut_data_file(const struct resize *r, struct q2_error *err)
{
    if (!r->image->geometry.data_file)
        return q2_image_cut(r->image, err);
    int rc = q2_file_truncate(r->image->data, r->new_size, err);
    if (rc == Q2_ERR_UNSUPPORTED)
        rc = 0;
    return rc < 0 ? rc : q2_image_cut(r->image, err);
}

static int
shrink(const struct resize *r, struct q2_error *err)
{
    struct q2_image *image = r->image;
    int rc = q2_vmstate_drop(image, err);
    if (rc == 0)
        rc = store_size(r, err);
    if (image->header.size == r->new_size) /* even if that is not known to be durable */
        set_size(image, r->new_size);
    if (rc == 0)
        rc = drop_mapping(r, err);
    if (rc == 0)
        rc = zero_tail(r, err);
    if (rc == 0)
        rc = q2_image_settle(image, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    return rc < 0 ? rc : cut_data_file(r, err);
}

/* ---- both ---- */

static uint64_t
whole_clusters(const struct q2_image *image, uint64_t bytes)
{
    return q2_units(bytes, image->geometry.cluster_bits) << image->geometry.cluster_bits;
}

int
q2_image_resize(struct q2_image *image, uint64_t size, enum q2_preallocation preallocation,
                struct q2_error *err)
{
    struct q2_exclusive exclusive;
    int rc = q2_exclusive_begin(image, &exclusive, true, err);
    if (rc < 0)
        return rc;
    struct resize r = {.image = image,
                       .old_size = image->size,
                       .new_size = size,
                       .preallocation = preallocation};
    rc = check(&r, err);
    r.old_end = whole_clusters(image, r.old_size);
    r.new_end = whole_clusters(image, r.new_size);
    if (rc == 0 && r.new_size > r.old_size)
        rc = grow(&r, err);
    else if (rc == 0 && r.new_size < r.old_size)
        rc = shrink(&r, err);
    q2_exclusive_end(image, &exclusive);
    return rc;
}
