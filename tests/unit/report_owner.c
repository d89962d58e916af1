/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Owners, maps, and what findings come to in guest bytes. */

#include "tests/unit/fake_check.h"

/* ---- owners and maps ---- */

Test(owner, says_what_and_whose)
{
    struct q2_check check = {.snapshots = 3};
    struct q2_owner owner = {.kind = Q2_OWNER_L2_TABLE,
                             .maps = 3,
                             .guest_length = UINT64_C(512) << 20};
    char text[256];
    cr_expect_str_eq(q2_report_owner(&check, &owner, text, sizeof text),
                     "L2 table for guest 0-512M (active, snapshot 'before')");
    owner =
        (struct q2_owner){.kind = Q2_OWNER_DATA, .maps = 4, .guest = 65536, .guest_length = 65536};
    cr_expect_str_eq(q2_report_owner(&check, &owner, text, sizeof text),
                     "guest data, guest 64K-128K (snapshot '2')");
    owner = (struct q2_owner){.kind = Q2_OWNER_DATA,
                              .maps = 1,
                              .guest = UINT64_C(1) << 30,
                              .guest_length = 65536};
    cr_expect_str_eq(q2_report_owner(&check, &owner, text, sizeof text),
                     "guest data in VM state, at guest 1048576K-1048640K (active)");
    owner = (struct q2_owner){.kind = Q2_OWNER_REFCOUNT_BLOCK, .index = 7};
    cr_expect_str_eq(q2_report_owner(&check, &owner, text, sizeof text), "refcount block 7");
    owner = (struct q2_owner){.kind = Q2_OWNER_BITMAP_DATA, .index = 0};
    cr_expect_str_eq(q2_report_owner(&check, &owner, text, sizeof text), "data of bitmap #1");
}

Test(owner, many_maps_stay_short)
{
    struct q2_check check = {.snapshots = 6};
    char text[256];
    cr_expect_str_eq(q2_report_maps(&check, 0, text, sizeof text), "");
    cr_expect_str_eq(q2_report_maps(&check, 0x7f, text, sizeof text), "active and all 6 snapshots");
    cr_expect_str_eq(q2_report_maps(&check, 0x7e, text, sizeof text), "all 6 snapshots");
    cr_expect_str_eq(q2_report_maps(&check, 0x3f, text, sizeof text),
                     "active, snapshot 'before', snapshot '2', snapshot 'a name that goes on and "
                     "on until nobody ...' and 2 more");
    cr_expect_str_eq(q2_report_maps(&check, 0x80000000, text, sizeof text), "snapshot #31");
}

/* ---- sums ---- */

Test(impact, counts_each_guest_byte_once)
{
    struct q2_check check = {.snapshots = 1};
    struct q2_impact_sum sums[Q2_IMPACT_COUNT];
    add_past_end(&check, 65536, 1);
    add_past_end(&check, 65536, 3);
    add_past_end(&check, 131072, 1);
    add_past_end(&check, 65536, 2);
    add_past_end(&check, 1 << 20, 2);
    add_past_end(&check, (1 << 30) - 4096, 1);
    q2_impact_sums(&check, sums);
    const struct q2_impact_sum *sum = &sums[Q2_IMPACT_UNREADABLE];
    cr_expect_eq(sum->faults, 6);
    cr_expect_eq(sum->active_bytes, 131072 + 4096);
    cr_expect_eq(sum->snapshot_bytes, 65536);
    cr_expect_eq(sum->vm_state_bytes, 65536 - 4096);
    cr_expect_eq(sum->ranges, 2);
    cr_expect_eq(sum->first, 65536);
    cr_expect_eq(sum->first_size, 131072);
    cr_expect_not(sum->at_least);

    check.problems[Q2_PROBLEM_L2_ENTRY_PAST_END].unlisted = 1;
    q2_impact_sums(&check, sums);
    cr_expect(sum->at_least);
}

Test(impact, snapshot_bytes_exclude_active_ones)
{
    struct q2_check check = {.snapshots = 1};
    struct q2_impact_sum sums[Q2_IMPACT_COUNT];
    add_past_end(&check, 0, 2);
    check.findings[0].guest_length = 10 * 65536;
    add_past_end(&check, 65536, 1);
    add_past_end(&check, 3 * 65536, 1);
    add_past_end(&check, 9 * 65536, 1);
    q2_impact_sums(&check, sums);
    cr_expect_eq(sums[Q2_IMPACT_UNREADABLE].snapshot_bytes, 7 * 65536);
}
