/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Deflate clusters, decoded by libdeflate at full speed. It says only yes or no, so where it says
 * no our own walk over the tokens says what is wrong and where. libdeflate also decodes some
 * damaged streams that zlib, and so QEMU, refuses: whoever reads a guest's data is glad of them,
 * and whoever judges streams, as the checker does, takes the walk alone (window.h). */

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

/* Why a stream that libdeflate did not take is no good. */
static int
explain(const void *source, size_t source_length, size_t length, int result, struct q2_error *err)
{
    struct q2_deflate_walk walk;
    int rc = q2_deflate_walk(source, source_length, length, &walk, err);
    if (rc < 0)
        return rc;
    if (walk.produced != length)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "deflate stream of %zu bytes decodes to %zu bytes, expected %zu",
                            walk.used, walk.produced, length);
    return q2_error_set(err, Q2_ERR_FORMAT,
                        "libdeflate refuses a deflate stream of %zu bytes (result %d)", walk.used,
                        result);
}

static int
deflate_run(void *state, const void *source, size_t source_length, void *buffer, size_t length,
            size_t *ret_used, struct q2_error *err)
{
    size_t used;
    enum libdeflate_result result =
        libdeflate_deflate_decompress_ex(state, source, source_length, buffer, length, &used, NULL);
    if (result != LIBDEFLATE_SUCCESS)
        return explain(source, source_length, length, (int)result, err);
    *ret_used = used;
    return 0;
}

const struct q2_codec q2_codec_deflate = {
    .new = deflate_new,
    .free = deflate_free,
    .run = deflate_run,
};
