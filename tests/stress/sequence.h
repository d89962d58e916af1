/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Sequences of steps: chosen by a seed, run, shrunk, printed and read again. */

#ifndef Q2_TESTS_STRESS_SEQUENCE_H
#define Q2_TESTS_STRESS_SEQUENCE_H

#include "tests/stress/stress.h"

struct sequence {
    struct params params;
    struct step *steps;
    unsigned count;
};

bool sequence_choose(struct sequence *sequence, uint64_t seed, unsigned count);
void sequence_destroy(struct sequence *sequence);

/* In this process; says what failed. `folder`: for QEMU, or NULL. */
bool sequence_run(const struct sequence *sequence, const char *folder, bool verbose);
/* In a child, quietly: false also where it crashes or hangs. */
bool sequence_holds(const struct sequence *sequence, const char *folder);
/* In a child, saying all. */
void sequence_show(const struct sequence *sequence, const char *folder);

/* Drop steps, and make the image simpler, for as long as it fails. */
void sequence_shrink(struct sequence *sequence, const char *folder);

void sequence_print(const struct sequence *sequence, FILE *out);
bool sequence_read(struct sequence *sequence, FILE *in);

#endif
