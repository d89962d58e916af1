/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What a repair frees becomes holes, and nothing else does; undoing it brings every byte back. */

#include "repair/discard.h"
#include "repair/journal.h"
#include "tests/unit/repair_disks.h"

#define LEAKY "cluster-size 4K\nsize 1M\nwrite 0 64K random\nleak 3 random 9\nwrite 64K 8K random\n"
/* Cluster 9 is free, and holds what was there. */
#define STALE LEAKY "l2[4] = 0\nrefcount[9] = 0\n"
enum { CLUSTER = 4096, LEAK = 21 };

static struct q2_repair *
plan_with(struct q2_file *file, bool discard)
{
    const struct q2_repair_options options = {.level = Q2_LEVEL_CERTAIN,
                                              .threads = 1,
                                              .discard = discard};
    struct q2_repair *repair = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_repair_plan(file, &options, &repair, &err), 0, "%s", err.message);
    return repair;
}

static bool
is_zero(struct q2_file *file, uint64_t cluster)
{
    uint8_t bytes[CLUSTER], any = 0;
    cr_assert_eq(q2_file_read(file, cluster * CLUSTER, bytes, sizeof bytes, NULL), 0);
    for (size_t i = 0; i < sizeof bytes; i++)
        any |= bytes[i];
    return !any;
}

Test(repair_discard, only_what_was_freed)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(STALE);
    struct q2_repair *kept = plan_with(file, false), *punched = plan_with(file, true);
    cr_expect(applies(kept, Q2_ACTION_FREE_LEAKS));
    cr_expect(applies(punched, Q2_ACTION_FREE_LEAKS));
    struct content before = content_of(q2_repair_file(kept));
    struct content after = content_of(q2_repair_file(punched));
    cr_assert_eq(before.size, after.size);
    for (uint64_t i = 0; i < before.size / CLUSTER; i++) {
        bool freed = i - LEAK < 3;
        cr_expect_eq(is_zero(q2_repair_file(punched), i), freed, "cluster %d", (int)i);
        cr_expect_eq(memcmp(before.bytes + i * CLUSTER, after.bytes + i * CLUSTER, CLUSTER) == 0,
                     !freed, "cluster %d", (int)i);
        cr_expect_not(is_zero(q2_repair_file(kept), i), "freed clusters keep their bytes");
    }
    free(before.bytes);
    free(after.bytes);
    q2_repair_free(kept);
    q2_repair_free(punched);
}

/* What nothing refers to, but is kept for a gap that it fills, is not free. */
Test(repair_discard, nothing_that_is_kept)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image("cluster-size 4K\nsize 1M\nwrite 0 64K random\n"
                                                    "l2[3] = 0\nl2[9].copied = 0\n");
    struct q2_repair *repair = plan_with(file, true);
    cr_expect(q2_repair_needed(repair));
    cr_expect_eq(faults_after(repair, Q2_PROBLEM_CLUSTER_LEAKED), 1);
    cr_expect_not(is_zero(q2_repair_file(repair), 8));
    q2_repair_free(repair);
}

/* Where refcounts could not be read, nobody knows what was counted. */
Test(repair_discard, nothing_where_counts_were_not_known)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(LEAKY "header.refcount_table_offset = 0\n");
    struct q2_repair *repair = plan_with(file, true);
    for (uint64_t i = LEAK; i < LEAK + 3; i++)
        cr_expect_not(is_zero(q2_repair_file(repair), i));
    q2_repair_free(repair);
}

Test(repair_discard, nothing_without_a_repair)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image("cluster-size 4K\nsize 1M\nwrite 0 64K random\n");
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, false);
    cr_assert_eq(q2_discard_freed(scene, NULL), 0);
    cr_expect(same_content(file, scene->file));
    q2_scene_close(scene);
}

Test(repair_discard, can_be_undone)
{
    Q2_AUTOCLOSE struct q2_file *original = build_image(STALE);
    Q2_AUTOCLOSE struct q2_file *image = build_image(STALE);
    Q2_AUTOCLOSE struct q2_file *journal = NULL;
    struct q2_error err = {0};
    bool needed = false;
    cr_assert_eq(q2_file_new_memory("journal", &journal, &err), 0);
    struct q2_repair *repair = plan_with(original, true);
    cr_assert_eq(q2_repair_apply(repair, image, journal, &needed, &err), 0, "%s", err.message);
    cr_expect(needed);
    cr_expect(same_content(image, q2_repair_file(repair)));
    cr_expect_not(same_content(image, original));
    cr_expect(is_zero(image, LEAK));
    cr_assert_eq(q2_journal_undo(journal, image, false, &err), 0, "%s", err.message);
    cr_expect(same_content(image, original), "byte for byte");
    q2_repair_free(repair);
}
