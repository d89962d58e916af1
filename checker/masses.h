/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Clusters whose refcounts are wrong by the million: all of them when the refcount blocks are lost.
 * So many are explained, of each problem; the rest is only counted, which takes neither memory nor
 * time to speak of. */

#ifndef Q2_CHECKER_MASSES_H
#define Q2_CHECKER_MASSES_H

#include "checker/refcounts.h"

struct q2_masses {
    struct q2_check *check;
    uint64_t explained;              /* clusters, whatever their problem */
    uint64_t room[Q2_PROBLEM_COUNT]; /* clusters that may still be explained beyond these */
    uint64_t *tables;                /* a bit for each cluster that is an L2 table; or NULL */
    uint64_t words;
};

void q2_masses_init(struct q2_masses *masses, struct q2_check *check);
void q2_masses_destroy(struct q2_masses *masses);

/* Of 64 clusters from `cluster` on, those in `suspect` are referred to, and what the reader has for
 * them contradicts that. Returns those that are to be explained; the others have been counted. */
uint64_t q2_masses_take(struct q2_masses *masses, const struct q2_refcount_reader *reader,
                        const struct q2_chunk *chunk, uint64_t cluster, uint64_t suspect);

#endif
