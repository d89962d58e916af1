/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What a walk over the tokens of a deflate stream finds: enough to verify it without decoding. */

#ifndef Q2_CODEC_WINDOW_H
#define Q2_CODEC_WINDOW_H

#include "core/base/error.h"

#include <stddef.h>
#include <stdint.h>

struct q2_deflate_walk {
    size_t used;       /* source bytes that the stream takes */
    size_t produced;   /* bytes that it decodes to */
    uint32_t distance; /* the largest of a match, 0 if there is none */
};

/* Walk a raw deflate stream that decodes to at most `length` bytes. Q2_ERR_FORMAT where zlib's
 * inflate, with a window of 32 KiB, would refuse it or want more of it. */
int q2_deflate_walk(const void *source, size_t source_length, size_t length,
                    struct q2_deflate_walk *ret_walk, struct q2_error *err);

#endif
