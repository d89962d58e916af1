/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/plan.h"

#include "core/base/checked.h"

#include <stdio.h>
#include <string.h>

enum {
    EVIDENCE_SIZE = 400,
    MAX_BANS = 8, /* of single actions of a kind */
};

static const struct {
    const char *id, *sentence;
} action_words[Q2_ACTION_COUNT] = {
#define Q2_ACTION(name, id, sentence) [Q2_ACTION_##name] = {id, sentence},
#include "repair/actions.def"
#undef Q2_ACTION
};

const char *
q2_action_id(enum q2_action_kind kind)
{
    return action_words[kind].id;
}

const char *
q2_action_sentence(enum q2_action_kind kind)
{
    return action_words[kind].sentence;
}

const char *
q2_confidence_id(enum q2_confidence confidence)
{
    static const char *const ids[Q2_CONFIDENCE_COUNT] = {"certain", "likely", "guess"};
    return ids[confidence];
}

const char *
q2_change_id(enum q2_change_kind kind)
{
    static const char *const ids[Q2_CHANGE_COUNT] = {"recovered", "replaced", "lost"};
    return ids[kind];
}

/* ---- memory ---- */

static void
fail(struct q2_plan *plan, int rc, const struct q2_error *err)
{
    if (plan->failed)
        return;
    plan->failed = rc;
    plan->error = *err;
}

/* Room for one more in a growing array. */
static bool
grow(struct q2_plan *plan, void *array, uint64_t count, uint64_t *capacity, size_t size)
{
    struct q2_error err = {0};
    if (plan->failed)
        return false;
    if (count < *capacity)
        return true;
    uint64_t larger = *capacity ? *capacity * 2 : 2;
    void *memory;
    memcpy(&memory, array, sizeof memory);
    int rc = q2_budget_grow(plan->budget, *capacity, larger, size, "the plan", &memory, &err);
    if (rc < 0) {
        fail(plan, rc, &err);
        return false;
    }
    memcpy(array, &memory, sizeof memory);
    *capacity = larger;
    return true;
}

static void
free_action(struct q2_plan *plan, struct q2_action *action)
{
    if (action->evidence)
        q2_budget_free(plan->budget, action->evidence, strlen(action->evidence) + 1, 1);
    q2_budget_free(plan->budget, action->answers, action->answer_capacity, sizeof *action->answers);
    q2_budget_free(plan->budget, action->written, action->written_capacity,
                   sizeof *action->written);
    q2_budget_free(plan->budget, action->changes, action->change_capacity, sizeof *action->changes);
    *action = (struct q2_action){0};
}

void
q2_plan_init(struct q2_plan *plan, struct q2_budget *budget, enum q2_repair_level level)
{
    *plan = (struct q2_plan){.budget = budget, .level = level};
}

void
q2_plan_restart(struct q2_plan *plan)
{
    for (uint64_t i = 0; i < plan->count; i++)
        free_action(plan, &plan->actions[i]);
    plan->count = 0;
    plan->open = false;
    plan->failed = 0;
}

void
q2_plan_destroy(struct q2_plan *plan)
{
    q2_plan_restart(plan);
    q2_budget_free(plan->budget, plan->actions, plan->capacity, sizeof *plan->actions);
    q2_budget_free(plan->budget, plan->bans, plan->ban_capacity, sizeof *plan->bans);
    *plan = (struct q2_plan){.budget = plan->budget, .level = plan->level};
}

/* ---- making it ---- */

static bool
is_banned(const struct q2_plan *plan, enum q2_action_kind kind, uint64_t key)
{
    for (uint64_t i = 0; i < plan->ban_count; i++)
        if (plan->bans[i].kind == kind && (plan->bans[i].all || plan->bans[i].key == key))
            return true;
    return false;
}

/* Whether the level permits an action: only one kind is permitted at the lowest. */
static bool
permits(const struct q2_plan *plan, enum q2_action_kind kind, enum q2_confidence confidence)
{
    if (plan->level == Q2_LEVEL_LEAKS)
        return kind == Q2_ACTION_FREE_LEAKS && confidence == Q2_CERTAIN;
    return (int)confidence <= (int)plan->level - (int)Q2_LEVEL_CERTAIN;
}

static char *
copy_text(struct q2_plan *plan, const char *text)
{
    struct q2_error err = {0};
    void *copy = NULL;
    int rc = q2_budget_calloc(plan->budget, strlen(text) + 1, 1, "the plan", &copy, &err);
    if (rc < 0)
        fail(plan, rc, &err);
    else
        memcpy(copy, text, strlen(text) + 1);
    return copy;
}

bool
q2_plan_begin(struct q2_plan *plan, enum q2_action_kind kind, enum q2_confidence confidence,
              uint64_t key, const char *format, ...)
{
    char evidence[EVIDENCE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(evidence, sizeof evidence, format, arguments);
    va_end(arguments);
    plan->open = grow(plan, &plan->actions, plan->count, &plan->capacity, sizeof *plan->actions);
    if (!plan->open)
        return false;
    struct q2_action *action = &plan->actions[plan->count++];
    *action = (struct q2_action){.kind = kind, .confidence = confidence, .key = key};
    action->evidence = copy_text(plan, evidence);
    action->dropped = is_banned(plan, kind, key);
    action->applied = permits(plan, kind, confidence) && !action->dropped;
    return action->applied;
}

static struct q2_action *
current(struct q2_plan *plan)
{
    return plan->open && !plan->failed ? &plan->actions[plan->count - 1] : NULL;
}

void
q2_plan_answer(struct q2_plan *plan, enum q2_problem problem, uint64_t offset, uint64_t count)
{
    struct q2_action *action = current(plan);
    if (!action || !grow(plan, &action->answers, action->answer_count, &action->answer_capacity,
                         sizeof *action->answers))
        return;
    action->answers[action->answer_count++] =
        (struct q2_answer){.problem = problem, .offset = offset, .count = count};
}

void
q2_plan_written(struct q2_plan *plan, enum q2_owner_kind kind, uint64_t offset, uint64_t length)
{
    struct q2_action *action = current(plan);
    if (!action)
        return;
    struct q2_written *last =
        action->written_count ? &action->written[action->written_count - 1] : NULL;
    if (last && last->kind == kind && last->offset + last->length == offset) {
        last->length += length;
        return;
    }
    if (grow(plan, &action->written, action->written_count, &action->written_capacity,
             sizeof *action->written))
        action->written[action->written_count++] =
            (struct q2_written){.kind = kind, .offset = offset, .length = length};
}

void
q2_plan_change(struct q2_plan *plan, enum q2_change_kind kind, uint32_t map, uint64_t offset,
               uint64_t length)
{
    struct q2_action *action = current(plan);
    if (!action)
        return;
    struct q2_change *last =
        action->change_count ? &action->changes[action->change_count - 1] : NULL;
    if (last && last->kind == kind && last->map == map && last->offset + last->length == offset) {
        last->length += length;
        return;
    }
    if (grow(plan, &action->changes, action->change_count, &action->change_capacity,
             sizeof *action->changes))
        action->changes[action->change_count++] =
            (struct q2_change){.kind = kind, .map = map, .offset = offset, .length = length};
}

void
q2_plan_end(struct q2_plan *plan)
{
    plan->open = false;
}

/* ---- asking it ---- */

uint64_t
q2_plan_applied(const struct q2_plan *plan)
{
    uint64_t applied = 0;
    for (uint64_t i = 0; i < plan->count; i++)
        applied += plan->actions[i].applied;
    return applied;
}

static bool
is_idle(const struct q2_action *action)
{
    return action->applied && !action->written_count;
}

static bool
is_offer(const struct q2_action *action)
{
    return !action->applied;
}

static void
forget(struct q2_plan *plan, bool (*is_unwanted)(const struct q2_action *action))
{
    uint64_t kept = 0;
    for (uint64_t i = 0; i < plan->count; i++)
        if (is_unwanted(&plan->actions[i]))
            free_action(plan, &plan->actions[i]);
        else
            plan->actions[kept++] = plan->actions[i];
    plan->count = kept;
}

void
q2_plan_forget_idle(struct q2_plan *plan)
{
    forget(plan, is_idle);
}

void
q2_plan_forget_offers(struct q2_plan *plan)
{
    forget(plan, is_offer);
}

int
q2_plan_append(struct q2_plan *plan, struct q2_plan *other, struct q2_error *err)
{
    while (plan->capacity - plan->count < other->count)
        if (!grow(plan, &plan->actions, plan->capacity, &plan->capacity, sizeof *plan->actions)) {
            *err = plan->error;
            return plan->failed;
        }
    for (uint64_t i = 0; i < other->count; i++)
        plan->actions[plan->count++] = other->actions[i];
    other->count = 0;
    return 0;
}

/* How far an applied change that covers guest byte `offset` reaches; `offset` if there is none. */
static uint64_t
named_until(const struct q2_plan *plan, uint32_t map, uint64_t offset)
{
    uint64_t until = offset;
    for (uint64_t i = 0; i < plan->count; i++)
        for (uint64_t j = 0; plan->actions[i].applied && j < plan->actions[i].change_count; j++) {
            const struct q2_change *change = &plan->actions[i].changes[j];
            uint64_t end;
            if (change->map == map && change->offset <= offset &&
                q2_add(change->offset, change->length, &end))
                until = q2_max(until, end);
        }
    return until;
}

bool
q2_plan_names(const struct q2_plan *plan, uint32_t map, uint64_t offset, uint64_t length)
{
    uint64_t end = offset + length;
    while (offset < end) {
        uint64_t until = named_until(plan, map, offset);
        if (until == offset)
            return false;
        offset = until;
    }
    return true;
}

int
q2_plan_ban(struct q2_plan *plan, uint64_t index, struct q2_error *err)
{
    if (!grow(plan, &plan->bans, plan->ban_count, &plan->ban_capacity, sizeof *plan->bans)) {
        if (err)
            *err = plan->error;
        return plan->failed;
    }
    const struct q2_action *action = &plan->actions[index];
    uint64_t alike = 0;
    for (uint64_t i = 0; i < plan->ban_count; i++)
        alike += plan->bans[i].kind == action->kind;
    plan->bans[plan->ban_count++] =
        (struct q2_ban){.kind = action->kind, .all = alike >= MAX_BANS, .key = action->key};
    return 0;
}

void
q2_plan_forget_bans(struct q2_plan *plan)
{
    plan->ban_count = 0;
}

/* Whether an action only makes good what others have changed, so that none of them could be proven
 * without it. */
static bool
follows_others(enum q2_action_kind kind)
{
    return kind == Q2_ACTION_REBUILD_REFCOUNTS || kind == Q2_ACTION_MEND_REFCOUNTS ||
           kind == Q2_ACTION_EXTEND_FILE || kind == Q2_ACTION_MEND_COPIED ||
           kind == Q2_ACTION_MEND_FEATURES;
}

bool
q2_plan_bans_followers(const struct q2_plan *plan)
{
    bool found = false;
    for (uint64_t i = 0; i < plan->ban_count; i++)
        found |= follows_others(plan->bans[i].kind);
    return found;
}

uint64_t
q2_plan_least_sure(const struct q2_plan *plan)
{
    uint64_t found = UINT64_MAX;
    bool follows = true; /* the one found */
    for (uint64_t i = 0; i < plan->count; i++) {
        const struct q2_action *action = &plan->actions[i];
        bool does = follows_others(action->kind);
        if (!action->applied || (does && !follows))
            continue;
        if (found == UINT64_MAX || does != follows ||
            action->confidence >= plan->actions[found].confidence)
            found = i;
        follows = does;
    }
    return found;
}
