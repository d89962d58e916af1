/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* From the header's compression_type to the codec that compresses clusters. */

#include "core/codec/codec.h"
#include "core/codec/internal.h"

#include <stdlib.h>

struct q2_encoder {
    const struct q2_codec *codec;
    void *state;
};

static const struct q2_codec *
find_codec(enum q2_compression type)
{
    switch (type) {
    case Q2_COMPRESSION_ZLIB:
        return &q2_codec_deflate_encoder;
    case Q2_COMPRESSION_ZSTD:
        return &q2_codec_zstd_encoder;
    }
    return NULL;
}

int
q2_encoder_new(enum q2_compression type, struct q2_encoder **ret_encoder, struct q2_error *err)
{
    const struct q2_codec *codec = find_codec(type);
    if (!codec)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED, "compression type %u is unknown",
                            (unsigned)type);
    struct q2_encoder *encoder = malloc(sizeof *encoder);
    void *state = encoder ? codec->new () : NULL;
    if (!state) {
        free(encoder);
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for an encoder of compression type %u",
                            (unsigned)type);
    }
    encoder->codec = codec;
    encoder->state = state;
    *ret_encoder = encoder;
    return 0;
}

void
q2_encoder_free(struct q2_encoder *encoder)
{
    if (!encoder)
        return;
    encoder->codec->free(encoder->state);
    free(encoder);
}

int
q2_encoder_run(struct q2_encoder *encoder, const void *source, size_t length, void *buffer,
               size_t capacity, size_t *ret_used, struct q2_error *err)
{
    if (length == 0 || length > Q2_CODEC_CLUSTER_MAX)
        return q2_error_set(err, Q2_ERR_RANGE, "a cluster of %zu bytes cannot be compressed",
                            length);
    size_t used = 0;
    int r = Q2_ERR_NOSPACE; /* no stream is empty */
    if (capacity > 0)
        r = encoder->codec->run(encoder->state, source, length, buffer, capacity, &used, err);
    if (r == Q2_ERR_NOSPACE)
        return q2_error_set(err, r, "%zu bytes do not compress to %zu", length, capacity);
    if (r < 0)
        return r;
    *ret_used = used;
    return 0;
}
