/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Show many images to us and to QEMU. What they disagree on must be explained by a rule; what is
 * not is made as simple as it gets and printed as a recipe. */

#include "fuzz/differential/make.h"
#include "fuzz/differential/rules.h"
#include "fuzz/differential/worker.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
    "usage: differential --rules FILE [OPTION...] RECIPE|FOLDER...\n\n"
    "  --count N      images (2000); 0: until something is found\n"
    "  --seed N       other images (1)\n"
    "  --only N       that image alone, with all it disagrees on\n"
    "  --fact NAME    ask that alone, of every image\n"
    "  --jobs N       at a time (2)\n"
    "  --failures N   end after so many images with something unexplained, each job (5)\n"
    "  --no-shrink    print them as they are\n"
    "  --folder DIR   scratch space, best in memory (/dev/shm)\n";

enum {
    SKIPPED = 77,
    TRIES_MAX = 600, /* to make an image smaller: about a minute */
};

static struct {
    const char *rules, *fact, *folder;
    uint64_t count, seed;
    int64_t only;
    unsigned jobs, failures;
    bool no_shrink;
} settings = {.folder = "/dev/shm", .count = 2000, .seed = 1, .only = -1, .jobs = 2, .failures = 5};

static struct bases bases;
static struct rules rules;

/* What all jobs count, in memory that they share. */
struct tally {
    _Atomic uint64_t images, differences;
    _Atomic uint64_t failures;
    _Atomic uint64_t used[]; /* of each rule */
};

/* ---- one image ---- */

struct looking {
    struct tally *tally; /* NULL: only looked at */
    uint64_t seed;       /* of the trial */
    char fact[32], field[64];
    bool shown; /* print all */
    bool unexplained;
    unsigned tries; /* to make it smaller */
};

static void
differ(void *data, const struct difference *difference)
{
    struct looking *looking = data;
    const struct rule *rule = rules_find(&rules, difference);
    if (looking->tally) {
        looking->tally->differences++;
        if (rule)
            looking->tally->used[rule - rules.rules]++;
    }
    if (looking->shown)
        printf("%s.%s: ours %s, QEMU's %s (%s): %s\n", difference->fact, difference->field,
               difference->ours, difference->theirs, difference->traits,
               rule ? rule->reason : "unexplained");
    if (looking->shown && !rule)
        printf("%s%s", difference->our_words, difference->their_words);
    if (rule || looking->unexplained)
        return;
    looking->unexplained = true;
    snprintf(looking->fact, sizeof looking->fact, "%s", difference->fact);
    snprintf(looking->field, sizeof looking->field, "%s", difference->field);
}

/* Several facts come from one question. */
static const char *
question(const char *fact)
{
    return strncmp(fact, "requests", 8) == 0 ? "requests" : fact;
}

/* Whether the image still fails in the same way. */
static bool
still_fails(const struct made *made, void *data)
{
    struct looking *looking = data;
    if (looking->tries == TRIES_MAX)
        return false;
    looking->tries++;
    struct looking again = {.seed = looking->seed};
    made_write(made, "image.qcow2");
    trial_run("image.qcow2", question(looking->fact), looking->seed, differ, &again);
    return again.unexplained && strcmp(again.fact, looking->fact) == 0 &&
           strcmp(again.field, looking->field) == 0;
}

static void
report_failure(struct made *made, struct looking *looking, uint64_t number)
{
    if (!settings.no_shrink)
        made_shrink(made, still_fails, looking);
    struct looking shown = {.seed = looking->seed, .shown = true};
    printf("image %" PRIu64 ": %s.%s\n", number, looking->fact, looking->field);
    made_write(made, "image.qcow2");
    trial_run("image.qcow2", question(looking->fact), looking->seed, differ, &shown);
    made_print(made);
    fflush(stdout);
}

/* False: something is not explained. */
static bool
look_at(uint64_t number, struct tally *tally)
{
    struct made made;
    uint64_t seed = settings.seed * UINT64_C(1000003) + number;
    made_init(&made, &bases, seed);
    made_write(&made, "image.qcow2");
    struct looking looking = {.tally = tally, .seed = seed, .shown = settings.only >= 0};
    trial_run("image.qcow2", settings.fact, seed, differ, &looking);
    tally->images++;
    if (looking.unexplained)
        report_failure(&made, &looking, number);
    made_destroy(&made);
    return !looking.unexplained;
}

/* ---- all of them ---- */

static void
enter_folder(unsigned job)
{
    char path[512];
    snprintf(path, sizeof path, "%s/differential-%d-%u", settings.folder, (int)getppid(), job);
    if (mkdir(path, 0700) < 0 || chdir(path) < 0) {
        perror(path);
        exit(2);
    }
}

static void
work(unsigned job, struct tally *tally)
{
    enter_folder(job);
    unsigned failures = 0;
    for (uint64_t number = job; failures < settings.failures; number += settings.jobs) {
        if (settings.count && number >= settings.count)
            break;
        if (settings.only >= 0 && (int64_t)number != settings.only)
            continue;
        if (!look_at(number, tally)) {
            tally->failures++;
            failures++;
        }
    }
    worker_stop();
    exit(0);
}

static void
remove_folders(void)
{
    for (unsigned job = 0; job < settings.jobs; job++) {
        char command[600];
        snprintf(command, sizeof command, "rm -rf -- '%s/differential-%d-%u'", settings.folder,
                 (int)getpid(), job);
        if (system(command) != 0)
            fprintf(stderr, "differential: the scratch space could not be removed\n");
    }
}

static void
print_rules(const struct tally *tally)
{
    for (size_t i = 0; i < rules.count; i++) {
        const struct rule *rule = &rules.rules[i];
        if (tally->used[i] > 0)
            printf("%8" PRIu64 "  %s %s.%s %s %s: %s, right: %s\n", tally->used[i], rule->trait,
                   rule->fact, rule->field, rule->ours, rule->theirs, rule->reason, rule->right);
    }
}

/* The rules are about that version: nothing can be said of another. */
static bool
has_peer(void)
{
    const char *const argv[] = {"qemu-img", "--version", NULL};
    struct outcome outcome;
    run_program(argv, NULL, &outcome);
    bool has = strncmp(outcome.output, "qemu-img version 7.2", 20) == 0;
    outcome_destroy(&outcome);
    return has;
}

static int
run_jobs(struct tally *tally)
{
    struct timespec begin, end;
    bool fine = true;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (unsigned job = 0; job < settings.jobs; job++) {
        pid_t pid = fork();
        if (pid == 0)
            work(job, tally);
        fine &= pid > 0;
    }
    for (int status; wait(&status) > 0;)
        fine &= WIFEXITED(status) && WEXITSTATUS(status) == 0;
    clock_gettime(CLOCK_MONOTONIC, &end);
    remove_folders();
    print_rules(tally);
    double seconds =
        (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    printf("%" PRIu64 " images, %" PRIu64 " differences, %" PRIu64
           " images with something unexplained, %.1f images in a second\n",
           tally->images, tally->differences, tally->failures,
           seconds > 0 ? (double)tally->images / seconds : 0);
    if (!fine)
        fprintf(stderr, "differential: a job did not end as it should\n");
    return fine && tally->failures == 0 ? 0 : 1;
}

static void
parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"rules", required_argument, NULL, 'r'},    {"count", required_argument, NULL, 'c'},
        {"seed", required_argument, NULL, 's'},     {"only", required_argument, NULL, 'o'},
        {"fact", required_argument, NULL, 'f'},     {"jobs", required_argument, NULL, 'j'},
        {"failures", required_argument, NULL, 'n'}, {"no-shrink", no_argument, NULL, 'k'},
        {"folder", required_argument, NULL, 'd'},   {NULL, 0, NULL, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'r':
            settings.rules = optarg;
            break;
        case 'c':
            settings.count = strtoull(optarg, NULL, 0);
            break;
        case 's':
            settings.seed = strtoull(optarg, NULL, 0);
            break;
        case 'o':
            settings.only = strtoll(optarg, NULL, 0);
            break;
        case 'f':
            settings.fact = optarg;
            break;
        case 'j':
            settings.jobs = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'n':
            settings.failures = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'k':
            settings.no_shrink = true;
            break;
        case 'd':
            settings.folder = optarg;
            break;
        default:
            fputs(usage, stderr);
            exit(2);
        }
    }
    if (settings.only >= 0)
        settings.count = (uint64_t)settings.only + 1;
}

int
main(int argc, char **argv)
{
    parse(argc, argv);
    if (!settings.rules || optind == argc || settings.jobs == 0) {
        fputs(usage, stderr);
        return 2;
    }
    if (!has_peer()) {
        fprintf(stderr, "differential: there is no qemu-img of version 7.2\n");
        return SKIPPED;
    }
    if (!rules_read(settings.rules, &rules))
        return 2;
    for (int i = optind; i < argc; i++)
        bases_add(&bases, argv[i]);
    if (bases.count == 0) {
        fprintf(stderr, "differential: no recipe makes an image that is small enough\n");
        return 2;
    }
    size_t size = sizeof(struct tally) + rules.count * sizeof(uint64_t);
    struct tally *tally =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (tally == MAP_FAILED) {
        perror("memory");
        return 2;
    }
    int status = run_jobs(tally);
    munmap(tally, size);
    bases_destroy(&bases);
    rules_destroy(&rules);
    return status;
}
