/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Rounds of a repair: each begins with what those before have made of the image, and in the end all
 * of them are one repair of the image as it was. */

#include "core/format/snapshot.h"
#include "tests/unit/repair_disks.h"

/* Host clusters: header, refcount table, refcount block, L1 table, L2 table, 16 of data. */
#define PLAIN "cluster-size 4K\nsize 1M\nwrite 0 64K random\n"
enum { CLUSTER = 4096, END = 21 * CLUSTER, L2_AT = 4 * CLUSTER };

/* An action at this offset that changes a cluster of a map. */
static void
act(struct q2_scene *scene, uint64_t offset, uint64_t value, uint32_t map)
{
    cr_assert(q2_plan_begin(&scene->plan, Q2_ACTION_MATCH_L2_ENTRY, Q2_CERTAIN, offset, "a test"));
    q2_plan_change(&scene->plan, Q2_CHANGE_REPLACED, map, offset, CLUSTER);
    cr_assert_eq(q2_scene_write64(scene, Q2_OWNER_L2_TABLE, offset, value, NULL), 0);
    q2_plan_end(&scene->plan);
    cr_assert_eq(q2_scene_recheck(scene, NULL), 0);
}

static void
advance(struct q2_scene *scene)
{
    struct q2_error err = {0};
    cr_assert_eq(q2_scene_advance(scene, &err), 0, "%s", err.message);
}

/* A word behind the end, which makes the file longer. */
static void
lengthen(struct q2_scene *scene, uint64_t offset, uint64_t value)
{
    uint8_t bytes[8];
    q2_store_be64(bytes, value);
    cr_assert_eq(q2_file_write(scene->file, offset, bytes, sizeof bytes, NULL), 0);
}

static uint64_t
size_of(struct q2_file *file)
{
    uint64_t size;
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    return size;
}

Test(repair_rounds, a_round_begins_with_what_the_last_made)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(PLAIN);
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, false);
    uint64_t old = word_at(file, L2_AT);
    lengthen(scene, END, 1);
    act(scene, L2_AT, UINT64_C(1) << 40, 0);
    advance(scene);
    cr_expect_neq(scene->base, file);
    cr_expect_eq(word_at(scene->base, L2_AT), UINT64_C(1) << 40);
    cr_expect_eq(word_at(scene->base, END), 1);
    cr_expect_eq(scene->check, scene->before, "nothing is changed yet");
    cr_expect_eq(q2_scene_count(scene, Q2_PROBLEM_L2_ENTRY_PAST_END), 1);
    cr_expect_eq(scene->plan.count, 0);
    cr_expect_not(scene->edited);
    act(scene, L2_AT, old, 0);
    cr_expect_eq(q2_scene_count(scene, Q2_PROBLEM_L2_ENTRY_PAST_END), 0);
    cr_assert_eq(q2_scene_restart(scene, NULL), 0);
    cr_expect_eq(word_at(scene->file, L2_AT), UINT64_C(1) << 40, "a round is begun anew alone");
    cr_expect_eq(word_at(file, L2_AT), old, "the image itself is not written");
    q2_scene_close(scene);
}

Test(repair_rounds, all_that_advanced_are_one_repair)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(PLAIN);
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, false);
    struct q2_file *overlay = scene->file;
    lengthen(scene, END + CLUSTER, 1);
    act(scene, L2_AT, 0, 0);
    advance(scene);
    lengthen(scene, END + CLUSTER, 2);
    cr_assert_eq(q2_file_truncate(scene->file, END + 3 * CLUSTER, NULL), 0);
    act(scene, L2_AT + 8, 0, 0);
    advance(scene);
    act(scene, L2_AT + 16, 0, 0); /* this one does not */
    q2_scene_settle(scene);
    cr_expect_eq(scene->base, file);
    cr_expect_eq(scene->file, overlay);
    cr_expect_null(scene->ground);
    cr_expect_eq(word_at(scene->file, L2_AT), 0);
    cr_expect_eq(word_at(scene->file, L2_AT + 8), 0);
    cr_expect_eq(word_at(scene->file, L2_AT + 16), word_at(file, L2_AT + 16));
    cr_expect_eq(word_at(scene->file, END + CLUSTER), 2);
    cr_expect_eq(size_of(scene->file), END + 3 * CLUSTER);
    cr_assert_eq(scene->plan.count, 2);
    cr_expect_eq(scene->plan.actions[0].key, L2_AT);
    cr_expect_eq(scene->plan.actions[1].key, L2_AT + 8);
    cr_expect_eq(scene->before->file, file);
    cr_expect_eq(scene->check->file, overlay);
    cr_expect_eq(q2_scene_count(scene, Q2_PROBLEM_CLUSTER_LEAKED), 2,
                 "of the clusters of two entries");
    cr_expect_eq(q2_check_problem_count(scene->before, Q2_PROBLEM_CLUSTER_LEAKED).count, 0);
    q2_scene_close(scene);
}

/* Refcounts that an earlier round has made from nothing do not say what is free. */
Test(repair_rounds, what_may_be_lost_is_not_taken_by_a_later_one)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image(PLAIN "l2[4] = 0\nzero-fill offset(refcount_block[0]) 4K\n");
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, true);
    uint8_t counts[21 * 2] = {0};
    for (unsigned i = 0; i < 21; i++)
        counts[i * 2 + 1] = i != 9;
    cr_assert(q2_plan_begin(&scene->plan, Q2_ACTION_MEND_REFCOUNTS, Q2_CERTAIN, 0, "a test"));
    cr_assert_eq(q2_scene_write(scene, Q2_OWNER_REFCOUNT_BLOCK, 2 * CLUSTER, counts, sizeof counts,
                                NULL),
                 0);
    q2_plan_end(&scene->plan);
    cr_assert_eq(q2_scene_recheck(scene, NULL), 0);
    advance(scene);
    cr_expect_eq(q2_check_exit(scene->before), Q2_EXIT_CLEAN);
    uint64_t offset;
    cr_expect_eq(q2_scene_allocate(scene, 1, &offset, NULL), Q2_ERR_NOSPACE);
    q2_scene_close(scene);
}

/* What is only offered may be done by a later round, which offers the rest again. */
Test(repair_rounds, offers_are_those_of_the_last)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(PLAIN);
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, false);
    for (unsigned round = 0; round < 2; round++) {
        act(scene, L2_AT + round * 8, 0, 0);
        cr_expect_not(q2_plan_begin(&scene->plan, Q2_ACTION_MATCH_L2_ENTRY, Q2_GUESS, L2_AT,
                                    "offer %u", round));
        q2_plan_end(&scene->plan);
        advance(scene);
    }
    q2_scene_settle(scene);
    cr_assert_eq(scene->plan.count, 3);
    cr_expect(scene->plan.actions[0].applied);
    cr_expect(scene->plan.actions[1].applied);
    cr_expect_not(scene->plan.actions[2].applied);
    cr_expect_str_eq(scene->plan.actions[2].evidence, "offer 1");
    q2_scene_close(scene);
}

/* A change names a map by its place, which a later round may move. */
Test(repair_rounds, changes_follow_their_maps)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image(PLAIN "snapshot a\nwrite 0 4K 0x22\nsnapshot b\nwrite 0 4K 0x33\n");
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, false);
    cr_assert_eq(scene->check->map_count, 3);
    uint8_t table[200];
    uint64_t at = scene->check->header.snapshots_offset;
    cr_assert_eq(q2_file_read_padded(file, at, table, sizeof table, NULL), 0);
    uint64_t first = q2_snapshot_length(table);
    cr_assert_lt(first + q2_snapshot_length(table + first), sizeof table);
    for (uint32_t map = 0; map < 3; map++)
        act(scene, L2_AT + 8 * map, 0, map);
    advance(scene);
    cr_assert_eq(q2_file_write(scene->file, at, table + first, sizeof table - first, NULL), 0);
    cr_assert_eq(q2_file_write(scene->file, 60, "\0\0\0\1", 4, NULL), 0);
    act(scene, L2_AT + 24, 0, 1);
    cr_assert_eq(scene->check->map_count, 2);
    advance(scene);
    q2_scene_settle(scene);
    cr_assert_eq(scene->plan.count, 4);
    static const struct {
        uint64_t count;
        uint32_t map;
    } wanted[] = {{1, 0}, {0, 0}, {1, 1}, {1, 1}};
    for (unsigned i = 0; i < 4; i++) {
        const struct q2_action *action = &scene->plan.actions[i];
        cr_expect_eq(action->change_count, wanted[i].count, "action %u", i);
        if (action->change_count)
            cr_expect_eq(action->changes[0].map, wanted[i].map, "action %u", i);
    }
    q2_scene_close(scene);
}

/* Compressed clusters that a round has made readable are decoded from the next on. */
Test(repair_rounds, looks_deeper_once_there_is_something)
{
    Q2_AUTOCLOSE struct q2_file *healthy =
        build_image("cluster-size 4K\nsize 1M\nwrite-compressed 0 64K text 3\n");
    Q2_AUTOCLOSE struct q2_file *file =
        build_image("cluster-size 4K\nsize 1M\nwrite-compressed 0 64K text 3\n"
                    "fill map(8K).offset 300 random\nl1[0] = 0\n");
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, false);
    uint64_t at = scene->check->header.l1_table_offset;
    cr_expect_not(scene->deep);
    act(scene, at, word_at(healthy, at), 0);
    cr_expect_eq(q2_scene_count(scene, Q2_PROBLEM_COMPRESSED_BROKEN), 0);
    advance(scene);
    cr_assert_eq(q2_scene_look_deeper(scene, NULL), 0);
    cr_expect(scene->deep);
    cr_expect_gt(q2_scene_count(scene, Q2_PROBLEM_COMPRESSED_BROKEN), 0);
    cr_expect_eq(scene->check, scene->before);
    cr_expect_eq(scene->check->file, scene->file);
    const struct q2_check *deep = scene->check;
    cr_assert_eq(q2_scene_look_deeper(scene, NULL), 0);
    cr_expect_eq(scene->check, deep, "once");
    q2_scene_settle(scene);
    cr_expect_gt(q2_scene_count(scene, Q2_PROBLEM_COMPRESSED_BROKEN), 0);
    q2_scene_close(scene);
}
