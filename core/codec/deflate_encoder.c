/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Deflate clusters: an encoder of our own, as the libraries have none that serves. Readers keep 4
 * KiB of what they decoded, but libdeflate always looks back 32 KiB; zlib can be told the window,
 * but takes nearly twice the time for a slightly larger result.
 *
 * The cluster becomes tokens, and the tokens blocks, each with a code of its own. Where to cut is
 * found piece by piece: a piece joins the block before it unless estimates say that two codes and
 * their descriptions take less space than one code for both. */

#include "core/codec/block.h"
#include "core/codec/codec.h"
#include "core/codec/internal.h"
#include "core/codec/matches.h"

#include <stdlib.h>
#include <string.h>

enum {
    PIECE = 512,       /* tokens */
    FRACTION_BITS = 8, /* of a logarithm */
    WEIGHTS = 256,     /* counts that have theirs in a table */
    HEAD_BITS = 160,   /* of the description of a block's codes, */
    SYMBOL_BITS = 3,   /* and of each symbol in it */
};

struct deflate {
    struct q2_matcher matcher;
    uint16_t log2[1 << FRACTION_BITS]; /* of 1 + i / 256, in 256ths */
    uint32_t weights[WEIGHTS];         /* what weight_of gives for the small counts */
    uint32_t tokens[Q2_BLOCK_MAX_TOKENS];
};

/* log2(1 + i / 256) by squaring: each squaring that passes 2 is a bit of it. */
static uint16_t
fraction_of_log2(uint32_t i)
{
    uint64_t value = (UINT64_C(1) << 16) + ((uint64_t)i << 8); /* in 65536ths */
    unsigned result = 0;
    for (unsigned bit = 0; bit < FRACTION_BITS; bit++) {
        value = value * value >> 16;
        result <<= 1;
        if (value >> 17) {
            value >>= 1;
            result |= 1;
        }
    }
    return (uint16_t)result;
}

/* log2 of a number from 1 on, in 256ths. */
static inline uint32_t
log2_of(const struct deflate *deflate, uint32_t value)
{
    unsigned whole = 31 - (unsigned)__builtin_clz(value);
    uint32_t fraction = (value << (31 - whole)) >> (31 - FRACTION_BITS);
    return (whole << FRACTION_BITS) + deflate->log2[fraction & ((1 << FRACTION_BITS) - 1)];
}

/* What a symbol that occurs `count` times takes off n * log2(n) for n symbols, less its share of
 * the description of the code; in 256ths of a bit. */
static uint32_t
weight_of(const struct deflate *deflate, uint32_t count)
{
    return count ? count * log2_of(deflate, count) - (SYMBOL_BITS << FRACTION_BITS) : 0;
}

static void *
deflate_encoder_new(void)
{
    struct deflate *deflate = calloc(1, sizeof *deflate);
    if (!deflate)
        return NULL;
    for (uint32_t i = 0; i < 1 << FRACTION_BITS; i++)
        deflate->log2[i] = fraction_of_log2(i);
    for (uint32_t i = 0; i < WEIGHTS; i++)
        deflate->weights[i] = weight_of(deflate, i);
    return deflate;
}

/* About the bits that one alphabet takes: what its symbols' frequencies say, and its code. */
static int64_t
estimate(const struct deflate *deflate, const uint32_t *counts, unsigned symbols)
{
    uint32_t total = 0;
    int64_t sum = 0;
    for (unsigned i = 0; i < symbols; i++) {
        uint32_t count = counts[i];
        total += count;
        sum += (int32_t)(count < WEIGHTS ? deflate->weights[count] : weight_of(deflate, count));
    }
    return total ? ((int64_t)total * log2_of(deflate, total) - sum) >> FRACTION_BITS : 0;
}

static int64_t
estimate_block(const struct deflate *deflate, const struct q2_symbol_counts *counts)
{
    return HEAD_BITS + estimate(deflate, counts->literals, Q2_DEFLATE_LITERALS) +
           estimate(deflate, counts->distances, Q2_DEFLATE_DISTANCES);
}

static void
join(const struct q2_symbol_counts *a, const struct q2_symbol_counts *b,
     struct q2_symbol_counts *sum)
{
    for (unsigned i = 0; i < Q2_DEFLATE_LITERALS; i++)
        sum->literals[i] = a->literals[i] + b->literals[i];
    for (unsigned i = 0; i < Q2_DEFLATE_DISTANCES; i++)
        sum->distances[i] = a->distances[i] + b->distances[i];
}

/* Write the tokens of `length` bytes as one block or several. */
static bool
write_blocks(struct deflate *deflate, size_t count, const uint8_t *bytes, bool is_last,
             struct q2_bit_writer *writer)
{
    struct q2_block block = {.tokens = deflate->tokens, .bytes = bytes};
    int64_t cost = 0;
    for (size_t at = 0; at < count;) {
        struct q2_block piece = {.tokens = deflate->tokens + at};
        struct q2_symbol_counts both;
        piece.count = count - at < PIECE ? count - at : PIECE;
        piece.length = q2_block_count(piece.tokens, piece.count, &piece.counts);
        at += piece.count;
        join(&block.counts, &piece.counts, &both);
        int64_t joined = estimate_block(deflate, &both);
        int64_t alone = estimate_block(deflate, &piece.counts);
        if (block.count && cost + alone < joined) {
            if (!q2_block_write(&block, false, writer))
                return false;
            piece.bytes = block.bytes + block.length;
            block = piece;
            cost = alone;
        } else {
            block.counts = both;
            block.count += piece.count;
            block.length += piece.length;
            cost = joined;
        }
    }
    return q2_block_write(&block, is_last, writer);
}

static int
deflate_encoder_run(void *state, const void *source, size_t length, void *buffer, size_t capacity,
                    size_t *ret_used, struct q2_error *err)
{
    struct deflate *deflate = state;
    struct q2_bit_writer writer = {.at = buffer, .end = (uint8_t *)buffer + capacity};
    (void)err;
    q2_matcher_begin(&deflate->matcher, source, length);
    for (size_t from = 0; from < length; from = deflate->matcher.at) {
        size_t count = q2_matcher_parse(&deflate->matcher, deflate->tokens, Q2_BLOCK_MAX_TOKENS);
        bool is_last = deflate->matcher.at == length;
        if (!write_blocks(deflate, count, (const uint8_t *)source + from, is_last, &writer))
            return Q2_ERR_NOSPACE;
    }
    q2_bit_writer_finish(&writer);
    *ret_used = (size_t)(writer.at - (uint8_t *)buffer);
    return 0;
}

const struct q2_codec q2_codec_deflate_encoder = {
    .new = deflate_encoder_new,
    .free = free,
    .run = deflate_encoder_run,
};
