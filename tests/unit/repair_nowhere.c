/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* L1 entries that lead nowhere: what the guest sees instead is never the old data of a backing
 * file, nor is anything given up that some reader could still read. */

#include "tests/unit/repair_disks.h"

enum { CLUSTER = 4096, ENTRIES = CLUSTER / 8 };

static uint64_t
l1_entry(struct q2_repair *repair, uint32_t map, uint64_t slot)
{
    const struct q2_check *after = q2_repair_after(repair);
    return word_at(q2_repair_file(repair), after->maps[map].l1_offset + slot * 8);
}

static unsigned
clears(const struct q2_repair *repair, enum q2_confidence confidence)
{
    const struct q2_plan *plan = q2_repair_actions(repair);
    unsigned count = 0;
    for (uint64_t i = 0; i < plan->count; i++)
        count += plan->actions[i].kind == Q2_ACTION_CLEAR_L1_ENTRY &&
                 plan->actions[i].confidence == confidence;
    return count;
}

/* Whether all of a slot reads as zeros by its table; `limit`: entries below the end of the disk. */
static void
expect_zeros(struct q2_repair *repair, uint64_t slot, uint64_t limit)
{
    const struct q2_geometry *geometry = &q2_repair_after(repair)->geometry;
    uint64_t entry = l1_entry(repair, 0, slot), table = q2_entry_offset(entry);
    cr_assert_neq(table, 0);
    cr_expect(entry & Q2_ENTRY_COPIED);
    for (uint64_t i = 0; i < geometry->l2_entries; i++) {
        uint64_t at = table + i * geometry->l2_entry_size, raw = 0, bitmap = 0;
        if (i < limit && geometry->extended_l2)
            bitmap = UINT64_C(0xffffffff00000000);
        else if (i < limit)
            raw = Q2_ENTRY_ZERO;
        cr_assert_eq(word_at(q2_repair_file(repair), at), raw, "entry %d", (int)i);
        if (geometry->extended_l2)
            cr_assert_eq(word_at(q2_repair_file(repair), at + 8), bitmap, "entry %d", (int)i);
    }
    cr_expect_eq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_CLEAN);
}

#define OVERLAY "cluster-size 4K\nsize 5M\nbacking \"b.raw\" format \"raw\"\nwrite 0 64K random\n"

Test(repair_nowhere, a_table_of_zeros_hides_the_backing_file)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(OVERLAY "l1[1] = 0x0123456789abcdef\n"
                                                            "l1[2] = 0x0123456789abcdef\n");
    struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
    cr_expect_eq(clears(repair, Q2_CERTAIN), 2);
    expect_zeros(repair, 1, ENTRIES);
    expect_zeros(repair, 2, ENTRIES / 2);
    cr_expect(is_settled(repair, false));
    q2_repair_free(repair);
}

Test(repair_nowhere, extended_entries)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image("extended-l2\ncluster-size 16K\nsize 32M\nbacking \"b.raw\" format \"raw\"\n"
                    "write 0 64K random\nl1[1] = 0x0123456789abcdef\n");
    struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
    expect_zeros(repair, 1, 1024);
    q2_repair_free(repair);
}

/* What leads past the end keeps the file from growing, but for its own table. */
Test(repair_nowhere, a_table_that_was_cut_off)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image(OVERLAY "write 2M 64K random\ntruncate offset(l2_table[1])\n");
    struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
    cr_expect_eq(clears(repair, Q2_CERTAIN), 1);
    expect_zeros(repair, 1, ENTRIES);
    cr_expect(is_settled(repair, false));
    q2_repair_free(repair);
}

/* Nothing reads as zeros in version 2, and without a backing file nothing needs to. */
Test(repair_nowhere, where_no_table_helps)
{
    static const struct {
        const char *image;
        enum q2_confidence confidence;
    } cases[] = {
        {"version 2\n" OVERLAY, Q2_GUESS},
        {"cluster-size 4K\nsize 5M\nwrite 0 64K random\n", Q2_CERTAIN},
    };
    for (size_t i = 0; i < 2; i++) {
        char text[300];
        snprintf(text, sizeof text, "%sl1[1] = 0x0123456789abcdef\n", cases[i].image);
        Q2_AUTOCLOSE struct q2_file *file = build_image(text);
        struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
        cr_expect_eq(clears(repair, cases[i].confidence), 1, "%zu", i);
        cr_expect_eq(l1_entry(repair, 0, 1), i ? 0 : UINT64_C(0x0123456789abcdef));
        q2_repair_free(repair);
    }
}

/* Readers that ignore reserved bits read the table, which another slot has come to lead to too. */
Test(repair_nowhere, a_reserved_bit_keeps_nobody_from_reading)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image("cluster-size 4K\nsize 8M\nwrite 0 64K random\nwrite 4M 64K random 2\n"
                    "l1[1] = l1[2]\nl1[2].reserved = 1 << 3\n");
    struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
    cr_expect_eq(clears(repair, Q2_CERTAIN), 0);
    cr_expect_eq(l1_entry(repair, 0, 2) & Q2_ENTRY_OFFSET,
                 l1_entry(repair, 0, 1) & Q2_ENTRY_OFFSET);
    q2_repair_free(repair);
}
