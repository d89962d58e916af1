/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What may be wrong with the other files of an image: a seed for each problem, that the check finds
 * in it. */

#include "fuzz/support/chain.h"
#include "checker/catalogue.h"
#include "checker/check.h"
#include "checker/companion.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "fuzz/seeds/seed.h"
#include "fuzz/support/medium.h"
#include "fuzz/support/scratch.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name; /* of a problem, or something that is fine */
    const char *image, *base;
    uint8_t flags;
} all[] = {
    {"fine", "backing \"base\" format qcow2\n", "size 16K\nwrite 0 1K text\n", 0},
    {"fine-prefix", "backing \"file:./base\" format qcow2\n", "size 16K\n", 2},
    {"backing-missing", "backing \"none\" format raw\n", "", 0},
    {"backing-missing-deeper", "backing \"base\" format qcow2\n",
     "size 8K\nbacking \"none\" format raw\n", 0},
    {"backing-not-followed", "backing \"nbd://host/x\" format raw\n", "", 0},
    {"backing-format-absent", "backing \"base\"\n", "size 16K\n", 0},
    {"backing-format-mismatch", "backing \"base\" format qcow2\n",
     "size 16K\nheader.magic = 0x52415720\n", 0},
    {"backing-loop", "backing \"again\" format qcow2\n", "", 0},
    {"backing-loop-below", "backing \"base\" format qcow2\n",
     "size 8K\nbacking \"base\" format qcow2\n", 0},
    {"backing-too-deep", "backing \"d/image\" format qcow2\n", "", Q2_FUZZ_CHAIN_DEEP},
    {"backing-damaged", "backing \"base\" format qcow2\n",
     "size 8K\nheader.l1_table_offset |= 1\nheader.refcount_order = 7\n", 0},
    {"backing-size", "backing \"base\" format qcow2\n", "size 1M\n", 0},
    {"backing-size-raw", "size 1K\nbacking \"base\" format raw\n", "size 8K\nwrite 0 8K text\n", 0},
    {"backing-empty", "backing \"base\" format raw\n", "", 0},
    {"backing-is-folder", "backing \".\" format raw\n", "", 0},
    {"data-file-missing", "data-file \"none\"\nwrite 0 2K text\n", "", 0},
    {"data-file-itself", "data-file \"again\"\nwrite 0 2K text\n", "", 0},
    {"data-file-protocol", "data-file \"json:{}\"\nwrite 0 2K text\n", "", 0},
    {"data-file-short", "data-file \"base\"\nwrite 0 2K text\nwrite 12K 2K text\n", "size 4K\n", 0},
};

/* The image of a recipe. */
static void
append(struct q2_seed *seed, const char *text)
{
    struct q2_recipe *recipe = NULL;
    struct q2_file *file = NULL;
    struct q2_error err = {0};
    uint64_t size = 0;
    int rc = q2_recipe_parse("recipe", text, strlen(text), &recipe, &err);
    rc = rc ? rc : q2_file_new_memory("image", &file, &err);
    rc = rc ? rc : q2_recipe_build(recipe, &(struct q2_recipe_target){.image = file}, &err);
    rc = rc ? rc : q2_file_size(file, &size, &err);
    Q2_REQUIRE(rc == 0 && size <= sizeof seed->bytes - seed->length, "%s: %s", text, err.message);
    rc = q2_file_read(file, 0, seed->bytes + seed->length, size, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
    seed->length += size;
    q2_file_close(file);
    q2_recipe_free(recipe);
}

static void
build(struct q2_seed *seed, const char *text)
{
    char whole[512];
    bool sized = strncmp(text, "size ", 5) == 0;
    snprintf(whole, sizeof whole, "cluster-size 512\n%s%s", sized ? "" : "size 16K\n", text);
    append(seed, whole);
}

/* That it shows the problem whose name it has; those that begin like that are other ways to it. */
static void
require_problem(const struct q2_seed *seed, const struct q2_fuzz_options *options, const char *name)
{
    struct q2_companions *companions = NULL;
    struct q2_check *check = NULL;
    struct q2_error err = {0};
    size_t first;
    bool found = strncmp(name, "fine", 4) == 0 || strcmp(name, "backing-is-folder") == 0 ||
                 strcmp(name, "data-file-itself") == 0 || strcmp(name, "data-file-protocol") == 0;
    Q2_REQUIRE(q2_fuzz_chain_make(seed->bytes, seed->length, options, &first), "%s", name);
    struct q2_file *image = q2_fuzz_chain_open("image", false, &companions);
    const struct q2_check_options how = {.threads = 1, .companions = companions};
    Q2_REQUIRE(q2_check_run(image, &how, &check, &err) == 0, "%s", err.message);
    for (size_t i = 0; i < q2_check_finding_count(check); i++) {
        const char *id = q2_problem_id(q2_check_finding(check, i)->problem);
        found |= strncmp(name, id, strlen(id)) == 0;
    }
    Q2_REQUIRE(found, "%s is not what it is called", name);
    q2_check_free(check);
    q2_companions_free(companions);
    q2_file_close(image);
    q2_fuzz_scratch_remove();
}

/* That each of these problems is a seed. */
static void
require_all(void)
{
    for (int p = 0; p < Q2_PROBLEM_COUNT; p++) {
        const char *id = q2_problem_id((enum q2_problem)p);
        bool found = q2_catalogue((enum q2_problem)p)->pass != Q2_PASS_CHAIN;
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            found |= strcmp(all[i].name, id) == 0;
        Q2_REQUIRE(found, "no seed has %s", id);
    }
}

void
q2_make_seeds(void)
{
    static struct q2_seed seed;
    require_all();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct q2_fuzz_options options = {.flags = all[i].flags};
        build(&seed, all[i].image);
        options.number = (uint16_t)((seed.length + Q2_FUZZ_SECTOR - 1) / Q2_FUZZ_SECTOR);
        seed.length = (size_t)options.number * Q2_FUZZ_SECTOR;
        if (all[i].base[0])
            build(&seed, all[i].base);
        require_problem(&seed, &options, all[i].name);
        q2_seed_number(&seed, 8, Q2_FUZZ_OPTIONS_MAGIC);
        q2_seed_number(&seed, 1, 0);
        q2_seed_number(&seed, 1, options.flags);
        q2_seed_number(&seed, 2, options.number);
        q2_seed_number(&seed, 4, 0);
        q2_seed_write(&seed, "%s", all[i].name);
    }
}
