/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Decompression of compressed clusters ("Compressed Clusters Descriptor" in the specification).
 *
 * Decoders are pure and bounded: they read at most `source_length` bytes, write at most `length`,
 * and allocate nothing that the stream sizes. A decoder object is for one thread at a time. */

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
 * to exactly `length` bytes; what `buffer` then holds is undefined. */
int q2_decoder_run(struct q2_decoder *decoder, const void *source, size_t source_length,
                   void *buffer, size_t length, size_t *ret_used, struct q2_error *err);

/* The largest match distance in a raw deflate stream that decodes to at most `length` bytes: a
 * reader with a 4 KiB window cannot decode a stream whose result exceeds Q2_DEFLATE_WINDOW.
 * Q2_ERR_FORMAT where the stream is broken. */
int q2_deflate_max_distance(const void *source, size_t source_length, size_t length,
                            uint32_t *ret_distance, struct q2_error *err);

#endif
