/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Run random sequences, each in a child so that a crash or a hang is a failure like any other. The
 * first that fails is shrunk and printed as a script, which --script runs again. */

#include "tests/stress/sequence.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

struct settings {
    uint64_t seed;
    uint64_t operations; /* 0: what suits the mode */
    unsigned steps;      /* of a sequence; 0: what suits the mode */
    const char *script;
    struct how how;
    bool forever;
};

static const char usage[] =
    "usage: stress [--mode model|crash|faults|memory] [--seed N] [--operations N | --forever]\n"
    "              [--steps N] [--peer FOLDER]\n"
    "       stress --script FILE [--mode ...] [--peer FOLDER]\n";

static bool
find_mode(const char *name, enum mode *ret_mode)
{
    static const char *const names[MODES] = {"model", "crash", "faults", "memory"};
    for (unsigned i = 0; i < MODES; i++)
        if (strcmp(names[i], name) == 0) {
            *ret_mode = (enum mode)i;
            return true;
        }
    return false;
}

static int
parse(int argc, char **argv, struct settings *settings)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'},  {"operations", required_argument, NULL, 'o'},
        {"steps", required_argument, NULL, 'n'}, {"script", required_argument, NULL, 'r'},
        {"forever", no_argument, NULL, 'f'},     {"peer", required_argument, NULL, 'p'},
        {"mode", required_argument, NULL, 'm'},  {NULL, 0, NULL, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 's':
            settings->seed = strtoull(optarg, NULL, 0);
            break;
        case 'o':
            settings->operations = strtoull(optarg, NULL, 0);
            break;
        case 'n':
            settings->steps = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'r':
            settings->script = optarg;
            break;
        case 'f':
            settings->forever = true;
            break;
        case 'p':
            settings->how.folder = optarg;
            break;
        case 'm':
            if (!find_mode(optarg, &settings->how.mode))
                return -1;
            break;
        default:
            return -1;
        }
    }
    return optind == argc ? 0 : -1;
}

static int
run_script(const struct settings *settings)
{
    struct sequence sequence = {0};
    FILE *in = fopen(settings->script, "r");
    if (!in || !sequence_read(&sequence, in)) {
        fprintf(stderr, "stress: %s: no script\n", settings->script);
        return 2;
    }
    fclose(in);
    struct how how = settings->how;
    how.verbose = true;
    bool fine = sequence_run(&sequence, &how);
    sequence_destroy(&sequence);
    return fine ? 0 : 1;
}

/* Say all there is to say about a sequence that fails. */
static void
report(struct sequence *sequence, const struct settings *settings, uint64_t seed)
{
    struct how how = settings->how;
    printf("seed %llu fails\n", (unsigned long long)seed);
    fflush(stdout);
    sequence_shrink(sequence, &how);
    printf("---- script\n");
    sequence_print(sequence, stdout);
    printf("---- run\n");
    how.verbose = true;
    sequence_holds(sequence, &how);
}

static int
run_seeds(const struct settings *settings)
{
    static const unsigned steps[MODES] = {150, 16, 14, 14};
    static const unsigned operations[MODES] = {10000, 480, 1400, 2000};
    unsigned count = settings->steps ? settings->steps : steps[settings->how.mode];
    uint64_t done = 0, most = settings->operations;
    if (most == 0)
        most = operations[settings->how.mode];
    for (uint64_t seed = settings->seed; settings->forever || done < most; seed++) {
        struct sequence sequence = {0};
        if (!sequence_choose(&sequence, seed, count, settings->how.mode))
            return 2;
        bool fine = sequence_holds(&sequence, &settings->how);
        if (!fine)
            report(&sequence, settings, seed);
        done += sequence.count;
        sequence_destroy(&sequence);
        if (!fine)
            return 1;
    }
    printf("%llu operations from seed %llu on\n", (unsigned long long)done,
           (unsigned long long)settings->seed);
    return 0;
}

int
main(int argc, char **argv)
{
    struct settings settings = {.seed = 1};
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (parse(argc, argv, &settings) < 0) {
        fputs(usage, stderr);
        return 2;
    }
    return settings.script ? run_script(&settings) : run_seeds(&settings);
}
