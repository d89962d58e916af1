/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Rounds: what a round has proven is the image that the next begins with. A round does what another
 * run of the program would find to do, so that none finds anything. */

#include "core/base/checked.h"
#include "repair/prove_parts.h"
#include "repair/scene.h"

#include <stdlib.h>

/* The state before the round at hand. */
struct q2_ground {
    struct q2_file *base, *file; /* the image, and the overlay with the edits of all rounds */
    struct q2_check *before;     /* of `base` */
    struct q2_plan plan;         /* of all rounds */
};

/* ---- plans ---- */

/* Let changes name the maps of what the round has made of the image. */
static int
renumber(struct q2_scene *scene, struct q2_error *err)
{
    struct q2_plan *plan = &scene->ground->plan;
    struct q2_proof proof = {.before = scene->before,
                             .after = scene->check,
                             .budget = &scene->budget};
    int64_t *matches;
    if (!proof.before || !proof.after)
        return 0;
    int rc = q2_proof_match_maps(&proof, &matches, err);
    if (rc < 0)
        return rc;
    for (uint64_t i = 0; i < plan->count; i++) {
        struct q2_action *action = &plan->actions[i];
        uint64_t kept = 0;
        for (uint64_t j = 0; j < action->change_count; j++) {
            struct q2_change change = action->changes[j];
            int64_t map =
                change.map < proof.before->map_count ? matches[change.map] : Q2_PROOF_NO_MAP;
            if (map == Q2_PROOF_NO_MAP)
                continue;
            change.map = (uint32_t)map;
            action->changes[kept++] = change;
        }
        action->change_count = kept;
    }
    q2_proof_free_maps(&proof, matches);
    return 0;
}

/* ---- edits ---- */

struct copying {
    struct q2_file *file;
    struct q2_error *err;
};

static int
copy_edit(const struct q2_edit *edit, void *data)
{
    const struct copying *copying = data;
    if (!edit->bytes)
        return q2_file_punch(copying->file, edit->offset, edit->length, copying->err);
    return q2_file_write(copying->file, edit->offset, edit->bytes, edit->length, copying->err);
}

static int
copy_edits(struct q2_scene *scene, struct q2_error *err)
{
    struct copying copying = {.file = scene->ground->file, .err = err};
    uint64_t size;
    int rc = q2_file_size(scene->file, &size, err);
    if (rc == 0)
        rc = q2_file_truncate(copying.file, size, err);
    return rc < 0 ? rc : q2_overlay_visit(scene->file, copy_edit, &copying);
}

/* ---- rounds ---- */

/* Add what the round has done to what those before have. */
static int
merge(struct q2_scene *scene, struct q2_error *err)
{
    struct q2_ground *ground = scene->ground;
    q2_plan_forget_offers(&ground->plan);
    int rc = renumber(scene, err);
    if (rc == 0)
        rc = copy_edits(scene, err);
    if (rc == 0)
        rc = q2_plan_append(&ground->plan, &scene->plan, err);
    if (rc < 0)
        return rc;
    q2_check_free(scene->before);
    scene->before = scene->check;
    return 0;
}

static int
begin(struct q2_scene *scene, struct q2_error *err)
{
    struct q2_ground *ground = calloc(1, sizeof *ground);
    if (!ground)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a repair");
    struct q2_file *overlay;
    int rc = q2_file_new_overlay(scene->file, &scene->budget, &overlay, err);
    if (rc < 0) {
        free(ground);
        return rc;
    }
    *ground = (struct q2_ground){.base = scene->base,
                                 .file = scene->file,
                                 .before = scene->before,
                                 .plan = scene->plan};
    q2_scene_work(scene, q2_overlay_cost(scene->file)); /* the limit is one for all rounds */
    scene->ground = ground;
    scene->base = scene->file;
    scene->file = overlay;
    scene->before = scene->check;
    q2_plan_init(&scene->plan, &scene->budget, ground->plan.level);
    return 0;
}

int
q2_scene_advance(struct q2_scene *scene, struct q2_error *err)
{
    int rc = scene->ground ? merge(scene, err) : begin(scene, err);
    return rc < 0 ? rc : q2_scene_restart(scene, err);
}

const struct q2_check *
q2_scene_origin(const struct q2_scene *scene)
{
    return scene->ground ? scene->ground->before : scene->before;
}

void
q2_scene_settle(struct q2_scene *scene)
{
    struct q2_ground *ground = scene->ground;
    if (!ground)
        return;
    if (scene->check != scene->before)
        q2_check_free(scene->check);
    q2_file_close(scene->file);
    q2_plan_destroy(&scene->plan);
    scene->check = scene->before;
    scene->base = ground->base;
    scene->file = ground->file;
    scene->before = ground->before;
    scene->plan = ground->plan;
    if (scene->check)
        scene->check->file = scene->file;
    free(ground);
    scene->ground = NULL;
}
