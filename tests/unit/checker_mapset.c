/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Interned sets of maps: equal sets have one id, different ones never. */

#include "checker/mapset.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { SETS = 3000, MOST = 12 };

static struct q2_budget budget;
static struct q2_mapset *sets;

static void
setup(void)
{
    q2_budget_init(&budget, 16 << 20);
    cr_assert_eq(q2_mapset_new(&budget, &sets, NULL), 0);
}

static void
teardown(void)
{
    q2_mapset_free(sets);
    cr_expect_eq(budget.used, 0);
}

TestSuite(mapset, .init = setup, .fini = teardown);

static q2_map_set
intern(const uint32_t *members, size_t count)
{
    q2_map_set set = 12345;
    cr_assert_eq(q2_mapset_intern(sets, members, count, &set, NULL), 0);
    return set;
}

Test(mapset, equal_sets_are_one)
{
    static const uint32_t a[] = {0, 1, 2}, b[] = {0, 1, 3};
    q2_map_set first = intern(a, 3), other = intern(b, 3), shorter = intern(a, 2);
    cr_expect_neq(first, Q2_MAP_SET_NONE);
    cr_expect_neq(first, other);
    cr_expect_neq(first, shorter);
    cr_expect_neq(shorter, intern(a, 1));
    cr_expect_eq(intern(a, 3), first);
    cr_expect_eq(intern(b, 3), other);
}

Test(mapset, members)
{
    static const uint32_t a[] = {0, 7, UINT32_MAX};
    const uint32_t *members = NULL;
    q2_map_set set = intern(a, 3);
    cr_expect_eq(q2_mapset_members(sets, set, &members), 3);
    cr_expect_eq(memcmp(members, a, sizeof a), 0);
    cr_expect_eq(q2_mapset_members(sets, Q2_MAP_SET_NONE, &members), 0);
}

Test(mapset, many_sets_while_the_table_grows)
{
    static uint32_t members[SETS][MOST];
    static size_t counts[SETS];
    static q2_map_set ids[SETS];
    srand(7);
    for (unsigned i = 0; i < SETS; i++) {
        counts[i] = 1 + (size_t)rand() % MOST;
        uint32_t value = 0;
        for (size_t j = 0; j < counts[i]; j++)
            members[i][j] = value += 1 + (uint32_t)rand() % 3;
        ids[i] = intern(members[i], counts[i]);
    }
    for (unsigned i = 0; i < SETS; i++) {
        const uint32_t *found = NULL;
        cr_assert_eq(q2_mapset_members(sets, ids[i], &found), counts[i], "set %u", i);
        cr_assert_eq(memcmp(found, members[i], counts[i] * 4), 0, "set %u", i);
        cr_assert_eq(intern(members[i], counts[i]), ids[i], "set %u", i);
    }
    for (unsigned i = 1; i < SETS; i++) {
        bool equal = counts[i] == counts[0] && memcmp(members[i], members[0], counts[0] * 4) == 0;
        cr_assert_eq(ids[i] == ids[0], equal, "set %u", i);
    }
}

Test(mapset, a_spent_budget_leaves_what_was_there)
{
    struct q2_budget small;
    struct q2_mapset *few;
    struct q2_error err = {0};
    uint32_t member = 0;
    q2_map_set set = 77, first;
    q2_budget_init(&small, 4096);
    cr_assert_eq(q2_mapset_new(&small, &few, NULL), 0);
    cr_assert_eq(q2_mapset_intern(few, &member, 1, &first, &err), 0);
    int rc = 0;
    while (rc == 0 && member++ < 100000)
        rc = q2_mapset_intern(few, &member, 1, &set, &err);
    cr_expect_eq(rc, Q2_ERR_BUDGET);
    cr_expect_leq(small.peak, 4096);
    const uint32_t *members = NULL;
    cr_expect_eq(q2_mapset_members(few, first, &members), 1);
    cr_expect_eq(members[0], 0);
    q2_mapset_free(few);
    cr_expect_eq(small.used, 0);
    q2_mapset_free(NULL);
}
