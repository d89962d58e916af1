/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* L1 and L2 entries: what each bit means in each kind of image, and where the rules draw the line.
 */

#include "core/format/entry.h"

#include "tests/unit/format_record.h"

enum { FILE_SIZE = (1 << 20) + 100 }; /* the last cluster is cut short */

#define COPIED     Q2_ENTRY_COPIED
#define COMPRESSED Q2_ENTRY_COMPRESSED
#define BIT(n)     (UINT64_C(1) << (n))

static struct q2_geometry geometry;
static struct record record;

static void
start(void)
{
    geometry = make_geometry(16, FILE_SIZE, 64 << 20);
}

static bool
l1(uint64_t raw)
{
    struct q2_sink sink = record_sink(&record);
    return q2_l1_entry_validate(&geometry, raw, 0x30008, &sink);
}

static bool
l2(uint64_t raw, uint64_t bitmap)
{
    struct q2_sink sink = record_sink(&record);
    struct q2_l2_entry entry = {.raw = raw, .bitmap = bitmap};
    return q2_l2_entry_validate(&geometry, &entry, 0x40010, 0x20000, &sink);
}

/* What an L2 entry breaks alone, whether it leads anywhere, and the value that would be right. */
static void
expect_l2(uint64_t raw, uint64_t bitmap, bool leads, enum q2_problem problem, uint64_t expected)
{
    cr_expect_eq(l2(raw, bitmap), leads, "%#llx", (unsigned long long)raw);
    cr_assert_eq(record.count, 1, "%#llx breaks %zu rules", (unsigned long long)raw, record.count);
    cr_expect_eq(record.violations[0].problem, problem, "%#llx: %s", (unsigned long long)raw,
                 q2_problem_id(record.violations[0].problem));
    cr_expect_eq(record.violations[0].expected, expected);
}

TestSuite(entry, .init = start);

/* ---- L1 ---- */

Test(entry, l1)
{
    cr_expect(l1(COPIED | 0x50000));
    expect_none(&record);
    cr_expect(l1(0x100000), "the cluster that is cut short");
    expect_none(&record);
    cr_expect(!l1(0));
    expect_none(&record);

    cr_expect(!l1(COPIED));
    expect_only(&record, Q2_PROBLEM_L1_ENTRY_COPIED_EMPTY, 0x30008, COPIED);
    cr_expect(!l1(0x110000));
    expect_only(&record, Q2_PROBLEM_L1_ENTRY_PAST_END, 0x30008, 0x110000);
    cr_expect(!l1(0x50200));
    expect_only(&record, Q2_PROBLEM_L1_ENTRY_UNALIGNED, 0x30008, 0x50200);
    cr_expect(l1(0x50001), "the offset is still good");
    expect_only(&record, Q2_PROBLEM_L1_ENTRY_RESERVED, 0x30008, 0x50001);
    cr_expect(l1(BIT(62) | 0x50000), "L1 entries are never compressed");
    expect_only(&record, Q2_PROBLEM_L1_ENTRY_RESERVED, 0x30008, BIT(62) | 0x50000);
    cr_expect(!l1(BIT(55) | 0x200));
    cr_expect_eq(record.count, 2, "unaligned and past the end are two faults");
}

/* ---- kinds ---- */

Test(entry, kinds)
{
    cr_expect_eq(q2_l2_kind(&geometry, 0), Q2_CLUSTER_UNALLOCATED);
    cr_expect_eq(q2_l2_kind(&geometry, COPIED), Q2_CLUSTER_UNALLOCATED);
    cr_expect_eq(q2_l2_kind(&geometry, 1), Q2_CLUSTER_ZERO);
    cr_expect_eq(q2_l2_kind(&geometry, COPIED | 0x50001), Q2_CLUSTER_ZERO_ALLOCATED);
    cr_expect_eq(q2_l2_kind(&geometry, 0x50000), Q2_CLUSTER_STANDARD);
    cr_expect_eq(q2_l2_kind(&geometry, COMPRESSED), Q2_CLUSTER_COMPRESSED);
    geometry.extended_l2 = true;
    cr_expect_eq(q2_l2_kind(&geometry, 0x50001), Q2_CLUSTER_STANDARD, "bit 0 is reserved there");
    geometry.data_file = true;
    cr_expect_eq(q2_l2_kind(&geometry, COPIED), Q2_CLUSTER_STANDARD, "offset 0 of a data file");
    cr_expect_eq(q2_l2_kind(&geometry, 0), Q2_CLUSTER_UNALLOCATED);
}

Test(entry, loading)
{
    const uint8_t table[32] = {[7] = 1, [15] = 2, [23] = 3, [31] = 4};
    cr_expect_eq(q2_l2_load(&geometry, table, 2).raw, 3);
    cr_expect_eq(q2_l2_load(&geometry, table, 2).bitmap, 0);
    geometry.extended_l2 = true;
    geometry.l2_entry_size = 16;
    cr_expect_eq(q2_l2_load(&geometry, table, 1).raw, 3);
    cr_expect_eq(q2_l2_load(&geometry, table, 1).bitmap, 4);
}

/* Exactly the entries without odd bits break no rule for their bits. */
Test(entry, odd_bits)
{
    for (unsigned bit = 0; bit < 64; bit++) {
        bool odd = q2_entry_odd_bits(&geometry) >> bit & 1;
        bool plain = bit == 63 || (bit >= 16 && bit <= 55);
        cr_expect_neq(odd, plain, "bit %u", bit);
    }
}

/* ---- standard clusters ---- */

Test(entry, standard)
{
    cr_expect(l2(COPIED | 0x50000, 0));
    expect_none(&record);
    cr_expect(l2(0x50001, 0), "zero, and allocated");
    expect_none(&record);
    cr_expect(!l2(1, 0));
    expect_none(&record);
    cr_expect(!l2(0, 0));
    expect_none(&record);
    expect_l2(COPIED, 0, false, Q2_PROBLEM_L2_ENTRY_COPIED_EMPTY, 0);
    expect_l2(COPIED | 1, 0, false, Q2_PROBLEM_L2_ENTRY_COPIED_EMPTY, 0);
    expect_l2(0x110000, 0, false, Q2_PROBLEM_L2_ENTRY_PAST_END, 0);
    expect_l2(0x50400, 0, false, Q2_PROBLEM_L2_ENTRY_UNALIGNED, 0);
    for (unsigned bit = 1; bit < 9; bit++)
        expect_l2(0x50000 | BIT(bit), 0, true, Q2_PROBLEM_L2_ENTRY_RESERVED, 0x50000);
    for (unsigned bit = 56; bit < 62; bit++)
        expect_l2(0x50000 | BIT(bit), 0, true, Q2_PROBLEM_L2_ENTRY_RESERVED, 0x50000);
}

Test(entry, version_2_has_no_zero_flag)
{
    geometry.version = 2;
    expect_l2(1, 0, false, Q2_PROBLEM_L2_ENTRY_ZERO_V2, 0);
    expect_l2(COPIED | 0x50001, 0, true, Q2_PROBLEM_L2_ENTRY_ZERO_V2, 0);
}

Test(entry, data_file)
{
    geometry.data_file = true;
    cr_expect(l2(COPIED | 0x20000, 0), "at its own guest offset");
    expect_none(&record);
    expect_l2(0x20000, 0, true, Q2_PROBLEM_L2_COPIED_CLEAR, 1);
    expect_l2(0x20001, 0, true, Q2_PROBLEM_L2_COPIED_CLEAR, 1);
    expect_l2(COPIED | 0x30000, 0, false, Q2_PROBLEM_L2_DATA_FILE_OFFSET, 0x20000);
    expect_l2(0x30000, 0, false, Q2_PROBLEM_L2_DATA_FILE_OFFSET, 0x20000);
    expect_l2(COPIED, 0, false, Q2_PROBLEM_L2_DATA_FILE_OFFSET, 0x20000);
    expect_l2(COMPRESSED, 0, false, Q2_PROBLEM_L2_COMPRESSED_DATA_FILE, 0);
}

/* ---- compressed clusters ---- */

Test(entry, descriptors_round_trip)
{
    static const struct {
        uint64_t offset;
        uint64_t length;
    } ranges[] = {{0x50000, 1}, {0x50000, 512}, {0x501ff, 1}, {0x50001, 512}, {0x50123, 60000}};
    for (unsigned bits = 9; bits <= 21; bits++) {
        geometry = make_geometry(bits, UINT64_C(1) << 30, 64 << 20);
        for (size_t i = 0; i < 5; i++) {
            if (ranges[i].length > geometry.cluster_size)
                continue;
            uint64_t raw = q2_compressed_encode(&geometry, ranges[i].offset, ranges[i].length);
            struct q2_compressed_range range = q2_compressed_decode(&geometry, raw);
            cr_expect(raw & COMPRESSED);
            cr_expect_eq(range.offset, ranges[i].offset, "cluster_bits %u", bits);
            cr_expect_geq(range.length, ranges[i].length);
            cr_expect_eq((range.offset + range.length) % 512, 0, "ends with a sector");
            cr_expect_lt(range.length - ranges[i].length, 512, "and no later than it must");
        }
    }
    /* The specification's own numbers: 62 - (cluster_bits - 8) bits of offset. */
    geometry = make_geometry(16, FILE_SIZE, 64 << 20);
    cr_expect_eq(q2_compressed_encode(&geometry, 0x50000, 1024), COMPRESSED | BIT(54) | 0x50000);
}

Test(entry, compressed)
{
    uint64_t raw = q2_compressed_encode(&geometry, 0x50010, 700);
    cr_expect(l2(raw, 0));
    expect_none(&record);
    cr_expect(l2(q2_compressed_encode(&geometry, 0x10fe00, 512), 0), "up to the cluster's end");
    expect_none(&record);
    expect_l2(q2_compressed_encode(&geometry, 0x10fe00, 513), 0, false,
              Q2_PROBLEM_L2_COMPRESSED_PAST_END, 0);
    expect_l2(raw | COPIED, 0, true, Q2_PROBLEM_L2_COMPRESSED_COPIED, raw);
    geometry.encrypted = true;
    expect_l2(raw, 0, true, Q2_PROBLEM_L2_COMPRESSED_ENCRYPTED, 0);
    geometry = make_geometry(9, FILE_SIZE, 64 << 20);
    expect_l2(COMPRESSED | BIT(56) | 0x50000, 0, false, Q2_PROBLEM_L2_COMPRESSED_RESERVED, 0);
}

/* ---- subclusters ---- */

Test(entry, subclusters)
{
    geometry.extended_l2 = true;
    geometry.l2_entry_size = 16;
    cr_expect(l2(0x50000, UINT64_C(0xffff0000) << 32 | 0xffff));
    expect_none(&record);
    cr_expect(!l2(0, UINT64_MAX << 32), "zeros need no host cluster");
    expect_none(&record);
    expect_l2(0x50000, UINT64_C(1) << 32 | 1, true, Q2_PROBLEM_L2_SUBCLUSTER_CONFLICT, 0);
    expect_l2(0, 1, false, Q2_PROBLEM_L2_SUBCLUSTER_NO_OFFSET, 0);
    expect_l2(0x50001, 1, true, Q2_PROBLEM_L2_ENTRY_ZERO_EXTENDED, 0x50000);
    uint64_t raw = q2_compressed_encode(&geometry, 0x50000, 700);
    expect_l2(raw, 1, true, Q2_PROBLEM_L2_SUBCLUSTER_COMPRESSED, 0);
    cr_expect_eq(record.violations[0].offset, 0x40018, "the second half of the entry");
}
