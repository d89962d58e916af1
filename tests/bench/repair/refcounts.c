/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* bench-repair: measures the rebuild of all refcounts, by qcow2-repair against `qemu-img check -r
 * all` in the same run. Both get the same image each time: 1 TiB in clusters of 64 KiB, all of them
 * mapped, and all refcount blocks zeroed. */

#include "core/base/endian.h"
#include "core/io/posix.h"
#include "tests/bench/images.h"
#include "tests/bench/outcome.h"
#include "tests/bench/tables.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] = "usage: bench-repair [OPTION...] FOLDER\n"
                           "\n"
                           "Measure qcow2-repair against qemu-img check -r all. Images are made in "
                           "FOLDER, best in memory:\n"
                           "about 600 MB.\n"
                           "\n"
                           "  --repair=PROGRAM  the qcow2-repair to measure\n"
                           "  --peer=PROGRAM    the qemu-img to measure it against\n"
                           "  --rounds=N        how often each is run (3)\n"
                           "  --json            lines of JSON instead of a table\n";

enum { LEAST_SPEED = 10, MOST_MEMORY = 64 << 20 };

struct bench {
    const char *repair;
    unsigned rounds;
    struct images images;
    struct outcome outcome;
    char work[IMAGE_PATH_SIZE]; /* the image that is repaired, made anew each time */
    char journal[IMAGE_PATH_SIZE + 16];
};

/* ---- the image ---- */

static int
zero_blocks(struct q2_file *file, const struct q2_header *header, struct q2_error *err)
{
    uint64_t size = UINT64_C(1) << header->cluster_bits;
    uint64_t bytes = (uint64_t)header->refcount_table_clusters << header->cluster_bits;
    uint8_t *table = malloc(bytes), *zeros = calloc(1, size);
    int rc = table && zeros ? q2_file_read(file, header->refcount_table_offset, table, bytes, err)
                            : q2_error_set(err, Q2_ERR_NOMEM, "no memory for a refcount table");
    for (uint64_t at = 0; rc == 0 && at < bytes; at += 8)
        if (q2_load_be64(table + at))
            rc = q2_file_write(file, q2_load_be64(table + at), zeros, size, err);
    free(table);
    free(zeros);
    return rc;
}

/* A fresh copy of the image, with its refcounts zeroed. */
static bool
make_work(struct bench *bench, const char *healthy)
{
    struct q2_error err = {0};
    struct q2_file *file = NULL;
    struct q2_header header;
    struct child_cost cost;
    uint8_t bytes[Q2_HEADER_KNOWN_LENGTH];
    unlink(bench->work);
    unlink(bench->journal);
    const char *const copy[] = {"cp", "--sparse=always", healthy, bench->work, NULL};
    if (!child_run(copy, true, &cost) || cost.status != 0)
        return false;
    int rc = q2_file_open(bench->work, Q2_OPEN_WRITE, &file, &err);
    if (rc == 0)
        rc = q2_file_read(file, 0, bytes, sizeof bytes, &err);
    if (rc == 0) {
        q2_header_decode(bytes, sizeof bytes, &header);
        rc = zero_blocks(file, &header, &err);
    }
    q2_file_close(file);
    if (rc < 0)
        fprintf(stderr, "bench-repair: %s\n", err.message);
    return rc == 0;
}

/* ---- running ---- */

static bool
run_once(struct bench *bench, const char *healthy, struct runner *runner)
{
    struct child_cost cost;
    if (!make_work(bench, healthy) || !child_run(runner->argv, false, &cost))
        return false;
    if (cost.status != runner->status) {
        fprintf(stderr, "bench-repair: %s ended with exit status %d instead of %d\n", runner->label,
                cost.status, runner->status);
        return false;
    }
    runner->peak = cost.peak > runner->peak ? cost.peak : runner->peak;
    runner->costs[runner->rounds++] = cost;
    return true;
}

static bool
measure(struct bench *bench)
{
    const char *healthy = image_path(&bench->images, IMAGE_LARGE);
    if (!healthy)
        return false;
    snprintf(bench->work, sizeof bench->work, "%s/work.qcow2", bench->images.folder);
    snprintf(bench->journal, sizeof bench->journal, "%s.qcow2kit-undo", bench->work);
    struct runner runners[] = {
        {.label = "qcow2-repair", .argv = {bench->repair, "-q", bench->work}},
        {.label = "qemu-img check -r all",
         .argv = {bench->images.peer, "check", "-q", "-r", "all", bench->work}},
    };
    outcome_case(&bench->outcome, 1, "rebuild of all refcounts, 1 TiB in clusters of 64 KiB");
    for (unsigned round = 0; round < bench->rounds; round++)
        for (unsigned i = 0; i < 2; i++)
            if (!run_once(bench, healthy, &runners[i]))
                return false;
    outcome_runner(&bench->outcome, &runners[0]);
    outcome_runner(&bench->outcome, &runners[1]);
    outcome_bar(&bench->outcome,
                &(struct bar){.what = "speed against qemu-img",
                              .value = runner_min(&runners[1]) / runner_min(&runners[0]),
                              .median = runner_median(&runners[1]) / runner_median(&runners[0]),
                              .limit = LEAST_SPEED,
                              .at_least = true});
    outcome_bar(&bench->outcome, &(struct bar){.what = "peak memory",
                                               .value = (double)runners[0].peak,
                                               .limit = MOST_MEMORY,
                                               .unit = UNIT_BYTES});
    unlink(bench->work);
    unlink(bench->journal);
    return true;
}

static bool
parse(int argc, char **argv, struct bench *bench)
{
    static const struct option names[] = {
        {"repair", required_argument, NULL, 'c'},
        {"peer", required_argument, NULL, 'p'},
        {"rounds", required_argument, NULL, 'r'},
        {"json", no_argument, NULL, 'j'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (option == 'c')
            bench->repair = optarg;
        else if (option == 'p')
            bench->images.peer = optarg;
        else if (option == 'r')
            bench->rounds = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'j')
            bench->outcome.json = true;
        else
            return false;
    }
    if (optind != argc - 1 || bench->rounds < 1 || bench->rounds > MAX_ROUNDS)
        return false;
    bench->images.folder = argv[optind];
    return true;
}

int
main(int argc, char **argv)
{
    static struct bench bench = {.repair = "qcow2-repair",
                                 .rounds = 3,
                                 .images = {.peer = "qemu-img"}};
    if (!parse(argc, argv, &bench)) {
        fputs(help, stderr);
        return 1;
    }
    bool done = measure(&bench);
    outcome_end(&bench.outcome);
    return !done;
}
