/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Bitmaps: directory entries come back byte for byte, tables that are said to be readable are, and
 * strict reading agrees with the rules about a directory of one bitmap and about its table.
 *
 * Input: measures, flags, an entry of a bitmap table, then a directory entry. */

#include "core/format/bitmap.h"

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/image/bitmaps.h"
#include "core/image/image.h"
#include "fuzz/support/format.h"

#include <stdlib.h>
#include <string.h>

enum { STRICT = 1 << 0, TABLE = Q2_FUZZ_MINIMAL_FREE, DIRECTORY = TABLE + 1 };

static const enum q2_problem entry_problems[] = {
    Q2_PROBLEM_BITMAP_FLAGS,
    Q2_PROBLEM_BITMAP_IN_USE,
    Q2_PROBLEM_BITMAP_TYPE,
    Q2_PROBLEM_BITMAP_GRANULARITY,
    Q2_PROBLEM_BITMAP_NAME,
    Q2_PROBLEM_BITMAP_NAME_BYTES,
    Q2_PROBLEM_BITMAP_EXTRA_DATA,
    Q2_PROBLEM_BITMAP_EXTRA_FLAG,
    Q2_PROBLEM_BITMAP_PADDING,
    Q2_PROBLEM_BITMAP_TABLE_SIZE,
    Q2_PROBLEM_BITMAP_TABLE_UNALIGNED,
    Q2_PROBLEM_BITMAP_TABLE_PAST_END,
};
static const enum q2_problem table_problems[] = {
    Q2_PROBLEM_BITMAP_ENTRY_RESERVED,
    Q2_PROBLEM_BITMAP_ENTRY_UNALIGNED,
    Q2_PROBLEM_BITMAP_ENTRY_PAST_END,
};
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Returns the length of the entry with its padding, 0 where it is not all there. */
static uint64_t
try_entry(const struct q2_geometry *geometry, const uint8_t *bytes, size_t length)
{
    struct q2_bitmap bitmap, again;
    struct q2_fuzz_rules rules;
    uint8_t out[Q2_BITMAP_FIXED_LENGTH];
    memset(out, 0xee, sizeof out);
    q2_bitmap_decode(bytes, 4096, &bitmap);
    q2_bitmap_encode(&bitmap, out);
    q2_bitmap_decode(out, 4096, &again);
    Q2_REQUIRE(memcmp(out, bytes, sizeof out) == 0, "the fields become other bytes");
    Q2_REQUIRE(memcmp(&again, &bitmap, sizeof again) == 0, "the bytes become other fields");
    uint64_t whole = q2_bitmap_length(&bitmap);
    Q2_REQUIRE(whole == (24 + (uint64_t)bitmap.extra_length + bitmap.name_length + 7) / 8 * 8,
               "%llu bytes", (unsigned long long)whole);
    if (whole > length)
        return 0;
    /* A copy of just this size: what looks beyond it is caught. */
    uint8_t *exact = malloc(whole);
    Q2_REQUIRE(exact, "no memory");
    memcpy(exact, bytes, whole);
    q2_fuzz_rules_init(&rules);
    bool readable = q2_bitmap_validate(geometry, &bitmap, exact, &rules.sink);
    free(exact);
    Q2_REQUIRE(!readable || (bitmap.table_size > 0 && bitmap.table_offset > 0 &&
                             bitmap.table_offset % geometry->cluster_size == 0 &&
                             q2_range_inside(bitmap.table_offset, bitmap.table_size * UINT64_C(8),
                                             geometry->file_size)),
               "the table at 0x%llx cannot be read", (unsigned long long)bitmap.table_offset);
    Q2_REQUIRE(readable || rules.breaking || bitmap.table_size == 0,
               "not readable, but no rule says so");
    return whole;
}

static void
try_table(const struct q2_geometry *geometry, uint64_t raw)
{
    struct q2_fuzz_rules rules;
    q2_fuzz_rules_init(&rules);
    bool leads = q2_bitmap_entry_validate(geometry, raw, 0, &rules.sink);
    bool sound = raw <= 1 ||
                 (raw % geometry->cluster_size == 0 && raw < geometry->file_size && raw >> 56 == 0);
    Q2_REQUIRE(sound == (rules.count == 0) && leads == (sound && raw > 1),
               "entry 0x%llx breaks %u rules", (unsigned long long)raw, rules.count);
}

/* An image whose directory is this entry, with a table of entries that are `raw`. */
static void
ask_strict(const uint8_t *bytes, uint64_t length, uint64_t raw)
{
    struct q2_fuzz_minimal minimal;
    struct q2_fuzz_rules rules, table;
    struct q2_error err = {0};
    struct q2_image *image = NULL;
    struct q2_bitmap bitmap;
    q2_fuzz_minimal_init(&minimal, 3, false);
    q2_fuzz_rules_init(&rules);
    q2_fuzz_rules_init(&table);
    uint64_t directory = (uint64_t)DIRECTORY << minimal.header.cluster_bits;
    uint8_t extension[Q2_EXTENSION_BITMAPS_LENGTH] = {0, 0, 0, 1};
    size_t at = 0;
    q2_store_be64(extension + 8, length);
    q2_store_be64(extension + 16, directory);
    q2_fuzz_minimal_extension(&minimal, &at, Q2_EXTENSION_BITMAPS, extension, sizeof extension);
    q2_fuzz_minimal_extension(&minimal, &at, Q2_EXTENSION_END, "", 0);
    minimal.header.autoclear_features = Q2_AUTOCLEAR_BITMAPS;
    memcpy(minimal.bytes + directory, bytes, length);
    q2_bitmap_decode(bytes, directory, &bitmap);
    q2_store_be64(q2_fuzz_minimal_cluster(&minimal, TABLE), raw);
    q2_bitmap_validate(&minimal.geometry, &bitmap, bytes, &rules.sink);
    q2_bitmap_entry_validate(&minimal.geometry, raw, 0, &table.sink);

    int rc = q2_fuzz_minimal_open(q2_fuzz_minimal_file(&minimal), 0, &image, &err);
    q2_fuzz_rules_agree(&rules, entry_problems, COUNT(entry_problems), rc, &err);
    bool ours = bitmap.table_offset == (uint64_t)TABLE << minimal.header.cluster_bits;
    struct q2_bitmap_info info;
    /* Bits that mean nothing are not read. */
    if (rc == 0 && ours && bitmap.table_size == 1 && !(bitmap.flags & Q2_BITMAP_IN_USE) &&
        bitmap.extra_length == 0) {
        rc = q2_bitmap_info(image, 0, &info, &err);
        q2_fuzz_rules_agree(&table, table_problems, COUNT(table_problems), rc, &err);
    }
    q2_image_close(image, NULL);
}

static void
run(const uint8_t *input, size_t length)
{
    struct q2_fuzz_cursor cursor = {input, length};
    struct q2_geometry geometry;
    q2_fuzz_geometry(&cursor, &geometry);
    unsigned flags = q2_fuzz_u8(&cursor);
    uint64_t raw = q2_fuzz_u64(&cursor);
    try_table(&geometry, raw);
    if (cursor.left < Q2_BITMAP_FIXED_LENGTH)
        return;
    uint64_t whole = try_entry(&geometry, cursor.at, cursor.left);
    if ((flags & STRICT) && whole > 0)
        ask_strict(cursor.at, whole, raw);
}

const struct q2_harness q2_harness = {"bitmap", Q2_FUZZ_BYTES, 2048, run};
