/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Jobs of a pool run once each, none beside another with the same worker's index, and what they
 * wrote is there for who waited: with a ring that is used over and over, with everything at once,
 * and when the pool ends before anybody waited. */

#include "core/base/pool.h"
#include "tests/threads/threads.h"

#include <stdatomic.h>
#include <stdint.h>

enum { RING = 5, ROUNDS = 4000, MANY = 300 };

struct task {
    struct q2_job job;
    struct shared *shared;
    uint32_t input, output; /* plain: the pool alone keeps threads apart */
    unsigned runs;
};

/* What jobs of one worker share without a lock. */
struct shared {
    unsigned threads;
    uint64_t jobs[THREADS];
    _Atomic bool busy[THREADS];
};

static void
square(void *data, unsigned worker)
{
    struct task *task = data;
    MUST(worker < task->shared->threads);
    MUST(!atomic_exchange(&task->shared->busy[worker], true));
    task->shared->jobs[worker]++;
    task->output = task->input * task->input;
    task->runs++;
    atomic_store(&task->shared->busy[worker], false);
}

static void
prepare(struct task *task, struct shared *shared, uint32_t input)
{
    task->shared = shared;
    task->input = input;
    task->job.run = square;
    task->job.data = task;
}

static uint64_t
jobs_of(const struct shared *shared)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < shared->threads; i++)
        sum += shared->jobs[i];
    return sum;
}

/* Results in order, out of a ring. */
static void
try_ring(unsigned threads)
{
    struct shared shared = {.threads = threads};
    struct task ring[RING] = {0};
    struct q2_pool *pool;
    MUST(q2_pool_new(threads, &pool, NULL) == 0);
    for (uint32_t i = 0; i < ROUNDS + RING; i++) {
        struct task *task = &ring[i % RING];
        q2_pool_wait(pool, &task->job); /* the first round waits for jobs that never were */
        if (i >= RING)
            MUST(task->output == (i - RING) * (i - RING) && task->runs == i / RING);
        if (i >= ROUNDS)
            continue;
        prepare(task, &shared, i);
        q2_pool_submit(pool, &task->job);
    }
    MUST(jobs_of(&shared) == ROUNDS);
    q2_pool_free(pool);
}

enum ending { WAIT_ALL, WAIT_LAST_FIRST, JUST_FREE };

static void
try_many(unsigned threads, enum ending ending)
{
    struct shared shared = {.threads = threads};
    static struct task tasks[MANY];
    struct q2_pool *pool;
    MUST(q2_pool_new(threads, &pool, NULL) == 0);
    for (uint32_t i = 0; i < MANY; i++) {
        tasks[i] = (struct task){0};
        prepare(&tasks[i], &shared, i);
        q2_pool_submit(pool, &tasks[i].job);
    }
    if (ending == WAIT_ALL)
        q2_pool_wait_all(pool);
    for (uint32_t i = MANY; ending == WAIT_LAST_FIRST && i-- > 0;) {
        q2_pool_wait(pool, &tasks[i].job);
        MUST(tasks[i].output == i * i);
    }
    if (ending == JUST_FREE)
        q2_pool_free(pool);
    for (uint32_t i = 0; i < MANY; i++)
        MUST(tasks[i].output == i * i && tasks[i].runs == 1);
    if (ending != JUST_FREE)
        q2_pool_free(pool);
}

/* Two jobs that wait for each other get through only if they run at the same time. */
struct meeting {
    struct q2_job job;
    pthread_barrier_t *barrier;
    unsigned worker;
};

static void
meet(void *data, unsigned worker)
{
    struct meeting *meeting = data;
    meeting->worker = worker;
    pthread_barrier_wait(meeting->barrier);
}

static void
try_meeting(void)
{
    pthread_barrier_t barrier;
    struct meeting both[2];
    struct q2_pool *pool;
    MUST(pthread_barrier_init(&barrier, NULL, 2) == 0);
    MUST(q2_pool_new(2, &pool, NULL) == 0);
    for (unsigned i = 0; i < 2; i++) {
        both[i] = (struct meeting){{.run = meet, .data = &both[i]}, &barrier, 9};
        q2_pool_submit(pool, &both[i].job);
    }
    q2_pool_wait_all(pool);
    MUST(both[0].worker != both[1].worker && both[0].worker + both[1].worker == 1);
    q2_pool_free(pool);
    pthread_barrier_destroy(&barrier);
}

int
main(void)
{
    for (unsigned threads = 1; threads <= THREADS; threads = threads * 2) {
        try_ring(threads);
        for (enum ending ending = WAIT_ALL; ending <= JUST_FREE; ending++)
            try_many(threads, ending);
    }
    try_meeting();
    struct q2_pool *idle;
    MUST(q2_pool_new(0, &idle, NULL) == 0);
    q2_pool_wait_all(idle);
    q2_pool_free(idle);
    q2_pool_free(NULL);
    return 0;
}
