/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Huffman's construction with two queues: symbols in the order of their counts, and the nodes made
 * so far, which come in that order by themselves. Codes that got too long are cut to the limit, and
 * others made longer until all fit again. */

#include "core/codec/codes.h"

#include <stdbool.h>
#include <string.h>

enum { LONGEST = 15, RADIX = 256 };

struct leaf {
    uint32_t count;
    uint16_t symbol;
};

/* Sort by 8 bits of the count, keeping the order of equals. */
static void
sort_pass(const struct leaf *from, struct leaf *to, unsigned count, unsigned shift)
{
    unsigned starts[RADIX] = {0}, start = 0;
    for (unsigned i = 0; i < count; i++)
        starts[from[i].count >> shift & (RADIX - 1)]++;
    for (unsigned i = 0; i < RADIX; i++) {
        unsigned here = starts[i];
        starts[i] = start;
        start += here;
    }
    for (unsigned i = 0; i < count; i++)
        to[starts[from[i].count >> shift & (RADIX - 1)]++] = from[i];
}

/* The symbols that occur, least often first, and others if they are fewer than two. */
static unsigned
collect(const uint32_t *counts, unsigned count, struct leaf *leaves)
{
    struct leaf unsorted[Q2_CODES_MAX_SYMBOLS];
    unsigned used = 0;
    for (unsigned i = 0; i < count; i++) {
        if (counts[i])
            unsorted[used++] = (struct leaf){counts[i], (uint16_t)i};
    }
    for (uint16_t i = 0; used < 2; i++) {
        if (!counts[i])
            unsorted[used++] = (struct leaf){1, i};
    }
    sort_pass(unsorted, leaves, used, 0);
    sort_pass(leaves, unsorted, used, 8);
    memcpy(leaves, unsorted, used * sizeof *leaves);
    return used;
}

/* How many codes there are of each length, at most `longest`. */
static void
count_lengths(const struct leaf *leaves, unsigned used, unsigned longest, unsigned *of_length)
{
    /* Nodes 0 .. used-1 are the leaves, the rest are made of two each; the last is the root. */
    uint32_t weights[2 * Q2_CODES_MAX_SYMBOLS];
    uint16_t parents[2 * Q2_CODES_MAX_SYMBOLS], depths[2 * Q2_CODES_MAX_SYMBOLS];
    for (unsigned i = 0; i < used; i++)
        weights[i] = leaves[i].count;
    unsigned leaf = 0, made = used, root = 2 * used - 2;
    for (unsigned node = used; node <= root; node++) {
        weights[node] = 0;
        for (unsigned child = 0; child < 2; child++) {
            bool is_leaf = leaf < used && (made == node || weights[leaf] <= weights[made]);
            unsigned lightest = is_leaf ? leaf++ : made++;
            weights[node] += weights[lightest];
            parents[lightest] = (uint16_t)node;
        }
    }
    depths[root] = 0;
    for (unsigned node = root; node-- > 0;) {
        depths[node] = (uint16_t)(depths[parents[node]] + 1);
        if (node < used)
            of_length[depths[node] < longest ? depths[node] : longest]++;
    }
}

/* Make the code complete: a code of n bits takes 2^(longest - n) of all the space there is. */
static void
fit(unsigned longest, unsigned *of_length)
{
    uint32_t space = UINT32_C(1) << longest, taken = 0;
    for (unsigned length = 1; length <= longest; length++)
        taken += (uint32_t)of_length[length] << (longest - length);
    while (taken > space) {
        unsigned length = longest - 1;
        while (!of_length[length])
            length--;
        of_length[length]--;
        of_length[length + 1]++;
        taken -= UINT32_C(1) << (longest - length - 1);
    }
    for (; taken < space; taken++) {
        of_length[longest]--;
        of_length[longest - 1]++;
    }
}

static uint16_t
reverse(uint32_t code, unsigned length)
{
    uint32_t reversed = 0;
    for (unsigned i = 0; i < length; i++)
        reversed |= (code >> i & 1) << (length - 1 - i);
    return (uint16_t)reversed;
}

void
q2_codes_build(const uint32_t *counts, unsigned count, unsigned longest, uint8_t *lengths,
               uint16_t *codes)
{
    struct leaf leaves[Q2_CODES_MAX_SYMBOLS];
    unsigned of_length[LONGEST + 1] = {0};
    uint32_t next[LONGEST + 2] = {0};
    unsigned used = collect(counts, count, leaves);
    count_lengths(leaves, used, longest, of_length);
    fit(longest, of_length);

    memset(lengths, 0, count);
    unsigned leaf = 0;
    for (unsigned length = longest; length > 0; length--) {
        for (unsigned i = 0; i < of_length[length]; i++)
            lengths[leaves[leaf++].symbol] = (uint8_t)length;
    }
    for (unsigned length = 1; length <= longest; length++)
        next[length + 1] = (next[length] + of_length[length]) << 1;
    for (unsigned i = 0; i < count; i++)
        codes[i] = lengths[i] ? reverse(next[lengths[i]]++, lengths[i]) : 0;
}
