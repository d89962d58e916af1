/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Power cuts: all changes of the image file are recorded, and after each of them, with all, none or
 * some of what had not been flushed, the image must open, hold what was flushed, and have nothing
 * worse than leaked clusters. */

#ifndef Q2_TESTS_STRESS_CRASH_H
#define Q2_TESTS_STRESS_CRASH_H

#include "tests/stress/history.h"

/* What had reached the disk of the changes since the last flush. */
enum kept_writes { KEPT_ALL, KEPT_NONE, KEPT_SOME, KEPT_SECTORS, KEPT_WAYS };

/* What happened to the image of a run, and what the image was meanwhile. */
struct crash {
    struct run *run;
    struct q2_file *record, *before;
    struct history history;
};

/* Begin the run and do the steps, to the end. The image must not have a data file: one file alone
 * is recorded. */
bool crash_record(struct crash *crash, const struct params *params, const struct step *steps,
                  unsigned count);
/* How many changes there were. */
size_t crash_count(const struct crash *crash);
/* How many of the first `count` had been flushed. */
size_t crash_durable(const struct crash *crash, size_t count);
/* Cut the power after `count` changes, and look at what is left. `random` says what is kept. */
bool crash_cut(struct crash *crash, size_t count, enum kept_writes way, uint64_t random);
void crash_destroy(struct crash *crash);

#endif
