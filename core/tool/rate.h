/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A limit on bytes for each second, kept by several threads together. */

#ifndef Q2_TOOL_RATE_H
#define Q2_TOOL_RATE_H

#include <pthread.h>
#include <stdint.h>

struct rate {
    uint64_t limit; /* bytes for each second; 0: none */
    pthread_mutex_t lock;
    double free_at; /* seconds: when all that was passed so far is paid for */
};

void rate_init(struct rate *rate, uint64_t limit);
/* Wait until `bytes` more may pass. */
void rate_wait(struct rate *rate, uint64_t bytes);
void rate_destroy(struct rate *rate);

/* Seconds on a clock that only goes forward. */
double rate_now(void);

#endif
