/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Gaps in L2 tables: which are filled and how sure that is, which lost clusters are nothing but
 * leaks, and that what is only offered stays counted. */

#include "repair/fix.h"
#include "repair/report.h"
#include "tests/unit/repair_disks.h"

/* A sector of an L2 table has 64 entries. Host clusters: header, refcount table, refcount block, L1
 * table, L2 table, then data. */
#define DENSE "cluster-size 4K\nsize 2M\nwrite 0 1M random\n"
/* The first half of the disk was written last. */
#define SWAPPED "cluster-size 4K\nsize 2M\nwrite 1M 64K random 1\nwrite 0 512K random 2\n"
#define CRASHED "cluster-size 4K\nsize 2M\nwrite 0 400K random\nleak 3 random 7\n"
#define PACKED                                                  \
    "cluster-size 4K\nsize 1M\nwrite-compressed 0 64K text 3\n" \
    "write 512K 8K random\n"
#define EXTENDED "cluster-size 16K\nsize 4M\nextended-l2\nwrite 0 1M random\n"
#define SHARED   "cluster-size 4K\nsize 1M\nwrite 0 64K random\nsnapshot a\nwrite 0 4K random 3\n"
enum { CLUSTER = 4096, DATA = 5 };

struct gap {
    const char *name, *image, *damage;
    int confidence; /* enum q2_confidence, or -1: nothing is offered */
};

static const struct gap gaps[] = {
    {"between neighbours", DENSE, "zero-fill offset(l2[100]) 80\n", Q2_LIKELY},
    {"one entry", DENSE, "zero-fill offset(l2[77]) 8\n", Q2_LIKELY},
    {"two of them", DENSE, "zero-fill offset(l2[77]) 16\nzero-fill offset(l2[130]) 512\n",
     Q2_LIKELY},
    {"behind the table itself", DENSE, "zero-fill offset(l2[0]) 512\n", Q2_LIKELY},
    {"behind the last entry that is left", DENSE, "zero-fill offset(l2[192]) 512\n", Q2_GUESS},
    {"in front of the first that is left", SWAPPED, "zero-fill offset(l2[0]) 512\n", Q2_LIKELY},
    {"the last sector but one", SWAPPED, "zero-fill offset(l2[64]) 512\n", Q2_GUESS},
    {"with subclusters", EXTENDED, "zero-fill offset(l2[10]) 256\n", Q2_LIKELY},
    {"among streams", PACKED, "zero-fill offset(l2[5]) 24\n", Q2_LIKELY},
    {"among streams, one of which is damaged", PACKED,
     "fill l2[6].offset + 2 16 0xff\nzero-fill offset(l2[5]) 24\n", -1},
    {"among streams, to which the neighbours do not lead", PACKED,
     "l2[8].offset = l2[9].offset\nzero-fill offset(l2[5]) 24\n", -1},
    {"which a snapshot has", SHARED, "zero-fill offset(l2[4]) 32\n", Q2_LIKELY},
    {"not counted: a discarded range", DENSE,
     "zero-fill offset(l2[100]) 80\nzero-fill offset(refcount_block[0]) + 210 20\n", -1},
    {"leaks behind the data", CRASHED, "", -1},
    {"that is larger than what is lost", DENSE, "zero-fill offset(l2[100]) 80\nrefcount[109] = 0\n",
     -1},
};

static void
fill_gap(const struct gap *gap)
{
    struct mending likely = mend_with(q2_fix_gaps, Q2_LEVEL_LIKELY, gap->image, gap->damage);
    struct mending guess = mend_with(q2_fix_gaps, Q2_LEVEL_GUESS, gap->image, gap->damage);
    const struct q2_plan *plan = &guess.scene->plan;
    uint64_t count = actions_of(plan, Q2_ACTION_FILL_GAP, NULL);
    cr_expect_eq(count == 0, gap->confidence < 0, "%s: %d gaps", gap->name, (int)count);
    cr_expect_eq(plan->count, count, "%s: and nothing else", gap->name);
    for (uint64_t i = 0; i < plan->count; i++) {
        cr_expect_eq((int)plan->actions[i].confidence, gap->confidence, "%s", gap->name);
        cr_expect(plan->actions[i].applied);
    }
    if (count)
        cr_expect(same_disk(guess.scene->file, guess.healthy), "%s", gap->name);
    else
        cr_expect(same_content(guess.scene->file, guess.damaged), "%s", gap->name);
    bool applied = gap->confidence == Q2_LIKELY;
    cr_expect_eq(q2_plan_does_anything(&likely.scene->plan), applied, "%s", gap->name);
    cr_expect_eq(same_content(likely.scene->file, likely.damaged), !applied, "%s", gap->name);
    mending_free(&likely);
    mending_free(&guess);
}

Test(repair_gaps, are_filled)
{
    for (size_t i = 0; i < sizeof gaps / sizeof gaps[0]; i++)
        fill_gap(&gaps[i]);
}

/* The entries come out as they were, COPIED flags, descriptors and subclusters included. */
Test(repair_gaps, are_filled_with_what_was_there)
{
    static const struct gap exact[] = {
        {"plain", DENSE, "zero-fill offset(l2[100]) 80\n", 0},
        {"subclusters", EXTENDED, "zero-fill offset(l2[10]) 256\n", 0},
        {"streams", PACKED, "zero-fill offset(l2[5]) 24\n", 0},
        {"a snapshot's", SHARED, "zero-fill offset(l2[4]) 32\n", 0},
    };
    for (size_t i = 0; i < sizeof exact / sizeof exact[0]; i++) {
        struct mending mending =
            mend_with(q2_fix_gaps, Q2_LEVEL_LIKELY, exact[i].image, exact[i].damage);
        cr_expect(same_content(mending.scene->file, mending.healthy), "%s", exact[i].name);
        mending_free(&mending);
    }
}

/* What the plan says of a gap: where it is, and what reads otherwise. */
Test(repair_gaps, are_named)
{
    struct mending mending =
        mend_with(q2_fix_gaps, Q2_LEVEL_LIKELY, DENSE, "zero-fill offset(l2[100]) 80\n");
    const struct q2_plan *plan = &mending.scene->plan;
    cr_assert_eq(plan->count, 1);
    cr_expect_eq(plan->actions[0].key, 4 * CLUSTER + 100 * 8);
    cr_expect(q2_plan_names(plan, 0, 100 * CLUSTER, 10 * CLUSTER));
    cr_expect_not(q2_plan_names(plan, 0, 99 * CLUSTER, CLUSTER));
    cr_expect_not(q2_plan_names(plan, 0, 110 * CLUSTER, CLUSTER));
    cr_expect_eq(plan->actions[0].changes[0].kind, Q2_CHANGE_RECOVERED);
    cr_assert_eq(plan->actions[0].written_count, 1);
    cr_expect_eq(plan->actions[0].written[0].length, 80);
    mending_free(&mending);
}

/* ---- what stays counted ---- */

static uint64_t
kept(const struct mending *mending)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < mending->scene->check->geometry.file_clusters; i++)
        count += q2_scene_kept(mending->scene, i);
    return count;
}

Test(repair_gaps, what_is_offered_is_kept)
{
    struct mending mending =
        mend_with(q2_fix_gaps, Q2_LEVEL_CERTAIN, DENSE, "zero-fill offset(l2[100]) 80\n");
    cr_expect(has_action(&mending.scene->plan, Q2_ACTION_FILL_GAP, Q2_LIKELY, false));
    cr_expect_eq(kept(&mending), 10);
    for (uint64_t i = 0; i < 10; i++)
        cr_expect(q2_scene_kept(mending.scene, DATA + 100 + i));
    mending_free(&mending);
    mending = mend_with(q2_fix_gaps, Q2_LEVEL_LIKELY, DENSE, "zero-fill offset(l2[100]) 80\n");
    cr_expect_eq(kept(&mending), 0, "what leads to them counts them");
    mending_free(&mending);
}

/* Clusters that a crash leaked lie in no gap that damage could have made. */
Test(repair_gaps, leaks_are_not_kept)
{
    struct mending mending = mend_with(q2_fix_gaps, Q2_LEVEL_CERTAIN, CRASHED, "");
    cr_expect_eq(mending.scene->plan.count, 0);
    cr_expect_eq(kept(&mending), 0);
    mending_free(&mending);
}

/* Data in descending order, so that neighbours say nothing of a gap: 128 entries in two sectors,
 * of which the first has `entries`. */
static char *
descending(int entries)
{
    char *text = malloc(128 * 40 + 100);
    int length = sprintf(text, "cluster-size 1K\nsize 128K\n");
    cr_assert(text);
    for (int i = 127; i >= 0; i--)
        if (i >= 64 || i < entries)
            length += sprintf(text + length, "write %dK 1K random %d\n", i, i);
    return text;
}

/* As many clusters are lost as entries in whole sectors: they are kept, though nobody can tell
 * which belongs where. With many more lost or far fewer, they are leaks. */
Test(repair_gaps, whole_sectors_keep_what_is_lost)
{
    const struct {
        int entries;
        const char *leak;
        uint64_t kept;
    } turns[] = {{64, "", 64}, {40, "", 40}, {20, "", 0}, {64, "leak 9 random\n", 0}};
    for (size_t i = 0; i < sizeof turns / sizeof turns[0]; i++) {
        char *image = descending(turns[i].entries), damage[100];
        snprintf(damage, sizeof damage, "%szero-fill offset(l2[0]) 512\n", turns[i].leak);
        struct mending mending = mend_with(q2_fix_gaps, Q2_LEVEL_CERTAIN, image, damage);
        cr_expect_eq(kept(&mending), turns[i].kept, "%d entries: %d", turns[i].entries,
                     (int)kept(&mending));
        mending_free(&mending);
        free(image);
    }
}

/* Every fourth of the first 256 entries, in an order that says nothing. */
static char *
scattered(void)
{
    char *text = malloc(64 * 40 + 200);
    int length = sprintf(text, "cluster-size 4K\nsize 2M\n");
    cr_assert(text);
    for (int i = 0; i < 64; i++) {
        int entry = i * 37 % 64 * 4;
        length += sprintf(text + length, "write %dK 4K random %d\n", entry * 4, i);
    }
    return text;
}

/* A sector of a table whose neighbours are full, but which ends in nothing, or in what was empty
 * before: the lost clusters are about as many as another one has, and lie among what is in use. */
Test(repair_gaps, lost_sectors_in_longer_gaps_keep_what_is_lost)
{
    const struct {
        const char *name, *damage;
        uint64_t kept;
    } turns[] = {
        {"the first of all", "zero-fill offset(l2[0]) 512\n", 16},
        {"the last, with the empty half behind", "zero-fill offset(l2[192]) 512\n", 16},
        {"two", "zero-fill offset(l2[128]) 1024\n", 32},
        {"few", "zero-fill offset(l2[200]) 16\n", 0},
        {"leaks behind all", "leak 16 random 3\n", 0},
        {"more than all had, but two of them lie beside neighbours",
         "leak 140 random 3\nzero-fill offset(l2[0]) 512\n", 156},
    };
    for (size_t i = 0; i < sizeof turns / sizeof turns[0]; i++) {
        char *image = scattered();
        struct mending mending = mend_with(q2_fix_gaps, Q2_LEVEL_CERTAIN, image, turns[i].damage);
        cr_expect_eq(kept(&mending), turns[i].kept, "%s: %d", turns[i].name, (int)kept(&mending));
        mending_free(&mending);
        free(image);
    }
}

/* A table with nothing in it may have led to anything that is lost, however few or many that are.
 */
Test(repair_gaps, empty_tables_keep_what_is_lost)
{
    static const char *const leaks[] = {"", "leak 3 random 7\n", "leak 300 random 7\n"};
    static const uint64_t counts[] = {64, 67, 364};
    for (size_t i = 0; i < sizeof leaks / sizeof leaks[0]; i++) {
        char *image = scattered(), damage[100];
        snprintf(damage, sizeof damage, "%szero-fill offset(l2[0]) cluster_size\n", leaks[i]);
        struct mending mending = mend_with(q2_fix_gaps, Q2_LEVEL_CERTAIN, image, damage);
        cr_expect_eq(kept(&mending), counts[i], "%s: %d", leaks[i], (int)kept(&mending));
        mending_free(&mending);
        free(image);
    }
}

/* More than a few sectors at once are not lost: the rest of a sparse table was never used. */
Test(repair_gaps, sparse_tables_keep_no_leaks)
{
    struct mending mending = mend_with(q2_fix_gaps, Q2_LEVEL_CERTAIN,
                                       "size 16M\nwrite 0 128K random\nleak 40\n"
                                       "write 128K 64K random 3\n",
                                       "");
    cr_expect_eq(mending.scene->plan.count, 0);
    cr_expect_eq(kept(&mending), 0);
    mending_free(&mending);
}

/* ---- the whole of a repair ---- */

/* Nothing in the image is known to be damaged, so that it has to be said what is feared. */
Test(repair_gaps, what_lost_sectors_led_to_is_left_with_words)
{
    char *image = scattered();
    strcat(image, "zero-fill offset(l2[0]) 512\n");
    Q2_AUTOCLOSE struct q2_file *file = build_image(image);
    struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
    cr_expect_not(q2_repair_needed(repair));
    cr_expect_eq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_LEAKS);
    const char *why = q2_repair_left(repair, Q2_PROBLEM_CLUSTER_LEAKED);
    cr_expect(why && strstr(why, "overwritten with zeros"), "%s", why ? why : "");
    q2_repair_free(repair);
    free(image);
}

Test(repair_gaps, wait_for_their_level)
{
    Q2_AUTOCLOSE struct q2_file *healthy = build_image(DENSE);
    Q2_AUTOCLOSE struct q2_file *file = build_image(DENSE "zero-fill offset(l2[100]) 80\n");
    struct q2_repair *certain = plan(file, Q2_LEVEL_CERTAIN, false);
    cr_expect_not(q2_repair_needed(certain));
    cr_expect_not(applies(certain, Q2_ACTION_FREE_LEAKS), "the clusters are not given away");
    cr_expect(has_action(q2_repair_actions(certain), Q2_ACTION_FILL_GAP, Q2_LIKELY, false));
    q2_repair_free(certain);
    struct q2_repair *leaks = plan(file, Q2_LEVEL_LEAKS, false);
    cr_expect_not(q2_repair_needed(leaks));
    q2_repair_free(leaks);
    struct q2_repair *likely = plan(file, Q2_LEVEL_LIKELY, false);
    cr_expect(applies(likely, Q2_ACTION_FILL_GAP));
    cr_expect_eq(q2_check_exit(q2_repair_after(likely)), Q2_EXIT_CLEAN);
    cr_expect(same_content(q2_repair_file(likely), healthy));
    struct q2_repair *again = plan(q2_repair_file(likely), Q2_LEVEL_LIKELY, false);
    cr_expect_not(q2_repair_needed(again));
    cr_expect_eq(q2_repair_actions(again)->count, 0, "a second run finds nothing to do");
    q2_repair_free(again);
    q2_repair_free(likely);
}

Test(repair_gaps, leaks_are_freed)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(CRASHED);
    struct q2_repair *repair = plan(file, Q2_LEVEL_LEAKS, false);
    cr_expect(applies(repair, Q2_ACTION_FREE_LEAKS));
    cr_expect_eq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_CLEAN);
    q2_repair_free(repair);
}
