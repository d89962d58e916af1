/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Most checks end before anybody could read a line, so that nothing is drawn in the first half
 * second, and no more than four times a second after that (once, where lines pile up in a log). */

#include "checker/console/progress.h"

#include "checker/console/say.h"
#include "checker/format.h"

#include <inttypes.h>
#include <time.h>
#include <unistd.h>

static double
now_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void
progress_init(struct progress *progress, bool eager)
{
    *progress =
        (struct progress){.terminal = say_is_terminal(STDERR_FILENO), .begun = now_seconds()};
    progress->last = progress->begun + (eager ? -1.0 : 0.25);
}

/* Whether it is time to draw again; `last` is the only state. */
static bool
is_due(struct progress *progress, double now)
{
    if (now - progress->last < (progress->terminal ? 0.25 : 1.0))
        return false;
    progress->last = now;
    return true;
}

static void
draw(struct progress *progress, const char *line)
{
    fprintf(stderr, progress->terminal ? "\r%s\033[K" : "%s\n", line);
    fflush(stderr);
    progress->drawn = progress->terminal;
}

const char *
progress_line(const struct q2_progress *now, double seconds, char *buffer, size_t size)
{
    size_t used = 0;
    double rate = seconds > 0 ? (double)now->done / seconds : 0;
    q2_format_append(buffer, size, &used, "%s", now->phase);
    if (now->total == 0 && now->done)
        q2_format_append(buffer, size, &used, ", %s", q2_format_size(now->done).text);
    if (now->total > 1)
        q2_format_append(buffer, size, &used, ", %.1f %% of %s",
                         100.0 * (double)now->done / (double)now->total,
                         q2_format_size(now->total).text);
    if (rate < 1)
        return buffer;
    q2_format_append(buffer, size, &used, ", %s/s", q2_format_size((uint64_t)rate).text);
    if (now->total > now->done) {
        uint64_t left = (uint64_t)((double)(now->total - now->done) / rate) + 1;
        q2_format_append(buffer, size, &used, ", %" PRIu64 ":%02" PRIu64 " left", left / 60,
                         left % 60);
    }
    return buffer;
}

void
progress_show(void *data, const struct q2_progress *status)
{
    struct progress *progress = data;
    double now = now_seconds();
    char line[128];
    if (progress->phase != status->phase) {
        progress->phase = status->phase;
        progress->phase_begun = now;
    }
    if (is_due(progress, now))
        draw(progress, progress_line(status, now - progress->phase_begun, line, sizeof line));
}

void
progress_show_images(struct progress *progress, size_t done, size_t total)
{
    char line[128];
    if (!is_due(progress, now_seconds()))
        return;
    snprintf(line, sizeof line, "%zu of %zu images checked", done, total);
    draw(progress, line);
}

void
progress_end(struct progress *progress)
{
    if (progress->drawn)
        fputs("\r\033[K", stderr);
    progress->drawn = false;
}
