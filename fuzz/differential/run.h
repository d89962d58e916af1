/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Running something that may hang, crash or eat all memory, and keeping what it printed. */

#ifndef Q2_FUZZ_DIFFERENTIAL_RUN_H
#define Q2_FUZZ_DIFFERENTIAL_RUN_H

#include <stdbool.h>
#include <stddef.h>

enum run_end { RUN_EXIT, RUN_HANG, RUN_CRASH };

struct outcome {
    enum run_end end;
    int status;   /* exit status, or the signal of a crash */
    char *output; /* of stdout, with a NUL behind it; owned */
    size_t length;
    char *errors; /* of stderr, at most a few KiB, with a NUL; owned */
};

/* Run a program, found by PATH, with limits on its time and memory. `input` is what it reads from
 * stdin; NULL: nothing. */
void run_program(const char *const *argv, const char *input, struct outcome *ret_outcome);

void outcome_destroy(struct outcome *outcome);

static inline bool
outcome_is_exit(const struct outcome *outcome, int status)
{
    return outcome->end == RUN_EXIT && outcome->status == status;
}

/* "exit-N", "hangs" or "crashes"; `buffer` is for the first of these. */
const char *outcome_word(const struct outcome *outcome, char buffer[16]);

#endif
