/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* L2 tables that something else was written over: what is left of them, what a snapshot gives back,
 * and how sure that is. */

#include "repair/fix.h"
#include "tests/unit/repair_disks.h"

#define PLAIN       "cluster-size 4K\nsize 4M\nwrite 0 256K random\nwrite 2M 256K random 2\n"
#define SHARED      PLAIN "snapshot a\nwrite 2M 4K random 3\n"
#define OVERWRITTEN "fill offset(l2_table[1]) 4K random 5\n"
enum { CLUSTER = 4096, BEHIND = 2 << 20 };

static uint64_t
garbled_entries(struct q2_file *file, uint64_t table)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < CLUSTER / 8; i++)
        count += word_at(file, table + i * 8) != 0;
    return count;
}

/* Without anything that knows what was there, the table is emptied: a guess, done only when asked
 * for. */
Test(repair_garbled, without_a_snapshot)
{
    for (int level = Q2_LEVEL_CERTAIN; level <= Q2_LEVEL_GUESS; level++) {
        struct mending mending =
            mend_with(q2_fix_garbled, (enum q2_repair_level)level, PLAIN, OVERWRITTEN);
        const struct q2_plan *plan = &mending.scene->plan;
        bool applied = level == Q2_LEVEL_GUESS;
        cr_assert_eq(plan->count, 1);
        cr_expect(has_action(plan, Q2_ACTION_REBUILD_L2_TABLE, Q2_GUESS, applied));
        cr_expect_eq(q2_plan_names(plan, 0, BEHIND, 2 << 20), applied, "all that it maps");
        cr_expect_not(q2_plan_names(plan, 0, 0, CLUSTER));
        cr_expect_eq(same_content(mending.damaged, mending.scene->file), !applied);
        if (applied)
            cr_expect_eq(garbled_entries(mending.scene->file, plan->actions[0].key), 0);
        mending_free(&mending);
    }
}

/* What a snapshot has at the same place, and what is counted once more than it is used, comes back.
 */
Test(repair_garbled, with_a_snapshot)
{
    for (int level = Q2_LEVEL_CERTAIN; level <= Q2_LEVEL_LIKELY; level++) {
        struct mending mending =
            mend_with(q2_fix_garbled, (enum q2_repair_level)level, SHARED, OVERWRITTEN);
        const struct q2_plan *plan = &mending.scene->plan;
        bool applied = level == Q2_LEVEL_LIKELY;
        cr_assert_eq(plan->count, 1);
        cr_expect(has_action(plan, Q2_ACTION_REBUILD_L2_TABLE, Q2_LIKELY, applied));
        cr_expect_eq(same_content(mending.damaged, mending.scene->file), !applied);
        if (applied) {
            struct content healthy = disk_of(mending.healthy),
                           mended = disk_of(mending.scene->file);
            cr_assert(healthy.bytes && mended.bytes);
            cr_expect_eq(memcmp(healthy.bytes, mended.bytes, BEHIND), 0);
            cr_expect_eq(memcmp(healthy.bytes + BEHIND + CLUSTER, mended.bytes + BEHIND + CLUSTER,
                                BEHIND - CLUSTER),
                         0, "but for what was written since");
            free(healthy.bytes);
            free(mended.bytes);
        }
        mending_free(&mending);
    }
}

/* Entries that still lead to what nothing else has are kept. */
Test(repair_garbled, what_is_left_is_kept)
{
    struct mending mending = mend_with(q2_fix_garbled, Q2_LEVEL_LIKELY, PLAIN,
                                       "fill offset(l2_table[1]) + 40 4056 random 5\n");
    const struct q2_plan *plan = &mending.scene->plan;
    cr_assert_eq(plan->count, 1);
    cr_expect(has_action(plan, Q2_ACTION_REBUILD_L2_TABLE, Q2_LIKELY, true));
    uint64_t table = plan->actions[0].key;
    for (uint64_t i = 0; i < 5; i++)
        cr_expect_eq(word_at(mending.scene->file, table + i * 8),
                     word_at(mending.healthy, table + i * 8), "entry %d", (int)i);
    cr_expect_eq(garbled_entries(mending.scene->file, table), 5);
    mending_free(&mending);
}

/* Tables that are sound, or of which only a sector is not, are none of this. */
Test(repair_garbled, leaves_tables_alone)
{
    static const char *const damage[] = {
        "",
        "fill offset(l2_table[1]) + 512 512 random 5\n",
        "l1[1].offset = l1[0].offset\n",
        "l1[1].offset = 1G\n",
        "l2[5].offset = l2[4].offset\n",
    };
    for (size_t i = 0; i < sizeof damage / sizeof damage[0]; i++) {
        struct mending mending = mend_with(q2_fix_garbled, Q2_LEVEL_GUESS, PLAIN, damage[i]);
        cr_expect_eq(mending.scene->plan.count, 0, "%s", damage[i]);
        mending_free(&mending);
    }
}

/* By default nothing is given away meanwhile. */
Test(repair_garbled, keeps_what_its_entries_led_to)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(PLAIN OVERWRITTEN);
    struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
    cr_expect_not(applies(repair, Q2_ACTION_FREE_LEAKS));
    cr_expect_not(applies(repair, Q2_ACTION_REBUILD_L2_TABLE));
    cr_expect_not(q2_repair_needed(repair));
    q2_repair_free(repair);
}

/* The slot must not be cleared before: its data would be put elsewhere. What comes back is in its
 * place, or nothing is there. */
Test(repair_garbled, keeps_its_slot)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(PLAIN OVERWRITTEN);
    Q2_AUTOCLOSE struct q2_file *healthy = build_image(PLAIN);
    struct q2_repair *repair = plan(file, Q2_LEVEL_GUESS, false);
    cr_expect_not(applies(repair, Q2_ACTION_CLEAR_L1_ENTRY));
    cr_expect(applies(repair, Q2_ACTION_REBUILD_L2_TABLE));
    struct content right = disk_of(healthy), mended = disk_of(q2_repair_file(repair));
    cr_assert(right.bytes && mended.bytes);
    cr_expect_eq(memcmp(right.bytes, mended.bytes, BEHIND), 0);
    free(right.bytes);
    free(mended.bytes);
    q2_repair_free(repair);
}

/* Nor where something else lays claim to the table, which may be the one that is wrong: here the L1
 * table of a snapshot that is too long. */
Test(repair_garbled, clears_no_slot_whose_table_is_disputed)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(
        "cluster-size 4K\nsize 1M\nwrite 0 8K random\nsnapshot monday\n"
        "write 0 4K random 2\nsnapshot[0].l1_size = 1024\nsnapshot[0].vm_state_size = 2G\n");
    for (int level = Q2_LEVEL_CERTAIN; level <= Q2_LEVEL_LIKELY; level++) {
        struct q2_repair *repair = plan(file, (enum q2_repair_level)level, false);
        cr_expect_not(applies(repair, Q2_ACTION_CLEAR_L1_ENTRY), "level %d", level);
        q2_repair_free(repair);
    }
}
