/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/image/tree.h"

#include "core/format/references.h"
#include "core/image/refcount_bulk.h"
#include "core/image/strict.h"

#include <string.h>

/* L2 tables that follow each other in the file are read at once, up to this many bytes, or a table
 * where that is more. */
enum { WINDOW_BYTES = 2 << 20 };

/* One walk over the L2 tables of a tree. */
struct walk {
    struct q2_image *image;
    const struct q2_tree *tree;
    /* Look at the table at host offset `at`, which L1 entry `index` leads to, and perhaps change
     * it: then *ret_changed is set. */
    int (*visit)(struct walk *walk, uint8_t *table, uint64_t at, uint64_t index, bool *ret_changed,
                 struct q2_error *err);
    struct q2_strict strict;
    struct q2_tally_cursor tables, clusters; /* for counting */
    struct q2_ones *ones;                    /* for mending COPIED flags */
    uint8_t *window;
};

struct q2_tree
q2_tree_active(const struct q2_image *image)
{
    return (struct q2_tree){.l1 = image->l1,
                            .end = image->header.l1_size,
                            .at = image->header.l1_table_offset};
}

int
q2_tree_load(struct q2_image *image, uint64_t offset, uint64_t entries, uint64_t **ret_l1,
             struct q2_error *err)
{
    uint64_t *l1 = entries <= Q2_MAX_L1_BYTES / 8 ? calloc(entries + 1, sizeof *l1) : NULL;
    if (!l1)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for an L1 table of %llu entries",
                            q2_image_name(image), (unsigned long long)entries);
    int rc = entries ? q2_meta_read(image, offset, l1, entries * 8, err) : 0;
    if (rc < 0) {
        free(l1);
        return rc;
    }
    for (uint64_t i = 0; i < entries; i++)
        l1[i] = be64toh(l1[i]);
    *ret_l1 = l1;
    return 0;
}

/* ---- walking ---- */

/* Whether L1 entry `index` leads to an L2 table. */
static bool
leads_on(struct walk *walk, uint64_t index)
{
    return q2_l1_entry_validate(&walk->image->geometry, walk->tree->l1[index],
                                walk->tree->at + index * 8, &walk->strict.sink);
}

/* How many L2 tables, beginning with that of L1 entry `index`, follow each other in the file. */
static uint64_t
tables_at_once(struct walk *walk, uint64_t index)
{
    const struct q2_tree *tree = walk->tree;
    uint64_t size = walk->image->geometry.cluster_size, offset = q2_entry_offset(tree->l1[index]);
    uint64_t most = q2_min(q2_max(WINDOW_BYTES / size, 1), tree->end - index), count = 1;
    while (count < most && q2_entry_offset(tree->l1[index + count]) == offset + count * size &&
           leads_on(walk, index + count))
        count++;
    return count;
}

/* The tables of L1 entries [index, index + count), which follow each other in the file. */
static int
walk_window(struct walk *walk, uint64_t index, uint64_t count, struct q2_error *err)
{
    uint64_t size = walk->image->geometry.cluster_size;
    uint64_t at = q2_entry_offset(walk->tree->l1[index]), from = count, to = 0;
    int rc = q2_meta_read(walk->image, at, walk->window, count * size, err);
    for (uint64_t i = 0; i < count && rc == 0; i++) {
        bool changed = false;
        rc = walk->visit(walk, walk->window + i * size, at + i * size, index + i, &changed, err);
        if (changed) {
            from = q2_min(from, i);
            to = i + 1;
        }
    }
    if (rc == 0 && from < to)
        rc = q2_meta_write(walk->image, Q2_CLAIM_L2, at + from * size, walk->window + from * size,
                           (to - from) * size, err);
    return rc;
}

static int
walk_tree(struct walk *walk, struct q2_error *err)
{
    const struct q2_tree *tree = walk->tree;
    q2_strict_init(&walk->strict, q2_image_name(walk->image));
    /* As much as there are tables for, one at least. */
    uint64_t tables = tree->end > tree->first ? tree->end - tree->first : 0;
    uint64_t size = walk->image->geometry.cluster_size;
    walk->window = malloc(q2_max(q2_min(WINDOW_BYTES, tables * size), size));
    int rc = walk->window ? 0 : q2_error_set(err, Q2_ERR_NOMEM, "no memory for L2 tables");
    for (uint64_t i = tree->first, count; i < tree->end && rc == 0; i += count) {
        bool readable = leads_on(walk, i);
        count = readable ? tables_at_once(walk, i) : 1;
        rc = q2_strict_result(&walk->strict, err);
        if (rc == 0 && readable)
            rc = walk_window(walk, i, count, err);
    }
    free(walk->window);
    return rc;
}

/* ---- counting ---- */

static int
count_entry(struct walk *walk, const struct q2_l2_entry *entry, uint64_t at, uint64_t guest,
            struct q2_error *err)
{
    const struct q2_geometry *geometry = &walk->image->geometry;
    unsigned flags = entry->raw & Q2_ENTRY_COMPRESSED ? Q2_REFERENCE_PACKED : 0;
    uint64_t first, count;
    q2_l2_entry_validate(geometry, entry, at, guest, &walk->strict.sink);
    int rc = q2_strict_result(&walk->strict, err);
    if (rc == 0 && q2_entry_clusters(geometry, entry->raw, &first, &count))
        rc = q2_tally_add(&walk->clusters, first, count, 1, flags, err);
    return rc;
}

static int
count_table(struct walk *walk, uint8_t *table, uint64_t at, uint64_t index, bool *ret_changed,
            struct q2_error *err)
{
    const struct q2_geometry *geometry = &walk->image->geometry;
    uint64_t end = geometry->l2_entries, guest = index * q2_l2_reach(geometry);
    (void)ret_changed;
    /* Two cursors into one tally must not both hold a chunk. */
    q2_tally_release(&walk->clusters);
    int rc = q2_tally_add(&walk->tables, at >> geometry->cluster_bits, 1, 1, 0, err);
    q2_tally_release(&walk->tables);
    for (uint64_t i = 0, run; i < end && rc == 0; i += run) {
        run = q2_empty_run(geometry, table, i, end);
        if (run)
            continue;
        struct q2_l2_entry entry = q2_l2_load(geometry, table, i);
        run = q2_plain_run(geometry, table, i, end);
        if (run) {
            rc = q2_tally_add(&walk->clusters, q2_entry_offset(entry.raw) >> geometry->cluster_bits,
                              run, 1, 0, err);
        } else {
            run = 1;
            rc = count_entry(walk, &entry, at + i * geometry->l2_entry_size,
                             guest + (i << geometry->cluster_bits), err);
        }
    }
    return rc;
}

int
q2_tree_count(struct q2_image *image, const struct q2_tree *tree, struct q2_tally *tables,
              struct q2_tally *clusters, struct q2_error *err)
{
    struct walk walk = {.image = image, .tree = tree, .visit = count_table};
    q2_tally_cursor_init(&walk.tables, tables);
    q2_tally_cursor_init(&walk.clusters, clusters);
    int rc = walk_tree(&walk, err);
    q2_tally_release(&walk.tables);
    q2_tally_release(&walk.clusters);
    return rc;
}

/* ---- COPIED flags ---- */

static int
clear_table(struct walk *walk, uint8_t *table, uint64_t at, uint64_t index, bool *ret_changed,
            struct q2_error *err)
{
    const struct q2_geometry *geometry = &walk->image->geometry;
    uint64_t flag = htobe64(Q2_ENTRY_COPIED), any = 0, entry;
    (void)at;
    (void)index;
    (void)err;
    /* A loop that compilers can vectorise for entries of 8 bytes. */
    if (!geometry->extended_l2)
        for (uint64_t i = 0; i < geometry->cluster_size; i += 8) {
            memcpy(&entry, table + i, 8);
            any |= entry;
            entry &= ~flag;
            memcpy(table + i, &entry, 8);
        }
    else
        for (uint64_t i = 0; i < geometry->cluster_size; i += 16) {
            memcpy(&entry, table + i, 8);
            any |= entry;
            entry &= ~flag;
            memcpy(table + i, &entry, 8);
        }
    *ret_changed = any & flag;
    return 0;
}

int
q2_tree_clear_copied(struct q2_image *image, const struct q2_tree *tree, struct q2_error *err)
{
    struct walk walk = {.image = image, .tree = tree, .visit = clear_table};
    int rc = walk_tree(&walk, err);
    q2_cache_forget_all(image->l2_cache);
    return rc;
}

int
q2_active_clear_copied(struct q2_image *image, struct q2_error *err)
{
    struct q2_tree tree = q2_tree_active(image);
    int rc = q2_tree_clear_copied(image, &tree, err);
    for (uint64_t i = 0; i < tree.end && rc == 0; i++)
        if (image->l1[i] & Q2_ENTRY_COPIED)
            q2_l1_set(image, i, image->l1[i] & ~Q2_ENTRY_COPIED);
    return rc < 0 ? rc : q2_image_write_back(image, err);
}

/* Give `count` entries from `index` on, whose clusters follow each other from `cluster` on, the
 * flags that their refcounts call for. */
static int
mend_run(struct walk *walk, uint8_t *table, uint64_t index, uint64_t count, uint64_t cluster,
         bool *ret_changed, struct q2_error *err)
{
    unsigned size = walk->image->geometry.l2_entry_size;
    for (uint64_t done = 0, run; done < count; done += run) {
        bool one;
        int rc = q2_ones_run(walk->ones, cluster + done, count - done, &one, &run, err);
        if (rc < 0)
            return rc;
        uint8_t flag = one ? 0x80 : 0, *at = table + (index + done) * size;
        for (uint64_t i = 0; i < run; i++, at += size) {
            /* The flag is the highest bit, and so in the first byte. */
            *ret_changed |= (*at & 0x80) != flag;
            *at = (uint8_t)((*at & 0x7f) | flag);
        }
    }
    return 0;
}

static int
mend_table(struct walk *walk, uint8_t *table, uint64_t at, uint64_t index, bool *ret_changed,
           struct q2_error *err)
{
    const struct q2_geometry *geometry = &walk->image->geometry;
    uint64_t end = geometry->l2_entries;
    int rc = 0;
    (void)at;
    (void)index;
    for (uint64_t i = 0, run; i < end && rc == 0; i += run) {
        run = q2_empty_run(geometry, table, i, end);
        if (run)
            continue;
        uint64_t raw = q2_l2_load(geometry, table, i).raw;
        enum q2_cluster_kind kind = q2_l2_kind(geometry, raw);
        run = q2_max(q2_plain_run(geometry, table, i, end), 1);
        if (kind == Q2_CLUSTER_STANDARD || kind == Q2_CLUSTER_ZERO_ALLOCATED)
            rc = mend_run(walk, table, i, run, q2_entry_offset(raw) >> geometry->cluster_bits,
                          ret_changed, err);
    }
    return rc;
}

static int
mend_l1(struct q2_image *image, struct q2_ones *ones, struct q2_error *err)
{
    for (uint64_t i = 0; i < image->header.l1_size; i++) {
        uint64_t raw = image->l1[i], run;
        bool one;
        if (!q2_entry_offset(raw))
            continue;
        int rc = q2_ones_run(ones, q2_entry_offset(raw) >> image->geometry.cluster_bits, 1, &one,
                             &run, err);
        if (rc < 0)
            return rc;
        uint64_t mended = (raw & ~Q2_ENTRY_COPIED) | (one ? Q2_ENTRY_COPIED : 0);
        if (mended != raw)
            q2_l1_set(image, i, mended);
    }
    return 0;
}

int
q2_active_mend_copied(struct q2_image *image, struct q2_error *err)
{
    struct q2_tree tree = q2_tree_active(image);
    struct walk walk = {.image = image, .tree = &tree, .visit = mend_table};
    if (image->geometry.data_file)
        return 0;
    int rc = q2_ones_new(image, &walk.ones, err);
    if (rc == 0)
        rc = walk_tree(&walk, err);
    if (rc == 0)
        rc = mend_l1(image, walk.ones, err);
    q2_ones_free(walk.ones);
    q2_cache_forget_all(image->l2_cache);
    return rc < 0 ? rc : q2_image_write_back(image, err);
}
