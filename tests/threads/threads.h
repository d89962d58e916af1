/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Run a function on several threads at once; fail loudly. */

#ifndef Q2_TESTS_THREADS_H
#define Q2_TESTS_THREADS_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 8 };

#define MUST(condition)                                                             \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                \
        }                                                                           \
    } while (0)

struct threads_job {
    void (*run)(void *data, unsigned thread);
    void *data;
    unsigned thread;
};

static inline void *
threads_main(void *data)
{
    struct threads_job *job = data;
    job->run(job->data, job->thread);
    return NULL;
}

static inline void
threads_run(void (*run)(void *data, unsigned thread), void *data)
{
    pthread_t threads[THREADS];
    struct threads_job jobs[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        jobs[i] = (struct threads_job){.run = run, .data = data, .thread = i};
        MUST(pthread_create(&threads[i], NULL, threads_main, &jobs[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        MUST(pthread_join(threads[i], NULL) == 0);
}

#endif
