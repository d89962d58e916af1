/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A single bit is found wherever it is, at each alignment and length; none is made up. */

#include "core/base/zeros.h"

#include <criterion/criterion.h>
#include <stdlib.h>

enum { LENGTH_MAX = 400, ALIGN_MAX = 33 };

/* Exactly as large as what is looked at, so that a sanitizer sees a look too far. */
static bool
ask(size_t shift, size_t length, size_t bit_at, unsigned char value)
{
    unsigned char *memory = calloc(1, shift + length + 1);
    memset(memory, 0xff, shift);
    memory[shift + length] = 0xff;
    if (bit_at < length)
        memory[shift + bit_at] = value;
    bool zero = q2_is_zero(memory + shift, length);
    free(memory);
    return zero;
}

Test(zeros, finds_each_byte)
{
    for (size_t shift = 0; shift < ALIGN_MAX; shift += 8 + shift % 3)
        for (size_t length = 0; length < LENGTH_MAX; length++) {
            cr_assert(ask(shift, length, length, 0), "%zu bytes at %zu", length, shift);
            for (size_t at = 0; at < length; at += 1 + at / 16)
                cr_assert(!ask(shift, length, at, (unsigned char)(1u << at % 8)),
                          "byte %zu of %zu at %zu", at, length, shift);
            if (length)
                cr_assert(!ask(shift, length, length - 1, 0x80));
        }
}

Test(zeros, never_looks_behind_the_end)
{
    for (size_t length = 0; length < LENGTH_MAX; length++) {
        unsigned char *memory = calloc(1, length ? length : 1);
        cr_assert(q2_is_zero(memory, length));
        free(memory);
    }
}
