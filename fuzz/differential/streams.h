/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What a child reads and prints: files in memory, so that nobody has to listen meanwhile. */

#ifndef Q2_FUZZ_DIFFERENTIAL_STREAMS_H
#define Q2_FUZZ_DIFFERENTIAL_STREAMS_H

#include "fuzz/differential/run.h"

struct streams {
    int in, out, err;
};

/* `text` is what there is to read; NULL: nothing. */
struct streams streams_new(const char *text);
/* Empty them, for another child or another question. */
void streams_fill(const struct streams *streams, const char *text);
/* What was printed, as part of the outcome. */
void streams_take(const struct streams *streams, struct outcome *outcome);
void streams_close(const struct streams *streams);

/* In the child: these are its streams, and it writes no core and no file without end. */
void streams_settle(const struct streams *streams);

/* How a child ended, as part of the outcome; `status` is that of waitpid(). */
void outcome_set(struct outcome *outcome, bool hangs, int status);

/* The harness itself cannot go on. */
void run_die(const char *what) __attribute__((noreturn));

#endif
