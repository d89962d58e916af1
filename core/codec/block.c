/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The size of a block is known to the bit before it is written, so the room is checked once and the
 * loop over the tokens has no check. */

#include "core/codec/block.h"
#include "core/codec/codes.h"
#include "core/codec/matches.h"

#include <endian.h>
#include <string.h>

enum {
    STORED = 0,
    FIXED = 1,
    DYNAMIC = 2,
    STORED_MAX = 65535,
    LENGTH_SYMBOLS = 19, /* of the code for lengths of codes */
    REPEAT = 16,         /* the last length 3 to 6 times */
    ZEROS = 17,          /* 3 to 10 times */
    MORE_ZEROS = 18,     /* 11 to 138 times */
    ALL_LENGTHS = Q2_DEFLATE_LITERALS + Q2_DEFLATE_DISTANCES,
};

/* A code of both alphabets. */
struct codes {
    uint8_t literal_lengths[Q2_CODES_MAX_SYMBOLS], distance_lengths[32];
    uint16_t literals[Q2_CODES_MAX_SYMBOLS], distances[32];
};

/* The head of a dynamic block: the lengths of its codes, run by run. */
struct head {
    unsigned literals, distances, lengths; /* how many are listed */
    unsigned runs;
    uint8_t symbols[ALL_LENGTHS], extras[ALL_LENGTHS];
    uint8_t code_lengths[LENGTH_SYMBOLS];
    uint16_t codes[LENGTH_SYMBOLS];
};

static const uint8_t length_order[LENGTH_SYMBOLS] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                     11, 4,  12, 3, 13, 2, 14, 1, 15};

/* ---- symbols ---- */

static inline unsigned
log2_of(uint32_t value)
{
    return 31 - (unsigned)__builtin_clz(value);
}

static inline unsigned
length_extra_bits(uint32_t length)
{
    return length - 3 < 8 || length == Q2_MATCH_MAX ? 0 : log2_of(length - 3) - 2;
}

static inline unsigned
length_symbol(uint32_t length)
{
    if (length == Q2_MATCH_MAX)
        return 285;
    unsigned extra = length_extra_bits(length);
    return 257 + 4 * extra + ((length - 3) >> extra);
}

static inline unsigned
distance_extra_bits(uint32_t distance)
{
    return distance - 1 < 4 ? 0 : log2_of(distance - 1) - 1;
}

static inline unsigned
distance_symbol(uint32_t distance)
{
    unsigned extra = distance_extra_bits(distance);
    return 2 * extra + ((distance - 1) >> extra);
}

static unsigned
symbol_extra_bits(unsigned literal)
{
    return literal < 265 || literal == 285 ? 0 : (literal - 261) / 4;
}

size_t
q2_block_count(const uint32_t *tokens, size_t count, struct q2_symbol_counts *counts)
{
    size_t bytes = 0;
    memset(counts, 0, sizeof *counts);
    for (size_t i = 0; i < count; i++) {
        uint32_t length = q2_token_length(tokens[i]);
        if (length) {
            counts->literals[length_symbol(length)]++;
            counts->distances[distance_symbol(q2_token_distance(tokens[i]))]++;
            bytes += length;
        } else {
            counts->literals[tokens[i]]++;
            bytes++;
        }
    }
    return bytes;
}

/* ---- bits ---- */

static inline void
put(struct q2_bit_writer *writer, uint32_t bits, unsigned count)
{
    writer->bits |= (uint64_t)bits << writer->count;
    writer->count += count;
}

/* After this, 56 bits can be put. */
static inline void
flush(struct q2_bit_writer *writer)
{
    uint64_t bits = htole64(writer->bits);
    memcpy(writer->at, &bits, sizeof bits);
    writer->at += writer->count / 8;
    writer->bits >>= writer->count & ~7U;
    writer->count &= 7;
}

void
q2_bit_writer_finish(struct q2_bit_writer *writer)
{
    writer->count = (writer->count + 7) & ~7U;
    flush(writer);
}

static bool
has_room(const struct q2_bit_writer *writer, size_t bits)
{
    size_t bytes = (writer->count + bits + 7) / 8 + sizeof writer->bits; /* flush writes them all */
    return (size_t)(writer->end - writer->at) >= bytes;
}

/* ---- the head of a dynamic block ---- */

static void
add_run(struct head *head, unsigned symbol, unsigned extra)
{
    head->symbols[head->runs] = (uint8_t)symbol;
    head->extras[head->runs++] = (uint8_t)extra;
}

static unsigned
run_extra_bits(unsigned symbol)
{
    return symbol == REPEAT ? 2 : symbol == ZEROS ? 3 : symbol == MORE_ZEROS ? 7 : 0;
}

static void
list_run(struct head *head, uint8_t length, unsigned count)
{
    if (length) {
        add_run(head, length, 0);
        count--;
    }
    while (count >= 3) {
        unsigned most = length ? 6 : 138, now = count < most ? count : most;
        if (length)
            add_run(head, REPEAT, now - 3);
        else if (now <= 10)
            add_run(head, ZEROS, now - 3);
        else
            add_run(head, MORE_ZEROS, now - 11);
        count -= now;
    }
    while (count-- > 0)
        add_run(head, length, 0);
}

/* Returns its size in bits. */
static size_t
make_head(struct head *head, const struct codes *codes)
{
    uint8_t all[ALL_LENGTHS];
    uint32_t counts[LENGTH_SYMBOLS] = {0};
    head->literals = Q2_DEFLATE_LITERALS;
    head->distances = Q2_DEFLATE_DISTANCES;
    head->lengths = LENGTH_SYMBOLS;
    head->runs = 0;
    while (head->literals > 257 && !codes->literal_lengths[head->literals - 1])
        head->literals--;
    while (head->distances > 1 && !codes->distance_lengths[head->distances - 1])
        head->distances--;
    unsigned count = head->literals + head->distances;
    memcpy(all, codes->literal_lengths, head->literals);
    memcpy(all + head->literals, codes->distance_lengths, head->distances);
    for (unsigned from = 0, to; from < count; from = to) {
        for (to = from + 1; to < count && all[to] == all[from];)
            to++;
        list_run(head, all[from], to - from);
    }

    for (unsigned i = 0; i < head->runs; i++)
        counts[head->symbols[i]]++;
    q2_codes_build(counts, LENGTH_SYMBOLS, 7, head->code_lengths, head->codes);
    while (head->lengths > 4 && !head->code_lengths[length_order[head->lengths - 1]])
        head->lengths--;
    size_t bits = 5 + 5 + 4 + 3 * head->lengths;
    for (unsigned i = 0; i < LENGTH_SYMBOLS; i++)
        bits += counts[i] * (head->code_lengths[i] + run_extra_bits(i));
    return bits;
}

static void
write_head(const struct head *head, struct q2_bit_writer *writer)
{
    put(writer, head->literals - 257, 5);
    put(writer, head->distances - 1, 5);
    put(writer, head->lengths - 4, 4);
    for (unsigned i = 0; i < head->lengths; i++) {
        flush(writer);
        put(writer, head->code_lengths[length_order[i]], 3);
    }
    for (unsigned i = 0; i < head->runs; i++) {
        unsigned symbol = head->symbols[i];
        flush(writer);
        put(writer, head->codes[symbol], head->code_lengths[symbol]);
        put(writer, head->extras[i], run_extra_bits(symbol));
    }
}

/* ---- the three kinds ---- */

/* The code of fixed blocks (RFC 1951, section 3.2.6), made as any other: these counts lead to it.
 */
static void
make_fixed(struct codes *codes)
{
    uint32_t counts[Q2_CODES_MAX_SYMBOLS];
    for (unsigned i = 0; i < Q2_CODES_MAX_SYMBOLS; i++)
        counts[i] = i < 144 ? 2 : i < 256 ? 1 : i < 280 ? 4 : 2;
    q2_codes_build(counts, Q2_CODES_MAX_SYMBOLS, 9, codes->literal_lengths, codes->literals);
    for (unsigned i = 0; i < 32; i++)
        counts[i] = 1;
    q2_codes_build(counts, 32, 5, codes->distance_lengths, codes->distances);
}

/* The same without making it: how long its codes are. */
static unsigned
fixed_length(unsigned literal)
{
    return literal < 144 ? 8 : literal < 256 ? 9 : literal < 280 ? 7 : 8;
}

static size_t
size_of_fixed(const struct q2_symbol_counts *counts)
{
    size_t bits = 0;
    for (unsigned i = 0; i < Q2_DEFLATE_LITERALS; i++)
        bits += (size_t)counts->literals[i] * (fixed_length(i) + symbol_extra_bits(i));
    for (unsigned i = 0; i < Q2_DEFLATE_DISTANCES; i++)
        bits += (size_t)counts->distances[i] * (5 + (i < 4 ? 0 : i / 2 - 1));
    return bits;
}

/* The size in bits of the tokens and the end. */
static size_t
size_of_tokens(const struct q2_symbol_counts *counts, const struct codes *codes)
{
    size_t bits = 0;
    for (unsigned i = 0; i < Q2_DEFLATE_LITERALS; i++)
        bits += (size_t)counts->literals[i] * (codes->literal_lengths[i] + symbol_extra_bits(i));
    for (unsigned i = 0; i < Q2_DEFLATE_DISTANCES; i++)
        bits +=
            (size_t)counts->distances[i] * (codes->distance_lengths[i] + (i < 4 ? 0 : i / 2 - 1));
    return bits;
}

static void
write_tokens(const struct q2_block *block, const struct codes *codes, struct q2_bit_writer *out)
{
    struct q2_bit_writer writer = *out; /* a copy stays in registers */
    for (size_t i = 0; i < block->count; i++) {
        uint32_t token = block->tokens[i], length = q2_token_length(token);
        flush(&writer);
        if (!length) {
            put(&writer, codes->literals[token], codes->literal_lengths[token]);
            continue;
        }
        unsigned symbol = length_symbol(length), extra = length_extra_bits(length);
        put(&writer, codes->literals[symbol], codes->literal_lengths[symbol]);
        put(&writer, (length - 3) & ((1U << extra) - 1), extra);
        uint32_t distance = q2_token_distance(token);
        symbol = distance_symbol(distance);
        extra = distance_extra_bits(distance);
        put(&writer, codes->distances[symbol], codes->distance_lengths[symbol]);
        put(&writer, (distance - 1) & ((1U << extra) - 1), extra);
    }
    flush(&writer);
    put(&writer, codes->literals[Q2_DEFLATE_END], codes->literal_lengths[Q2_DEFLATE_END]);
    flush(&writer);
    *out = writer;
}

static size_t
size_of_stored(size_t length)
{
    size_t pieces = (length + STORED_MAX - 1) / STORED_MAX;
    return 8 * length + pieces * (3 + 7 + 32);
}

static void
write_stored(const struct q2_block *block, bool is_last, struct q2_bit_writer *writer)
{
    const uint8_t *bytes = block->bytes;
    for (size_t left = block->length; left;) {
        uint32_t now = left < STORED_MAX ? (uint32_t)left : STORED_MAX;
        left -= now;
        put(writer, is_last && !left, 1);
        put(writer, STORED, 2);
        writer->count = (writer->count + 7) & ~7U;
        flush(writer);
        put(writer, now | (now ^ 0xffff) << 16, 32);
        flush(writer);
        memcpy(writer->at, bytes, now);
        writer->at += now;
        bytes += now;
    }
}

bool
q2_block_write(struct q2_block *block, bool is_last, struct q2_bit_writer *writer)
{
    struct codes codes;
    struct head head;
    struct q2_symbol_counts *counts = &block->counts;
    counts->literals[Q2_DEFLATE_END] = 1;
    q2_codes_build(counts->literals, Q2_DEFLATE_LITERALS, 15, codes.literal_lengths,
                   codes.literals);
    q2_codes_build(counts->distances, Q2_DEFLATE_DISTANCES, 15, codes.distance_lengths,
                   codes.distances);
    size_t size = 3 + make_head(&head, &codes) + size_of_tokens(counts, &codes);
    size_t fixed_size = 3 + size_of_fixed(counts);
    size_t stored_size = size_of_stored(block->length);
    if (stored_size < size && stored_size < fixed_size) {
        if (!has_room(writer, stored_size))
            return false;
        write_stored(block, is_last, writer);
        return true;
    }
    bool is_fixed = fixed_size <= size;
    if (!has_room(writer, is_fixed ? fixed_size : size))
        return false;
    put(writer, is_last, 1);
    put(writer, is_fixed ? FIXED : DYNAMIC, 2);
    if (is_fixed)
        make_fixed(&codes);
    else
        write_head(&head, writer);
    write_tokens(block, &codes, writer);
    return true;
}
