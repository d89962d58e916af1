/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Images in memory, as the harnesses for whole images have them. */

#ifndef Q2_FUZZ_SUPPORT_IMAGE_H
#define Q2_FUZZ_SUPPORT_IMAGE_H

#include "core/image/image.h"
#include "core/io/file.h"
#include "repair/repair.h"

struct q2_check;
struct q2_fuzz_options;

/* What a check or a repair of an input may use, bytes. */
#define Q2_FUZZ_MEMORY (UINT64_C(256) << 20)

/* What time it is, to judge dates by: seconds since the Epoch. */
#define Q2_FUZZ_NOW UINT64_C(1700000000)

/* A writable file in memory with these bytes. Never fails. */
struct q2_file *q2_fuzz_file(const uint8_t *bytes, size_t length);

/* A copy of a file in memory. */
struct q2_file *q2_fuzz_copy(struct q2_file *file);

/* Whether two files hold the same. */
bool q2_fuzz_equal(struct q2_file *a, struct q2_file *b);

/* Flags of the harness repair, and of the check in it. */
enum { Q2_FUZZ_DEEP = 1 << 0, Q2_FUZZ_FIXED_SIZE = 1 << 1, Q2_FUZZ_DISCARD = 1 << 2 };

/* What an input asks of a repair; its level 0 is that of what is certain. */
struct q2_repair_options q2_fuzz_repair_options(const struct q2_fuzz_options *options);

/* Open the image strictly, over a file that stays the caller's, without other files: no backing
 * file, no data file, no pass phrase. NULL where it is refused, which must come with words. */
struct q2_image *q2_fuzz_open(struct q2_file *file, unsigned flags);

/* Check the image, on one thread. NULL where that cannot be done, which must come with words. */
struct q2_check *q2_fuzz_check(struct q2_file *file, bool deep);

#endif
