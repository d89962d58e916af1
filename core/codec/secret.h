/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Pass phrases come from files and descriptors, never from the command line, which every user of
 * the machine can read. As with QEMU's `--object secret,file=`, all of a raw file counts, a newline
 * at its end included. */

#ifndef Q2_CODEC_SECRET_H
#define Q2_CODEC_SECRET_H

#include "core/base/error.h"

#include <stddef.h>
#include <stdint.h>

enum { Q2_SECRET_MAX = 65536 }; /* bytes that a file may have */

enum q2_secret_format {
    Q2_SECRET_RAW = 0,
    Q2_SECRET_BASE64 = 1, /* RFC 4648, section 4; line breaks are skipped */
};

/* Embed it with `= {0}`. The bytes are followed by a NUL that `length` does not count. */
struct q2_secret {
    uint8_t *bytes;
    size_t length;
};

/* Read a pass phrase from `path`, or from a descriptor up to its end; `name` is what messages call
 * that. It may be a pipe. Q2_ERR_RANGE where it is too long, Q2_ERR_FORMAT where it is not base64
 * or, decoded, not UTF-8 without NUL, which is all that QEMU takes for a pass phrase. */
int q2_secret_read(const char *path, enum q2_secret_format format, struct q2_secret *ret_secret,
                   struct q2_error *err);
int q2_secret_read_fd(int fd, const char *name, enum q2_secret_format format,
                      struct q2_secret *ret_secret, struct q2_error *err);

/* Wipes and frees the bytes. */
void q2_secret_destroy(struct q2_secret *secret);

#endif
