/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What an L2 entry must not become by default, though something speaks for it: what is read goes on
 * being read, and what several entries may have led to is nobody's for certain. */

#include "core/base/cleanup.h"
#include "core/base/endian.h"
#include "core/format/entry.h"
#include "tests/unit/repair_counts.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { CLUSTER = 4096, L2_AT = 4 * CLUSTER };

static struct q2_repair *
plan_for(struct q2_file *file)
{
    return plan(file, Q2_LEVEL_CERTAIN, false);
}

static uint64_t
entry_of(struct q2_file *file, uint64_t index)
{
    uint8_t bytes[8];
    cr_assert_eq(q2_file_read(file, L2_AT + index * 8, bytes, sizeof bytes, NULL), 0);
    return q2_load_be64(bytes);
}

/* What software reads by way of an entry that it does not hold against any rule. */
static void
read_by(struct q2_file *file, uint64_t index, uint8_t bytes[CLUSTER])
{
    uint64_t raw = entry_of(file, index), offset = q2_entry_offset(raw);
    memset(bytes, 0, CLUSTER);
    if (offset && !(raw & Q2_ENTRY_ZERO))
        cr_assert_eq(q2_file_read(file, offset, bytes, CLUSTER, NULL), 0);
}

/* Reserved bits are no reason to lose what an entry leads to, whoever else leads there, and whether
 * anything is lost that either could have led to. */
Test(repair_choices, what_is_read_is_not_gone)
{
    static const char *const damages[] = {
        "l2[3].reserved = 2\nl2[100] = l2[3] & ~0x3f000000000001fe\n",
        "l2[3].reserved = 6\nl2[100] = l2[3] & ~0x3f000000000001fe\n",
        "l2[3].reserved = 2\nl2[3].copied = 0\nl2[100] = l2[3] & ~0x3f000000000001fe\n",
        "l2[3].reserved = 2\nl2[30] = l2[3] & ~0x3f000000000001fe\n",
        "l2[3].reserved = 6\n",
    };
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        char image[300];
        uint8_t before[CLUSTER], after[CLUSTER];
        snprintf(image, sizeof image, "cluster-size 4K\nsize 1M\nwrite 0 256K random\n%s",
                 damages[i]);
        struct q2_file *file = build_image(image);
        struct q2_repair *repair = plan_for(file);
        read_by(file, 3, before);
        read_by(q2_repair_file(repair), 3, after);
        cr_expect_eq(memcmp(before, after, CLUSTER), 0, "%zu: the data of the entry", i);
        read_by(file, 100, before);
        read_by(q2_repair_file(repair), 100, after);
        cr_expect_eq(memcmp(before, after, CLUSTER), 0, "%zu: that of the other", i);
        q2_repair_free(repair);
        q2_file_close(file);
    }
}

/* One cluster is lost, that of the broken entry; the other is wrong too, and was zeros. It leads to
 * structures, of which one happens to be one bit away from the cluster. */
Test(repair_choices, two_wait_for_one_cluster)
{
    static const unsigned structures[] = {1, 2};
    for (size_t i = 0; i < 2; i++) {
        char image[300];
        snprintf(image, sizeof image,
                 "cluster-size 4K\nsize 1M\nzero 0 4K\nwrite 80K 4K random\n"
                 "write 400K 4K random\nl2[0] = 0x800000000000%u000\n"
                 "l2[20] = 0x3a45d0e0c0700e00\n",
                 structures[i]);
        struct q2_file *file = build_image(image);
        struct q2_repair *repair = plan_for(file);
        uint64_t lost = (uint64_t)5 * CLUSTER;
        cr_expect_neq(q2_entry_offset(entry_of(q2_repair_file(repair), 0)), lost, "%zu", i);
        cr_expect_neq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_CLEAN, "%zu", i);
        q2_repair_free(repair);
        q2_file_close(file);
    }
}

/* Entry 123 leads to 0x80000 by way of its neighbours; so does another, without any, and neither
 * has a COPIED flag. Nothing tells that the other was ever empty. */
Test(repair_choices, a_power_of_two_was_not_empty_for_that)
{
    struct q2_file *file = build_image("cluster-size 4K\nsize 2M\nwrite 0 600K random\n"
                                       "l2[123].copied = 0\nl2[300] = 0x80000\n");
    uint8_t before[CLUSTER], after[CLUSTER];
    cr_assert_eq(q2_entry_offset(entry_of(file, 123)), 0x80000);
    struct q2_repair *repair = plan_for(file);
    read_by(file, 300, before);
    read_by(q2_repair_file(repair), 300, after);
    cr_expect_eq(memcmp(before, after, CLUSTER), 0);
    q2_repair_free(repair);
    q2_file_close(file);
}

/* Where an entry cannot say zeros it does not say anything else. */
Test(repair_choices, version_2_shows_no_backing_file)
{
    struct q2_file *file = build_image("version 2\nbacking b format raw\ncluster-size 4K\nsize 1M\n"
                                       "write 0 64K random\nrefcount(l2[3].offset) = 0\n"
                                       "l2[3] = 0x8000000040000000\n");
    for (int level = Q2_LEVEL_CERTAIN; level <= Q2_LEVEL_GUESS; level++) {
        struct q2_repair *repair = plan(file, (enum q2_repair_level)level, false);
        cr_expect_neq(entry_of(q2_repair_file(repair), 3), 0);
        q2_repair_free(repair);
    }
    q2_file_close(file);
}

/* Cluster 6 is lost, and one bit away from cluster 70, which was cut off. No refcount tells, but
 * the neighbours do. */
Test(repair_choices, behind_a_cut_pointers_go_on)
{
    struct q2_file *file = build_image("cluster-size 4K\nsize 1M\nwrite 0 272K random\nl2[1] = 0\n"
                                       "zero-fill offset(refcount_block[0]) 4K\n");
    cr_assert_eq(q2_file_truncate(file, 60 * CLUSTER, NULL), 0);
    struct q2_repair *repair = plan_for(file);
    for (uint64_t i = 55; i < 68; i++)
        cr_expect_eq(entry_of(q2_repair_file(repair), i), Q2_ENTRY_ZERO, "entry %d", (int)i);
    q2_repair_free(repair);
    q2_file_close(file);
}
