/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The digest of the edits of an overlay. */

#ifndef Q2_REPAIR_DIGEST_H
#define Q2_REPAIR_DIGEST_H

#include "core/io/overlay.h"

/* SHA-256 over the sizes and the bytes before and after, in hexadecimal digits and a NUL. */
int q2_digest_edits(struct q2_file *base, struct q2_file *overlay, char ret_digest[65],
                    struct q2_error *err);

#endif
