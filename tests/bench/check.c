/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* bench-check: measures qcow2-check against `qemu-img check` in the same run. A missed bar is a
 * result like any other; only what could not be run makes the exit status 1. */

#include "tests/bench/cases.h"
#include "tests/bench/tables.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: bench-check [OPTION...] FOLDER\n"
    "\n"
    "Measure qcow2-check against qemu-img check. Images are made in FOLDER and stay there: about\n"
    "1.2 GB on disk.\n"
    "\n"
    "  --check=PROGRAM  the qcow2-check to measure\n"
    "  --peer=PROGRAM   the qemu-img to measure it against\n"
    "  --case=N         only this case (1 to 6)\n"
    "  --rounds=N       how often each is run (5)\n"
    "  --json           lines of JSON instead of a table\n";

struct options {
    struct bench bench;
    unsigned only; /* case; 0: all */
};

static int
usage(void)
{
    fputs(help, stderr);
    return 1;
}

/* What a checker cannot do without, as a process of its own: see tables_loop. */
static int
run_plain_loop(const char *path)
{
    struct q2_error err = {0};
    uint64_t bits;
    if (tables_loop(path, &bits, &err) < 0) {
        fprintf(stderr, "bench-check: %s\n", err.message);
        return 1;
    }
    printf("%llx\n", (unsigned long long)bits);
    return 0;
}

/* False where it is not a number from 1 to `most`. */
static bool
parse_number(const char *text, unsigned most, unsigned *ret_number)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    if (*end || number < 1 || number > most)
        return false;
    *ret_number = (unsigned)number;
    return true;
}

static bool
parse(int argc, char **argv, struct options *options)
{
    static const struct option names[] = {
        {"check", required_argument, NULL, 'c'}, {"peer", required_argument, NULL, 'p'},
        {"case", required_argument, NULL, 'n'},  {"rounds", required_argument, NULL, 'r'},
        {"json", no_argument, NULL, 'j'},        {NULL, 0, NULL, 0},
    };
    struct bench *bench = &options->bench;
    bool fine = true;
    for (int option; fine && (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (option) {
        case 'c':
            bench->check = optarg;
            break;
        case 'p':
            bench->images.peer = optarg;
            break;
        case 'n':
            fine = parse_number(optarg, CASES, &options->only);
            break;
        case 'r':
            fine = parse_number(optarg, MAX_ROUNDS, &bench->rounds);
            break;
        case 'j':
            bench->outcome.json = true;
            break;
        default:
            fine = false;
        }
    }
    if (!fine || optind != argc - 1)
        return false;
    bench->images.folder = argv[optind];
    return true;
}

int
main(int argc, char **argv)
{
    static struct options options = {.bench = {.self = "/proc/self/exe",
                                               .check = "qcow2-check",
                                               .rounds = 5,
                                               .images = {.peer = "qemu-img"}}};
    if (argc == 3 && strcmp(argv[1], "--plain-loop") == 0)
        return run_plain_loop(argv[2]);
    if (!parse(argc, argv, &options))
        return usage();
    int status = 0;
    for (unsigned number = 1; number <= CASES; number++)
        if (!options.only || options.only == number)
            status |= !case_run(&options.bench, number);
    outcome_end(&options.bench.outcome);
    return status;
}
