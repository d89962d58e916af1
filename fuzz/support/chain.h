/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* An image and other files that it may name, in a folder of their own (scratch.h): `image` and
 * `base`, which has what the number of the options says of an input, from that sector on; `again`,
 * which is a link to `image`; with Q2_FUZZ_CHAIN_DEEP, folders called d within each other, more
 * than a chain may have files, with the image in each. */

#ifndef Q2_FUZZ_SUPPORT_CHAIN_H
#define Q2_FUZZ_SUPPORT_CHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct q2_companions;
struct q2_file;
struct q2_fuzz_options;

enum { Q2_FUZZ_CHAIN_DEEP = 1 << 0 }; /* of the flags */

/* *ret_first: how much of the input is the image. False, and no files, where a name leads out of
 * the folder. */
bool q2_fuzz_chain_make(const uint8_t *input, size_t length, const struct q2_fuzz_options *options,
                        size_t *ret_first);

/* Open a file there, with all that it names if that is wanted. */
struct q2_file *q2_fuzz_chain_open(const char *name, bool force_share,
                                   struct q2_companions **ret_companions);

#endif
