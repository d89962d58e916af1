/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Prefix codes of deflate (RFC 1951, section 3.2.2) as tables: one look-up takes up to 11 bits of
 * input to everything that the code's symbol means. The rare longer codes are found by comparing
 * with the first code of each length. Private to core/codec. */

#ifndef Q2_CODEC_HUFFMAN_H
#define Q2_CODEC_HUFFMAN_H

#include <stdbool.h>
#include <stdint.h>

enum {
    Q2_HUFFMAN_MAX_LENGTH = 15,   /* bits, of the longest code */
    Q2_HUFFMAN_MAX_SYMBOLS = 288, /* of the literal/length alphabet, with its two unused ones */
    Q2_HUFFMAN_DIRECT_BITS = 11,
};

/* What a symbol means, packed:
 *   bits 0-5    bits of input to take: the code and the extra bits that follow it
 *   bits 6-9    how many of them are extra bits
 *   bits 10-12  what it is
 *   bits 16-31  the number that the extra bits are added to */
enum {
    Q2_HUFFMAN_MATCH = 1 << 10,   /* a match length, to be followed by a distance */
    Q2_HUFFMAN_END = 1 << 11,     /* the end of the block */
    Q2_HUFFMAN_INVALID = 1 << 12, /* no symbol, or one that must not occur */
};

/* The meaning of a symbol apart from its code's length, which q2_huffman_build adds. */
#define Q2_HUFFMAN_MEANING(base, extra, kind) \
    ((uint32_t)(base) << 16 | (uint32_t)(extra) << 6 | (uint32_t)(extra) | (uint32_t)(kind))

struct q2_huffman {
    unsigned direct_bits; /* the longest code's, if fewer than Q2_HUFFMAN_DIRECT_BITS */
    /* By the next direct_bits bits of input; Q2_HUFFMAN_INVALID: not found so. */
    uint32_t direct[1 << Q2_HUFFMAN_DIRECT_BITS];
    /* The rest finds long codes. Codes are compared as numbers of 15 bits, first bit on top. */
    uint32_t limit[Q2_HUFFMAN_MAX_LENGTH + 1]; /* beyond the last code of each length or less */
    uint16_t first[Q2_HUFFMAN_MAX_LENGTH + 1]; /* where each length begins in `meanings` */
    uint32_t meanings[Q2_HUFFMAN_MAX_SYMBOLS]; /* in the order of the codes */
};

/* Make the table for symbols 0 .. count-1 whose codes have the given lengths in bits (0: unused).
 * Returns false where no such code may be used, by the rule that zlib applies: an over-subscribed
 * one never; an incomplete one only if `may_be_partial` and it has no code, or just one, of one
 * bit. */
bool q2_huffman_build(struct q2_huffman *code, const uint8_t *lengths, unsigned count,
                      const uint32_t *meanings, bool may_be_partial);

/* The meaning of the code that `bits` begins with, found by length; Q2_HUFFMAN_INVALID if none. */
uint32_t q2_huffman_search(const struct q2_huffman *code, uint64_t bits);

static inline uint32_t
q2_huffman_look(const struct q2_huffman *code, uint64_t bits)
{
    uint32_t meaning = code->direct[bits & ((UINT64_C(1) << code->direct_bits) - 1)];
    if (__builtin_expect(meaning & Q2_HUFFMAN_INVALID, 0))
        return q2_huffman_search(code, bits);
    return meaning;
}

/* Bits of input to take for this meaning. */
static inline unsigned
q2_huffman_take(uint32_t meaning)
{
    return meaning & 0x3f;
}

/* The number that this meaning and its extra bits, found in `bits`, stand for. */
static inline uint32_t
q2_huffman_value(uint32_t meaning, uint64_t bits)
{
    unsigned extra = meaning >> 6 & 0xf;
    uint32_t mask = (UINT32_C(1) << extra) - 1;
    return (meaning >> 16) + ((uint32_t)(bits >> (q2_huffman_take(meaning) - extra)) & mask);
}

#endif
