/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Decoders and encoders of an image, one for each thread that is at work just now. A decoder
 * remembers the cluster that it decoded last, so that reading a compressed cluster piece by piece
 * decodes it once. */

#ifndef Q2_IMAGE_CODECS_H
#define Q2_IMAGE_CODECS_H

#include "core/codec/codec.h"
#include "core/format/entry.h"
#include "core/io/file.h"

struct q2_codecs;

int q2_codecs_new(enum q2_compression type, uint64_t cluster_size, struct q2_codecs **ret_codecs,
                  struct q2_error *err);
void q2_codecs_free(struct q2_codecs *codecs);

/* Read bytes [inside, inside + length) of the cluster whose compressed bytes are at `packed` in
 * `file`, into `iov` from byte `skip` of it on. */
int q2_codecs_read(struct q2_codecs *codecs, struct q2_file *file,
                   const struct q2_compressed_range *packed, uint64_t inside, uint64_t length,
                   const struct iovec *iov, int iov_count, size_t skip, struct q2_error *err);

/* What is compressed has changed on the disk. */
void q2_codecs_forget(struct q2_codecs *codecs);

/* Compress one cluster. *ret_stream (malloc'ed) is NULL where it does not become smaller. */
int q2_codecs_compress(struct q2_codecs *codecs, const void *cluster, uint8_t **ret_stream,
                       size_t *ret_length, struct q2_error *err);

#endif
