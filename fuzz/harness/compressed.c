/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Compressed clusters: what our encoders make, our decoders and those of zlib and libzstd read; and
 * of streams that are damaged, or never were any, our judges think as those do.
 *
 * The codecs live as long as the process: what they did before must not show, and one input in many
 * asks for fresh ones to compare with, and for a decoder that was left in the middle of a stream.
 *
 * Input: how, the size of a cluster, where in its sector the stream begins, how much it is damaged,
 * then the damage and what the cluster or the stream is made of. */

#include "core/base/checked.h"
#include "core/codec/codec.h"
#include "core/codec/window.h"
#include "core/format/entry.h"
#include "fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum {
    ZSTD = 1 << 0,
    RAW = 1 << 1,      /* the input is the stream */
    CUT = 1 << 2,      /* the descriptor is too short */
    FRESH = 7 << 3,    /* all of these: compare with codecs that did nothing before */
    ROOM = 1 << 6,     /* compress once more with little room */
    LARGEST = 1 << 13, /* beyond the window of deflate */
    SOURCE_MAX = 2 * LARGEST + 1024,
};

static struct q2_encoder *encoders[2];
static struct q2_decoder *decoders[2];

static void
need_codecs(unsigned type)
{
    if (decoders[type])
        return;
    struct q2_error err = {0};
    Q2_REQUIRE(q2_encoder_new(type, &encoders[type], &err) == 0 &&
                   q2_decoder_new(type, &decoders[type], &err) == 0,
               "%s", err.message);
}

/* ---- the others ---- */

/* Whether zlib decodes to exactly `length` bytes; *ret_used gets what it took. */
static bool
zlib_decodes(const uint8_t *source, size_t source_length, uint8_t *buffer, size_t length,
             size_t *ret_used)
{
    static z_stream stream;
    static bool ready;
    static uint8_t room[LARGEST + 1];
    Q2_REQUIRE((ready ? inflateReset(&stream) : inflateInit2(&stream, -15)) == Z_OK, "no zlib");
    ready = true;
    stream.next_in = (Bytef *)source;
    stream.avail_in = (uInt)source_length;
    stream.next_out = room;
    stream.avail_out = (uInt)length + 1; /* one more, to see more come out */
    int rc = inflate(&stream, Z_FINISH);
    *ret_used = stream.total_in;
    memcpy(buffer, room, length);
    return rc == Z_STREAM_END && stream.total_out == length;
}

/* What frames there are until the cluster is full, and whether each says its size: those that do
 * not are held to the window that they claim, which the simple interface does not do. */
static bool
zstd_decodes(const uint8_t *source, size_t source_length, uint8_t *buffer, size_t length,
             size_t *ret_used, bool *ret_open)
{
    static ZSTD_DCtx *context;
    size_t used = 0, done = 0;
    *ret_open = false;
    if (!context)
        context = ZSTD_createDCtx();
    while (done < length && used < source_length) {
        const uint8_t *frame = source + used;
        size_t taken = ZSTD_findFrameCompressedSize(frame, source_length - used);
        if (ZSTD_isError(taken))
            return false;
        *ret_open |= ZSTD_getFrameContentSize(frame, taken) == ZSTD_CONTENTSIZE_UNKNOWN;
        size_t filled = ZSTD_decompressDCtx(context, buffer + done, length - done, frame, taken);
        if (ZSTD_isError(filled))
            return false;
        used += taken;
        done += filled;
    }
    *ret_used = used;
    return done == length;
}

/* ---- one stream ---- */

static void
judge_deflate(const uint8_t *source, size_t source_length, size_t length, const uint8_t *ours,
              int rc, size_t used)
{
    static uint8_t theirs[LARGEST];
    struct q2_deflate_walk walk = {0};
    struct q2_error err = {0};
    size_t taken = 0;
    bool accepted = zlib_decodes(source, source_length, theirs, length, &taken);
    int walked = q2_deflate_walk(source, source_length, length, &walk, &err);
    Q2_REQUIRE(walked == 0 || err.message[0], "refused without a word");
    Q2_REQUIRE(accepted == (walked == 0 && walk.produced == length), "zlib says %s, the walk %s",
               accepted ? "yes" : "no", walked == 0 ? "yes" : err.message);
    if (!accepted)
        return;
    Q2_REQUIRE(rc == 0, "zlib decodes what we do not");
    Q2_REQUIRE(memcmp(ours, theirs, length) == 0, "zlib decodes to other bytes");
    Q2_REQUIRE(used == taken && walk.used == taken, "zlib takes %zu bytes, we %zu, the walk %zu",
               taken, used, walk.used);
}

static void
judge_zstd(const uint8_t *source, size_t source_length, size_t length, const uint8_t *ours, int rc,
           size_t used)
{
    static uint8_t theirs[LARGEST];
    size_t taken = 0;
    bool open = false;
    bool accepted = zstd_decodes(source, source_length, theirs, length, &taken, &open);
    Q2_REQUIRE(accepted || rc < 0, "we decode what libzstd does not");
    Q2_REQUIRE(!accepted || rc == 0 || open, "libzstd decodes what we do not");
    if (rc == 0)
        Q2_REQUIRE(used == taken && memcmp(ours, theirs, length) == 0,
                   "libzstd takes %zu bytes, we %zu, or it decodes to others", taken, used);
}

/* A decoder that did nothing before does the same. */
static void
judge_fresh(unsigned type, const uint8_t *source, size_t source_length, size_t length,
            const uint8_t *ours, int rc, size_t used)
{
    static uint8_t other[LARGEST];
    struct q2_decoder *decoder = NULL;
    struct q2_error err = {0};
    size_t taken = 0;
    Q2_REQUIRE(q2_decoder_new(type, &decoder, &err) == 0, "%s", err.message);
    int again = q2_decoder_run(decoder, source, source_length, other, length, &taken, &err);
    Q2_REQUIRE(again == rc && (rc < 0 || (taken == used && memcmp(other, ours, length) == 0)),
               "what was decoded before shows");
    q2_decoder_free(decoder);
}

/* Decode `source_length` bytes that lie in memory of just that size. */
static int
decode(unsigned type, bool fresh, const uint8_t *source, size_t source_length, uint8_t *buffer,
       size_t length, size_t *ret_used)
{
    struct q2_error err = {0};
    uint8_t *exact = malloc(source_length), *to = malloc(length);
    Q2_REQUIRE(exact && to, "no memory");
    memcpy(exact, source, source_length);
    *ret_used = 0;
    int rc = q2_decoder_run(decoders[type], exact, source_length, to, length, ret_used, &err);
    Q2_REQUIRE(rc == 0 || err.message[0], "refused without a word");
    Q2_REQUIRE(*ret_used <= source_length, "%zu bytes of %zu", *ret_used, source_length);
    if (rc == 0)
        memcpy(buffer, to, length);
    if (type == Q2_COMPRESSION_ZLIB)
        judge_deflate(exact, source_length, length, to, rc, *ret_used);
    else
        judge_zstd(exact, source_length, length, to, rc, *ret_used);
    if (fresh)
        judge_fresh(type, exact, source_length, length, to, rc, *ret_used);
    free(exact);
    free(to);
    return rc;
}

/* ---- streams from clusters ---- */

static size_t
encode(unsigned type, bool fresh, const uint8_t *cluster, size_t length, uint8_t *stream,
       size_t capacity)
{
    struct q2_error err = {0};
    size_t used = 0, again = 0;
    int rc = q2_encoder_run(encoders[type], cluster, length, stream, capacity, &used, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
    uint32_t distance = 0;
    Q2_REQUIRE(type != Q2_COMPRESSION_ZLIB ||
                   (q2_deflate_max_distance(stream, used, length, &distance, &err) == 0 &&
                    distance <= Q2_DEFLATE_WINDOW),
               "a match that is %u bytes back", distance);
    if (fresh) {
        static uint8_t other[SOURCE_MAX];
        struct q2_encoder *encoder = NULL;
        Q2_REQUIRE(q2_encoder_new(type, &encoder, &err) == 0, "%s", err.message);
        rc = q2_encoder_run(encoder, cluster, length, other, capacity, &again, &err);
        Q2_REQUIRE(rc == 0 && again == used && memcmp(other, stream, used) == 0,
                   "what was compressed before shows");
        q2_encoder_free(encoder);
    }
    return used;
}

/* Encode into `room` bytes of memory, which is enough from a slack beyond the stream on, and decode
 * what fits. */
static void
judge_room(unsigned type, const uint8_t *cluster, size_t length, size_t enough, size_t room)
{
    static uint8_t decoded[LARGEST];
    struct q2_error err = {0};
    size_t used = 0, taken = 0;
    uint8_t *stream = malloc(room + 1);
    Q2_REQUIRE(stream, "no memory");
    uint8_t *to = stream + 1; /* so that none at all has an address too */
    int rc = q2_encoder_run(encoders[type], cluster, length, to, room, &used, &err);
    Q2_REQUIRE(rc == 0 || (rc == Q2_ERR_NOSPACE && err.message[0]), "refused with %d", rc);
    Q2_REQUIRE(rc == 0 || room < enough + Q2_ENCODER_SLACK, "%zu bytes are not enough for %zu",
               room, enough);
    if (rc == 0) {
        Q2_REQUIRE(used <= room, "%zu bytes in the room of %zu", used, room);
        rc = q2_decoder_run(decoders[type], to, used, decoded, length, &taken, &err);
        Q2_REQUIRE(rc == 0 && taken == used && memcmp(decoded, cluster, length) == 0,
                   "with little room the cluster does not come back: %s", err.message);
    }
    free(stream);
}

/* What nobody can do. */
static void
judge_refusals(unsigned type)
{
    struct q2_error err = {0};
    struct q2_encoder *encoder = NULL;
    struct q2_decoder *decoder = NULL;
    uint8_t byte = 0;
    size_t used = 0;
    Q2_REQUIRE(q2_encoder_new(type + 2, &encoder, &err) == Q2_ERR_UNSUPPORTED &&
                   q2_decoder_new(type + 2, &decoder, &err) == Q2_ERR_UNSUPPORTED && !encoder &&
                   !decoder,
               "a codec for type %u", type + 2);
    Q2_REQUIRE(q2_encoder_run(encoders[type], &byte, 0, &byte, 1, &used, &err) == Q2_ERR_RANGE &&
                   q2_decoder_run(decoders[type], &byte, 1, &byte, 0, &used, &err) == Q2_ERR_RANGE,
               "a cluster of no bytes");
    Q2_REQUIRE(q2_decoder_run(decoders[type], &byte, 0, &byte, 1, &used, &err) == Q2_ERR_FORMAT,
               "a stream of no bytes");
}

/* Bytes of the input, over and over, a little different each time. */
static void
fill(struct q2_fuzz_cursor *cursor, uint8_t *cluster, size_t length)
{
    for (size_t i = 0; i < length; i++)
        cluster[i] =
            cursor->left ? (uint8_t)(cursor->at[i % cursor->left] + i / cursor->left / 4) : 0;
}

/* The descriptor's bytes: the stream, and what follows up to the end of a sector. A stream that is
 * longer than a cluster, which nobody stores, may be more than a descriptor can say. */
static size_t
describe(unsigned cluster_bits, unsigned start, size_t used)
{
    if (start + used > (size_t)512 << (cluster_bits - 8))
        return used;
    const struct q2_header header = {.version = 3,
                                     .cluster_bits = cluster_bits,
                                     .refcount_order = 4};
    struct q2_geometry geometry;
    q2_geometry_init(&geometry, &header, 1 << 20);
    struct q2_compressed_range range =
        q2_compressed_decode(&geometry,
                             q2_compressed_encode(&geometry, 4096 + (uint64_t)start, used));
    Q2_REQUIRE(range.offset == 4096 + (uint64_t)start && range.length >= used,
               "%zu bytes become %llu", used, (unsigned long long)range.length);
    return (size_t)range.length;
}

static void
run(const uint8_t *input, size_t length)
{
    static uint8_t cluster[LARGEST], decoded[LARGEST], source[SOURCE_MAX];
    struct q2_fuzz_cursor cursor = {input, length};
    unsigned flags = q2_fuzz_u8(&cursor), type = flags & ZSTD;
    bool fresh = (flags & FRESH) == FRESH;
    unsigned cluster_bits = 9 + q2_fuzz_u8(&cursor) % 5;
    unsigned start = q2_fuzz_u16(&cursor) % 512, damage = q2_fuzz_u8(&cursor) % 8;
    size_t size = (size_t)1 << cluster_bits, used = 0, taken;
    need_codecs(type);
    uint32_t places[8];
    for (unsigned i = 0; i < damage; i++)
        places[i] = q2_fuzz_u32(&cursor);

    if (flags & RAW) {
        const uint8_t *bytes = q2_fuzz_take(&cursor, SOURCE_MAX, &used);
        if (used == 0)
            return;
        memcpy(source, bytes, used);
    } else {
        fill(&cursor, cluster, size);
        used = encode(type, fresh, cluster, size, source, SOURCE_MAX - 512);
        if (flags & ROOM) {
            judge_room(type, cluster, size, used,
                       (used + start) * 2 % (used + 4 * Q2_ENCODER_SLACK));
            judge_refusals(type);
        }
        size_t whole = describe(cluster_bits, start, used);
        memset(source + used, 0xa5, whole - used);
        Q2_REQUIRE(decode(type, fresh, source, whole, decoded, size, &taken) == 0 &&
                       taken == used && memcmp(decoded, cluster, size) == 0,
                   "the cluster does not come back");
        used = whole;
    }
    /* What is as the encoder left it has been decoded. */
    if (!(flags & (RAW | CUT)) && damage == 0 && !fresh)
        return;
    for (unsigned i = 0; i < damage; i++)
        source[(places[i] >> 8) % used] ^= (uint8_t)places[i];
    if (flags & CUT)
        used = used * (1 + start) / 513 + 1;
    if (fresh && used > 1)
        decode(type, false, source, used / 2, decoded, size, &taken);
    decode(type, fresh, source, used, decoded, size, &taken);
}

const struct q2_harness q2_harness = {"compressed", Q2_FUZZ_BYTES, 4096, run};
