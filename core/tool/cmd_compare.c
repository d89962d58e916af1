/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* qcow2-img compare: whether two disks have the same content. What both maps call zeros is not
 * read; the rest is read and compared on several threads, and told in the order of the disk. */

#include "core/base/checked.h"
#include "core/base/flow.h"
#include "core/base/zeros.h"
#include "core/tool/parse.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 20, SECTOR = 512 };

/* Exit statuses are those of `qemu-img compare`. */
enum { SAME = 0, DIFFERENT = 1, OPEN_FAILED = 2, MAP_FAILED = 3, READ_FAILED = 4 };

struct options {
    struct tool_common common;
    const char *format; /* -F, of the second image */
    bool strict;
};

/* What a thread found out about its piece. */
struct worker {
    uint8_t *buffers[2];
    int status;
    bool mapped; /* it is the maps that differ */
    uint64_t offset;
    struct q2_error err;
};

struct state {
    const struct options *options;
    struct q2_disk *disks[2];
    char **names;
    uint64_t total;  /* bytes: of the larger one */
    uint64_t common; /* bytes: of the smaller one */
    uint64_t next;
    struct worker *workers;
    struct tool_progress *progress;
};

static int run(int argc, char **argv);

const struct tool_command tool_command_compare = {
    .name = "compare",
    .usage = "[-f FORMAT | --image-opts] [-F FORMAT] [-T CACHE] [-s] [-p] [-q] [-U]\n"
             "IMAGE IMAGE",
    .help = "say whether two disks have the same content",
    .run = run,
};

/* What is at `offset`; behind the end of the shorter disk there is nothing. */
static int
map_one(struct q2_disk *disk, uint64_t offset, uint64_t end, struct q2_extent *ret_extent,
        struct q2_error *err)
{
    uint64_t size = q2_disk_size(disk);
    if (offset < size)
        return q2_disk_map(disk, offset, q2_min(end, size) - offset, ret_extent, err);
    *ret_extent = (struct q2_extent){.offset = offset, .length = end - offset, .zero = true};
    return 0;
}

/* Both, cut to the same length. */
static int
map_both(const struct state *state, uint64_t offset, uint64_t end, struct q2_extent *extents,
         struct q2_error *err)
{
    int rc = map_one(state->disks[0], offset, end, &extents[0], err);
    if (rc == 0)
        rc = map_one(state->disks[1], offset, end, &extents[1], err);
    if (rc == 0)
        extents[0].length = extents[1].length = q2_min(extents[0].length, extents[1].length);
    return rc;
}

static bool
is_mapped_alike(const struct q2_extent *a, const struct q2_extent *b)
{
    return a->present == b->present && a->zero == b->zero && a->data == b->data &&
           a->has_host == b->has_host;
}

static int
next_piece(void *data, struct q2_piece *ret_piece, struct q2_error *err)
{
    struct state *state = data;
    while (state->next < state->total) {
        struct q2_extent extents[2];
        tool_progress_update(state->progress, state->next, state->total);
        int rc = map_both(state, state->next, state->total, extents, err);
        uint64_t offset = state->next;
        uint64_t length = q2_min((offset / PIECE + 1) * PIECE, state->total) - offset;
        if (rc == 0 && extents[0].zero && extents[1].zero &&
            (!state->options->strict || is_mapped_alike(&extents[0], &extents[1]))) {
            state->next += extents[0].length;
            continue;
        }
        *ret_piece = (struct q2_piece){.offset = offset, .length = length};
        state->next += length;
        return 1;
    }
    return 0;
}

static int
note(struct worker *worker, int status, uint64_t offset)
{
    worker->status = status;
    worker->offset = offset;
    return 0;
}

/* Read or, where the map has zeros, not. */
static bool
read_one(const struct state *state, struct worker *worker, unsigned which,
         const struct q2_extent *extent)
{
    struct q2_error err = {0};
    size_t length = (size_t)extent->length;
    if (extent->zero)
        return true;
    if (q2_disk_read(state->disks[which], extent->offset, worker->buffers[which], length, &err) ==
        0)
        return true;
    note(worker, READ_FAILED, extent->offset);
    q2_error_set(&worker->err, err.code, "Error while reading offset %" PRIu64 " of %s: %s",
                 extent->offset, state->names[which], err.message);
    return false;
}

/* Where the first sector is that differs; `length` if none does. */
static size_t
find_difference(const struct worker *worker, const struct q2_extent *extents, size_t length)
{
    const uint8_t *a = extents[0].zero ? NULL : worker->buffers[0];
    const uint8_t *b = extents[1].zero ? NULL : worker->buffers[1];
    bool same = a && b ? memcmp(a, b, length) == 0 : q2_is_zero(a ? a : b, length);
    size_t at = 0;
    while (!same && at < length) {
        size_t part = (size_t)q2_min(length - at, SECTOR);
        if (!(a && b ? memcmp(a + at, b + at, part) == 0 : q2_is_zero((a ? a : b) + at, part)))
            return at;
        at += part;
    }
    return length;
}

static int
compare_piece(void *data, unsigned number, const struct q2_piece *piece, struct q2_error *err)
{
    (void)err;
    struct state *state = data;
    struct worker *worker = &state->workers[number];
    uint64_t offset = piece->offset, end = offset + piece->length;
    worker->status = SAME;
    while (offset < end) {
        struct q2_extent extents[2];
        if (map_both(state, offset, end, extents, &worker->err) < 0)
            return note(worker, MAP_FAILED, offset);
        worker->mapped = state->options->strict && !is_mapped_alike(&extents[0], &extents[1]);
        if (worker->mapped)
            return note(worker, DIFFERENT, offset);
        size_t length = (size_t)extents[0].length;
        if (!extents[0].zero || !extents[1].zero) {
            if (!read_one(state, worker, 0, &extents[0]) ||
                !read_one(state, worker, 1, &extents[1]))
                return 0;
            size_t at = find_difference(worker, extents, length);
            if (at < length)
                return note(worker, DIFFERENT, offset + at);
        }
        offset += length;
    }
    return 0;
}

/* Said when the end of the smaller one is reached. */
static void
warn_of_sizes(const struct state *state)
{
    if (state->common < state->total && !state->options->common.quiet)
        puts("Warning: Image size mismatch!");
}

static int
tell_piece(void *data, unsigned number, const struct q2_piece *piece, struct q2_error *err)
{
    (void)piece;
    (void)err;
    const struct state *state = data;
    const struct worker *worker = &state->workers[number];
    bool quiet = state->options->common.quiet;
    if (worker->status == DIFFERENT && worker->offset >= state->common)
        warn_of_sizes(state);
    if (worker->status > DIFFERENT)
        tool_fail(NULL, &worker->err);
    else if (worker->status == DIFFERENT && worker->mapped && !quiet)
        printf("Strict mode: Offset %" PRIu64 " block status mismatch!\n", worker->offset);
    else if (worker->status == DIFFERENT && !quiet)
        printf("Content mismatch at offset %" PRIu64 "!\n", worker->offset);
    return worker->status;
}

/* Whether the comparison goes on. */
static bool
compare_sizes(struct state *state)
{
    uint64_t a = q2_disk_size(state->disks[0]), b = q2_disk_size(state->disks[1]);
    bool strict = state->options->strict;
    state->total = q2_max(a, b);
    state->common = q2_min(a, b);
    if (a != b && strict && !state->options->common.quiet)
        puts("Strict mode: Image size mismatch!");
    return a == b || !strict;
}

static int
compare_disks(struct state *state)
{
    unsigned threads = q2_flow_threads();
    uint8_t *memory = malloc((size_t)2 * PIECE * threads);
    struct q2_error err = {0};
    state->workers = calloc(threads, sizeof *state->workers);
    for (unsigned i = 0; state->workers && memory && i < threads; i++) {
        state->workers[i].buffers[0] = memory + (size_t)2 * i * PIECE;
        state->workers[i].buffers[1] = memory + ((size_t)2 * i + 1) * PIECE;
    }
    const struct q2_flow flow = {
        .threads = threads,
        .ordered = true,
        .next = next_piece,
        .prepare = compare_piece,
        .finish = tell_piece,
        .data = state,
    };
    int status = memory && state->workers
                     ? q2_flow_run(&flow, &err)
                     : q2_error_set(&err, Q2_ERR_NOMEM, "no memory for buffers");
    if (status < 0)
        tool_fail(NULL, &err);
    free(state->workers);
    free(memory);
    return status < 0 ? MAP_FAILED : status;
}

static int
compare_opened(struct state *state)
{
    const struct tool_common *common = &state->options->common;
    struct tool_progress progress;
    state->progress = &progress;
    tool_progress_init(&progress, common->progress && !common->quiet);
    int status = compare_sizes(state) ? compare_disks(state) : DIFFERENT;
    if (status == SAME) {
        tool_progress_update(&progress, 1, 1);
        warn_of_sizes(state);
        if (!common->quiet)
            puts("Images are identical.");
    }
    tool_progress_end(&progress, false);
    return status;
}

static int
run_parsed(const struct options *options, int count, char **names)
{
    if (count != 2)
        return tool_say_usage("Expecting two image file names");
    struct state state = {.options = options, .names = names};
    unsigned flags = tool_cache_flags(options->common.source_cache);
    struct tool_open second = {options->common.image_opts, options->format, flags};
    if (!tool_open_one(&options->common, names[0], flags, &state.disks[0]))
        return OPEN_FAILED;
    int status = OPEN_FAILED;
    if (tool_open(&options->common, names[1], &second, &state.disks[1]))
        status = compare_opened(&state);
    status = tool_close(state.disks[1], TOOL_OK) == TOOL_OK ? status : READ_FAILED;
    return tool_close(state.disks[0], TOOL_OK) == TOOL_OK ? status : READ_FAILED;
}

static bool
set_option(void *data, int option)
{
    struct options *options = data;
    if (option == 's')
        options->strict = true;
    else
        options->format = optarg;
    return true;
}

static int
run(int argc, char **argv)
{
    static const struct option longs[] = {TOOL_LONG_COMMON, TOOL_LONG_FORCE_SHARE, TOOL_LONG_END};
    struct options options = {0};
    const struct parse parse = {&tool_command_compare, "f:F:T:pqsU", longs, set_option, &options};
    int status;
    if (parse_options(&parse, &options.common, argc, argv, &status))
        status = run_parsed(&options, argc - optind, argv + optind);
    tool_common_destroy(&options.common);
    return status;
}
