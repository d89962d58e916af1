/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The header: every field survives encoding and decoding, and every rule is broken alone by the
 * value next to the last one that it allows. */

#include "tests/unit/format_record.h"

#include <string.h>

enum { FILE_SIZE = 1 << 20 };

static struct q2_header
sound(void)
{
    return (struct q2_header){
        .magic = Q2_MAGIC,
        .version = 3,
        .cluster_bits = 16,
        .size = 64 << 20,
        .l1_size = 1,
        .l1_table_offset = 0x30000,
        .refcount_table_offset = 0x10000,
        .refcount_table_clusters = 1,
        .refcount_order = 4,
        .header_length = 112,
    };
}

static struct record record;

static unsigned
validate(const struct q2_header *header)
{
    struct q2_sink sink = record_sink(&record);
    return q2_header_validate(header, FILE_SIZE, &sink);
}

/* ---- encoding ---- */

Test(header, round_trip)
{
    const struct q2_header header = {
        .magic = 1,
        .version = 3,
        .backing_file_offset = UINT64_C(0x0203040506070809),
        .backing_file_size = 0x0a0b0c0d,
        .cluster_bits = 0x0e0f1011,
        .size = UINT64_C(0x1213141516171819),
        .crypt_method = 0x1a1b1c1d,
        .l1_size = 0x1e1f2021,
        .l1_table_offset = UINT64_C(0x2223242526272829),
        .refcount_table_offset = UINT64_C(0x2a2b2c2d2e2f3031),
        .refcount_table_clusters = 0x32333435,
        .nb_snapshots = 0x36373839,
        .snapshots_offset = UINT64_C(0x3a3b3c3d3e3f4041),
        .incompatible_features = UINT64_C(0x4243444546474849),
        .compatible_features = UINT64_C(0x4a4b4c4d4e4f5051),
        .autoclear_features = UINT64_C(0x5253545556575859),
        .refcount_order = 0x5a5b5c5d,
        .header_length = 112,
        .compression_type = 0x5e,
    };
    uint8_t bytes[Q2_HEADER_KNOWN_LENGTH];
    struct q2_header back;
    memset(&back, 0xff, sizeof back);
    memset(bytes, 0xff, sizeof bytes);
    cr_assert_eq(q2_header_encode(&header, bytes), sizeof bytes);
    cr_expect_eq(bytes[3], 1, "big-endian");
    cr_expect_eq(bytes[105], 0, "padding is zero");
    q2_header_decode(bytes, sizeof bytes, &back);
    struct q2_header_field field;
    cr_assert(q2_header_field("snapshots_offset", &field));
    cr_expect_eq(field.offset, 64);
    cr_expect_eq(field.width, 8);
    cr_expect_eq(back.magic, header.magic);
    cr_expect_eq(back.backing_file_offset, header.backing_file_offset);
    cr_expect_eq(back.size, header.size);
    cr_expect_eq(back.l1_table_offset, header.l1_table_offset);
    cr_expect_eq(back.nb_snapshots, header.nb_snapshots);
    cr_expect_eq(back.autoclear_features, header.autoclear_features);
    cr_expect_eq(back.refcount_order, header.refcount_order);
    cr_expect_eq(back.compression_type, header.compression_type);
    uint8_t again[Q2_HEADER_KNOWN_LENGTH];
    q2_header_encode(&back, again);
    cr_expect_eq(memcmp(again, bytes, sizeof bytes), 0);
}

Test(header, length_of_each_version)
{
    uint8_t bytes[Q2_HEADER_KNOWN_LENGTH];
    struct q2_header header = sound();
    header.header_length = 104;
    cr_expect_eq(q2_header_encode(&header, bytes), 104);
    header.version = 2;
    cr_expect_eq(q2_header_encode(&header, bytes), 72);
}

Test(header, version_2_has_the_values_that_it_lacks)
{
    uint8_t bytes[Q2_HEADER_KNOWN_LENGTH];
    struct q2_header header;
    memset(bytes, 0xff, sizeof bytes);
    memcpy(bytes + 4, "\0\0\0\2", 4);
    q2_header_decode(bytes, sizeof bytes, &header);
    cr_expect_eq(header.refcount_order, 4);
    cr_expect_eq(header.header_length, 72);
    cr_expect_eq(header.incompatible_features, 0);
    cr_expect_eq(header.compression_type, 0);
}

Test(header, what_is_missing_is_zero)
{
    struct q2_header header = sound(), back;
    uint8_t bytes[Q2_HEADER_KNOWN_LENGTH];
    header.compression_type = 1;
    q2_header_encode(&header, bytes);
    q2_header_decode(bytes, 39, &back);
    cr_expect_eq(back.size, header.size);
    cr_expect_eq(back.l1_size, 0, "a field that is cut");
    cr_expect_eq(back.refcount_table_offset, 0);
    q2_header_decode(bytes, 0, &back);
    cr_expect_eq(back.magic, 0);

    /* The compression type is there only where the length says so. */
    bytes[103] = 104;
    q2_header_decode(bytes, sizeof bytes, &back);
    cr_expect_eq(back.compression_type, 0);
}

Test(header, fields_by_name)
{
    struct q2_header_field field = {7, 7};
    cr_expect(!q2_header_field("l1", &field));
    cr_expect(!q2_header_field("", &field));
    cr_expect_eq(field.offset, 7, "untouched");
    cr_expect(q2_header_field("compression_type", &field));
    cr_expect_eq(field.offset, 104);
    cr_expect_eq(field.width, 1);
}

/* ---- rules ---- */

Test(header, a_sound_one_breaks_no_rule)
{
    struct q2_header header = sound();
    cr_expect_eq(validate(&header), Q2_USABLE_ALL);
    expect_none(&record);
    header.version = 2;
    header.header_length = 72;
    cr_expect_eq(validate(&header), Q2_USABLE_ALL);
    expect_none(&record);
}

/* One field set to the last value that is allowed and to the first that is not. */
struct edge {
    const char *field;
    uint64_t good;
    uint64_t bad;
    enum q2_problem problem;
    unsigned lost;
    const char *blamed; /* the field that is reported, where it is another one */
};

static void
set(struct q2_header *header, const char *name, uint64_t value)
{
    uint8_t bytes[Q2_HEADER_KNOWN_LENGTH] = {0};
    struct q2_header_field field;
    cr_assert(q2_header_field(name, &field), "%s", name);
    q2_header_encode(header, bytes);
    for (unsigned i = 0; i < field.width; i++)
        bytes[field.offset + i] = (uint8_t)(value >> 8 * (field.width - 1 - i));
    q2_header_decode(bytes, sizeof bytes, header);
}

static const struct edge edges[] = {
    {"version", 3, 4, Q2_PROBLEM_HEADER_VERSION, Q2_USABLE_ALL, NULL},
    {"cluster_bits", 16, 22, Q2_PROBLEM_HEADER_CLUSTER_BITS, Q2_USABLE_ALL & ~Q2_USABLE_EXTENSIONS,
     NULL},
    {"cluster_bits", 16, 8, Q2_PROBLEM_HEADER_CLUSTER_BITS, Q2_USABLE_ALL & ~Q2_USABLE_EXTENSIONS,
     NULL},
    {"cluster_bits", 16, UINT32_MAX, Q2_PROBLEM_HEADER_CLUSTER_BITS,
     Q2_USABLE_ALL & ~Q2_USABLE_EXTENSIONS, NULL},
    {"refcount_order", 6, 7, Q2_PROBLEM_HEADER_REFCOUNT_ORDER, Q2_USABLE_REFCOUNTS, NULL},
    {"header_length", 65536, 65544, Q2_PROBLEM_HEADER_LENGTH, Q2_USABLE_EXTENSIONS, NULL},
    {"header_length", 104, 96, Q2_PROBLEM_HEADER_LENGTH, Q2_USABLE_EXTENSIONS, NULL},
    {"header_length", 112, 108, Q2_PROBLEM_HEADER_LENGTH, Q2_USABLE_EXTENSIONS, NULL},
    {"size", UINT64_C(512) << 20, (64 << 20) + 1, Q2_PROBLEM_HEADER_SIZE_UNALIGNED, 0, NULL},
    {"l1_size", 1, 0, Q2_PROBLEM_HEADER_L1_TOO_SMALL, 0, NULL},
    {"l1_size", (FILE_SIZE - 0x30000) / 8, (FILE_SIZE - 0x30000) / 8 + 1,
     Q2_PROBLEM_HEADER_L1_PAST_END, Q2_USABLE_L1, "l1_table_offset"},
    {"l1_size", 1, (32 << 20) / 8 + 1, Q2_PROBLEM_HEADER_L1_TOO_BIG, Q2_USABLE_L1, NULL},
    {"l1_table_offset", 0xf0000, 0, Q2_PROBLEM_HEADER_L1_UNALIGNED, Q2_USABLE_L1, NULL},
    {"l1_table_offset", 0xf0000, 0x30200, Q2_PROBLEM_HEADER_L1_UNALIGNED, Q2_USABLE_L1, NULL},
    {"l1_table_offset", 0xf0000, FILE_SIZE, Q2_PROBLEM_HEADER_L1_PAST_END, Q2_USABLE_L1, NULL},
    {"l1_table_offset", 0xf0000, ~UINT64_C(0xffff), Q2_PROBLEM_HEADER_L1_PAST_END, Q2_USABLE_L1,
     NULL},
    {"refcount_table_offset", 0xf0000, 0, Q2_PROBLEM_HEADER_REFCOUNT_TABLE_UNALIGNED,
     Q2_USABLE_REFCOUNTS, NULL},
    {"refcount_table_offset", 0xf0000, 0xf0001, Q2_PROBLEM_HEADER_REFCOUNT_TABLE_UNALIGNED,
     Q2_USABLE_REFCOUNTS, NULL},
    {"refcount_table_offset", 0xf0000, FILE_SIZE, Q2_PROBLEM_HEADER_REFCOUNT_TABLE_PAST_END,
     Q2_USABLE_REFCOUNTS, NULL},
    {"refcount_table_clusters", 15, 16, Q2_PROBLEM_HEADER_REFCOUNT_TABLE_PAST_END,
     Q2_USABLE_REFCOUNTS, "refcount_table_offset"},
    {"refcount_table_clusters", 1, 0, Q2_PROBLEM_HEADER_REFCOUNT_TABLE_SIZE, Q2_USABLE_REFCOUNTS,
     NULL},
    {"refcount_table_clusters", 1, 129, Q2_PROBLEM_HEADER_REFCOUNT_TABLE_SIZE, Q2_USABLE_REFCOUNTS,
     NULL},
    {"snapshots_offset", 0xfff0000, 8, Q2_PROBLEM_HEADER_SNAPSHOTS_UNALIGNED, Q2_USABLE_SNAPSHOTS,
     NULL},
    {"crypt_method", 2, 3, Q2_PROBLEM_HEADER_CRYPT_METHOD, 0, NULL},
    {"incompatible_features", 0, 1, Q2_PROBLEM_HEADER_DIRTY, 0, NULL},
    {"incompatible_features", 16, 2, Q2_PROBLEM_HEADER_CORRUPT, 0, NULL},
    {"incompatible_features", 4, 8, Q2_PROBLEM_HEADER_COMPRESSION_TYPE, 0, "compression_type"},
    {"compression_type", 0, 1, Q2_PROBLEM_HEADER_COMPRESSION_TYPE, 0, NULL},
    {"autoclear_features", 1, 2, Q2_PROBLEM_HEADER_RAW_DATA_BIT, 0, NULL},
};

Test(header, each_edge_is_where_it_belongs)
{
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
        const struct edge *edge = &edges[i];
        struct q2_header_field field;
        struct q2_header header = sound();
        set(&header, edge->field, edge->good);
        validate(&header);
        cr_expect_eq(record.count, 0, "%s = %#llx: %s", edge->field, (unsigned long long)edge->good,
                     record.count ? q2_problem_id(record.violations[0].problem) : "");
        header = sound();
        set(&header, edge->field, edge->bad);
        cr_expect_eq(validate(&header), Q2_USABLE_ALL & ~edge->lost, "%s = %#llx", edge->field,
                     (unsigned long long)edge->bad);
        cr_assert_eq(record.count, 1, "%s", q2_problem_id(edge->problem));
        q2_header_field(edge->blamed ? edge->blamed : edge->field, &field);
        expect_only(&record, edge->problem, field.offset,
                    edge->blamed ? record.violations[0].got : edge->bad);
    }
}

Test(header, snapshots_need_a_table)
{
    struct q2_header header = sound();
    header.nb_snapshots = 65536;
    header.snapshots_offset = 0x40000;
    cr_expect_eq(validate(&header), Q2_USABLE_ALL);
    expect_none(&record);
    header.snapshots_offset = 0;
    cr_expect_eq(validate(&header), Q2_USABLE_ALL & ~Q2_USABLE_SNAPSHOTS);
    expect_only(&record, Q2_PROBLEM_HEADER_SNAPSHOTS_UNALIGNED, 64, 0);
    header.snapshots_offset = FILE_SIZE;
    cr_expect_eq(validate(&header), Q2_USABLE_ALL & ~Q2_USABLE_SNAPSHOTS);
    expect_only(&record, Q2_PROBLEM_SNAPSHOT_TABLE_PAST_END, 64, FILE_SIZE);
    header.snapshots_offset = 0x40000;
    header.nb_snapshots = 65537;
    validate(&header);
    expect_only(&record, Q2_PROBLEM_HEADER_SNAPSHOTS_TOO_MANY, 60, 65537);
    header.nb_snapshots = 1;
    header.incompatible_features = Q2_INCOMPATIBLE_DATA_FILE;
    validate(&header);
    expect_only(&record, Q2_PROBLEM_HEADER_DATA_FILE_SNAPSHOTS, 60, 1);
}

Test(header, unknown_bits_are_reported_one_by_one)
{
    struct q2_header header = sound();
    header.incompatible_features = UINT64_C(1) << 63 | 1 << 5;
    header.compatible_features = 2;
    header.autoclear_features = 4;
    cr_expect_eq(validate(&header), Q2_USABLE_ALL);
    cr_assert_eq(record.count, 4);
    cr_expect_eq(record.violations[0].got, 5);
    cr_expect_eq(record.violations[1].got, 63);
    cr_expect_eq(record.violations[1].problem, Q2_PROBLEM_HEADER_INCOMPATIBLE_UNKNOWN);
    cr_expect_eq(record.violations[2].problem, Q2_PROBLEM_HEADER_COMPATIBLE_UNKNOWN);
    cr_expect_eq(record.violations[2].got, 1);
    cr_expect_eq(record.violations[3].problem, Q2_PROBLEM_HEADER_AUTOCLEAR_UNKNOWN);
    cr_expect_str_eq(record.violations[3].detail, "bit 2 of autoclear_features");
}

Test(header, backing_name)
{
    static const struct {
        uint64_t offset;
        uint32_t size;
        bool good;
    } names[] = {
        {112, 1023, true}, {112, 1024, false},        {111, 1, false},
        {65535, 1, true},  {65535, 2, false},         {65536, 0, true},
        {65537, 0, false}, {UINT64_MAX, 1023, false}, {200, UINT32_MAX, false},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct q2_header header = sound();
        header.backing_file_offset = names[i].offset;
        header.backing_file_size = names[i].size;
        unsigned usable = validate(&header);
        cr_expect_eq(usable & Q2_USABLE_BACKING_NAME, names[i].good ? Q2_USABLE_BACKING_NAME : 0,
                     "name %zu", i);
        if (!names[i].good)
            expect_only(&record, Q2_PROBLEM_HEADER_BACKING_NAME, 8, names[i].offset);
    }
    struct q2_header header = sound();
    header.backing_file_offset = 112;
    header.backing_file_size = 4;
    header.incompatible_features = Q2_INCOMPATIBLE_DATA_FILE;
    header.autoclear_features = Q2_AUTOCLEAR_RAW_DATA;
    validate(&header);
    expect_only(&record, Q2_PROBLEM_HEADER_BACKING_RAW_DATA, 8, 112);
}

Test(header, disk_larger_than_any_l1_table_maps)
{
    struct q2_header header = sound();
    header.cluster_bits = 9;
    header.header_length = 104;
    header.l1_size = 4096;
    header.size = (UINT64_C(1) << 22) << 15; /* 4 M entries of 32 KiB */
    cr_expect(!(validate(&header), find_violation(&record, Q2_PROBLEM_HEADER_SIZE_TOO_BIG)));
    header.size += 512;
    validate(&header);
    cr_expect(find_violation(&record, Q2_PROBLEM_HEADER_SIZE_TOO_BIG));
    cr_expect(!find_violation(&record, Q2_PROBLEM_HEADER_L1_TOO_SMALL), "one reason is enough");
    header.size = UINT64_MAX;
    validate(&header);
    cr_expect(find_violation(&record, Q2_PROBLEM_HEADER_SIZE_TOO_BIG));
}

Test(header, extended_l2_needs_large_clusters)
{
    struct q2_header header = sound();
    header.cluster_bits = 14;
    header.incompatible_features = Q2_INCOMPATIBLE_EXTENDED_L2;
    cr_expect(!(validate(&header), find_violation(&record, Q2_PROBLEM_HEADER_EXTENDED_L2_CLUSTER)));
    header.cluster_bits = 13;
    cr_expect(!(validate(&header) & (Q2_USABLE_L1 | Q2_USABLE_SNAPSHOTS)));
    cr_expect(find_violation(&record, Q2_PROBLEM_HEADER_EXTENDED_L2_CLUSTER));
}

Test(header, a_file_shorter_than_its_header)
{
    struct q2_header header = sound();
    struct q2_sink sink = record_sink(&record);
    cr_expect_eq(q2_header_validate(&header, 103, &sink), 0);
    expect_only(&record, Q2_PROBLEM_HEADER_TRUNCATED, 0, 103);
    cr_expect_eq(record.violations[0].expected, 104);
    header.version = 2;
    sink = record_sink(&record);
    cr_expect_eq(q2_header_validate(&header, 0, &sink), 0);
    expect_only(&record, Q2_PROBLEM_HEADER_TRUNCATED, 0, 0);
}

/* ---- plausibility and geometry ---- */

Test(header, plausible_without_its_magic)
{
    struct q2_header header = sound();
    header.magic = 0;
    cr_expect(q2_header_plausible(&header, FILE_SIZE));
    for (size_t i = 0; i < 9; i++) {
        static const struct {
            const char *field;
            uint64_t value;
        } breaks[] = {{"version", 1},
                      {"cluster_bits", 22},
                      {"cluster_bits", 8},
                      {"l1_table_offset", 0x30001},
                      {"l1_table_offset", FILE_SIZE},
                      {"refcount_table_offset", 0},
                      {"refcount_table_offset", FILE_SIZE},
                      {"refcount_order", 7},
                      {"crypt_method", 3}};
        struct q2_header other = header;
        set(&other, breaks[i].field, breaks[i].value);
        cr_expect(!q2_header_plausible(&other, FILE_SIZE), "%s", breaks[i].field);
    }
}

Test(header, geometry)
{
    struct q2_header header = sound();
    struct q2_geometry geometry;
    header.incompatible_features = Q2_INCOMPATIBLE_EXTENDED_L2 | Q2_INCOMPATIBLE_DATA_FILE;
    header.crypt_method = Q2_CRYPT_AES;
    header.refcount_order = 0;
    q2_geometry_init(&geometry, &header, FILE_SIZE + 1);
    cr_expect_eq(geometry.l2_entry_size, 16);
    cr_expect_eq(geometry.l2_entries, 4096);
    cr_expect_eq(geometry.refcount_block_bits, 19);
    cr_expect_eq(geometry.file_clusters, 17, "the last one is cut");
    cr_expect(geometry.data_file && geometry.encrypted && geometry.extended_l2);
    cr_expect_eq(q2_l2_reach(&geometry), UINT64_C(256) << 20);
    cr_expect_eq(q2_l1_entries_for(&geometry, 0), 0);
    cr_expect_eq(q2_l1_entries_for(&geometry, 1), 1);
    cr_expect_eq(q2_l1_entries_for(&geometry, UINT64_C(256) << 20), 1);
    cr_expect_eq(q2_l1_entries_for(&geometry, (UINT64_C(256) << 20) + 1), 2);
    cr_expect_eq(q2_l1_entries_for(&geometry, UINT64_MAX), UINT64_C(1) << 36, "no overflow");
}
