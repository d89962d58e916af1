/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/image/census.h"

#include "core/image/bitmap_list.h"
#include "core/image/snapshot_table.h"
#include "core/image/strict.h"
#include "core/image/tree.h"

#include <string.h>

enum { PIECE_ENTRIES = 8192 }; /* of a bitmap table that are read at once */

void
q2_census_destroy(struct q2_census *census)
{
    q2_tally_free(census->fixed);
    q2_tally_free(census->tables);
    q2_tally_free(census->clusters);
}

int
q2_census_add_fixed(struct q2_census *census, uint64_t first, uint64_t count, struct q2_error *err)
{
    struct q2_tally_cursor cursor;
    q2_tally_cursor_init(&cursor, census->fixed);
    int rc = q2_tally_add(&cursor, first, count, 1, 0, err);
    q2_tally_release(&cursor);
    return rc;
}

static int
add_bytes(struct q2_image *image, struct q2_census *census, const char *what, uint64_t offset,
          uint64_t length, struct q2_error *err)
{
    unsigned bits = image->geometry.cluster_bits;
    uint64_t first = offset >> bits, end = q2_units(offset + length, bits);
    if (length == 0)
        return 0;
    if (!q2_range_inside(offset, length, image->geometry.file_clusters << bits))
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: %s at 0x%llx with %llu bytes is not inside the file",
                            q2_image_name(image), what, (unsigned long long)offset,
                            (unsigned long long)length);
    return q2_census_add_fixed(census, first, end - first, err);
}

/* ---- refcount structures ---- */

static int
add_refcounts(struct q2_image *image, struct q2_census *census, struct q2_error *err)
{
    uint64_t table = image->header.refcount_table_offset;
    struct q2_strict strict;
    q2_strict_init(&strict, q2_image_name(image));
    int rc =
        add_bytes(image, census, "the refcount table", table,
                  (uint64_t)image->header.refcount_table_clusters << image->geometry.cluster_bits,
                  err);
    for (uint64_t i = 0; i < image->refcount_table_entries && rc == 0; i++) {
        uint64_t raw = image->refcount_table[i];
        bool leads = q2_refcount_entry_validate(&image->geometry, raw, table + i * 8, &strict.sink);
        rc = q2_strict_result(&strict, err);
        if (rc == 0 && leads)
            rc = add_bytes(image, census, "a refcount block", raw & ~Q2_REFCOUNT_TABLE_RESERVED,
                           image->geometry.cluster_size, err);
    }
    return rc;
}

/* ---- bitmaps ---- */

static int
add_bitmap_clusters(struct q2_image *image, struct q2_census *census,
                    const struct q2_bitmap *bitmap, struct q2_error *err)
{
    Q2_AUTOFREE uint64_t *entries = calloc(PIECE_ENTRIES, sizeof *entries);
    struct q2_strict strict;
    if (!entries)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a bitmap table");
    q2_strict_init(&strict, q2_image_name(image));
    for (uint64_t i = 0; i < bitmap->table_size; i++) {
        uint64_t in_piece = i % PIECE_ENTRIES, at = bitmap->table_offset + i * 8;
        int rc = 0;
        if (in_piece == 0)
            rc = q2_meta_read(image, at, entries, q2_min(PIECE_ENTRIES, bitmap->table_size - i) * 8,
                              err);
        if (rc < 0)
            return rc;
        uint64_t raw = be64toh(entries[in_piece]);
        bool leads = q2_bitmap_entry_validate(&image->geometry, raw, at, &strict.sink);
        rc = q2_strict_result(&strict, err);
        if (rc == 0 && leads)
            rc = add_bytes(image, census, "a bitmap cluster", q2_entry_offset(raw),
                           image->geometry.cluster_size, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int
add_bitmaps(struct q2_image *image, struct q2_census *census, struct q2_error *err)
{
    const struct q2_bitmaps *bitmaps = image->bitmaps;
    if (!bitmaps)
        return 0;
    int rc = add_bytes(image, census, "the bitmap directory", bitmaps->directory_offset,
                       bitmaps->directory_size, err);
    for (unsigned i = 0; i < bitmaps->count && rc == 0; i++) {
        const struct q2_bitmap *entry = &bitmaps->items[i].entry;
        rc = add_bytes(image, census, "a bitmap table", entry->table_offset,
                       (uint64_t)entry->table_size * 8, err);
        if (rc == 0)
            rc = add_bitmap_clusters(image, census, entry, err);
    }
    return rc;
}

/* ---- states ---- */

static int
add_states(struct q2_image *image, struct q2_census *census, struct q2_error *err)
{
    const struct q2_snapshots *snapshots = image->snapshots;
    struct q2_tree tree = q2_tree_active(image);
    int rc = add_bytes(image, census, "the L1 table", tree.at, tree.end * 8, err);
    if (rc == 0)
        rc = q2_tree_count(image, &tree, census->tables, census->clusters, err);
    if (rc == 0 && snapshots)
        rc = add_bytes(image, census, "the snapshot table", image->header.snapshots_offset,
                       snapshots->length, err);
    for (unsigned i = 0; snapshots && i < snapshots->count && rc == 0; i++) {
        const struct q2_snapshot *fixed = &snapshots->entries[i].fixed;
        Q2_AUTOFREE uint64_t *l1 = NULL;
        rc = add_bytes(image, census, "a snapshot's L1 table", fixed->l1_table_offset,
                       (uint64_t)fixed->l1_size * 8, err);
        if (rc == 0)
            rc = q2_tree_load(image, fixed->l1_table_offset, fixed->l1_size, &l1, err);
        tree = (struct q2_tree){.l1 = l1, .end = fixed->l1_size, .at = fixed->l1_table_offset};
        if (rc == 0)
            rc = q2_tree_count(image, &tree, census->tables, census->clusters, err);
    }
    return rc;
}

/* ---- who may share ---- */

static int
complain(const struct q2_image *image, uint64_t cluster, const char *a, const char *b,
         struct q2_error *err)
{
    return q2_error_set(err, Q2_ERR_FORMAT, "%s: the cluster at 0x%llx is used as %s and as %s",
                        q2_image_name(image),
                        (unsigned long long)(cluster << image->geometry.cluster_bits), a, b);
}

static int
check_pair(const struct q2_image *image, const struct q2_tally *a, const char *a_name,
           const struct q2_tally *b, const char *b_name, struct q2_error *err)
{
    uint64_t number = 0;
    for (struct q2_chunk *chunk; (chunk = q2_tally_next(a, &number)); number++) {
        const struct q2_chunk *other = q2_tally_chunk(b, number);
        for (unsigned word = 0; other && word < Q2_CHUNK_WORDS; word++) {
            uint64_t both = chunk->seen[word] & other->seen[word];
            if (both)
                return complain(image,
                                (number << Q2_CHUNK_BITS) + word * 64 +
                                    (unsigned)__builtin_ctzll(both),
                                a_name, b_name, err);
        }
    }
    return 0;
}

/* What is neither an L2 table nor a guest cluster belongs to one owner alone. */
static int
check_fixed(const struct q2_image *image, const struct q2_census *census, struct q2_error *err)
{
    uint64_t number = 0;
    for (struct q2_chunk *chunk; (chunk = q2_tally_next(census->fixed, &number)); number++)
        for (unsigned word = 0; word < Q2_CHUNK_WORDS; word++) {
            uint64_t overlap = q2_chunk_word(chunk->overlap, word);
            if (overlap)
                return complain(image,
                                (number << Q2_CHUNK_BITS) + word * 64 +
                                    (unsigned)__builtin_ctzll(overlap),
                                "metadata", "other metadata", err);
        }
    return 0;
}

static int
count_all(struct q2_image *image, struct q2_census *census, struct q2_error *err)
{
    int rc = q2_census_add_fixed(census, 0, 1, err);
    if (rc == 0 && image->area.has_crypto)
        rc = add_bytes(image, census, "the LUKS header", image->area.crypto_offset,
                       image->area.crypto_length, err);
    if (rc == 0)
        rc = add_refcounts(image, census, err);
    if (rc == 0)
        rc = add_bitmaps(image, census, err);
    if (rc == 0)
        rc = add_states(image, census, err);
    if (rc == 0)
        rc = check_fixed(image, census, err);
    if (rc == 0)
        rc = check_pair(image, census->fixed, "metadata", census->tables, "an L2 table", err);
    if (rc == 0)
        rc = check_pair(image, census->fixed, "metadata", census->clusters, "guest data", err);
    if (rc == 0)
        rc = check_pair(image, census->tables, "an L2 table", census->clusters, "guest data", err);
    return rc;
}

int
q2_census_take(struct q2_image *image, struct q2_census *census, struct q2_error *err)
{
    *census = (struct q2_census){0};
    q2_budget_init(&census->budget, Q2_TREE_BUDGET);
    int rc = q2_tally_new(&census->budget, &census->fixed, err);
    if (rc == 0)
        rc = q2_tally_new(&census->budget, &census->tables, err);
    if (rc == 0)
        rc = q2_tally_new(&census->budget, &census->clusters, err);
    if (rc == 0)
        rc = count_all(image, census, err);
    if (rc < 0)
        q2_census_destroy(census);
    return rc;
}
