/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Loops on several threads: each turn once, no worker twice at a time, the first error. */

#include "core/base/parallel.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { TURNS = 5000, THREADS = 8 };

struct state {
    _Atomic unsigned done[TURNS];
    _Atomic bool busy[THREADS];
    _Atomic unsigned clashes;
    uint64_t fail_from; /* turns from here on fail */
    pthread_t caller;
    uint64_t last_progress;
    unsigned progress_calls;
    bool progress_elsewhere;
};

static struct state state;

static void
setup(void)
{
    for (unsigned i = 0; i < TURNS; i++)
        atomic_store(&state.done[i], 0);
    state.fail_from = UINT64_MAX;
    state.caller = pthread_self();
}

static int
turn(void *data, unsigned worker, uint64_t number, struct q2_error *err)
{
    struct state *own = data;
    if (worker >= THREADS || atomic_exchange(&own->busy[worker], true))
        atomic_fetch_add(&own->clashes, 1);
    else
        atomic_store(&own->busy[worker], false);
    atomic_fetch_add(&own->done[number], 1);
    if (number >= own->fail_from)
        return q2_error_set(err, Q2_ERR_RANGE, "turn %llu", (unsigned long long)number);
    return 0;
}

static void
progress(void *data, uint64_t done)
{
    struct state *own = data;
    own->progress_elsewhere |= !pthread_equal(pthread_self(), own->caller);
    own->progress_calls++;
    own->last_progress = done;
}

static struct q2_loop
make_loop(unsigned threads, uint64_t turns)
{
    return (struct q2_loop){
        .threads = threads, .turns = turns, .turn = turn, .progress = progress, .data = &state};
}

TestSuite(parallel, .init = setup);

Test(parallel, each_turn_once)
{
    static const unsigned threads[] = {1, 2, THREADS};
    for (size_t t = 0; t < 3; t++) {
        setup();
        struct q2_loop loop = make_loop(threads[t], TURNS);
        cr_expect_eq(q2_loop_run(&loop, NULL), 0);
        for (unsigned i = 0; i < TURNS; i++)
            cr_assert_eq(atomic_load(&state.done[i]), 1, "turn %u on %u threads", i, threads[t]);
        cr_expect_eq(atomic_load(&state.clashes), 0);
    }
    cr_expect_gt(state.progress_calls, 0);
    cr_expect(!state.progress_elsewhere, "only on the calling thread");
    cr_expect_leq(state.last_progress, TURNS);
}

Test(parallel, nothing_to_do)
{
    struct q2_loop loop = make_loop(THREADS, 0);
    cr_expect_eq(q2_loop_run(&loop, NULL), 0);
    cr_expect_eq(state.progress_calls, 0);
}

Test(parallel, more_threads_than_turns)
{
    struct q2_loop loop = make_loop(THREADS, 2);
    loop.progress = NULL;
    cr_expect_eq(q2_loop_run(&loop, NULL), 0);
    cr_expect_eq(atomic_load(&state.done[0]), 1);
    cr_expect_eq(atomic_load(&state.done[1]), 1);
    cr_expect_eq(atomic_load(&state.done[2]), 0);
}

Test(parallel, an_error_ends_it)
{
    for (unsigned threads = 1; threads <= THREADS; threads *= 2) {
        setup();
        struct q2_error err = {0};
        struct q2_loop loop = make_loop(threads, TURNS);
        state.fail_from = 100;
        cr_expect_eq(q2_loop_run(&loop, &err), Q2_ERR_RANGE);
        cr_expect_str_eq(err.message, "turn 100", "the lowest turn that failed");
        unsigned ran = 0;
        for (unsigned i = 0; i < TURNS; i++)
            ran += atomic_load(&state.done[i]);
        cr_expect_geq(ran, 101);
        cr_expect_lt(ran, TURNS, "the rest did not run");
        cr_expect_eq(q2_loop_run(&loop, NULL), Q2_ERR_RANGE, "without a place for the message");
    }
}
