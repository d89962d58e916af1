/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/tool/rate.h"

#include <time.h>

double
rate_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void
rate_init(struct rate *rate, uint64_t limit)
{
    rate->limit = limit;
    rate->free_at = 0;
    pthread_mutex_init(&rate->lock, NULL);
}

void
rate_wait(struct rate *rate, uint64_t bytes)
{
    if (!rate->limit)
        return;
    double now = rate_now();
    pthread_mutex_lock(&rate->lock);
    double begin = rate->free_at > now ? rate->free_at : now;
    rate->free_at = begin + (double)bytes / (double)rate->limit;
    pthread_mutex_unlock(&rate->lock);
    if (begin <= now)
        return;
    double wait = begin - now;
    struct timespec pause = {.tv_sec = (time_t)wait};
    pause.tv_nsec = (long)((wait - (double)pause.tv_sec) * 1e9);
    nanosleep(&pause, NULL);
}

void
rate_destroy(struct rate *rate)
{
    pthread_mutex_destroy(&rate->lock);
}
