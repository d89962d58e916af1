/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A walk over the tokens of a raw deflate stream (RFC 1951) that decodes nothing: it counts the
 * bytes that come out and remembers the largest match distance.
 *
 * Why it exists: qcow2's deflate streams are made with window bits 12, no distance goes beyond
 * 4096. zlib's inflate with window bits 12 does not hold a stream to that: as long as a cluster is
 * decoded in one call it takes earlier bytes from the output buffer, however far back. So QEMU and
 * everything else that decodes whole clusters accept a stream that a reader with a real 4 KiB
 * window cannot decode, and nobody notices. Only looking at each distance can tell.
 *
 * It is also the judge of what a sound stream is, since libdeflate lets some pass that zlib does
 * not (symbols that must not occur, incomplete codes). The rules here are zlib's.
 *
 * Hostile input: each step takes at least one bit of the source or ends the walk, at most `limit`
 * bytes are counted, and all memory is one struct of fixed size. */

#include "core/codec/window.h"

#include "core/base/endian.h"
#include "core/codec/codec.h"
#include "core/codec/huffman.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

enum {
    LITERALS = 286, /* symbols of the literal/length alphabet that may occur */
    DISTANCES = 30, /* the same of distances */
    END_OF_BLOCK = 256,
    CODE_LENGTHS = 19, /* symbols of the alphabet that codes' lengths are written in */
};

/* Input, first bit lowest. The bits above `count` are either zero or what follows in the source. */
struct bits {
    const uint8_t *next;
    const uint8_t *end;
    uint64_t word;
    unsigned count;
};

struct walker {
    struct bits in;
    const uint8_t *source;
    size_t limit; /* bytes that may come out */
    size_t produced;
    uint32_t distance;
    bool fixed; /* whether `literals` and `distances` are the fixed codes */
    struct q2_huffman literals;
    struct q2_huffman distances;
    struct q2_error *err;
};

/* ---- what symbols mean ---- */

#define LENGTH(base, extra)   Q2_HUFFMAN_MEANING(base, extra, Q2_HUFFMAN_MATCH)
#define DISTANCE(base, extra) Q2_HUFFMAN_MEANING(base, extra, 0)
#define INVALID               Q2_HUFFMAN_MEANING(0, 0, Q2_HUFFMAN_INVALID)

/* A code's length is the symbol's own number; 16 to 18 mean repetition. */
#define NUMBER(number) Q2_HUFFMAN_MEANING(number, 0, 0)

/* clang-format off */

/* A literal's number is how many bytes come out of it: one. */
static const uint32_t literal_meanings[Q2_HUFFMAN_MAX_SYMBOLS] = {
    [0 ... 255] = Q2_HUFFMAN_MEANING(1, 0, 0),
    [END_OF_BLOCK] = Q2_HUFFMAN_MEANING(0, 0, Q2_HUFFMAN_END),
    LENGTH(3, 0), LENGTH(4, 0), LENGTH(5, 0), LENGTH(6, 0),
    LENGTH(7, 0), LENGTH(8, 0), LENGTH(9, 0), LENGTH(10, 0),
    LENGTH(11, 1), LENGTH(13, 1), LENGTH(15, 1), LENGTH(17, 1),
    LENGTH(19, 2), LENGTH(23, 2), LENGTH(27, 2), LENGTH(31, 2),
    LENGTH(35, 3), LENGTH(43, 3), LENGTH(51, 3), LENGTH(59, 3),
    LENGTH(67, 4), LENGTH(83, 4), LENGTH(99, 4), LENGTH(115, 4),
    LENGTH(131, 5), LENGTH(163, 5), LENGTH(195, 5), LENGTH(227, 5),
    LENGTH(258, 0), INVALID, INVALID,
};

static const uint32_t distance_meanings[32] = {
    DISTANCE(1, 0), DISTANCE(2, 0), DISTANCE(3, 0), DISTANCE(4, 0),
    DISTANCE(5, 1), DISTANCE(7, 1), DISTANCE(9, 2), DISTANCE(13, 2),
    DISTANCE(17, 3), DISTANCE(25, 3), DISTANCE(33, 4), DISTANCE(49, 4),
    DISTANCE(65, 5), DISTANCE(97, 5), DISTANCE(129, 6), DISTANCE(193, 6),
    DISTANCE(257, 7), DISTANCE(385, 7), DISTANCE(513, 8), DISTANCE(769, 8),
    DISTANCE(1025, 9), DISTANCE(1537, 9), DISTANCE(2049, 10), DISTANCE(3073, 10),
    DISTANCE(4097, 11), DISTANCE(6145, 11), DISTANCE(8193, 12), DISTANCE(12289, 12),
    DISTANCE(16385, 13), DISTANCE(24577, 13), INVALID, INVALID,
};

static const uint32_t length_meanings[CODE_LENGTHS] = {
    NUMBER(0), NUMBER(1), NUMBER(2), NUMBER(3), NUMBER(4), NUMBER(5), NUMBER(6),
    NUMBER(7), NUMBER(8), NUMBER(9), NUMBER(10), NUMBER(11), NUMBER(12), NUMBER(13),
    NUMBER(14), NUMBER(15), NUMBER(16), NUMBER(17), NUMBER(18),
};

/* clang-format on */

/* ---- input ---- */

/* Have at least 56 bits, or all that are left: more than the 48 that the longest match takes. */
static inline void
refill(struct bits *in)
{
    if (__builtin_expect(in->end - in->next >= 8, 1)) {
        in->word |= q2_load_le64(in->next) << in->count;
        in->next += (63 - in->count) >> 3;
        in->count |= 56;
        return;
    }
    while (in->count < 56 && in->next < in->end) {
        in->word |= (uint64_t)*in->next++ << in->count;
        in->count += 8;
    }
}

static inline void
take(struct bits *in, unsigned count)
{
    in->word >>= count;
    in->count -= count;
}

/* The next `count` (at most 16) bits as a number; false if the source ends before. */
static bool
read_number(struct bits *in, unsigned count, unsigned *ret_number)
{
    refill(in);
    if (in->count < count)
        return false;
    *ret_number = (unsigned)(in->word & ((UINT64_C(1) << count) - 1));
    take(in, count);
    return true;
}

/* ---- failing ---- */

static int
refuse(const struct walker *walker, const char *what, uint64_t value)
{
    const struct bits *in = &walker->in;
    uint64_t bit = (uint64_t)(in->next - walker->source) * 8 - in->count;
    return q2_error_set(walker->err, Q2_ERR_FORMAT,
                        "deflate stream broken at byte %" PRIu64 ", bit %u, after %zu bytes of "
                        "output: %s (%" PRIu64 ")",
                        bit / 8, (unsigned)(bit % 8), walker->produced, what, value);
}

static int
refuse_cut(const struct walker *walker)
{
    size_t length = (size_t)(walker->in.end - walker->source);
    return q2_error_set(walker->err, Q2_ERR_FORMAT,
                        "deflate stream cut short: it goes on after byte %zu, the last one, and "
                        "%zu bytes of output",
                        length, walker->produced);
}

static int
refuse_long(const struct walker *walker)
{
    return q2_error_set(walker->err, Q2_ERR_FORMAT,
                        "deflate stream decodes to more than the expected %zu bytes",
                        walker->limit);
}

/* ---- blocks ---- */

/* "Non-compressed blocks", section 3.2.4. */
static int
walk_stored(struct walker *walker)
{
    struct bits *in = &walker->in;
    unsigned length, check;
    take(in, in->count & 7);
    if (!read_number(in, 16, &length) || !read_number(in, 16, &check))
        return refuse_cut(walker);
    if (length != (check ^ 0xffff))
        return refuse(walker, "a stored block's length contradicts its complement", length);

    in->next -= in->count / 8;
    in->word = 0;
    in->count = 0;
    if (length > walker->limit - walker->produced)
        return refuse_long(walker);
    if (length > (size_t)(in->end - in->next))
        return refuse_cut(walker);
    in->next += length;
    walker->produced += length;
    return 0;
}

/* How the tokens of a block end. */
enum ending {
    ENDING_BLOCK, /* as they should */
    ENDING_CUT,
    ENDING_LONG,
    ENDING_FAR, /* a distance that reaches before the first byte */
    ENDING_SYMBOL,
};

static int
judge_ending(const struct walker *walker, enum ending ending, uint32_t distance)
{
    switch (ending) {
    case ENDING_BLOCK:
        return 0;
    case ENDING_CUT:
        return refuse_cut(walker);
    case ENDING_LONG:
        return refuse_long(walker);
    case ENDING_FAR:
        return refuse(walker, "a distance reaches before the first byte", distance);
    case ENDING_SYMBOL:
        break;
    }
    return refuse(walker, "no such symbol", walker->in.word & 0x7fff);
}

/* Why this meaning ends the tokens. */
static enum ending
ending_of(uint32_t meaning, const struct bits *in)
{
    if (q2_huffman_take(meaning) > in->count)
        return ENDING_CUT;
    return meaning & Q2_HUFFMAN_END ? ENDING_BLOCK : ENDING_SYMBOL;
}

/* Literals and matches up to the end of the block. The hot loop: it works on copies that stay in
 * registers. */
static int
walk_tokens(struct walker *walker)
{
    struct bits in = walker->in;
    size_t produced = walker->produced;
    uint32_t farthest = walker->distance, distance = 0;
    enum ending ending;
    for (;;) {
        refill(&in);
        uint32_t meaning = q2_huffman_look(&walker->literals, in.word);
        unsigned bits = q2_huffman_take(meaning);
        if (bits > in.count || meaning & (Q2_HUFFMAN_END | Q2_HUFFMAN_INVALID)) {
            ending = ending_of(meaning, &in);
            if (ending == ENDING_BLOCK)
                take(&in, bits);
            break;
        }
        uint32_t length = q2_huffman_value(meaning, in.word);
        if (length > walker->limit - produced) {
            ending = ENDING_LONG;
            break;
        }
        take(&in, bits);
        if (meaning & Q2_HUFFMAN_MATCH) {
            meaning = q2_huffman_look(&walker->distances, in.word);
            bits = q2_huffman_take(meaning);
            if (bits > in.count || meaning & Q2_HUFFMAN_INVALID) {
                ending = ending_of(meaning, &in);
                break;
            }
            distance = q2_huffman_value(meaning, in.word);
            if (distance > produced) {
                ending = ENDING_FAR;
                break;
            }
            take(&in, bits);
            farthest = distance > farthest ? distance : farthest;
        }
        produced += length;
    }
    walker->in = in;
    walker->produced = produced;
    walker->distance = farthest;
    return judge_ending(walker, ending, distance);
}

/* "Compression with fixed Huffman codes", section 3.2.6. */
static int
walk_fixed(struct walker *walker)
{
    if (!walker->fixed) {
        uint8_t lengths[Q2_HUFFMAN_MAX_SYMBOLS];
        memset(lengths, 8, 144);
        memset(lengths + 144, 9, 112);
        memset(lengths + 256, 7, 24);
        memset(lengths + 280, 8, 8);
        q2_huffman_build(&walker->literals, lengths, Q2_HUFFMAN_MAX_SYMBOLS, literal_meanings,
                         false);
        memset(lengths, 5, 32);
        q2_huffman_build(&walker->distances, lengths, 32, distance_meanings, false);
        walker->fixed = true;
    }
    return walk_tokens(walker);
}

/* The code that the lengths of a dynamic block's codes are written in. `code` gets it. */
static int
read_length_code(struct walker *walker, unsigned count, struct q2_huffman *code)
{
    static const uint8_t order[CODE_LENGTHS] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                11, 4,  12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[CODE_LENGTHS] = {0};
    for (unsigned i = 0; i < count; i++) {
        unsigned length;
        if (!read_number(&walker->in, 3, &length))
            return refuse_cut(walker);
        lengths[order[i]] = (uint8_t)length;
    }
    if (!q2_huffman_build(code, lengths, CODE_LENGTHS, length_meanings, false))
        return refuse(walker, "the code of code lengths is not a complete code", count);
    return 0;
}

/* One item of the run-length coded list of code lengths: `length` is to be added *ret_repeat times.
 * `previous` is the last length added, negative if there is none. */
static int
read_length(struct walker *walker, const struct q2_huffman *code, int previous, uint8_t *ret_length,
            unsigned *ret_repeat)
{
    struct bits *in = &walker->in;
    refill(in);
    uint32_t meaning = q2_huffman_look(code, in->word);
    unsigned bits = q2_huffman_take(meaning);
    if (bits > in->count)
        return refuse_cut(walker);
    unsigned symbol = q2_huffman_value(meaning, in->word);
    take(in, bits);
    if (symbol < 16) {
        *ret_length = (uint8_t)symbol;
        *ret_repeat = 1;
        return 0;
    }

    static const unsigned extra[] = {2, 3, 7}, base[] = {3, 3, 11};
    unsigned repeat;
    if (symbol == 16 && previous < 0)
        return refuse(walker, "nothing to repeat before the first code length", symbol);
    if (!read_number(in, extra[symbol - 16], &repeat))
        return refuse_cut(walker);
    *ret_length = symbol == 16 ? (uint8_t)previous : 0;
    *ret_repeat = base[symbol - 16] + repeat;
    return 0;
}

static int
read_lengths(struct walker *walker, const struct q2_huffman *code, uint8_t *lengths, unsigned count)
{
    unsigned have = 0;
    while (have < count) {
        uint8_t length = 0;
        unsigned repeat = 0;
        int previous = have ? lengths[have - 1] : -1;
        int r = read_length(walker, code, previous, &length, &repeat);
        if (r < 0)
            return r;
        if (repeat > count - have)
            return refuse(walker, "code lengths repeat beyond the last symbol", repeat);
        memset(lengths + have, length, repeat);
        have += repeat;
    }
    return 0;
}

/* "Compression with dynamic Huffman codes", section 3.2.7. */
static int
walk_dynamic(struct walker *walker)
{
    unsigned literals, distances, count;
    if (!read_number(&walker->in, 5, &literals) || !read_number(&walker->in, 5, &distances) ||
        !read_number(&walker->in, 4, &count))
        return refuse_cut(walker);
    literals += 257;
    distances += 1;
    if (literals > LITERALS)
        return refuse(walker, "too many literal and length symbols", literals);
    if (distances > DISTANCES)
        return refuse(walker, "too many distance symbols", distances);

    /* The code of the lengths is needed no more once they are read: its table may be reused. */
    walker->fixed = false;
    uint8_t lengths[LITERALS + DISTANCES];
    int r = read_length_code(walker, count + 4, &walker->distances);
    if (r == 0)
        r = read_lengths(walker, &walker->distances, lengths, literals + distances);
    if (r < 0)
        return r;
    if (lengths[END_OF_BLOCK] == 0)
        return refuse(walker, "there is no code for the end of the block", END_OF_BLOCK);
    if (!q2_huffman_build(&walker->literals, lengths, literals, literal_meanings, true))
        return refuse(walker, "the literal and length code is not a complete code", literals);
    if (!q2_huffman_build(&walker->distances, lengths + literals, distances, distance_meanings,
                          true))
        return refuse(walker, "the distance code is not a complete code", distances);
    return walk_tokens(walker);
}

static int
walk_block(struct walker *walker, bool *ret_last)
{
    unsigned last, type;
    if (!read_number(&walker->in, 1, &last) || !read_number(&walker->in, 2, &type))
        return refuse_cut(walker);
    int r;
    switch (type) {
    case 0:
        r = walk_stored(walker);
        break;
    case 1:
        r = walk_fixed(walker);
        break;
    case 2:
        r = walk_dynamic(walker);
        break;
    default:
        return refuse(walker, "no such block type", type);
    }
    if (r == 0)
        *ret_last = last;
    return r;
}

int
q2_deflate_walk(const void *source, size_t source_length, size_t length,
                struct q2_deflate_walk *ret_walk, struct q2_error *err)
{
    /* The tables in it are written before they are read; clearing them would cost more than a
     * small cluster does. */
    struct walker walker;
    walker.source = source_length ? source : (const void *)"";
    walker.in = (struct bits){.next = walker.source, .end = walker.source + source_length};
    walker.limit = length;
    walker.produced = 0;
    walker.distance = 0;
    walker.fixed = false;
    walker.err = err;

    for (bool last = false; !last;) {
        int r = walk_block(&walker, &last);
        if (r < 0)
            return r;
    }
    ret_walk->used = (size_t)(walker.in.next - walker.source) - walker.in.count / 8;
    ret_walk->produced = walker.produced;
    ret_walk->distance = walker.distance;
    return 0;
}

int
q2_deflate_max_distance(const void *source, size_t source_length, size_t length,
                        uint32_t *ret_distance, struct q2_error *err)
{
    struct q2_deflate_walk walk;
    int r = q2_deflate_walk(source, source_length, length, &walk, err);
    if (r == 0)
        *ret_distance = walk.distance;
    return r;
}
