/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Refcounts: every kind of damage to them, at every size of clusters and width of refcounts, comes
 * out clean, with the guest's data as it was, no file longer than it has to be, and, where the old
 * places are good, byte for byte as before. And what is not provably leaked is not freed. */

#include "tests/unit/repair_counts.h"

static struct q2_scene *
open_scene(struct q2_file *file, enum q2_repair_level level)
{
    static const struct q2_scene_options options = {.threads = 1};
    struct q2_scene *scene = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_scene_open(file, &options, level, 0, &scene, &err), 0, "%s", err.message);
    return scene;
}

/* ---- damage, everywhere ---- */

struct damage {
    const char *lines;
    bool in_place;   /* the result is the healthy image, byte for byte */
    uint64_t growth; /* clusters that it may cost at most, where the file can grow */
};

static const struct damage damages[] = {
    {"refcount(0) = 0\nrefcount(map(0).offset) = 0\n", true, 0},
    {"zero-fill offset(refcount_block[0]) cluster_size\n", true, 0},
    {"fill offset(refcount_block[0]) cluster_size random 7\n", true, 0},
    {"fill offset(refcount_block[0]) cluster_size 0xff\n", true, 0},
    {"refcount_table[0] |= 0x100\n", true, 0},
    {"refcount_table[0] = 0\n", false, 1},
    {"refcount_table[0] |= 8T\n", false, 1},
    {"refcount_table[0] |= cluster_size / 2\n", false, 1},
    {"refcount_table[0] = map(0).offset\n", false, 3},
    {"refcount_table[0] = offset(l1)\n", false, 1},
    {"refcount_table[1] = refcount_table[0]\n", true, 0},
    {"zero-fill offset(refcount_table) cluster_size\n", false, 1},
    {"fill offset(refcount_table) cluster_size random 9\n", false, 2},
    {"header.refcount_table_offset = 0\n", false, 2},
    {"header.refcount_table_offset |= 1T\n", true, 0},
    {"header.refcount_table_clusters = 0\n", true, 0},
    {"header.refcount_table_clusters = 0xffffffff\n", true, 0},
};

static void
describe(char *text, size_t size, unsigned cluster_bits, unsigned refcount_bits, const char *damage)
{
    unsigned long long cluster = 1ULL << cluster_bits;
    /* A snapshot needs refcounts of 2. */
    snprintf(text, size,
             "cluster-size %llu\nrefcount-bits %u\nsize %llu\nwrite 0 %llu random\n%s"
             "write %llu %llu random\n%s",
             cluster, refcount_bits, cluster * 8, cluster * 3,
             refcount_bits > 1 ? "snapshot s\n" : "", cluster, cluster, damage);
}

static void
mend(unsigned cluster_bits, unsigned refcount_bits, const struct damage *damage, bool fixed_size)
{
    char healthy_text[400], text[400];
    describe(healthy_text, sizeof healthy_text, cluster_bits, refcount_bits, "");
    describe(text, sizeof text, cluster_bits, refcount_bits, damage->lines);
    struct q2_file *healthy = build_image(healthy_text), *damaged = build_image(text);
    struct q2_repair *repair = plan(damaged, Q2_LEVEL_CERTAIN, fixed_size);
    struct content before = content_of(healthy), after = content_of(q2_repair_file(repair));
    uint64_t grown = (after.size - before.size) >> cluster_bits;

    cr_expect_eq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_CLEAN, "%s is not clean", text);
    cr_expect(is_settled(repair, fixed_size), "%s is repaired twice", text);
    cr_expect_geq(after.size, before.size, "%s", text);
    cr_expect_leq(grown, fixed_size ? 0 : damage->growth, "%s grows by %d clusters", text,
                  (int)grown);
    bool same = after.size == before.size && memcmp(after.bytes, before.bytes, after.size) == 0;
    cr_expect(same || !damage->in_place, "%s is not as it was", text);
    if (!fixed_size && cluster_bits < 21 && (refcount_bits == 1 || refcount_bits == 16))
        cr_expect_leq(peer_says(q2_repair_file(repair)), 0, "the peer does not like %s", text);
    free(before.bytes);
    free(after.bytes);
    q2_repair_free(repair);
    q2_file_close(damaged);
    q2_file_close(healthy);
}

static void
mend_all(unsigned cluster_bits, bool fixed_size)
{
    bool large = cluster_bits == 21; /* these take their time */
    bool all = getenv("QCOW2KIT_TEST_ALL") != NULL;
    for (unsigned order = large ? 4 : 0; order <= (large ? 4 : 6); order++)
        for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i += large ? 3 : 1)
            /* Every second one, so that both widths that the peer looks at share all damage. */
            if (all || large || (order + order / 4 + i) % 2 == 0)
                mend(cluster_bits, 1U << order, &damages[i], fixed_size);
}

Test(repair_refcounts, damage_512)
{
    mend_all(9, false);
}

Test(repair_refcounts, damage_4k)
{
    mend_all(12, false);
}

Test(repair_refcounts, damage_64k)
{
    mend_all(16, false);
}

Test(repair_refcounts, damage_2m)
{
    mend_all(21, false);
}

Test(repair_refcounts, damage_on_a_device)
{
    mend_all(9, true);
    mend_all(16, true);
}

/* ---- many blocks ---- */

/* With 64 refcounts in a block, and all blocks gone, the new blocks need blocks themselves. */
Test(repair_refcounts, blocks_count_themselves)
{
    static const char text[] = "cluster-size 512\nrefcount-bits 64\nsize 1M\nwrite 0 1M random\n"
                               "zero-fill offset(refcount_table) cluster_size\n";
    struct q2_file *file = build_image(text);
    uint64_t size, clusters, grown;
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    clusters = size >> 9;
    struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
    cr_expect_eq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_CLEAN);
    cr_expect_leq(peer_says(q2_repair_file(repair)), 0);
    cr_assert_eq(q2_file_size(q2_repair_file(repair), &grown, NULL), 0);
    /* One block for 64 clusters, for those of the new blocks, and a table of one cluster for 64. */
    cr_expect_leq((grown - size) >> 9, clusters / 63 + 2 + clusters / 63 / 64 + 1);
    cr_expect_gt(grown, size + (clusters / 64 << 9));
    q2_repair_free(repair);
    q2_file_close(file);
}

/* What a power cut left of an image that was being made larger. */
Test(repair_refcounts, nothing_is_counted_behind_the_end)
{
    struct q2_file *file =
        build_image("cluster-size 4K\nsize 1M\nwrite 0 8K random\n"
                    "refcount[file.clusters] = 1\nrefcount[file.clusters + 9] = 3\n");
    struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
    cr_expect(applies(repair, Q2_ACTION_MEND_REFCOUNTS));
    cr_expect_eq(faults_after(repair, Q2_PROBLEM_REFCOUNT_BEYOND_END), 0);
    cr_expect(is_settled(repair, false));
    q2_repair_free(repair);
    q2_file_close(file);
}

/* ---- storage that cannot be read ---- */

/* They move: what cannot be read may not be writable either, and could not be put back. */
Test(repair_refcounts, unreadable)
{
    for (uint64_t cluster = 1; cluster <= 2; cluster++) { /* the table, and the block */
        struct q2_file *file = build_image("cluster-size 4K\nsize 1M\nwrite 0 64K random\n"),
                       *faulty;
        const struct q2_fault_plan fault = {.kind = Q2_FAULT_EIO,
                                            .ops = Q2_FAULT_READ,
                                            .offset = cluster << 12,
                                            .length = 512};
        cr_assert_eq(q2_file_new_fault(file, &fault, &faulty, NULL), 0);
        struct q2_scene *scene = open_scene(faulty, Q2_LEVEL_CERTAIN);
        uint64_t size;
        cr_assert_eq(q2_fix_refcounts(scene, NULL), 0);
        cr_assert_eq(q2_scene_recheck(scene, NULL), 0);
        cr_expect_eq(q2_check_exit(scene->check), Q2_EXIT_CLEAN, "cluster %d", (int)cluster);
        cr_assert_eq(scene->plan.count, 1);
        cr_expect_eq(scene->plan.actions[0].kind, Q2_ACTION_REBUILD_REFCOUNTS);
        for (uint64_t i = 0; i < scene->plan.actions[0].written_count; i++)
            cr_expect_neq(scene->plan.actions[0].written[i].offset, cluster << 12);
        cr_assert_eq(q2_file_size(scene->file, &size, NULL), 0);
        cr_expect_leq(size >> 12, scene->before->geometry.file_clusters + 2);
        q2_scene_close(scene);
        q2_file_close(faulty);
        q2_file_close(file);
    }
}

/* ---- a pointer that leads to a refcount block ---- */

/* The block is sound, so the pointer is not. To move the block would leave the guest with what is
 * none of its data, and nothing to tell of it. */
Test(repair_refcounts, sound_blocks_do_not_make_way)
{
    struct q2_file *file = build_image("size 16M\nwrite 0 128K random\n"
                                       "map(64K).offset = offset(refcount_block[0])\n");
    struct q2_scene *scene = open_scene(file, Q2_LEVEL_LIKELY);
    cr_assert_eq(q2_fix_refcounts(scene, NULL), 0);
    cr_expect(!scene->edited);
    cr_assert_geq(scene->plan.count, 1);
    cr_expect_eq(scene->plan.actions[0].kind, Q2_ACTION_REBUILD_REFCOUNTS);
    cr_expect_eq(scene->plan.actions[0].confidence, Q2_GUESS);
    q2_scene_close(scene);
    q2_file_close(file);
}

/* ---- more than a refcount can count ---- */

Test(repair_refcounts, overflow_is_left_alone)
{
    struct q2_file *file =
        build_image("cluster-size 4K\nrefcount-bits 1\nsize 1M\nwrite 0 8K random\n"
                    "l2[1] = l2[0]\n");
    struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
    const struct q2_plan *actions = q2_repair_actions(repair);
    for (uint64_t i = 0; i < actions->count; i++)
        for (uint64_t j = 0; j < actions->actions[i].answer_count; j++)
            cr_expect_neq(actions->actions[i].answers[j].problem, Q2_PROBLEM_REFCOUNT_OVERFLOW);
    q2_repair_free(repair);
    q2_file_close(file);
}

/* ---- leaks, and what only looks like them ---- */

#define BASE \
    "cluster-size 4K\nsize 4M\nwrite 0 64K random\nsnapshot s\nwrite 0 32K random\nleak 2\n"

static const struct {
    const char *lines;
    bool frees;     /* the leak goes */
    uint64_t loose; /* clusters that stay counted, at least */
} leaks[] = {
    {BASE, true, 0},
    {BASE "l1[0] = 0\n", false, 2},
    {BASE "zero-fill offset(l1) cluster_size\n", false, 2},
    {BASE "l1[0] |= 0x200\nl1[0].offset = l1[0].offset | 1M\n", false, 2},
    {BASE "l2[0].offset = 1T\n", false, 3},
    {BASE "l2[0] |= 0x200\n", false, 2},
    {BASE "l2[0] = 0x8000000000000000\n", false, 3},
    {BASE "l2[0].offset = l2[1].offset\n", false, 3},
    {BASE "header.nb_snapshots = 0\n", false, 2},
    {BASE "header.nb_snapshots = 0\nheader.snapshots_offset = 0\n", false, 2},
    {BASE "snapshot[0].l1_table_offset = 0x100\n", false, 2},
};

static uint64_t
counted(struct q2_file *file)
{
    uint64_t bytes, count = 0;
    cr_assert_eq(q2_file_size(file, &bytes, NULL), 0);
    for (uint64_t i = 0; i < bytes >> 12; i++) {
        uint8_t refcount[2];
        cr_assert_eq(q2_file_read(file, 8192 + i * 2, refcount, 2, NULL), 0);
        count += refcount[0] || refcount[1];
    }
    return count;
}

Test(repair_refcounts, only_leaks_are_freed)
{
    for (size_t i = 0; i < sizeof leaks / sizeof leaks[0]; i++) {
        struct q2_file *file = build_image(leaks[i].lines);
        struct q2_repair *repair = plan(file, Q2_LEVEL_LEAKS, false);
        uint64_t before = counted(file), after = counted(q2_repair_file(repair));
        cr_expect_eq(before - after, leaks[i].frees ? 2 : 0, "%s frees %d", leaks[i].lines,
                     (int)(before - after));
        cr_expect_eq(applies(repair, Q2_ACTION_FREE_LEAKS), leaks[i].frees, "%s", leaks[i].lines);
        const struct q2_action *held = action_of(repair, Q2_ACTION_FREE_ORPHANS);
        cr_expect_eq(held != NULL, leaks[i].loose > 0, "%s", leaks[i].lines);
        if (held)
            cr_expect(!held->applied && held->confidence == Q2_GUESS);
        q2_repair_free(repair);
        q2_file_close(file);
    }
}

/* The fix by itself: what it must not free is there however far it may go, or only to a guess. */
Test(repair_refcounts, orphans_are_freed_by_guess_alone)
{
    for (int level = Q2_LEVEL_LEAKS; level <= Q2_LEVEL_GUESS; level++) {
        struct q2_file *file = build_image(BASE "l1[0] = 0\n");
        struct q2_scene *scene = open_scene(file, (enum q2_repair_level)level);
        uint64_t before = counted(file);
        for (int round = 0; round < 2; round++) {
            q2_scene_forget_kept(scene);
            cr_assert_eq(q2_fix_refcounts(scene, NULL), 0);
            cr_assert_eq(q2_scene_recheck(scene, NULL), 0);
            uint64_t freed = before - counted(scene->file);
            /* In the round that mends refcounts they may yet tell what an orphan was. */
            if (level == Q2_LEVEL_GUESS && round == 1)
                cr_expect_geq(freed, 2 + 9);
            else
                cr_expect_eq(freed, 2, "level %d frees %d", level, (int)freed);
        }
        q2_scene_close(scene);
        q2_file_close(file);
    }
}

Test(repair_refcounts, what_is_to_be_kept_is_kept)
{
    struct q2_file *file = build_image(BASE);
    struct q2_scene *scene = open_scene(file, Q2_LEVEL_GUESS);
    uint64_t before = counted(file), leak = 1;
    while (q2_scene_references(scene, leak))
        leak++;
    cr_assert_eq(q2_scene_keep(scene, leak, 1, NULL), 0);
    cr_assert_eq(q2_fix_refcounts(scene, NULL), 0);
    cr_expect_eq(before - counted(scene->file), 1);
    q2_scene_close(scene);
    q2_file_close(file);
}

/* A damaged pointer of a snapshot may be the second reference: as long as it is not mended, what
 * the active map shares with it must not come to be written in place. */
Test(repair_refcounts, high_refcounts_are_evidence_of_damage)
{
    struct q2_file *file = build_image("cluster-size 4K\nsize 4M\nwrite 0 64K random\nsnapshot s\n"
                                       "snapshot[0].l1[0].offset = 1T\nrefcount(0) = 0\n");
    struct q2_scene *scene = open_scene(file, Q2_LEVEL_CERTAIN);
    cr_assert_eq(q2_fix_refcounts(scene, NULL), 0);
    cr_assert_eq(q2_scene_recheck(scene, NULL), 0);
    cr_expect_eq(q2_scene_count(scene, Q2_PROBLEM_REFCOUNT_ZERO), 0);
    cr_expect_eq(q2_scene_count(scene, Q2_PROBLEM_REFCOUNT_TOO_HIGH), 17);
    cr_assert_eq(q2_fix_copied(scene, NULL), 0);
    cr_assert_eq(q2_scene_recheck(scene, NULL), 0);
    cr_expect_eq(q2_scene_count(scene, Q2_PROBLEM_L2_COPIED_SET), 0);
    q2_scene_close(scene);
    q2_file_close(file);
}

/* At the level of leaks, flags stay as they are, and so do the refcounts they agree with. */
Test(repair_refcounts, leaks_alone_change_no_flags)
{
    static const char *const texts[] = {
        "cluster-size 4K\nsize 4M\nwrite 0 64K random\nleak 1\nrefcount(0) = 0\n",
        "cluster-size 4K\nsize 4M\nwrite 0 64K random\nleak 1\nrefcount(map(0).offset) = 2\n"
        "l2[0].copied = 0\n",
    };
    for (size_t i = 0; i < 2; i++) {
        struct q2_file *file = build_image(texts[i]);
        struct q2_repair *repair = plan(file, Q2_LEVEL_LEAKS, false);
        struct content before = content_of(file), after = content_of(q2_repair_file(repair));
        uint64_t differ = 0;
        cr_assert_eq(before.size, after.size);
        for (uint64_t b = 0; b < before.size; b++)
            differ += before.bytes[b] != after.bytes[b];
        cr_expect_eq(differ, 1, "%d bytes differ", (int)differ);
        free(before.bytes);
        free(after.bytes);
        q2_repair_free(repair);
        q2_file_close(file);
    }
}
