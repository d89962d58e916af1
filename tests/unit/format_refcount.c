/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Refcounts of every width against a plain array, and the entries of the refcount table. */

#include "core/format/refcount.h"

#include "tests/unit/format_record.h"

#include <string.h>

enum { ENTRIES = 200 };

static uint64_t
next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state ^ *state >> 29;
}

Test(refcount, agrees_with_an_array_at_every_width)
{
    for (unsigned order = 0; order <= Q2_MAX_REFCOUNT_ORDER; order++) {
        uint8_t block[ENTRIES * 8];
        uint64_t model[ENTRIES] = {0}, state = order;
        memset(block, 0, sizeof block);
        for (unsigned step = 0; step < 5000; step++) {
            uint64_t index = next_random(&state) % ENTRIES;
            model[index] = next_random(&state) & q2_refcount_max(order);
            q2_refcount_set(block, order, index, model[index]);
        }
        for (unsigned i = 0; i < ENTRIES; i++)
            cr_assert_eq(q2_refcount_get(block, order, i), model[i], "order %u index %u", order, i);
    }
}

Test(refcount, maximum)
{
    cr_expect_eq(q2_refcount_max(0), 1);
    cr_expect_eq(q2_refcount_max(3), 255);
    cr_expect_eq(q2_refcount_max(5), UINT32_MAX);
    cr_expect_eq(q2_refcount_max(6), UINT64_MAX);
}

/* Narrow refcounts fill a byte from its least significant bit, wide ones are big-endian. */
Test(refcount, bytes_are_those_of_the_specification)
{
    uint8_t block[16] = {0};
    q2_refcount_set(block, 0, 0, 1);
    q2_refcount_set(block, 0, 9, 1);
    cr_expect_eq(block[0], 0x01);
    cr_expect_eq(block[1], 0x02);
    memset(block, 0xff, sizeof block);
    q2_refcount_set(block, 1, 1, 2);
    cr_expect_eq(block[0], 0xfb);
    q2_refcount_set(block, 2, 3, 5);
    cr_expect_eq(block[1], 0x5f);
    q2_refcount_set(block, 4, 1, 0x0102);
    cr_expect_eq(block[2], 0x01);
    cr_expect_eq(block[3], 0x02);
    q2_refcount_set(block, 6, 1, UINT64_C(0x0102030405060708));
    cr_expect_eq(block[8], 0x01);
    cr_expect_eq(block[15], 0x08);
}

Test(refcount, table_entries)
{
    struct q2_geometry geometry = make_geometry(12, 0x9001, 1 << 20);
    struct record record;
    struct q2_sink sink = record_sink(&record);
    cr_expect(q2_refcount_entry_validate(&geometry, 0x1000, 8, &sink));
    cr_expect(q2_refcount_entry_validate(&geometry, 0x9000, 8, &sink), "the last one may be cut");
    cr_expect(!q2_refcount_entry_validate(&geometry, 0, 8, &sink), "nothing to use, nothing wrong");
    expect_none(&record);

    cr_expect(!q2_refcount_entry_validate(&geometry, 0xa000, 8, &sink));
    expect_only(&record, Q2_PROBLEM_REFCOUNT_BLOCK_PAST_END, 8, 0xa000);
    sink = record_sink(&record);
    cr_expect(!q2_refcount_entry_validate(&geometry, ~UINT64_C(0xfff), 8, &sink));
    expect_only(&record, Q2_PROBLEM_REFCOUNT_BLOCK_PAST_END, 8, ~UINT64_C(0xfff));
    sink = record_sink(&record);
    cr_expect(!q2_refcount_entry_validate(&geometry, 0x1200, 16, &sink));
    expect_only(&record, Q2_PROBLEM_REFCOUNT_BLOCK_UNALIGNED, 16, 0x1200);
    sink = record_sink(&record);
    cr_expect(q2_refcount_entry_validate(&geometry, 0x1001, 24, &sink), "the offset is still good");
    expect_only(&record, Q2_PROBLEM_REFCOUNT_TABLE_RESERVED, 24, 0x1001);
    cr_expect_eq(record.violations[0].expected, 0x1000);
    sink = record_sink(&record);
    cr_expect(!q2_refcount_entry_validate(&geometry, 0x1ff, 24, &sink));
    expect_only(&record, Q2_PROBLEM_REFCOUNT_TABLE_RESERVED, 24, 0x1ff);
}
