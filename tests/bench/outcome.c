/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* All labels are literals of this program without quotes, so that JSON needs no escaping. */

#include "tests/bench/outcome.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static int
compare(const void *left, const void *right)
{
    const double *a = left, *b = right;
    return (*a > *b) - (*a < *b);
}

static double
wall_at(const struct runner *runner, unsigned rank)
{
    double walls[MAX_ROUNDS];
    for (unsigned i = 0; i < runner->rounds; i++)
        walls[i] = runner->costs[i].wall;
    qsort(walls, runner->rounds, sizeof *walls, compare);
    return runner->rounds ? walls[rank] : 0;
}

double
runner_min(const struct runner *runner)
{
    return wall_at(runner, 0);
}

double
runner_median(const struct runner *runner)
{
    return wall_at(runner, runner->rounds / 2);
}

static double
least_cpu(const struct runner *runner)
{
    double least = runner->costs[0].cpu;
    for (unsigned i = 1; i < runner->rounds; i++)
        least = runner->costs[i].cpu < least ? runner->costs[i].cpu : least;
    return least;
}

void
outcome_case(struct outcome *outcome, unsigned number, const char *title)
{
    outcome->case_number = number;
    if (outcome->json)
        return;
    printf("\n%u. %s\n", number, title);
    printf("      %-40s %10s %10s %10s %10s\n", "", "wall min", "median", "user+sys", "peak");
}

void
outcome_runner(struct outcome *outcome, const struct runner *runner)
{
    double min = runner_min(runner), median = runner_median(runner), cpu = least_cpu(runner);
    if (outcome->json)
        printf("{\"case\": %u, \"run\": \"%s\", \"rounds\": %u, \"wall-min\": %.4f, "
               "\"wall-median\": %.4f, \"cpu-min\": %.4f, \"peak-bytes\": %" PRIu64
               ", \"exit-status\": %d}\n",
               outcome->case_number, runner->label, runner->rounds, min, median, cpu, runner->peak,
               runner->costs[0].status);
    else
        printf("      %-40s %8.3f s %8.3f s %8.3f s %7.1f MB\n", runner->label, min, median, cpu,
               (double)runner->peak / 1e6);
    fflush(stdout);
}

static const char *
text_of(double value, enum unit unit, char *buffer, size_t size)
{
    if (unit == UNIT_TIMES)
        snprintf(buffer, size, "%.*f x", value < 10 ? 2 : 1, value);
    else if (value < 1e6)
        snprintf(buffer, size, "%.1f kB", value / 1e3);
    else
        snprintf(buffer, size, "%.1f MB", value / 1e6);
    return buffer;
}

void
outcome_bar(struct outcome *outcome, const struct bar *bar)
{
    bool pass = bar->at_least ? bar->value >= bar->limit : bar->value <= bar->limit;
    char value[32], limit[32], median[32];
    outcome->bars++;
    outcome->missed += !pass;
    if (outcome->json) {
        printf("{\"case\": %u, \"bar\": \"%s\", \"value\": %.3f, \"%s\": %.3f, \"pass\": %s}\n",
               outcome->case_number, bar->what, bar->value, bar->at_least ? "at-least" : "at-most",
               bar->limit, pass ? "true" : "false");
        return;
    }
    printf("%s  %s: %s, %s %s", pass ? "PASS" : "MISS", bar->what,
           text_of(bar->value, bar->unit, value, sizeof value),
           bar->at_least ? "at least" : "at most",
           text_of(bar->limit, bar->unit, limit, sizeof limit));
    if (bar->median > 0)
        printf(" (by medians %s)", text_of(bar->median, bar->unit, median, sizeof median));
    putchar('\n');
}

void
outcome_bytes(struct outcome *outcome, const char *what, uint64_t bytes)
{
    char text[32];
    if (outcome->json)
        printf("{\"case\": %u, \"output\": \"%s\", \"bytes\": %" PRIu64 "}\n", outcome->case_number,
               what, bytes);
    else
        printf("      %-40s %s\n", what, text_of((double)bytes, UNIT_BYTES, text, sizeof text));
}

void
outcome_skip(struct outcome *outcome, const char *why)
{
    if (outcome->json)
        printf("{\"case\": %u, \"skipped\": \"%s\"}\n", outcome->case_number, why);
    else
        printf("SKIP  %s\n", why);
}

void
outcome_end(const struct outcome *outcome)
{
    if (!outcome->json)
        printf("\n%u of %u bars passed\n", outcome->bars - outcome->missed, outcome->bars);
}
