/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/stages.h"

#include "repair/fix.h"

enum {
    MAX_PASSES = 4,
    MAX_PARTIAL_PASSES = 12, /* at lower levels, and such that end early */
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

int
q2_run_stages(struct q2_scene *scene, struct q2_error *err)
{
    enum q2_repair_level goal = scene->plan.level;
    int rc = run_levels(scene, goal, err);
    scene->plan.level = goal;
    return rc;
}
