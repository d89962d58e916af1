/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Compressed clusters ("Compressed Clusters Descriptor" in the specification), in both directions.
 *
 * Decoders are pure and bounded: they read at most `source_length` bytes, write at most `length`,
 * and allocate nothing that the stream sizes. A decoder or encoder object is for one thread at a
 * time; threads have one each, as nothing is shared between them. */

#ifndef Q2_CODEC_CODEC_H
#define Q2_CODEC_CODEC_H

#include "core/base/error.h"

#include <stddef.h>
#include <stdint.h>

/* The header's compression_type field. */
enum q2_compression {
    Q2_COMPRESSION_ZLIB = 0, /* raw deflate */
    Q2_COMPRESSION_ZSTD = 1,
};

/* The largest distance that QEMU's deflate streams use: it compresses with window bits 12. */
enum { Q2_DEFLATE_WINDOW = 4096 };

struct q2_decoder;

/* Q2_ERR_UNSUPPORTED for a compression type that is unknown. */
int q2_decoder_new(enum q2_compression type, struct q2_decoder **ret_decoder, struct q2_error *err);
void q2_decoder_free(struct q2_decoder *decoder);

/* Decode exactly `length` bytes (one cluster) into `buffer`. The stream may be followed by other
 * bytes, as the descriptor's length is in whole sectors; *ret_used gets the number of source bytes
 * that the stream took. Q2_ERR_FORMAT where the stream is broken, is cut short, or does not decode
 * to exactly `length` bytes; what `buffer` then holds is undefined. Some damage that other readers
 * would refuse goes unnoticed: to judge a deflate stream, walk it (window.h). */
int q2_decoder_run(struct q2_decoder *decoder, const void *source, size_t source_length,
                   void *buffer, size_t length, size_t *ret_used, struct q2_error *err);

struct q2_encoder;

/* Encoders need up to this many bytes beyond the stream to work in. */
enum { Q2_ENCODER_SLACK = 32 };

/* Q2_ERR_UNSUPPORTED for a compression type that is unknown. An encoder holds some memory of fixed
 * size, at most a few megabytes; compressing allocates no more after the first cluster. */
int q2_encoder_new(enum q2_compression type, struct q2_encoder **ret_encoder, struct q2_error *err);
void q2_encoder_free(struct q2_encoder *encoder);

/* Compress one cluster of `length` bytes into at most `capacity` bytes; *ret_used gets how many it
 * took. The same bytes in the same capacity always give the same stream, whatever was compressed
 * before, and every reader of the format can decode it: no match is further back than
 * Q2_DEFLATE_WINDOW.
 *
 * Q2_ERR_NOSPACE where the stream does not fit, which need be nobody's fault: with a capacity below
 * `length` that is how data shows that does not compress, and the caller stores the cluster as it
 * is. Only a stream that would leave less than Q2_ENCODER_SLACK bytes may be refused although it
 * fits. What `buffer` then holds is undefined. */
int q2_encoder_run(struct q2_encoder *encoder, const void *source, size_t length, void *buffer,
                   size_t capacity, size_t *ret_used, struct q2_error *err);

/* The largest match distance in a raw deflate stream that decodes to at most `length` bytes: a
 * reader with a 4 KiB window cannot decode a stream whose result exceeds Q2_DEFLATE_WINDOW.
 * Q2_ERR_FORMAT where the stream is broken. */
int q2_deflate_max_distance(const void *source, size_t source_length, size_t length,
                            uint32_t *ret_distance, struct q2_error *err);

#endif
