/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Requests in flight, by guest range: who may go on beside whom.
 *
 * A request is a place in a queue. It goes ahead once nothing older overlaps it, unless both only
 * share. So nobody starves, and as all wait for older ones alone, nobody waits in a circle. There
 * are as many entries as threads, so that a list is enough. */

#ifndef Q2_IMAGE_RANGES_H
#define Q2_IMAGE_RANGES_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* Lives on the stack of the request. */
struct q2_range {
    uint64_t start; /* guest bytes */
    uint64_t end;
    bool exclusive;
    struct q2_range *older, *newer;
};

struct q2_ranges {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct q2_range *oldest, *newest;
    unsigned waiting;
};

void q2_ranges_init(struct q2_ranges *ranges);
void q2_ranges_destroy(struct q2_ranges *ranges);

/* Wait until [start, end) is free of conflicts, and hold it. */
void q2_range_hold(struct q2_ranges *ranges, struct q2_range *range, uint64_t start, uint64_t end,
                   bool exclusive);
void q2_range_release(struct q2_ranges *ranges, struct q2_range *range);

#endif
