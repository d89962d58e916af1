/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Random numbers, and bytes that they stand for. */

#include "tests/stress/stress.h"

#include <string.h>

/* Steele, Lea and Flood: SplitMix. */
uint64_t
next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

uint64_t
random_below(uint64_t *state, uint64_t limit)
{
    return next_random(state) % limit;
}

void
fill(uint8_t *bytes, size_t length, uint64_t seed)
{
    uint64_t state = seed;
    switch (seed % 8) {
    case 0:
        memset(bytes, 0, length);
        return;
    case 1:
    case 2:
        memset(bytes, (int)(next_random(&state) % 255 + 1), length);
        return;
    case 3:
    case 4:
    case 5:
        for (size_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)(i / 64 % 7 ? 'a' + i % 11 : next_random(&state));
        return;
    default:
        for (size_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)(i % 8 ? state >> i % 8 * 8 : next_random(&state));
        return;
    }
}
