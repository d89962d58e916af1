/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Images made to keep a repair busy: every entry is damaged, or all lead to the same. A plan for
 * them comes to an end in bounded time and memory. And images that look damaged where they are not,
 * made to have a repair replace what is right. */

#include "core/base/endian.h"
#include "core/format/entry.h"
#include "core/io/memory.h"
#include "repair/repair.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    MAX_SECONDS = 60, /* of the processor, with sanitizers */
    MEMORY = 256 << 20,
    REFCOUNT_BYTES = 2,
};

/* One L1 table, some L2 tables, and data behind them; every cluster is counted once. */
struct layout {
    unsigned bits;
    uint64_t size, clusters; /* of the file */
    uint64_t tables;
    uint64_t incompatible, autoclear;
    uint64_t refcounts, l1, l2, data; /* first clusters */
    uint64_t entries;
    uint8_t *bytes;
};

static uint8_t *
at(const struct layout *layout, uint64_t cluster)
{
    return layout->bytes + (cluster << layout->bits);
}

static uint64_t
clusters_for(const struct layout *layout, uint64_t bytes)
{
    return (bytes + (UINT64_C(1) << layout->bits) - 1) >> layout->bits;
}

static uint64_t
offset_of(const struct layout *layout, uint64_t cluster)
{
    return cluster << layout->bits;
}

static void
set_header(const struct layout *layout)
{
    const uint64_t cluster = UINT64_C(1) << layout->bits;
    const struct q2_header header = {
        .magic = Q2_MAGIC,
        .version = 3,
        .cluster_bits = layout->bits,
        .size = layout->entries << layout->bits,
        .l1_size = (uint32_t)layout->tables,
        .l1_table_offset = offset_of(layout, layout->l1),
        .refcount_table_offset = cluster,
        .refcount_table_clusters = (uint32_t)(layout->refcounts - 1),
        .incompatible_features = layout->incompatible,
        .autoclear_features = layout->autoclear,
        .refcount_order = 4,
        .header_length = Q2_HEADER_V3_LENGTH,
    };
    q2_header_encode(&header, layout->bytes);
}

static void
set_refcount(const struct layout *layout, uint64_t cluster, uint16_t count)
{
    uint8_t *word = at(layout, layout->refcounts) + cluster * REFCOUNT_BYTES;
    word[0] = (uint8_t)(count >> 8);
    word[1] = (uint8_t)count;
}

static void
set_entry(const struct layout *layout, uint64_t index, uint64_t raw)
{
    q2_store_be64(at(layout, layout->l2) + index * 8, raw);
}

static uint64_t
standard(const struct layout *layout, uint64_t cluster)
{
    return offset_of(layout, cluster) | Q2_ENTRY_COPIED;
}

static void
lay_out(struct layout *layout)
{
    layout->bytes = calloc(1, layout->size);
    cr_assert(layout->bytes);
    layout->clusters = layout->size >> layout->bits;
    layout->entries = layout->tables << (layout->bits - 3);
    uint64_t blocks = clusters_for(layout, layout->clusters * REFCOUNT_BYTES);
    layout->refcounts = 1 + clusters_for(layout, blocks * 8);
    layout->l1 = layout->refcounts + blocks;
    layout->l2 = layout->l1 + clusters_for(layout, layout->tables * 8);
    layout->data = layout->l2 + layout->tables;
    cr_assert_lt(layout->data, layout->clusters);
    for (uint64_t i = 0; i < blocks; i++)
        q2_store_be64(at(layout, 1) + i * 8, offset_of(layout, layout->refcounts + i));
    for (uint64_t i = 0; i < layout->tables; i++)
        q2_store_be64(at(layout, layout->l1) + i * 8, standard(layout, layout->l2 + i));
    for (uint64_t i = 0; i < layout->data; i++)
        set_refcount(layout, i, 1);
    for (uint64_t i = layout->data; i < layout->clusters; i++)
        memset(at(layout, i), (int)(i % 255 + 1), 64);
    set_header(layout);
}

static struct q2_repair *
plan_for(struct layout *layout, struct q2_file **ret_file)
{
    const struct q2_repair_options options = {.level = Q2_LEVEL_CERTAIN,
                                              .max_memory = MEMORY,
                                              .threads = 1};
    struct q2_repair *repair = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_file_new_memory_from("image", layout->bytes, layout->size, ret_file, &err), 0);
    free(layout->bytes);
    layout->bytes = NULL;
    int rc = q2_repair_plan(*ret_file, &options, &repair, &err);
    cr_assert_eq(rc, 0, "%s", err.message);
    return repair;
}

/* ---- work ---- */

static void
expect_end(struct layout *layout)
{
    struct q2_file *file;
    clock_t start = clock();
    struct q2_repair *repair = plan_for(layout, &file);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    cr_log_info("%.1f seconds, %llu actions", seconds,
                (unsigned long long)q2_repair_actions(repair)->count);
    cr_expect_lt(seconds, MAX_SECONDS);
    q2_repair_free(repair);
    q2_file_close(file);
}

Test(repair_hostile, every_entry_leads_to_one_cluster)
{
    struct layout layout = {.bits = 9, .size = 2 << 20, .tables = 1500};
    lay_out(&layout);
    for (uint64_t i = 0; i < layout.entries; i++)
        set_entry(&layout, i, standard(&layout, layout.data));
    set_refcount(&layout, layout.data, 1);
    expect_end(&layout);
}

Test(repair_hostile, every_entry_is_doubled)
{
    struct layout layout = {.bits = 9, .size = 8 << 20, .tables = 240};
    lay_out(&layout);
    for (uint64_t i = 0; i < layout.entries; i++)
        set_entry(&layout, i, standard(&layout, layout.data + i / 2));
    for (uint64_t i = layout.data; i < layout.clusters; i++)
        set_refcount(&layout, i, 1);
    expect_end(&layout);
}

Test(repair_hostile, a_table_of_the_largest_size_is_one_run_of_garbage)
{
    struct layout layout = {.bits = 21, .size = 16 << 20, .tables = 1};
    lay_out(&layout);
    for (uint64_t i = 1; i < layout.entries; i++)
        set_entry(&layout, i, UINT64_C(0x2a5a000000000000) | i << 21);
    set_entry(&layout, 0, standard(&layout, layout.data));
    set_refcount(&layout, layout.data, 1);
    expect_end(&layout);
}

/* ---- harm ---- */

static uint64_t
entry_after(const struct layout *layout, struct q2_repair *repair, uint64_t index)
{
    uint8_t word[8];
    uint64_t offset = offset_of(layout, layout->l2) + index * 8;
    cr_assert_eq(q2_file_read(q2_repair_file(repair), offset, word, 8, NULL), 0);
    return q2_load_be64(word);
}

/* Lazy refcounts: `count` clusters are used and not counted, and each has one beside it that is
 * counted and not used any more. */
static void
expect_counts_give_way(uint64_t incompatible, uint64_t count)
{
    struct layout layout = {.bits = 12, .size = 8 << 20, .tables = 1, .incompatible = incompatible};
    struct q2_file *file;
    lay_out(&layout);
    uint64_t base = (layout.data + 63) / 64 * 64;
    for (uint64_t i = 0; i < 512 - 2 * count; i++) { /* what is right, elsewhere */
        set_entry(&layout, i, standard(&layout, base + 1024 + i));
        set_refcount(&layout, base + 1024 + i, 1);
    }
    uint64_t first = 512 - 2 * count, used[64];
    for (uint64_t i = 0; i < count; i++) {
        used[i] = base + i * 8;
        set_entry(&layout, first + 2 * i, standard(&layout, used[i]));
        set_refcount(&layout, used[i] ^ 1, 1);
    }
    struct q2_repair *repair = plan_for(&layout, &file);
    for (uint64_t i = 0; i < count; i++)
        cr_expect_eq(q2_entry_offset(entry_after(&layout, repair, first + 2 * i)),
                     offset_of(&layout, used[i]), "entry %d", (int)i);
    q2_repair_free(repair);
    q2_file_close(file);
}

Test(repair_hostile, lazy_refcounts_do_not_outweigh_entries)
{
    expect_counts_give_way(Q2_INCOMPATIBLE_DIRTY, 4);
}

Test(repair_hostile, many_missing_refcounts_do_not_outweigh_entries)
{
    expect_counts_give_way(0, 20);
}

/* ---- data files ---- */

static uint64_t
entry_of_data_file(uint64_t autoclear)
{
    struct layout layout = {.bits = 16,
                            .size = 1 << 20,
                            .tables = 1,
                            .incompatible = Q2_INCOMPATIBLE_DATA_FILE,
                            .autoclear = autoclear};
    struct q2_file *file;
    lay_out(&layout);
    for (uint64_t i = 0; i < 8; i++)
        set_entry(&layout, i, standard(&layout, i));
    set_entry(&layout, 5, UINT64_C(0x0123456789abcdef));
    struct q2_repair *repair = plan_for(&layout, &file);
    uint64_t raw = entry_after(&layout, repair, 5);
    q2_repair_free(repair);
    q2_file_close(file);
    return raw;
}

Test(repair_hostile, entries_of_a_data_file_are_not_cleared)
{
    cr_expect_eq(entry_of_data_file(0), UINT64_C(0x0123456789abcdef), "it may have been empty");
    cr_expect_eq(entry_of_data_file(Q2_AUTOCLEAR_RAW_DATA), 5 << 16 | Q2_ENTRY_COPIED,
                 "a raw data file has all of the disk");
}
