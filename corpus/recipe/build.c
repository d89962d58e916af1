/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Carries out a recipe: settings, then content, then the metadata, then the damage. */

#include "corpus/recipe/build.h"

#include "corpus/recipe/field.h"

#include <string.h>

static int (*const content[WORD_COUNT])(struct recipe_build *, const struct recipe_statement *) = {
    [WORD_WRITE] = recipe_write,
    [WORD_WRITE_COMPRESSED] = recipe_write_compressed,
    [WORD_ZERO] = recipe_zero,
    [WORD_DISCARD] = recipe_discard,
    [WORD_PREALLOCATE] = recipe_preallocate,
    [WORD_SUBCLUSTERS] = recipe_subclusters,
    [WORD_RESIZE] = recipe_resize,
    [WORD_LEAK] = recipe_leak,
    [WORD_SNAPSHOT] = recipe_take_snapshot,
    [WORD_BITMAP] = recipe_make_bitmap,
};

/* Bring the build to the stage that a part of the recipe needs. */
static int
enter(struct recipe_build *build, enum recipe_part part)
{
    int rc = 0;
    if (part >= PART_CONTENT && build->stage == STAGE_SETTINGS)
        rc = recipe_start_image(build);
    if (rc == 0 && part == PART_DAMAGE && build->stage == STAGE_CONTENT)
        rc = recipe_finish_image(build);
    return rc;
}

static int
carry_out(struct recipe_build *build, const struct recipe_statement *statement)
{
    const struct recipe_grammar *grammar = statement->clauses[0].grammar;
    build->at = statement->clauses[0].at;
    if (grammar->part == PART_IMAGE && build->stage != STAGE_SETTINGS)
        return recipe_fail(build, "'%s' must come before the content", grammar->spelling);
    if (grammar->part == PART_CONTENT && build->stage == STAGE_BUILT)
        return recipe_fail(build, "'%s' must come before the damage", grammar->spelling);
    int rc = enter(build, grammar->part);
    build->at = statement->clauses[0].at;
    if (rc)
        return rc;
    switch (grammar->part) {
    case PART_IMAGE:
        return recipe_apply_setting(build, statement);
    case PART_CONTENT:
        return content[grammar->word](build, statement);
    default:
        return recipe_damage(build, statement);
    }
}

int
q2_recipe_build(const struct q2_recipe *recipe, const struct q2_recipe_target *target,
                struct q2_error *err)
{
    struct recipe_build build = {.recipe = recipe,
                                 .target = target,
                                 .err = err,
                                 .image = target->image,
                                 .at = {.line = 1, .column = 1}};
    recipe_settings_init(&build);
    int rc = 0;
    for (size_t i = 0; i < recipe->count && rc == 0; i++)
        rc = carry_out(&build, &recipe->statements[i]);
    rc = rc ? rc : enter(&build, PART_DAMAGE);
    if (rc == 0 && target->guest && !target->guest_snapshot)
        rc = recipe_view_save(&build);
    if (rc == 0 && target->guest && !build.guest_saved)
        rc = q2_error_set(err, Q2_ERR_RANGE, "%s: there is no snapshot '%s'", recipe->name,
                          target->guest_snapshot);
    if (rc == 0 && target->list_field)
        rc = recipe_field_list(&build);
    recipe_model_fini(&build);
    q2_file_close(build.view);
    q2_file_close(build.data);
    return rc;
}
