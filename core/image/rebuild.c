/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Refcounts anew, for an image that is marked dirty: those on the disk say nothing, so all
 * references are counted, and the refcounts become what was counted.
 *
 * Where a refcount block is missing, a new one goes behind the end of the file, and so does a new
 * refcount table if the old one has become too small. Order on the disk, with a barrier between the
 * steps:
 *    a. all refcount blocks, those that are there in place, and the new table
 *    b. the entries that lead to new blocks, or the header if there is a new table
 *    c. COPIED flags of the active tables
 *    d. the header, with the dirty bit clear
 * Until d the image stays dirty: after a crash it is counted once more. Nothing is written before
 * everything has been counted and found to obey the rules. */

#include "core/image/census.h"
#include "core/image/refcounts.h"
#include "core/image/tree.h"

#include <string.h>

struct rebuild {
    struct q2_image *image;
    struct q2_census census;
    uint64_t end; /* the first cluster behind all others */
    /* The refcount table that will be, new blocks included; what is new is at or behind `old_end`.
     */
    uint64_t *table;
    uint64_t entries;
    uint64_t table_offset; /* bytes */
    uint64_t old_end;      /* `end` before anything was added, clusters */
    uint8_t *block;
};

static int
no_memory(const struct rebuild *rebuild, struct q2_error *err)
{
    return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory to rebuild refcounts",
                        q2_image_name(rebuild->image));
}

/* ---- what was counted ---- */

static const struct q2_tally *
tally_of(const struct rebuild *rebuild, unsigned which)
{
    const struct q2_census *census = &rebuild->census;
    return which == 0 ? census->fixed : which == 1 ? census->tables : census->clusters;
}

static int
check_chunk(const struct rebuild *rebuild, const struct q2_chunk *chunk, uint64_t number,
            struct q2_error *err)
{
    const struct q2_geometry *geometry = &rebuild->image->geometry;
    uint64_t max = q2_refcount_max(geometry->refcount_order);
    if (!chunk->counts && chunk->uniform <= max)
        return 0;
    for (unsigned i = 0; i < Q2_CHUNK_CLUSTERS; i++) {
        uint64_t references = q2_chunk_references(chunk, i);
        if (references > max)
            return q2_error_set(
                err, Q2_ERR_FORMAT,
                "%s: there are %llu references to the cluster at 0x%llx, more than refcounts of %u "
                "bits can count",
                q2_image_name(rebuild->image), (unsigned long long)references,
                (unsigned long long)(((number << Q2_CHUNK_BITS) + i) << geometry->cluster_bits),
                1U << geometry->refcount_order);
    }
    return 0;
}

/* Whether all counts fit, and where the last cluster in use is. */
static int
look_at_counts(struct rebuild *rebuild, struct q2_error *err)
{
    rebuild->end = rebuild->image->geometry.file_clusters;
    for (unsigned which = 0; which < 3; which++) {
        uint64_t number = 0;
        struct q2_chunk *chunk;
        for (; (chunk = q2_tally_next(tally_of(rebuild, which), &number)); number++) {
            int rc = check_chunk(rebuild, chunk, number, err);
            if (rc < 0)
                return rc;
            for (unsigned i = Q2_CHUNK_CLUSTERS; i-- > 0;)
                if (q2_bit_test(chunk->seen, i)) {
                    rebuild->end = q2_max(rebuild->end, (number << Q2_CHUNK_BITS) + i + 1);
                    break;
                }
        }
    }
    rebuild->old_end = rebuild->end;
    return 0;
}

/* ---- blocks and table ---- */

/* A larger table, at the end; its entries are still to be found. */
static int
plan_table(struct rebuild *rebuild, uint64_t needed, struct q2_error *err)
{
    unsigned bits = rebuild->image->geometry.cluster_bits;
    /* Some more, so that the blocks that count it and each other fit as well. */
    uint64_t clusters = q2_units((needed + needed / 2 + 16) * 8, bits);
    uint64_t most = Q2_MAX_REFCOUNT_TABLE_BYTES >> bits, entries;
    if (clusters > most)
        clusters = q2_max(most, 1);
    entries = clusters << bits >> 3;
    if (entries < needed || entries <= rebuild->entries)
        return q2_error_set(err, Q2_ERR_NOSPACE,
                            "%s: the refcount table would need %llu entries, more than it can have",
                            q2_image_name(rebuild->image), (unsigned long long)needed);
    uint64_t *table = reallocarray(rebuild->table, entries, sizeof *table);
    if (!table)
        return no_memory(rebuild, err);
    memset(table + rebuild->entries, 0, (entries - rebuild->entries) * sizeof *table);
    rebuild->table = table;
    rebuild->entries = entries;
    rebuild->table_offset = rebuild->end << bits;
    int rc = q2_census_add_fixed(&rebuild->census, rebuild->end, clusters, err);
    rebuild->end += clusters;
    return rc;
}

/* Plan a block for the entry if it has none. *ret_added: there is a new one, or a new table. */
static int
plan_block(struct rebuild *rebuild, uint64_t index, bool *ret_added, struct q2_error *err)
{
    if (index >= rebuild->entries) {
        *ret_added = true;
        int rc = plan_table(rebuild, index + 1, err);
        if (rc < 0)
            return rc;
    }
    if (rebuild->table[index] & ~Q2_REFCOUNT_TABLE_RESERVED)
        return 0;
    *ret_added = true;
    rebuild->table[index] = rebuild->end << rebuild->image->geometry.cluster_bits;
    return q2_census_add_fixed(&rebuild->census, rebuild->end++, 1, err);
}

/* Blocks for all that one tally counts. */
static int
plan_blocks(struct rebuild *rebuild, const struct q2_tally *tally, bool *ret_added,
            struct q2_error *err)
{
    unsigned bits = rebuild->image->geometry.refcount_block_bits;
    uint64_t number = 0;
    for (struct q2_chunk *chunk; (chunk = q2_tally_next(tally, &number)); number++) {
        uint64_t base = number << Q2_CHUNK_BITS, last = UINT64_MAX;
        for (unsigned word = 0; word < Q2_CHUNK_WORDS; word++) {
            uint64_t index = (base + word * 64) >> bits;
            /* Blocks count 64 clusters or a multiple of that. */
            if (!chunk->seen[word] || index == last)
                continue;
            int rc = plan_block(rebuild, index, ret_added, err);
            if (rc < 0)
                return rc;
            last = index;
        }
    }
    return 0;
}

/* New blocks are counted too, perhaps by more new blocks: until no more are needed. */
static int
plan(struct rebuild *rebuild, struct q2_error *err)
{
    struct q2_image *image = rebuild->image;
    rebuild->entries = image->refcount_table_entries;
    rebuild->table_offset = image->header.refcount_table_offset;
    rebuild->table = calloc(rebuild->entries + 1, sizeof *rebuild->table);
    rebuild->block = malloc(image->geometry.cluster_size);
    if (!rebuild->table || !rebuild->block)
        return no_memory(rebuild, err);
    if (rebuild->entries)
        memcpy(rebuild->table, image->refcount_table, rebuild->entries * sizeof *rebuild->table);
    for (bool added = true; added;) {
        added = false;
        for (unsigned which = 0; which < 3; which++) {
            int rc = plan_blocks(rebuild, tally_of(rebuild, which), &added, err);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

/* ---- writing ---- */

/* Put what a tally counts of block `index` into it. */
static void
fill_from(struct rebuild *rebuild, const struct q2_tally *tally, uint64_t index)
{
    const struct q2_geometry *geometry = &rebuild->image->geometry;
    uint64_t first = index << geometry->refcount_block_bits, number = first >> Q2_CHUNK_BITS;
    uint64_t end = (index + 1) << geometry->refcount_block_bits;
    for (struct q2_chunk *chunk; (chunk = q2_tally_next(tally, &number)); number++) {
        uint64_t base = number << Q2_CHUNK_BITS;
        uint64_t from = q2_max(first, base), to = q2_min(end, base + Q2_CHUNK_CLUSTERS);
        if (base >= end)
            break;
        for (uint64_t at = from; at < to; at += 64)
            for (uint64_t left = chunk->seen[(at - base) / 64]; left; left &= left - 1) {
                unsigned bit = (unsigned)__builtin_ctzll(left);
                q2_refcount_set(rebuild->block, geometry->refcount_order, at + bit - first,
                                q2_chunk_references(chunk, (unsigned)(at + bit - base)));
            }
    }
}

static int
write_blocks(struct rebuild *rebuild, struct q2_error *err)
{
    struct q2_image *image = rebuild->image;
    uint64_t size = image->geometry.cluster_size;
    for (uint64_t index = 0; index < rebuild->entries; index++) {
        uint64_t offset = rebuild->table[index] & ~Q2_REFCOUNT_TABLE_RESERVED;
        if (!offset)
            continue;
        memset(rebuild->block, 0, size);
        for (unsigned which = 0; which < 3; which++)
            fill_from(rebuild, tally_of(rebuild, which), index);
        int rc = q2_meta_write(image, Q2_CLAIM_REFCOUNT_BLOCK, offset, rebuild->block, size, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The table becomes the image's. `in_place`: its entries are still to be written where it is. */
static int
adopt_table(struct rebuild *rebuild, bool in_place, struct q2_error *err)
{
    struct q2_image *image = rebuild->image;
    uint64_t words = q2_units(q2_units(rebuild->entries, 6), 6);
    uint64_t *dirty = calloc(words + 1, sizeof *dirty);
    if (!dirty)
        return no_memory(rebuild, err);
    free(image->refcount_table_dirty);
    image->refcount_table_dirty = dirty;
    for (uint64_t i = 0; i < rebuild->entries; i++) {
        uint64_t old = i < image->refcount_table_entries ? image->refcount_table[i] : 0;
        if (in_place && old != rebuild->table[i]) {
            dirty[i / 64 / 64] |= UINT64_C(1) << (i / 64 % 64);
            image->refcount_table_any_dirty = true;
        }
    }
    free(image->refcount_table);
    image->refcount_table = Q2_STEAL(rebuild->table);
    image->refcount_table_entries = rebuild->entries;
    q2_refcount_find_end(image);
    return 0;
}

/* Claims for what lies behind the old end of the file. */
static int
claim_new(struct rebuild *rebuild, struct q2_error *err)
{
    struct q2_image *image = rebuild->image;
    unsigned bits = image->geometry.cluster_bits;
    int rc = 0;
    for (uint64_t i = 0; i < rebuild->entries && rc == 0; i++)
        if (rebuild->table[i] >> bits >= rebuild->old_end)
            rc = q2_claims_add(image->claims, rebuild->table[i] >> bits, 1, Q2_CLAIM_REFCOUNT_BLOCK,
                               err);
    if (rc == 0 && rebuild->table_offset >> bits >= rebuild->old_end)
        rc = q2_claims_add(image->claims, rebuild->table_offset >> bits,
                           rebuild->entries * 8 >> bits, Q2_CLAIM_REFCOUNT_TABLE, err);
    if (rc == 0 && rebuild->end > rebuild->old_end)
        q2_image_grew(image, rebuild->old_end, rebuild->end - rebuild->old_end);
    return rc;
}

/* Steps a and b. */
static int
write_refcounts(struct rebuild *rebuild, struct q2_error *err)
{
    struct q2_image *image = rebuild->image;
    unsigned bits = image->geometry.cluster_bits;
    struct q2_header header = image->header;
    bool new_table = rebuild->table_offset != header.refcount_table_offset;
    int rc = claim_new(rebuild, err);
    if (rc == 0)
        rc = write_blocks(rebuild, err);
    if (rc == 0 && new_table)
        rc = q2_refcount_table_write(image, rebuild->table, rebuild->entries, rebuild->table_offset,
                                     err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    q2_cache_forget_all(image->refcount_cache);
    if (rc == 0)
        rc = adopt_table(rebuild, !new_table, err);
    if (rc == 0 && new_table) {
        uint64_t old = header.refcount_table_offset >> bits;
        uint64_t old_clusters = header.refcount_table_clusters;
        header.refcount_table_offset = rebuild->table_offset;
        header.refcount_table_clusters = (uint32_t)(rebuild->entries * 8 >> bits);
        rc = q2_header_store(image, &header, err);
        if (rc == 0)
            q2_free_later(image, old, old_clusters);
    }
    if (rc == 0)
        rc = q2_image_settle(image, err);
    return rc < 0 ? rc : q2_image_barrier(image, err);
}

/* Steps c and d. */
static int
finish(struct q2_image *image, struct q2_error *err)
{
    int rc = q2_active_mend_copied(image, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    struct q2_header header = image->header;
    header.incompatible_features &= ~(uint64_t)Q2_INCOMPATIBLE_DIRTY;
    if (rc == 0)
        rc = q2_header_store(image, &header, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    if (rc == 0)
        image->marked_dirty = false;
    image->free_hint = 0;
    q2_pack_forget(image, 0, UINT64_MAX);
    return rc;
}

int
q2_refcounts_rebuild(struct q2_image *image, struct q2_error *err)
{
    struct rebuild rebuild = {.image = image};
    int rc = q2_census_take(image, &rebuild.census, err);
    if (rc < 0)
        return rc;
    rc = look_at_counts(&rebuild, err);
    if (rc == 0)
        rc = plan(&rebuild, err);
    if (rc == 0)
        rc = write_refcounts(&rebuild, err);
    if (rc == 0)
        rc = finish(image, err);
    q2_census_destroy(&rebuild.census);
    free(rebuild.table);
    free(rebuild.block);
    return rc;
}
