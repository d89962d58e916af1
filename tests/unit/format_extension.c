/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Header extensions: stepping through areas of any shape, what each known one says, and what they
 * and the header demand of each other. */

#include "core/format/extension.h"

#include "core/base/endian.h"
#include "tests/unit/format_record.h"

#include <string.h>

enum { AREA = 4096, START = 112 };

static struct record record;
static uint8_t area[AREA];
static uint64_t used;
static struct q2_header header;

static void
start(void)
{
    memset(area, 0, sizeof area);
    used = START;
    header = (struct q2_header){.magic = Q2_MAGIC,
                                .version = 3,
                                .cluster_bits = 12,
                                .header_length = START};
}

/* Put an extension behind the ones that are there. */
static uint8_t *
put(uint32_t type, const void *data, uint32_t length)
{
    uint8_t *at = area + used;
    q2_store_be32(at, type);
    q2_store_be32(at + 4, length);
    memcpy(at + 8, data, length);
    used += 8 + ((length + 7) & ~7U);
    return at;
}

static struct q2_extensions
decode(void)
{
    struct q2_extensions extensions;
    struct q2_sink sink = record_sink(&record);
    q2_extensions_decode(&header, Q2_USABLE_ALL, area, sizeof area, &sink, &extensions);
    return extensions;
}

TestSuite(extension, .init = start);

/* ---- stepping ---- */

Test(extension, steps)
{
    struct q2_extension step;
    uint64_t offset = START;
    put(1, "abc", 3);
    put(2, "", 0);
    cr_assert_eq(q2_extension_next(area, AREA, &offset, &step), 1);
    cr_expect_eq(step.type, 1);
    cr_expect_eq(step.length, 3);
    cr_expect_eq(step.offset, START);
    cr_expect_eq(memcmp(step.data, "abc", 3), 0);
    cr_expect_eq(offset, START + 16, "padded to 8");
    cr_assert_eq(q2_extension_next(area, AREA, &offset, &step), 1);
    cr_expect_eq(offset, START + 24);
    cr_expect_eq(q2_extension_next(area, AREA, &offset, &step), 0);
    cr_expect_eq(step.type, Q2_EXTENSION_END);
}

Test(extension, lengths_up_to_the_end_of_the_area)
{
    struct q2_extension step;
    uint64_t offset = START;
    uint8_t *at = put(1, "", 0);
    q2_store_be32(at + 4, AREA - START - 8);
    cr_expect_eq(q2_extension_next(area, AREA, &offset, &step), 1);
    cr_expect_eq(offset, AREA);
    cr_expect_eq(q2_extension_next(area, AREA, &offset, &step), 0);
    cr_expect_eq(step.type, UINT32_MAX, "no room for an end marker");

    static const uint32_t lengths[] = {AREA - START - 7, 0x7fffffff, 0xfffffff8, UINT32_MAX};
    for (size_t i = 0; i < 4; i++) {
        offset = START;
        q2_store_be32(at + 4, lengths[i]);
        cr_expect_eq(q2_extension_next(area, AREA, &offset, &step), -1, "%u", lengths[i]);
        cr_expect_eq(offset, START, "stays");
    }
}

Test(extension, areas_too_short_for_anything)
{
    struct q2_extension step;
    for (uint64_t offset = AREA - 7; offset < AREA + 9; offset++) {
        uint64_t at = offset;
        cr_expect_eq(q2_extension_next(area, AREA, &at, &step), 0);
        cr_expect_neq(step.type, Q2_EXTENSION_END);
    }
    uint64_t far = UINT64_MAX;
    cr_expect_eq(q2_extension_next(area, AREA, &far, &step), 0);
}

Test(extension, area_ends_at_the_backing_file_name)
{
    cr_expect_eq(q2_extension_area(&header, Q2_USABLE_ALL, 100), 100);
    cr_expect_eq(q2_extension_area(&header, Q2_USABLE_ALL, 65536), 4096);
    cr_expect_eq(q2_extension_area(&header, 0, 65536), 65536, "without a cluster size");
    header.backing_file_offset = 200;
    cr_expect_eq(q2_extension_area(&header, Q2_USABLE_ALL, 65536), 200);
    cr_expect_eq(q2_extension_area(&header, Q2_USABLE_GEOMETRY, 65536), 4096,
                 "a name that is not to be trusted");
}

/* ---- what they say ---- */

Test(extension, none)
{
    struct q2_extensions extensions = decode();
    expect_none(&record);
    cr_expect_null(extensions.backing_format.bytes);
    cr_expect(!extensions.has_bitmaps && !extensions.has_crypto);
}

Test(extension, known_ones_are_taken)
{
    uint8_t crypto[16], bitmaps[24] = {0};
    q2_store_be64(crypto, 0x5000);
    q2_store_be64(crypto + 8, 0x2000);
    q2_store_be32(bitmaps, 65535);
    q2_store_be64(bitmaps + 8, 64);
    q2_store_be64(bitmaps + 16, 0x9000);
    put(Q2_EXTENSION_BACKING_FORMAT, "fifteen letters", 15);
    put(Q2_EXTENSION_DATA_FILE, "d", 1);
    put(Q2_EXTENSION_CRYPTO, crypto, sizeof crypto);
    put(Q2_EXTENSION_BITMAPS, bitmaps, sizeof bitmaps);
    memcpy(area + 3000, "base", 4);
    header.backing_file_offset = 3000;
    header.backing_file_size = 4;
    header.crypt_method = Q2_CRYPT_LUKS;
    header.autoclear_features = Q2_AUTOCLEAR_BITMAPS;
    header.incompatible_features = Q2_INCOMPATIBLE_DATA_FILE;
    struct q2_extensions extensions = decode();
    expect_none(&record);
    cr_expect_eq(extensions.backing_format.length, 15);
    cr_expect_eq(extensions.backing_format.offset, START + 8);
    cr_expect_eq(extensions.backing_file.offset, 3000);
    cr_expect_eq(memcmp(extensions.data_file.bytes, "d", 1), 0);
    cr_expect_eq(extensions.crypto_offset, 0x5000);
    cr_expect_eq(extensions.crypto_length, 0x2000);
    cr_expect_eq(extensions.nb_bitmaps, 65535);
    cr_expect_eq(extensions.bitmap_directory_size, 64);
    cr_expect_eq(extensions.bitmap_directory_offset, 0x9000);
}

Test(extension, names_with_faults)
{
    static const struct {
        uint32_t type;
        const char *text;
        uint32_t length;
        enum q2_problem problem;
        uint64_t at;
        uint64_t got;
    } names[] = {
        {Q2_EXTENSION_BACKING_FORMAT, "", 0, Q2_PROBLEM_EXTENSION_BACKING_FORMAT, START + 4, 0},
        {Q2_EXTENSION_BACKING_FORMAT, "sixteen letters!", 16, Q2_PROBLEM_EXTENSION_BACKING_FORMAT,
         START + 4, 16},
        {Q2_EXTENSION_BACKING_FORMAT, "r\177w", 3, Q2_PROBLEM_EXTENSION_BACKING_FORMAT, START + 9,
         0x7f},
        {Q2_EXTENSION_DATA_FILE, "", 0, Q2_PROBLEM_EXTENSION_DATA_FILE_NAME, START + 4, 0},
        {Q2_EXTENSION_DATA_FILE, "a\nb", 3, Q2_PROBLEM_EXTENSION_DATA_FILE_NAME, START + 9, '\n'},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        start();
        put(names[i].type, names[i].text, names[i].length);
        header.incompatible_features =
            names[i].type == Q2_EXTENSION_DATA_FILE ? Q2_INCOMPATIBLE_DATA_FILE : 0;
        struct q2_extensions extensions = decode();
        expect_only(&record, names[i].problem, names[i].at, names[i].got);
        cr_expect_null(extensions.backing_format.bytes, "a bad name is not used");
        cr_expect_null(extensions.data_file.bytes);
    }
    start();
    uint8_t name[1024];
    memset(name, 'x', sizeof name);
    header.incompatible_features = Q2_INCOMPATIBLE_DATA_FILE;
    put(Q2_EXTENSION_DATA_FILE, name, 1023);
    decode();
    expect_none(&record);
    used = START;
    put(Q2_EXTENSION_DATA_FILE, name, 1024);
    decode();
    expect_only(&record, Q2_PROBLEM_EXTENSION_DATA_FILE_NAME, START + 4, 1024);
}

Test(extension, demands_on_each_other)
{
    header.crypt_method = Q2_CRYPT_LUKS;
    header.autoclear_features = Q2_AUTOCLEAR_BITMAPS;
    header.incompatible_features = Q2_INCOMPATIBLE_DATA_FILE;
    decode();
    cr_expect_eq(record.count, 3);
    cr_expect(find_violation(&record, Q2_PROBLEM_EXTENSION_CRYPTO_MISSING));
    cr_expect(find_violation(&record, Q2_PROBLEM_EXTENSION_BITMAPS_MISSING));
    cr_expect(find_violation(&record, Q2_PROBLEM_EXTENSION_DATA_FILE_MISSING));

    start();
    uint8_t data[24] = {0, 0, 0, 1};
    put(Q2_EXTENSION_CRYPTO, data, 16);
    put(Q2_EXTENSION_BITMAPS, data, 24);
    put(Q2_EXTENSION_DATA_FILE, "d", 1);
    put(Q2_EXTENSION_BACKING_FORMAT, "raw", 3);
    decode();
    cr_expect_eq(record.count, 4);
    cr_expect(find_violation(&record, Q2_PROBLEM_EXTENSION_CRYPTO_UNUSED));
    cr_expect(find_violation(&record, Q2_PROBLEM_EXTENSION_BITMAPS_STALE));
    cr_expect(find_violation(&record, Q2_PROBLEM_EXTENSION_DATA_FILE_UNUSED));
    const struct q2_violation *unused =
        find_violation(&record, Q2_PROBLEM_EXTENSION_BACKING_FORMAT_UNUSED);
    cr_assert(unused);
    cr_expect(!unused->has_got);
    cr_expect_str_eq(unused->detail, "\"raw\"");
}

Test(extension, lengths_of_the_fixed_ones)
{
    uint8_t data[32] = {0, 0, 0, 1};
    static const uint32_t crypto[] = {0, 8, 15, 17, 24}, bitmaps[] = {0, 16, 23, 25, 32};
    for (size_t i = 0; i < 5; i++) {
        start();
        header.crypt_method = Q2_CRYPT_LUKS;
        put(Q2_EXTENSION_CRYPTO, data, crypto[i]);
        cr_expect(!decode().has_crypto);
        expect_only(&record, Q2_PROBLEM_EXTENSION_CRYPTO_LENGTH, START, crypto[i]);
        start();
        header.autoclear_features = Q2_AUTOCLEAR_BITMAPS;
        put(Q2_EXTENSION_BITMAPS, data, bitmaps[i]);
        cr_expect(!decode().has_bitmaps);
        expect_only(&record, Q2_PROBLEM_EXTENSION_BITMAPS_LENGTH, START, bitmaps[i]);
    }
}

Test(extension, bitmap_counts)
{
    uint8_t data[24] = {0};
    header.autoclear_features = Q2_AUTOCLEAR_BITMAPS;
    uint8_t *at = put(Q2_EXTENSION_BITMAPS, data, sizeof data);
    decode();
    expect_only(&record, Q2_PROBLEM_EXTENSION_BITMAPS_FIELDS, START + 8, 0);
    q2_store_be32(at + 8, 65536);
    decode();
    expect_only(&record, Q2_PROBLEM_EXTENSION_BITMAPS_FIELDS, START + 8, 65536);
    q2_store_be32(at + 8, 1);
    q2_store_be32(at + 12, 1);
    decode();
    expect_only(&record, Q2_PROBLEM_EXTENSION_BITMAPS_FIELDS, START + 12, 1);
}

Test(extension, duplicates_and_strangers)
{
    header.backing_file_offset = 3000;
    header.backing_file_size = 1;
    area[3000] = 'b';
    put(Q2_EXTENSION_BACKING_FORMAT, "raw", 3);
    put(0x12345678, "x", 1);
    put(0x12345678, "y", 1);
    put(Q2_EXTENSION_BACKING_FORMAT, "qcow2", 5);
    struct q2_extensions extensions = decode();
    cr_expect_eq(record.count, 3);
    cr_expect_eq(record.violations[0].problem, Q2_PROBLEM_EXTENSION_UNKNOWN);
    cr_expect_eq(record.violations[0].got, 0x12345678);
    cr_expect_eq(record.violations[2].problem, Q2_PROBLEM_EXTENSION_DUPLICATE);
    cr_expect_eq(record.violations[2].offset, START + 48);
    cr_expect_eq(extensions.backing_format.length, 3, "the first one counts");
}

Test(extension, end_and_overrun)
{
    header.backing_file_offset = START + 16;
    header.backing_file_size = 1;
    area[START + 16] = 'b';
    put(0x12345678, "1234567", 8);
    decode();
    const struct q2_violation *end = find_violation(&record, Q2_PROBLEM_EXTENSION_NO_END);
    cr_assert(end);
    cr_expect_eq(end->offset, START + 16);
    cr_expect_eq(end->got, 0);
    header.version = 2;
    header.header_length = START;
    decode();
    cr_expect(!find_violation(&record, Q2_PROBLEM_EXTENSION_NO_END), "version 2 need not have one");
    q2_store_be32(area + START + 4, 9);
    decode();
    expect_only(&record, Q2_PROBLEM_EXTENSION_PAST_AREA, START, 9);
}

Test(extension, padding_and_backing_file_name)
{
    area[111] = 7;
    decode();
    expect_only(&record, Q2_PROBLEM_HEADER_UNKNOWN_FIELDS, 111, 7);
    area[111] = 0;
    area[104] = 1; /* the compression type is no padding */
    decode();
    expect_none(&record);

    header.backing_file_offset = 3000;
    decode();
    expect_only(&record, Q2_PROBLEM_HEADER_BACKING_NAME_BYTES, 16, 0);
    header.backing_file_size = 3;
    memcpy(area + 3000, "a\1b", 3);
    decode();
    expect_only(&record, Q2_PROBLEM_HEADER_BACKING_NAME_BYTES, 3001, 1);
    header.backing_file_offset = AREA - 2;
    cr_expect_null(decode().backing_file.bytes, "a name that is not in memory");
}

/* ---- the feature name table ---- */

Test(extension, feature_names)
{
    uint8_t table[3 * 48] = {0};
    struct q2_text name = {0};
    table[48] = 2;
    table[49] = 63;
    memset(table + 50, 'n', 46);
    table[96] = 1;
    memcpy(table + 98, "short", 5);
    uint8_t *at = put(Q2_EXTENSION_FEATURES, table, sizeof table);
    struct q2_extensions extensions = decode();
    expect_none(&record);
    cr_assert(q2_feature_name(&extensions, 2, 63, &name));
    cr_expect_eq(name.length, 46, "a name that fills its field");
    cr_assert(q2_feature_name(&extensions, 1, 0, &name));
    cr_expect_eq(name.length, 5);
    cr_expect_eq(name.offset, START + 8 + 98);
    cr_expect(!q2_feature_name(&extensions, 1, 1, &name));

    at[8 + 48] = 3;
    at[8 + 97] = 64;
    decode();
    cr_expect_eq(record.count, 2);
    cr_expect_eq(record.violations[0].offset, START + 8 + 48);
    cr_expect_eq(record.violations[0].got, 3);
    cr_expect_eq(record.violations[1].got, 64);
    start();
    put(Q2_EXTENSION_FEATURES, table, 47);
    extensions = decode();
    expect_only(&record, Q2_PROBLEM_EXTENSION_FEATURE_TABLE, START + 4, 47);
    cr_expect(!q2_feature_name(&extensions, 0, 0, &name), "half an entry names nothing");
}
