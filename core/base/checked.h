/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The one door for arithmetic on numbers that come from a file.
 *
 * Each function returns false when the exact result does not fit and then leaves its output
 * untouched. Code that computes with trusted numbers uses plain operators. */

#ifndef Q2_BASE_CHECKED_H
#define Q2_BASE_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

static inline bool
q2_add(uint64_t a, uint64_t b, uint64_t *ret_sum)
{
    uint64_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *ret_sum = sum;
    return true;
}

static inline bool
q2_mul(uint64_t a, uint64_t b, uint64_t *ret_product)
{
    uint64_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *ret_product = product;
    return true;
}

/* Whether [offset, offset + length) lies inside [0, limit). An empty range at `limit` does. */
static inline bool
q2_range_inside(uint64_t offset, uint64_t length, uint64_t limit)
{
    return offset <= limit && length <= limit - offset;
}

/* Whether two half-open ranges share a byte. Neither may wrap around 2^64. */
static inline bool
q2_ranges_overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
    return a_length && b_length && (a < b ? b - a < a_length : a - b < b_length);
}

/* Number of units of 2^bits bytes that hold `bytes`; cannot overflow for bits >= 1. */
static inline uint64_t
q2_units(uint64_t bytes, unsigned bits)
{
    return (bytes >> bits) + ((bytes & ((UINT64_C(1) << bits) - 1)) != 0);
}

static inline uint64_t
q2_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t
q2_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

#endif
