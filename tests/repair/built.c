/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "tests/repair/built.h"

#include "core/base/cleanup.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "tests/cases/folder.h"

static int
make_companion(void *data, const char *name, struct q2_file **ret_file, struct q2_error *err)
{
    (void)data;
    return q2_file_new_memory(name, ret_file, err);
}

struct q2_file *
built_image(const char *folder)
{
    struct q2_error err = {0};
    struct q2_recipe *recipe = NULL;
    struct q2_file *image = NULL;
    size_t length = 0;
    Q2_AUTOFREE char *text = folder_read(folder, "recipe", &length);
    if (!text)
        folder_die(folder, "has no recipe");
    if (q2_recipe_parse("recipe", text, length, &recipe, &err) < 0 ||
        q2_file_new_memory("image.qcow2", &image, &err) < 0 ||
        q2_recipe_build(recipe,
                        &(struct q2_recipe_target){.image = image,
                                                   .make_companion = make_companion},
                        &err) < 0)
        folder_die(folder, err.message);
    q2_recipe_free(recipe);
    return image;
}
