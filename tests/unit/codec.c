/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The decoders are held to the libraries that other readers use: a deflate cluster must be accepted
 * exactly where zlib's inflate yields the whole cluster, a zstd one where libzstd's streaming
 * reader does, and the largest distance fits a 4 KiB window exactly where inflate with a real
 * window of that size gets through. Sources and results live in allocations of their exact size, so
 * that a sanitizer sees any step beyond. */

#include "core/codec/codec.h"
#include "core/base/cleanup.h"
#include "tests/unit/streams.h"

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static struct stream
deflate_bytes(const uint8_t *bytes, size_t length, int window_bits, int level, int strategy)
{
    z_stream z = {0};
    cr_assert_eq(deflateInit2(&z, level, Z_DEFLATED, -window_bits, 9, strategy), Z_OK);
    size_t room = deflateBound(&z, length) + 64;
    uint8_t *buffer = malloc(room);
    z.next_in = (uint8_t *)(uintptr_t)bytes;
    z.avail_in = (uInt)length;
    z.next_out = buffer;
    z.avail_out = (uInt)room;
    cr_assert_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    struct stream stream = {realloc(buffer, z.total_out), z.total_out};
    deflateEnd(&z);
    return stream;
}

/* ---- zlib as the judge ---- */

/* What inflate makes of a stream in one call: whether it ends within `length` bytes of output. */
static bool
inflate_whole(const struct stream *stream, uint8_t *buffer, size_t length, size_t *ret_used,
              size_t *ret_produced)
{
    z_stream z = {0};
    uint8_t none;
    cr_assert_eq(inflateInit2(&z, -15), Z_OK);
    z.next_in = stream->bytes;
    z.avail_in = (uInt)stream->length;
    z.next_out = length ? buffer : &none;
    z.avail_out = (uInt)length;
    bool ended = inflate(&z, Z_FINISH) == Z_STREAM_END;
    *ret_used = z.total_in;
    *ret_produced = z.total_out;
    inflateEnd(&z);
    return ended;
}

/* Whether a sound stream decodes with a window of 4 KiB and nothing else to look back into: given
 * one byte of room at a time, inflate has only its window. */
static bool
fits_small_window(const struct stream *stream)
{
    z_stream z = {0};
    uint8_t byte;
    int r;
    cr_assert_eq(inflateInit2(&z, -12), Z_OK);
    z.next_in = stream->bytes;
    z.avail_in = (uInt)stream->length;
    do {
        z.next_out = &byte;
        z.avail_out = 1;
        r = inflate(&z, Z_NO_FLUSH);
    } while (r == Z_OK);
    inflateEnd(&z);
    return r == Z_STREAM_END;
}

/* Both of our functions must agree with zlib about this stream, but for damage that the decoder may
 * overlook. Returns its largest distance, or -1
 * if it is no sound deflate stream of at most `length` bytes of output. */
static int64_t
agree(struct q2_decoder *decoder, const struct stream *stream, size_t length)
{
    Q2_AUTOFREE uint8_t *expected = malloc(length), *got = malloc(length);
    size_t expected_used, produced, used = SIZE_MAX;
    struct q2_error err = {0};
    bool sound = inflate_whole(stream, expected, length, &expected_used, &produced);

    int r = q2_decoder_run(decoder, stream->bytes, stream->length, got, length, &used, &err);
    if (sound && produced == length) {
        cr_assert_eq(r, 0, "%s", err.message);
        cr_assert_eq(used, expected_used);
        cr_assert_arr_eq(got, expected, length);
    } else if (sound || r != 0) {
        cr_assert_eq(r, Q2_ERR_FORMAT);
        cr_assert_eq(used, SIZE_MAX);
        cr_assert_gt(strlen(err.message), 10);
    } else {
        /* Damage that the decoder does not mind; the walk, below, must. */
        cr_assert_leq(used, stream->length);
    }

    uint32_t distance = UINT32_MAX;
    r = q2_deflate_max_distance(stream->bytes, stream->length, length, &distance, NULL);
    cr_assert_eq(r, sound ? 0 : Q2_ERR_FORMAT);
    if (!sound) {
        cr_assert_eq(distance, UINT32_MAX);
        return -1;
    }
    cr_assert_eq(distance <= Q2_DEFLATE_WINDOW, fits_small_window(stream), "distance %u", distance);
    return distance;
}

static struct q2_decoder *
decoder_for(enum q2_compression type)
{
    struct q2_decoder *decoder = NULL;
    cr_assert_eq(q2_decoder_new(type, &decoder, NULL), 0);
    return decoder;
}

/* ---- deflate ---- */

Test(codec, deflate_of_every_level_and_strategy)
{
    static const size_t sizes[] = {512, 4096, 65536, 2 << 20};
    struct q2_decoder *decoder = decoder_for(Q2_COMPRESSION_ZLIB);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        bool large = sizes[i] > 65536;
        Q2_AUTOFREE uint8_t *bytes = mixed_bytes(sizes[i], 7);
        for (int level = large ? 6 : 0; level <= (large ? 6 : 9); level++) {
            for (int strategy = Z_DEFAULT_STRATEGY; strategy <= Z_FIXED; strategy++) {
                AUTOSTREAM stream = deflate_bytes(bytes, sizes[i], 12, level, strategy);
                int64_t distance = agree(decoder, &stream, sizes[i]);
                cr_assert(distance >= 0 && distance <= Q2_DEFLATE_WINDOW);
            }
        }
    }
    q2_decoder_free(decoder);
}

Test(codec, deflate_of_incompressible_and_of_constant_data)
{
    struct q2_decoder *decoder = decoder_for(Q2_COMPRESSION_ZLIB);
    Q2_AUTOFREE uint8_t *noise = random_bytes(65536, 3), *zeros = calloc(1, 65536);
    AUTOSTREAM stored = deflate_bytes(noise, 65536, 12, 6, Z_HUFFMAN_ONLY);
    AUTOSTREAM constant = deflate_bytes(zeros, 65536, 12, 9, Z_DEFAULT_STRATEGY);
    cr_assert_eq(agree(decoder, &stored, 65536), 0);
    cr_assert_eq(agree(decoder, &constant, 65536), 1);
    q2_decoder_free(decoder);
}

/* Noise of `distance` bytes whose beginning comes again: the only match is that far back. */
Test(codec, known_distances_are_found)
{
    static const size_t distances[] = {1000, 4095, 4096, 4097, 5000, 20000, 32506};
    struct q2_decoder *decoder = decoder_for(Q2_COMPRESSION_ZLIB);
    for (size_t i = 0; i < sizeof distances / sizeof distances[0]; i++) {
        size_t distance = distances[i], length = distance + 500;
        Q2_AUTOFREE uint8_t *bytes = random_bytes(length, 11);
        memcpy(bytes + distance, bytes, 500);
        AUTOSTREAM stream = deflate_bytes(bytes, length, 15, 9, Z_DEFAULT_STRATEGY);
        cr_assert_eq(agree(decoder, &stream, length), (int64_t)distance);
    }
    q2_decoder_free(decoder);
}

Test(codec, wide_windows_agree_with_zlib)
{
    struct q2_decoder *decoder = decoder_for(Q2_COMPRESSION_ZLIB);
    for (uint32_t seed = 1; seed <= 8; seed++) {
        Q2_AUTOFREE uint8_t *bytes = mixed_bytes(65536, seed);
        AUTOSTREAM stream = deflate_bytes(bytes, 65536, 15, (int)seed, Z_DEFAULT_STRATEGY);
        agree(decoder, &stream, 65536);
    }
    q2_decoder_free(decoder);
}

/* Small streams of each block type, and one of several blocks. */
static struct stream
small_stream(int kind)
{
    static const int levels[] = {0, 9, 9, 6}, strategies[] = {0, Z_FIXED, 0, Z_HUFFMAN_ONLY};
    Q2_AUTOFREE uint8_t *bytes = mixed_bytes(512, 5);
    return deflate_bytes(bytes, 512, 12, levels[kind], strategies[kind]);
}

Test(codec, deflate_cut_at_every_length)
{
    struct q2_decoder *decoder = decoder_for(Q2_COMPRESSION_ZLIB);
    for (int kind = 0; kind < 4; kind++) {
        AUTOSTREAM stream = small_stream(kind);
        for (size_t length = 0; length < stream.length; length++) {
            AUTOSTREAM cut = stream_copy(&stream, length);
            cr_assert_eq(agree(decoder, &cut, 512), -1);
        }
    }
    q2_decoder_free(decoder);
}

Test(codec, deflate_with_every_bit_flipped)
{
    struct q2_decoder *decoder = decoder_for(Q2_COMPRESSION_ZLIB);
    for (int kind = 0; kind < 4; kind++) {
        AUTOSTREAM stream = small_stream(kind);
        for (size_t bit = 0; bit < stream.length * 8; bit++) {
            AUTOSTREAM flipped = stream_copy(&stream, stream.length);
            flipped.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            agree(decoder, &flipped, 512);
        }
    }
    q2_decoder_free(decoder);
}

Test(codec, deflate_with_many_bits_flipped)
{
    struct q2_decoder *decoder = decoder_for(Q2_COMPRESSION_ZLIB);
    uint32_t random = 99;
    for (int round = 0; round < 20000; round++) {
        AUTOSTREAM stream = small_stream(round % 4);
        for (uint32_t flips = 1 + next_random(&random) % 6; flips; flips--) {
            uint32_t bit = next_random(&random) % (uint32_t)(stream.length * 8);
            stream.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        agree(decoder, &stream, 512);
    }
    q2_decoder_free(decoder);
}

Test(codec, random_bytes_as_deflate)
{
    struct q2_decoder *decoder = decoder_for(Q2_COMPRESSION_ZLIB);
    uint32_t random = 4711;
    for (uint32_t round = 1; round <= 100000; round++) {
        AUTOSTREAM stream = {.length = next_random(&random) % 200};
        stream.bytes = random_bytes(stream.length, round);
        /* Steer half of them to the two block types with codes. */
        if (stream.length && round % 2)
            stream.bytes[0] = (uint8_t)((stream.bytes[0] & 0xf8) | (round % 4 == 1 ? 5 : 3));
        agree(decoder, &stream, 512);
    }
    q2_decoder_free(decoder);
}

Test(codec, results_of_the_wrong_length_are_refused)
{
    struct q2_decoder *decoder = decoder_for(Q2_COMPRESSION_ZLIB);
    Q2_AUTOFREE uint8_t *bytes = mixed_bytes(4097, 2);
    for (size_t length = 4095; length <= 4097; length++) {
        for (int level = 0; level <= 6; level += 6) {
            AUTOSTREAM stream = deflate_bytes(bytes, length, 12, level, Z_DEFAULT_STRATEGY);
            cr_assert_eq(agree(decoder, &stream, 4096) >= 0, length <= 4096);
        }
    }
    q2_decoder_free(decoder);
}

/* ---- deflate streams made by hand, for each rule about codes ---- */

struct writer {
    uint8_t bytes[1024];
    size_t bits;
};

static void
put_bit(struct writer *writer, unsigned bit)
{
    writer->bytes[writer->bits / 8] |= (uint8_t)(bit << writer->bits % 8);
    writer->bits++;
}

static void
put_number(struct writer *writer, unsigned number, unsigned bits)
{
    for (unsigned i = 0; i < bits; i++)
        put_bit(writer, number >> i & 1);
}

/* A last block with codes of these lengths, in which tokens[] are 0s and 1s. The lengths are
 * written in a code that gives each of them four bits. */
static struct stream
dynamic_block(const uint8_t *literals, unsigned literal_count, const uint8_t *distances,
              unsigned distance_count, const char *tokens)
{
    struct writer writer = {0};
    put_number(&writer, 5, 3);
    put_number(&writer, literal_count - 257, 5);
    put_number(&writer, distance_count - 1, 5);
    put_number(&writer, 15, 4);
    for (unsigned i = 0; i < 19; i++)
        put_number(&writer, i < 3 ? 0 : 4, 3);
    for (unsigned i = 0; i < literal_count + distance_count; i++) {
        unsigned length = i < literal_count ? literals[i] : distances[i - literal_count];
        for (unsigned bit = 4; bit-- > 0;)
            put_bit(&writer, length >> bit & 1);
    }
    for (; *tokens; tokens++)
        put_bit(&writer, *tokens == '1');
    struct stream made = {writer.bytes, (writer.bits + 7) / 8};
    return stream_copy(&made, made.length);
}

Test(codec, rules_about_codes)
{
    /* The lengths of the codes of literals 'a', 'b', the end of the block and a match of length 3,
     * and of the distances 1 to 4; 0 is a code that does not occur. */
    static const struct {
        uint8_t a, b, end, match;
        uint8_t distances[4];
        unsigned literal_count, distance_count;
        const char *tokens;
        int64_t expected;
    } cases[] = {
        {0, 0, 1, 0, {0}, 257, 1, "0", 0},            /* a lone code of one bit, the end */
        {0, 0, 1, 0, {0}, 257, 1, "1", -1},           /* the code that it leaves over */
        {0, 0, 2, 0, {0}, 257, 1, "00", -1},          /* a lone code of two bits */
        {1, 0, 1, 0, {0}, 257, 1, "01", 0},           /* no distances at all */
        {2, 0, 1, 0, {0}, 257, 1, "0", -1},           /* incomplete */
        {1, 1, 1, 0, {0}, 257, 1, "0", -1},           /* over-subscribed */
        {1, 1, 0, 0, {0}, 257, 1, "0", -1},           /* no code for the end */
        {1, 0, 2, 2, {1}, 258, 1, "011010", 1},       /* a lone distance */
        {1, 0, 2, 2, {1}, 258, 1, "011110", -1},      /* the code that it leaves over */
        {1, 0, 2, 2, {0}, 258, 1, "011010", -1},      /* a match without distances */
        {1, 0, 2, 2, {2}, 258, 1, "010", -1},         /* an incomplete distance code */
        {1, 0, 2, 2, {1, 1, 1}, 258, 3, "010", -1},   /* an over-subscribed one */
        {1, 0, 2, 2, {1, 1}, 258, 2, "0011110", 2},   /* as far as the first byte */
        {1, 0, 2, 2, {1, 1}, 258, 2, "011110", -1},   /* and beyond it */
        {1, 0, 2, 2, {1, 1}, 286, 30, "0011110", 2},  /* as many symbols as there are */
        {1, 0, 2, 2, {1, 1}, 287, 30, "0011110", -1}, /* one more */
        {1, 0, 2, 2, {1, 1}, 286, 31, "0011110", -1}, /* the same of distances */
    };
    struct q2_decoder *decoder = decoder_for(Q2_COMPRESSION_ZLIB);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t literals[288] = {['a'] = cases[i].a, ['b'] = cases[i].b, [256] = cases[i].end};
        uint8_t distances[32] = {0};
        literals[257] = cases[i].match;
        memcpy(distances, cases[i].distances, sizeof cases[i].distances);
        AUTOSTREAM stream = dynamic_block(literals, cases[i].literal_count, distances,
                                          cases[i].distance_count, cases[i].tokens);
        cr_assert_eq(agree(decoder, &stream, 512), cases[i].expected, "case %zu", i);
    }
    q2_decoder_free(decoder);
}

/* Codes of 1, 2 ... 14, 15 and 15 bits, each used once: the longer ones have no direct look-up. */
Test(codec, codes_of_every_length)
{
    uint8_t literals[257] = {0}, distances[1] = {0};
    char tokens[256] = "";
    for (unsigned i = 0; i < 15; i++) {
        literals['a' + i] = (uint8_t)(i + 1);
        memset(strchr(tokens, 0), '1', i);
        strcat(tokens, "0");
    }
    literals[256] = 15;
    strcat(tokens, "111111111111111");
    struct q2_decoder *decoder = decoder_for(Q2_COMPRESSION_ZLIB);
    AUTOSTREAM stream = dynamic_block(literals, 257, distances, 1, tokens);
    cr_assert_eq(agree(decoder, &stream, 15), 0);
    cr_assert_eq(agree(decoder, &stream, 14), -1);
    q2_decoder_free(decoder);
}

/* Blocks without output cost their reader the most: one for every few bytes of the source. */
Test(codec, many_empty_blocks)
{
    AUTOSTREAM stream = {calloc(1, 1 << 18), 1 << 18};
    struct q2_decoder *decoder = decoder_for(Q2_COMPRESSION_ZLIB);
    for (size_t bit = 0; bit + 10 <= stream.length * 8; bit += 10)
        stream.bytes[(bit + 1) / 8] |= (uint8_t)(1 << (bit + 1) % 8);
    cr_assert_eq(agree(decoder, &stream, 512), -1);
    q2_decoder_free(decoder);
}

Test(codec, what_follows_deflate_is_ignored)
{
    struct q2_decoder *decoder = decoder_for(Q2_COMPRESSION_ZLIB);
    Q2_AUTOFREE uint8_t *bytes = mixed_bytes(65536, 2), *garbage = random_bytes(511, 8);
    AUTOSTREAM stream = deflate_bytes(bytes, 65536, 12, 6, Z_DEFAULT_STRATEGY);
    AUTOSTREAM padded = stream_append(&stream, garbage, 511);
    cr_assert_geq(agree(decoder, &padded, 65536), 0);
    q2_decoder_free(decoder);
}

Test(codec, empty_sources_and_empty_clusters_are_refused)
{
    uint8_t cluster[512];
    size_t used = 77;
    for (int type = 0; type < 2; type++) {
        struct q2_decoder *decoder = decoder_for((enum q2_compression)type);
        cr_assert_eq(q2_decoder_run(decoder, NULL, 0, cluster, 512, &used, NULL), Q2_ERR_FORMAT);
        cr_assert_eq(q2_decoder_run(decoder, "\3\0", 2, cluster, 0, &used, NULL), Q2_ERR_RANGE);
        cr_assert_eq(q2_decoder_run(decoder, "\3\0", 2, cluster, (2 << 20) + 1, &used, NULL),
                     Q2_ERR_RANGE);
        q2_decoder_free(decoder);
    }
    uint32_t distance = 5;
    cr_assert_eq(q2_deflate_max_distance(NULL, 0, 512, &distance, NULL), Q2_ERR_FORMAT);
    cr_assert_eq(used, 77);
    cr_assert_eq(distance, 5);
    cr_assert_eq(q2_deflate_max_distance("\3\0", 2, 0, &distance, NULL), 0);
    cr_assert_eq(distance, 0);
}

Test(codec, unknown_types_are_refused)
{
    struct q2_decoder *decoder = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_decoder_new((enum q2_compression)2, &decoder, &err), Q2_ERR_UNSUPPORTED);
    cr_assert_null(decoder);
    cr_assert_str_eq(err.message, "compression type 2 is unknown");
    q2_decoder_free(NULL);
}
