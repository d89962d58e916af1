/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Images made to cost: tables of the largest size that all lead to one place, files of exabytes.
 * What is reported of them depends on when the limits of work and memory strike, so these are no
 * case folders; what must hold is that the check ends, soon, and keeps to its budget. */

#include "checker/check.h"
#include "core/base/cleanup.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"

#include <criterion/criterion.h>
#include <string.h>
#include <time.h>

enum { SECONDS = 180 }; /* on a slow, busy machine under sanitizers; otherwise a few */

struct verdict {
    int rc;
    enum q2_check_exit exit;
    uint64_t work_limits;
    uint64_t snapshots;
    struct q2_check_counts counts;
    struct q2_error err;
};

static struct verdict
check(const char *recipe_text, uint64_t max_memory)
{
    struct verdict verdict = {0};
    struct q2_recipe *recipe = NULL;
    struct q2_check *result = NULL;
    Q2_AUTOCLOSE struct q2_file *image = NULL;
    cr_assert_eq(q2_file_new_memory("hostile", &image, NULL), 0);
    cr_assert_eq(q2_recipe_parse("recipe", recipe_text, strlen(recipe_text), &recipe, &verdict.err),
                 0, "%s", verdict.err.message);
    cr_assert_eq(q2_recipe_build(recipe, &(struct q2_recipe_target){.image = image}, &verdict.err),
                 0, "%s", verdict.err.message);
    q2_recipe_free(recipe);

    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    const struct q2_check_options options = {.max_memory = max_memory, .max_details = 10};
    verdict.rc = q2_check_run(image, &options, &result, &verdict.err);
    clock_gettime(CLOCK_MONOTONIC, &end);
    cr_expect_lt(end.tv_sec - begin.tv_sec, SECONDS);
    if (verdict.rc == 0) {
        verdict.exit = q2_check_exit(result);
        verdict.work_limits = q2_check_problem_count(result, Q2_PROBLEM_WORK_LIMIT).count;
        verdict.snapshots = q2_check_snapshot_count(result);
        verdict.counts = *q2_check_counts(result);
    }
    q2_check_free(result);
    return verdict;
}

#define SMALL "cluster-size 4K\nsize 1M\nwrite 0 8K 0x41\n"

Test(hostile, l1_of_32m_leads_to_one_l2)
{
    struct verdict verdict = check(SMALL "header.l1_table_offset = 1M\n"
                                         "header.l1_size = 32M / 8\n"
                                         "fill 1M 32M \"\\x80\\0\\0\\0\\0\\0\\x40\\0\"\n",
                                   0);
    cr_assert_eq(verdict.rc, 0, "%s", verdict.err.message);
    cr_expect_eq(verdict.exit, Q2_EXIT_INCOMPLETE);
    cr_expect_eq(verdict.work_limits, 1);
    cr_expect_gt(verdict.counts.corruptions, 1000);
}

/* Each L1 entry stands for a table of 2 MiB: 8 TiB to read, if each were followed. */
Test(hostile, l1_of_32m_leads_to_one_large_l2)
{
    struct verdict verdict = check("cluster-size 2M\nsize 1M\nwrite 0 64K 0x41\n"
                                   "header.l1_table_offset = 16M\n"
                                   "header.l1_size = 32M / 8\n"
                                   "fill 16M 32M \"\\x80\\0\\0\\0\\0\\x80\\0\\0\"\n",
                                   0);
    cr_assert_eq(verdict.rc, 0, "%s", verdict.err.message);
    cr_expect_eq(verdict.exit, Q2_EXIT_INCOMPLETE);
    cr_expect_eq(verdict.work_limits, 1);
}

Test(hostile, refcount_table_of_8m_leads_to_one_block)
{
    struct verdict verdict = check(SMALL "header.refcount_table_offset = 1M\n"
                                         "header.refcount_table_clusters = 8M / 4K\n"
                                         "fill 1M 8M \"\\0\\0\\0\\0\\0\\0\\x20\\0\"\n",
                                   0);
    cr_assert_eq(verdict.rc, 0, "%s", verdict.err.message);
    cr_expect_gt(verdict.counts.corruptions, 1000);
    cr_expect_neq(verdict.exit, Q2_EXIT_CLEAN);
}

/* 4 EiB of leaks, if the refcounts of 1 bit were believed. */
Test(hostile, refcount_table_of_2m_leads_to_one_large_block)
{
    struct verdict verdict = check("cluster-size 2M\nsize 1M\nrefcount-bits 1\nwrite 0 64K 0x41\n"
                                   "header.refcount_table_offset = 16M\n"
                                   "header.refcount_table_clusters = 1\n"
                                   "fill 16M 2M \"\\0\\0\\0\\0\\0\\x40\\0\\0\"\n"
                                   "fill (offset(refcount_block[0])) 2M 0xff\n",
                                   0);
    cr_assert_eq(verdict.rc, 0, "%s", verdict.err.message);
    cr_expect_neq(verdict.exit, Q2_EXIT_CLEAN);
}

/* As many snapshots as there may be, all with the active L1 table. */
Test(hostile, snapshots_with_one_l1)
{
    struct verdict verdict =
        check(SMALL "header.nb_snapshots = 65536\n"
                    "header.snapshots_offset = 1M\n"
                    "fill 1M (65536 * 64) \"\\0\\0\\0\\0\\0\\0\\x30\\0\\0\\0\\0\\x01\\0\\x08\\0\\0"
                    "\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\x10"
                    "\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\x10\\0\\0sameasid\"\n",
              0);
    cr_assert_eq(verdict.rc, 0, "%s", verdict.err.message);
    cr_expect_eq(verdict.snapshots, 65536);
    cr_expect_eq(verdict.exit, Q2_EXIT_CORRUPT);
}

Test(hostile, file_of_an_exabyte)
{
    struct verdict verdict = check(SMALL "truncate 1E\n", 0);
    cr_assert_eq(verdict.rc, 0, "%s", verdict.err.message);
    cr_expect_eq(verdict.exit, Q2_EXIT_CLEAN);
    cr_expect_eq(verdict.counts.image_end_offset, 0x7000);
    cr_expect_eq(verdict.counts.allocated_clusters, 2);
}

/* With clusters of 512 bytes, and the guest's first cluster at the very end. */
Test(hostile, file_of_an_exabyte_in_sectors)
{
    struct verdict verdict = check("cluster-size 512\nsize 64K\nwrite 0 4K 0x41\n"
                                   "map(0).offset = (1 << 56) - 512\n"
                                   "truncate 1E\n",
                                   0);
    cr_assert_eq(verdict.rc, 0, "%s", verdict.err.message);
    cr_expect_eq(verdict.exit, Q2_EXIT_CORRUPT);
    cr_expect_eq(verdict.counts.corruptions, 2, "refcount 0, and a COPIED flag that says 1");
    cr_expect_eq(verdict.counts.image_end_offset, UINT64_C(1) << 56);
}

/* Every limit that is too small is an error that says so; none is exceeded, none crashes. */
Test(hostile, any_memory_limit)
{
    int rc = Q2_ERR_BUDGET;
    for (uint64_t limit = 1 << 10; limit <= 8 << 20; limit *= 2) {
        struct verdict verdict =
            check("cluster-size 4K\nsize 64M\nwrite 0 8M random\nsnapshot a\nwrite 0 1M random\n"
                  "bitmap b dirty 0 1M\nleak 10\nrefcount(map(0).offset) = 3\n",
                  limit);
        rc = verdict.rc;
        cr_expect(rc == 0 || rc == Q2_ERR_BUDGET, "%s", verdict.err.message);
        if (rc)
            cr_expect(strstr(verdict.err.message, "memory limit"), "%s", verdict.err.message);
    }
    cr_expect_eq(rc, 0, "8 MiB are enough");
}
