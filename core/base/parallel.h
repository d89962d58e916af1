/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A loop whose turns run on several threads, in no particular order. */

#ifndef Q2_BASE_PARALLEL_H
#define Q2_BASE_PARALLEL_H

#include "core/base/error.h"

#include <stdint.h>

struct q2_loop {
    unsigned threads; /* at most; at least 1 */
    uint64_t turns;
    /* One turn. `worker` is below `threads` and never the same on two threads at once. A negative
     * code ends the loop. */
    int (*turn)(void *data, unsigned worker, uint64_t turn, struct q2_error *err);
    /* Called on the calling thread from time to time with the number of turns done; may be NULL. */
    void (*progress)(void *data, uint64_t done);
    void *data;
};

/* Run all turns. Returns the error of the lowest-numbered turn that failed among those that ran. */
int q2_loop_run(const struct q2_loop *loop, struct q2_error *err);

#endif
