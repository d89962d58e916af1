/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A slot of an L1 table is zeroed, and nothing but refcounts says so: the whole engine has to bring
 * it back, or to leave the refcounts that tell of it as they are. */

#include "repair/repair.h"
#include "tests/unit/repair_disks.h"

#include <inttypes.h>

/* Slot 0 has a table for each map, slot 1 one that both have. */
#define IMAGE                                                                                 \
    "size 8M\ncluster-size 4096\nwrite 0 1M random 1\nwrite 2M 512K random 2\nsnapshot one\n" \
    "write 0 64K random 3\n"

/* Zero the L1 entry of slot `slot` of map `map`. */
static struct q2_file *
without_slot(const char *recipe, uint32_t map, uint32_t slot, uint64_t *ret_at, uint64_t *ret_table)
{
    struct q2_file *file = build_image(recipe);
    struct q2_check *check = NULL;
    const uint8_t zeros[8] = {0};
    cr_assert_eq(q2_check_run(file, &(struct q2_check_options){.threads = 1}, &check, NULL), 0);
    cr_assert_lt(map, check->map_count);
    uint64_t at = check->maps[map].l1_offset + slot * 8;
    *ret_table = word_at(file, at) & UINT64_C(0x00fffffffffffe00);
    cr_assert_neq(*ret_table, 0);
    *ret_at = at;
    q2_check_free(check);
    cr_assert_eq(q2_file_write(file, at, zeros, 8, NULL), 0);
    return file;
}

static uint64_t
refcount_at(struct q2_file *file, uint64_t offset)
{
    struct q2_check *check = NULL;
    cr_assert_eq(q2_check_run(file, &(struct q2_check_options){.threads = 1}, &check, NULL), 0);
    check->file = file;
    uint64_t count = refcount_in(check, offset >> check->geometry.cluster_bits);
    q2_check_free(check);
    return count;
}

/* Plan a repair: the disk is as it was, or the table is counted as often as before, and that is not
 * called clean. */
static void
expect(uint32_t map, uint32_t slot, enum q2_repair_level level, bool comes_back)
{
    const struct q2_repair_options options = {.level = level, .threads = 1};
    struct q2_file *healthy = build_image(IMAGE);
    uint64_t at, table;
    struct q2_file *damaged = without_slot(IMAGE, map, slot, &at, &table);
    uint64_t count = refcount_at(damaged, table);
    struct q2_repair *repair = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_repair_plan(damaged, &options, &repair, &err), 0, "%s", err.message);
    cr_expect_eq(refcount_at(q2_repair_file(repair), table), count, "map %u, slot %u, level %d",
                 map, slot, (int)level);
    cr_expect_eq(q2_check_exit(q2_repair_after(repair)) == Q2_EXIT_CLEAN, comes_back,
                 "map %u, slot %u, level %d", map, slot, (int)level);
    /* COPIED says nothing in a snapshot's table. */
    cr_expect_eq(word_at(q2_repair_file(repair), at) & UINT64_C(0x00fffffffffffe00),
                 comes_back ? table : 0, "map %u, slot %u, level %d", map, slot, (int)level);
    if (comes_back)
        cr_expect(same_disk(q2_repair_file(repair), healthy), "map %u, slot %u", map, slot);
    q2_repair_free(repair);
    q2_file_close(damaged);
    q2_file_close(healthy);
}

Test(repair_plan_slots, table_that_another_map_has)
{
    expect(0, 1, Q2_LEVEL_CERTAIN, true);
    expect(1, 1, Q2_LEVEL_CERTAIN, true);
}

Test(repair_plan_slots, table_that_nothing_else_has)
{
    expect(0, 0, Q2_LEVEL_CERTAIN, true);
    expect(1, 0, Q2_LEVEL_CERTAIN, true);
}

/* What only gives back space must not give back this. */
Test(repair_plan_slots, only_leaks)
{
    for (uint32_t map = 0; map < 2; map++)
        for (uint32_t slot = 0; slot < 2; slot++)
            expect(map, slot, Q2_LEVEL_LEAKS, false);
}
