/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Bit sets over plain arrays of 64-bit words; bit i is bit i % 64 of word i / 64. */

#ifndef Q2_BASE_BITSET_H
#define Q2_BASE_BITSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool
q2_bit_test(const uint64_t *words, size_t bit)
{
    return words[bit / 64] >> (bit % 64) & 1;
}

static inline void
q2_bit_set(uint64_t *words, size_t bit)
{
    words[bit / 64] |= UINT64_C(1) << (bit % 64);
}

static inline void
q2_bit_clear(uint64_t *words, size_t bit)
{
    words[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
}

/* The bits [first, first + count) of one word, where first + count <= 64. */
static inline uint64_t
q2_word_mask(unsigned first, unsigned count)
{
    return count == 0 ? 0 : (UINT64_MAX >> (64 - count)) << first;
}

#endif
