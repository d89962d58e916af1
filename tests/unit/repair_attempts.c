/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The engine: what it writes by the end is what was proven, and what it leaves is left whole. */

#include "tests/unit/repair_disks.h"

#define PLAIN "cluster-size 4K\nsize 1M\nwrite 0 64K random\n"

/* A sound image needs nothing, at any level. */
Test(repair_attempts, nothing_to_do)
{
    for (int level = Q2_LEVEL_LEAKS; level <= Q2_LEVEL_GUESS; level++) {
        Q2_AUTOCLOSE struct q2_file *file = build_image(PLAIN "snapshot a\nwrite 0 4K 1\n");
        struct q2_repair *repair = plan(file, (enum q2_repair_level)level, false);
        cr_expect_not(q2_repair_needed(repair));
        cr_expect_eq(q2_repair_before(repair), q2_repair_after(repair));
        cr_expect_eq(q2_repair_actions(repair)->count, 0);
        cr_expect_null(q2_repair_objection(repair, 0));
        cr_expect(same_content(q2_repair_file(repair), file));
        q2_repair_free(repair);
    }
}

/* The image itself is only read, and what is said of it stays what it was. */
Test(repair_attempts, plans_write_nothing)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(PLAIN "l2[3].copied = 0\nrefcount[9] = 3\n");
    Q2_AUTOCLOSE struct q2_file *copy = build_image(PLAIN "l2[3].copied = 0\nrefcount[9] = 3\n");
    struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
    cr_expect(q2_repair_needed(repair));
    cr_expect(same_content(file, copy));
    cr_expect_neq(q2_check_exit(q2_repair_before(repair)), Q2_EXIT_CLEAN);
    cr_expect_eq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_CLEAN);
    cr_expect(is_settled(repair, false));
    q2_repair_free(repair);
}

/* The same plan for the same image has the same digest. */
Test(repair_attempts, digests)
{
    static const char *const damage[] = {"l2[3].copied = 0\n", "l2[3].copied = 0\n",
                                         "l2[4].copied = 0\n", ""};
    char digests[4][65];
    for (size_t i = 0; i < 4; i++) {
        char text[200];
        snprintf(text, sizeof text, "%s%s", PLAIN, damage[i]);
        Q2_AUTOCLOSE struct q2_file *file = build_image(text);
        struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
        cr_assert_eq(q2_repair_digest(repair, digests[i], NULL), 0);
        q2_repair_free(repair);
    }
    cr_expect_str_eq(digests[0], digests[1]);
    cr_expect_str_neq(digests[0], digests[2]);
    cr_expect_str_neq(digests[0], digests[3]);
}

/* Without a header, and without anything that says what it was, there is nothing to plan for. */
Test(repair_attempts, no_header)
{
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    const struct q2_repair_options options = {.level = Q2_LEVEL_GUESS, .threads = 1};
    struct q2_repair *repair = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_file_new_memory("image", &file, NULL), 0);
    cr_assert_eq(q2_file_truncate(file, 1 << 20, NULL), 0);
    cr_expect_eq(q2_repair_plan(file, &options, &repair, &err), Q2_ERR_NOT_QCOW2);
    cr_expect_null(repair);
    cr_expect(strstr(err.message, "no qcow2 header"), "%s", err.message);
}

/* However little memory there is, a plan is whole or says why it is not. */
Test(repair_attempts, little_memory)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image(PLAIN "l2[3].copied = 0\nl2[7].offset = l2[8].offset\nrefcount[9] = 3\n");
    unsigned partial = 0, whole = 0;
    for (uint64_t memory = 1; memory < 1 << 20; memory *= 2) {
        const struct q2_repair_options options = {.level = Q2_LEVEL_LIKELY,
                                                  .threads = 1,
                                                  .max_memory = memory};
        struct q2_repair *repair = NULL;
        struct q2_error err = {0};
        cr_assert_eq(q2_repair_plan(file, &options, &repair, &err), 0, "%s", err.message);
        bool clean = q2_check_exit(q2_repair_after(repair)) == Q2_EXIT_CLEAN;
        cr_expect_eq(clean, q2_repair_unsearched(repair) == NULL, "%u bytes", (unsigned)memory);
        partial += !clean;
        whole += clean;
        q2_repair_free(repair);
    }
    cr_expect_gt(partial, 3);
    cr_expect_gt(whole, 1);
}

/* Let as many entries as there are in all lead to where the first one of a table does. */
static void
share_clusters(struct q2_file *file, uint64_t table, uint64_t count)
{
    uint8_t bytes[8];
    q2_store_be64(bytes, word_at(file, table));
    for (uint64_t i = 1; i < count; i++)
        cr_assert_eq(q2_file_write(file, table + i * 8, bytes, sizeof bytes, NULL), 0);
}

/* More clusters are shared than can be compared once each has its own: none of that is done, but
 * what has nothing to do with it is. */
Test(repair_attempts, objections_of_one_kind)
{
    enum { CLUSTER = 64 << 10, SHARED = 1200, L2_AT = 4 * CLUSTER, COUNT_AT = 2 * CLUSTER };
    Q2_AUTOCLOSE struct q2_file *file = build_image("cluster-size 64K\nsize 128M\n"
                                                    "write 0 64K 0x11\nrefcount[1] = 0\n");
    share_clusters(file, L2_AT, SHARED);
    struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
    cr_expect_not_null(q2_repair_objection(repair, 0));
    cr_expect_null(q2_repair_unsearched(repair));
    cr_expect(q2_repair_needed(repair));
    cr_expect_eq(q2_check_problem_count(q2_repair_before(repair), Q2_PROBLEM_REFCOUNT_ZERO).count,
                 1);
    for (int p = 0; p < Q2_PROBLEM_COUNT; p++) {
        enum q2_problem problem = (enum q2_problem)p;
        uint64_t left = q2_check_problem_count(q2_repair_after(repair), problem).count;
        cr_expect_eq(left, problem == Q2_PROBLEM_OVERLAP_DATA ? SHARED - 1 : 0, "%s",
                     q2_problem_id(problem));
    }
    cr_expect(is_settled(repair, false));
    q2_repair_free(repair);
}

/* An L1 table that is its own L2 table, and guest data, of the active disk and of a snapshot. Flags
 * in it that follow from refcounts cannot be mended without changing that data, and without them
 * refcounts cannot. That is tried once more without looking for anything else, and in vain. */
Test(repair_attempts, in_vain)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image("cluster-size 512\nsize 128K\nwrite 0 1K 0x11\nsnapshot one\n"
                    "l1[0].offset = 0x600\nl1[0].copied = 1\nsnapshot[0].l1[0].offset = 0x600\n"
                    "refcount[7] = 0\nrefcount[8] = 0\n");
    struct q2_repair *repair = plan(file, Q2_LEVEL_LIKELY, false);
    cr_expect_not_null(q2_repair_objection(repair, 0));
    cr_assert_not_null(q2_repair_unsearched(repair));
    cr_expect(strstr(q2_repair_unsearched(repair), "could not be proven"), "%s",
              q2_repair_unsearched(repair));
    cr_expect_not(q2_repair_needed(repair));
    cr_expect_neq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_CLEAN);
    q2_repair_free(repair);
}

/* Memory that does for the header does not for all that it leads to: the header is mended, and the
 * rest not said to have been looked for. */
Test(repair_attempts, little_memory_for_a_later_round)
{
    enum { L2_AT = 4 * (64 << 10), SHARED = 600 };
    Q2_AUTOCLOSE struct q2_file *file =
        build_image("cluster-size 64K\nsize 128M\nwrite 0 64K 0x11\nheader.magic = 0\n");
    share_clusters(file, L2_AT, SHARED);
    struct q2_repair_options options = {.level = Q2_LEVEL_GUESS, .threads = 1};
    for (int little = 0; little < 2; little++) {
        struct q2_repair *repair = NULL;
        struct q2_error err = {0};
        options.max_memory = little ? 4 << 20 : 0;
        cr_assert_eq(q2_repair_plan(file, &options, &repair, &err), 0, "%s", err.message);
        const struct q2_plan *done = q2_repair_actions(repair);
        cr_assert(q2_repair_needed(repair));
        cr_expect_eq(done->actions[0].kind, Q2_ACTION_MEND_HEADER);
        cr_expect_eq(q2_check_exit(q2_repair_after(repair)) == Q2_EXIT_CLEAN, !little);
        cr_expect_eq(q2_repair_unsearched(repair) == NULL, !little);
        q2_repair_free(repair);
    }
}
