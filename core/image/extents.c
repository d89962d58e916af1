/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What is where: runs as users of an image see them. */

#include "core/image/data.h"
#include "core/image/disk.h"

static void
describe(const struct q2_image *image, uint64_t offset, const struct q2_run *run,
         struct q2_extent *ret_extent)
{
    *ret_extent = (struct q2_extent){
        .offset = offset,
        .length = run->length,
        .present = run->kind != Q2_CLUSTER_UNALLOCATED,
        .zero = run->kind == Q2_CLUSTER_ZERO || run->kind == Q2_CLUSTER_ZERO_ALLOCATED,
        .data = run->kind == Q2_CLUSTER_STANDARD || run->kind == Q2_CLUSTER_COMPRESSED,
        .compressed = run->kind == Q2_CLUSTER_COMPRESSED,
        /* Encrypted bytes are of no use to those who read the file. */
        .has_host = run->has_host && !image->geometry.encrypted && image->data,
    };
    if (ret_extent->has_host) {
        ret_extent->host = run->host;
        ret_extent->file = image->data;
    }
}

int
q2_image_map_own(struct q2_image *image, uint64_t offset, uint64_t length,
                 struct q2_extent *ret_extent, struct q2_error *err)
{
    struct q2_run run, next;
    int rc = q2_image_check_range(image, "map", offset, length, err);
    if (rc < 0 || length == 0)
        return rc < 0 ? rc : q2_error_set(err, Q2_ERR_RANGE, "nothing to map");
    pthread_mutex_lock(&image->lock);
    rc = q2_map_run(image, offset, length, &run, err);
    /* On across slices and tables, as far as it is alike. */
    while (rc == 0 && run.length < length && run.kind != Q2_CLUSTER_COMPRESSED) {
        if (q2_map_run(image, offset + run.length, length - run.length, &next, NULL) < 0 ||
            next.kind != run.kind || next.has_host != run.has_host ||
            (run.has_host && next.host != run.host + run.length))
            break;
        run.length += next.length;
    }
    pthread_mutex_unlock(&image->lock);
    if (rc == 0)
        describe(image, offset, &run, ret_extent);
    return rc;
}

/* What lies below an extent that this image does not have. */
static int
map_below(struct q2_image *image, struct q2_extent *extent, struct q2_error *err)
{
    uint64_t size = image->backing ? q2_disk_size(image->backing) : 0;
    if (extent->offset >= size) {
        extent->zero = true;
        return 0;
    }
    struct q2_extent below;
    uint64_t length = q2_min(extent->length, size - extent->offset);
    int rc = q2_disk_map(image->backing, extent->offset, length, &below, err);
    if (rc < 0)
        return rc;
    *extent = below;
    extent->depth++;
    return 0;
}

int
q2_image_map(struct q2_image *image, uint64_t offset, uint64_t length, struct q2_extent *ret_extent,
             struct q2_error *err)
{
    struct q2_extent extent;
    int rc = q2_image_map_own(image, offset, length, &extent, err);
    if (rc == 0 && !extent.present)
        rc = map_below(image, &extent, err);
    if (rc == 0)
        *ret_extent = extent;
    return rc;
}
