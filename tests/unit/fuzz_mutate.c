/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The mutations of images: each finds something to change, nothing is written outside the buffer,
 * and enough of what comes out still opens. */

#include "checker/check.h"
#include "core/image/image.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "fuzz/mutate/image.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { CAPACITY = 128 << 10, GUARD = 64 };

static const char *const recipes[] = {
    ("cluster-size 512\nsize 48K\nextension 0x5a5a5a5a \"unknown\"\nwrite 0 6K text\n"
     "snapshot one vm-state 1K text\nwrite 1K 1K 0x11\nbitmap b granularity 512 dirty 0 1K\n"),
    "version 2\ncluster-size 1K\nsize 64K\nwrite-compressed 0 8K text\nwrite 9K 2K random\n",
    "cluster-size 16K\nextended-l2\nsize 256K\nsubclusters 0 alloc=5 zero=0xa pattern text\n",
    "cluster-size 512\nsize 32K\nrefcount-bits 64\nbacking \"b\" format raw\nwrite 0 9K random\n",
};
enum { RECIPES = sizeof recipes / sizeof *recipes };

struct input {
    uint8_t bytes[CAPACITY + GUARD];
    struct q2_fuzz_buffer buffer;
};

/* The image of a recipe, with a guard behind the buffer. */
static struct input *
build(size_t recipe)
{
    struct input *input = calloc(1, sizeof *input);
    struct q2_recipe *parsed = NULL;
    struct q2_file *file = NULL;
    uint64_t size = 0;
    cr_assert(input);
    cr_assert_eq(q2_recipe_parse("r", recipes[recipe], strlen(recipes[recipe]), &parsed, NULL), 0);
    cr_assert_eq(q2_file_new_memory("image", &file, NULL), 0);
    struct q2_error err = {0};
    int rc = q2_recipe_build(parsed, &(struct q2_recipe_target){.image = file}, &err);
    cr_assert_eq(rc, 0, "%s", err.message);
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    cr_assert_leq(size, CAPACITY);
    cr_assert_eq(q2_file_read(file, 0, input->bytes, size, NULL), 0);
    memset(input->bytes + CAPACITY, 0x5c, GUARD);
    input->buffer =
        (struct q2_fuzz_buffer){.bytes = input->bytes, .length = size, .capacity = CAPACITY};
    q2_file_close(file);
    q2_recipe_free(parsed);
    return input;
}

/* A copy of it. */
static struct input *
input_of(size_t recipe)
{
    static struct input *built[RECIPES];
    if (!built[recipe])
        built[recipe] = build(recipe);
    struct input *input = malloc(sizeof *input);
    cr_assert(input);
    memcpy(input, built[recipe], sizeof *input);
    input->buffer.bytes = input->bytes;
    return input;
}

static bool
guard_holds(const struct input *input)
{
    for (size_t i = 0; i < GUARD; i++)
        if (input->bytes[CAPACITY + i] != 0x5c)
            return false;
    return input->buffer.length <= CAPACITY && input->buffer.capacity == CAPACITY;
}

static struct q2_file *
file_of(const struct input *input)
{
    struct q2_file *file = NULL;
    cr_assert_eq(q2_file_new_memory_from("image", input->bytes, input->buffer.length, &file, NULL),
                 0);
    return file;
}

static bool
opens(const struct input *input)
{
    const struct q2_image_options options = {.flags = Q2_IMAGE_NO_BACKING};
    struct q2_image *image = NULL;
    bool opened = q2_image_open_file(file_of(input), &options, &image, NULL) == 0;
    q2_image_close(image, NULL);
    return opened;
}

static uint64_t
faults_of(const struct input *input)
{
    struct q2_file *file = file_of(input);
    struct q2_check *check = NULL;
    cr_assert_eq(q2_check_run(file, &(struct q2_check_options){.threads = 1}, &check, NULL), 0);
    uint64_t faults = q2_check_counts(check)->corruptions + q2_check_counts(check)->leaks;
    q2_check_free(check);
    q2_file_close(file);
    return faults;
}

Test(fuzz_mutate, each_kind_changes_something)
{
    for (size_t kind = 0; kind < q2_mutation_count; kind++) {
        unsigned changed = 0, claimed = 0;
        for (uint64_t seed = 0; seed < 40; seed++) {
            struct q2_fuzz_random random = {.state = seed};
            struct input *input = input_of(seed % RECIPES), *other = input_of((seed + 1) % RECIPES);
            struct input *before = input_of(seed % RECIPES);
            input->buffer.other = other->bytes;
            input->buffer.other_length = other->buffer.length;
            claimed += q2_mutate_image_as(kind, &input->buffer, &random);
            changed += input->buffer.length != before->buffer.length ||
                       memcmp(input->bytes, before->bytes, CAPACITY) != 0;
            cr_assert(guard_holds(input), "%s, seed %d", q2_mutations[kind].name, (int)seed);
            free(input);
            free(other);
            free(before);
        }
        cr_expect_geq(changed, 5, "%s changed %u of 40", q2_mutations[kind].name, changed);
        cr_expect_geq(claimed, 5, "%s says that it changed %u of 40", q2_mutations[kind].name,
                      claimed);
    }
}

Test(fuzz_mutate, options_stay)
{
    static const uint8_t options[Q2_FUZZ_OPTIONS_LENGTH] = {0x71, 0x32, 0x6b, 0x66, 0x75,
                                                            0x7a, 0x7a, 0x01, 2};
    struct input *input = input_of(0);
    memcpy(input->bytes + input->buffer.length, options, sizeof options);
    input->buffer.length += sizeof options;
    for (uint64_t kind = 0; kind < q2_mutation_count; kind++) {
        struct q2_fuzz_random random = {.state = kind};
        q2_mutate_image_as(kind, &input->buffer, &random);
        size_t at = input->buffer.length - sizeof options;
        cr_assert_arr_eq(input->bytes + at, options, sizeof options, "%s", q2_mutations[kind].name);
    }
    free(input);
}

/* Changes on top of each other: still inside the buffer, and a fair share opens. */
Test(fuzz_mutate, a_fair_share_opens)
{
    unsigned opened = 0, tried = 0;
    for (uint64_t seed = 0; seed < 400; seed++) {
        struct q2_fuzz_random random = {.state = seed};
        struct input *input = input_of(seed % RECIPES), *other = input_of((seed + 1) % RECIPES);
        input->buffer.other = other->bytes;
        input->buffer.other_length = other->buffer.length;
        for (int i = 0; i < 4; i++) {
            q2_mutate(Q2_FUZZ_IMAGE, &input->buffer, &random, NULL);
            cr_assert(guard_holds(input), "seed %d", (int)seed);
        }
        opened += opens(input);
        tried++;
        free(input);
        free(other);
    }
    cr_expect_geq(opened, tried / 3, "%u of %u open", opened, tried);
}

/* A healthy image whose refcounts are all wrong is healthy again. */
Test(fuzz_mutate, fix_counts_anew)
{
    for (size_t i = 0; i < RECIPES; i++) {
        struct input *input = input_of(i);
        struct q2_layout *layout = calloc(1, sizeof *layout);
        cr_assert(layout);
        q2_layout_read(layout, input->bytes, input->buffer.length);
        for (size_t p = 0; p < layout->count; p++)
            if (layout->parts[p].kind == Q2_PART_REFCOUNT_BLOCK)
                memset(input->bytes + layout->parts[p].offset, 0xff, layout->parts[p].length);
        cr_assert_gt(faults_of(input), 0, "recipe %zu", i);
        q2_mutate_fix(&input->buffer);
        cr_expect_eq(faults_of(input), 0, "recipe %zu", i);
        free(layout);
        free(input);
    }
}

/* Nothing, and what is no image, is changed all the same. */
Test(fuzz_mutate, bytes_that_are_no_image)
{
    static uint8_t bytes[4096];
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct q2_fuzz_random random = {.state = seed};
        struct q2_fuzz_buffer buffer = {.bytes = bytes,
                                        .length = seed * 7 % 1200,
                                        .capacity = sizeof bytes};
        for (size_t i = 0; i < buffer.length; i++)
            bytes[i] = (uint8_t)q2_fuzz_random(&random);
        for (int i = 0; i < 8; i++)
            q2_mutate(Q2_FUZZ_IMAGE, &buffer, &random, NULL);
        cr_assert_leq(buffer.length, sizeof bytes);
    }
}
