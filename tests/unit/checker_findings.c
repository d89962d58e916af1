/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The list of findings: neighbours join, everything is counted, only so much is kept. */

#include "checker/findings.h"

#include <criterion/criterion.h>
#include <string.h>

static struct q2_budget budget;
static struct q2_findings findings;

static void
setup(void)
{
    q2_budget_init(&budget, 16 << 20);
    q2_findings_init(&findings, &budget, 5);
}

static void
teardown(void)
{
    q2_findings_destroy(&findings);
    cr_expect_eq(budget.used, 0);
}

TestSuite(findings, .init = setup, .fini = teardown);

static struct q2_finding
leak(uint64_t cluster, uint64_t refcount)
{
    return (struct q2_finding){.problem = Q2_PROBLEM_CLUSTER_LEAKED,
                               .has = Q2_HAS_TARGET | Q2_HAS_GOT | Q2_HAS_EXPECTED,
                               .target_offset = cluster * 4096,
                               .target_length = 4096,
                               .got = refcount};
}

static void
add(struct q2_finding finding)
{
    q2_findings_add(&findings, &finding);
}

/* ---- joining ---- */

Test(findings, neighbours_join)
{
    add(leak(10, 1));
    add(leak(11, 1));
    add(leak(12, 1));
    cr_assert_eq(findings.count, 1);
    cr_expect_eq(findings.items[0].count, 3);
    cr_expect_eq(findings.items[0].target_offset, 40960);
    cr_expect_eq(findings.items[0].target_length, 12288);
    add(leak(14, 1));
    cr_expect_eq(findings.count, 2, "a gap");
    add(leak(15, 2));
    cr_expect_eq(findings.count, 3, "another refcount");
    add(leak(13, 2));
    cr_expect_eq(findings.count, 4, "backwards");
    cr_expect_eq(findings.totals[Q2_PROBLEM_CLUSTER_LEAKED].count, 6);
    cr_expect_eq(findings.totals[Q2_PROBLEM_CLUSTER_LEAKED].findings, 4);
}

Test(findings, only_equals_join)
{
    struct q2_finding first = {.problem = Q2_PROBLEM_L2_ENTRY_PAST_END,
                               .has = Q2_HAS_HOST | Q2_HAS_GUEST | Q2_HAS_GOT,
                               .host_offset = 0x4000,
                               .host_length = 8,
                               .guest_offset = 0,
                               .guest_length = 4096,
                               .maps = 1,
                               .got = 0x99000};
    struct q2_finding next = first;
    next.host_offset += 8;
    next.guest_offset += 4096;
    next.got = 0x77000; /* entries differ in any case */
    add(first);
    add(next);
    cr_expect_eq(findings.count, 1);
    cr_expect_eq(findings.items[0].got, 0x99000, "that of the first");
    cr_expect_eq(findings.items[0].guest_length, 8192);

    next.host_offset += 8;
    next.guest_offset += 4096;
    next.maps = 2;
    add(next);
    cr_expect_eq(findings.count, 2, "another snapshot");
    next.host_offset += 8;
    next.guest_offset += 8192;
    add(next);
    cr_expect_eq(findings.count, 3, "the guest range has a gap");
    next.host_offset += 8;
    next.guest_offset += 4096;
    next.has |= Q2_HAS_L2;
    add(next);
    cr_expect_eq(findings.count, 4, "says more than the last");
}

Test(findings, another_problem_does_not_come_between)
{
    add(leak(1, 1));
    add((struct q2_finding){.problem = Q2_PROBLEM_HEADER_DIRTY});
    add(leak(2, 1));
    cr_expect_eq(findings.count, 2);
}

Test(findings, owners_decide)
{
    struct q2_finding zero = {.problem = Q2_PROBLEM_REFCOUNT_ZERO,
                              .has = Q2_HAS_TARGET | Q2_HAS_OWNERS,
                              .target_length = 4096,
                              .owners = {{.kind = Q2_OWNER_L1_TABLE, .maps = 1}}};
    add(zero);
    zero.target_offset += 4096;
    add(zero);
    cr_expect_eq(findings.count, 1, "two clusters of one table");
    zero.target_offset += 4096;
    zero.owners[0].kind = Q2_OWNER_REFCOUNT_TABLE;
    add(zero);
    cr_expect_eq(findings.count, 2);

    zero.owners[0] = (struct q2_owner){.kind = Q2_OWNER_DATA, .maps = 1, .guest_length = 4096};
    zero.target_offset += 4096;
    add(zero);
    zero.target_offset += 4096;
    zero.owners[0].guest = 4096;
    add(zero);
    cr_expect_eq(findings.count, 3, "consecutive data");
    cr_expect_eq(findings.items[2].owners[0].guest_length, 8192);
    zero.target_offset += 4096;
    zero.owners[0].guest = 16384;
    add(zero);
    cr_expect_eq(findings.count, 4, "data from elsewhere");
}

/* ---- bounds ---- */

Test(findings, keeps_some_counts_all)
{
    for (uint64_t i = 0; i < 5; i++)
        add(leak(i * 2, 1));
    cr_expect_eq(findings.count, 5);
    add(leak(9, 1)); /* right behind the last one that was kept */
    cr_expect_eq(findings.totals[Q2_PROBLEM_CLUSTER_LEAKED].unlisted, 0, "joined all the same");
    for (uint64_t i = 6; i < 101; i++)
        add(leak(i * 2, 1));
    cr_expect_eq(findings.count, 5);
    cr_expect_eq(findings.totals[Q2_PROBLEM_CLUSTER_LEAKED].count, 101);
    cr_expect_eq(findings.totals[Q2_PROBLEM_CLUSTER_LEAKED].findings, 5);
    cr_expect_eq(findings.totals[Q2_PROBLEM_CLUSTER_LEAKED].unlisted, 95);
    add((struct q2_finding){.problem = Q2_PROBLEM_HEADER_DIRTY});
    cr_expect_eq(findings.count, 6, "each problem has its own limit");
    struct q2_finding many = leak(10, 1);
    many.count = 7;
    many.target_length = 7 * 4096;
    add(many);
    cr_expect_eq(findings.totals[Q2_PROBLEM_CLUSTER_LEAKED].count, 108);
    cr_expect_eq(findings.totals[Q2_PROBLEM_CLUSTER_LEAKED].unlisted, 102, "the list has ended");
}

/* However the work is divided, the list is the same: also where what is full would go on with what
 * another part has no room for. */
Test(findings, parts_make_the_whole)
{
    static const uint64_t clusters[] = {0,   2,   3,   10,  12,  20, 21, 100,
                                        102, 104, 106, 108, 110, 22, 30};
    enum { COUNT = sizeof clusters / sizeof *clusters };
    const q2_map_set ids[] = {0};
    for (uint64_t i = 0; i < COUNT; i++)
        add(leak(clusters[i], 1));
    for (uint64_t cut = 0; cut <= COUNT; cut++) {
        struct q2_findings whole, part;
        q2_findings_init(&whole, &budget, 5);
        for (int half = 0; half < 2; half++) {
            q2_findings_init(&part, &budget, 5);
            for (uint64_t i = half ? cut : 0; i < (half ? COUNT : cut); i++) {
                struct q2_finding finding = leak(clusters[i], 1);
                q2_findings_add(&part, &finding);
            }
            q2_findings_absorb(&whole, &part, ids);
            q2_findings_destroy(&part);
        }
        cr_assert_eq(memcmp(whole.totals, findings.totals, sizeof whole.totals), 0, "cut at %d",
                     (int)cut);
        for (uint64_t i = 0; i < findings.count; i++) {
            cr_expect_eq(whole.items[i].target_offset, findings.items[i].target_offset);
            cr_expect_eq(whole.items[i].target_length, findings.items[i].target_length);
        }
        q2_findings_destroy(&whole);
    }
}

Test(findings, lack_of_memory_is_remembered)
{
    q2_findings_destroy(&findings);
    q2_budget_init(&budget, 4096);
    q2_findings_init(&findings, &budget, 1000);
    for (uint64_t i = 0; i < 1000; i++)
        add(leak(i * 2, 1));
    cr_expect_eq(findings.failed, Q2_ERR_BUDGET);
    cr_expect_neq(findings.error.message[0], '\0');
}

/* ---- violations ---- */

Test(findings, violations_become_findings)
{
    struct q2_sink sink = q2_findings_sink(&findings);
    q2_violate_expected(&sink, Q2_PROBLEM_HEADER_L1_TOO_SMALL, 36, 4, 1, 2, "%s", "l1_size");
    q2_violate(&sink, Q2_PROBLEM_HEADER_VERSION, 4, 4, 7, NULL);
    q2_violate_text(&sink, Q2_PROBLEM_EXTENSION_DUPLICATE, 112, 8, "another \"%s\"", "bitmaps");
    cr_assert_eq(findings.count, 3);
    const struct q2_finding *item = findings.items;
    cr_expect_eq(item[0].has, Q2_HAS_HOST | Q2_HAS_GOT | Q2_HAS_EXPECTED);
    cr_expect_eq(item[0].host_offset, 36);
    cr_expect_eq(item[0].host_length, 4);
    cr_expect_eq(item[0].expected, 2);
    cr_expect_str_eq(item[0].detail, "l1_size");
    cr_expect_eq(item[1].has, Q2_HAS_HOST | Q2_HAS_GOT);
    cr_expect_null(item[1].detail);
    cr_expect_eq(item[2].has, Q2_HAS_HOST, "no number to show");
    cr_expect_str_eq(item[2].detail, "another \"bitmaps\"");
}

/* ---- order ---- */

Test(findings, order_is_severity_problem_place)
{
    add((struct q2_finding){.problem = Q2_PROBLEM_SNAPSHOT_NAME_DUPLICATE});
    add(leak(9, 1));
    add(leak(3, 1));
    add((struct q2_finding){.problem = Q2_PROBLEM_HEADER_DIRTY});
    add((struct q2_finding){.problem = Q2_PROBLEM_L2_TABLE_UNREADABLE});
    add((struct q2_finding){.problem = Q2_PROBLEM_REFCOUNT_ZERO, .got = 2, .guest_offset = 8});
    add((struct q2_finding){.problem = Q2_PROBLEM_REFCOUNT_ZERO, .got = 1, .guest_offset = 8});
    add((struct q2_finding){.problem = Q2_PROBLEM_HEADER_MAGIC});
    q2_findings_sort(&findings);
    static const enum q2_problem order[] = {
        Q2_PROBLEM_HEADER_MAGIC,   Q2_PROBLEM_REFCOUNT_ZERO,
        Q2_PROBLEM_REFCOUNT_ZERO,  Q2_PROBLEM_CLUSTER_LEAKED,
        Q2_PROBLEM_CLUSTER_LEAKED, Q2_PROBLEM_L2_TABLE_UNREADABLE,
        Q2_PROBLEM_HEADER_DIRTY,   Q2_PROBLEM_SNAPSHOT_NAME_DUPLICATE,
    };
    cr_assert_eq(findings.count, 8);
    for (size_t i = 0; i < 8; i++)
        cr_expect_eq(findings.items[i].problem, order[i], "place %zu: %s", i,
                     q2_problem_id(findings.items[i].problem));
    cr_expect_eq(findings.items[1].got, 1, "the same place: by value");
    cr_expect_eq(findings.items[3].target_offset, 3 * 4096);
}
