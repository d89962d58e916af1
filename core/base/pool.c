/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/base/pool.h"

#include <pthread.h>
#include <stdlib.h>

/* Jobs are shallow code over heap buffers; sanitizers need more room than that. */
enum { STACK_BYTES = 512 * 1024 };

/* The caller's index; threads count from 1. */
enum { CALLER = 0 };

struct worker {
    struct q2_pool *pool;
    unsigned index;
    pthread_t thread;
};

struct q2_pool {
    pthread_mutex_t lock; /* of all below but the workers, and of the jobs' private members */
    pthread_cond_t work;  /* there is a job, or the end */
    pthread_cond_t done;  /* a job is done */
    struct q2_job *first, *last;
    unsigned pending; /* jobs queued or running */
    bool stop;
    unsigned started;
    struct worker workers[];
};

/* Run the first job of the queue, which is not empty. The lock is held, but not meanwhile. */
static void
run_first(struct q2_pool *pool, unsigned worker)
{
    struct q2_job *job = pool->first;
    pool->first = job->next;
    pthread_mutex_unlock(&pool->lock);
    job->run(job->data, worker);
    pthread_mutex_lock(&pool->lock);
    job->pending = false;
    pool->pending--;
    pthread_cond_signal(&pool->done);
}

static void *
worker_main(void *data)
{
    struct worker *worker = data;
    struct q2_pool *pool = worker->pool;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        if (pool->first)
            run_first(pool, worker->index);
        else if (pool->stop)
            break;
        else
            pthread_cond_wait(&pool->work, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static void
start(struct q2_pool *pool, unsigned count)
{
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    for (; pool->started < count; pool->started++) {
        struct worker *worker = &pool->workers[pool->started];
        *worker = (struct worker){.pool = pool, .index = CALLER + 1 + pool->started};
        if (pthread_create(&worker->thread, &attributes, worker_main, worker) != 0)
            break;
    }
    pthread_attr_destroy(&attributes);
}

int
q2_pool_new(unsigned threads, struct q2_pool **ret_pool, struct q2_error *err)
{
    unsigned others = threads > 1 ? threads - 1 : 0;
    struct q2_pool *pool = calloc(1, sizeof *pool + others * sizeof pool->workers[0]);
    if (!pool)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a pool of %u threads", threads);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    start(pool, others);
    *ret_pool = pool;
    return 0;
}

void
q2_pool_free(struct q2_pool *pool)
{
    if (!pool)
        return;
    q2_pool_wait_all(pool);
    pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

void
q2_pool_submit(struct q2_pool *pool, struct q2_job *job)
{
    pthread_mutex_lock(&pool->lock);
    job->next = NULL;
    job->pending = true;
    if (pool->first)
        pool->last->next = job;
    else
        pool->first = job;
    pool->last = job;
    pool->pending++;
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

/* What a caller does who cannot go on: a queued job, or nothing until one is done. The lock is
 * held. */
static void
help(struct q2_pool *pool)
{
    if (pool->first)
        run_first(pool, CALLER);
    else
        pthread_cond_wait(&pool->done, &pool->lock);
}

void
q2_pool_wait(struct q2_pool *pool, struct q2_job *job)
{
    pthread_mutex_lock(&pool->lock);
    while (job->pending)
        help(pool);
    pthread_mutex_unlock(&pool->lock);
}

void
q2_pool_wait_all(struct q2_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    while (pool->pending)
        help(pool);
    pthread_mutex_unlock(&pool->lock);
}
