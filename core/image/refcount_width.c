/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Refcounts of another width: a new table and new blocks are written behind everything else, with
 * themselves counted in. One write of the header leads to them and says how wide they are; before
 * it the file only has bytes at its end that nobody refers to, after it the old blocks are freed as
 * any cluster is. */

#include "core/image/refcount_width.h"

#include "core/image/layout.h"
#include "core/image/refcounts.h"

#include <inttypes.h>
#include <string.h>

struct widening {
    struct q2_image *image;
    const struct q2_amend_options *options;
    struct q2_geometry geometry; /* with the new width */
    uint64_t end;                /* what was there ends before this cluster */
    uint64_t table_clusters, blocks;
    uint64_t table_first, block_first;
    uint64_t *table; /* with room for whole clusters */
    uint64_t *table_dirty;
    uint64_t table_entries;
};

/* Refcount of `cluster` among the old ones, one after the other. */
struct reader {
    struct q2_refcount_slice slice;
    uint64_t next, left;
};

static int
next_refcount(struct q2_image *image, struct reader *reader, uint64_t *ret_refcount,
              struct q2_error *err)
{
    if (reader->left == 0) {
        int rc = q2_refcount_slice(image, reader->next, &reader->slice, err);
        if (rc < 0)
            return rc;
        reader->left = reader->slice.count;
    }
    *ret_refcount = reader->slice.bytes
                        ? q2_refcount_get(reader->slice.bytes, image->geometry.refcount_order,
                                          reader->slice.index)
                        : 0;
    reader->slice.index++;
    reader->left--;
    reader->next++;
    return 0;
}

/* Whether all refcounts fit, and where the last one is that is not 0. */
static int
survey(struct widening *w, struct q2_error *err)
{
    struct q2_image *image = w->image;
    uint64_t max = q2_refcount_max(w->geometry.refcount_order), end = q2_refcount_end(image);
    struct reader reader = {0};
    w->end = image->geometry.file_clusters;
    while (reader.next < end) {
        uint64_t cluster = reader.next, refcount;
        int rc = next_refcount(image, &reader, &refcount, err);
        if (rc < 0)
            return rc;
        if (refcount > max)
            return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                                "%s: refcounts of %u bits cannot hold that of the cluster at "
                                "0x%" PRIx64 ": %" PRIu64,
                                image->file->name, 1U << w->geometry.refcount_order,
                                cluster << image->geometry.cluster_bits, refcount);
        if (refcount > 0)
            w->end = q2_max(w->end, cluster + 1);
    }
    return 0;
}

static int
plan(struct widening *w, struct q2_error *err)
{
    const unsigned bits = w->geometry.cluster_bits;
    q2_layout_refcounts(&w->geometry, w->end, &w->table_clusters, &w->blocks);
    if (w->table_clusters << bits > Q2_MAX_REFCOUNT_TABLE_BYTES)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "%s: a refcount table for %u bits would be larger than its maximum of "
                            "%u bytes",
                            w->image->file->name, 1U << w->geometry.refcount_order,
                            (unsigned)Q2_MAX_REFCOUNT_TABLE_BYTES);
    w->table_first = w->end;
    w->block_first = w->table_first + w->table_clusters;
    w->table_entries = w->table_clusters << bits >> 3;
    w->table = calloc(w->table_entries, sizeof *w->table);
    w->table_dirty = calloc(q2_units(q2_units(w->table_entries, 6), 6) + 1, sizeof *w->table_dirty);
    if (!w->table || !w->table_dirty)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for a refcount table",
                            w->image->file->name);
    for (uint64_t i = 0; i < w->blocks; i++)
        w->table[i] = (w->block_first + i) << bits;
    return 0;
}

static int
write_blocks(struct widening *w, struct q2_error *err)
{
    struct q2_image *image = w->image;
    const struct q2_geometry *g = &w->geometry;
    const uint64_t entries = UINT64_C(1) << g->refcount_block_bits;
    const uint64_t total = w->block_first + w->blocks;
    struct reader reader = {0};
    Q2_AUTOFREE uint8_t *block = malloc(g->cluster_size);
    if (!block)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for a refcount block",
                            image->file->name);
    for (uint64_t i = 0; i < w->blocks; i++) {
        memset(block, 0, g->cluster_size);
        for (uint64_t j = 0, cluster = i * entries; j < entries && cluster < total;
             j++, cluster++) {
            uint64_t refcount = 1; /* of the new structures */
            int rc = cluster < w->end ? next_refcount(image, &reader, &refcount, err) : 0;
            if (rc < 0)
                return rc;
            q2_refcount_set(block, g->refcount_order, j, refcount);
        }
        int rc =
            q2_meta_write(image, Q2_CLAIM_REFCOUNT_BLOCK, w->table[i], block, g->cluster_size, err);
        if (rc < 0)
            return rc;
        q2_amend_progress(w->options, i + 1, w->blocks);
    }
    return 0;
}

static int
claim(struct widening *w, struct q2_error *err)
{
    struct q2_image *image = w->image;
    int rc = q2_claims_add(image->claims, w->table_first, w->table_clusters,
                           Q2_CLAIM_REFCOUNT_TABLE, err);
    if (rc == 0)
        rc = q2_claims_add(image->claims, w->block_first, w->blocks, Q2_CLAIM_REFCOUNT_BLOCK, err);
    return rc;
}

/* The header leads to the new structures. */
static int
store_header(struct widening *w, struct q2_error *err)
{
    struct q2_header header = w->image->header;
    header.refcount_table_offset = w->table_first << w->geometry.cluster_bits;
    header.refcount_table_clusters = (uint32_t)w->table_clusters;
    header.refcount_order = w->geometry.refcount_order;
    return q2_header_store(w->image, &header, err);
}

/* The new structures are the image's from now on; what was before is to be freed. */
static int
adopt(struct widening *w, const struct q2_header *old, struct q2_error *err)
{
    struct q2_image *image = w->image;
    const unsigned bits = image->geometry.cluster_bits;
    uint64_t *table = image->refcount_table, entries = image->refcount_table_entries;
    image->refcount_table = w->table;
    image->refcount_table_entries = w->table_entries;
    q2_refcount_find_end(image);
    free(image->refcount_table_dirty);
    image->refcount_table_dirty = w->table_dirty;
    image->refcount_table_any_dirty = false;
    w->table = w->table_dirty = NULL;
    image->geometry.refcount_order = w->geometry.refcount_order;
    image->geometry.refcount_block_bits = w->geometry.refcount_block_bits;
    q2_cache_forget_all(image->refcount_cache);
    q2_image_grew(image, w->table_first, w->table_clusters + w->blocks);
    image->free_hint = 0;

    /* Should this barrier fail, the disk may still lead to them: then they leak. */
    int rc = q2_image_barrier(image, err);
    q2_claims_remove(image->claims, old->refcount_table_offset >> bits,
                     old->refcount_table_clusters);
    if (rc == 0)
        q2_free_later(image, old->refcount_table_offset >> bits, old->refcount_table_clusters);
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t cluster = (table[i] & ~Q2_REFCOUNT_TABLE_RESERVED) >> bits;
        if (cluster && rc == 0)
            q2_free_later(image, cluster, 1);
        else if (cluster)
            q2_claims_remove(image->claims, cluster, 1);
    }
    free(table);
    return rc < 0 ? rc : q2_image_settle(image, err);
}

int
q2_refcount_width_change(struct q2_image *image, unsigned order,
                         const struct q2_amend_options *options, struct q2_error *err)
{
    struct q2_header old = image->header, wanted = image->header;
    struct widening w = {.image = image, .options = options};
    wanted.refcount_order = order;
    q2_geometry_init(&w.geometry, &wanted, image->geometry.file_size);
    int rc = survey(&w, err);
    if (rc == 0)
        rc = plan(&w, err);
    if (rc == 0)
        rc = claim(&w, err);
    if (rc == 0)
        rc = write_blocks(&w, err);
    if (rc == 0)
        rc = q2_refcount_table_write(image, w.table, w.table_entries,
                                     w.table_first << w.geometry.cluster_bits, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    if (rc == 0)
        rc = store_header(&w, err);
    if (rc == 0)
        rc = adopt(&w, &old, err);
    else if (w.table_clusters)
        q2_claims_remove(image->claims, w.table_first, w.table_clusters + w.blocks);
    free(w.table);
    free(w.table_dirty);
    return rc;
}
