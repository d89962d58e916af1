/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The plan: what each level permits, what is banned, how ranges are joined and asked for, and that
 * a lack of memory is remembered and leaves nothing half done. */

#include "repair/plan.h"

#include <criterion/criterion.h>
#include <string.h>

struct paper {
    struct q2_budget budget;
    struct q2_plan plan;
};

static void
paper_init(struct paper *paper, enum q2_repair_level level, uint64_t memory)
{
    q2_budget_init(&paper->budget, memory);
    q2_plan_init(&paper->plan, &paper->budget, level);
}

static void
paper_destroy(struct paper *paper)
{
    q2_plan_destroy(&paper->plan);
    cr_expect_eq(paper->budget.used, 0, "all memory is given back");
}

static bool
begin(struct paper *paper, enum q2_action_kind kind, enum q2_confidence confidence, uint64_t key)
{
    return q2_plan_begin(&paper->plan, kind, confidence, key, "because of 0x%llx",
                         (unsigned long long)key);
}

/* An action that changes one range. */
static void
change(struct paper *paper, enum q2_confidence confidence, uint32_t map, uint64_t offset,
       uint64_t length)
{
    begin(paper, Q2_ACTION_MATCH_L2_ENTRY, confidence, offset);
    q2_plan_change(&paper->plan, Q2_CHANGE_RECOVERED, map, offset, length);
    q2_plan_end(&paper->plan);
}

/* ---- what is permitted ---- */

Test(repair_plan, levels)
{
    static const unsigned permitted[] = {
        [Q2_LEVEL_LEAKS] = 0,
        [Q2_LEVEL_CERTAIN] = 1 << Q2_CERTAIN,
        [Q2_LEVEL_LIKELY] = 1 << Q2_CERTAIN | 1 << Q2_LIKELY,
        [Q2_LEVEL_GUESS] = 1 << Q2_CERTAIN | 1 << Q2_LIKELY | 1 << Q2_GUESS,
    };
    for (int level = Q2_LEVEL_LEAKS; level <= Q2_LEVEL_GUESS; level++)
        for (int confidence = 0; confidence < Q2_CONFIDENCE_COUNT; confidence++)
            for (int kind = 0; kind < Q2_ACTION_COUNT; kind++) {
                struct paper paper;
                paper_init(&paper, (enum q2_repair_level)level, 1 << 20);
                bool leak = kind == Q2_ACTION_FREE_LEAKS && level == Q2_LEVEL_LEAKS;
                bool wanted =
                    (permitted[level] >> confidence & 1) || (leak && confidence == Q2_CERTAIN);
                bool does =
                    begin(&paper, (enum q2_action_kind)kind, (enum q2_confidence)confidence, 4096);
                cr_expect_eq(does, wanted, "level %d, %s, %s", level,
                             q2_action_id((enum q2_action_kind)kind),
                             q2_confidence_id((enum q2_confidence)confidence));
                cr_expect_eq(paper.plan.actions[0].applied, wanted);
                cr_expect_eq(q2_plan_does_anything(&paper.plan), wanted);
                cr_expect_not(paper.plan.actions[0].dropped);
                paper_destroy(&paper);
            }
}

/* What the level does not permit is recorded as fully as what it does. */
Test(repair_plan, records_what_is_beyond_the_level)
{
    struct paper paper;
    paper_init(&paper, Q2_LEVEL_CERTAIN, 1 << 20);
    cr_expect_not(begin(&paper, Q2_ACTION_FILL_GAP, Q2_LIKELY, 0x5000));
    q2_plan_answer(&paper.plan, Q2_PROBLEM_CLUSTER_LEAKED, 0x7000, 3);
    q2_plan_change(&paper.plan, Q2_CHANGE_RECOVERED, 2, 0x9000, 0x1000);
    q2_plan_end(&paper.plan);
    const struct q2_action *action = &paper.plan.actions[0];
    cr_assert_eq(paper.plan.count, 1);
    cr_expect_eq(action->kind, Q2_ACTION_FILL_GAP);
    cr_expect_eq(action->key, 0x5000);
    cr_expect_str_eq(action->evidence, "because of 0x5000");
    cr_assert_eq(action->answer_count, 1);
    cr_expect_eq(action->answers[0].problem, Q2_PROBLEM_CLUSTER_LEAKED);
    cr_expect_eq(action->answers[0].offset, 0x7000);
    cr_expect_eq(action->answers[0].count, 3);
    cr_assert_eq(action->change_count, 1);
    cr_expect_eq(action->changes[0].map, 2);
    cr_expect_eq(action->written_count, 0);
    paper_destroy(&paper);
}

/* What comes between actions belongs to none of them. */
Test(repair_plan, notes_need_an_action)
{
    struct paper paper;
    paper_init(&paper, Q2_LEVEL_GUESS, 1 << 20);
    q2_plan_change(&paper.plan, Q2_CHANGE_LOST, 0, 0, 1);
    begin(&paper, Q2_ACTION_MEND_COPIED, Q2_CERTAIN, 1);
    q2_plan_end(&paper.plan);
    q2_plan_answer(&paper.plan, Q2_PROBLEM_CLUSTER_LEAKED, 0, 1);
    q2_plan_written(&paper.plan, Q2_OWNER_L2_TABLE, 0, 8);
    q2_plan_change(&paper.plan, Q2_CHANGE_LOST, 0, 0, 1);
    cr_assert_eq(paper.plan.count, 1);
    cr_expect_eq(paper.plan.actions[0].answer_count, 0);
    cr_expect_eq(paper.plan.actions[0].written_count, 0);
    cr_expect_eq(paper.plan.actions[0].change_count, 0);
    paper_destroy(&paper);
}

Test(repair_plan, bans)
{
    struct paper paper;
    paper_init(&paper, Q2_LEVEL_CERTAIN, 1 << 20);
    for (int attempt = 0; attempt < 2; attempt++) {
        bool banned = attempt > 0;
        cr_expect_eq(begin(&paper, Q2_ACTION_MEND_L2_ENTRY, Q2_CERTAIN, 8), !banned);
        cr_expect(begin(&paper, Q2_ACTION_MEND_L2_ENTRY, Q2_CERTAIN, 16), "another place");
        cr_expect(begin(&paper, Q2_ACTION_MATCH_L2_ENTRY, Q2_CERTAIN, 8), "another kind");
        cr_expect_eq(paper.plan.actions[0].dropped, banned);
        cr_expect_not(paper.plan.actions[1].dropped);
        cr_expect_not(paper.plan.actions[2].dropped);
        if (!banned)
            cr_assert_eq(q2_plan_ban(&paper.plan, 0, NULL), 0);
        q2_plan_restart(&paper.plan);
        cr_expect_eq(paper.plan.count, 0);
        cr_expect_not(q2_plan_does_anything(&paper.plan));
    }
    paper_destroy(&paper);
}

/* Where several of a kind have failed, the rest of them are not tried one by one. */
Test(repair_plan, bans_of_a_kind)
{
    struct paper paper;
    unsigned banned = 0;
    paper_init(&paper, Q2_LEVEL_CERTAIN, 1 << 20);
    while (begin(&paper, Q2_ACTION_MEND_L2_ENTRY, Q2_CERTAIN, banned) && banned < 100) {
        cr_assert_eq(q2_plan_ban(&paper.plan, 0, NULL), 0);
        q2_plan_restart(&paper.plan);
        banned++;
    }
    cr_expect_gt(banned, 4);
    cr_expect_lt(banned, 12);
    cr_expect(begin(&paper, Q2_ACTION_MATCH_L2_ENTRY, Q2_CERTAIN, 8), "another kind");
    q2_plan_forget_bans(&paper.plan);
    cr_expect(begin(&paper, Q2_ACTION_MEND_L2_ENTRY, Q2_CERTAIN, 8));
    paper_destroy(&paper);
}

/* Where no action is to blame, refcounts and flags go last: nothing else does without them. */
Test(repair_plan, least_sure)
{
    static const struct {
        enum q2_action_kind kind;
        enum q2_confidence confidence;
    } actions[] = {{Q2_ACTION_MEND_L2_ENTRY, Q2_LIKELY},    {Q2_ACTION_MATCH_L2_ENTRY, Q2_GUESS},
                   {Q2_ACTION_FILL_GAP, Q2_CERTAIN},        {Q2_ACTION_MEND_L2_ENTRY, Q2_LIKELY},
                   {Q2_ACTION_REBUILD_REFCOUNTS, Q2_GUESS}, {Q2_ACTION_MEND_COPIED, Q2_CERTAIN}};
    static const uint64_t order[] = {3, 0, 2, 4, 5};
    struct paper paper;
    paper_init(&paper, Q2_LEVEL_LIKELY, 1 << 20);
    cr_expect_eq(q2_plan_least_sure(&paper.plan), UINT64_MAX);
    for (size_t i = 0; i < 6; i++)
        begin(&paper, actions[i].kind, actions[i].confidence, i);
    cr_expect_not(paper.plan.actions[1].applied);
    paper.plan.actions[4].applied = true;
    for (size_t i = 0; i < 5; i++) {
        cr_assert_eq(q2_plan_least_sure(&paper.plan), order[i], "turn %zu", i);
        cr_expect_not(q2_plan_bans_followers(&paper.plan) && i < 4);
        cr_assert_eq(q2_plan_ban(&paper.plan, order[i], NULL), 0);
        paper.plan.actions[order[i]].applied = false;
    }
    cr_expect(q2_plan_bans_followers(&paper.plan));
    cr_expect_eq(q2_plan_least_sure(&paper.plan), UINT64_MAX);
    paper_destroy(&paper);
}

/* ---- ranges ---- */

Test(repair_plan, joins_neighbours)
{
    struct paper paper;
    struct q2_plan *plan = &paper.plan;
    paper_init(&paper, Q2_LEVEL_CERTAIN, 1 << 20);
    begin(&paper, Q2_ACTION_MEND_COPIED, Q2_CERTAIN, 1);
    q2_plan_written(plan, Q2_OWNER_L2_TABLE, 0x1000, 8);
    q2_plan_written(plan, Q2_OWNER_L2_TABLE, 0x1008, 8); /* joins */
    q2_plan_written(plan, Q2_OWNER_L1_TABLE, 0x1010, 8); /* another kind */
    q2_plan_written(plan, Q2_OWNER_L1_TABLE, 0x1020, 8); /* a gap */
    q2_plan_change(plan, Q2_CHANGE_LOST, 0, 0, 512);
    q2_plan_change(plan, Q2_CHANGE_LOST, 0, 512, 512);       /* joins */
    q2_plan_change(plan, Q2_CHANGE_RECOVERED, 0, 1024, 512); /* another kind */
    q2_plan_change(plan, Q2_CHANGE_RECOVERED, 1, 1536, 512); /* another map */
    q2_plan_change(plan, Q2_CHANGE_RECOVERED, 1, 4096, 512); /* a gap */
    q2_plan_end(plan);
    begin(&paper, Q2_ACTION_MEND_COPIED, Q2_CERTAIN, 2); /* another action */
    q2_plan_written(plan, Q2_OWNER_L1_TABLE, 0x1028, 8);
    q2_plan_change(plan, Q2_CHANGE_RECOVERED, 1, 4608, 512);
    q2_plan_end(plan);
    const struct q2_action *first = &plan->actions[0], *second = &plan->actions[1];
    cr_assert_eq(first->written_count, 3);
    cr_expect_eq(first->written[0].length, 16);
    cr_expect_eq(first->written[1].kind, Q2_OWNER_L1_TABLE);
    cr_expect_eq(first->written[2].offset, 0x1020);
    cr_assert_eq(first->change_count, 4);
    cr_expect_eq(first->changes[0].length, 1024);
    cr_expect_eq(first->changes[1].length, 512);
    cr_expect_eq(first->changes[2].map, 1);
    cr_expect_eq(first->changes[3].offset, 4096);
    cr_expect_eq(second->written_count, 1);
    cr_expect_eq(second->change_count, 1);
    paper_destroy(&paper);
}

/* Several actions together may name a range, in whatever order they come. */
Test(repair_plan, names_over_several_actions)
{
    struct paper paper;
    const struct q2_plan *plan = &paper.plan;
    paper_init(&paper, Q2_LEVEL_CERTAIN, 1 << 20);
    change(&paper, Q2_CERTAIN, 0, 8192, 4096);
    change(&paper, Q2_CERTAIN, 0, 0, 4096);
    change(&paper, Q2_CERTAIN, 0, 3000, 5192);
    change(&paper, Q2_CERTAIN, 1, 12288, 4096);
    change(&paper, Q2_LIKELY, 0, 16384, 4096); /* not applied */
    change(&paper, Q2_CERTAIN, 0, 20480, 4096);
    cr_expect(q2_plan_names(plan, 0, 0, 12288));
    cr_expect(q2_plan_names(plan, 0, 4095, 2));
    cr_expect(q2_plan_names(plan, 0, 20480, 4096));
    cr_expect_not(q2_plan_names(plan, 0, 0, 12289), "the map behind it is another");
    cr_expect(q2_plan_names(plan, 1, 12288, 4096));
    cr_expect_not(q2_plan_names(plan, 1, 12287, 2));
    cr_expect_not(q2_plan_names(plan, 1, 0, 1));
    cr_expect_not(q2_plan_names(plan, 0, 16384, 4096), "beyond the level");
    cr_expect_not(q2_plan_names(plan, 0, 20479, 2));
    cr_expect_not(q2_plan_names(plan, 0, 20480, 4097));
    paper_destroy(&paper);
}

/* ---- memory ---- */

static void
fill(struct paper *paper)
{
    for (uint64_t key = 0; key < 5; key++) {
        begin(paper, Q2_ACTION_CLEAR_L2_ENTRY, Q2_CERTAIN, key);
        for (uint64_t i = 0; i < 5; i++) {
            q2_plan_answer(&paper->plan, Q2_PROBLEM_L2_ENTRY_PAST_END, i * 16, 1);
            q2_plan_written(&paper->plan, Q2_OWNER_L2_TABLE, i * 16, 8);
            q2_plan_change(&paper->plan, Q2_CHANGE_LOST, 0, i * 8192, 4096);
        }
        q2_plan_end(&paper->plan);
    }
}

static bool
is_full(const struct q2_plan *plan)
{
    bool full = plan->count == 5;
    for (uint64_t i = 0; full && i < 5; i++)
        full = plan->actions[i].evidence && plan->actions[i].answer_count == 5 &&
               plan->actions[i].written_count == 5 && plan->actions[i].change_count == 5;
    return full;
}

/* With any budget the plan is whole, or says that it is not. */
Test(repair_plan, remembers_a_lack_of_memory)
{
    unsigned failures = 0, whole = 0;
    for (uint64_t memory = 0; memory < 8192; memory += 24) {
        struct paper paper;
        paper_init(&paper, Q2_LEVEL_CERTAIN, memory);
        fill(&paper);
        if (paper.plan.failed) {
            cr_expect_eq(paper.plan.failed, Q2_ERR_BUDGET, "with %llu bytes",
                         (unsigned long long)memory);
            cr_expect(strstr(paper.plan.error.message, "the plan"), "%s", paper.plan.error.message);
            uint64_t count = paper.plan.count;
            cr_expect_not(begin(&paper, Q2_ACTION_MEND_COPIED, Q2_CERTAIN, 9), "once and for all");
            cr_expect_eq(paper.plan.count, count);
            failures++;
        } else {
            cr_expect(is_full(&paper.plan), "with %llu bytes", (unsigned long long)memory);
            whole++;
        }
        paper_destroy(&paper);
    }
    cr_expect_gt(failures, 20);
    cr_expect_gt(whole, 20);
}

/* The first failure is the one that is told, and another attempt begins without it. */
Test(repair_plan, the_first_failure_counts)
{
    struct paper paper;
    struct q2_error err = {0};
    paper_init(&paper, Q2_LEVEL_CERTAIN, 8192);
    begin(&paper, Q2_ACTION_MEND_COPIED, Q2_CERTAIN, 1);
    paper.budget.limit = paper.budget.used;
    q2_plan_change(&paper.plan, Q2_CHANGE_LOST, 0, 0, 1);
    cr_assert_eq(paper.plan.failed, Q2_ERR_BUDGET);
    struct q2_error first = paper.plan.error;
    paper.budget.limit = 1;
    q2_plan_change(&paper.plan, Q2_CHANGE_LOST, 0, 0, 1);
    cr_expect_eq(q2_plan_ban(&paper.plan, 0, &err), Q2_ERR_BUDGET);
    cr_expect_str_eq(err.message, first.message);
    cr_expect_str_eq(paper.plan.error.message, first.message);
    cr_expect_eq(paper.plan.ban_count, 0);
    paper.budget.limit = 8192;
    q2_plan_restart(&paper.plan);
    cr_expect_eq(paper.plan.failed, 0);
    cr_expect(begin(&paper, Q2_ACTION_MEND_COPIED, Q2_CERTAIN, 1));
    paper_destroy(&paper);
}
