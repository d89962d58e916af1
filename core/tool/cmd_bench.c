/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* qcow2-img bench: how long a number of equal requests takes. Requests that are to be in flight
 * together come from as many threads. */

#include "core/base/checked.h"
#include "core/base/parallel.h"
#include "core/tool/parse.h"
#include "core/tool/rate.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 64, OPTION_NO_DRAIN = TOOL_OPTION_OWN, OPTION_FLUSH, OPTION_PATTERN };

struct bench {
    struct tool_common common;
    uint64_t count; /* requests */
    uint64_t depth; /* at a time */
    uint64_t offset;
    uint64_t size; /* of a request, bytes */
    uint64_t step; /* bytes */
    bool has_step;
    uint64_t flush; /* requests after which a flush comes; 0: never */
    bool drain;     /* wait for the requests before it */
    bool write;
    uint64_t pattern;

    struct q2_disk *disk;
    uint64_t first; /* request of the batch that runs */
    uint8_t *buffers;
};

static int run(int argc, char **argv);

const struct tool_command tool_command_bench = {
    .name = "bench",
    .usage = "[-c COUNT] [-d DEPTH] [-f FORMAT | --image-opts] [--flush-interval=N] [-i AIO] [-n]\n"
             "[--no-drain] [-o OFFSET] [--pattern=BYTE] [-q] [-s SIZE] [-S STEP] [-t CACHE] [-w]\n"
             "[-U] IMAGE",
    .help = "measure how long requests take",
    .run = run,
};

/* Requests walk over the disk again and again. */
static int
request(void *data, unsigned worker, uint64_t turn, struct q2_error *err)
{
    struct bench *bench = data;
    uint64_t disk_size = q2_disk_size(bench->disk);
    uint64_t number = bench->first + turn;
    __uint128_t offset = (__uint128_t)number * bench->step + bench->offset;
    if (number > 0)
        offset = disk_size ? offset % disk_size : 0;
    uint8_t *buffer = bench->buffers + (size_t)worker * bench->size;
    if (bench->flush && !bench->drain && number && number % bench->flush == 0) {
        int rc = q2_disk_flush(bench->disk, err);
        if (rc < 0)
            return rc;
    }
    return bench->write ? q2_disk_write(bench->disk, (uint64_t)offset, buffer, bench->size, err)
                        : q2_disk_read(bench->disk, (uint64_t)offset, buffer, bench->size, err);
}

/* Where flushes wait for what came before them, requests come in batches. */
static int
run_requests(struct bench *bench, struct q2_error *err)
{
    int rc = 0;
    uint64_t batch = bench->flush && bench->drain ? bench->flush : bench->count;
    while (rc == 0 && bench->first < bench->count) {
        const struct q2_loop loop = {
            .threads = (unsigned)bench->depth,
            .turns = q2_min(batch, bench->count - bench->first),
            .turn = request,
            .data = bench,
        };
        rc = q2_loop_run(&loop, err);
        bench->first += loop.turns;
        if (rc == 0 && bench->flush && bench->drain)
            rc = q2_disk_flush(bench->disk, err);
    }
    return rc;
}

static void
announce(const struct bench *bench)
{
    if (bench->common.quiet)
        return;
    printf("Sending %" PRIu64 " %s requests, %" PRIu64 " bytes each, %" PRIu64
           " in parallel (starting at offset %" PRIu64 ", step size %" PRIu64 ")\n",
           bench->count, bench->write ? "write" : "read", bench->size, bench->depth, bench->offset,
           bench->step);
    if (bench->flush)
        printf("Sending flush every %" PRIu64 " requests\n", bench->flush);
    fflush(stdout);
}

static int
measure(struct bench *bench)
{
    struct q2_error err = {0};
    size_t bytes = (size_t)(bench->size * bench->depth);
    bench->buffers = malloc(bytes ? bytes : 1);
    if (!bench->buffers) {
        tool_say("no memory for %" PRIu64 " buffers of %" PRIu64 " bytes", bench->depth,
                 bench->size);
        return TOOL_FAILED;
    }
    memset(bench->buffers, (int)bench->pattern, bytes);
    announce(bench);
    double begun = rate_now();
    int rc = run_requests(bench, &err);
    double seconds = rate_now() - begun;
    free(bench->buffers);
    if (rc < 0)
        return tool_fail("Failed request", &err);
    if (!bench->common.quiet)
        printf("Run completed in %3.3f seconds.\n", seconds);
    return TOOL_OK;
}

static bool
set_number(struct bench *bench, int option)
{
    switch (option) {
    case 'c':
        return tool_number_option("-c", optarg, 0, INT_MAX, &bench->count);
    case 'd':
        return tool_number_option("-d", optarg, 1, INT_MAX, &bench->depth);
    case 'o':
        return tool_size_option("-o", optarg, 0, INT64_MAX, &bench->offset);
    case 's':
        return tool_size_option("-s", optarg, 0, INT_MAX, &bench->size);
    case 'S':
        bench->has_step = true;
        return tool_size_option("-S", optarg, 0, INT_MAX, &bench->step);
    case OPTION_PATTERN:
        return tool_number_option("--pattern", optarg, 0, UINT8_MAX, &bench->pattern);
    default:
        return tool_number_option("--flush-interval", optarg, 0, INT_MAX, &bench->flush);
    }
}

static bool
set_option(void *data, int option)
{
    struct bench *bench = data;
    switch (option) {
    case 'w':
        bench->write = true;
        return true;
    case 'n': /* how the system is asked: there is one way here */
    case 'i':
        return true;
    case OPTION_NO_DRAIN:
        bench->drain = false;
        return true;
    default:
        return set_number(bench, option);
    }
}

static int
run_parsed(struct bench *bench, int count, char **names)
{
    if (count != 1)
        return tool_say_usage("Expecting one image file name");
    if (!bench->write && bench->flush)
        return tool_say_usage("--flush-interval is only available in write tests");
    if (bench->flush && bench->flush < bench->depth)
        return tool_say_usage("Flush interval can't be smaller than depth");
    if (bench->depth > DEPTH_MAX)
        bench->depth = DEPTH_MAX;
    if (!bench->has_step)
        bench->step = bench->size;
    unsigned flags = (bench->write ? Q2_IMAGE_WRITE : 0) | tool_cache_flags(bench->common.cache);
    if (!tool_open_one(&bench->common, names[0], flags, &bench->disk))
        return TOOL_FAILED;
    return tool_close(bench->disk, measure(bench));
}

static int
run(int argc, char **argv)
{
    static const struct option longs[] = {
        TOOL_LONG_COMMON,
        TOOL_LONG_FORCE_SHARE,
        {"flush-interval", required_argument, NULL, OPTION_FLUSH},
        {"pattern", required_argument, NULL, OPTION_PATTERN},
        {"no-drain", no_argument, NULL, OPTION_NO_DRAIN},
        TOOL_LONG_END,
    };
    struct bench bench = {.count = 75000, .depth = 64, .size = 4096, .drain = true};
    const struct parse parse = {&tool_command_bench, "c:d:f:i:no:qs:S:t:wU", longs, set_option,
                                &bench};
    int status;
    if (parse_options(&parse, &bench.common, argc, argv, &status))
        status = run_parsed(&bench, argc - optind, argv + optind);
    tool_common_destroy(&bench.common);
    return status;
}
