/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Where an image is: in a file that may be longer than the input has bytes, on a medium that may
 * have a bad spot: some sectors cannot be read until they are written anew. */

#ifndef Q2_FUZZ_SUPPORT_MEDIUM_H
#define Q2_FUZZ_SUPPORT_MEDIUM_H

#include "core/io/file.h"

struct q2_fuzz_options;

/* Of the options of harnesses whose images are on one:
 *
 *   flags   Q2_FUZZ_BAD_SPOT: there is one; Q2_FUZZ_GROWN: the file ends in zeros
 *   number  the first sector of the bad spot
 *   chance  the lowest six bits: how many sectors follow that; Q2_FUZZ_HEALS: it can be read when
 *           that is tried again; four bits, five and three: limits of memory, work and details;
 *           the highest seven: how many MiB of zeros follow the first
 */
enum {
    Q2_FUZZ_GROWN = 1 << 6,
    Q2_FUZZ_BAD_SPOT = 1 << 7,
    Q2_FUZZ_HEALS = 1 << 6,
    Q2_FUZZ_MEMORY_SHIFT = 8,
    Q2_FUZZ_WORK_SHIFT = 12,
    Q2_FUZZ_DETAILS_SHIFT = 17,
    Q2_FUZZ_GROWN_SHIFT = 25,
    Q2_FUZZ_LEAST_MEMORY = 4096, /* bytes; each step is twice as much */
    Q2_FUZZ_LEAST_WORK = 64,     /* the same */
    Q2_FUZZ_SECTOR = 512,
    Q2_FUZZ_MOST_BAD = 64, /* sectors */
};

struct q2_check_options;

/* Narrow down what a check may take, where the bits for that are not 0. */
void q2_fuzz_limits(const struct q2_fuzz_options *options, struct q2_check_options *how);

/* The file, with the bytes of an input without options. */
struct q2_file *q2_fuzz_input(const uint8_t *bytes, size_t length,
                              const struct q2_fuzz_options *options);

/* Where the options have the bad spot, bytes; no length without one. */
void q2_fuzz_bad_spot(const struct q2_fuzz_options *options, uint64_t *ret_offset,
                      uint64_t *ret_length);

/* The file on a medium that is as the options have it. `file` stays the caller's. */
struct q2_file *q2_fuzz_medium(struct q2_file *file, const struct q2_fuzz_options *options);

#endif
