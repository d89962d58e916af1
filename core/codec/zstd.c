/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Zstandard clusters (RFC 8878). QEMU writes one frame per cluster, but reads frames until the
 * cluster is full, and so do we; skippable frames and empty ones count as progress.
 *
 * Each frame is decoded in one call straight into the cluster: its own output is the window. The
 * streaming interface would allocate the window that the frame's header claims, up to 128 MiB, and
 * capping it at the cluster's size would refuse frames that QEMU reads, since a writer that does
 * not know the size beforehand may announce any window. The price is that the frame's end has to
 * be found first, which takes a look at each block's header. */

#include "core/codec/codec.h"
#include "core/codec/internal.h"

#include <endian.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <zstd.h>

enum {
    FRAME_MAGIC_BYTES = 4,
    WINDOW_LOG_MAX = 27, /* what zstd's own streaming readers, QEMU among them, accept */
};

static const uint32_t skippable_magic = 0x184d2a50, skippable_mask = 0xfffffff0;

static void *
zstd_new(void)
{
    return ZSTD_createDCtx();
}

static void
zstd_free(void *state)
{
    ZSTD_freeDCtx(state);
}

/* Whether the frame header ("Frame_Header_Descriptor", "Window_Descriptor") leaves its content's
 * size open and announces a window that streaming readers refuse. */
static bool
window_is_too_large(const uint8_t *frame, size_t length)
{
    if (length < FRAME_MAGIC_BYTES + 2)
        return false;
    unsigned descriptor = frame[FRAME_MAGIC_BYTES];
    bool single_segment = descriptor & 0x20, size_known = descriptor >> 6;
    unsigned window = frame[FRAME_MAGIC_BYTES + 1];
    unsigned log = 10 + (window >> 3), eighths = window & 7;
    return !single_segment && !size_known &&
           (log > WINDOW_LOG_MAX || (log == WINDOW_LOG_MAX && eighths));
}

/* zstd may be built to decode the formats that came before the first stable one. Nobody has ever
 * written them to qcow2: keep their decoders away from hostile input. */
static int
check_frame(const uint8_t *frame, size_t length, size_t at, struct q2_error *err)
{
    uint32_t magic;
    if (length < sizeof magic)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "zstd data cut short at byte %zu: %zu bytes left where a frame should "
                            "begin",
                            at, length);
    memcpy(&magic, frame, sizeof magic);
    magic = le32toh(magic);
    if (magic != ZSTD_MAGICNUMBER && (magic & skippable_mask) != skippable_magic)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "no zstd frame at byte %zu of the data: magic 0x%08" PRIx32, at, magic);
    if (magic == ZSTD_MAGICNUMBER && window_is_too_large(frame, length))
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "zstd frame at byte %zu of the data claims a window of more than 2^%d "
                            "bytes",
                            at, WINDOW_LOG_MAX);
    return 0;
}

/* Decode the frame at source[at], which fills at most `room` bytes. */
static int
run_frame(ZSTD_DCtx *dctx, const uint8_t *source, size_t source_length, size_t at, uint8_t *buffer,
          size_t room, size_t *ret_taken, size_t *ret_filled, struct q2_error *err)
{
    const uint8_t *frame = source + at;
    int r = check_frame(frame, source_length - at, at, err);
    if (r < 0)
        return r;
    size_t taken = ZSTD_findFrameCompressedSize(frame, source_length - at);
    if (ZSTD_isError(taken))
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "zstd frame at byte %zu of %zu is broken or cut short: %s", at,
                            source_length, ZSTD_getErrorName(taken));
    size_t filled = ZSTD_decompressDCtx(dctx, buffer, room, frame, taken);
    if (ZSTD_isError(filled))
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "zstd frame at bytes %zu to %zu cannot be decoded to at most %zu "
                            "bytes: %s",
                            at, at + taken, room, ZSTD_getErrorName(filled));
    *ret_taken = taken;
    *ret_filled = filled;
    return 0;
}

static int
zstd_run(void *state, const void *source, size_t source_length, void *buffer, size_t length,
         size_t *ret_used, struct q2_error *err)
{
    size_t used = 0, done = 0;
    while (done < length) {
        size_t taken, filled;
        int r = run_frame(state, source, source_length, used, (uint8_t *)buffer + done,
                          length - done, &taken, &filled, err);
        if (r < 0)
            return r;
        used += taken;
        done += filled;
    }
    *ret_used = used;
    return 0;
}

const struct q2_codec q2_codec_zstd = {
    .new = zstd_new,
    .free = zstd_free,
    .run = zstd_run,
};
