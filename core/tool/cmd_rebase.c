/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* qcow2-img rebase: give an image another backing file. Unless told that both hold the same, what
 * the image leaves to its backing file is compared with the new one first, and where they differ,
 * the image gets a copy of what it used to show. Only then does the header change, so that an
 * interruption leaves an image that shows what it showed. */

#include "core/base/checked.h"
#include "core/base/flow.h"
#include "core/base/zeros.h"
#include "core/image/amend.h"
#include "core/io/file.h"
#include "core/tool/parse.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 20 };

struct options {
    struct tool_common common;
    const char *backing; /* -b */
    const char *format;  /* -F */
    bool unsafe;         /* -u */
};

struct state {
    struct q2_image *image;
    struct q2_disk *below; /* the new backing file; NULL: none */
    uint64_t size;
    uint64_t next;
    uint64_t piece;
    uint64_t grain;         /* bytes that are kept or copied as a whole */
    uint8_t *(*buffers)[2]; /* of each thread: what was shown, what would be */
    struct tool_progress *progress;
};

static int run(int argc, char **argv);

const struct tool_command tool_command_rebase = {
    .name = "rebase",
    .usage = "[-f FORMAT | --image-opts] [-t CACHE] [-T CACHE] [-p] [-q] [-U]\n"
             "[-u] -b BACKING_FILE [-F FORMAT] IMAGE",
    .help = "give an image another backing file",
    .run = run,
};

static int
next_piece(void *data, struct q2_piece *ret_piece, struct q2_error *err)
{
    struct state *state = data;
    while (state->next < state->size) {
        struct q2_extent extent;
        uint64_t offset = state->next;
        tool_progress_update(state->progress, offset, state->size);
        int rc = q2_image_map_own(state->image, offset, state->size - offset, &extent, err);
        if (rc < 0)
            return rc;
        uint64_t end = q2_min((offset / state->piece + 1) * state->piece, state->size);
        if (extent.present) { /* what it has itself stays */
            state->next += extent.length;
            continue;
        }
        end = q2_min(end, offset + extent.length);
        *ret_piece = (struct q2_piece){.offset = offset, .length = end - offset};
        state->next = end;
        return 1;
    }
    return 0;
}

/* What the new backing file has; behind its end there are zeros. */
static int
read_below(const struct state *state, const struct q2_piece *piece, uint8_t *buffer,
           struct q2_error *err)
{
    uint64_t size = state->below ? q2_disk_size(state->below) : 0;
    size_t length = (size_t)piece->length;
    size_t inside = piece->offset < size ? (size_t)q2_min(length, size - piece->offset) : 0;
    memset(buffer + inside, 0, length - inside);
    return inside ? q2_disk_read(state->below, piece->offset, buffer, inside, err) : 0;
}

static int
read_piece(void *data, unsigned number, const struct q2_piece *piece, struct q2_error *err)
{
    const struct state *state = data;
    int rc = read_below(state, piece, state->buffers[number][1], err);
    if (rc == 0)
        rc = q2_image_read(state->image, piece->offset, state->buffers[number][0],
                           (size_t)piece->length, err);
    return rc;
}

/* Version 2 cannot say "zeros" in a way that outlives the old backing file: it has none below. */
static int
keep(const struct state *state, uint64_t offset, const uint8_t *bytes, size_t length,
     struct q2_error *err)
{
    return q2_image_header(state->image)->version >= 3 && q2_is_zero(bytes, length)
               ? q2_image_zero(state->image, offset, length, Q2_ZERO_UNMAP, err)
               : q2_image_write(state->image, offset, bytes, length, err);
}

static int
keep_piece(void *data, unsigned number, const struct q2_piece *piece, struct q2_error *err)
{
    const struct state *state = data;
    const uint8_t *shown = state->buffers[number][0], *instead = state->buffers[number][1];
    uint64_t end = piece->offset + piece->length;
    int rc = 0;
    for (uint64_t offset = piece->offset, next; rc == 0 && offset < end; offset = next) {
        next = q2_min((offset / state->grain + 1) * state->grain, end);
        size_t at = (size_t)(offset - piece->offset), length = (size_t)(next - offset);
        if (memcmp(shown + at, instead + at, length) != 0)
            rc = keep(state, offset, shown + at, length, err);
    }
    return rc;
}

static int
keep_differences(struct state *state, struct q2_error *err)
{
    unsigned threads = q2_flow_threads();
    const struct q2_geometry *geometry = q2_image_geometry(state->image);
    state->size = q2_image_size(state->image);
    state->grain = geometry->extended_l2 ? geometry->cluster_size / 32 : geometry->cluster_size;
    state->piece = q2_max(PIECE, geometry->cluster_size);
    uint8_t *memory = malloc(2 * state->piece * threads);
    state->buffers = calloc(threads, sizeof *state->buffers);
    for (unsigned i = 0; memory && state->buffers && i < threads; i++) {
        state->buffers[i][0] = memory + 2 * i * state->piece;
        state->buffers[i][1] = state->buffers[i][0] + state->piece;
    }
    const struct q2_flow flow = {
        .threads = threads,
        .ordered = true,
        .next = next_piece,
        .prepare = read_piece,
        .finish = keep_piece,
        .data = state,
    };
    int rc = memory && state->buffers ? q2_flow_run(&flow, err)
                                      : q2_error_set(err, Q2_ERR_NOMEM, "no memory for buffers");
    if (rc == 0)
        rc = q2_image_flush(state->image, err);
    free(state->buffers);
    free(memory);
    return rc;
}

/* Names of backing files are relative to the folder of the image that has them. NULL: no memory. */
static char *
path_beside(const char *image, const char *name)
{
    const char *slash = name[0] == '/' ? NULL : strrchr(image, '/');
    char *path = NULL;
    int length = slash ? (int)(slash - image) + 1 : 0;
    return asprintf(&path, "%.*s%s", length, image, name) < 0 ? NULL : path;
}

static bool
open_below(const struct options *options, const struct q2_image *image, struct q2_disk **ret_disk)
{
    struct tool_open how = {.format = options->format,
                            .flags = tool_cache_flags(options->common.source_cache)};
    char *path = path_beside(q2_image_name(image), options->backing);
    bool opened = path && tool_open(&options->common, path, &how, ret_disk);
    if (!path)
        tool_say("out of memory");
    free(path);
    return opened;
}

static int
change_header(const struct options *options, struct q2_image *image)
{
    struct q2_error err = {0};
    bool none = !options->backing || !*options->backing;
    if (q2_image_change_backing(image, none ? NULL : options->backing,
                                none ? NULL : options->format, &err) == 0)
        return TOOL_OK;
    return tool_fail_doing(q2_image_file(image)->name, "Could not change the backing file to",
                           none ? "" : options->backing, &err);
}

static int
rebase_safely(const struct options *options, struct state *state)
{
    struct q2_error err = {0};
    struct tool_progress progress;
    state->progress = &progress;
    if (*options->backing && !open_below(options, state->image, &state->below))
        return TOOL_FAILED;
    tool_progress_init(&progress, options->common.progress && !options->common.quiet);
    int status = TOOL_OK;
    if (keep_differences(state, &err) < 0)
        status = tool_fail("Could not rebase", &err);
    if (status == TOOL_OK)
        status = change_header(options, state->image);
    tool_progress_end(&progress, status == TOOL_OK);
    return tool_close(state->below, status);
}

static int
run_parsed(const struct options *options, int count, char **names)
{
    if (count != 1)
        return tool_say_usage("Expecting one image file name");
    if (!options->unsafe && !options->backing)
        return tool_say_usage("Must specify backing file (-b) or use unsafe mode (-u)");
    if (options->backing && *options->backing && !options->format) {
        tool_say("%s: Could not change the backing file to '%s': backing format must be specified",
                 names[0], options->backing);
        return TOOL_FAILED;
    }
    struct q2_disk *disk = NULL;
    unsigned flags = Q2_IMAGE_WRITE | tool_cache_flags(options->common.cache);
    flags |= options->unsafe ? Q2_IMAGE_NO_BACKING | Q2_IMAGE_NO_CRYPTO : 0;
    if (!tool_open_one(&options->common, names[0], flags, &disk))
        return TOOL_FAILED;
    struct state state = {.image = tool_need_image(disk, names[0], "rebase")};
    int status = TOOL_FAILED;
    if (state.image)
        status =
            options->unsafe ? change_header(options, state.image) : rebase_safely(options, &state);
    return tool_close(disk, status);
}

static bool
set_option(void *data, int option)
{
    struct options *options = data;
    enum q2_disk_format format;
    switch (option) {
    case 'u':
        options->unsafe = true;
        return true;
    case 'b':
        options->backing = optarg;
        return true;
    default:
        options->format = optarg;
        return tool_format_find(optarg, &format);
    }
}

static int
run(int argc, char **argv)
{
    static const struct option longs[] = {TOOL_LONG_COMMON, TOOL_LONG_FORCE_SHARE, TOOL_LONG_END};
    struct options options = {0};
    const struct parse parse = {&tool_command_rebase, "f:F:b:upt:T:qU", longs, set_option,
                                &options};
    int status;
    if (parse_options(&parse, &options.common, argc, argv, &status))
        status = run_parsed(&options, argc - optind, argv + optind);
    tool_common_destroy(&options.common);
    return status;
}
