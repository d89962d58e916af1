/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* From recipes to seeds for the harnesses of whole images. */

#ifndef Q2_FUZZ_SEEDS_H
#define Q2_FUZZ_SEEDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct q2_file;
struct q2_fuzz_options;

/* How a recipe is made small. */
struct seed_scale {
    unsigned cluster_bits; /* of the clusters, where the recipe does not say; 0: leave it alone */
    bool tables;           /* keep the place in the L1 table rather than the distance */
};

/* Rewrite a recipe for 64K clusters: other clusters, and all numbers with a unit smaller by as
 * much. The caller frees the text; NULL: the recipe says how large its clusters are, or memory. */
char *seed_scale(const char *text, const struct seed_scale *scale);

/* A number with a unit, as seed_scale makes it. */
uint64_t seed_scaled(uint64_t value, const struct seed_scale *scale);

/* What is said beside a recipe. */
struct seed_options {
    bool deep;
    bool slow;                                  /* only for the suite, with the harness check */
    bool heals;                                 /* what cannot be read, at the second attempt */
    uint64_t bad_offset, bad_length;            /* bytes that cannot be read; no length: none */
    uint64_t grown;                             /* MiB of zeros at the end */
    uint64_t max_memory, max_work, max_details; /* of the check; 0: no limit */
};

void seed_options_read(const char *text, struct seed_options *ret_options);

/* For an image that was scaled. */
void seed_options_scale(const struct seed_scale *scale, struct seed_options *options);

/* As harnesses are told. */
struct q2_fuzz_options seed_options_fuzz(const struct seed_options *options);

/* Whether there is anything but `deep`. */
bool seed_options_any(const struct seed_options *options);

/* Note what a repair of an image does, if there is anything that none has done yet; whether this
 * one does. */
bool seed_actions_note(struct q2_file *file, const struct q2_fuzz_options *options);

/* How many actions no repair has done; says which. */
unsigned seed_actions_missing(void);

#endif
