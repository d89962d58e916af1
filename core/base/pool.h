/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A few threads that run jobs, for work whose results are wanted in order.
 *
 * The caller owns the jobs, usually as a ring: it submits the next, waits for the oldest, uses its
 * result, and fills it again. So the ring bounds what is under way, and the pool allocates nothing
 * and cannot fail once it is made. Who waits for a job that is not done runs queued ones meanwhile:
 * the caller counts as one of the threads, and a pool of one has no other. */

#ifndef Q2_BASE_POOL_H
#define Q2_BASE_POOL_H

#include "core/base/error.h"

#include <stdbool.h>

struct q2_pool;

struct q2_job {
    /* What fails notes it in `data`, for who waits. `worker` is below the pool's threads and never
     * the same in two jobs at once: the index of what a thread has for itself, say an encoder. */
    void (*run)(void *data, unsigned worker);
    void *data;
    struct q2_job *next; /* the pool's, like `pending`: begin with zeros */
    bool pending;
};

/* A pool of at most `threads` threads, the caller among them; at least 1. Fewer serve as well, so
 * that only memory can be missing. */
int q2_pool_new(unsigned threads, struct q2_pool **ret_pool, struct q2_error *err);

/* Waits for all jobs, then ends the threads. */
void q2_pool_free(struct q2_pool *pool);

/* ---- for one thread at a time, and not from within a job ---- */

/* Jobs start in the order of submission. The job must stay where it is, and must not be submitted
 * again, until it was waited for. */
void q2_pool_submit(struct q2_pool *pool, struct q2_job *job);

/* Return when the job is done, at once if it was never submitted. All that it wrote can be read. */
void q2_pool_wait(struct q2_pool *pool, struct q2_job *job);
void q2_pool_wait_all(struct q2_pool *pool);

#endif
