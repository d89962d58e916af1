/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A plan: what a repair would do, why, how sure it is, what it writes and what the guest sees of
 * it. Fixes (fix.h) make it while they edit the overlay; the proof, the reports and the journal
 * read it.
 *
 * A fix begins an action, says what the action answers, writes and changes, and ends it. An action
 * that the level does not permit is recorded all the same, so that people see what they could have;
 * the fix then must not edit. Lack of memory is remembered in `failed` for the engine to ask. */

#ifndef Q2_REPAIR_PLAN_H
#define Q2_REPAIR_PLAN_H

#include "checker/finding.h"
#include "core/base/budget.h"

enum q2_confidence {
    Q2_CERTAIN, /* nothing else agrees with what the image itself says */
    Q2_LIKELY,  /* evidence points there, and nothing speaks against it */
    Q2_GUESS,   /* the best of several possibilities */
    Q2_CONFIDENCE_COUNT,
};

/* How far a repair may go. Each level includes those above it. */
enum q2_repair_level {
    Q2_LEVEL_LEAKS,   /* only give back space that provably nothing can refer to */
    Q2_LEVEL_CERTAIN, /* what follows from the image itself */
    Q2_LEVEL_LIKELY,
    Q2_LEVEL_GUESS,
};

enum q2_action_kind {
#define Q2_ACTION(name, id, sentence) Q2_ACTION_##name,
#include "repair/actions.def"
#undef Q2_ACTION
    Q2_ACTION_COUNT,
};

const char *q2_action_id(enum q2_action_kind kind);
const char *q2_action_sentence(enum q2_action_kind kind);
const char *q2_confidence_id(enum q2_confidence confidence); /* "certain", "likely", "guess" */

/* What becomes of a guest range. */
enum q2_change_kind {
    Q2_CHANGE_RECOVERED, /* could not be read, or read as unallocated: reads its own data again */
    Q2_CHANGE_REPLACED,  /* read bytes that were not its own: reads its own data again */
    Q2_CHANGE_LOST,      /* could not be read: the data is gone, and it reads as zeros */
    Q2_CHANGE_COUNT,
};
const char *q2_change_id(enum q2_change_kind kind); /* "recovered", "replaced", "lost" */

struct q2_change {
    enum q2_change_kind kind;
    uint32_t map;    /* 0: the active one, i + 1: snapshot i, as the repaired image counts them */
    uint64_t offset; /* guest, bytes; behind the disk: VM state */
    uint64_t length; /* bytes */
};

/* A finding that an action answers. */
struct q2_answer {
    enum q2_problem problem;
    uint64_t offset; /* of the structure at fault or of the range it is about, host, bytes */
    uint64_t count;  /* faults */
};

/* A structure that an action writes. */
struct q2_written {
    enum q2_owner_kind kind; /* Q2_OWNER_NONE: space that nothing uses any more */
    uint64_t offset;         /* host, bytes */
    uint64_t length;         /* bytes */
};

struct q2_action {
    enum q2_action_kind kind;
    enum q2_confidence confidence;
    bool applied;   /* part of the repair; otherwise beyond its level, or dropped by the proof */
    bool dropped;   /* by the proof */
    uint64_t key;   /* where it acts: the host offset of what it mends, bytes */
    char *evidence; /* a sentence without full stop; printable */
    struct q2_answer *answers;
    struct q2_written *written;
    struct q2_change *changes;
    uint64_t answer_count, written_count, change_count;
    uint64_t answer_capacity, written_capacity, change_capacity;
};

/* An action that must not be done again, because the proof failed on it. */
struct q2_ban {
    enum q2_action_kind kind;
    bool all; /* nor any other of its kind */
    uint64_t key;
};

struct q2_plan {
    struct q2_budget *budget;
    enum q2_repair_level level;
    struct q2_action *actions;
    uint64_t count, capacity;
    struct q2_ban *bans;
    uint64_t ban_count, ban_capacity;
    bool open; /* an action has begun: the last one */
    int failed;
    struct q2_error error;
};

void q2_plan_init(struct q2_plan *plan, struct q2_budget *budget, enum q2_repair_level level);
void q2_plan_destroy(struct q2_plan *plan);

/* Forget all actions, but not what is banned: for another attempt. */
void q2_plan_restart(struct q2_plan *plan);

/* ---- for fixes ---- */

/* Begin an action at host offset `key`; `format` makes the evidence. Returns whether the fix is to
 * carry it out. */
bool q2_plan_begin(struct q2_plan *plan, enum q2_action_kind kind, enum q2_confidence confidence,
                   uint64_t key, const char *format, ...) __attribute__((format(printf, 5, 6)));

/* What the action that has begun is about. Neighbours of the same kind are joined. */
void q2_plan_answer(struct q2_plan *plan, enum q2_problem problem, uint64_t offset, uint64_t count);
void q2_plan_written(struct q2_plan *plan, enum q2_owner_kind kind, uint64_t offset,
                     uint64_t length);
void q2_plan_change(struct q2_plan *plan, enum q2_change_kind kind, uint32_t map, uint64_t offset,
                    uint64_t length);

void q2_plan_end(struct q2_plan *plan);

/* ---- for the engine, the proof and reports ---- */

/* Whether any applied action names the whole of guest range [offset, offset + length) of a map. */
bool q2_plan_names(const struct q2_plan *plan, uint32_t map, uint64_t offset, uint64_t length);

/* How many actions are applied. */
uint64_t q2_plan_applied(const struct q2_plan *plan);

static inline bool
q2_plan_does_anything(const struct q2_plan *plan)
{
    return q2_plan_applied(plan) > 0;
}

/* Forget the actions that were to be carried out and wrote nothing: it may turn out that there is
 * nothing to write, or no room for it. */
void q2_plan_forget_idle(struct q2_plan *plan);

/* Forget the actions that are not applied. */
void q2_plan_forget_offers(struct q2_plan *plan);

/* Move all actions of another plan of the same budget behind those of this one. */
int q2_plan_append(struct q2_plan *plan, struct q2_plan *other, struct q2_error *err);

/* Ban the action at `index` from later attempts, and all of its kind once several are banned: many
 * of a kind tend to fail alike. */
int q2_plan_ban(struct q2_plan *plan, uint64_t index, struct q2_error *err);
void q2_plan_forget_bans(struct q2_plan *plan);

/* Whether refcounts or flags are banned, which most of what else is done cannot do without. */
bool q2_plan_bans_followers(const struct q2_plan *plan);

/* The applied action that is to go where the proof blames none: the last of the least sure, and not
 * refcounts or flags while there is any else. UINT64_MAX: none is applied. */
uint64_t q2_plan_least_sure(const struct q2_plan *plan);

#endif
