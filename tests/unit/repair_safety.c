/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What a repair must not take for certain by default: likenesses that are mere chance, and damage
 * that is no longer seen once refcounts are made anew. */

#include "checker/refcounts.h"
#include "core/base/endian.h"
#include "core/format/entry.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "repair/repair.h"
#include "tests/unit/images.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { CLUSTER = 4096, L2_AT = 4 * CLUSTER, BLOCK = 2 };

static struct q2_repair *
plan_for(struct q2_file *file)
{
    const struct q2_repair_options options = {.level = Q2_LEVEL_CERTAIN, .threads = 1};
    struct q2_repair *repair = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_repair_plan(file, &options, &repair, &err), 0, "%s", err.message);
    return repair;
}

static uint64_t
word_at(struct q2_file *file, uint64_t offset)
{
    uint8_t bytes[8];
    cr_assert_eq(q2_file_read(file, offset, bytes, sizeof bytes, NULL), 0);
    return q2_load_be64(bytes);
}

static unsigned
applied(const struct q2_repair *repair, enum q2_action_kind kind)
{
    const struct q2_plan *plan = q2_repair_actions(repair);
    unsigned count = 0;
    for (uint64_t i = 0; i < plan->count; i++)
        count += plan->actions[i].applied && plan->actions[i].kind == kind;
    return count;
}

/* Cluster 6 is lost, and one bit away from cluster 70, which was cut off. */
Test(repair_safety, a_pointer_behind_a_cut_is_right)
{
    struct q2_file *file =
        build_image("cluster-size 4K\nsize 1M\nwrite 0 272K random\nl2[1] = 0\n");
    cr_assert_eq(word_at(file, L2_AT + 65 * 8), Q2_ENTRY_COPIED | (uint64_t)70 * CLUSTER);
    cr_assert_eq(q2_file_truncate(file, 60 * CLUSTER, NULL), 0);
    struct q2_repair *repair = plan_for(file);
    struct q2_file *mended = q2_repair_file(repair);
    for (uint64_t i = 55; i < 68; i++)
        cr_expect_eq(word_at(mended, L2_AT + i * 8), Q2_ENTRY_ZERO, "entry %d", (int)i);
    cr_expect_eq(applied(repair, Q2_ACTION_CLEAR_L2_ENTRY), 13);
    cr_expect(q2_plan_names(q2_repair_actions(repair), 0, 65 * CLUSTER, CLUSTER));
    q2_repair_free(repair);
    q2_file_close(file);
}

/* What counts references is nobody's data, whatever it holds, and neither is what did before other
 * blocks were made. */
Test(repair_safety, refcounts_are_not_lost_data)
{
    static const char *const damages[] = {
        "zero-fill offset(refcount_block[0]) 4K\ntruncate 60 * 4K\n",
        "fill offset(refcount_block[0]) 4K 0x5a\ntruncate 60 * 4K\n",
        "fill offset(refcount_block[0]) 4K 0x5a\nl2[3].offset = 12K\n",
        "zero-fill offset(refcount_table[0]) 8\nl2[3].offset = 12K\n",
    };
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        char image[200];
        snprintf(image, sizeof image, "cluster-size 4K\nsize 1M\nwrite 0 272K random\n%s",
                 damages[i]);
        struct q2_file *file = build_image(image);
        struct q2_repair *repair = plan_for(file);
        for (uint64_t k = 0; k < 68; k++) {
            uint64_t offset = q2_entry_offset(word_at(q2_repair_file(repair), L2_AT + k * 8));
            cr_expect(offset == 0 || offset == (5 + k) * CLUSTER || offset == 3 * CLUSTER,
                      "%zu: entry %d", i, (int)k);
        }
        q2_repair_free(repair);
        q2_file_close(file);
    }
}

/* An entry leads to the refcount table. Moving that away would make the guest read what it held. */
Test(repair_safety, a_refcount_table_stays_where_it_is)
{
    struct q2_file *file = build_image("cluster-size 4K\nsize 1M\nwrite 0 256K random\n"
                                       "fill offset(refcount_block[0]) + 8 4088 0x5a\n"
                                       "l2[3].offset = 4K\n");
    struct q2_repair *repair = plan_for(file);
    cr_expect_eq(applied(repair, Q2_ACTION_REBUILD_REFCOUNTS), 0);
    cr_expect_eq(applied(repair, Q2_ACTION_FREE_LEAKS), 0);
    cr_expect_eq(applied(repair, Q2_ACTION_MEND_COPIED), 0, "refcounts say nothing of flags");
    cr_expect_eq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_CORRUPT);
    q2_repair_free(repair);
    q2_file_close(file);
}

/* Without the pointer to a table, refcounts alone say that what it maps is lost. The block that was
 * none is not: a second run would take it for somebody's data. */
Test(repair_safety, what_is_lost_stays_counted_when_refcounts_are_made_anew)
{
    struct q2_file *file = build_image("cluster-size 4K\nsize 8M\nwrite 0 64K random\n"
                                       "write 2M 64K random\n"
                                       "l1[1].offset = 1G\n"
                                       "fill offset(refcount_block[0]) cluster_size 0xff\n");
    struct q2_repair *repair = plan_for(file);
    cr_expect_eq(applied(repair, Q2_ACTION_CLEAR_L1_ENTRY), 0);
    cr_expect_eq(applied(repair, Q2_ACTION_FREE_LEAKS), 0);
    struct q2_repair *second = plan_for(q2_repair_file(repair));
    cr_expect_not(q2_repair_needed(second), "a second run finds nothing to do");
    struct q2_check *after = q2_repair_after(second);
    struct q2_refcount_reader reader;
    cr_assert_eq(q2_refcount_reader_init(&reader, after, NULL), 0);
    for (uint64_t i = 0; i < after->geometry.file_clusters; i++)
        cr_expect_eq(q2_refcount_of(&reader, i) > 0, i != BLOCK, "cluster %d", (int)i);
    q2_refcount_reader_destroy(&reader);
    q2_repair_free(second);
    q2_repair_free(repair);
    q2_file_close(file);
}

/* A snapshot's entry is garbage, and its cluster that of the active map: only a refcount could
 * tell, but it is gone, or was made to agree with what is left. The data may be there all the same.
 */
Test(repair_safety, an_entry_that_another_map_may_share_is_not_cleared)
{
    static const char *const damages[] = {
        "zero-fill offset(refcount_block[0]) cluster_size\n",
        "refcount[7] = 1\n",
    };
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        char image[300];
        snprintf(image, sizeof image,
                 "cluster-size 4K\nsize 1M\nwrite 0 64K random\nsnapshot a\n"
                 "write 0 4K random 2\n%ssnapshot[0].l2[2] = 0x42b830fc19f19ad8\n",
                 damages[i]);
        struct q2_file *file = build_image(image);
        struct q2_repair *repair = plan_for(file);
        cr_expect_eq(applied(repair, Q2_ACTION_CLEAR_L2_ENTRY), 0, "%zu", i);
        struct q2_repair *second = plan_for(q2_repair_file(repair));
        cr_expect_not(q2_repair_needed(second), "%zu: a second run finds nothing to do", i);
        q2_repair_free(second);
        q2_repair_free(repair);
        q2_file_close(file);
    }
}

/* Nothing tells any more that the second table is one but what it holds: an L1 entry is gone, and
 * so are all refcounts. Of a table that shares most with another map, what is its own stays too. */
Test(repair_safety, what_lost_tables_led_to_stays_counted)
{
    static const char *const images[] = {
        "write 0 64K random\nwrite 2M 64K random 2\nl1[1] = 0\n"
        "fill offset(refcount_block[0]) cluster_size 0xff\n",
        "write 0 64K random\nwrite 2M 64K random 2\nl1[1] = 0\n"
        "zero-fill offset(refcount_block[0]) cluster_size\n",
        "write 0 64K random\nwrite 2M 64K random 2\nsnapshot a\nwrite 2M 8K random 3\n"
        "l1[1] = l1[0]\nsnapshot[0].l1[1] = l1[0]\n",
        "write 0 64K random\nwrite 2M 64K random 2\nsnapshot a\nwrite 2M 8K random 3\n"
        "snapshot[0].l1[1] = snapshot[0].l1[0]\n",
    };
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++) {
        char image[300];
        snprintf(image, sizeof image, "cluster-size 4K\nsize 8M\n%s", images[i]);
        struct q2_file *file = build_image(image);
        struct q2_repair *repair = plan_for(file);
        struct q2_check *after = q2_repair_after(repair);
        struct q2_refcount_reader reader;
        cr_assert_eq(q2_refcount_reader_init(&reader, after, NULL), 0);
        for (uint64_t k = 0; k < after->geometry.file_clusters; k++)
            cr_expect_eq(q2_refcount_of(&reader, k) > 0,
                         k != BLOCK || q2_refcount_block(after, 0) == BLOCK * CLUSTER,
                         "%zu: cluster %d", i, (int)k);
        q2_refcount_reader_destroy(&reader);
        cr_expect_neq(q2_check_exit(after), Q2_EXIT_CLEAN, "%zu", i);
        struct q2_repair *second = plan_for(q2_repair_file(repair));
        cr_expect_not(q2_repair_needed(second), "%zu: a second run finds nothing to do", i);
        q2_repair_free(second);
        q2_repair_free(repair);
        q2_file_close(file);
    }
}

static bool
is_lost(const struct q2_repair *repair, uint64_t offset, uint64_t length)
{
    const struct q2_plan *plan = q2_repair_actions(repair);
    for (uint64_t i = 0; i < plan->count; i++)
        for (uint64_t k = 0; plan->actions[i].applied && k < plan->actions[i].change_count; k++) {
            const struct q2_change *change = &plan->actions[i].changes[k];
            if (change->kind == Q2_CHANGE_LOST && change->offset == offset &&
                change->length == length)
                return true;
        }
    return false;
}

/* The end of the last cluster is gone, and is said to be. */
Test(repair_safety, a_cut_within_a_cluster_is_told)
{
    struct q2_file *file = build_image("cluster-size 4K\nsize 1M\nwrite 0 64K random\n");
    cr_assert_eq(q2_file_truncate(file, 15 * CLUSTER + 1000, NULL), 0);
    struct q2_repair *repair = plan_for(file);
    cr_expect_eq(applied(repair, Q2_ACTION_EXTEND_FILE), 1);
    cr_expect(is_lost(repair, 10 * CLUSTER + 1000, CLUSTER - 1000));
    cr_expect_eq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_CLEAN);
    q2_repair_free(repair);
    q2_file_close(file);
}

/* Of the last entry that is left of a table, some bytes are missing: it leads elsewhere now. */
Test(repair_safety, a_cut_within_a_table_is_told)
{
    struct q2_file *file = build_image("cluster-size 4K\nsize 4M\nwrite 0 1M random\nsnapshot s\n"
                                       "write 1M 4K random\nwrite 2M 64K random\n");
    uint64_t table = q2_entry_offset(word_at(file, 3 * CLUSTER)), kept = 100 * 8 + 6;
    cr_assert_eq(q2_file_truncate(file, table + kept, NULL), 0);
    struct q2_repair *repair = plan_for(file);
    struct q2_file *mended = q2_repair_file(repair);
    cr_expect_eq(applied(repair, Q2_ACTION_EXTEND_FILE), 1);
    cr_expect(is_lost(repair, 100 * CLUSTER, (2 << 20) - 100 * CLUSTER));
    cr_expect_eq(word_at(mended, table + 100 * 8), 0);
    q2_repair_free(repair);
    q2_file_close(file);
}

/* Nor does it show the backing file. */
Test(repair_safety, a_cut_within_a_table_does_not_show_the_backing_file)
{
    struct q2_file *file = build_image(
        "backing b format raw\ncluster-size 4K\nsize 4M\nwrite 0 1M random\nsnapshot s\n"
        "write 1M 4K random\nwrite 2M 64K random\n");
    uint64_t table = q2_entry_offset(word_at(file, 3 * CLUSTER));
    cr_assert_eq(q2_file_truncate(file, table + 100 * 8 + 6, NULL), 0);
    struct q2_repair *repair = plan_for(file);
    cr_expect_eq(applied(repair, Q2_ACTION_EXTEND_FILE), 1);
    cr_expect_neq(word_at(q2_repair_file(repair), table + 99 * 8), Q2_ENTRY_ZERO);
    for (uint64_t i = 100; i < 512; i++)
        cr_expect_eq(word_at(q2_repair_file(repair), table + i * 8), Q2_ENTRY_ZERO);
    q2_repair_free(repair);
    q2_file_close(file);
}

/* A file that ends early by itself has lost nothing. */
Test(repair_safety, a_short_last_cluster_is_none_of_this)
{
    struct q2_file *file = build_image(
        "cluster-size 4K\nsize 1M\nwrite 0 64K random\nrefcount(0) = 0\nl2[3].copied = 0\n");
    uint64_t size;
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    cr_assert_eq(q2_file_truncate(file, size - 1000, NULL), 0);
    struct q2_repair *repair = plan_for(file);
    cr_expect_eq(applied(repair, Q2_ACTION_EXTEND_FILE), 0);
    cr_expect_eq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_CLEAN);
    q2_repair_free(repair);
    q2_file_close(file);
}

/* Entry 3 has a reserved bit, and entry 20 came by damage to lead where entry 3 does: that nothing
 * is lost does not make entry 3 the one that leads nowhere. */
Test(repair_safety, an_entry_whose_cluster_another_took_is_not_cleared)
{
    struct q2_file *file = build_image(
        "cluster-size 4K\nsize 1M\nwrite 0 64K random\nl2[20] = l2[3].offset\nl2[3] |= 2\n");
    uint64_t raw = word_at(file, L2_AT + 3 * 8);
    cr_assert_eq(raw, Q2_ENTRY_COPIED | (uint64_t)8 * CLUSTER | 2);
    struct q2_repair *repair = plan_for(file);
    cr_expect_eq(applied(repair, Q2_ACTION_CLEAR_L2_ENTRY), 0);
    cr_expect_eq(word_at(q2_repair_file(repair), L2_AT + 3 * 8) >> 9, raw >> 9);
    q2_repair_free(repair);
    q2_file_close(file);
}
