/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* From recipes to seeds for the harnesses of whole images. */

#ifndef Q2_FUZZ_SEEDS_H
#define Q2_FUZZ_SEEDS_H

#include <stdbool.h>
#include <stddef.h>

/* How a recipe is made small. */
struct seed_scale {
    unsigned cluster_bits; /* of the clusters, where the recipe does not say; 0: leave it alone */
    bool tables;           /* keep the place in the L1 table rather than the distance */
};

/* Rewrite a recipe for 64K clusters: other clusters, and all numbers with a unit smaller by as
 * much. The caller frees the text; NULL: the recipe says how large its clusters are, or memory. */
char *seed_scale(const char *text, const struct seed_scale *scale);

#endif
