/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The line that moves: phase, share, rate and time left, on stderr. */

#ifndef Q2_CHECKER_CONSOLE_PROGRESS_H
#define Q2_CHECKER_CONSOLE_PROGRESS_H

#include "checker/check.h"

struct progress {
    bool terminal; /* the line is drawn over itself; otherwise each is a line of its own */
    bool drawn;    /* there is a line to wipe */
    const char *phase;
    double begun;       /* seconds: when the check began */
    double phase_begun; /* seconds: when the phase began */
    double last;        /* seconds: when the line was last drawn */
};

/* `eager`: it was asked for, so that even the shortest check draws a line. */
void progress_init(struct progress *progress, bool eager);

/* A callback for struct q2_check_options; `data` is a struct progress. */
void progress_show(void *data, const struct q2_progress *now);

/* "12 of 300 images checked". */
void progress_show_images(struct progress *progress, size_t done, size_t total);

/* Wipe the line, before anything else is printed. */
void progress_end(struct progress *progress);

/* Make the line: separate, so that it can be tested without a clock. `seconds` is the age of the
 * phase. Returns `buffer`. */
const char *progress_line(const struct q2_progress *now, double seconds, char *buffer, size_t size);

#endif
