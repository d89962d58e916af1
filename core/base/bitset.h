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

/* The bits [first, first + count) of one word, where first + count <= 64. */
static inline uint64_t
q2_word_mask(unsigned first, unsigned count)
{
    return count == 0 ? 0 : (UINT64_MAX >> (64 - count)) << first;
}

/* How many bits in a row are set, from bit `first`, which is. */
static inline unsigned
q2_word_run(uint64_t word, unsigned first)
{
    uint64_t clear = ~(word >> first);
    return clear ? (unsigned)__builtin_ctzll(clear) : 64;
}

/* Whether any of the bits [first, first + count) is set. */
static inline bool
q2_bit_any(const uint64_t *words, size_t first, size_t count)
{
    while (count > 0) {
        unsigned bit = (unsigned)(first % 64), bits = count < 64 - bit ? (unsigned)count : 64 - bit;
        if (words[first / 64] & q2_word_mask(bit, bits))
            return true;
        first += bits;
        count -= bits;
    }
    return false;
}

#endif
