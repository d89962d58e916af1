/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Bitmap directory entries and bitmap tables, and where their rules draw the line. */

#include "core/format/bitmap.h"

#include "tests/unit/format_record.h"

#include <string.h>

enum { AT = 0x8000, FILE_SIZE = 0xc000 };

static struct q2_geometry geometry;
static struct record record;
static struct q2_bitmap bitmap;
static uint8_t entry[2048];

static void
start(void)
{
    geometry = make_geometry(12, FILE_SIZE, 1 << 30);
    bitmap = (struct q2_bitmap){.at = AT,
                                .table_offset = 0x5000,
                                .table_size = 1,
                                .flags = Q2_BITMAP_AUTO,
                                .type = 1,
                                .granularity_bits = 16,
                                .name_length = 3};
    memset(entry, 0, sizeof entry);
    memset(entry + 24, 'n', 3);
}

static bool
validate(void)
{
    struct q2_sink sink = record_sink(&record);
    return q2_bitmap_validate(&geometry, &bitmap, entry, &sink);
}

TestSuite(bitmap, .init = start);

Test(bitmap, round_trip)
{
    const struct q2_bitmap all = {.at = AT,
                                  .table_offset = UINT64_C(0x0102030405060708),
                                  .table_size = 0x090a0b0c,
                                  .flags = 0x0d0e0f10,
                                  .type = 0x11,
                                  .granularity_bits = 0x12,
                                  .name_length = 0x1314,
                                  .extra_length = 0x15161718};
    struct q2_bitmap back;
    uint8_t bytes[24];
    q2_bitmap_encode(&all, bytes);
    for (unsigned i = 0; i < sizeof bytes; i++)
        cr_expect_eq(bytes[i], i + 1, "byte %u", i);
    q2_bitmap_decode(bytes, AT, &back);
    cr_expect_eq(memcmp(&back, &all, sizeof all), 0);
}

Test(bitmap, length)
{
    cr_expect_eq(q2_bitmap_length(&bitmap), 32);
    bitmap.name_length = 8;
    cr_expect_eq(q2_bitmap_length(&bitmap), 32);
    bitmap.name_length = 9;
    cr_expect_eq(q2_bitmap_length(&bitmap), 40);
    bitmap.name_length = UINT16_MAX;
    bitmap.extra_length = UINT32_MAX;
    cr_expect_eq(q2_bitmap_length(&bitmap), UINT64_C(0x100010018), "no overflow");
}

/* ---- entries ---- */

Test(bitmap, a_sound_one)
{
    cr_expect(validate());
    expect_none(&record);
    bitmap.granularity_bits = 31;
    cr_expect(validate());
    expect_none(&record);
    bitmap.flags = Q2_BITMAP_EXTRA_COMPATIBLE;
    cr_expect(validate(), "the format permits it");
    expect_only(&record, Q2_PROBLEM_BITMAP_EXTRA_FLAG, AT + 12, 4);
}

Test(bitmap, fields)
{
    bitmap.flags = 8;
    validate();
    expect_only(&record, Q2_PROBLEM_BITMAP_FLAGS, AT + 12, 8);
    start();
    bitmap.flags = Q2_BITMAP_IN_USE;
    bitmap.table_size = 3;
    bitmap.table_offset = 0x5000;
    cr_expect(validate(), "a bitmap in use may lag behind a resize");
    expect_only(&record, Q2_PROBLEM_BITMAP_IN_USE, AT + 12, Q2_BITMAP_IN_USE);
    start();
    bitmap.type = 2;
    validate();
    expect_only(&record, Q2_PROBLEM_BITMAP_TYPE, AT + 16, 2);
    start();
    bitmap.extra_length = 4;
    memset(entry + 28, 'n', 3);
    validate();
    expect_only(&record, Q2_PROBLEM_BITMAP_EXTRA_DATA, AT + 20, 4);
    start();
    bitmap.granularity_bits = 8;
    validate();
    expect_only(&record, Q2_PROBLEM_BITMAP_GRANULARITY, AT + 17, 8);
    bitmap.granularity_bits = 255;
    validate();
    expect_only(&record, Q2_PROBLEM_BITMAP_GRANULARITY, AT + 17, 255);
}

Test(bitmap, names)
{
    bitmap.name_length = 1023;
    memset(entry + 24, 'n', 1024);
    entry[24 + 1023] = 0;
    validate();
    expect_none(&record);
    bitmap.name_length = 1024;
    entry[24 + 1023] = 'n';
    validate();
    expect_only(&record, Q2_PROBLEM_BITMAP_NAME, AT + 18, 1024);
    start();
    bitmap.name_length = 0;
    memset(entry + 24, 0, 3);
    validate();
    expect_only(&record, Q2_PROBLEM_BITMAP_NAME_BYTES, AT + 18, 0);
    start();
    entry[25] = 0x7f;
    validate();
    expect_only(&record, Q2_PROBLEM_BITMAP_NAME_BYTES, AT + 25, 0x7f);
    start();
    entry[31] = 9;
    validate();
    expect_only(&record, Q2_PROBLEM_BITMAP_PADDING, AT + 31, 9);
    start();
    entry[32] = 9;
    validate();
    expect_none(&record);
}

/* A gibibyte in granules of 64 KiB is 16384 bits, which fill half a cluster of 4 KiB. */
Test(bitmap, table_size)
{
    geometry.disk_size = UINT64_C(2) << 30;
    validate();
    expect_none(&record);
    geometry.disk_size += 1;
    validate();
    expect_only(&record, Q2_PROBLEM_BITMAP_TABLE_SIZE, AT + 8, 1);
    cr_expect_eq(record.violations[0].expected, 2);
    geometry.disk_size = 0;
    validate();
    cr_expect_eq(record.violations[0].expected, 0);
    geometry.disk_size = UINT64_MAX;
    bitmap.granularity_bits = 9;
    validate();
    cr_expect_eq(record.violations[0].expected, UINT64_C(1) << 40, "no overflow");
}

Test(bitmap, table_place)
{
    bitmap.table_offset = 0x5008;
    cr_expect(!validate());
    expect_only(&record, Q2_PROBLEM_BITMAP_TABLE_UNALIGNED, AT, 0x5008);
    bitmap.table_offset = 0;
    cr_expect(!validate());
    expect_only(&record, Q2_PROBLEM_BITMAP_TABLE_UNALIGNED, AT, 0);
    bitmap.table_offset = FILE_SIZE;
    cr_expect(!validate());
    expect_only(&record, Q2_PROBLEM_BITMAP_TABLE_PAST_END, AT, FILE_SIZE);
    bitmap.table_offset = ~UINT64_C(0xfff);
    cr_expect(!validate());
    expect_only(&record, Q2_PROBLEM_BITMAP_TABLE_PAST_END, AT, ~UINT64_C(0xfff));
    geometry.disk_size = 0;
    bitmap.table_size = 0;
    bitmap.table_offset = 0;
    cr_expect(!validate(), "nothing to read");
    expect_none(&record);
}

/* ---- the directory ---- */

static bool
directory(uint64_t offset, uint64_t size)
{
    struct q2_sink sink = record_sink(&record);
    struct q2_extensions extensions = {.has_bitmaps = true,
                                       .bitmaps_at = 120,
                                       .nb_bitmaps = 1,
                                       .bitmap_directory_offset = offset,
                                       .bitmap_directory_size = size};
    return q2_bitmap_directory_validate(&geometry, &extensions, &sink);
}

Test(bitmap, directory)
{
    cr_expect(directory(0x8000, 24));
    expect_none(&record);
    cr_expect(directory(0xb000, 0x1000), "up to the end");
    expect_none(&record);
    cr_expect(!directory(0xb000, 0x1001));
    expect_only(&record, Q2_PROBLEM_BITMAP_DIRECTORY_PAST_END, 136, 0xb000);
    cr_expect(!directory(~UINT64_C(0xfff), 0x2000));
    expect_only(&record, Q2_PROBLEM_BITMAP_DIRECTORY_PAST_END, 136, ~UINT64_C(0xfff));
    cr_expect(!directory(0x8008, 24));
    expect_only(&record, Q2_PROBLEM_BITMAP_DIRECTORY_UNALIGNED, 136, 0x8008);
    cr_expect(!directory(0, 24));
    expect_only(&record, Q2_PROBLEM_BITMAP_DIRECTORY_UNALIGNED, 136, 0);
    cr_expect(!directory(0x8000, 23));
    expect_only(&record, Q2_PROBLEM_BITMAP_DIRECTORY_SIZE, 128, 23);
    cr_expect(!directory(0x8000, UINT64_MAX));
    expect_only(&record, Q2_PROBLEM_BITMAP_DIRECTORY_SIZE, 128, UINT64_MAX);
    cr_expect(!directory(0, 0));
    cr_expect_eq(record.count, 2, "both fields are wrong");
}

/* ---- tables ---- */

Test(bitmap, table_entries)
{
    static const struct {
        uint64_t raw;
        bool leads;
        enum q2_problem problem; /* COUNT: none */
    } entries[] = {
        {0, false, Q2_PROBLEM_COUNT},
        {1, false, Q2_PROBLEM_COUNT},
        {0x5000, true, Q2_PROBLEM_COUNT},
        {0x5001, false, Q2_PROBLEM_BITMAP_ENTRY_RESERVED},
        {2, false, Q2_PROBLEM_BITMAP_ENTRY_RESERVED},
        {UINT64_C(1) << 63 | 0x5000, false, Q2_PROBLEM_BITMAP_ENTRY_RESERVED},
        {0x5200, false, Q2_PROBLEM_BITMAP_ENTRY_UNALIGNED},
        {FILE_SIZE, false, Q2_PROBLEM_BITMAP_ENTRY_PAST_END},
    };
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        struct q2_sink sink = record_sink(&record);
        cr_expect_eq(q2_bitmap_entry_validate(&geometry, entries[i].raw, 0x5008, &sink),
                     entries[i].leads, "entry %zu", i);
        if (entries[i].problem == Q2_PROBLEM_COUNT)
            expect_none(&record);
        else
            expect_only(&record, entries[i].problem, 0x5008, entries[i].raw);
    }
}
