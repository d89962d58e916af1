/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* bench-recovery: damages healthy images in every way that we can think of and measures how much of
 * their content repairs bring back. Each case is a process of its own, so that one that crashes or
 * hangs is a result like any other. */

#include "tests/bench/recovery/images.h"
#include "tests/bench/recovery/table.h"

#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_SUBJECTS = 64, CASE_CPU_SECONDS = 60, CASE_SECONDS = 600 };

static const char help[] =
    "usage: bench-recovery [OPTION...] FOLDER\n"
    "\n"
    "Damage images and measure what repairs recover. Healthy images are made in FOLDER and stay\n"
    "there: about 200 MB.\n"
    "\n"
    "  --quick        few seeds, no peer: less than a minute\n"
    "  --seeds=N      seeds for each image and class (3)\n"
    "  --seed=N       only this one\n"
    "  --class=NAME   only classes that begin with NAME\n"
    "  --image=NAME   only images that begin with NAME\n"
    "  --level=NAME   of our own ways only these: certain,likely,guess,salvage\n"
    "  --cross        let qemu-img check and read what we repaired\n"
    "  --no-peer      leave qemu-img out\n"
    "  --peer-every=N let qemu-img repair one case in N only (1)\n"
    "  --time=N       begin no more cases after N seconds; which ones run is random\n"
    "  --jobs=N       cases at a time (as many as there are processors)\n"
    "  --worst=N      list the N worst cases (40)\n"
    "  --keep=DIR     of a single case: leave the damaged image and the repaired ones in DIR,\n"
    "                 and print all that was done\n"
    "  --csv          lines of numbers instead of the table\n"
    "  --list         list images and classes\n";

struct bench {
    struct case_options options;
    const char *only_class, *only_image;
    uint64_t seeds, only_seed;
    bool has_seed, csv, list, quick;
    unsigned jobs, peer_every, worst, time;
    struct subject subjects[MOST_SUBJECTS];
    unsigned subject_count;
    struct case_id *ids;
    struct result *results; /* shared with the processes */
    unsigned count;
};

static bool
wanted(const char *name, const char *only)
{
    return !only || strncmp(name, only, strlen(only)) == 0;
}

static int
list(void)
{
    for (unsigned i = 0; image_name(i); i++)
        printf("image %s\n", image_name(i));
    for (unsigned i = 0; i < damage_count; i++)
        printf("class %s\n", damages[i].name);
    return 0;
}

static bool
load(struct bench *bench)
{
    for (unsigned i = 0; image_name(i) && bench->subject_count < MOST_SUBJECTS; i++) {
        if (!wanted(image_name(i), bench->only_image))
            continue;
        if (!image_make(bench->options.folder, image_name(i)) ||
            !subject_load(bench->options.folder, image_name(i),
                          &bench->subjects[bench->subject_count]))
            return false;
        bench->subject_count++;
    }
    return true;
}

static bool
list_cases(struct bench *bench)
{
    uint64_t most = (uint64_t)bench->subject_count * damage_count * bench->seeds;
    size_t bytes = (most + 1) * sizeof *bench->results;
    bench->ids = calloc(most + 1, sizeof *bench->ids);
    bench->results = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!bench->ids || bench->results == MAP_FAILED)
        return false;
    for (unsigned damage = 0; damage < damage_count; damage++)
        for (unsigned i = 0;
             i < bench->subject_count && wanted(damages[damage].name, bench->only_class); i++)
            for (uint64_t seed = 0; seed < bench->seeds; seed++) {
                if (seed > 0 && strcmp(damages[damage].name, "undamaged") == 0)
                    continue;
                bench->ids[bench->count++] =
                    (struct case_id){.subject = &bench->subjects[i],
                                     .damage = damage,
                                     .seed = bench->has_seed ? bench->only_seed : seed};
            }
    return true;
}

static void
run_case(const struct bench *bench, unsigned index)
{
    struct case_options options = bench->options;
    const struct case_id *id = &bench->ids[index];
    options.peer = options.peer && index % bench->peer_every == 0;
    /* Other work on the machine must not look like a hang. */
    struct rlimit cpu = {CASE_CPU_SECONDS, CASE_CPU_SECONDS};
    setrlimit(RLIMIT_CPU, &cpu);
    alarm(CASE_SECONDS);
    measure(id->subject, &damages[id->damage], id->seed, &options, &bench->results[index]);
}

static void
wait_for_one(unsigned *running)
{
    int status;
    if (wait(&status) > 0)
        --*running;
}

/* A random order, so that those that there is time for stand for all. */
static unsigned *
shuffled(unsigned count, uint64_t random)
{
    unsigned *order = calloc(count + 1, sizeof *order);
    for (unsigned i = 0; order && i < count; i++) {
        unsigned other = (unsigned)random_below(&random, i + 1);
        order[i] = order[other];
        order[other] = i;
    }
    return order;
}

static bool
run_cases(struct bench *bench)
{
    unsigned running = 0, *order = shuffled(bench->count, bench->only_seed);
    time_t end = time(NULL) + bench->time;
    for (unsigned i = 0; order && i < bench->count; i++) {
        if (running == bench->jobs)
            wait_for_one(&running);
        if (bench->time && time(NULL) >= end)
            break;
        if (isatty(STDERR_FILENO) && i % 20 == 0)
            fprintf(stderr, "\r%u of %u ", i, bench->count);
        bench->results[order[i]].begun = true;
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            run_case(bench, order[i]);
            fflush(NULL);
            _exit(0);
        }
        running += pid > 0;
    }
    while (running)
        wait_for_one(&running);
    bool ok = order != NULL;
    free(order);
    return ok;
}

static void
choose_ways(struct bench *bench, const char *names)
{
    bench->options.ways = 0;
    for (unsigned way = WAY_CERTAIN; way <= WAY_SALVAGE; way++)
        if (strstr(names, way_names[way]))
            bench->options.ways |= 1U << way;
}

static const struct option longs[] = {
    {"quick", no_argument, NULL, 'q'},       {"seeds", required_argument, NULL, 'n'},
    {"seed", required_argument, NULL, 's'},  {"class", required_argument, NULL, 'c'},
    {"image", required_argument, NULL, 'i'}, {"level", required_argument, NULL, 'l'},
    {"no-peer", no_argument, NULL, 'p'},     {"peer-every", required_argument, NULL, 'e'},
    {"jobs", required_argument, NULL, 'j'},  {"time", required_argument, NULL, 't'},
    {"worst", required_argument, NULL, 'w'}, {"keep", required_argument, NULL, 'k'},
    {"csv", no_argument, NULL, 'C'},         {"cross", no_argument, NULL, 'x'},
    {"list", no_argument, NULL, 'L'},        {NULL, 0, NULL, 0},
};

static bool
parse(struct bench *bench, int argc, char **argv)
{
    for (int option; (option = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        unsigned number = optarg ? (unsigned)strtoul(optarg, NULL, 10) : 0;
        switch (option) {
        case 'q':
            bench->quick = true;
            break;
        case 'n':
            bench->seeds = number ? number : 1;
            break;
        case 's':
            bench->only_seed = number;
            bench->has_seed = true;
            break;
        case 'c':
            bench->only_class = optarg;
            break;
        case 'i':
            bench->only_image = optarg;
            break;
        case 'l':
            choose_ways(bench, optarg);
            break;
        case 'p':
            bench->options.peer = false;
            break;
        case 'e':
            bench->peer_every = number ? number : 1;
            break;
        case 't':
            bench->time = number;
            break;
        case 'j':
            bench->jobs = number ? number : 1;
            break;
        case 'w':
            bench->worst = number;
            break;
        case 'k':
            bench->options.keep = optarg;
            bench->options.loud = true;
            break;
        case 'x':
            bench->options.cross = true;
            break;
        case 'C':
            bench->csv = true;
            break;
        case 'L':
            bench->list = true;
            return true;
        default:
            return false;
        }
    }
    bench->options.folder = argv[optind];
    return optind + 1 == argc;
}

int
main(int argc, char **argv)
{
    static struct bench bench = {.seeds = 3, .peer_every = 1, .worst = 40};
    bench.options.peer = true;
    bench.options.ways = 1U << WAY_CERTAIN | 1U << WAY_LIKELY | 1U << WAY_GUESS | 1U << WAY_SALVAGE;
    bench.jobs = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    if (!parse(&bench, argc, argv)) {
        fputs(help, stderr);
        return 1;
    }
    if (bench.list)
        return list();
    if (bench.quick) {
        bench.seeds = 1;
        bench.time = 45;
        bench.options.peer = false;
    }
    if (bench.has_seed)
        bench.seeds = 1;
    if (!load(&bench) || !list_cases(&bench) || !run_cases(&bench))
        return 1;
    struct table table = {bench.ids, bench.results, bench.count, bench.worst};
    if (bench.csv)
        table_print_csv(&table);
    else
        table_print(&table);
    for (unsigned i = 0; i < bench.subject_count; i++)
        subject_destroy(&bench.subjects[i]);
    free(bench.ids);
    return 0;
}
