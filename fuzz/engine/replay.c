/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A harness without an engine: run inputs that are there, and some more made of them. */

#include "fuzz/mutate/mutate.h"

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
    "usage: %s [--runs N] [--seed N] [--rate] [--times] [--verbose] FILE|FOLDER...\n\n"
    "Run each input, those in folders in the order of their names.\n\n"
    "  --runs N    then N inputs that are made by changing these (0)\n"
    "  --seed N    another choice of changes (1)\n"
    "  --rate      then run them again and again for some seconds, and say how many in one,\n"
    "              of the time of a processor\n"
    "  --times     then say how many microseconds of it each of them takes\n"
    "  --keep FILE leave each input in FILE before it is run, for after a crash\n"
    "  --verbose   name each file before it is run\n";

enum { RATE_SECONDS = 3 };

struct input {
    char *name;
    uint8_t *bytes;
    size_t length;
};

static struct {
    struct input *inputs;
    size_t count, capacity;
} corpus;

static struct {
    uint64_t runs, seed;
    bool rate, times, verbose;
    const char *keep;
} settings = {.seed = 1};

static void
complain(const char *name)
{
    fprintf(stderr, "%s: %s: %s\n", q2_harness.name, name, strerror(errno));
    exit(2);
}

static void *
need(void *memory)
{
    if (!memory)
        complain("memory");
    return memory;
}

static void
add_file(const char *name, size_t size)
{
    FILE *file = fopen(name, "rb");
    if (!file)
        complain(name);
    if (corpus.count == corpus.capacity) {
        corpus.capacity = 2 * corpus.capacity + 64;
        corpus.inputs = need(reallocarray(corpus.inputs, corpus.capacity, sizeof *corpus.inputs));
    }
    struct input *input = &corpus.inputs[corpus.count++];
    input->name = need(strdup(name));
    input->bytes = need(malloc(size ? size : 1));
    input->length = fread(input->bytes, 1, size, file);
    fclose(file);
}

static int
not_hidden(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void
add(const char *name)
{
    struct stat status;
    if (stat(name, &status) < 0)
        complain(name);
    if (!S_ISDIR(status.st_mode)) {
        if ((size_t)status.st_size <= q2_harness.max_length)
            add_file(name, (size_t)status.st_size);
        return;
    }
    struct dirent **entries;
    int count = scandir(name, &entries, not_hidden, alphasort);
    if (count < 0)
        complain(name);
    for (int i = 0; i < count; i++) {
        char *path;
        if (asprintf(&path, "%s/%s", name, entries[i]->d_name) < 0)
            complain(name);
        add(path);
        free(path);
        free(entries[i]);
    }
    free(entries);
}

static void
run(const uint8_t *bytes, size_t length)
{
    /* A copy of just the right size: what reads beyond it is caught. */
    uint8_t *copy = need(malloc(length ? length : 1));
    if (length > 0)
        memcpy(copy, bytes, length);
    if (settings.keep) {
        FILE *file = fopen(settings.keep, "wb");
        if (!file || fwrite(copy, 1, length, file) != length || fclose(file) != 0)
            complain(settings.keep);
    }
    q2_harness.run(copy, length);
    free(copy);
}

/* Change inputs that were chosen at random, some more than once. */
static void
run_changed(void)
{
    static const struct input nothing = {.name = (char *)"nothing"};
    struct q2_fuzz_random random = {.state = settings.seed};
    uint8_t *bytes = need(malloc(q2_harness.max_length));
    for (uint64_t i = 0; i < settings.runs; i++) {
        const struct input *input = &nothing, *other = &nothing;
        if (corpus.count > 0) {
            input = &corpus.inputs[q2_fuzz_random_below(&random, corpus.count)];
            other = &corpus.inputs[q2_fuzz_random_below(&random, corpus.count)];
        }
        struct q2_fuzz_buffer buffer = {
            .bytes = bytes,
            .length = input->length,
            .capacity = q2_harness.max_length,
            .other = other->bytes,
            .other_length = other->length,
        };
        if (input->length > 0)
            memcpy(bytes, input->bytes, input->length);
        for (uint64_t n = 1 + q2_fuzz_random_below(&random, 4); n > 0; n--)
            q2_mutate(q2_harness.input, &buffer, &random, NULL);
        run(buffer.bytes, buffer.length);
    }
    free(bytes);
}

static double
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void
parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"runs", required_argument, NULL, 'r'},
        {"seed", required_argument, NULL, 's'},
        {"keep", required_argument, NULL, 'k'},
        {"rate", no_argument, NULL, 't'},
        {"times", no_argument, NULL, 'm'},
        {"verbose", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'r':
            settings.runs = strtoull(optarg, NULL, 0);
            break;
        case 's':
            settings.seed = strtoull(optarg, NULL, 0);
            break;
        case 'k':
            settings.keep = optarg;
            break;
        case 't':
            settings.rate = true;
            break;
        case 'm':
            settings.times = true;
            break;
        case 'v':
            settings.verbose = true;
            break;
        default:
            fprintf(stderr, usage, argv[0]);
            exit(2);
        }
    }
}

static void
run_all(bool verbose)
{
    for (size_t i = 0; i < corpus.count; i++) {
        if (verbose)
            fprintf(stderr, "%s\n", corpus.inputs[i].name);
        run(corpus.inputs[i].bytes, corpus.inputs[i].length);
    }
}

/* By now memory is there and caches are warm, as in a campaign. */
static double
rate(void)
{
    uint64_t inputs = 0;
    double begin = now(), took;
    do {
        run_all(false);
        inputs += corpus.count;
        took = now() - begin;
    } while (took < RATE_SECONDS);
    return (double)inputs / took;
}

static void
print_times(void)
{
    for (size_t i = 0; i < corpus.count; i++) {
        double begin = now();
        run(corpus.inputs[i].bytes, corpus.inputs[i].length);
        printf("%10.0f %s\n", (now() - begin) * 1e6, corpus.inputs[i].name);
    }
}

int
main(int argc, char **argv)
{
    parse(argc, argv);
    for (int i = optind; i < argc; i++)
        add(argv[i]);
    run_all(settings.verbose);
    run_changed();
    printf("%s: %" PRIu64 " inputs", q2_harness.name, corpus.count + settings.runs);
    if (settings.rate && corpus.count)
        printf(", %.0f in a second", rate());
    printf("\n");
    if (settings.times)
        print_times();
    for (size_t i = 0; i < corpus.count; i++) {
        free(corpus.inputs[i].name);
        free(corpus.inputs[i].bytes);
    }
    free(corpus.inputs);
    return 0;
}
