/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the encoders write is judged by those who will read it: our decoders, zlib's inflate with no
 * more than its 4 KiB window, libzstd's streaming reader. Buffers live in allocations of their
 * exact size, so that a sanitizer sees any step beyond. */

#include "core/base/cleanup.h"
#include "core/codec/codec.h"
#include "core/codec/codes.h"
#include "core/codec/matches.h"
#include "tests/unit/streams.h"

#include <criterion/criterion.h>
#include <zlib.h>
#include <zstd.h>

enum { CLUSTER_MIN = 512, CLUSTER_MAX = 2 << 20 };

static const enum q2_compression types[] = {Q2_COMPRESSION_ZLIB, Q2_COMPRESSION_ZSTD};

static struct q2_encoder *
encoder_for(enum q2_compression type)
{
    struct q2_encoder *encoder = NULL;
    cr_assert_eq(q2_encoder_new(type, &encoder, NULL), 0);
    return encoder;
}

/* ---- data ---- */

enum kind {
    ZEROS,
    TEXT,
    MIXED,
    RANDOM,
    HALF_RANDOM, /* then zeros */
    SKEWED,      /* many symbols, few of them common, no matches worth having */
    FIBONACCI,   /* codes as long as they get */
    PERIOD_4096, /* matches at the window's edge ... */
    PERIOD_4097, /* ... and just beyond */
    PERIOD_3000,
    COUNTERS,
    SWITCHING, /* text and noise in turns */
    KINDS,
};

static void
fill_period(uint8_t *bytes, size_t length, size_t period)
{
    for (size_t i = period; i < length; i++)
        bytes[i] = bytes[i - period];
}

static void
fill_text(uint8_t *bytes, size_t length, uint32_t seed)
{
    static const char *const words[] = {"cluster ", "table ",   "offset ", "of the ", "image ",
                                        "refcount", "snapshot", "\n",      "is ",     "zero, "};
    for (size_t at = 0; at < length;) {
        const char *word = words[next_random(&seed) % 10];
        size_t count = strlen(word) < length - at ? strlen(word) : length - at;
        memcpy(bytes + at, word, count);
        at += count;
    }
}

/* Each rank of symbols is half as likely as the one before. */
static void
fill_skewed(uint8_t *bytes, size_t length, uint32_t seed)
{
    for (size_t i = 0; i < length; i++) {
        uint32_t draw = next_random(&seed);
        uint32_t rank = draw ? (uint32_t)__builtin_clz(draw) : 32;
        bytes[i] = (uint8_t)(rank * 7 + (next_random(&seed) & 3));
    }
}

/* Symbols as frequent as Fibonacci's numbers, in no order. */
static void
fill_fibonacci(uint8_t *bytes, size_t length, uint32_t seed)
{
    size_t at = 0, a = 1, b = 1;
    for (unsigned symbol = 0; at < length; symbol++) {
        for (size_t i = 0; i < a && at < length; i++)
            bytes[at++] = (uint8_t)symbol;
        size_t sum = a + b;
        a = b;
        b = sum;
    }
    for (size_t i = length - 1; i > 0; i--) {
        size_t other = next_random(&seed) % (i + 1);
        uint8_t byte = bytes[i];
        bytes[i] = bytes[other];
        bytes[other] = byte;
    }
}

static void
fill_counters(uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = i % 4 == 3 ? (uint8_t)(i / 4) : i % 4 == 2 ? (uint8_t)(i / 1024) : 0;
}

static uint8_t *
data_of(enum kind kind, size_t length)
{
    uint32_t seed = (uint32_t)length + 77;
    if (kind == MIXED)
        return mixed_bytes(length, seed);
    uint8_t *bytes = random_bytes(length, seed);
    if (kind == ZEROS)
        memset(bytes, 0, length);
    else if (kind == TEXT)
        fill_text(bytes, length, seed);
    else if (kind == HALF_RANDOM)
        memset(bytes + length / 2, 0, length - length / 2);
    else if (kind == SKEWED)
        fill_skewed(bytes, length, seed);
    else if (kind == FIBONACCI)
        fill_fibonacci(bytes, length, seed);
    else if (kind == PERIOD_4096)
        fill_period(bytes, length, 4096);
    else if (kind == PERIOD_4097)
        fill_period(bytes, length, 4097);
    else if (kind == PERIOD_3000)
        fill_period(bytes, length, 3000);
    else if (kind == COUNTERS)
        fill_counters(bytes, length);
    for (size_t at = 0; kind == SWITCHING && at < length; at += 20000)
        fill_text(bytes + at, length - at < 10000 ? length - at : 10000, seed);
    return bytes;
}

/* ---- readers ---- */

/* inflate that is given one byte of room at a time, and so has only its window to look back. */
static void
inflates(const struct stream *stream, const uint8_t *expected, size_t length)
{
    z_stream z = {.next_in = stream->bytes, .avail_in = (uInt)stream->length};
    uint8_t byte;
    cr_assert_eq(inflateInit2(&z, -12), Z_OK);
    for (size_t i = 0; i < length; i++) {
        z.next_out = &byte;
        z.avail_out = 1;
        int r = inflate(&z, Z_NO_FLUSH);
        cr_assert((r == Z_OK || r == Z_STREAM_END) && z.avail_out == 0, "byte %zu: %d", i, r);
        cr_assert_eq(byte, expected[i]);
    }
    z.next_out = &byte;
    z.avail_out = 1;
    inflate(&z, Z_FINISH);
    cr_assert_eq(z.total_out, length);
    cr_assert_eq(z.total_in, stream->length);
    inflateEnd(&z);
}

static void
decompresses(const struct stream *stream, const uint8_t *expected, size_t length)
{
    Q2_AUTOFREE uint8_t *got = malloc(length);
    ZSTD_DCtx *dctx = ZSTD_createDCtx();
    ZSTD_inBuffer in = {stream->bytes, stream->length, 0};
    ZSTD_outBuffer out = {got, length, 0};
    cr_assert_eq(ZSTD_decompressStream(dctx, &out, &in), 0);
    ZSTD_freeDCtx(dctx);
    cr_assert_eq(in.pos, stream->length);
    cr_assert_eq(out.pos, length);
    cr_assert_arr_eq(got, expected, length);
    cr_assert_eq(ZSTD_getFrameContentSize(stream->bytes, stream->length), length);
}

static void
decodes(enum q2_compression type, const struct stream *stream, const uint8_t *expected,
        size_t length)
{
    struct q2_decoder *decoder = NULL;
    Q2_AUTOFREE uint8_t *got = malloc(length);
    struct q2_error err = {0};
    size_t used = 0;
    cr_assert_eq(q2_decoder_new(type, &decoder, NULL), 0);
    cr_assert_eq(q2_decoder_run(decoder, stream->bytes, stream->length, got, length, &used, &err),
                 0, "%s", err.message);
    q2_decoder_free(decoder);
    cr_assert_eq(used, stream->length);
    cr_assert_arr_eq(got, expected, length);
}

static struct stream
encode(struct q2_encoder *encoder, const uint8_t *bytes, size_t length)
{
    struct stream stream = {malloc(2 * length + 1024), 0};
    struct q2_error err = {0};
    cr_assert_eq(q2_encoder_run(encoder, bytes, length, stream.bytes, 2 * length + 1024,
                                &stream.length, &err),
                 0, "%s", err.message);
    cr_assert(stream.length > 0);
    stream.bytes = realloc(stream.bytes, stream.length);
    return stream;
}

/* ---- tests ---- */

/* The stream fits where it just fits, give or take the slack; one byte less is too little. */
static void
fits_tightly(struct q2_encoder *encoder, const uint8_t *bytes, size_t length,
             const struct stream *stream)
{
    size_t tight = stream->length + Q2_ENCODER_SLACK, used = 0;
    Q2_AUTOFREE uint8_t *exact = malloc(tight);
    cr_assert_eq(q2_encoder_run(encoder, bytes, length, exact, tight, &used, NULL), 0);
    cr_assert_eq(used, stream->length);
    cr_assert_arr_eq(exact, stream->bytes, used);
    Q2_AUTOFREE uint8_t *less = malloc(stream->length - 1 ? stream->length - 1 : 1);
    struct q2_error err = {0};
    used = 4711;
    cr_assert_eq(q2_encoder_run(encoder, bytes, length, less, stream->length - 1, &used, &err),
                 Q2_ERR_NOSPACE);
    cr_assert_eq(err.code, Q2_ERR_NOSPACE);
    cr_assert_eq(used, 4711);
}

static void
round_trips(enum q2_compression type, size_t length)
{
    struct q2_encoder *encoder = encoder_for(type); /* the same for all kinds */
    for (enum kind kind = 0; kind < KINDS; kind++) {
        Q2_AUTOFREE uint8_t *bytes = data_of(kind, length);
        AUTOSTREAM stream = encode(encoder, bytes, length);
        uint32_t distance = 0;
        decodes(type, &stream, bytes, length);
        if (type == Q2_COMPRESSION_ZSTD) {
            decompresses(&stream, bytes, length);
        } else {
            inflates(&stream, bytes, length);
            cr_assert_eq(q2_deflate_max_distance(stream.bytes, stream.length, length, &distance,
                                                 NULL),
                         0);
            cr_assert(distance <= Q2_DEFLATE_WINDOW, "%u", distance);
        }
        fits_tightly(encoder, bytes, length, &stream);
        struct q2_encoder *other = encoder_for(type);
        AUTOSTREAM again = encode(other, bytes, length);
        cr_assert_eq(again.length, stream.length);
        cr_assert_arr_eq(again.bytes, stream.bytes, stream.length);
        q2_encoder_free(other);
    }
    q2_encoder_free(encoder);
}

/* All sizes of clusters up to 64 KiB, and the largest. */
static size_t
next_length(size_t length)
{
    return length < 64 << 10 ? length * 2 : length * 32;
}

Test(encoder, zlib_round_trips)
{
    for (size_t length = CLUSTER_MIN; length <= CLUSTER_MAX; length = next_length(length))
        round_trips(Q2_COMPRESSION_ZLIB, length);
}

Test(encoder, zstd_round_trips)
{
    for (size_t length = CLUSTER_MIN; length <= CLUSTER_MAX; length *= 2)
        round_trips(Q2_COMPRESSION_ZSTD, length);
}

/* No cluster is that short, but nothing else bounds it. */
Test(encoder, short_data)
{
    for (size_t length = 1; length <= 300; length++) {
        round_trips(Q2_COMPRESSION_ZLIB, length);
        round_trips(Q2_COMPRESSION_ZSTD, length);
    }
}

Test(encoder, noise_does_not_fit)
{
    for (unsigned i = 0; i < 2; i++) {
        struct q2_encoder *encoder = encoder_for(types[i]);
        for (size_t length = CLUSTER_MIN; length <= CLUSTER_MAX; length *= 2) {
            Q2_AUTOFREE uint8_t *bytes = random_bytes(length, (uint32_t)length);
            Q2_AUTOFREE uint8_t *buffer = malloc(length - 1);
            size_t used = 4711;
            struct q2_error err = {0};
            cr_assert_eq(q2_encoder_run(encoder, bytes, length, buffer, length - 1, &used, &err),
                         Q2_ERR_NOSPACE);
            cr_assert_eq(used, 4711);
        }
        q2_encoder_free(encoder);
    }
}

Test(encoder, no_room)
{
    for (unsigned i = 0; i < 2; i++) {
        struct q2_encoder *encoder = encoder_for(types[i]);
        uint8_t zeros[CLUSTER_MIN] = {0};
        for (size_t room = 0; room < 2; room++) {
            Q2_AUTOFREE uint8_t *buffer = malloc(1);
            size_t used = 4711;
            struct q2_error err = {0};
            cr_assert_eq(q2_encoder_run(encoder, zeros, sizeof zeros, buffer, room, &used, &err),
                         Q2_ERR_NOSPACE);
            cr_assert_eq(err.code, Q2_ERR_NOSPACE);
            cr_assert_eq(used, 4711);
        }
        /* Having failed, it still works. */
        AUTOSTREAM stream = encode(encoder, zeros, sizeof zeros);
        decodes(types[i], &stream, zeros, sizeof zeros);
        q2_encoder_free(encoder);
    }
}

Test(encoder, lengths_that_no_cluster_has)
{
    Q2_AUTOFREE uint8_t *zeros = calloc(1, CLUSTER_MAX + 1);
    for (unsigned i = 0; i < 2; i++) {
        struct q2_encoder *encoder = encoder_for(types[i]);
        uint8_t buffer[CLUSTER_MIN * 16];
        size_t used = 4711;
        struct q2_error err = {0};
        cr_assert_eq(q2_encoder_run(encoder, zeros, 0, buffer, sizeof buffer, &used, &err),
                     Q2_ERR_RANGE);
        cr_assert_eq(q2_encoder_run(encoder, zeros, CLUSTER_MAX + 1, buffer, sizeof buffer, &used,
                                    &err),
                     Q2_ERR_RANGE);
        cr_assert_eq(used, 4711);
        q2_encoder_free(encoder);
    }
}

Test(encoder, unknown_type)
{
    struct q2_encoder *encoder = (void *)&encoder;
    struct q2_error err = {0};
    cr_assert_eq(q2_encoder_new((enum q2_compression)2, &encoder, &err), Q2_ERR_UNSUPPORTED);
    cr_assert_eq(encoder, (void *)&encoder);
    q2_encoder_free(NULL);
}

/* ---- against what QEMU does ---- */

/* The size that zlib gives with the parameters of QEMU's writer. */
static size_t
zlib_size(const uint8_t *bytes, size_t length)
{
    Q2_AUTOFREE uint8_t *buffer = malloc(2 * length + 1024);
    z_stream z = {.next_in = (uint8_t *)(uintptr_t)bytes,
                  .avail_in = (uInt)length,
                  .next_out = buffer,
                  .avail_out = (uInt)(2 * length + 1024)};
    cr_assert_eq(deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY),
                 Z_OK);
    cr_assert_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    size_t size = z.total_out;
    deflateEnd(&z);
    return size;
}

static size_t
zstd_size(const uint8_t *bytes, size_t length)
{
    Q2_AUTOFREE uint8_t *buffer = malloc(2 * length + 1024);
    ZSTD_CCtx *cctx = ZSTD_createCCtx();
    ZSTD_inBuffer in = {bytes, length, 0};
    ZSTD_outBuffer out = {buffer, 2 * length + 1024, 0};
    cr_assert_eq(ZSTD_compressStream2(cctx, &out, &in, ZSTD_e_end), 0);
    ZSTD_freeCCtx(cctx);
    return out.pos;
}

/* Ours parses in another way, which is a little worse here and there. */
static void
is_about_as_small(size_t ours, size_t theirs, enum kind kind, size_t length)
{
    cr_expect(ours <= theirs + theirs / 200 + 8, "kind %d, %zu bytes: %zu, zlib %zu", kind, length,
              ours, theirs);
}

Test(encoder, not_larger_than_qemu)
{
    struct q2_encoder *deflate = encoder_for(Q2_COMPRESSION_ZLIB);
    struct q2_encoder *zstd = encoder_for(Q2_COMPRESSION_ZSTD);
    for (size_t length = CLUSTER_MIN; length <= CLUSTER_MAX; length = next_length(length)) {
        size_t ours_of_all = 0, theirs_of_all = 0;
        for (enum kind kind = 0; kind < KINDS; kind++) {
            Q2_AUTOFREE uint8_t *bytes = data_of(kind, length);
            AUTOSTREAM ours = encode(deflate, bytes, length);
            AUTOSTREAM frame = encode(zstd, bytes, length);
            size_t theirs = zlib_size(bytes, length), their_frame = zstd_size(bytes, length);
            is_about_as_small(ours.length, theirs, kind, length);
            cr_expect(frame.length <= their_frame, "kind %d, %zu bytes: %zu, zstd %zu", kind,
                      length, frame.length, their_frame);
            ours_of_all += ours.length;
            theirs_of_all += theirs;
        }
        cr_expect(ours_of_all <= theirs_of_all, "%zu bytes: %zu, zlib %zu", length, ours_of_all,
                  theirs_of_all);
    }
    q2_encoder_free(deflate);
    q2_encoder_free(zstd);
}

/* ---- the matcher ---- */

/* The numbers of places start over after some gigabytes, and nothing changes. */
Test(encoder, places_start_over)
{
    enum { LENGTH = 1 << 16 };
    Q2_AUTOFREE uint8_t *bytes = mixed_bytes(LENGTH, 9);
    Q2_AUTOFREE struct q2_matcher *fresh = calloc(1, sizeof *fresh), *old = malloc(sizeof *old);
    Q2_AUTOFREE uint32_t *expected = malloc(LENGTH * 4), *got = malloc(LENGTH * 4);
    q2_matcher_begin(fresh, bytes, LENGTH);
    size_t count = q2_matcher_parse(fresh, expected, LENGTH);
    cr_assert_eq(fresh->at, LENGTH);
    *old = *fresh;
    old->base = UINT32_MAX / 2 - 3 * LENGTH;
    unsigned restarts = 0;
    for (unsigned i = 0; i < 6; i++) {
        uint32_t base = old->base;
        q2_matcher_begin(old, bytes, LENGTH);
        cr_assert_eq(q2_matcher_parse(old, got, LENGTH), count);
        cr_assert_arr_eq(got, expected, count * 4);
        restarts += old->base < base;
    }
    cr_assert_eq(restarts, 1);
}

/* ---- codes ---- */

/* Any counts lead to a code that is complete, within the limit, and prefix-free by its order. */
Test(encoder, codes_are_complete)
{
    uint32_t seed = 11;
    for (unsigned round = 0; round < 20000; round++) {
        unsigned longest = round % 3 == 0 ? 7 : 15, count = longest == 7 ? 19 : 286;
        uint32_t counts[Q2_CODES_MAX_SYMBOLS] = {0};
        uint8_t lengths[Q2_CODES_MAX_SYMBOLS];
        uint16_t codes[Q2_CODES_MAX_SYMBOLS];
        unsigned density = 1 + next_random(&seed) % 16, slope = 1 + next_random(&seed) % 16;
        for (unsigned i = 0; i < count; i++) {
            if (next_random(&seed) % 16 < density)
                counts[i] = (next_random(&seed) & 0xffff) >> next_random(&seed) % slope;
        }
        q2_codes_build(counts, count, longest, lengths, codes);
        uint32_t taken = 0;
        for (unsigned i = 0; i < count; i++) {
            cr_assert(lengths[i] <= longest);
            cr_assert(lengths[i] || !counts[i]);
            cr_assert(lengths[i] == 0 || codes[i] >> lengths[i] == 0);
            taken += lengths[i] ? UINT32_C(1) << (longest - lengths[i]) : 0;
        }
        cr_assert_eq(taken, UINT32_C(1) << longest);
    }
}

/* ---- memory ---- */

/* Only the sanitizer sees what libraries allocate. */
#if defined(__SANITIZE_ADDRESS__)
int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void *pointer,
                                                                  size_t size),
                                              void (*free_hook)(const volatile void *pointer));

static unsigned allocations;

static void
count_allocation(const volatile void *pointer, size_t size)
{
    (void)pointer, (void)size;
    allocations++;
}

static void
ignore_free(const volatile void *pointer)
{
    (void)pointer;
}

Test(encoder, allocates_once)
{
    Q2_AUTOFREE uint8_t *bytes = mixed_bytes(1 << 16, 5), *buffer = malloc(1 << 17);
    struct q2_encoder *encoders[] = {encoder_for(types[0]), encoder_for(types[1])};
    size_t used;
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(q2_encoder_run(encoders[i], bytes, 1 << 16, buffer, 1 << 17, &used, NULL), 0);
    cr_assert(__sanitizer_install_malloc_and_free_hooks(count_allocation, ignore_free) > 0);
    void *volatile probe = malloc(1); /* volatile, or the compiler leaves it out */
    free(probe);
    cr_assert_eq(allocations, 1, "the hook counts");
    int results[8];
    for (unsigned i = 0; i < 8; i++)
        results[i] = q2_encoder_run(encoders[i % 2], bytes, 1 << 16, buffer, i < 4 ? 1 << 17 : 100,
                                    &used, NULL);
    cr_assert_eq(allocations, 1);
    for (unsigned i = 0; i < 8; i++)
        cr_assert_eq(results[i], i < 4 ? 0 : Q2_ERR_NOSPACE);
    q2_encoder_free(encoders[0]);
    q2_encoder_free(encoders[1]);
}
#endif
