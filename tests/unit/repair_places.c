/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* L1 entries of which nothing is left to tell one lost table from another: which of them get one,
 * without being asked for more than what is certain. */

#include "tests/unit/repair_disks.h"

#define OFFSET UINT64_C(0x00fffffffffffe00)

/* Where L1 entry 0 of a map, or another one, leads to after the repair of what `text` says. */
static uint64_t
entry(const char *text, uint32_t map, uint64_t slot)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(text);
    struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
    const struct q2_check *after = q2_repair_after(repair);
    uint8_t bytes[8];
    cr_assert_lt(map, after->map_count);
    cr_assert_eq(q2_file_read(q2_repair_file(repair), after->maps[map].l1_offset + slot * 8, bytes,
                              sizeof bytes, NULL),
                 0);
    q2_repair_free(repair);
    return q2_load_be64(bytes) & OFFSET;
}

/* The table of slot 1 is at 0x4000, that of slot 0 at 0x6000. */
#define TWO_TABLES "cluster-size 4K\nsize 8M\nwrite 2M 4K random 1\nwrite 0 4K random 2\n"

/* An offset of 0 is one bit away from every power of two. */
Test(repair_places, no_offset_is_close_to_none)
{
    cr_expect_eq(entry(TWO_TABLES, 0, 0), 0x6000);
    cr_expect_eq(entry(TWO_TABLES "l1[0] = 1 << 63\nl1[1] = 0\n", 0, 0), 0);
    cr_expect_eq(entry(TWO_TABLES "l1[0] = 1 << 63\nl1[1] = 1 << 63\n", 0, 0), 0);
}

/* But where nothing else is missing, that bit is the reason. */
Test(repair_places, the_only_table_without_an_entry)
{
    cr_expect_eq(entry(TWO_TABLES "l1[1] = 1 << 63\n", 0, 1), 0x4000);
}

/* Both snapshots have the table at 0x4000; the disk has a copy since the last write, at 0x17000. */
#define COPIED_TABLE                                                                      \
    "cluster-size 4K\nsize 8M\nwrite 0 64K random 1\nsnapshot a\nsnapshot b\nwrite 0 4K " \
    "random 2\n"

/* That a reference to a table is missing does not say from where. */
Test(repair_places, a_copy_goes_before_the_table_of_another_map)
{
    const char *damaged = COPIED_TABLE "l1[0] = 1 << 63 | 0xb000\nsnapshot[0].l1[0] = 0\n";
    cr_expect_eq(entry(COPIED_TABLE, 0, 0), 0x17000);
    cr_expect_eq(entry(damaged, 0, 0), 0x17000);
    cr_expect_eq(entry(damaged, 1, 0), 0x4000);
}

/* A map that has nonsense there had something, while one from before may never have. */
Test(repair_places, nonsense_is_not_empty)
{
    const char *text = "cluster-size 4K\nsize 8M\nwrite 2M 4K random 3\nsnapshot a\nsnapshot b\n"
                       "write 0 16K random 1\nsnapshot c\nwrite 4M 4K random 2\nsnapshot d\n"
                       "write 6M 4K random 4\n";
    char damaged[400];
    uint64_t table = entry(text, 3, 0);
    cr_assert_neq(table, 0);
    snprintf(damaged, sizeof damaged, "%ssnapshot[2].l1[0] = 0x1234567800000123\n", text);
    for (uint32_t map = 0; map < 5; map++)
        cr_expect_eq(entry(damaged, map, 0), map == 1 || map == 2 ? 0 : table);
}

/* A lost table may have been where another one has come to be, by an entry that is sound. */
Test(repair_places, a_slot_of_a_contested_table_is_open_too)
{
    const char *damaged = "cluster-size 4K\nsize 8M\nwrite 2M 4K random 3\nsnapshot a\n"
                          "write 0 16K random 1\nwrite 6M 16K random 2\nsnapshot b\n"
                          "write 0 4K random 4\nwrite 6M 4K random 5\n"
                          "snapshot[1].l1[0] = snapshot[1].l1[3]\n"
                          "snapshot[1].l1[3].reserved = 8\n";
    cr_expect_eq(entry(damaged, 1, 0), 0);
}
