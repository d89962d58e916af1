/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* qcow2-img commit: write what an image has itself into a file that it is based on.
 *
 * Each layer between the two is opened alone and copied over the base, the lowest first. The base
 * is durable before the image is emptied, so that at every instant the image shows what it showed.
 */

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/base/flow.h"
#include "core/image/resize.h"
#include "core/io/file.h"
#include "core/tool/chain.h"
#include "core/tool/copy.h"
#include "core/tool/parse.h"

#include <stdio.h>

struct options {
    struct tool_common common;
    const char *base; /* -b */
    bool drop;        /* -d: leave the image as it is */
    uint64_t rate;    /* bytes for each second */
};

struct state {
    const struct options *options;
    const char *name;
    struct chain chain;
    unsigned depth; /* of the base */
    uint64_t size;  /* of the image's disk */
    struct q2_disk *base;
    struct tool_progress *progress;
};

static int run(int argc, char **argv);

const struct tool_command tool_command_commit = {
    .name = "commit",
    .usage = "[-f FORMAT | --image-opts] [-t CACHE] [-b BASE] [-r RATE] [-d] [-p] [-q] IMAGE",
    .help = "write an image's changes into its backing file",
    .run = run,
};

static bool
find_base(struct state *state)
{
    const char *base = state->options->base;
    if (state->chain.count < 2) {
        tool_say("%s: Image does not have a backing file", state->name);
        return false;
    }
    state->depth = 1;
    if (base && !chain_find(&state->chain, base, &state->depth)) {
        tool_say("Did not find '%s' in the backing chain of '%s'", base, state->name);
        return false;
    }
    state->size = state->chain.layers[0].size;
    return true;
}

/* Make the base as large as the image. */
static int
grow_base(struct state *state, struct q2_error *err)
{
    struct q2_image *image = q2_disk_image(state->base);
    if (q2_disk_size(state->base) >= state->size)
        return 0;
    if (image)
        return q2_image_resize(image, state->size, Q2_PREALLOCATION_OFF, err);
    int rc = q2_file_truncate(q2_disk_file(state->base), state->size, err);
    if (rc == 0)
        rc = q2_disk_close(Q2_STEAL(state->base), err);
    if (rc == 0) /* it knows the size that it began with */
        rc = chain_open(&state->chain, state->depth, Q2_IMAGE_WRITE, &state->base, err);
    return rc;
}

/* A layer that ends early hides what is below it: zeros show there. */
static int
hide_rest(struct state *state, uint64_t layer_size, struct q2_error *err)
{
    if (layer_size >= state->size)
        return 0;
    return q2_disk_zero(state->base, layer_size, state->size - layer_size, Q2_ZERO_UNMAP, err);
}

static int
copy_layer(struct state *state, struct q2_disk *disk, struct q2_error *err)
{
    struct copy_source source = {.disk = disk, .length = q2_min(q2_disk_size(disk), state->size)};
    struct copy copy = {
        .sources = &source,
        .source_count = 1,
        .target = state->base,
        .threads = q2_flow_threads(),
        .flags = COPY_ORDERED | COPY_OWN,
        .sparse = COPY_SPARSE_DEFAULT,
        .backing_size = UINT64_MAX,
        .rate = state->options->rate,
        .progress = state->progress,
    };
    tool_progress_part(state->progress, 100.0 / state->depth);
    int rc = hide_rest(state, q2_disk_size(disk), err);
    return rc < 0 ? rc : copy_run(&copy, err);
}

/* The image itself, once all below it was copied. */
static int
commit_top(struct state *state, struct q2_error *err)
{
    struct q2_disk *disk = NULL;
    unsigned flags = tool_cache_flags(state->options->common.cache);
    flags |= Q2_IMAGE_NO_BACKING | (state->options->drop ? 0 : Q2_IMAGE_WRITE);
    int rc = chain_open(&state->chain, 0, flags, &disk, err);
    if (rc == 0)
        rc = copy_layer(state, disk, err);
    if (rc == 0)
        rc = q2_disk_flush(state->base, err);
    if (rc == 0 && !state->options->drop)
        rc = q2_image_make_empty(q2_disk_image(disk), err);
    int closed = q2_disk_close(disk, rc == 0 ? err : NULL);
    return rc < 0 ? rc : closed;
}

static int
commit_layers(struct state *state, struct q2_error *err)
{
    unsigned flags = Q2_IMAGE_WRITE | tool_cache_flags(state->options->common.cache);
    int rc = chain_open(&state->chain, state->depth, flags, &state->base, err);
    if (rc == 0)
        rc = grow_base(state, err);
    for (unsigned i = state->depth - 1; rc == 0 && i > 0; i--) {
        struct q2_disk *disk = NULL;
        rc = chain_open(&state->chain, i, Q2_IMAGE_NO_BACKING, &disk, err);
        if (rc == 0)
            rc = copy_layer(state, disk, err);
        q2_disk_close(disk, NULL);
    }
    if (rc == 0)
        rc = commit_top(state, err);
    int closed = q2_disk_close(state->base, rc == 0 ? err : NULL);
    return rc < 0 ? rc : closed;
}

static int
commit(struct state *state)
{
    const struct tool_common *common = &state->options->common;
    struct tool_progress progress;
    struct q2_error err = {0};
    if (!find_base(state))
        return TOOL_FAILED;
    state->progress = &progress;
    tool_progress_init(&progress, common->progress && !common->quiet);
    int rc = commit_layers(state, &err);
    tool_progress_end(&progress, rc == 0);
    if (rc < 0)
        return tool_fail(NULL, &err);
    if (!common->quiet)
        puts("Image committed.");
    return TOOL_OK;
}

static bool
set_option(void *data, int option)
{
    struct options *options = data;
    switch (option) {
    case 'b': /* the layers between would no longer show what they showed: the image is left */
        options->base = optarg;
        options->drop = true;
        return true;
    case 'd':
        options->drop = true;
        return true;
    default:
        return tool_size_option("-r", optarg, 0, UINT64_MAX, &options->rate);
    }
}

static int
run_parsed(const struct options *options, int count, char **names)
{
    if (count != 1)
        return tool_say_usage("Expecting one image file name");
    struct state state = {.options = options, .name = names[0]};
    int status = TOOL_FAILED;
    if (chain_read(&options->common, names[0], &state.chain))
        status = commit(&state);
    chain_destroy(&state.chain);
    return status;
}

static int
run(int argc, char **argv)
{
    static const struct option longs[] = {TOOL_LONG_COMMON, TOOL_LONG_END};
    struct options options = {0};
    const struct parse parse = {&tool_command_commit, "f:t:b:r:dpq", longs, set_option, &options};
    int status;
    if (parse_options(&parse, &options.common, argc, argv, &status))
        status = run_parsed(&options, argc - optind, argv + optind);
    tool_common_destroy(&options.common);
    return status;
}
