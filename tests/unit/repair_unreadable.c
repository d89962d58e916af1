/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Bad sectors, one at a time, wherever metadata is: none may end a repair, or cost more than what
 * it holds. */

#include "core/base/cleanup.h"
#include "core/base/endian.h"
#include "core/format/entry.h"
#include "core/io/fault.h"
#include "core/io/memory.h"
#include "repair/journal.h"
#include "tests/unit/repair_counts.h"

#include <criterion/criterion.h>
#include <string.h>

enum { SECTOR = 512 };

/* ---- images ---- */

static struct q2_file *
with_bad_sector(struct q2_file *image, uint64_t offset)
{
    const struct q2_fault_plan plan = {.kind = Q2_FAULT_EIO,
                                       .ops = Q2_FAULT_READ,
                                       .offset = offset,
                                       .length = SECTOR};
    struct q2_file *faulty = NULL;
    cr_assert_eq(q2_file_new_fault(image, &plan, &faulty, NULL), 0);
    return faulty;
}

static const struct q2_action *
applied(const struct q2_repair *repair, enum q2_action_kind kind)
{
    const struct q2_plan *plan = q2_repair_actions(repair);
    for (uint64_t i = 0; i < plan->count; i++)
        if (plan->actions[i].applied && plan->actions[i].kind == kind)
            return &plan->actions[i];
    return NULL;
}

/* The bytes that applied actions of a kind name as lost, or another way. */
static uint64_t
named(const struct q2_repair *repair, enum q2_action_kind kind, enum q2_change_kind change)
{
    const struct q2_action *action = applied(repair, kind);
    uint64_t bytes = 0;
    for (uint64_t i = 0; action && i < action->change_count; i++)
        bytes += action->changes[i].kind == change ? action->changes[i].length : 0;
    return bytes;
}

static uint64_t
word(struct q2_file *file, uint64_t offset)
{
    uint8_t bytes[8];
    cr_assert_eq(q2_file_read(file, offset, bytes, sizeof bytes, NULL), 0);
    return q2_load_be64(bytes);
}

/* ---- L2 tables ---- */

/* Two tables of 4 KiB, of which each sector maps 256 KiB. */
static const char two_tables[] =
    "cluster-size 4K\nsize 4M\nwrite 0 1M random\nwrite 3M 64K random\n";

static uint64_t
l2_of(struct q2_file *image, uint64_t l1, uint64_t slot)
{
    return q2_entry_offset(word(image, l1 + slot * 8));
}

static void
lose_l2_sector(struct q2_file *image, uint64_t l1, uint64_t sector)
{
    uint64_t table = l2_of(image, l1, 0);
    Q2_AUTOCLOSE struct q2_file *bad = with_bad_sector(image, table + sector * SECTOR);
    struct q2_repair *careful = plan(bad, Q2_LEVEL_CERTAIN, false);
    cr_expect_eq(applied(careful, Q2_ACTION_CLEAR_L1_ENTRY), NULL);
    cr_expect_eq(applied(careful, Q2_ACTION_REBUILD_L2_TABLE), NULL);
    cr_expect_eq(applied(careful, Q2_ACTION_FREE_LEAKS), NULL);
    q2_repair_free(careful);

    struct q2_repair *repair = plan(bad, Q2_LEVEL_LIKELY, false);
    struct q2_file *mended = q2_repair_file(repair);
    cr_expect_eq(q2_check_counts(q2_repair_after(repair))->check_errors, 0);
    cr_expect_eq(q2_check_counts(q2_repair_after(repair))->corruptions, 0);
    cr_expect_eq(named(repair, Q2_ACTION_REBUILD_L2_TABLE, Q2_CHANGE_LOST), 256 << 10);
    uint64_t copy = l2_of(mended, l1, 0);
    cr_assert_neq(copy, table);
    for (uint64_t i = 0; i < 512; i++)
        if (i / 64 != sector)
            cr_expect_eq(q2_entry_offset(word(mended, copy + i * 8)),
                         q2_entry_offset(word(image, table + i * 8)), "entry %d", (int)i);
    q2_repair_free(repair);
}

Test(repair_unreadable, costs_what_a_sector_of_an_l2_table_maps)
{
    Q2_AUTOCLOSE struct q2_file *image = build_image(two_tables);
    uint64_t l1 = word(image, 40);
    for (uint64_t sector = 0; sector < 8; sector++)
        lose_l2_sector(image, l1, sector);
}

/* What is lost does not read as what the backing file has there. */
Test(repair_unreadable, hides_the_backing_file)
{
    static const char *const images[] = {
        "backing b format raw\ncluster-size 4K\nsize 4M\nwrite 0 1M random\n",
        "backing b format raw\nextended-l2\ncluster-size 16K\nsize 16M\nwrite 0 1M random\n",
    };
    for (size_t i = 0; i < 2; i++) {
        Q2_AUTOCLOSE struct q2_file *image = build_image(images[i]);
        uint64_t l1 = word(image, 40);
        Q2_AUTOCLOSE struct q2_file *bad = with_bad_sector(image, l2_of(image, l1, 0) + SECTOR);
        struct q2_repair *repair = plan(bad, Q2_LEVEL_LIKELY, false);
        cr_expect(applied(repair, Q2_ACTION_REBUILD_L2_TABLE));
        uint64_t gone = l2_of(q2_repair_file(repair), l1, 0) + SECTOR;
        cr_expect_eq(word(q2_repair_file(repair), gone), i == 0 ? Q2_ENTRY_ZERO : 0);
        if (i == 1)
            cr_expect_eq(word(q2_repair_file(repair), gone + 8), UINT64_C(0xffffffff) << 32);
        q2_repair_free(repair);
    }
}

/* Beyond the end of the disk nothing is mapped, so that nothing is lost. */
Test(repair_unreadable, is_certain_where_nothing_is_lost)
{
    Q2_AUTOCLOSE struct q2_file *image =
        build_image("cluster-size 4K\nsize 1M\nwrite 0 1M random\n");
    uint64_t l1 = word(image, 40);
    Q2_AUTOCLOSE struct q2_file *bad = with_bad_sector(image, l2_of(image, l1, 0) + 7 * SECTOR);
    struct q2_repair *repair = plan(bad, Q2_LEVEL_CERTAIN, false);
    cr_expect(applied(repair, Q2_ACTION_REBUILD_L2_TABLE));
    cr_expect_eq(named(repair, Q2_ACTION_REBUILD_L2_TABLE, Q2_CHANGE_LOST), 0);
    cr_expect_eq(q2_check_counts(q2_repair_after(repair))->check_errors, 0);
    q2_repair_free(repair);
}

/* ---- L1 tables ---- */

/* Eight sectors of 64 entries, of which each maps 32 KiB. What they led to is found. */
Test(repair_unreadable, finds_what_a_sector_of_an_l1_table_led_to)
{
    Q2_AUTOCLOSE struct q2_file *image =
        build_image("cluster-size 512\nsize 16M\nwrite 0 16M random\n");
    uint64_t l1 = word(image, 40);
    for (uint64_t sector = 0; sector < 8; sector++) {
        Q2_AUTOCLOSE struct q2_file *bad = with_bad_sector(image, l1 + sector * SECTOR);
        struct q2_repair *repair = plan(bad, Q2_LEVEL_LIKELY, false);
        struct q2_file *mended = q2_repair_file(repair);
        cr_expect_eq(q2_check_counts(q2_repair_after(repair))->check_errors, 0);
        cr_expect_eq(q2_check_counts(q2_repair_after(repair))->corruptions, 0);
        cr_expect_eq(named(repair, Q2_ACTION_REBUILD_L1_TABLE, Q2_CHANGE_LOST), 2 << 20);
        uint64_t copy = word(mended, 40), wrong = 0;
        cr_assert_neq(copy, l1);
        for (uint64_t i = 0; i < 512; i++)
            wrong += q2_entry_offset(word(mended, copy + i * 8)) !=
                     q2_entry_offset(word(image, l1 + i * 8));
        cr_expect_eq(wrong, 0, "%d entries are wrong", (int)wrong);
        q2_repair_free(repair);
    }
}

/* ---- anything ---- */

/* A bad sector anywhere but in the header neither ends the plan nor casts doubt on the header. */
Test(repair_unreadable, leaves_the_header_alone)
{
    Q2_AUTOCLOSE struct q2_file *image = build_image(
        "cluster-size 4K\nsize 2M\nwrite 0 96K random\nsnapshot one\nwrite 32K 8K 0x42\n");
    uint64_t size;
    cr_assert_eq(q2_file_size(image, &size, NULL), 0);
    for (uint64_t at = 4096; at < size; at += SECTOR) {
        Q2_AUTOCLOSE struct q2_file *bad = with_bad_sector(image, at);
        struct q2_repair *repair = plan(bad, Q2_LEVEL_CERTAIN, false);
        cr_expect_eq(applied(repair, Q2_ACTION_REBUILD_HEADER), NULL, "at %d", (int)at);
        cr_expect_eq(applied(repair, Q2_ACTION_MEND_HEADER), NULL, "at %d", (int)at);
        cr_expect_eq(applied(repair, Q2_ACTION_REMOVE_SNAPSHOT), NULL, "at %d", (int)at);
        q2_repair_free(repair);
    }
}

/* Nor does one in the first cluster, as long as there is nothing in it. */
Test(repair_unreadable, does_without_the_rest_of_the_first_cluster)
{
    Q2_AUTOCLOSE struct q2_file *image =
        build_image("cluster-size 4K\nsize 1M\nwrite 0 8K random\nleak 1\n");
    for (uint64_t at = SECTOR; at < 4096; at += SECTOR) {
        Q2_AUTOCLOSE struct q2_file *bad = with_bad_sector(image, at);
        struct q2_repair *repair = plan(bad, Q2_LEVEL_CERTAIN, false);
        cr_expect(applied(repair, Q2_ACTION_FREE_LEAKS));
        cr_expect_eq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_CLEAN);
        q2_repair_free(repair);
    }
}

/* Where the header itself cannot be read, nothing can be mended in place, and people are told what
 * to do. What a salvage goes by is found all the same. */
Test(repair_unreadable, says_what_to_do_without_a_header)
{
    Q2_AUTOCLOSE struct q2_file *image = build_image(
        "cluster-size 4K\nsize 2M\nwrite 0 96K random\nsnapshot one\nwrite 32K 8K 0x42\n");
    Q2_AUTOCLOSE struct q2_file *bad = with_bad_sector(image, 0);
    const struct q2_repair_options options = {.level = Q2_LEVEL_CERTAIN, .threads = 1};
    struct q2_repair *repair = NULL;
    struct q2_error err = {0};
    cr_expect_eq(q2_repair_plan(bad, &options, &repair, &err), Q2_ERR_IO, "%s", err.message);
    cr_expect(strstr(err.message, "--salvage"), "%s", err.message);
    repair = plan(bad, Q2_LEVEL_GUESS, false);
    cr_assert(applied(repair, Q2_ACTION_REBUILD_HEADER));
    cr_expect_eq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_CLEAN);
    q2_repair_free(repair);
}

/* ---- the first sector ---- */

/* A header that cannot be read is made anew by a guess alone; below that the refusal says what else
 * there is. What the bad sector held cannot be saved, and the journal says so. */
Test(repair_unreadable, the_first_sector)
{
    Q2_AUTOCLOSE struct q2_file *image = build_image(two_tables);
    Q2_AUTOCLOSE struct q2_file *bad = with_bad_sector(image, 0);
    Q2_AUTOCLOSE struct q2_file *journal = NULL;
    struct q2_journal_info info = {0};
    struct q2_error err = {0};
    bool needed = false;
    for (int level = Q2_LEVEL_LEAKS; level <= Q2_LEVEL_LIKELY; level++) {
        const struct q2_repair_options options = {.level = (enum q2_repair_level)level,
                                                  .threads = 1};
        struct q2_repair *refused = NULL;
        cr_expect_eq(q2_repair_plan(bad, &options, &refused, &err), Q2_ERR_IO, "level %d", level);
        cr_expect(strstr(err.message, "--salvage"), "level %d: %s", level, err.message);
    }
    struct q2_repair *repair = plan(bad, Q2_LEVEL_GUESS, false);
    cr_assert_eq(q2_file_new_memory("journal", &journal, &err), 0);
    cr_expect_eq(q2_repair_apply(repair, bad, journal, &needed, &err), 0, "%s", err.message);
    cr_assert_eq(q2_journal_read(journal, &info, &err), 0, "%s", err.message);
    cr_expect_eq(info.unreadable, SECTOR);
    cr_expect_eq(word(image, 0) >> 32, 0x514649fb, "a header again");
    q2_repair_free(repair);
}
