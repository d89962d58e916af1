/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What is measured, and the bars that it is held to. */

#ifndef Q2_BENCH_CASES_H
#define Q2_BENCH_CASES_H

#include "tests/bench/images.h"
#include "tests/bench/outcome.h"

enum { CASES = 6 };

struct bench {
    const char *self;  /* this program */
    const char *check; /* qcow2-check */
    unsigned rounds;
    struct images images;
    struct outcome outcome;
};

/* Measure one case, 1 to CASES. Returns false, with a message printed, if something of it could not
 * be run. */
bool case_run(struct bench *bench, unsigned number);

#endif
