/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Images made to cost, as tests/unit/checker_hostile.c has them for a check: a plan for them ends,
 * soon, and makes the file grow no more than its metadata needs. */

#include "core/base/cleanup.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "repair/repair.h"
#include "tests/unit/images.h"

#include <criterion/criterion.h>
#include <string.h>
#include <time.h>

enum {
    SECONDS = 180, /* of the processor, on a slow machine under sanitizers; otherwise a few */
    GROWTH = 16 << 20,
};

static int
plan(const char *text, enum q2_repair_level level)
{
    Q2_AUTOCLOSE struct q2_file *image = build_image(text);
    const struct q2_repair_options options = {.level = level, .threads = 1};
    struct q2_repair *repair = NULL;
    struct q2_error err = {0};
    uint64_t before, after = 0;
    clock_t start = clock();
    int rc = q2_repair_plan(image, &options, &repair, &err);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    cr_log_info("level %d: %.1f seconds, %d %s", (int)level, seconds, rc, err.message);
    cr_expect_lt(seconds, SECONDS);
    if (rc == 0) {
        cr_assert_eq(q2_file_size(image, &before, NULL), 0);
        cr_assert_eq(q2_file_size(q2_repair_file(repair), &after, NULL), 0);
        cr_expect_leq(after, before + GROWTH);
    }
    q2_repair_free(repair);
    return rc;
}

static void
expect_plans(const char *text)
{
    for (int level = Q2_LEVEL_LEAKS; level <= Q2_LEVEL_GUESS; level++)
        cr_expect_eq(plan(text, (enum q2_repair_level)level), 0, "level %d", level);
}

#define SMALL "cluster-size 4K\nsize 1M\nwrite 0 8K 0x41\n"

Test(repair_cost, refcount_table_of_8m_leads_to_one_block)
{
    expect_plans(SMALL "header.refcount_table_offset = 1M\n"
                       "header.refcount_table_clusters = 8M / 4K\n"
                       "fill 1M 8M \"\\0\\0\\0\\0\\0\\0\\x20\\0\"\n");
}

Test(repair_cost, file_of_an_exabyte)
{
    expect_plans(SMALL "truncate 1E\n");
}

/* With clusters of 512 bytes, and the guest's first cluster at the very end. */
Test(repair_cost, file_of_an_exabyte_in_sectors)
{
    expect_plans("cluster-size 512\nsize 64K\nwrite 0 4K 0x41\n"
                 "map(0).offset = (1 << 56) - 512\n"
                 "truncate 1E\n");
}
