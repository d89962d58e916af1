/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Changing inputs so that they stay interesting.
 *
 * Engines know bytes; these mutators know what the bytes are. The same code serves all engines. */

#ifndef Q2_FUZZ_MUTATE_H
#define Q2_FUZZ_MUTATE_H

#include "fuzz/fuzz.h"

/* A stream of random numbers that a seed decides. */
struct q2_fuzz_random {
    uint64_t state;
};
uint64_t q2_fuzz_random(struct q2_fuzz_random *random);
/* Below `limit`, which is not 0. */
uint64_t q2_fuzz_random_below(struct q2_fuzz_random *random, uint64_t limit);
/* Once in `times`. */
bool q2_fuzz_random_once_in(struct q2_fuzz_random *random, uint64_t times);

/* An input being changed: `length` of `capacity` bytes are in use. `other` is another input that
 * parts can be taken from; NULL: none. */
struct q2_fuzz_buffer {
    uint8_t *bytes;
    size_t length;
    size_t capacity;
    const uint8_t *other;
    size_t other_length;
};

/* What an engine can do to bytes on its own; NULL: nothing, use q2_mutate_bytes. Returns the new
 * length. */
typedef size_t q2_engine_mutate(uint8_t *bytes, size_t length, size_t capacity);

/* Change the input once, in one of the ways that suit inputs of its kind. */
void q2_mutate(enum q2_fuzz_input kind, struct q2_fuzz_buffer *buffer,
               struct q2_fuzz_random *random, q2_engine_mutate *engine);

/* ---- the kinds ---- */

void q2_mutate_bytes(struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random);
/* Change structures of the image, or put them right again: refcounts, COPIED flags. */
void q2_mutate_image(struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random,
                     q2_engine_mutate *engine);
/* Insert, remove, repeat, swap and change steps. */
void q2_mutate_program(struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random);

#endif
