/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Clusters of several kinds, and streams: of our encoders, of zlib with each of its strategies, of
 * libzstd with and without sizes and check sums, in one frame and in several. */

#include "core/codec/codec.h"
#include "fuzz/seeds/seed.h"

#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { LENGTH = 1024, RAW = 2, CUT = 4, FRESH = 7 << 3, ROOM = 1 << 6 };

static void
begin(struct q2_seed *seed, unsigned flags, unsigned start, unsigned damage)
{
    q2_seed_number(seed, 1, flags);
    q2_seed_number(seed, 1, flags & RAW ? 1 : 0); /* streams are of LENGTH bytes */
    q2_seed_number(seed, 2, start);
    q2_seed_number(seed, 1, damage);
    for (unsigned i = 0; i < damage; i++)
        q2_seed_number(seed, 4, i * 977 << 8 | 1U << i);
}

static const char *const contents[] = {"", "a", "abcdefgh", "The quick brown fox. The slow dog.",
                                       "\x00\xff\x01\xfe\x80\x7f"};

static void
make_clusters(struct q2_seed *seed)
{
    for (size_t i = 0; i < sizeof contents / sizeof contents[0]; i++)
        for (unsigned type = 0; type < 2; type++)
            /* To compare with fresh codecs takes ten times as long: few ask for it. */
            for (unsigned k = 0; k < (i == 3 ? 4 : 3); k++) {
                unsigned cut = k == 2 ? CUT : 0, fresh = k == 3 ? FRESH : 0;
                begin(seed, type | cut | fresh, k * 100, k == 1 ? 3 : 0);
                q2_seed_bytes(seed, contents[i], strlen(contents[i]));
                q2_seed_write(seed, "cluster-%zu-%u-%u", i, type, k);
            }
}

/* With less and less room. */
static void
make_rooms(struct q2_seed *seed)
{
    for (unsigned type = 0; type < 2; type++)
        for (unsigned i = 0; i < 12; i++) {
            begin(seed, type | ROOM, 37 * i, 0);
            for (unsigned k = 0; k < 500; k++)
                q2_seed_number(seed, 1, i < 6 ? k * k * k >> 7 : k * (k >> i % 6) % 251);
            q2_seed_write(seed, "room-%u-%u", type, i);
        }
}

/* Words that come again in other order: one match hides a longer one. */
static void
make_words(struct q2_seed *seed)
{
    static const char *const words[] = {"the ", "then ", "there ", "other ",
                                        "and ", "sand ", "an "};
    for (unsigned turn = 0; turn < 4; turn++) {
        uint32_t random = turn;
        q2_seed_number(seed, 2, 3); /* clusters of 4 KiB */
        q2_seed_number(seed, 3, 0);
        for (unsigned i = 0; i < 600; i++) {
            random = random * 1664525 + 1013904223;
            const char *word = words[(random >> 24) % (sizeof words / sizeof *words)];
            q2_seed_bytes(seed, word, strlen(word));
            if (turn > 1 && random >> 16 & 1)
                q2_seed_number(seed, 1, random >> 8 & 0xff);
        }
        q2_seed_write(seed, "words-%u", turn);
    }
}

static void
content(uint8_t bytes[LENGTH])
{
    for (unsigned i = 0; i < LENGTH; i++)
        bytes[i] = (uint8_t)(i % 3 == 0 ? i * i >> 5 : i >> 4);
}

static void
make_deflate(struct q2_seed *seed)
{
    uint8_t bytes[LENGTH], out[2 * LENGTH];
    content(bytes);
    for (int level = 0; level <= 9; level += 9)
        for (int strategy = Z_DEFAULT_STRATEGY; strategy <= Z_FIXED; strategy++) {
            z_stream stream = {0};
            if (deflateInit2(&stream, level, Z_DEFLATED, -12, 8, strategy) != Z_OK)
                continue;
            stream.next_in = bytes;
            stream.avail_in = LENGTH;
            stream.next_out = out;
            stream.avail_out = sizeof out;
            deflate(&stream, Z_FINISH);
            begin(seed, RAW, 0, 0);
            q2_seed_bytes(seed, out, stream.total_out);
            q2_seed_write(seed, "deflate-%d-%d", level, strategy);
            deflateEnd(&stream);
        }
}

/* A wrong bit in each of the first bytes, which describe the codes. */
static void
make_wrong_codes(struct q2_seed *seed)
{
    uint8_t bytes[LENGTH], out[2 * LENGTH];
    z_stream stream = {.next_in = bytes, .avail_in = LENGTH, .next_out = out};
    content(bytes);
    stream.avail_out = sizeof out;
    if (deflateInit2(&stream, 9, Z_DEFLATED, -12, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return;
    deflate(&stream, Z_FINISH);
    for (unsigned at = 0; at < 48 && at < stream.total_out; at++) {
        out[at] ^= (uint8_t)(1U << at % 8);
        begin(seed, RAW, 0, 0);
        q2_seed_bytes(seed, out, at % 3 ? stream.total_out : at + 1);
        q2_seed_write(seed, "deflate-wrong-%02u", at);
        out[at] ^= (uint8_t)(1U << at % 8);
    }
    deflateEnd(&stream);
}

/* Blocks with fixed codes before and behind those with codes of their own. */
static void
make_mixed(struct q2_seed *seed)
{
    static const int strategies[] = {Z_FIXED, Z_DEFAULT_STRATEGY, Z_FIXED};
    uint8_t bytes[LENGTH], out[2 * LENGTH];
    z_stream stream = {0};
    content(bytes);
    if (deflateInit2(&stream, 9, Z_DEFLATED, -12, 8, strategies[0]) != Z_OK)
        return;
    stream.next_out = out;
    stream.avail_out = sizeof out;
    for (unsigned i = 0; i < 3; i++) {
        static const unsigned ends[] = {64, LENGTH - 64, LENGTH};
        deflateParams(&stream, 9, strategies[i]);
        stream.next_in = bytes + stream.total_in;
        stream.avail_in = ends[i] - (unsigned)stream.total_in;
        deflate(&stream, i < 2 ? Z_BLOCK : Z_FINISH);
    }
    begin(seed, RAW, 0, 0);
    q2_seed_bytes(seed, out, stream.total_out);
    q2_seed_write(seed, "deflate-mixed");
    deflateEnd(&stream);
}

/* Matches that reach before the first byte of the cluster, by 1 to 4: where a dictionary would be,
 * which clusters have none of. */
static void
make_far(struct q2_seed *seed)
{
    static const char dictionary[] = "wxyz", text[] = "abcdefgh";
    enum { REACH = sizeof dictionary - 1, TEXT = sizeof text - 1 };
    uint8_t out[2 * LENGTH];
    for (unsigned far = 1; far <= REACH; far++) {
        uint8_t bytes[LENGTH] = {0};
        z_stream stream = {.next_in = bytes, .avail_in = LENGTH, .next_out = out};
        memcpy(bytes, text, TEXT);
        memcpy(bytes + TEXT, dictionary + REACH - far, far);
        memcpy(bytes + TEXT + far, text, TEXT);
        stream.avail_out = sizeof out;
        if (deflateInit2(&stream, 9, Z_DEFLATED, -12, 8, Z_FIXED) != Z_OK)
            continue;
        deflateSetDictionary(&stream, (const Bytef *)dictionary, REACH);
        deflate(&stream, Z_FINISH);
        begin(seed, RAW, 0, 0);
        q2_seed_bytes(seed, out, stream.total_out);
        q2_seed_write(seed, "deflate-far-%u", far);
        deflateEnd(&stream);
    }
}

static void
make_zstd(struct q2_seed *seed)
{
    uint8_t bytes[LENGTH], out[2 * LENGTH];
    content(bytes);
    for (int sized = 0; sized < 2; sized++)
        for (int sum = 0; sum < 2; sum++)
            for (size_t frames = 1; frames <= 4; frames *= 4) {
                ZSTD_CCtx *context = ZSTD_createCCtx();
                ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, sized);
                ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, sum);
                begin(seed, 1 | RAW | (sum && frames > 1 ? FRESH : 0), 0, 0);
                for (size_t i = 0; i < frames; i++) {
                    size_t part = LENGTH / frames;
                    size_t used = ZSTD_compress2(context, out, sizeof out, bytes + i * part, part);
                    q2_seed_bytes(seed, out, used);
                }
                q2_seed_write(seed, "zstd-%d-%d-%zu", sized, sum, frames);
                ZSTD_freeCCtx(context);
            }
    begin(seed, 1 | RAW, 0, 0);
    q2_seed_bytes(seed, "\x50\x2a\x4d\x18\x04\x00\x00\x00skip", 12);
    q2_seed_bytes(seed, out, ZSTD_compress(out, sizeof out, bytes, LENGTH, 3));
    q2_seed_write(seed, "zstd-skippable");
}

void
q2_make_seeds(void)
{
    static struct q2_seed seed;
    make_clusters(&seed);
    make_rooms(&seed);
    make_words(&seed);
    make_deflate(&seed);
    make_wrong_codes(&seed);
    make_mixed(&seed);
    make_far(&seed);
    make_zstd(&seed);
}
