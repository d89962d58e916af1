/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/image/ranges.h"

#include <stddef.h>

void
q2_ranges_init(struct q2_ranges *ranges)
{
    *ranges = (struct q2_ranges){0};
    pthread_mutex_init(&ranges->lock, NULL);
    pthread_cond_init(&ranges->changed, NULL);
}

void
q2_ranges_destroy(struct q2_ranges *ranges)
{
    pthread_cond_destroy(&ranges->changed);
    pthread_mutex_destroy(&ranges->lock);
}

static bool
conflict(const struct q2_range *a, const struct q2_range *b)
{
    return (a->exclusive || b->exclusive) && a->start < b->end && b->start < a->end;
}

static bool
must_wait(const struct q2_range *range)
{
    for (const struct q2_range *at = range->older; at; at = at->older)
        if (conflict(range, at))
            return true;
    return false;
}

void
q2_range_hold(struct q2_ranges *ranges, struct q2_range *range, uint64_t start, uint64_t end,
              bool exclusive)
{
    *range = (struct q2_range){.start = start, .end = end, .exclusive = exclusive};
    pthread_mutex_lock(&ranges->lock);
    range->older = ranges->newest;
    if (ranges->newest)
        ranges->newest->newer = range;
    else
        ranges->oldest = range;
    ranges->newest = range;
    while (must_wait(range)) {
        ranges->waiting++;
        pthread_cond_wait(&ranges->changed, &ranges->lock);
        ranges->waiting--;
    }
    pthread_mutex_unlock(&ranges->lock);
}

void
q2_range_release(struct q2_ranges *ranges, struct q2_range *range)
{
    pthread_mutex_lock(&ranges->lock);
    if (range->older)
        range->older->newer = range->newer;
    else
        ranges->oldest = range->newer;
    if (range->newer)
        range->newer->older = range->older;
    else
        ranges->newest = range->older;
    bool wake = ranges->waiting > 0;
    pthread_mutex_unlock(&ranges->lock);
    if (wake)
        pthread_cond_broadcast(&ranges->changed);
}
