/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Which host clusters hold live metadata, so that nothing else is ever written there: the last line
 * of defence against refcounts that lie. Kept for everything but the L2 tables and bitmap clusters
 * of inactive states, as finding those would take reading all of them. */

#ifndef Q2_IMAGE_CLAIMS_H
#define Q2_IMAGE_CLAIMS_H

#include "core/base/error.h"

#include <stdbool.h>
#include <stdint.h>

enum q2_claim {
    Q2_CLAIM_NONE, /* guest data, or nothing at all */
    Q2_CLAIM_HEADER,
    Q2_CLAIM_L1,
    Q2_CLAIM_L2,
    Q2_CLAIM_REFCOUNT_TABLE,
    Q2_CLAIM_REFCOUNT_BLOCK,
    Q2_CLAIM_SNAPSHOTS,
    Q2_CLAIM_SNAPSHOT_L1,
    Q2_CLAIM_BITMAPS, /* directory and tables */
    Q2_CLAIM_CRYPTO,
    Q2_CLAIM_SEVERAL, /* of different kinds at once: nothing may write there any more */
};

const char *q2_claim_name(enum q2_claim claim);

struct q2_claims;

int q2_claims_new(struct q2_claims **ret_claims, struct q2_error *err);
void q2_claims_free(struct q2_claims *claims);

/* Clusters [first, first + count) hold `claim` from now on. One that held something else is
 * Q2_CLAIM_SEVERAL for good. */
int q2_claims_add(struct q2_claims *claims, uint64_t first, uint64_t count, enum q2_claim claim,
                  struct q2_error *err);
/* They hold nothing that is known, except for those that are claimed by several. */
void q2_claims_remove(struct q2_claims *claims, uint64_t first, uint64_t count);
void q2_claims_clear(struct q2_claims *claims);

/* The first cluster of [first, first + count) that holds something other than `allowed`, and what;
 * Q2_CLAIM_NONE if there is none. */
enum q2_claim q2_claims_clash(const struct q2_claims *claims, uint64_t first, uint64_t count,
                              enum q2_claim allowed, uint64_t *ret_cluster);

#endif
