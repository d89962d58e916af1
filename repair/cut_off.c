/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Looked up in the image as it was: the repair itself takes away what is counted behind the end. */

#include "repair/cut_off.h"

#include "checker/refcounts.h"
#include "core/base/checked.h"
#include "core/format/entry.h"
#include "core/format/refcount.h"

enum { MAX_BELIEVED = 64 }; /* refcounts above are rather garbage than snapshots */

bool
q2_cut_cluster(const struct q2_scene *scene, uint64_t cluster)
{
    const struct q2_check *before = scene->before;
    const unsigned needed = Q2_USABLE_GEOMETRY | Q2_USABLE_REFCOUNTS;
    if (!before || (before->usable & needed) != needed)
        return false;
    const struct q2_geometry *geometry = &before->geometry;
    if (geometry->cluster_bits != scene->check->geometry.cluster_bits ||
        cluster < geometry->file_clusters)
        return false;
    uint64_t block = q2_refcount_block(before, cluster >> geometry->refcount_block_bits);
    uint64_t index = cluster & ((UINT64_C(1) << geometry->refcount_block_bits) - 1);
    unsigned order = geometry->refcount_order;
    uint64_t size = q2_max((UINT64_C(1) << order) / 8, 1);
    uint64_t at = (index << order) / 8 / size * size;
    uint8_t bytes[8] = {0};
    if (block <= Q2_REFCOUNT_BLOCK_UNKNOWN ||
        q2_file_read_padded(scene->base, block + at, bytes, size, NULL) < 0)
        return false;
    uint64_t refcount = q2_refcount_get(bytes, order, index - (at * 8 >> order));
    return refcount > 0 && refcount <= MAX_BELIEVED;
}

bool
q2_cut_entry(const struct q2_scene *scene, uint64_t raw, bool is_l1)
{
    const struct q2_geometry *geometry = &scene->check->geometry;
    if (is_l1 || !(raw & Q2_ENTRY_COMPRESSED))
        return q2_cut_cluster(scene, q2_entry_offset(raw) >> geometry->cluster_bits);
    struct q2_compressed_range range = q2_compressed_decode(geometry, raw);
    return range.length &&
           q2_cut_cluster(scene, (range.offset + range.length - 1) >> geometry->cluster_bits);
}
