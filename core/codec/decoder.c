/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* From the header's compression_type to the codec that serves it. */

#include "core/codec/codec.h"
#include "core/codec/internal.h"

#include <stdlib.h>

struct q2_decoder {
    const struct q2_codec *codec;
    void *state;
};

static const struct q2_codec *
find_codec(enum q2_compression type)
{
    switch (type) {
    case Q2_COMPRESSION_ZLIB:
        return &q2_codec_deflate;
    case Q2_COMPRESSION_ZSTD:
        return &q2_codec_zstd;
    }
    /* The type comes from a header: it can be any number. */
    return NULL;
}

int
q2_decoder_new(enum q2_compression type, struct q2_decoder **ret_decoder, struct q2_error *err)
{
    const struct q2_codec *codec = find_codec(type);
    if (!codec)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED, "compression type %u is unknown",
                            (unsigned)type);
    struct q2_decoder *decoder = malloc(sizeof *decoder);
    void *state = decoder ? codec->new () : NULL;
    if (!state) {
        free(decoder);
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a decoder of compression type %u",
                            (unsigned)type);
    }
    decoder->codec = codec;
    decoder->state = state;
    *ret_decoder = decoder;
    return 0;
}

void
q2_decoder_free(struct q2_decoder *decoder)
{
    if (!decoder)
        return;
    decoder->codec->free(decoder->state);
    free(decoder);
}

int
q2_decoder_run(struct q2_decoder *decoder, const void *source, size_t source_length, void *buffer,
               size_t length, size_t *ret_used, struct q2_error *err)
{
    if (length == 0 || length > Q2_CODEC_CLUSTER_MAX)
        return q2_error_set(err, Q2_ERR_RANGE, "a cluster of %zu bytes cannot be decoded", length);
    if (source_length == 0)
        return q2_error_set(err, Q2_ERR_FORMAT, "a cluster has no compressed bytes");
    return decoder->codec->run(decoder->state, source, source_length, buffer, length, ret_used,
                               err);
}
