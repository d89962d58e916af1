/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* One block of a deflate stream (RFC 1951, section 3.2.3): from tokens to bits, as the cheapest of
 * the three kinds. Private to core/codec. */

#ifndef Q2_CODEC_BLOCK_H
#define Q2_CODEC_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    Q2_DEFLATE_LITERALS = 286, /* literals, the end, lengths of matches */
    Q2_DEFLATE_DISTANCES = 30,
    Q2_DEFLATE_END = 256,
    Q2_BLOCK_MAX_TOKENS = 65000, /* so that counts stay below 65536 */
};

struct q2_bit_writer {
    uint8_t *at, *end;
    uint64_t bits; /* not yet written, first bit lowest */
    unsigned count;
};

/* How often each symbol occurs. */
struct q2_symbol_counts {
    uint32_t literals[Q2_DEFLATE_LITERALS];
    uint32_t distances[Q2_DEFLATE_DISTANCES];
};

struct q2_block {
    const uint32_t *tokens;
    size_t count;
    const uint8_t *bytes; /* what the tokens stand for */
    size_t length;
    struct q2_symbol_counts counts; /* without the end */
};

/* Count `count` tokens; returns how many bytes they stand for. */
size_t q2_block_count(const uint32_t *tokens, size_t count, struct q2_symbol_counts *counts);

/* Returns false where the block, or a few bytes more, does not fit. */
bool q2_block_write(struct q2_block *block, bool is_last, struct q2_bit_writer *writer);

/* Write the bits that are left. q2_block_write has seen to the room. */
void q2_bit_writer_finish(struct q2_bit_writer *writer);

#endif
