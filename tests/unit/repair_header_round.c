/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What a mended header lets the guest read anew must not be an excuse for what else is done: it
 * ends the round, where it can be proven on its own. */

#include "repair/fix.h"
#include "tests/unit/repair_disks.h"

#define DISK "cluster-size 4K\nsize 8M\nwrite 0 256K random\nwrite 6M 64K random 2\n"

static const char *const damages[] = {
    "header.l1_size = 0xffffffff\n",
    "header.size ^= 1 << 41\n",
    "header.crypt_method = 0x100\n",
    "header.cluster_bits ^= 0x40\n",
};

enum { COUNT = sizeof damages / sizeof damages[0] };

static void
with(char text[static 200], const char *header, const char *more)
{
    snprintf(text, 200, "%s%s", header, more);
}

Test(repair_header_round, ends_with_the_header)
{
    for (size_t i = 0; i < COUNT; i++) {
        char damage[200];
        with(damage, damages[i], "l2[3].offset = 1T\n");
        struct mending mending = mend_with(q2_fix_header, Q2_LEVEL_GUESS, DISK, damage);
        cr_expect(mending.scene->stop, "%s", damages[i]);
        cr_expect_eq(q2_plan_applied(&mending.scene->plan), 1, "%s", damages[i]);
        mending_free(&mending);
    }
}

/* Nothing is left to be held against anything. */
Test(repair_header_round, goes_on_where_all_is_well)
{
    for (size_t i = 0; i < COUNT; i++) {
        struct mending mending = mend_with(q2_fix_header, Q2_LEVEL_CERTAIN, DISK, damages[i]);
        cr_expect_not(mending.scene->stop, "%s", damages[i]);
        cr_expect_eq(q2_plan_applied(&mending.scene->plan), 1, "%s", damages[i]);
        mending_free(&mending);
    }
}

/* Later rounds go on with it, and mend the rest. */
Test(repair_header_round, the_rest_follows)
{
    Q2_AUTOCLOSE struct q2_file *healthy = build_image(DISK);
    for (size_t i = 0; i < COUNT; i++) {
        char text[400], damage[200];
        with(damage, damages[i], "l2[3].offset = 1T\n");
        snprintf(text, sizeof text, "%s%s", DISK, damage);
        Q2_AUTOCLOSE struct q2_file *file = build_image(text);
        struct q2_repair *repair = plan(file, Q2_LEVEL_GUESS, false);
        cr_expect(same_disk(q2_repair_file(repair), healthy), "%s", damages[i]);
        cr_expect_eq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_CLEAN, "%s", damages[i]);
        cr_expect(is_settled(repair, false), "%s", damages[i]);
        q2_repair_free(repair);
    }
}
