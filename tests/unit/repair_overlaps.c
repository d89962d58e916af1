/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Guest clusters that share their host cluster: which of them get a cluster of their own, and how
 * sure that is. What the guest reads stays the same in any case. */

#include "repair/fix.h"
#include "tests/unit/repair_disks.h"

/* Host clusters: header, refcount table, refcount block, L1 table, L2 table, 64 of data. */
#define PLAIN "cluster-size 4K\nsize 2M\nwrite 0 256K random\n"
/* Guest cluster 20 has the host cluster of 10, and nothing else ever was its own. */
#define TWICE "discard 80K 4K\n"
#define TWO   "l2[20] = l2[10]\nrefcount(l2[10].offset) += 1\n"
enum { CLUSTER = 4096, L2_AT = 4 * CLUSTER, DATA = 5, END = 69 };

struct overlap {
    const char *name, *image, *damage;
    uint64_t separated; /* actions */
    int confidence;     /* of all of them */
    uint64_t moved;     /* L2 index of the first */
};

static const struct overlap overlaps[] = {
    {"two ranges, nothing is lost", PLAIN TWICE, TWO, 1, Q2_CERTAIN, 20},
    {"two ranges, something is lost", PLAIN, "l2[20] = l2[10]\n", 1, Q2_GUESS, 20},
    {"the one stays that its neighbours expect", PLAIN "discard 40K 4K\n",
     "l2[10] = l2[20]\nrefcount(l2[20].offset) += 1\n", 1, Q2_CERTAIN, 10},
    {"three ranges", PLAIN "discard 80K 4K\ndiscard 120K 4K\n",
     "l2[20] = l2[10]\nl2[30] = l2[10]\nrefcount(l2[10].offset) += 2\n", 2, Q2_CERTAIN, 20},
    {"one bit, which may be all that is wrong", PLAIN TWICE, "l2[20].offset = l2[59].offset\n", 1,
     Q2_LIKELY, 20},
    {"the L1 table", PLAIN TWICE, "l2[20].offset = offset(l1[0])\n", 1, Q2_CERTAIN, 20},
    {"a refcount block", PLAIN TWICE, "l2[20].offset = offset(refcount_block[0])\n", 1, Q2_CERTAIN,
     20},
    {"the refcount table", PLAIN TWICE, "l2[20].offset = offset(refcount_table)\n", 1, Q2_CERTAIN,
     20},
    {"an L2 table", PLAIN TWICE, "l2[20].offset = offset(l2_table[0])\n", 1, Q2_CERTAIN, 20},
    {"past the end: none of this", PLAIN TWICE, "l2[20].offset = 1G\n", 0, 0, 0},
    {"a snapshot shares by right", PLAIN "snapshot a\n", "", 0, 0, 0},
    {"LUKS: a copy elsewhere would be another text", "encryption luks\n" PLAIN TWICE,
     "l2[20] = l2[10]\nrefcount(l2[10].offset) += 1\n", 0, 0, 0},
};

Test(repair_overlaps, are_separated)
{
    for (size_t i = 0; i < sizeof overlaps / sizeof overlaps[0]; i++) {
        const struct overlap *wanted = &overlaps[i];
        struct mending mending =
            mend_with(q2_fix_overlaps, Q2_LEVEL_GUESS, wanted->image, wanted->damage);
        const struct q2_plan *plan = &mending.scene->plan;
        cr_expect_eq(plan->count, wanted->separated, "%s: %d", wanted->name, (int)plan->count);
        for (uint64_t k = 0; k < plan->count; k++) {
            cr_expect_eq(plan->actions[k].kind, Q2_ACTION_SEPARATE_CLUSTER, "%s", wanted->name);
            cr_expect_eq((int)plan->actions[k].confidence, wanted->confidence, "%s", wanted->name);
            cr_expect(plan->actions[k].applied);
            cr_expect_eq(plan->actions[k].change_count, 0, "the guest sees nothing of it");
            cr_expect_gt(plan->actions[k].answer_count, 0, "%s", wanted->name);
        }
        if (plan->count) {
            cr_expect_eq(plan->actions[0].key, L2_AT + wanted->moved * 8, "%s", wanted->name);
            uint64_t raw = word_at(mending.scene->file, plan->actions[0].key);
            uint64_t was = word_at(mending.damaged, plan->actions[0].key);
            cr_expect_eq(raw & ~Q2_ENTRY_OFFSET, was & ~Q2_ENTRY_OFFSET, "%s: flags", wanted->name);
            cr_expect_eq(q2_entry_offset(raw), END * CLUSTER, "%s: to a new one", wanted->name);
            cr_expect(same_disk(mending.damaged, mending.scene->file), "%s", wanted->name);
        } else {
            cr_expect(same_content(mending.damaged, mending.scene->file), "%s", wanted->name);
        }
        mending_free(&mending);
    }
}

/* While something is lost that one of them could have meant, nothing but a guess does anything. */
Test(repair_overlaps, wait_for_their_level)
{
    struct mending mending =
        mend_with(q2_fix_overlaps, Q2_LEVEL_LIKELY, PLAIN, "l2[20] = l2[10]\n");
    cr_expect(has_action(&mending.scene->plan, Q2_ACTION_SEPARATE_CLUSTER, Q2_GUESS, false));
    cr_expect(same_content(mending.damaged, mending.scene->file));
    mending_free(&mending);
}

/* The flags of the entry that moves stay as they are, and so does a snapshot's entry beside it. */
Test(repair_overlaps, move_all_tables_of_one_guest_range)
{
    struct mending mending =
        mend_with(q2_fix_overlaps, Q2_LEVEL_CERTAIN, PLAIN TWICE "snapshot a\nwrite 0 4K 0x33\n",
                  "l2[20] = l2[10]\nsnapshot[0].l2[20] = snapshot[0].l2[10]\n"
                  "refcount(l2[10].offset) += 2\n");
    const struct q2_plan *plan = &mending.scene->plan;
    cr_expect_eq(plan->count, 2, "%d", (int)plan->count);
    cr_expect(same_disk(mending.damaged, mending.scene->file));
    cr_expect_eq(q2_scene_count(mending.scene, Q2_PROBLEM_OVERLAP_DATA), 0);
    mending_free(&mending);
}

/* ---- files that cannot grow ---- */

Test(repair_overlaps, need_a_free_cluster)
{
    static const struct {
        const char *image;
        bool separated;
    } turns[] = {
        {"cluster-size 4K\nsize 2M\nwrite 0 256K random\nzero 80K 4K\n"
         "l2[20] = l2[10]\nrefcount(l2[10].offset) += 1\n",
         true},
        {"cluster-size 4K\nsize 2M\nwrite 0 80K random\nwrite 84K 172K random\n"
         "l2[20] = l2[10]\nrefcount(l2[10].offset) += 1\n",
         false},
    };
    for (size_t i = 0; i < 2; i++) {
        Q2_AUTOCLOSE struct q2_file *file = build_image(turns[i].image);
        struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, true);
        uint64_t before, after;
        cr_assert_eq(q2_file_size(scene->file, &before, NULL), 0);
        run_fix(scene, q2_fix_overlaps);
        cr_assert_eq(q2_file_size(scene->file, &after, NULL), 0);
        cr_expect_eq(after, before, "image %zu", i);
        cr_expect_eq(scene->plan.count, turns[i].separated, "image %zu", i);
        cr_expect_eq(same_content(file, scene->file), !turns[i].separated, "image %zu", i);
        cr_expect(same_disk(file, scene->file));
        q2_scene_close(scene);
    }
}

/* ---- the whole of a repair ---- */

Test(repair_overlaps, come_out_clean)
{
    static const char *const images[] = {
        PLAIN TWICE TWO,
        PLAIN TWICE "l2[20].offset = offset(l1[0])\n",
    };
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++) {
        Q2_AUTOCLOSE struct q2_file *file = build_image(images[i]);
        struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
        cr_expect_eq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_CLEAN, "image %zu", i);
        cr_expect(applies(repair, Q2_ACTION_SEPARATE_CLUSTER), "image %zu", i);
        cr_expect(is_settled(repair, false), "image %zu", i);
        cr_expect(peer_says(q2_repair_file(repair)) <= 0, "image %zu", i);
        q2_repair_free(repair);
    }
}
