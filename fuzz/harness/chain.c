/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The files that an image names, and those that they name: they are found, or it is said why not;
 * no file comes twice, the chain ends, none is written to, and the check of the image takes all of
 * it. What files there are, and what an input says of them, is in support/chain.h. */

#include "fuzz/support/chain.h"
#include "checker/check.h"
#include "checker/companion.h"
#include "fuzz/fuzz.h"
#include "fuzz/support/image.h"
#include "fuzz/support/scratch.h"

#include <string.h>

enum { FORCE_SHARE = 1 << 1 }; /* of the flags */

static void
require_same(const char *name, const uint8_t *bytes, size_t length)
{
    struct q2_file *file = q2_fuzz_chain_open(name, false, NULL);
    struct q2_file *expected = q2_fuzz_file(bytes, length);
    Q2_REQUIRE(q2_fuzz_equal(file, expected), "%s was written to", name);
    q2_file_close(file);
    q2_file_close(expected);
}

static void
require_sound(const struct q2_companion *companion, bool last)
{
    const char *folder = q2_fuzz_scratch();
    bool open = companion->state == Q2_COMPANION_OPEN;
    Q2_REQUIRE(companion->name, "a file without a name");
    Q2_REQUIRE(!open || companion->file, "%s is said to be open", companion->name);
    Q2_REQUIRE(companion->state != Q2_COMPANION_MISSING || companion->error.message[0] != '\0',
               "%s is missing without a word", companion->name);
    Q2_REQUIRE(open || last, "it goes on behind %s", companion->name);
    Q2_REQUIRE(!companion->path || strncmp(companion->path, folder, strlen(folder)) == 0,
               "%s is elsewhere", companion->path);
}

static void
require_chain(const struct q2_companions *all)
{
    Q2_REQUIRE(all->backing_count <= Q2_MAX_CHAIN, "%zu backing files", all->backing_count);
    for (size_t i = 0; i < all->backing_count; i++) {
        const struct q2_companion *one = &all->backing[i];
        require_sound(one, i + 1 == all->backing_count);
        for (size_t j = 0; j < i; j++)
            Q2_REQUIRE(one->state == Q2_COMPANION_LOOP || !one->path ||
                           strcmp(one->path, all->backing[j].path) != 0,
                       "%s comes twice", one->path);
    }
    if (all->has_data_file)
        require_sound(&all->data_file, true);
}

static void
follow(const struct q2_fuzz_options *options)
{
    struct q2_error err = {0};
    struct q2_companions *companions = NULL;
    struct q2_check *check = NULL;
    struct q2_file *image = q2_fuzz_chain_open("image", options->flags & FORCE_SHARE, &companions);
    require_chain(companions);
    const struct q2_check_options how = {.threads = 1,
                                         .max_memory = Q2_FUZZ_MEMORY,
                                         .now = Q2_FUZZ_NOW,
                                         .companions = companions};
    int rc = q2_check_run(image, &how, &check, &err);
    Q2_REQUIRE(rc == 0 || err.message[0] != '\0', "failed with %d and no word", rc);
    q2_check_free(check);
    q2_companions_free(companions);
    q2_file_close(image);
}

static void
run(const uint8_t *input, size_t length)
{
    struct q2_fuzz_options options;
    size_t first;
    length = q2_fuzz_split(input, length, &options);
    if (!q2_fuzz_chain_make(input, length, &options, &first))
        return;
    follow(&options);
    require_same("image", input, first);
    require_same("base", input + first, length - first);
    q2_fuzz_scratch_remove();
}

const struct q2_harness q2_harness = {"chain", Q2_FUZZ_IMAGE, 1 << 18, run};
