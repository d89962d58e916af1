/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Zstandard clusters: one frame at the library's default level, which states its content's size and
 * has no checksum. That is the frame that QEMU writes, byte for byte where the library is the same
 * version; what we save is making a context, of about a megabyte, for each cluster. */

#include "core/codec/codec.h"
#include "core/codec/internal.h"

#include <zstd.h>
#include <zstd_errors.h>

static void *
zstd_encoder_new(void)
{
    return ZSTD_createCCtx();
}

static void
zstd_encoder_free(void *state)
{
    ZSTD_freeCCtx(state);
}

static int
zstd_encoder_run(void *state, const void *source, size_t length, void *buffer, size_t capacity,
                 size_t *ret_used, struct q2_error *err)
{
    /* ZSTD_compressCCtx sets every parameter itself, so that no cluster depends on the last. */
    size_t used = ZSTD_compressCCtx(state, buffer, capacity, source, length, ZSTD_CLEVEL_DEFAULT);
    if (!ZSTD_isError(used)) {
        *ret_used = used;
        return 0;
    }
    switch (ZSTD_getErrorCode(used)) {
    case ZSTD_error_dstSize_tooSmall:
        return Q2_ERR_NOSPACE;
    case ZSTD_error_memory_allocation:
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory to compress %zu bytes with zstd", length);
    default:
        return q2_error_set(err, Q2_ERR_UNSUPPORTED, "zstd cannot compress %zu bytes: %s", length,
                            ZSTD_getErrorName(used));
    }
}

const struct q2_codec q2_codec_zstd_encoder = {
    .new = zstd_encoder_new,
    .free = zstd_encoder_free,
    .run = zstd_encoder_run,
};
