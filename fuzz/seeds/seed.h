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

#include <stdarg.h>

/* The generator. */
void q2_make_seeds(void);

/* Write a seed; the name is that of the file. */
void q2_seed(const void *bytes, size_t length, const char *name, ...)
    __attribute__((format(printf, 3, 4)));

#endif
