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

enum mode { MODE_MODEL, MODE_CRASH, MODE_FAULTS, MODE_MEMORY, MODES };

/* How to run one. */
struct how {
    enum mode mode;
    const char *folder; /* for what QEMU looks at; NULL: it is not asked */
    bool verbose;
};

bool sequence_choose(struct sequence *sequence, uint64_t seed, unsigned count, enum mode mode);
void sequence_destroy(struct sequence *sequence);

/* In this process; says what failed. */
bool sequence_run(const struct sequence *sequence, const struct how *how);
/* In a child: false also where it crashes or hangs. Quiet unless `how->verbose`. */
bool sequence_holds(const struct sequence *sequence, const struct how *how);

/* Drop steps, and make the image simpler, for as long as it fails. */
void sequence_shrink(struct sequence *sequence, const struct how *how);

/* The modes but MODE_MODEL. */
bool crash_run(struct run *run, const struct sequence *sequence);
bool faults_run(struct run *run, const struct sequence *sequence, bool memory);

void sequence_print(const struct sequence *sequence, FILE *out);
bool sequence_read(struct sequence *sequence, FILE *in);

#endif
