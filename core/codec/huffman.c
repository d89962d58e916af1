/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Codes are canonical: their lengths alone give them, shorter before longer, then by symbol. So
 * sorting the symbols by length puts them in the order of their codes, and a code of 15 bits or
 * less, padded to 15, is a number whose range tells its length. Input comes with the first bit of
 * a code lowest, the other way round, hence the mirroring. */

#include "core/codec/huffman.h"

#include <string.h>

enum { MAX_LENGTH = Q2_HUFFMAN_MAX_LENGTH };

static uint32_t
mirror15(uint32_t value)
{
    value = (value & 0x5555) << 1 | (value >> 1 & 0x5555);
    value = (value & 0x3333) << 2 | (value >> 2 & 0x3333);
    value = (value & 0x0f0f) << 4 | (value >> 4 & 0x0f0f);
    value = (value & 0x00ff) << 8 | (value >> 8 & 0x00ff);
    return value >> 1;
}

/* The longest length used, 0 if none. */
static unsigned
count_lengths(const uint8_t *lengths, unsigned count, unsigned counts[MAX_LENGTH + 1])
{
    memset(counts, 0, (MAX_LENGTH + 1) * sizeof counts[0]);
    for (unsigned symbol = 0; symbol < count; symbol++)
        counts[lengths[symbol]]++;
    counts[0] = 0;
    unsigned longest = MAX_LENGTH;
    while (longest > 0 && counts[longest] == 0)
        longest--;
    return longest;
}

/* Lay the codes out on the line of 15-bit numbers; returns how much of it stays free, negative
 * where it is too short. */
static int32_t
lay_out(struct q2_huffman *code, const unsigned counts[MAX_LENGTH + 1])
{
    uint32_t limit = 0;
    unsigned first = 0;
    code->limit[0] = 0;
    code->first[0] = 0;
    for (unsigned length = 1; length <= MAX_LENGTH; length++) {
        code->first[length] = (uint16_t)first;
        first += counts[length];
        limit += counts[length] << (MAX_LENGTH - length);
        code->limit[length] = limit;
    }
    return (INT32_C(1) << MAX_LENGTH) - (int32_t)limit;
}

static void
sort_symbols(struct q2_huffman *code, const uint8_t *lengths, unsigned count,
             const uint32_t *meanings)
{
    uint16_t next[MAX_LENGTH + 1];
    memcpy(next, code->first, sizeof next);
    for (unsigned symbol = 0; symbol < count; symbol++) {
        unsigned length = lengths[symbol];
        if (length)
            code->meanings[next[length]++] = meanings[symbol] + length;
    }
}

static void
fill_direct(struct q2_huffman *code, const unsigned counts[MAX_LENGTH + 1])
{
    unsigned cells = 1u << code->direct_bits;
    for (unsigned cell = 0; cell < cells; cell++)
        code->direct[cell] = Q2_HUFFMAN_INVALID;

    const uint32_t *meaning = code->meanings;
    for (unsigned length = 1; length <= code->direct_bits; length++) {
        uint32_t number = code->limit[length - 1];
        for (unsigned i = 0; i < counts[length]; i++, meaning++) {
            for (unsigned cell = mirror15(number); cell < cells; cell += 1u << length)
                code->direct[cell] = *meaning;
            number += 1u << (MAX_LENGTH - length);
        }
    }
}

bool
q2_huffman_build(struct q2_huffman *code, const uint8_t *lengths, unsigned count,
                 const uint32_t *meanings, bool may_be_partial)
{
    unsigned counts[MAX_LENGTH + 1];
    unsigned longest = count_lengths(lengths, count, counts);
    int32_t left = lay_out(code, counts);
    if (left < 0 || (left > 0 && !(may_be_partial && longest <= 1)))
        return false;

    /* No larger than needed: hostile input can ask for many tables with few codes each. */
    code->direct_bits = longest < Q2_HUFFMAN_DIRECT_BITS ? longest : Q2_HUFFMAN_DIRECT_BITS;
    sort_symbols(code, lengths, count, meanings);
    fill_direct(code, counts);
    return true;
}

uint32_t
q2_huffman_search(const struct q2_huffman *code, uint64_t bits)
{
    uint32_t number = mirror15(bits & 0x7fff);
    for (unsigned length = 1; length <= MAX_LENGTH; length++) {
        if (number < code->limit[length]) {
            uint32_t rank = (number - code->limit[length - 1]) >> (MAX_LENGTH - length);
            return code->meanings[code->first[length] + rank];
        }
    }
    return Q2_HUFFMAN_INVALID;
}
