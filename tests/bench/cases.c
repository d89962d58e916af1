/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Those that are compared take turns (ours, theirs, ours, theirs ...), so that a busy moment of the
 * machine hits both. The bars are held against the shortest times, which other work disturbs least;
 * the same by medians stands beside them. */

#include "tests/bench/cases.h"

#include <stdio.h>

#define OURS   "qcow2-check"
#define THEIRS "qemu-img check"

/* ---- running against each other ---- */

static struct runner
ours(const struct bench *bench, const char *label, const char *path)
{
    return (struct runner){.label = label, .argv = {bench->check, path}};
}

static struct runner
theirs(const struct bench *bench, const char *label, const char *path)
{
    return (struct runner){.label = label, .argv = {bench->images.peer, "check", path}};
}

static bool
run_once(struct runner *runner)
{
    struct child_cost cost;
    if (runner->cold && !child_drop_caches())
        return false;
    if (!child_run(runner->argv, false, &cost))
        return false;
    if (cost.status != runner->status) {
        fprintf(stderr, "bench-check: %s ended with exit status %d instead of %d\n", runner->label,
                cost.status, runner->status);
        return false;
    }
    runner->peak = cost.peak > runner->peak ? cost.peak : runner->peak;
    runner->costs[runner->rounds++] = cost;
    return true;
}

/* Let all take turns, after one of the first for nothing, which warms the cache. */
static bool
race(struct bench *bench, struct runner *runners, unsigned count)
{
    struct child_cost warm_up;
    if (!runners[0].cold && !child_run(runners[0].argv, false, &warm_up))
        return false;
    for (unsigned round = 0; round < bench->rounds; round++)
        for (unsigned i = 0; i < count; i++)
            if (!run_once(&runners[i]))
                return false;
    for (unsigned i = 0; i < count; i++)
        outcome_runner(&bench->outcome, &runners[i]);
    return true;
}

/* ---- bars ---- */

static void
hold_speed(struct bench *bench, const struct runner *fast, const struct runner *slow, double limit)
{
    outcome_bar(&bench->outcome, &(struct bar){.what = "speed against qemu-img",
                                               .value = runner_min(slow) / runner_min(fast),
                                               .median = runner_median(slow) / runner_median(fast),
                                               .limit = limit,
                                               .at_least = true});
}

static void
hold_cost(struct bench *bench, const char *what, const struct runner *runner,
          const struct runner *base, double limit)
{
    outcome_bar(&bench->outcome,
                &(struct bar){.what = what,
                              .value = runner_min(runner) / runner_min(base),
                              .median = runner_median(runner) / runner_median(base),
                              .limit = limit});
}

static void
hold_bytes(struct bench *bench, const char *what, uint64_t bytes, double limit)
{
    outcome_bar(&bench->outcome, &(struct bar){.what = what,
                                               .value = (double)bytes,
                                               .limit = limit,
                                               .unit = UNIT_BYTES});
}

/* ---- the cases ---- */

static bool
clean(struct bench *bench, enum image image)
{
    const char *path = image_path(&bench->images, image);
    if (!path)
        return false;
    struct runner runners[] = {ours(bench, OURS, path), theirs(bench, THEIRS, path)};
    if (!race(bench, runners, 2))
        return false;
    hold_speed(bench, &runners[0], &runners[1], 15);
    hold_bytes(bench, "peak memory", runners[0].peak, 12e6);
    return true;
}

static bool
large(struct bench *bench)
{
    return clean(bench, IMAGE_LARGE);
}

static bool
small_clusters(struct bench *bench)
{
    return clean(bench, IMAGE_SMALL_CLUSTERS);
}

static bool
snapshots(struct bench *bench)
{
    const char *none = image_path(&bench->images, IMAGE_LARGE);
    const char *one = image_path(&bench->images, IMAGE_SNAPSHOT_1);
    const char *five = image_path(&bench->images, IMAGE_SNAPSHOTS_5);
    const char *twenty = image_path(&bench->images, IMAGE_SNAPSHOTS_20);
    if (!none || !one || !five || !twenty)
        return false;
    struct runner runners[] = {
        ours(bench, OURS ", no snapshot", none),        ours(bench, OURS ", 1 snapshot", one),
        ours(bench, OURS ", 5 snapshots", five),        ours(bench, OURS ", 20 snapshots", twenty),
        theirs(bench, THEIRS ", 20 snapshots", twenty),
    };
    if (!race(bench, runners, 5))
        return false;
    hold_speed(bench, &runners[3], &runners[4], 40);
    hold_cost(bench, "cost of 20 snapshots against 1", &runners[3], &runners[1], 1.25);
    return true;
}

static bool
cold_one(struct bench *bench, enum image image, const char *label, const char *peer_label)
{
    const char *path = image_path(&bench->images, image);
    if (!path)
        return false;
    struct runner runners[] = {ours(bench, label, path), theirs(bench, peer_label, path)};
    runners[0].cold = runners[1].cold = true;
    if (!race(bench, runners, 2))
        return false;
    hold_speed(bench, &runners[0], &runners[1], 2);
    return true;
}

static bool
cold(struct bench *bench)
{
    if (!child_drop_caches()) {
        outcome_skip(&bench->outcome, "emptying the page cache needs root");
        return true;
    }
    return cold_one(bench, IMAGE_LARGE, OURS ", 1 TiB", THEIRS ", 1 TiB") &&
           cold_one(bench, IMAGE_SMALL_CLUSTERS, OURS ", 64 GiB", THEIRS ", 64 GiB");
}

static bool
hold_output(struct bench *bench, const char *path)
{
    uint64_t human, json, peer;
    if (!child_count_output((const char *const[]){bench->check, path, NULL}, &human) ||
        !child_count_output((const char *const[]){bench->check, "--output=json", path, NULL},
                            &json) ||
        !child_count_output((const char *const[]){bench->images.peer, "check", path, NULL}, &peer))
        return false;
    hold_bytes(bench, "output for people", human, 64e3);
    hold_bytes(bench, "output as JSON", json, 10e6);
    outcome_bytes(&bench->outcome, "output of " THEIRS, peer);
    return true;
}

static bool
damaged_one(struct bench *bench, enum image image, const char *label, const char *peer_label)
{
    const char *healthy = image_path(&bench->images, IMAGE_LARGE);
    const char *damaged = image_path(&bench->images, image);
    if (!healthy || !damaged)
        return false;
    struct runner runners[] = {ours(bench, OURS ", healthy", healthy), ours(bench, label, damaged),
                               theirs(bench, peer_label, damaged)};
    runners[1].status = runners[2].status = 2;
    if (!race(bench, runners, 3))
        return false;
    hold_cost(bench, "cost of the damage against healthy", &runners[1], &runners[0], 3);
    return hold_output(bench, damaged);
}

static bool
damaged(struct bench *bench)
{
    return damaged_one(bench, IMAGE_DAMAGED, OURS ", in one stretch", THEIRS ", in one stretch") &&
           damaged_one(bench, IMAGE_DAMAGED_SCATTERED, OURS ", scattered", THEIRS ", scattered");
}

static bool
plain_loop(struct bench *bench)
{
    const char *path = image_path(&bench->images, IMAGE_LARGE);
    if (!path)
        return false;
    struct runner runners[] = {
        ours(bench, OURS, path),
        {.label = "plain loop, one thread", .argv = {bench->self, "--plain-loop", path}},
    };
    if (!race(bench, runners, 2))
        return false;
    hold_cost(bench, "cost against the plain loop", &runners[0], &runners[1], 1.5);
    return true;
}

bool
case_run(struct bench *bench, unsigned number)
{
    static const struct {
        const char *title;
        bool (*run)(struct bench *bench);
    } cases[CASES] = {
        {"1 TiB, 64 KiB clusters, all allocated, warm cache", large},
        {"64 GiB, 4 KiB clusters, all allocated, warm cache", small_clusters},
        {"the first with internal snapshots, warm cache", snapshots},
        {"the first two, cold cache", cold},
        {"the first with 1,000,000 leaks and 100,000 corrupt entries, warm cache", damaged},
        {"a plain loop over the L2 tables of the first, warm cache", plain_loop},
    };
    outcome_case(&bench->outcome, number, cases[number - 1].title);
    return cases[number - 1].run(bench);
}
