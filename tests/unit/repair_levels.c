/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Who permits more gets no less: a guess must not take away what tells something better. */

#include "repair/fix.h"
#include "tests/unit/repair_disks.h"

static const char *const images[] = {
    "cluster-size 4K\nsize 8M\nwrite 0 512K random\nwrite 4M 256K random 2\n",
    ("cluster-size 4K\nsize 8M\nwrite 0 3M random\nsnapshot a\nwrite 1M 2M random 2\nsnapshot "
     "b\nwrite 0 1M random 3\n"),
    "size 64M\nwrite 0 1M random\nsnapshot a\nwrite 64K 128K random 2\n",
};

/* Of where all tables are, nothing is left in the header. */
Test(repair_levels, places_of_tables)
{
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++) {
        Q2_AUTOCLOSE struct q2_file *healthy = build_image(images[i]);
        Q2_AUTOCLOSE struct q2_file *file = build_image(images[i]);
        const uint8_t zeros[24] = {0}; /* l1_size to refcount_table_clusters */
        cr_assert_eq(q2_file_write(file, 36, zeros, sizeof zeros, NULL), 0);
        for (int level = Q2_LEVEL_LIKELY; level <= Q2_LEVEL_GUESS; level++) {
            struct q2_repair *repair = plan(file, (enum q2_repair_level)level, false);
            cr_expect(same_disk(healthy, q2_repair_file(repair)), "image %d, level %d", (int)i,
                      level);
            q2_repair_free(repair);
        }
    }
}

/* A certain action that answers all that a more daring one would comes first at any level. */
Test(repair_levels, what_is_certain_comes_first)
{
    for (int level = Q2_LEVEL_CERTAIN; level <= Q2_LEVEL_GUESS; level++) {
        Q2_AUTOCLOSE struct q2_file *file = build_image("size 16M\nwrite-compressed 0 128K text\n"
                                                        "map(64K).copied = 1\n");
        struct q2_repair *repair = plan(file, (enum q2_repair_level)level, false);
        const struct q2_plan *actions = q2_repair_actions(repair);
        cr_expect_eq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_CLEAN, "level %d", level);
        for (uint64_t i = 0; i < actions->count; i++)
            cr_expect(!actions->actions[i].applied || actions->actions[i].confidence == Q2_CERTAIN,
                      "level %d: %s", level, actions->actions[i].evidence);
        q2_repair_free(repair);
    }
}

/* Where refcounts tell which cluster of a snapshot an entry led to, it is not given a copy of the
 * other cluster that it leads to now. */
Test(repair_levels, a_copy_comes_after_a_match)
{
#define SHARED "cluster-size 4K\nsize 1M\nwrite 0 64K random\nsnapshot a\nwrite 0 4K random 2\n"
    Q2_AUTOCLOSE struct q2_file *healthy = build_image(SHARED);
    for (int level = Q2_LEVEL_LIKELY; level <= Q2_LEVEL_GUESS; level++) {
        Q2_AUTOCLOSE struct q2_file *file = build_image(SHARED "l2[5] = l2[10]\n");
        struct q2_repair *repair = plan(file, (enum q2_repair_level)level, false);
        cr_expect(same_disk(healthy, q2_repair_file(repair)), "level %d", level);
        q2_repair_free(repair);
    }
}

/* Of two that share a cluster, either may have led to the one that is lost: the guess is that what
 * comes later on the disk was written later. */
Test(repair_levels, a_guess_goes_by_the_order_of_writes)
{
#define APART \
    "cluster-size 4K\nsize 1M\nwrite 0 4K random\nwrite 400K 4K random\nwrite 800K 4K random\n"
    static const char *const damages[] = {APART "l2[200] = l2[0]\n", APART "l2[0] = l2[200]\n"};
    Q2_AUTOCLOSE struct q2_file *healthy = build_image(APART);
    for (size_t i = 0; i < 2; i++) {
        Q2_AUTOCLOSE struct q2_file *file = build_image(damages[i]);
        struct q2_repair *repair = plan(file, Q2_LEVEL_GUESS, false);
        cr_expect(same_disk(healthy, q2_repair_file(repair)), "%s", damages[i]);
        q2_repair_free(repair);
    }
}
