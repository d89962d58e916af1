/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Run random sequences, each in a child so that a crash or a hang is a failure like any other. The
 * first that fails is shrunk and printed as a script, which --script runs again. */

#include "tests/stress/sequence.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

struct settings {
    uint64_t seed, operations;
    unsigned steps; /* of a sequence */
    const char *script;
    const char *folder; /* for what QEMU looks at; NULL: QEMU is not asked */
    bool forever;
};

static const char usage[] =
    "usage: stress [--seed N] [--operations N | --forever] [--steps N] [--peer FOLDER]\n"
    "       stress --script FILE [--peer FOLDER]\n";

static int
parse(int argc, char **argv, struct settings *settings)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'},
        {"operations", required_argument, NULL, 'o'},
        {"steps", required_argument, NULL, 'n'},
        {"script", required_argument, NULL, 'r'},
        {"forever", no_argument, NULL, 'f'},
        {"peer", required_argument, NULL, 'p'},
        {NULL, 0, NULL, 0},
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
            settings->folder = optarg;
            break;
        default:
            return -1;
        }
    }
    return optind == argc && settings->steps > 0 ? 0 : -1;
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
    bool fine = sequence_run(&sequence, settings->folder, true);
    sequence_destroy(&sequence);
    return fine ? 0 : 1;
}

static int
run_seeds(const struct settings *settings)
{
    uint64_t done = 0;
    for (uint64_t seed = settings->seed; settings->forever || done < settings->operations; seed++) {
        struct sequence sequence = {0};
        if (!sequence_choose(&sequence, seed, settings->steps))
            return 2;
        if (!sequence_holds(&sequence, settings->folder)) {
            printf("seed %llu fails\n", (unsigned long long)seed);
            fflush(stdout);
            sequence_shrink(&sequence, settings->folder);
            printf("---- script\n");
            sequence_print(&sequence, stdout);
            printf("---- run\n");
            fflush(stdout);
            sequence_show(&sequence, settings->folder);
            sequence_destroy(&sequence);
            return 1;
        }
        done += sequence.count;
        sequence_destroy(&sequence);
    }
    printf("%llu operations from seed %llu on\n", (unsigned long long)done,
           (unsigned long long)settings->seed);
    return 0;
}

int
main(int argc, char **argv)
{
    struct settings settings = {.seed = 1, .operations = 10000, .steps = 150};
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (parse(argc, argv, &settings) < 0) {
        fputs(usage, stderr);
        return 2;
    }
    return settings.script ? run_script(&settings) : run_seeds(&settings);
}
