/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Programs: sequences of tests/stress as inputs of a fuzzer. */

#ifndef Q2_FUZZ_SUPPORT_PROGRAM_H
#define Q2_FUZZ_SUPPORT_PROGRAM_H

#include "fuzz/fuzz.h"
#include "fuzz/support/damage.h"
#include "fuzz/support/program_layout.h"
#include "tests/stress/stress.h"

/* Bytes that the disk of a large program has at most. */
enum { Q2_PROGRAM_LARGE = 5 << 19 };

struct q2_program {
    struct params params;
    bool quiet; /* the disk is looked at in the end alone */
    uint8_t flags;
    uint16_t number;
    uint32_t chance;
    struct step steps[Q2_PROGRAM_MAX_STEPS];
    unsigned step_count;
    struct q2_damage damages[Q2_PROGRAM_MAX_STEPS];
    unsigned damage_count;
};

/* What the bytes stand for. */
void q2_program_decode(const uint8_t *input, size_t length, struct q2_program *ret_program);

/* Bytes for a program much like this one, as far as inputs know such images; `bytes` has room for
 * Q2_PROGRAM_MAX. Returns how many there are. */
size_t q2_program_encode(const struct q2_program *program, uint8_t *bytes);

/* Say that the program does something it must not, in the words of `run`. */
#define Q2_PROGRAM_REQUIRE(holds, run) Q2_REQUIRE(holds, "%s", (run)->message)

#endif
