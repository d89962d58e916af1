/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Child processes, and what they cost. */

#ifndef Q2_BENCH_CHILD_H
#define Q2_BENCH_CHILD_H

#include <stdbool.h>
#include <stdint.h>

struct child_cost {
    double wall;   /* seconds */
    double cpu;    /* user and system, seconds */
    uint64_t peak; /* of the resident memory, bytes */
    int status;    /* exit status */
};

/* Run `argv` (ended by NULL, found by PATH) with its output thrown away, or with its output shown
 * as the caller's own diagnostics if `shown`. Returns false, with a message printed, if it could
 * not be started or was ended by a signal. */
bool child_run(const char *const *argv, bool shown, struct child_cost *ret_cost);

/* Run `argv` and count the bytes that it prints, diagnostics included. */
bool child_count_output(const char *const *argv, uint64_t *ret_bytes);

/* Write what is dirty and empty the page cache; false where that is not allowed. */
bool child_drop_caches(void);

#endif
