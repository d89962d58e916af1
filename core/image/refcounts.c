/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Refcounts one by one, through the cache, and the structures that hold them ("Host cluster
 * management" in the specification).
 *
 * Where there is no refcount block all clusters of its range are free, so a new block lies at the
 * very start of the range that it covers and counts itself: making one needs no allocation. */

#include "core/image/refcounts.h"

#include <string.h>

/* ---- finding ---- */

uint64_t
q2_refcount_block_entries(const struct q2_image *image)
{
    return UINT64_C(1) << image->geometry.refcount_block_bits;
}

/* Host offset of the block that counts `cluster`; 0: there is none. */
static uint64_t
block_of(const struct q2_image *image, uint64_t cluster)
{
    uint64_t index = cluster >> image->geometry.refcount_block_bits;
    if (index >= image->refcount_table_entries)
        return 0;
    return image->refcount_table[index] & ~Q2_REFCOUNT_TABLE_RESERVED;
}

int
q2_refcount_slice(struct q2_image *image, uint64_t cluster, struct q2_refcount_slice *ret_slice,
                  struct q2_error *err)
{
    const struct q2_geometry *geometry = &image->geometry;
    uint64_t in_block = cluster & (q2_refcount_block_entries(image) - 1);
    uint64_t block = block_of(image, cluster);
    if (!block) {
        *ret_slice =
            (struct q2_refcount_slice){.count = q2_refcount_block_entries(image) - in_block};
        return 0;
    }
    uint64_t slice_bytes = q2_cache_slice_bytes(image->refcount_cache);
    uint64_t per_slice = slice_bytes * 8 >> geometry->refcount_order;
    uint8_t *bytes;
    int rc = q2_cache_get(image->refcount_cache, block + in_block / per_slice * slice_bytes, &bytes,
                          err);
    if (rc < 0)
        return rc;
    *ret_slice = (struct q2_refcount_slice){.bytes = bytes,
                                            .index = in_block % per_slice,
                                            .count = per_slice - in_block % per_slice};
    return 0;
}

int
q2_refcount_read(struct q2_image *image, uint64_t cluster, uint64_t *ret_refcount,
                 struct q2_error *err)
{
    struct q2_refcount_slice slice;
    int rc = q2_refcount_slice(image, cluster, &slice, err);
    if (rc < 0)
        return rc;
    *ret_refcount =
        slice.bytes ? q2_refcount_get(slice.bytes, image->geometry.refcount_order, slice.index) : 0;
    return 0;
}

/* ---- changing ---- */

static int
check_raise(struct q2_image *image, uint64_t first, uint64_t count, struct q2_error *err)
{
    unsigned order = image->geometry.refcount_order;
    for (uint64_t cluster = first; cluster < first + count; cluster++) {
        int rc = q2_refcount_block_need(image, cluster, err);
        uint64_t refcount = 0;
        if (rc == 0)
            rc = q2_refcount_read(image, cluster, &refcount, err);
        if (rc < 0)
            return rc;
        if (refcount >= q2_refcount_max(order))
            return q2_error_set(err, Q2_ERR_RANGE,
                                "%s: the refcount of the cluster at 0x%llx is at the maximum for "
                                "%u bits: %llu",
                                image->file->name,
                                (unsigned long long)(cluster << image->geometry.cluster_bits),
                                1U << order, (unsigned long long)refcount);
    }
    return 0;
}

int
q2_refcount_raise(struct q2_image *image, uint64_t first, uint64_t count, struct q2_error *err)
{
    unsigned order = image->geometry.refcount_order;
    int rc = check_raise(image, first, count, err);
    for (uint64_t done = 0; rc == 0 && done < count;) {
        struct q2_refcount_slice slice;
        rc = q2_refcount_slice(image, first + done, &slice, err);
        if (rc < 0) {
            q2_free_now(image, first, done);
            return rc;
        }
        uint64_t now = q2_min(slice.count, count - done);
        for (uint64_t i = 0; i < now; i++)
            q2_refcount_set(slice.bytes, order, slice.index + i,
                            q2_refcount_get(slice.bytes, order, slice.index + i) + 1);
        q2_cache_dirty(image->refcount_cache, slice.bytes);
        done += now;
    }
    return rc;
}

int
q2_refcount_lower(struct q2_image *image, uint64_t cluster, uint64_t *ret_refcount,
                  struct q2_error *err)
{
    struct q2_refcount_slice slice;
    int rc = q2_refcount_slice(image, cluster, &slice, err);
    if (rc < 0)
        return rc;
    unsigned order = image->geometry.refcount_order;
    uint64_t refcount = slice.bytes ? q2_refcount_get(slice.bytes, order, slice.index) : 0;
    if (refcount == 0)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: the cluster at 0x%llx was in use, but its refcount is 0",
                            image->file->name,
                            (unsigned long long)(cluster << image->geometry.cluster_bits));
    q2_refcount_set(slice.bytes, order, slice.index, refcount - 1);
    q2_cache_dirty(image->refcount_cache, slice.bytes);
    *ret_refcount = refcount - 1;
    return 0;
}

/* ---- making blocks ---- */

void
q2_refcount_find_end(struct q2_image *image)
{
    uint64_t end = image->refcount_table_entries;
    while (end > 0 && !(image->refcount_table[end - 1] & ~Q2_REFCOUNT_TABLE_RESERVED))
        end--;
    image->refcount_blocks_end = end;
}

uint64_t
q2_refcount_end(const struct q2_image *image)
{
    return image->refcount_blocks_end << image->geometry.refcount_block_bits;
}

/* Zeros for the blocks, which count themselves, and the entries that lead to them. */
static int
put_blocks(struct q2_image *image, uint64_t first_index, uint64_t blocks, uint64_t at,
           struct q2_error *err)
{
    const struct q2_geometry *geometry = &image->geometry;
    uint64_t slice_bytes = q2_cache_slice_bytes(image->refcount_cache);
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t offset = (at + i) << geometry->cluster_bits;
        for (uint64_t part = 0; part < geometry->cluster_size; part += slice_bytes) {
            uint8_t *bytes;
            int rc = q2_cache_make(image->refcount_cache, offset + part, &bytes, err);
            if (rc < 0)
                return rc;
        }
        q2_refcount_table_set(image, first_index + i, offset);
    }
    q2_image_grew(image, at, blocks);
    for (uint64_t i = 0; i < blocks; i++) {
        struct q2_refcount_slice slice;
        int rc = q2_refcount_slice(image, at + i, &slice, err);
        if (rc < 0)
            return rc;
        q2_refcount_set(slice.bytes, geometry->refcount_order, slice.index, 1);
        q2_cache_dirty(image->refcount_cache, slice.bytes);
    }
    return 0;
}

/* Blocks [first_index, first_index + blocks) of the table, put at clusters from `at` on, all
 * counting zero so far. `at` is in the range of the first. */
static int
make_blocks(struct q2_image *image, uint64_t first_index, uint64_t blocks, uint64_t at,
            struct q2_error *err)
{
    unsigned bits = image->geometry.cluster_bits;
    if (first_index + blocks > image->refcount_table_entries ||
        at + blocks > q2_cluster_limit(image))
        return q2_error_set(err, Q2_ERR_NOSPACE,
                            "%s: there is no room for %llu more refcount blocks", image->file->name,
                            (unsigned long long)blocks);
    int rc = q2_check_overlap(image, Q2_CLAIM_NONE, at << bits, blocks << bits, err);
    if (rc < 0)
        return rc;
    rc = q2_claims_add(image->claims, at, blocks, Q2_CLAIM_REFCOUNT_BLOCK, err);
    if (rc == 0)
        rc = put_blocks(image, first_index, blocks, at, err);
    if (rc < 0) { /* nothing leads there, and nobody has been given a cluster of their range */
        for (uint64_t i = 0; i < blocks; i++)
            q2_refcount_table_set(image, first_index + i, 0);
        q2_refcount_find_end(image);
        q2_cache_forget(image->refcount_cache, at << bits, blocks << bits);
        q2_claims_remove(image->claims, at, blocks);
    }
    return rc;
}

/* Number of blocks that count themselves and `clusters` more from the start of a block's range. */
static uint64_t
blocks_for(const struct q2_image *image, uint64_t clusters)
{
    uint64_t blocks = 1;
    while (blocks << image->geometry.refcount_block_bits < clusters + blocks)
        blocks++;
    return blocks;
}

int
q2_refcount_block_need(struct q2_image *image, uint64_t cluster, struct q2_error *err)
{
    if (block_of(image, cluster))
        return 0;
    uint64_t index = cluster >> image->geometry.refcount_block_bits;
    if (index >= image->refcount_table_entries) {
        int rc = q2_refcount_table_grow(image, index + 1, err);
        if (rc < 0 || block_of(image, cluster))
            return rc;
    }
    return make_blocks(image, index, 1, index << image->geometry.refcount_block_bits, err);
}

int
q2_refcount_room(struct q2_image *image, uint64_t clusters, uint64_t *ret_first,
                 struct q2_error *err)
{
    uint64_t start = q2_refcount_end(image);
    uint64_t blocks = blocks_for(image, clusters);
    uint64_t index = start >> image->geometry.refcount_block_bits;
    if (index + blocks > image->refcount_table_entries) {
        int rc = q2_refcount_table_grow(image, index + blocks, err);
        if (rc < 0)
            return rc;
        start = q2_refcount_end(image);
        index = start >> image->geometry.refcount_block_bits;
        if (index + blocks > image->refcount_table_entries)
            return q2_error_set(err, Q2_ERR_NOSPACE, "%s: the refcount table is full",
                                image->file->name);
    }
    int rc = make_blocks(image, index, blocks, start, err);
    if (rc == 0)
        *ret_first = start + blocks;
    return rc;
}

/* ---- growing the table ---- */

/* Entries that a larger table should have so that it, the blocks that count it, and `needed`
 * entries and some more fit. */
static uint64_t
larger_table(const struct q2_image *image, uint64_t needed)
{
    uint64_t per_cluster = image->geometry.cluster_size / 8;
    uint64_t wanted = q2_max(needed + needed / 2, image->refcount_table_entries * 2);
    wanted = (wanted / per_cluster + 1) * per_cluster;
    /* The area itself, of table and blocks, needs entries too. */
    wanted += (blocks_for(image, wanted / per_cluster) / per_cluster + 1) * per_cluster;
    return q2_min(wanted, Q2_MAX_REFCOUNT_TABLE_BYTES / 8);
}

int
q2_refcount_table_write(struct q2_image *image, const uint64_t *table, uint64_t entries,
                        uint64_t offset, struct q2_error *err)
{
    Q2_AUTOFREE uint8_t *bytes = malloc(entries * 8);
    if (!bytes)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for a refcount table",
                            image->file->name);
    for (uint64_t i = 0; i < entries; i++)
        q2_store_be64(bytes + i * 8, table[i]);
    return q2_meta_write(image, Q2_CLAIM_REFCOUNT_TABLE, offset, bytes, entries * 8, err);
}

/* Lead the header to the table that is now in memory. */
static int
switch_table(struct q2_image *image, uint64_t offset, uint64_t entries, struct q2_error *err)
{
    const struct q2_geometry *geometry = &image->geometry;
    int rc = q2_cache_write(image->refcount_cache, false, err);
    if (rc == 0)
        rc = q2_refcount_table_write(image, image->refcount_table, entries, offset, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    struct q2_header header = image->header;
    header.refcount_table_offset = offset;
    header.refcount_table_clusters = (uint32_t)(entries * 8 >> geometry->cluster_bits);
    if (rc == 0)
        rc = q2_header_store(image, &header, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    return rc;
}

/* Give the table in memory `entries` entries; new ones are 0. */
static int
extend_memory(struct q2_image *image, uint64_t entries, struct q2_error *err)
{
    uint64_t words = q2_units(q2_units(entries, 6), 6);
    uint64_t *table = calloc(entries, sizeof *table), *dirty = calloc(words, sizeof *dirty);
    if (!table || !dirty) {
        free(table);
        free(dirty);
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a refcount table");
    }
    memcpy(table, image->refcount_table, image->refcount_table_entries * sizeof *table);
    memcpy(dirty, image->refcount_table_dirty,
           q2_units(q2_units(image->refcount_table_entries, 6), 6) * sizeof *dirty);
    free(image->refcount_table);
    free(image->refcount_table_dirty);
    image->refcount_table = table;
    image->refcount_table_dirty = dirty;
    image->refcount_table_entries = entries;
    return 0;
}

int
q2_refcount_table_grow(struct q2_image *image, uint64_t needed, struct q2_error *err)
{
    const struct q2_geometry *geometry = &image->geometry;
    uint64_t old_entries = image->refcount_table_entries;
    uint64_t old_offset = image->header.refcount_table_offset;
    uint64_t entries = larger_table(image, needed);
    if (entries <= old_entries || needed > entries)
        return q2_error_set(err, Q2_ERR_NOSPACE,
                            "%s: the refcount table is at its maximum of %u bytes",
                            image->file->name, (unsigned)Q2_MAX_REFCOUNT_TABLE_BYTES);
    uint64_t start = q2_refcount_end(image), clusters = entries * 8 >> geometry->cluster_bits;
    uint64_t blocks = blocks_for(image, clusters);
    int rc = extend_memory(image, entries, err);
    if (rc == 0)
        rc = make_blocks(image, start >> geometry->refcount_block_bits, blocks, start, err);
    if (rc == 0)
        rc = q2_refcount_raise(image, start + blocks, clusters, err);
    if (rc == 0)
        rc = q2_claims_add(image->claims, start + blocks, clusters, Q2_CLAIM_REFCOUNT_TABLE, err);
    if (rc == 0) {
        q2_image_grew(image, start + blocks, clusters);
        rc = switch_table(image, (start + blocks) << geometry->cluster_bits, entries, err);
    }
    if (rc < 0 && image->header.refcount_table_offset == old_offset) {
        /* The disk has the old table, which has no room for the new entries: forget them. */
        q2_claims_remove(image->claims, start, blocks + clusters);
        q2_cache_forget(image->refcount_cache, start << geometry->cluster_bits,
                        blocks << geometry->cluster_bits);
        for (uint64_t i = start >> geometry->refcount_block_bits; i < image->refcount_table_entries;
             i++)
            image->refcount_table[i] = 0;
        image->refcount_table_entries = q2_min(old_entries, image->refcount_table_entries);
        q2_refcount_find_end(image);
        return rc;
    }
    memset(image->refcount_table_dirty, 0,
           q2_units(q2_units(entries, 6), 6) * sizeof *image->refcount_table_dirty);
    image->refcount_table_any_dirty = false;
    /* Should the barrier have failed, nobody knows which of the two the disk has: both stay. */
    if (rc == 0)
        q2_free_now(image, old_offset >> geometry->cluster_bits,
                    old_entries * 8 >> geometry->cluster_bits);
    return rc;
}
