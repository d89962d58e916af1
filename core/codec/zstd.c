/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Zstandard clusters (RFC 8878). QEMU writes one frame per cluster, but reads frames until the
 * cluster is full, and so do we; skippable frames and empty ones count as progress.
 *
 * A frame that states its content's size, as QEMU's do, is decoded in one call straight into the
 * cluster: its own output is the window. libzstd's streaming reader, QEMU's choice, does just that
 * inside. For other frames that reader keeps a window of the size that the frame claims, up to
 * 128 MiB, and holds matches to it. So must we, to agree with it on what is damaged; but a claim
 * must not size memory. Nothing in a cluster can be further back than the cluster is long, so a
 * claim beyond the largest cluster is lowered to that, in the copy of the header that the library
 * sees: refusing it would refuse what QEMU reads. */

#include "core/base/endian.h"
#include "core/codec/codec.h"
#include "core/codec/internal.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <zstd.h>

enum {
    WINDOW_LOG_CLAIM_MAX = 27, /* what zstd's streaming readers, QEMU among them, accept */
    WINDOW_LOG_MAX = 21,       /* what we give them: the largest cluster */
    /* Magic, Frame_Header_Descriptor, Window_Descriptor: where no content size is stated, every
     * frame begins so. */
    OPEN_HEADER_BYTES = 6,
    DESCRIPTOR_AT = 4,
    WINDOW_AT = 5,
};

static const uint32_t skippable_magic = 0x184d2a50, skippable_mask = 0xfffffff0;

/* What of the source is still to be read and of the cluster to be filled. */
struct job {
    const uint8_t *source;
    size_t source_length, used;
    uint8_t *buffer;
    size_t length, done;
    struct q2_error *err;
};

static int
refuse(const struct job *job, const char *why)
{
    return q2_error_set(job->err, Q2_ERR_FORMAT,
                        "zstd frame at byte %zu of %zu, after %zu of %zu bytes of output: %s",
                        job->used, job->source_length, job->done, job->length, why);
}

static void *
zstd_new(void)
{
    ZSTD_DCtx *dctx = ZSTD_createDCtx();
    if (dctx)
        ZSTD_DCtx_setParameter(dctx, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    return dctx;
}

static void
zstd_free(void *state)
{
    ZSTD_freeDCtx(state);
}

/* A frame that states its size, or a skippable one. */
static int
run_sized(ZSTD_DCtx *dctx, struct job *job)
{
    const uint8_t *frame = job->source + job->used;
    size_t taken = ZSTD_findFrameCompressedSize(frame, job->source_length - job->used);
    if (ZSTD_isError(taken))
        return refuse(job, ZSTD_getErrorName(taken));
    size_t filled =
        ZSTD_decompressDCtx(dctx, job->buffer + job->done, job->length - job->done, frame, taken);
    if (ZSTD_isError(filled))
        return refuse(job, ZSTD_getErrorName(filled));
    job->used += taken;
    job->done += filled;
    return 0;
}

/* Let the streaming reader have `in`, all of it or up to the end of the frame. *ret_wanted is 0
 * where the frame ended. */
static int
feed(ZSTD_DCtx *dctx, const struct job *job, ZSTD_inBuffer *in, ZSTD_outBuffer *out,
     size_t *ret_wanted)
{
    for (;;) {
        size_t taken = in->pos, filled = out->pos;
        size_t wanted = ZSTD_decompressStream(dctx, out, in);
        if (ZSTD_isError(wanted))
            return refuse(job, ZSTD_getErrorName(wanted));
        if (wanted == 0 || (in->pos == taken && out->pos == filled)) {
            *ret_wanted = wanted;
            return 0;
        }
    }
}

/* A frame that leaves its size open. */
static int
run_open(ZSTD_DCtx *dctx, struct job *job)
{
    const uint8_t *frame = job->source + job->used;
    uint8_t header[OPEN_HEADER_BYTES];
    memcpy(header, frame, sizeof header);
    unsigned exponent = header[WINDOW_AT] >> 3, mantissa = header[WINDOW_AT] & 7;
    unsigned log = 10 + exponent + (mantissa ? 1 : 0); /* rounded up */
    if (log > WINDOW_LOG_CLAIM_MAX)
        return refuse(job, "it claims a window of more than 128 MiB");
    if (log > WINDOW_LOG_MAX)
        header[WINDOW_AT] = (WINDOW_LOG_MAX - 10) << 3;

    ZSTD_inBuffer head = {header, sizeof header, 0};
    ZSTD_inBuffer rest = {frame + sizeof header, job->source_length - job->used - sizeof header, 0};
    ZSTD_outBuffer out = {job->buffer, job->length, job->done};
    size_t wanted = 0;
    ZSTD_DCtx_reset(dctx, ZSTD_reset_session_only);
    int r = feed(dctx, job, &head, &out, &wanted);
    if (r == 0)
        r = feed(dctx, job, &rest, &out, &wanted);
    if (r < 0)
        return r;
    if (wanted)
        return refuse(job, rest.pos == rest.size ? "it is cut short" : "it is too long");
    job->used += sizeof header + rest.pos;
    job->done = out.pos;
    return 0;
}

/* zstd may be built to decode the formats that came before the first stable one. Nobody has ever
 * written them to qcow2: the magic is checked to keep their decoders away from hostile input. */
static int
run_frame(ZSTD_DCtx *dctx, struct job *job)
{
    const uint8_t *frame = job->source + job->used;
    if (job->source_length - job->used < OPEN_HEADER_BYTES)
        return refuse(job, "the data ends before it");
    uint32_t magic = q2_load_le32(frame);
    if ((magic & skippable_mask) == skippable_magic)
        return run_sized(dctx, job);
    if (magic != ZSTD_MAGICNUMBER)
        return refuse(job, "it does not begin with the magic number");
    bool single_segment = frame[DESCRIPTOR_AT] & 0x20, size_field = frame[DESCRIPTOR_AT] >> 6;
    return single_segment || size_field ? run_sized(dctx, job) : run_open(dctx, job);
}

static int
zstd_run(void *state, const void *source, size_t source_length, void *buffer, size_t length,
         size_t *ret_used, struct q2_error *err)
{
    struct job job = {source, source_length, 0, buffer, length, 0, err};
    while (job.done < job.length) {
        int r = run_frame(state, &job);
        if (r < 0)
            return r;
    }
    *ret_used = job.used;
    return 0;
}

const struct q2_codec q2_codec_zstd = {
    .new = zstd_new,
    .free = zstd_free,
    .run = zstd_run,
};
