/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Pieces are cut in order and each is taken by the thread that cut it, so that the lowest number
 * that is not finished always belongs to somebody who does not wait: the order cannot lock up. */

#include "core/base/flow.h"

#include "core/base/parallel.h"

#include <pthread.h>
#include <unistd.h>

struct run {
    const struct q2_flow *flow;
    pthread_mutex_t lock;
    pthread_cond_t turn;
    uint64_t cut;      /* pieces so far */
    uint64_t finished; /* if ordered */
    bool stop;
    int result;
    struct q2_error error;
};

/* With the lock held. The first result stays. */
static void
stop_run(struct run *run, int result, const struct q2_error *error)
{
    if (!run->stop) {
        run->result = result;
        run->error = *error;
    }
    run->stop = true;
    pthread_cond_broadcast(&run->turn);
}

static bool
cut_piece(struct run *run, struct q2_piece *piece)
{
    struct q2_error error = {0};
    pthread_mutex_lock(&run->lock);
    bool got = false;
    if (!run->stop) {
        *piece = (struct q2_piece){0};
        int rc = run->flow->next(run->flow->data, piece, &error);
        piece->number = run->cut;
        got = rc > 0;
        run->cut += got;
        if (rc < 0)
            stop_run(run, rc, &error);
    }
    pthread_mutex_unlock(&run->lock);
    return got;
}

/* Whether the piece is to be finished. */
static bool
wait_for_turn(struct run *run, const struct q2_piece *piece)
{
    pthread_mutex_lock(&run->lock);
    while (run->flow->ordered && !run->stop && run->finished != piece->number)
        pthread_cond_wait(&run->turn, &run->lock);
    bool go = !run->stop;
    pthread_mutex_unlock(&run->lock);
    return go;
}

static void
end_turn(struct run *run, int rc, const struct q2_error *error)
{
    pthread_mutex_lock(&run->lock);
    run->finished++;
    if (rc != 0)
        stop_run(run, rc, error);
    else if (run->flow->ordered)
        pthread_cond_broadcast(&run->turn);
    pthread_mutex_unlock(&run->lock);
}

static int
work(void *data, unsigned worker, uint64_t turn, struct q2_error *err)
{
    (void)turn;
    (void)err;
    struct run *run = data;
    const struct q2_flow *flow = run->flow;
    struct q2_piece piece;
    while (cut_piece(run, &piece)) {
        struct q2_error error = {0};
        int rc = flow->prepare(flow->data, worker, &piece, &error);
        if (!wait_for_turn(run, &piece))
            break;
        if (rc == 0)
            rc = flow->finish(flow->data, worker, &piece, &error);
        end_turn(run, rc, &error);
    }
    return 0;
}

int
q2_flow_run(const struct q2_flow *flow, struct q2_error *err)
{
    struct run run = {.flow = flow,
                      .lock = PTHREAD_MUTEX_INITIALIZER,
                      .turn = PTHREAD_COND_INITIALIZER};
    const struct q2_loop loop = {.threads = flow->threads,
                                 .turns = flow->threads,
                                 .turn = work,
                                 .data = &run};
    int rc = q2_loop_run(&loop, err);
    if (rc < 0)
        return rc;
    if (run.result < 0 && err)
        *err = run.error;
    return run.result;
}

unsigned
q2_flow_threads(void)
{
    enum { MIN = 4, MAX = 8 };
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    return processors < MIN ? MIN : processors > MAX ? MAX : (unsigned)processors;
}
