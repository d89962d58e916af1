/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Subcluster bits that contradict each other or their entry. */

#include "repair/fix.h"
#include "tests/unit/repair_disks.h"

#define IMAGE                                                         \
    "cluster-size 16K\nsize 1M\nextended-l2\nwrite 0 64K random\n"    \
    "subclusters 64K alloc=0x0000ffff zero=0xff000000 pattern 0x22\n" \
    "write 80K 16K 0\nwrite-compressed 512K 16K text\n"
enum { GUEST_CLUSTER = 16384 };

struct conflict {
    const char *name, *damage;
    int confidence; /* enum q2_confidence, or -1: left alone */
    uint64_t index; /* of the entry */
};

static const struct conflict conflicts[] = {
    {"zero and allocated, with data", "l2[1].zero_bits = 0x10\n", Q2_LIKELY, 1},
    {"zero and allocated, all of them", "l2[1].zero_bits = 0xffffffff\n", Q2_LIKELY, 1},
    {"zero and allocated, with zeros", "l2[5].zero_bits = 0x10\n", Q2_CERTAIN, 5},
    {"one with zeros, one without", "l2[4].zero_bits = 0xff000001\n", Q2_LIKELY, 4},
    {"a compressed cluster", "l2[32].zero_bits = 0x10\n", Q2_CERTAIN, 32},
    {"a compressed cluster that does not decode",
     "l2[32].alloc_bits = 4\nfill l2[32].offset + 2 16 0xff\n", -1, 0},
    {"past the end", "l2[1].zero_bits = 0x10\nl2[1].offset = 1G\n", -1, 0},
    {"no contradiction", "l2[4].zero_bits = 0xfff00000\n", -1, 0},
};

Test(repair_subclusters, conflicts)
{
    for (size_t i = 0; i < sizeof conflicts / sizeof conflicts[0]; i++) {
        const struct conflict *wanted = &conflicts[i];
        struct mending mending =
            mend_with(q2_fix_subclusters, Q2_LEVEL_LIKELY, IMAGE, wanted->damage);
        const struct q2_plan *plan = &mending.scene->plan;
        cr_expect_eq(plan->count, wanted->confidence >= 0, "%s: %d", wanted->name,
                     (int)plan->count);
        if (plan->count) {
            cr_expect(has_action(plan, Q2_ACTION_MEND_SUBCLUSTERS,
                                 (enum q2_confidence)wanted->confidence, true),
                      "%s", wanted->name);
            cr_expect(q2_plan_names(plan, 0, wanted->index * GUEST_CLUSTER, GUEST_CLUSTER), "%s",
                      wanted->name);
            cr_expect(same_content(mending.scene->file, mending.healthy), "%s", wanted->name);
            cr_expect_eq(plan->actions[0].answer_count, 1, "%s", wanted->name);
        } else {
            cr_expect(same_content(mending.scene->file, mending.damaged), "%s", wanted->name);
        }
        mending_free(&mending);
    }
}

Test(repair_subclusters, wait_for_their_level)
{
    struct mending mending =
        mend_with(q2_fix_subclusters, Q2_LEVEL_CERTAIN, IMAGE, "l2[1].zero_bits = 0x10\n");
    cr_expect(has_action(&mending.scene->plan, Q2_ACTION_MEND_SUBCLUSTERS, Q2_LIKELY, false));
    cr_expect(same_content(mending.scene->file, mending.damaged));
    mending_free(&mending);
}

Test(repair_subclusters, images_without_have_none)
{
    struct mending mending = mend_with(q2_fix_subclusters, Q2_LEVEL_GUESS,
                                       "cluster-size 4K\nsize 1M\nwrite 0 64K random\n",
                                       "l2[1].offset = l2[2].offset\n");
    cr_expect_eq(mending.scene->plan.count, 0);
    mending_free(&mending);
}
