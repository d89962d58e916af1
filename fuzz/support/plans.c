/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "fuzz/support/plans.h"

#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "fuzz/fuzz.h"
#include "fuzz/support/image.h"
#include "repair/report.h"

#include <stdlib.h>
#include <string.h>

static const char *const recipes[Q2_FUZZ_PLANS] = {
    /* Leaks, and a flag that is wrong. */
    "cluster-size 512\nsize 32K\nwrite 0 4K text\nleak 3 0x77\nl2[2].copied = 0\n",
    /* A pointer that has lost a bit, with names that are no words. */
    ("cluster-size 512\nsize 32K\nwrite 0 4K random\nsnapshot \"a\\x01\\\"\\\\b\\xff\"\n"
     "write 1K 1K 0x11\nl2[3].offset ^= 0x100000\nrefcount(l1[0].offset) = 9\n"),
    /* Two guest ranges in one cluster; nothing that could be certain. */
    "cluster-size 512\nsize 32K\nwrite 0 4K random\nl2[3].offset = l2[2].offset\n",
    /* Nothing to do. */
    "cluster-size 512\nsize 32K\nwrite 0 4K random\n",
};

static struct q2_file *
image(unsigned number)
{
    static struct q2_file *files[Q2_FUZZ_PLANS];
    if (files[number])
        return files[number];
    struct q2_recipe *recipe = NULL;
    struct q2_error err = {0};
    struct q2_file *file = NULL;
    const char *text = recipes[number];
    int rc = q2_recipe_parse("recipe", text, strlen(text), &recipe, &err);
    if (rc == 0)
        rc = q2_file_new_memory("image", &file, &err);
    if (rc == 0)
        rc = q2_recipe_build(recipe, &(struct q2_recipe_target){.image = file}, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
    q2_recipe_free(recipe);
    return files[number] = file;
}

struct q2_repair_options
q2_fuzz_plan_options(enum q2_repair_level level, bool deep, bool discard)
{
    return (struct q2_repair_options){
        .level = level,
        .deep = deep,
        .discard = discard,
        .threads = 1,
        .max_memory = Q2_FUZZ_MEMORY,
        .now = Q2_FUZZ_PLANS_NOW,
    };
}

const struct q2_repair *
q2_fuzz_plan(unsigned number, enum q2_repair_level level, bool deep, bool discard)
{
    static struct q2_repair *plans[Q2_FUZZ_PLANS][Q2_LEVEL_GUESS + 1][2][2];
    struct q2_repair **plan = &plans[number][level][deep][discard];
    struct q2_repair_options options = q2_fuzz_plan_options(level, deep, discard);
    struct q2_error err = {0};
    if (!*plan)
        Q2_REQUIRE(q2_repair_plan(image(number), &options, plan, &err) == 0, "%s", err.message);
    return *plan;
}

void
q2_fuzz_plan_text(unsigned number, enum q2_repair_level level, bool deep, bool discard,
                  char **ret_text, size_t *ret_length)
{
    struct q2_repair_options options = q2_fuzz_plan_options(level, deep, discard);
    const struct q2_repair_report report = {
        .repair = q2_fuzz_plan(number, level, deep, discard),
        .options = &options,
        .filename = "image",
        .dry_run = true,
    };
    struct q2_error err = {0};
    FILE *out = open_memstream(ret_text, ret_length);
    Q2_REQUIRE(out, "no memory");
    Q2_REQUIRE(q2_repair_report_json(&report, out, &err) == 0, "%s", err.message);
    fclose(out);
}
