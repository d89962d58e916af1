/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The scene: where new clusters come from, what stays counted, and how an attempt is forgotten. */

#include "tests/unit/repair_disks.h"

/* Host clusters: header, refcount table, refcount block, L1 table, L2 table, 16 of data. */
#define PLAIN "cluster-size 4K\nsize 1M\nwrite 0 64K random\n"
enum { CLUSTER = 4096, END = 21 * CLUSTER, L2_AT = 4 * CLUSTER, DATA_AT = 5 * CLUSTER };

static uint64_t
allocate(struct q2_scene *scene, uint64_t count)
{
    uint64_t offset = 1;
    struct q2_error err = {0};
    int rc = q2_scene_allocate(scene, count, &offset, &err);
    if (rc < 0) {
        cr_expect_eq(rc, Q2_ERR_NOSPACE, "%s", err.message);
        cr_expect_eq(offset, 1, "outputs are untouched on failure");
        return 0;
    }
    return offset;
}

/* ---- new clusters ---- */

Test(repair_scene, allocates_behind_the_end)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(PLAIN);
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, false);
    cr_expect_eq(allocate(scene, 1), END);
    cr_expect_eq(allocate(scene, 3), END + CLUSTER);
    cr_expect_eq(allocate(scene, 1), END + 4 * CLUSTER);
    q2_scene_close(scene);
}

/* The last cluster may be cut short: what is new does not begin inside it. */
Test(repair_scene, allocates_behind_a_part_of_a_cluster)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(PLAIN "append 100 0x11\n");
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, false);
    cr_expect_eq(allocate(scene, 1), END + CLUSTER);
    q2_scene_close(scene);
}

struct dangling {
    const char *name, *damage;
    uint64_t count; /* clusters */
    int64_t wanted; /* clusters behind the end; negative: none */
};

/* What a damaged pointer past the end leads to must stay nothing: the file does not grow so far.
 * Refcount blocks are made anew, so that does not matter for theirs. */
Test(repair_scene, allocates_before_dangling_pointers)
{
    static const struct dangling all[] = {
        {"right behind the end", "l2[3].offset = file.size\n", 1, -1},
        {"one cluster farther", "l2[3].offset = file.size + 4K\n", 1, 0},
        {"in the way of two", "l2[3].offset = file.size + 4K\n", 2, -1},
        {"an L1 entry", "l1[0].offset = file.size\n", 1, -1},
        {"compressed", "l2[3] = 0x4000000000000000 + file.size\n", 1, -1},
        {"too far away", "l2[3].offset = 1T\n", 1, 0},
        {"a refcount block", "refcount_table[1] = file.size\n", 1, 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char text[300];
        snprintf(text, sizeof text, "%s%s", PLAIN, all[i].damage);
        Q2_AUTOCLOSE struct q2_file *file = build_image(text);
        struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, false);
        uint64_t wanted = all[i].wanted < 0 ? 0 : END + (uint64_t)all[i].wanted * CLUSTER;
        cr_expect_eq(allocate(scene, all[i].count), wanted, "%s", all[i].name);
        q2_scene_close(scene);
    }
}

/* Guest clusters 4 to 7 were given back: host clusters 9 to 12. */
#define HOLLOW PLAIN "discard 16K 16K\n"

Test(repair_scene, allocates_inside_what_cannot_grow)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(HOLLOW);
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, true);
    cr_expect_eq(allocate(scene, 5), 0, "there are no five in a row");
    cr_expect_eq(allocate(scene, 3), 9 * CLUSTER);
    cr_expect_eq(allocate(scene, 2), 0, "one is left");
    cr_expect_eq(allocate(scene, 1), 12 * CLUSTER);
    cr_expect_eq(allocate(scene, 1), 0);
    q2_scene_close(scene);
}

/* Neither what is referred to, counted or not, nor what is counted, referred to or not, is free;
 * and of what the file cuts short there is no rest. */
Test(repair_scene, allocates_inside_only_what_is_free)
{
    static const char *const full[] = {
        PLAIN,
        PLAIN "refcount[9] = 0\n",
        PLAIN "l2[4] = 0\n",
        PLAIN "append 100 0x11\n",
    };
    for (size_t i = 0; i < sizeof full / sizeof full[0]; i++) {
        Q2_AUTOCLOSE struct q2_file *file = build_image(full[i]);
        struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, true);
        cr_expect_eq(allocate(scene, 1), 0, "image %zu", i);
        q2_scene_close(scene);
    }
}

/* Where refcounts are lost, what nothing refers to may be lost too, unless it holds nothing. */
Test(repair_scene, allocates_inside_nothing_that_may_be_lost)
{
    static const char lost[] = PLAIN "l2[4] = 0\nzero-fill offset(refcount_block[0]) 4K\n";
    static const char blank[] = PLAIN "zero-fill 9 * 4K 4K\nl2[4] = 0\n"
                                      "zero-fill offset(refcount_block[0]) 4K\n";
    Q2_AUTOCLOSE struct q2_file *file = build_image(lost), *zeros = build_image(blank);
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, true);
    cr_expect_eq(allocate(scene, 1), 0);
    q2_scene_close(scene);
    scene = scene_on(zeros, Q2_LEVEL_CERTAIN, true);
    cr_expect_eq(allocate(scene, 1), 9 * CLUSTER);
    q2_scene_close(scene);
}

/* After a check, new clusters are known by what refers to them. */
Test(repair_scene, allocates_again_what_nothing_came_to_refer_to)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(HOLLOW);
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, true);
    uint64_t first = allocate(scene, 1), second = allocate(scene, 1);
    cr_assert_eq(first, 9 * CLUSTER);
    cr_assert_eq(second, 10 * CLUSTER);
    q2_plan_begin(&scene->plan, Q2_ACTION_MATCH_L2_ENTRY, Q2_CERTAIN, L2_AT, "a test");
    cr_assert_eq(q2_scene_write64(scene, Q2_OWNER_L2_TABLE, L2_AT + 32, first, NULL), 0);
    q2_plan_end(&scene->plan);
    cr_assert_eq(q2_scene_recheck(scene, NULL), 0);
    cr_expect_eq(q2_scene_references(scene, 9), 1);
    cr_expect_eq(allocate(scene, 3), second);
    q2_scene_close(scene);
}

/* ---- what stays counted ---- */

Test(repair_scene, keeps)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(PLAIN);
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, false);
    cr_expect_not(q2_scene_kept(scene, 7));
    cr_assert_eq(q2_scene_keep(scene, 7, 2, NULL), 0);
    cr_assert_eq(q2_scene_keep(scene, 19, 100, NULL), 0, "past the end there is nothing to keep");
    cr_assert_eq(q2_scene_keep(scene, 1000, 1, NULL), 0);
    for (uint64_t i = 0; i < 200; i++)
        cr_expect_eq(q2_scene_kept(scene, i), i == 7 || i == 8 || i == 19 || i == 20, "%d", (int)i);
    cr_expect_not(q2_scene_kept(scene, UINT64_MAX));
    scene->keep_all = true;
    cr_expect(q2_scene_kept(scene, 0));
    cr_expect(q2_scene_kept(scene, UINT64_MAX));
    q2_scene_close(scene);
}

/* ---- edits ---- */

Test(repair_scene, writes_are_noted)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(PLAIN);
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, false);
    uint64_t old = word_at(file, L2_AT);
    q2_plan_begin(&scene->plan, Q2_ACTION_MATCH_L2_ENTRY, Q2_CERTAIN, L2_AT, "a test");
    cr_assert_eq(q2_scene_write64(scene, Q2_OWNER_L2_TABLE, L2_AT, 0x1122334455667788, NULL), 0);
    cr_assert_eq(q2_scene_write(scene, Q2_OWNER_L2_TABLE, L2_AT + 8, "bytes", 5, NULL), 0);
    q2_plan_end(&scene->plan);
    uint8_t bytes[13];
    cr_assert_eq(q2_file_read(scene->file, L2_AT, bytes, sizeof bytes, NULL), 0);
    cr_expect_arr_eq(bytes,
                     "\x11\x22\x33\x44\x55\x66\x77\x88"
                     "bytes",
                     13);
    cr_expect_eq(word_at(file, L2_AT), old, "the image itself is not written");
    cr_expect(scene->edited);
    cr_assert_eq(scene->plan.actions[0].written_count, 1);
    cr_expect_eq(scene->plan.actions[0].written[0].offset, L2_AT);
    cr_expect_eq(scene->plan.actions[0].written[0].length, 13);
    q2_scene_close(scene);
}

/* Write garbage to an L2 entry, and keep and take clusters. */
static void
do_much(struct q2_scene *scene)
{
    q2_plan_begin(&scene->plan, Q2_ACTION_MATCH_L2_ENTRY, Q2_CERTAIN, L2_AT, "a test");
    cr_assert_eq(q2_scene_write64(scene, Q2_OWNER_L2_TABLE, L2_AT, UINT64_C(1) << 40, NULL), 0);
    q2_plan_end(&scene->plan);
    cr_assert_eq(allocate(scene, 2), END);
    cr_assert_eq(q2_scene_keep(scene, 7, 2, NULL), 0);
    scene->keep_all = scene->stop = true;
    cr_assert_eq(q2_file_write(scene->file, END + 5 * CLUSTER, "x", 1, NULL), 0);
}

Test(repair_scene, checks_again_what_was_edited)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(PLAIN);
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, false);
    struct q2_check *first = scene->check;
    cr_assert_eq(q2_scene_recheck(scene, NULL), 0);
    cr_expect_eq(scene->check, first, "nothing was edited");
    cr_expect_eq(scene->check, scene->before);
    do_much(scene);
    cr_expect_eq(q2_scene_count(scene, Q2_PROBLEM_L2_ENTRY_PAST_END), 0, "not yet");
    cr_assert_eq(q2_scene_recheck(scene, NULL), 0);
    cr_expect_eq(q2_scene_count(scene, Q2_PROBLEM_L2_ENTRY_PAST_END), 1);
    cr_expect_neq(scene->check, scene->before);
    cr_expect_eq(scene->check->file, scene->file);
    cr_expect_eq(scene->before->file, scene->base);
    cr_expect_eq(q2_check_problem_count(scene->before, Q2_PROBLEM_L2_ENTRY_PAST_END).count, 0);
    cr_expect_not(scene->edited);
    q2_scene_close(scene);
}

Test(repair_scene, restarts)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(PLAIN);
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, false);
    for (int checked = 0; checked < 2; checked++) {
        do_much(scene);
        if (checked)
            cr_assert_eq(q2_scene_recheck(scene, NULL), 0);
        cr_assert_eq(q2_plan_ban(&scene->plan, 0, NULL), 0);
        cr_assert_eq(q2_scene_restart(scene, NULL), 0);
        cr_expect(same_content(scene->file, file));
        cr_expect_eq(scene->check, scene->before);
        cr_expect_eq(scene->check->file, scene->file);
        cr_expect_eq(scene->plan.count, 0);
        cr_expect_eq(scene->plan.ban_count, (unsigned)checked + 1, "bans outlive it");
        cr_expect_not(scene->edited);
        cr_expect_not(scene->keep_all);
        cr_expect_not(scene->stop);
        cr_expect_not(q2_scene_kept(scene, 7));
    }
    cr_expect_eq(allocate(scene, 1), END, "nothing is taken any more");
    q2_scene_close(scene);
}

/* ---- opening ---- */

Test(repair_scene, references)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(PLAIN "snapshot a\nwrite 0 4K 0x22\n");
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, false);
    cr_expect_eq(q2_scene_references(scene, 0), 1);
    cr_expect_eq(q2_scene_references(scene, DATA_AT / CLUSTER), 1, "the snapshot's alone");
    cr_expect_eq(q2_scene_references(scene, DATA_AT / CLUSTER + 1), 2);
    cr_expect_eq(q2_scene_references(scene, UINT64_C(1) << 50), 0);
    q2_scene_close(scene);
}

/* Streams are decoded, asked for or not, but where only leaks are freed. */
Test(repair_scene, decodes_what_is_compressed)
{
    static const char *const images[] = {
        "cluster-size 4K\nsize 1M\nwrite-compressed 0 16K text\nfill l2[1].offset + 2 16 0xff\n",
        /* In a snapshot only, which the counters know nothing of. */
        "cluster-size 4K\nsize 1M\nwrite-compressed 0 16K text\nsnapshot s\nwrite 0 16K random\n"
        "fill snapshot[0].map(4K).offset + 2 16 0xff\n",
    };
    static const enum q2_repair_level levels[] = {Q2_LEVEL_LEAKS, Q2_LEVEL_CERTAIN};
    for (unsigned i = 0; i < 4; i++) {
        Q2_AUTOCLOSE struct q2_file *file = build_image(images[i / 2]);
        struct q2_scene *scene = scene_on(file, levels[i % 2], false);
        cr_expect_eq(scene->deep, i % 2 == 1);
        cr_expect_eq(q2_scene_count(scene, Q2_PROBLEM_COMPRESSED_BROKEN), i % 2, "%s",
                     images[i / 2]);
        q2_scene_close(scene);
    }
}

Test(repair_scene, has_no_check_without_a_header)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(PLAIN "zero-fill 0 4K\n");
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, false);
    cr_expect_null(scene->check);
    cr_expect_null(scene->before);
    cr_expect_eq(q2_scene_count(scene, Q2_PROBLEM_L2_ENTRY_PAST_END), 0);
    cr_assert_eq(q2_scene_restart(scene, NULL), 0);
    q2_scene_close(scene);
}
