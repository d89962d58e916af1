/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What a codec brings: the same three functions that codec.h declares, for one compression type and
 * one direction. Private to core/codec. */

#ifndef Q2_CODEC_INTERNAL_H
#define Q2_CODEC_INTERNAL_H

#include "core/base/error.h"

#include <stddef.h>

/* The format's largest cluster; codecs need not be prepared for more. */
enum { Q2_CODEC_CLUSTER_MAX = 2 << 20 };

struct q2_codec {
    void *(*new)(void); /* NULL: no memory */
    void (*free)(void *state);
    int (*run)(void *state, const void *source, size_t source_length, void *buffer, size_t length,
               size_t *ret_used, struct q2_error *err);
};

extern const struct q2_codec q2_codec_deflate;
extern const struct q2_codec q2_codec_zstd;

/* For these, `length` is what `buffer` has room for, at least 1. Where that is too little they
 * return Q2_ERR_NOSPACE and leave the message to their caller. */
extern const struct q2_codec q2_codec_deflate_encoder;
extern const struct q2_codec q2_codec_zstd_encoder;

#endif
