/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Deflate clusters, in two steps: our own walk over the tokens judges the stream, then libdeflate
 * decodes it at full speed. The walk pays for itself twice. libdeflate says only yes or no, the
 * walk says what is wrong and where; and libdeflate decodes some damaged streams that zlib, and so
 * QEMU, refuses, while a checker must not call readable what its users' programs cannot read. */

#include "core/codec/codec.h"
#include "core/codec/internal.h"
#include "core/codec/window.h"

#include <libdeflate.h>

static void *
deflate_new(void)
{
    return libdeflate_alloc_decompressor();
}

static void
deflate_free(void *state)
{
    libdeflate_free_decompressor(state);
}

static int
deflate_run(void *state, const void *source, size_t source_length, void *buffer, size_t length,
            size_t *ret_used, struct q2_error *err)
{
    struct q2_deflate_walk walk;
    int r = q2_deflate_walk(source, source_length, length, &walk, err);
    if (r < 0)
        return r;
    if (walk.produced != length)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "deflate stream of %zu bytes decodes to %zu bytes, expected %zu",
                            walk.used, walk.produced, length);

    size_t used;
    enum libdeflate_result result =
        libdeflate_deflate_decompress_ex(state, source, source_length, buffer, length, &used, NULL);
    if (result != LIBDEFLATE_SUCCESS || used != walk.used)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "libdeflate refuses a deflate stream of %zu bytes (result %d)",
                            walk.used, (int)result);
    *ret_used = used;
    return 0;
}

const struct q2_codec q2_codec_deflate = {
    .new = deflate_new,
    .free = deflate_free,
    .run = deflate_run,
};
