/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What was measured, as a table for people and as lines of JSON for programs. */

#ifndef Q2_BENCH_OUTCOME_H
#define Q2_BENCH_OUTCOME_H

#include "tests/bench/child.h"

enum { MAX_ROUNDS = 100 };

/* One of those that run against each other. */
struct runner {
    const char *label;
    const char *argv[8];
    bool cold;  /* with an empty page cache */
    int status; /* the exit status that it should end with */
    struct child_cost costs[MAX_ROUNDS];
    unsigned rounds;
    uint64_t peak; /* largest of all rounds, bytes */
};

enum unit { UNIT_TIMES, UNIT_BYTES };

struct bar {
    const char *what;
    double value;
    double limit;
    bool at_least; /* the limit is the least, not the most */
    enum unit unit;
    double median; /* of the same ratio, where medians are taken instead; 0: none */
};

struct outcome {
    bool json;
    unsigned case_number;
    unsigned bars;
    unsigned missed;
};

double runner_min(const struct runner *runner);
double runner_median(const struct runner *runner);

void outcome_case(struct outcome *outcome, unsigned number, const char *title);
void outcome_runner(struct outcome *outcome, const struct runner *runner);
void outcome_bar(struct outcome *outcome, const struct bar *bar);
/* A number without a bar, in bytes. */
void outcome_bytes(struct outcome *outcome, const char *what, uint64_t bytes);
/* Say why something was not measured. */
void outcome_skip(struct outcome *outcome, const char *why);
void outcome_end(const struct outcome *outcome);

#endif
