/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Deflate clusters by zlib, with the parameters of QEMU's, and so its very bytes where the library
 * is the same. libdeflate is faster but always looks back 32 KiB: readers that keep 4 KiB could not
 * decode its streams. */

#include "core/codec/codec.h"
#include "core/codec/internal.h"

#include <limits.h>
#include <stdlib.h>
#include <zlib.h>

enum { WINDOW_BITS = -12 /* 4 KiB, no zlib header */, MEMORY_LEVEL = 9 };

static void *
deflate_encoder_new(void)
{
    z_stream *stream = calloc(1, sizeof *stream);
    if (stream && deflateInit2(stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WINDOW_BITS, MEMORY_LEVEL,
                               Z_DEFAULT_STRATEGY) != Z_OK) {
        free(stream);
        return NULL;
    }
    return stream;
}

static void
deflate_encoder_free(void *state)
{
    if (state)
        deflateEnd(state);
    free(state);
}

static int
deflate_encoder_run(void *state, const void *source, size_t length, void *buffer, size_t capacity,
                    size_t *ret_used, struct q2_error *err)
{
    z_stream *stream = state;
    if (deflateReset(stream) != Z_OK)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED, "zlib cannot compress %zu bytes", length);
    stream->next_in = (z_const Bytef *)source;
    stream->avail_in = (uInt)length;
    stream->next_out = buffer;
    stream->avail_out = capacity > UINT_MAX ? UINT_MAX : (uInt)capacity;
    int r = deflate(stream, Z_FINISH);
    if (r == Z_OK || r == Z_BUF_ERROR)
        return Q2_ERR_NOSPACE;
    if (r != Z_STREAM_END)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED, "zlib cannot compress %zu bytes: %s", length,
                            zError(r));
    *ret_used = stream->total_out;
    return 0;
}

const struct q2_codec q2_codec_deflate_encoder = {
    .new = deflate_encoder_new,
    .free = deflate_encoder_free,
    .run = deflate_encoder_run,
};
