/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The results of all cases, as tables for people or lines of CSV for programs. */

#ifndef Q2_BENCH_RECOVERY_TABLE_H
#define Q2_BENCH_RECOVERY_TABLE_H

#include "tests/bench/recovery/measure.h"

struct case_id {
    const struct subject *subject;
    unsigned damage; /* index of damages */
    uint64_t seed;
};

struct table {
    const struct case_id *ids;
    const struct result *results; /* one for each */
    unsigned count;
    unsigned worst; /* how many of the worst cases to list */
};

/* Print a line for each class and the totals, then the worst cases and how to repeat them. Returns
 * the number of bars that our own repair misses. */
unsigned table_print(const struct table *table);

/* A line for each case and way. */
void table_print_csv(const struct table *table);

#endif
