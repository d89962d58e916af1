/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The first two rules of the proof: no finding is new, and what was answered is gone. */

#include "tests/unit/pairs.h"

/* ---- findings ---- */

static void
keeps_all(struct q2_scene *scene)
{
    scene->keep_all = true;
}

static void
keeps_the_cluster(struct q2_scene *scene)
{
    cr_assert_eq(q2_scene_keep(scene, 6, 1, NULL), 0); /* of l2[1] in PLAIN */
}

static void
keeps_another(struct q2_scene *scene)
{
    cr_assert_eq(q2_scene_keep(scene, 7, 1, NULL), 0);
}

static void
mends_refcounts(struct q2_scene *scene)
{
    q2_plan_begin(&scene->plan, Q2_ACTION_MEND_REFCOUNTS, Q2_CERTAIN, 0x2000, "a test");
    q2_plan_written(&scene->plan, Q2_OWNER_REFCOUNT_BLOCK, 0x2000, 0x1000);
    q2_plan_end(&scene->plan);
}

static void
names_the_range(struct q2_scene *scene, enum q2_problem answers, enum q2_change_kind kind)
{
    q2_plan_begin(&scene->plan, Q2_ACTION_ATTACH_L2_TABLE, Q2_LIKELY, 0, "a test");
    q2_plan_answer(&scene->plan, answers, 0, 1);
    q2_plan_change(&scene->plan, kind, 0, 0, 2 << 20);
    q2_plan_end(&scene->plan);
}

static void
recovers(struct q2_scene *scene)
{
    names_the_range(scene, Q2_PROBLEM_ORPHAN_L2_TABLE, Q2_CHANGE_RECOVERED);
}

static void
recovers_what_is_harmless(struct q2_scene *scene)
{
    names_the_range(scene, Q2_PROBLEM_CLUSTER_LEAKED, Q2_CHANGE_RECOVERED);
}

static void
gives_up(struct q2_scene *scene)
{
    names_the_range(scene, Q2_PROBLEM_ORPHAN_L2_TABLE, Q2_CHANGE_LOST);
}

#define BEHIND "refcount(l2[1].offset) = 0\nl2[1].offset = 1G\n"

Test(prove, findings)
{
    static const struct pair pairs[] = {
        PAIR("refcount raised", PLAIN, "refcount(l2[1].offset) += 1\nl2[1].copied = 0\n", PROVEN,
             FOUND, .problem = Q2_PROBLEM_REFCOUNT_TOO_HIGH),
        PAIR("refcount raised, and blamed", PLAIN,
             "refcount(l2[1].offset) += 1\nl2[1].copied = 0\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_REFCOUNT_TOO_HIGH, .plan = mends_refcounts, .blamed = 1),
        PAIR("refcount lowered", PLAIN, "refcount(l2[1].offset) = 0\nl2[1].copied = 0\n", PROVEN,
             FOUND, .problem = Q2_PROBLEM_REFCOUNT_ZERO),
        PAIR("refcount corrected", PLAIN "refcount(l2[1].offset) = 3\nl2[1].copied = 0\n",
             "refcount(l2[1].offset) = 1\nl2[1].copied = 1\n", PROVEN, PROVEN),
        PAIR("refcount still wrong", PLAIN "refcount(l2[1].offset) = 3\nl2[1].copied = 0\n",
             "refcount(l2[1].offset) = 2\n", PROVEN, PROVEN),
        PAIR("COPIED flag", PLAIN, "l2[1].copied = 0\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_L2_COPIED_CLEAR),
        PAIR("leak freed", PLAIN "leak 1 0x41\n", "refcount(offset(leak[0])) = 0\n", PROVEN,
             PROVEN),
        PAIR("leak made", PLAIN "refcount(l2[1].offset) = 1\nl2[1].offset = 1G\n", "l2[1] = 0\n",
             PROVEN, PROVEN),
        PAIR("leak next to a leak", PLAIN "leak 2 0x41\nrefcount[39] = 0\n", "refcount[39] = 1\n",
             PROVEN, FOUND, .problem = Q2_PROBLEM_CLUSTER_LEAKED),
        PAIR("leaks moved on by one", PLAIN "leak 3 0x41\nrefcount[40] = 0\n",
             "refcount[38] = 0\nrefcount[40] = 1\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_CLUSTER_LEAKED),
        PAIR("leak", PLAIN BEHIND, "refcount[6] = 1\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_CLUSTER_LEAKED),
        PAIR("leak, all kept", PLAIN BEHIND, "refcount[6] = 1\n", PROVEN, PROVEN,
             .plan = keeps_all),
        PAIR("leak, kept", PLAIN BEHIND, "refcount[6] = 1\n", PROVEN, PROVEN,
             .plan = keeps_the_cluster),
        PAIR("leak, another kept", PLAIN BEHIND, "refcount[6] = 1\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_CLUSTER_LEAKED, .plan = keeps_another),
        PAIR("a third in the cluster of two", PLAIN "l2[1] = l2[2]\nl2[3].offset = 1G\n",
             "l2[3] = l2[2]\n", PROVEN, FOUND, .problem = Q2_PROBLEM_OVERLAP_DATA),
        PAIR("a note", PLAIN, "header.compatible_features = 0x80\n", PROVEN, PROVEN),
        PAIR("an error", PLAIN, "header.incompatible_features = 0x80\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_HEADER_INCOMPATIBLE_UNKNOWN),
    };
    PROVE(pairs);
}

/* An L2 table that nothing led to has a fault of its own. */
#define LOST_TABLE    PLAIN BEHIND "l1[0] = 0\n"
#define BROKEN_STREAM PACKED "fill l2[0].offset 64 0xff\nl2[0] = 0\n"
#define ATTACH        "l1[0] = 0x8000000000004000\n"

Test(prove, light)
{
    static const struct pair pairs[] = {
        PAIR("attached", LOST_TABLE, ATTACH, CHANGED, CHANGED, .length = 65536),
        PAIR("attached and named", LOST_TABLE, ATTACH, PROVEN, PROVEN, .plan = recovers),
        PAIR("attached, another fault", LOST_TABLE, ATTACH "l2[2].reserved = 2\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_L2_ENTRY_RESERVED, .plan = recovers, .blamed = 1),
        PAIR("attached in two places", PLAIN "l1[0] = 0\n", ATTACH "l1[1] = l1[0]\n", CHANGED,
             FOUND, .problem = Q2_PROBLEM_OVERLAP_DATA, .offset = 2 << 20, .length = 65536,
             .plan = recovers),
        PAIR("made in place", PLAIN, "l2[1].offset = 1G\n", CHANGED, FOUND,
             .problem = Q2_PROBLEM_L2_ENTRY_PAST_END, .offset = 4096, .length = 4096,
             .plan = recovers, .blamed = 1),
        PAIR("header mended", PLAIN BEHIND "header.l1_table_offset |= 512\n",
             "header.l1_table_offset = 12288\n", PROVEN, PROVEN),
        PAIR("header mended, overlaps seen",
             PLAIN "refcount(l2[1].offset) = 0\nl2[1] = l2[2]\nheader.l1_table_offset |= 512\n",
             "header.l1_table_offset = 12288\n", PROVEN, PROVEN),
        PAIR("header mended, refcounts not",
             PLAIN "refcount(l2[1].offset) = 0\nheader.l1_table_offset |= 512\n",
             "header.l1_table_offset = 12288\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_L2_COPIED_SET),
        PAIR("recovered, and broken", BROKEN_STREAM, "l2[0] = 0x4000000000005000\n", PROVEN, PROVEN,
             .plan = recovers, .deep = true),
        PAIR("for less than that", BROKEN_STREAM, "l2[0] = 0x4000000000005000\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_COMPRESSED_BROKEN, .plan = recovers_what_is_harmless,
             .blamed = 1, .deep = true),
        PAIR("recovered, with data of another", BROKEN_STREAM, "l2[0] = l2[1]\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_COMPRESSED_DUPLICATE, .plan = recovers, .blamed = 1,
             .deep = true),
        PAIR("lost, and broken", BROKEN_STREAM, "l2[0] = 0x4000000000005000\n", CHANGED, FOUND,
             .problem = Q2_PROBLEM_COMPRESSED_BROKEN, .length = 4096, .plan = gives_up, .blamed = 1,
             .deep = true),
        PAIR("snapshot found", HISTORY "snapshot[1].extra_size = 8\nheader.nb_snapshots = 1\n",
             "header.nb_snapshots = 2\n", PROVEN, PROVEN),
    };
    PROVE(pairs);
}

/* ---- more findings than are listed ---- */

#define MANY(pattern)                                              \
    "cluster-size 4K\nsize 4M\nwrite 0 4K 0x41\nappend 16M 0x42\n" \
    "fill offset(refcount_block[0]) + 40 4040 \"" pattern "\"\n"

Test(prove, unlisted)
{
    static const struct pair pairs[] = {
        PAIR("as many", MANY("\\0\\x01\\0\\0"), "header.compatible_features = 1\n", PROVEN, PROVEN),
        PAIR("fewer", MANY("\\0\\x01\\0\\0"), "refcount[1500] = 0\nrefcount[1502] = 0\n", PROVEN,
             PROVEN),
        PAIR("others", MANY("\\0\\x01\\0\\0"),
             "refcount[1500] = 0\nrefcount[1501] = 0\nrefcount[1502] = 0\nrefcount[1503] = 1\n",
             PROVEN, PROVEN),
        PAIR("more", MANY("\\0\\x01\\0\\0"), "refcount[1505] = 1\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_CLUSTER_LEAKED),
    };
    PROVE(pairs);
}

/* ---- answers ---- */

static void
answers(struct q2_scene *scene, enum q2_problem problem, uint64_t offset)
{
    q2_plan_begin(&scene->plan, Q2_ACTION_MEND_REFCOUNTS, Q2_CERTAIN, 0, "a test");
    q2_plan_end(&scene->plan);
    q2_plan_begin(&scene->plan, Q2_ACTION_MEND_L2_ENTRY, Q2_CERTAIN, 0, "a test");
    q2_plan_answer(&scene->plan, problem, offset, 1);
    q2_plan_end(&scene->plan);
}

static void
answers_leak(struct q2_scene *scene)
{
    answers(scene, Q2_PROBLEM_CLUSTER_LEAKED, 0x27000);
}

static void
answers_entry(struct q2_scene *scene)
{
    answers(scene, Q2_PROBLEM_L2_ENTRY_RESERVED, 0x4008);
}

static void
answers_overlap(struct q2_scene *scene)
{
    answers(scene, Q2_PROBLEM_OVERLAP_DATA, 0x5000);
}

#define TWO_LEAKS PLAIN "leak 3 0x41\n"

Test(prove, answers)
{
    static const struct pair pairs[] = {
        PAIR("gone", TWO_LEAKS, "refcount[39] = 0\n", PROVEN, PROVEN, .plan = answers_leak),
        PAIR("others are gone", TWO_LEAKS, "refcount[38] = 0\n", PROVEN, Q2_OBJECTION_NOT_MENDED,
             .problem = Q2_PROBLEM_CLUSTER_LEAKED, .plan = answers_leak, .blamed = 2),
        PAIR("entry", PLAIN "l2[1].reserved = 2\nl2[2].reserved = 2\n", "l2[1].reserved = 0\n",
             PROVEN, PROVEN, .plan = answers_entry),
        PAIR("another entry", PLAIN "l2[1].reserved = 2\nl2[2].reserved = 2\n",
             "l2[2].reserved = 0\n", PROVEN, Q2_OBJECTION_NOT_MENDED,
             .problem = Q2_PROBLEM_L2_ENTRY_RESERVED, .plan = answers_entry, .blamed = 2),
        PAIR("one of two in a cluster", PLAIN "l2[1] = l2[0]\nl2[2] = l2[0]\n",
             "l2[2].offset = 28672\n", PROVEN, PROVEN, .plan = answers_overlap),
        PAIR("none of two in a cluster", PLAIN "l2[1] = l2[0]\nl2[2] = l2[0]\n",
             "header.compatible_features = 1\n", PROVEN, Q2_OBJECTION_NOT_MENDED,
             .problem = Q2_PROBLEM_OVERLAP_DATA, .plan = answers_overlap, .blamed = 2),
    };
    PROVE(pairs);
}
