/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What makes the first inputs of a harness.
 *
 * Seeds are built, not kept: seeds/NAME.c says in a few lines what the harness fuzz-NAME begins
 * with, and the program seeds-NAME (engine/seed.c) writes it to a folder. The same source always
 * makes the same seeds. */

#ifndef Q2_FUZZ_SEED_H
#define Q2_FUZZ_SEED_H

#include "fuzz/fuzz.h"

/* The generator. */
void q2_make_seeds(void);

/* A seed in the making. Begin with zeros. */
struct q2_seed {
    size_t length;
    uint8_t bytes[1 << 17];
};

/* Append; numbers are big-endian, `width` bytes wide. */
void q2_seed_number(struct q2_seed *seed, unsigned width, uint64_t number);
void q2_seed_bytes(struct q2_seed *seed, const void *bytes, size_t length);
/* Measures, as q2_fuzz_header reads them: `flags` 1 version 2, 2 extended L2 entries, 4 data file,
 * 8 encrypted, 16 times the refcount order. */
void q2_seed_measures(struct q2_seed *seed, unsigned flags, unsigned cluster_bits,
                      uint64_t disk_size, uint64_t file_size);

/* Write it to a file of that name, and begin again. */
void q2_seed_write(struct q2_seed *seed, const char *name, ...)
    __attribute__((format(printf, 2, 3)));

#endif
