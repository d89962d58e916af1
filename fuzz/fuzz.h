/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What a fuzz harness is.
 *
 * A harness is one file in fuzz/harness that defines `q2_harness`: how its inputs look, and a
 * function that takes one and dies if anything that must hold does not. The engines in fuzz/engine
 * turn it into a program for libFuzzer, for AFL++, or for plain replay, with the mutator that suits
 * the inputs; the harness knows nothing of them.
 *
 * An input must decide all that happens: no clock, no randomness, no state from one input to the
 * next, no files of the system unless the harness is about those. */

#ifndef Q2_FUZZ_H
#define Q2_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What an input is to the mutators. */
enum q2_fuzz_input {
    Q2_FUZZ_BYTES,   /* nothing known */
    Q2_FUZZ_IMAGE,   /* a qcow2 image, which may end in options (struct q2_fuzz_options) */
    Q2_FUZZ_PROGRAM, /* parameters and steps of a stress sequence (fuzz/support/program.h) */
};

struct q2_harness {
    const char *name;
    enum q2_fuzz_input input;
    size_t max_length; /* bytes; longer inputs are not run */
    void (*run)(const uint8_t *input, size_t length);
};

extern const struct q2_harness q2_harness;

/* Say what does not hold, with the place, and abort: the one way in which a harness fails. */
#define Q2_REQUIRE(holds, ...) \
    ((holds) ? (void)0 : q2_fuzz_die(__FILE__, __LINE__, #holds, __VA_ARGS__))
void q2_fuzz_die(const char *file, int line, const char *what, const char *format, ...)
    __attribute__((noreturn, format(printf, 4, 5)));

/* ---- choices from bytes ---- */

/* The rest of an input. What is taken beyond its end is zero. */
struct q2_fuzz_cursor {
    const uint8_t *at;
    size_t left; /* bytes */
};

uint8_t q2_fuzz_u8(struct q2_fuzz_cursor *cursor);
uint16_t q2_fuzz_u16(struct q2_fuzz_cursor *cursor);
uint32_t q2_fuzz_u32(struct q2_fuzz_cursor *cursor);
uint64_t q2_fuzz_u64(struct q2_fuzz_cursor *cursor);
/* Below `limit`, which is not 0; takes as few bytes as `limit` needs. */
uint64_t q2_fuzz_below(struct q2_fuzz_cursor *cursor, uint64_t limit);
/* At most `length` bytes; *ret_length gets how many there are. */
const uint8_t *q2_fuzz_take(struct q2_fuzz_cursor *cursor, size_t length, size_t *ret_length);

/* ---- options at the end of an image ---- */

/* The last 16 bytes of an input that is an image, if they begin with Q2_FUZZ_OPTIONS_MAGIC, are not
 * part of it but choices for the harness. Without them all choices are 0. */
#define Q2_FUZZ_OPTIONS_MAGIC UINT64_C(0x71326b66757a7a01)
enum { Q2_FUZZ_OPTIONS_LENGTH = 16 };

struct q2_fuzz_options {
    uint8_t level;   /* what is asked of a repair */
    uint8_t flags;   /* by harness */
    uint16_t number; /* which write, allocation or operation is meant; by harness */
    uint32_t chance; /* random bits */
};

/* Split an input: the number of bytes that are the image. */
size_t q2_fuzz_split(const uint8_t *input, size_t length, struct q2_fuzz_options *ret_options);

#endif
