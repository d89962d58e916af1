/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Refcounts in the cache, and the blocks and table that hold them. Private to core/image; all under
 * the image's lock. */

#ifndef Q2_IMAGE_REFCOUNTS_H
#define Q2_IMAGE_REFCOUNTS_H

#include "core/image/internal.h"

/* Refcounts that are in memory together: those of a cluster and of some that follow. */
struct q2_refcount_slice {
    uint8_t *bytes; /* NULL: there is no block, they are all 0 */
    uint64_t index; /* of the cluster's refcount in `bytes` */
    uint64_t count; /* refcounts from there to the end of the slice (of the block, without one) */
};

/* `ret_slice->bytes` lives until the next call that uses the refcount cache. */
int q2_refcount_slice(struct q2_image *image, uint64_t cluster, struct q2_refcount_slice *ret_slice,
                      struct q2_error *err);

/* Take one from a refcount, which becomes *ret_refcount. Q2_ERR_FORMAT where it is 0 already. */
int q2_refcount_lower(struct q2_image *image, uint64_t cluster, uint64_t *ret_refcount,
                      struct q2_error *err);

/* Refcounts in a block. */
uint64_t q2_refcount_block_entries(const struct q2_image *image);

/* Find out where the blocks end, after the table in memory has been replaced. */
void q2_refcount_find_end(struct q2_image *image);

/* The first cluster behind the range of the last block that there is. */
uint64_t q2_refcount_end(const struct q2_image *image);

/* Make room for `clusters` contiguous ones behind everything, with refcount 0 and the blocks to
 * count them. */
int q2_refcount_room(struct q2_image *image, uint64_t clusters, uint64_t *ret_first,
                     struct q2_error *err);

/* Make the refcount table larger, so that it has at least `needed` entries. */
int q2_refcount_table_grow(struct q2_image *image, uint64_t needed, struct q2_error *err);

/* Write all of a refcount table to host `offset`; nothing leads there yet. */
int q2_refcount_table_write(struct q2_image *image, const uint64_t *table, uint64_t entries,
                            uint64_t offset, struct q2_error *err);

static inline void
q2_refcount_table_set(struct q2_image *image, uint64_t index, uint64_t raw)
{
    image->refcount_table[index] = raw;
    image->refcount_table_dirty[index / 64 / 64] |= UINT64_C(1) << (index / 64 % 64);
    image->refcount_table_any_dirty = true;
    if (raw)
        image->refcount_blocks_end = q2_max(image->refcount_blocks_end, index + 1);
}

/* The largest cluster number that an offset of 56 bits can name, plus one. */
static inline uint64_t
q2_cluster_limit(const struct q2_image *image)
{
    return (UINT64_C(1) << 56) >> image->geometry.cluster_bits;
}

/* Clusters [first, first + count) belong to the file from now on. */
static inline void
q2_image_grew(struct q2_image *image, uint64_t first, uint64_t count)
{
    struct q2_geometry *geometry = &image->geometry;
    image->virgin = q2_max(image->virgin, first + count);
    if (first + count > geometry->file_clusters) {
        geometry->file_clusters = first + count;
        geometry->file_size = (first + count) << geometry->cluster_bits;
    }
}

#endif
