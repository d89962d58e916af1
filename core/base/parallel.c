/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/base/parallel.h"

#include "core/base/cleanup.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* Workers run shallow code over heap buffers; sanitizers need more room than that. */
enum { STACK_BYTES = 512 * 1024 };

struct run {
    const struct q2_loop *loop;
    _Atomic uint64_t next;
    _Atomic uint64_t done;
    _Atomic bool stop;
    pthread_mutex_t lock; /* of the error */
    int failed;
    uint64_t failed_turn;
    struct q2_error error;
};

struct worker {
    struct run *run;
    unsigned index;
    pthread_t thread;
};

static void
record_failure(struct run *run, uint64_t turn, int rc, const struct q2_error *error)
{
    pthread_mutex_lock(&run->lock);
    if (!run->failed || turn < run->failed_turn) {
        run->failed = rc;
        run->failed_turn = turn;
        run->error = *error;
    }
    pthread_mutex_unlock(&run->lock);
    atomic_store(&run->stop, true);
}

static void
work(struct run *run, unsigned worker, bool reports)
{
    const struct q2_loop *loop = run->loop;
    while (!atomic_load(&run->stop)) {
        uint64_t turn = atomic_fetch_add(&run->next, 1);
        if (turn >= loop->turns)
            return;
        struct q2_error error = {0};
        int rc = loop->turn(loop->data, worker, turn, &error);
        if (rc < 0)
            record_failure(run, turn, rc, &error);
        uint64_t done = atomic_fetch_add(&run->done, 1) + 1;
        if (reports && loop->progress)
            loop->progress(loop->data, done);
    }
}

static void *
worker_main(void *data)
{
    struct worker *worker = data;
    work(worker->run, worker->index, false);
    return NULL;
}

/* Start up to `count` threads; fewer are as good. Returns how many run. */
static unsigned
start(struct run *run, struct worker *workers, unsigned count)
{
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return 0;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    unsigned started = 0;
    while (started < count) {
        workers[started] = (struct worker){.run = run, .index = started + 1};
        if (pthread_create(&workers[started].thread, &attributes, worker_main, &workers[started]) !=
            0)
            break;
        started++;
    }
    pthread_attr_destroy(&attributes);
    return started;
}

int
q2_loop_run(const struct q2_loop *loop, struct q2_error *err)
{
    struct run run = {.loop = loop, .lock = PTHREAD_MUTEX_INITIALIZER};
    unsigned helpers = loop->threads > loop->turns ? (unsigned)loop->turns : loop->threads;
    helpers = helpers > 1 ? helpers - 1 : 0;

    Q2_AUTOFREE struct worker *workers = helpers ? calloc(helpers, sizeof *workers) : NULL;
    unsigned started = workers ? start(&run, workers, helpers) : 0;
    work(&run, 0, true);
    for (unsigned i = 0; i < started; i++)
        pthread_join(workers[i].thread, NULL);

    if (run.failed && err)
        *err = run.error;
    return run.failed;
}
