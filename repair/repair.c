/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The engine: fixes by stage, the proof, and another attempt without what the proof blames. Each
 * attempt does less than the one before, and one that does nothing needs no proof, so it ends.
 *
 * What is proven then is an image like any other, of which more may be understood than of the one
 * before: rounds follow until one finds nothing to do, and so no second run does. */

#include "repair/repair.h"

#include "core/base/checked.h"
#include "repair/apply.h"
#include "repair/digest.h"
#include "repair/discard.h"
#include "repair/fix.h"
#include "repair/phases.h"
#include "repair/prove.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_ROUNDS = 4,
    MAX_ATTEMPTS = 16,
    MAX_BLIND_ATTEMPTS = 2, /* without looking for anything, when that was too much or in vain */
    MAX_PASSES = 4,
    MAX_PARTIAL_PASSES = 12, /* at lower levels, and such that end early */
};

struct q2_repair {
    struct q2_repair_options options;
    struct q2_scene_options scene_options;
    struct q2_scene *scene;
    struct q2_objection objections[MAX_ROUNDS * (MAX_ATTEMPTS + MAX_BLIND_ATTEMPTS)];
    size_t objection_count;
};

static const struct {
    int (*run)(struct q2_scene *scene, struct q2_error *err);
    enum q2_stage stage;
    enum q2_repair_level level;
} fixes[] = {
#define Q2_FIX(name, stage, level) {q2_fix_##name, Q2_STAGE_##stage, Q2_LEVEL_##level},
#include "repair/fixes.def"
#undef Q2_FIX
};

/* ---- one attempt ---- */

static bool
has_geometry(const struct q2_scene *scene)
{
    return scene->check && scene->check->usable & Q2_USABLE_GEOMETRY;
}

/* Whether a stage looks for what lost clusters were. */
static bool
looks_for_evidence(enum q2_stage stage)
{
    return stage >= Q2_STAGE_TABLES && stage <= Q2_STAGE_OVERLAPS;
}

/* Where nothing but refcounts and flags is wrong, nothing is lost, and looking for it takes longer
 * than all the rest. */
static bool
has_nothing_to_find(const struct q2_scene *scene)
{
    for (int p = 0; p < Q2_PROBLEM_COUNT; p++) {
        enum q2_problem problem = (enum q2_problem)p;
        const struct q2_catalogue_entry *entry = q2_catalogue(problem);
        bool refcounts = q2_problem_is_about_refcounts(problem) || entry->pass == Q2_PASS_REFCOUNTS;
        bool matters = entry->severity <= Q2_SEVERITY_ERROR || entry->pass == Q2_PASS_MAP;
        if (q2_scene_count(scene, problem) && matters &&
            (!refcounts || problem == Q2_PROBLEM_CLUSTER_LEAKED ||
             problem == Q2_PROBLEM_REFCOUNT_TOO_HIGH ||
             problem == Q2_PROBLEM_REFCOUNT_BLOCK_OVERLAP))
            return false;
    }
    return q2_references_complete(scene->check);
}

static int
run_fix(struct q2_scene *scene, size_t index, struct q2_error *err)
{
    uint64_t applied = q2_plan_applied(&scene->plan);
    bool edited = scene->edited;
    int rc = fixes[index].run(scene, err);
    q2_plan_forget_idle(&scene->plan);
    if (rc == 0 && scene->plan.failed) {
        *err = scene->plan.error;
        rc = scene->plan.failed;
    }
    /* In the end, what takes too much memory is left, if it is not half done. */
    if (rc != Q2_ERR_BUDGET || !scene->blind || scene->plan.failed || scene->plan.open ||
        scene->edited != edited || q2_plan_applied(&scene->plan) != applied)
        return rc;
    scene->keep_all = true;
    return 0;
}

static int
run_stage(struct q2_scene *scene, enum q2_stage stage, struct q2_error *err)
{
    if (looks_for_evidence(stage) && (has_nothing_to_find(scene) || !q2_scene_searches(scene)))
        return 0;
    for (size_t i = 0; i < sizeof fixes / sizeof fixes[0]; i++) {
        if (fixes[i].stage != stage || fixes[i].level > scene->plan.level)
            continue;
        int rc = run_fix(scene, i, err);
        if (rc < 0)
            return rc;
    }
    if (!scene->blind && q2_scene_exhausted(scene))
        return q2_error_set(err, Q2_ERR_BUDGET, "%s: looking for what is lost takes too long",
                            scene->base->name);
    return q2_scene_recheck(scene, err);
}

/* How many applied actions are more daring than the lowest level is that looks for evidence. */
static uint64_t
applied_beyond_certain(const struct q2_plan *plan)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < plan->count; i++)
        count += plan->actions[i].applied && plan->actions[i].confidence > Q2_CERTAIN;
    return count;
}

struct pass {
    bool full;   /* all stages; otherwise those that look for evidence, and those before them */
    bool wary;   /* end after a stage that took anything for more than it is certain to be */
    bool halted; /* that was so */
};

static int
run_pass(struct q2_scene *scene, struct pass *pass, struct q2_error *err)
{
    int last = pass->full ? Q2_STAGE_COUNT : Q2_STAGE_OVERLAPS + 1;
    scene->stop = false;
    for (int stage = 0; stage < last; stage++) {
        if (scene->stop || (stage != Q2_STAGE_HEADER && !has_geometry(scene)))
            return 0;
        uint64_t dared = applied_beyond_certain(&scene->plan);
        int rc = run_stage(scene, (enum q2_stage)stage, err);
        if (rc < 0)
            return rc;
        /* One that was good enough to go on with stays so: what makes it look worse is half done.
         */
        if (stage == Q2_STAGE_HEADER && scene->header_believed)
            scene->stop = false;
        scene->header_believed |= stage == Q2_STAGE_HEADER && !scene->stop;
        /* Copies of what overlaps are no evidence of anything. */
        if (pass->wary && stage < Q2_STAGE_OVERLAPS &&
            applied_beyond_certain(&scene->plan) > dared) {
            pass->halted = true;
            return 0;
        }
    }
    return 0;
}

/* The lowest level above `level` at which anything of what was offered is done, or else `goal`. */
static enum q2_repair_level
next_level(const struct q2_plan *plan, enum q2_repair_level level, enum q2_repair_level goal)
{
    enum q2_repair_level next = goal;
    for (uint64_t i = 0; i < plan->count; i++) {
        const struct q2_action *action = &plan->actions[i];
        int needed = (int)Q2_LEVEL_CERTAIN + (int)action->confidence;
        if (!action->applied && !action->dropped && needed > (int)level && needed < (int)next)
            next = (enum q2_repair_level)needed;
    }
    return next;
}

/* What one fix has explained may let another see more, so that passes follow until one changes
 * nothing. What is only offered is offered anew in each.
 *
 * What is less sure is not done before all that is surer has settled, and then that goes on from
 * the surest again: a guess neither takes away what tells something better, nor comes before it.
 * Refcounts and flags are evidence, so they wait until nothing is left to find. */
static int
run_levels(struct q2_scene *scene, enum q2_repair_level goal, struct q2_error *err)
{
    enum q2_repair_level lowest =
        scene->unsearched || goal < Q2_LEVEL_CERTAIN ? goal : Q2_LEVEL_CERTAIN;
    enum q2_repair_level level = lowest;
    int full = 0, partial = 0;
    while (full < MAX_PASSES) {
        struct pass pass = {.full = level == goal,
                            .wary = goal > Q2_LEVEL_CERTAIN && partial < MAX_PARTIAL_PASSES};
        uint64_t applied = q2_plan_applied(&scene->plan);
        q2_plan_forget_offers(&scene->plan);
        q2_scene_forget_kept(scene);
        scene->plan.level = level;
        int rc = run_pass(scene, &pass, err);
        bool changed = q2_plan_applied(&scene->plan) != applied;
        bool whole = pass.full && !pass.halted;
        full += whole;
        partial += !whole;
        if (rc < 0 || (whole && (!changed || scene->unsearched)))
            return rc;
        if (partial >= MAX_PARTIAL_PASSES || scene->unsearched)
            level = goal;
        else
            level = changed ? lowest : next_level(&scene->plan, level, goal);
    }
    return 0;
}

static int
run_stages(struct q2_scene *scene, struct q2_error *err)
{
    enum q2_repair_level goal = scene->plan.level;
    int rc = run_levels(scene, goal, err);
    scene->plan.level = goal;
    return rc;
}

/* After the last attempt: nothing is to be done. */
static int
give_up(struct q2_repair *repair, struct q2_error *err)
{
    struct q2_scene *scene = repair->scene;
    for (uint64_t i = 0; i < scene->plan.count; i++) {
        scene->plan.actions[i].dropped |= scene->plan.actions[i].applied;
        scene->plan.actions[i].applied = false;
    }
    struct q2_plan plan = scene->plan;
    scene->plan = (struct q2_plan){.budget = plan.budget, .level = plan.level};
    int rc = q2_scene_restart(scene, err);
    scene->plan = plan;
    return rc;
}

static int
attempt(struct q2_repair *repair, bool *ret_proven, struct q2_error *err)
{
    struct q2_scene *scene = repair->scene;
    int rc = run_stages(scene, err);
    if (rc < 0)
        return rc;
    if (scene->check == scene->before) {
        *ret_proven = true;
        return 0;
    }
    struct q2_objection *objection = &repair->objections[repair->objection_count];
    *objection = (struct q2_objection){.action = UINT64_MAX};
    rc = q2_prove(scene, objection, err);
    if (rc != 0) {
        *ret_proven = rc > 0;
        return rc < 0 ? rc : 0;
    }
    uint64_t blame = objection->action;
    if (blame >= scene->plan.count || !scene->plan.actions[blame].applied)
        blame = q2_plan_least_sure(&scene->plan);
    if (blame != UINT64_MAX)
        rc = q2_plan_ban(&scene->plan, blame, err);
    repair->objection_count++;
    *ret_proven = false;
    return rc;
}

/* What there is to find would pass a limit, of memory or of work. */
static const char too_large[] = "what there is to look for and to count would take more memory "
                                "than a repair may take; --max-memory allows more";
static const char too_long[] = "it is so large, or damaged in so many places, that what is lost "
                               "could not be looked for in bounded time";
static const char unproven[] =
    "what there is to do about anything but refcounts and flags could not "
    "be proven";

/* What was found so far is thrown away with all else: begin anew without looking for anything. */
static int
go_blind(struct q2_repair *repair, const char *why, size_t *most, struct q2_error *err)
{
    struct q2_scene *scene = repair->scene;
    if (why != too_large)
        *most = repair->objection_count + MAX_BLIND_ATTEMPTS;
    scene->blind = true;
    scene->unsearched = why;
    q2_plan_forget_bans(&scene->plan);
    return q2_scene_restart(scene, err);
}

/* Whether what was tried leaves nothing to be done, or no attempt to do it: refcounts and flags may
 * have gone with the rest. */
static bool
is_in_vain(const struct q2_scene *scene, bool proven, bool last)
{
    return proven ? scene->check == scene->before && q2_plan_bans_followers(&scene->plan) : last;
}

/* Attempts until one is proven. *ret_done: it has changed anything. */
static int
make_round(struct q2_repair *repair, bool *ret_done, struct q2_error *err)
{
    struct q2_scene *scene = repair->scene;
    bool proven = false;
    size_t first = repair->objection_count, most = first + MAX_ATTEMPTS;
    int rc = 0;
    scene->unsearched = NULL;
    while (rc == 0 && !proven && repair->objection_count < most) {
        if (repair->objection_count > first)
            rc = q2_scene_restart(scene, err);
        if (rc == 0)
            rc = attempt(repair, &proven, err);
        if (scene->blind)
            continue;
        bool vain = rc == 0 && is_in_vain(scene, proven, repair->objection_count == most);
        if (rc == Q2_ERR_BUDGET)
            rc = go_blind(repair, q2_scene_exhausted(scene) ? too_long : too_large, &most, err);
        else if (vain)
            rc = go_blind(repair, unproven, &most, err);
        proven &= !vain;
    }
    if (rc == 0 && !proven)
        rc = give_up(repair, err);
    *ret_done = rc == 0 && scene->check != scene->before;
    return rc;
}

/* What was proven before is none the worse for what a later round cannot do for lack of memory. */
static int
make_later_round(struct q2_repair *repair, bool *ret_done, struct q2_error *err)
{
    struct q2_scene *scene = repair->scene;
    size_t objections = repair->objection_count;
    scene->blind = false;
    int rc = q2_scene_look_deeper(scene, err);
    if (rc == 0)
        rc = make_round(repair, ret_done, err);
    if (rc == 0 && *ret_done)
        return 0;
    repair->objection_count = objections;
    *ret_done = false;
    if (rc < 0)
        scene->unsearched = too_large;
    if (scene->before && q2_check_exit(scene->before) == Q2_EXIT_CLEAN)
        scene->unsearched = NULL; /* there is nothing to look for */
    return rc == Q2_ERR_BUDGET ? 0 : rc;
}

/* Whether another run would do more: not what was too much, but what could not be proven as long as
 * refcounts and flags were wrong. */
static bool
goes_on(const struct q2_scene *scene)
{
    return !scene->blind || scene->unsearched == unproven;
}

static int
make_plan(struct q2_repair *repair, struct q2_error *err)
{
    struct q2_scene *scene = repair->scene;
    bool done = false;
    int rc = make_round(repair, &done, err);
    for (int round = 1; rc == 0 && done && round < MAX_ROUNDS && goes_on(scene); round++) {
        rc = q2_scene_advance(scene, err);
        if (rc == 0)
            rc = make_later_round(repair, &done, err);
    }
    if (rc == 0 && done && scene->ground)
        rc = q2_scene_advance(scene, err);
    if (rc < 0)
        return rc;
    q2_scene_settle(scene);
    return repair->options.discard ? q2_discard_freed(scene, err) : 0;
}

/* There is no header, and none was made: say at which level one could be. */
static int
no_header(const struct q2_scene *scene, struct q2_error *err)
{
    const struct q2_action *least = NULL;
    uint8_t bytes[Q2_HEADER_KNOWN_LENGTH];
    if (q2_file_read_padded(scene->base, 0, bytes, sizeof bytes, err) < 0)
        return q2_error_set(err, Q2_ERR_IO,
                            "%s: the header cannot be read, so that nothing can be mended in "
                            "place; --salvage looks for the tables and copies what they lead to",
                            scene->base->name);
    for (uint64_t i = 0; i < scene->plan.count; i++)
        if (!least || scene->plan.actions[i].confidence < least->confidence)
            least = &scene->plan.actions[i];
    if (!least)
        return q2_error_set(err, Q2_ERR_NOT_QCOW2,
                            "%s: no qcow2 header, and nothing in the file tells what it was",
                            scene->base->name);
    return q2_error_set(err, Q2_ERR_NOT_QCOW2,
                        "%s: no qcow2 header; one that is %s could be made: %s", scene->base->name,
                        least->confidence == Q2_GUESS ? "a guess (--guess)" : "likely (--likely)",
                        least->evidence);
}

/* ---- the front ---- */

int
q2_repair_plan(struct q2_file *file, const struct q2_repair_options *options,
               struct q2_repair **ret_repair, struct q2_error *err)
{
    struct q2_error local = {0};
    err = err ? err : &local;
    struct q2_repair *repair = calloc(1, sizeof *repair);
    if (!repair)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a repair");
    repair->options = *options;
    repair->scene_options = (struct q2_scene_options){
        .threads = options->threads,
        .now = options->now,
        .deep = options->deep,
        .fixed_size = options->fixed_size,
        .progress = options->progress,
        .progress_data = options->progress_data,
    };
    int rc = q2_scene_open(file, &repair->scene_options, options->level, options->max_memory,
                           &repair->scene, err);
    if (rc == 0)
        rc = make_plan(repair, err);
    if (rc == 0 && !repair->scene->check)
        rc = no_header(repair->scene, err);
    if (rc < 0) {
        q2_repair_free(repair);
        return rc;
    }
    *ret_repair = repair;
    return 0;
}

void
q2_repair_free(struct q2_repair *repair)
{
    if (!repair)
        return;
    q2_scene_close(repair->scene);
    free(repair);
}

const struct q2_plan *
q2_repair_actions(const struct q2_repair *repair)
{
    return &repair->scene->plan;
}

struct q2_check *
q2_repair_before(const struct q2_repair *repair)
{
    return repair->scene->before;
}

struct q2_check *
q2_repair_after(const struct q2_repair *repair)
{
    return repair->scene->check;
}

struct q2_file *
q2_repair_file(const struct q2_repair *repair)
{
    return repair->scene->file;
}

bool
q2_repair_needed(const struct q2_repair *repair)
{
    return repair->scene->check != repair->scene->before;
}

const char *
q2_repair_objection(const struct q2_repair *repair, size_t index)
{
    return index < repair->objection_count ? repair->objections[index].text : NULL;
}

const char *
q2_repair_unsearched(const struct q2_repair *repair)
{
    return repair->scene->unsearched;
}

bool
q2_repair_is_deep(const struct q2_repair *repair)
{
    return repair->scene->deep || repair->options.deep;
}

int
q2_repair_digest(const struct q2_repair *repair, char ret_digest[65], struct q2_error *err)
{
    return q2_digest_edits(repair->scene->base, repair->scene->file, ret_digest, err);
}

int
q2_repair_apply(const struct q2_repair *repair, struct q2_file *image, struct q2_file *journal,
                bool *ret_needed, struct q2_error *err)
{
    struct q2_phases *phases;
    int rc = q2_phases_new(repair->scene, &phases, err);
    if (rc < 0)
        return rc;
    rc = q2_apply(image, repair->scene->file, journal, repair->options.now, q2_phases_of, phases,
                  ret_needed, err);
    q2_phases_free(phases);
    return rc;
}
