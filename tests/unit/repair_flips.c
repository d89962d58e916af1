/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* An L2 table that was overwritten, while another map has one a single bit away: that bit did not
 * flip, and the other table is not this map's. */

#include "core/base/cleanup.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "repair/repair.h"
#include "tests/unit/images.h"

#include <criterion/criterion.h>
#include <string.h>

/* What the first action that mends an L1 entry is worth; Q2_CONFIDENCE_COUNT: there is none. */
static enum q2_confidence
mends_entry(const char *text)
{
    Q2_AUTOCLOSE struct q2_file *image = build_image(text);
    const struct q2_repair_options options = {.level = Q2_LEVEL_CERTAIN, .threads = 1};
    struct q2_repair *repair = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_repair_plan(image, &options, &repair, &err), 0, "%s", err.message);
    const struct q2_plan *plan = q2_repair_actions(repair);
    enum q2_confidence found = Q2_CONFIDENCE_COUNT;
    for (uint64_t i = 0; i < plan->count && found == Q2_CONFIDENCE_COUNT; i++)
        if (plan->actions[i].kind == Q2_ACTION_MEND_L1_ENTRY)
            found = plan->actions[i].confidence;
    q2_repair_free(repair);
    return found;
}

/* The tables are at 0x4000 (the snapshot's) and 0xc000. */
#define ONE_BIT_APART                                            \
    "cluster-size 4K\nsize 1M\nwrite 0 24K random\nsnapshot a\n" \
    "write 0 4K random 2\nwrite 512K 16K random 3\n"

Test(repair_flips, a_table_of_another_map_is_not_a_flipped_bit_away)
{
    cr_expect_eq(mends_entry(ONE_BIT_APART "fill 0xc000 4K random 5\n"), Q2_CONFIDENCE_COUNT);
}

/* But where the refcount of the other table counts one more, it is shared. */
Test(repair_flips, a_shared_table_is)
{
    cr_expect_eq(mends_entry("cluster-size 4K\nsize 1M\nwrite 0 24K random\nsnapshot a\n"
                             "l1[0].offset = offset(l2_table[0]) ^ 0x8000\n"),
                 Q2_CERTAIN);
}

/* An entry that leads to what its own table maps is wrong, and not the table. */
Test(repair_flips, data_of_the_lost_table_is_no_damaged_table)
{
    cr_expect_eq(mends_entry("cluster-size 4K\nsize 1M\nwrite 0 64K random\n"
                             "l1[0].offset = offset(l2_table[0]) ^ 0x2000\n"),
                 Q2_CERTAIN);
}
