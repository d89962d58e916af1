/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The engine: all fixes (stages.h), the proof, and another attempt without what the proof blames.
 * Each attempt does less than the one before, and one that does nothing needs no proof, so it ends.
 *
 * What is proven then is an image like any other, of which more may be understood than of the one
 * before: rounds follow until one finds nothing to do, and so no second run does. */

#include "repair/repair.h"

#include "repair/apply.h"
#include "repair/digest.h"
#include "repair/discard.h"
#include "repair/phases.h"
#include "repair/prove.h"
#include "repair/stages.h"

#include <stdlib.h>

enum {
    MAX_ROUNDS = 4,
    MAX_ATTEMPTS = 16,
    MAX_BLIND_ATTEMPTS = 2, /* without looking for anything, when that was too much or in vain */
};

struct q2_repair {
    struct q2_repair_options options;
    struct q2_scene_options scene_options;
    struct q2_scene *scene;
    struct q2_objection objections[MAX_ROUNDS * (MAX_ATTEMPTS + MAX_BLIND_ATTEMPTS)];
    size_t objection_count;
};

/* ---- one attempt ---- */

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
    int rc = q2_run_stages(scene, err);
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
