/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Pieces are cut one at a time, each is prepared and finished once on the thread that has it, in
 * order where that is asked for; the first in order to fail says why all end. */

#include "core/base/flow.h"
#include "tests/threads/threads.h"

#include <stdatomic.h>
#include <string.h>

enum { PIECES = 4000 };

struct work {
    uint64_t cut; /* plain, like `finished`: the flow alone keeps threads apart */
    uint64_t finished;
    bool ordered;
    _Atomic bool cutting;
    _Atomic bool busy[THREADS];
    uint64_t prepared[THREADS]; /* the piece that a worker has */
    _Atomic unsigned runs[PIECES];
    uint64_t fail_cut, fail_prepare, fail_finish; /* numbers; UINT64_MAX: none */
    int result;                                   /* of the one that fails */
};

static int
fail(struct work *work, uint64_t number, struct q2_error *err)
{
    if (work->result < 0)
        q2_error_set(err, (enum q2_error_code)work->result, "piece %d", (int)number);
    return work->result;
}

static int
next(void *data, struct q2_piece *ret_piece, struct q2_error *err)
{
    struct work *work = data;
    MUST(!atomic_exchange(&work->cutting, true));
    uint64_t number = work->cut;
    int rc = number < PIECES;
    if (number == work->fail_cut)
        rc = fail(work, number, err);
    work->cut += rc > 0;
    ret_piece->offset = number * 10;
    atomic_store(&work->cutting, false);
    return rc;
}

static int
prepare(void *data, unsigned worker, const struct q2_piece *piece, struct q2_error *err)
{
    struct work *work = data;
    MUST(worker < THREADS && !atomic_exchange(&work->busy[worker], true));
    MUST(piece->offset == piece->number * 10);
    work->prepared[worker] = piece->number;
    if (piece->number != work->fail_prepare)
        return 0;
    return fail(work, piece->number, err);
}

static int
finish(void *data, unsigned worker, const struct q2_piece *piece, struct q2_error *err)
{
    struct work *work = data;
    MUST(work->prepared[worker] == piece->number);
    MUST(atomic_fetch_add(&work->runs[piece->number], 1) == 0);
    if (work->ordered)
        MUST(work->finished++ == piece->number);
    atomic_store(&work->busy[worker], false);
    return piece->number == work->fail_finish ? fail(work, piece->number, err) : 0;
}

static int
run(struct work *work, unsigned threads, struct q2_error *err)
{
    const struct q2_flow flow = {
        .threads = threads,
        .ordered = work->ordered,
        .next = next,
        .prepare = prepare,
        .finish = finish,
        .data = work,
    };
    return q2_flow_run(&flow, err);
}

static struct work
work_new(bool ordered)
{
    return (struct work){.ordered = ordered,
                         .fail_cut = UINT64_MAX,
                         .fail_prepare = UINT64_MAX,
                         .fail_finish = UINT64_MAX,
                         .result = Q2_ERR_IO};
}

static void
each_once(void)
{
    for (unsigned threads = 1; threads <= THREADS; threads++)
        for (int ordered = 0; ordered < 2; ordered++) {
            struct work work = work_new(ordered);
            MUST(run(&work, threads, NULL) == 0);
            for (unsigned i = 0; i < PIECES; i++)
                MUST(work.runs[i] == 1);
        }
}

/* All before it are finished, none behind it; its error is told, whichever thread failed first. */
static void
first_failure(void)
{
    for (int where = 0; where < 3; where++) {
        struct work work = work_new(true);
        struct q2_error err = {0};
        uint64_t *number = where == 0   ? &work.fail_cut
                           : where == 1 ? &work.fail_prepare
                                        : &work.fail_finish;
        *number = 1000;
        MUST(run(&work, THREADS, &err) == Q2_ERR_IO && err.code == Q2_ERR_IO);
        MUST(strcmp(err.message, "piece 1000") == 0);
        MUST(where == 0 ? work.finished <= 1000 : work.finished == 1000 + (where == 2));
    }
}

static void
positive_result(void)
{
    struct work work = work_new(true);
    work.fail_finish = 70;
    work.result = 5;
    MUST(run(&work, THREADS, NULL) == 5);
    MUST(work.finished == 71);
}

int
main(void)
{
    each_once();
    first_failure();
    positive_result();
    unsigned threads = q2_flow_threads();
    MUST(threads >= 1 && threads <= 16);
    return 0;
}
