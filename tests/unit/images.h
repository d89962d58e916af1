/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Images that recipes make, in memory. */

#ifndef Q2_TESTS_UNIT_IMAGES_H
#define Q2_TESTS_UNIT_IMAGES_H

#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"

#include <criterion/criterion.h>
#include <string.h>

/* Build what `text` says; `list_field`, which may be NULL, gets the fields and `data`. */
static inline struct q2_file *
build_listed(const char *text, void (*list_field)(void *data, const struct q2_recipe_field *field),
             void *data)
{
    struct q2_recipe *recipe = NULL;
    struct q2_recipe_target target = {.list_field = list_field, .data = data};
    struct q2_error err = {0};
    cr_assert_eq(q2_recipe_parse("t", text, strlen(text), &recipe, &err), 0, "%s\n%s", err.message,
                 text);
    cr_assert_eq(q2_file_new_memory("image", &target.image, &err), 0, "%s", err.message);
    cr_assert_eq(q2_recipe_build(recipe, &target, &err), 0, "%s\n%s", err.message, text);
    q2_recipe_free(recipe);
    return target.image;
}

static inline struct q2_file *
build_image(const char *text)
{
    return build_listed(text, NULL, NULL);
}

#endif
