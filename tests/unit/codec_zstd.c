/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* zstd is held to libzstd's streaming reader, which is what QEMU uses: a cluster must be accepted
 * exactly where that one yields the whole of it. Sources and results live in allocations of their
 * exact size, so that a sanitizer sees any step beyond. */

#include "core/base/cleanup.h"
#include "core/codec/codec.h"
#include "tests/unit/streams.h"

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

static struct q2_decoder *
decoder_for(void)
{
    struct q2_decoder *decoder = NULL;
    cr_assert_eq(q2_decoder_new(Q2_COMPRESSION_ZSTD, &decoder, NULL), 0);
    return decoder;
}

/* Read frames from libzstd's streaming reader until the cluster is full. */
static bool
zstd_whole(const struct stream *stream, uint8_t *buffer, size_t length, size_t *ret_used)
{
    ZSTD_DCtx *dctx = ZSTD_createDCtx();
    ZSTD_inBuffer in = {stream->bytes, stream->length, 0};
    ZSTD_outBuffer out = {buffer, length, 0};
    size_t r = 0;
    while (out.pos < out.size) {
        size_t taken = in.pos, filled = out.pos;
        r = ZSTD_decompressStream(dctx, &out, &in);
        if (ZSTD_isError(r) || (in.pos == taken && out.pos == filled)) {
            r = 1;
            break;
        }
    }
    ZSTD_freeDCtx(dctx);
    *ret_used = in.pos;
    return r == 0;
}

static bool
agree(struct q2_decoder *decoder, const struct stream *stream, size_t length)
{
    Q2_AUTOFREE uint8_t *expected = malloc(length), *got = malloc(length);
    size_t expected_used, used = SIZE_MAX;
    struct q2_error err = {0};
    bool sound = zstd_whole(stream, expected, length, &expected_used);
    int r = q2_decoder_run(decoder, stream->bytes, stream->length, got, length, &used, &err);
    cr_assert_eq(r, sound ? 0 : Q2_ERR_FORMAT, "%s", err.message);
    if (sound) {
        cr_assert_eq(used, expected_used);
        cr_assert_arr_eq(got, expected, length);
    }
    return sound;
}

/* One frame; with an open size its writer does not know the length beforehand. */
static struct stream
zstd_frame(const uint8_t *bytes, size_t length, int level, int window_log, bool open_size)
{
    ZSTD_CCtx *cctx = ZSTD_createCCtx();
    size_t room = ZSTD_compressBound(length) + 64;
    struct stream stream = {malloc(room), 0};
    ZSTD_CCtx_setParameter(cctx, ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(cctx, ZSTD_c_windowLog, window_log);
    ZSTD_CCtx_setParameter(cctx, ZSTD_c_checksumFlag, open_size);
    ZSTD_inBuffer in = {bytes, length, 0};
    ZSTD_outBuffer out = {stream.bytes, room, 0};
    if (open_size)
        cr_assert(!ZSTD_isError(ZSTD_compressStream2(cctx, &out, &in, ZSTD_e_continue)));
    cr_assert_eq(ZSTD_compressStream2(cctx, &out, &in, ZSTD_e_end), 0);
    ZSTD_freeCCtx(cctx);
    stream.bytes = realloc(stream.bytes, out.pos);
    stream.length = out.pos;
    return stream;
}

Test(codec_zstd, of_every_size)
{
    struct q2_decoder *decoder = decoder_for();
    for (size_t length = 512; length <= 2 << 20; length *= 2) {
        Q2_AUTOFREE uint8_t *bytes = mixed_bytes(length, 7);
        for (int level = 1; level <= 10; level += 3) {
            AUTOSTREAM stream = zstd_frame(bytes, length, level, 0, level % 2);
            cr_assert(agree(decoder, &stream, length));
        }
    }
    q2_decoder_free(decoder);
}

/* A window larger than any cluster is no reason to refuse, up to what streaming readers accept. */
Test(codec_zstd, windows)
{
    struct q2_decoder *decoder = decoder_for();
    Q2_AUTOFREE uint8_t *bytes = mixed_bytes(4096, 7);
    for (int log = 10; log <= 27; log++) {
        AUTOSTREAM stream = zstd_frame(bytes, 4096, 3, log, true);
        cr_assert(agree(decoder, &stream, 4096));
        for (unsigned descriptor = 0; descriptor < 256; descriptor++) {
            stream.bytes[5] = (uint8_t)descriptor;
            agree(decoder, &stream, 4096);
        }
    }
    q2_decoder_free(decoder);
}

Test(codec_zstd, of_several_frames)
{
    static const uint8_t skippable[] = {0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'x', 'y', 'z'};
    static const uint8_t old_format[] = {0x27, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0};
    struct q2_decoder *decoder = decoder_for();
    Q2_AUTOFREE uint8_t *bytes = mixed_bytes(4096, 7);
    AUTOSTREAM half = zstd_frame(bytes, 2048, 3, 0, false);
    AUTOSTREAM empty = zstd_frame(bytes, 0, 3, 0, false);
    AUTOSTREAM first = stream_append(&half, skippable, sizeof skippable);
    AUTOSTREAM second = stream_append(&first, empty.bytes, empty.length);
    AUTOSTREAM both = stream_append(&second, half.bytes, half.length);
    AUTOSTREAM old = stream_append(&first, old_format, sizeof old_format);
    cr_assert(agree(decoder, &both, 4096));
    cr_assert(agree(decoder, &both, 2048));
    cr_assert_not(agree(decoder, &both, 4097));
    cr_assert_not(agree(decoder, &both, 2047));
    cr_assert_not(agree(decoder, &both, 2049));
    cr_assert_not(agree(decoder, &old, 4096));
    q2_decoder_free(decoder);
}

Test(codec_zstd, what_follows_is_ignored)
{
    struct q2_decoder *decoder = decoder_for();
    Q2_AUTOFREE uint8_t *bytes = mixed_bytes(65536, 2), *garbage = random_bytes(511, 8);
    for (int open_size = 0; open_size < 2; open_size++) {
        AUTOSTREAM stream = zstd_frame(bytes, 65536, 3, 0, open_size);
        AUTOSTREAM padded = stream_append(&stream, garbage, 511);
        cr_assert(agree(decoder, &padded, 65536));
    }
    q2_decoder_free(decoder);
}

Test(codec_zstd, damaged)
{
    struct q2_decoder *decoder = decoder_for();
    Q2_AUTOFREE uint8_t *bytes = mixed_bytes(512, 5);
    for (int open_size = 0; open_size < 2; open_size++) {
        AUTOSTREAM stream = zstd_frame(bytes, 512, 3, 0, open_size);
        for (size_t length = 1; length < stream.length; length++) {
            AUTOSTREAM cut = stream_copy(&stream, length);
            cr_assert_not(agree(decoder, &cut, 512));
        }
        for (size_t bit = 0; bit < stream.length * 8; bit++) {
            AUTOSTREAM flipped = stream_copy(&stream, stream.length);
            flipped.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            agree(decoder, &flipped, 512);
        }
    }
    q2_decoder_free(decoder);
}

Test(codec_zstd, random_bytes_refused)
{
    struct q2_decoder *decoder = decoder_for();
    uint32_t random = 4711;
    for (uint32_t round = 1; round <= 30000; round++) {
        AUTOSTREAM stream = {.length = 8 + next_random(&random) % 200};
        stream.bytes = random_bytes(stream.length, round);
        if (round % 8)
            memcpy(stream.bytes, "\x28\xb5\x2f\xfd\x20", 5);
        agree(decoder, &stream, 512);
    }
    q2_decoder_free(decoder);
}
