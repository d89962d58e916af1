/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A hash table of single clusters, open addressing. There are few: an L2 table covers thousands of
 * clusters, a refcount block still more. */

#include "core/image/claims.h"

#include <stdlib.h>

enum {
    FIRST_SLOTS = 64,
    CLAIM_BITS = 4, /* a slot is cluster << CLAIM_BITS | claim; 0 is empty */
};

struct q2_claims {
    uint64_t *slots;
    uint64_t mask; /* number of slots - 1 */
    uint64_t used;
};

const char *
q2_claim_name(enum q2_claim claim)
{
    static const char *const names[] = {
        [Q2_CLAIM_NONE] = "guest data",
        [Q2_CLAIM_HEADER] = "the header",
        [Q2_CLAIM_L1] = "the L1 table",
        [Q2_CLAIM_L2] = "an L2 table",
        [Q2_CLAIM_REFCOUNT_TABLE] = "the refcount table",
        [Q2_CLAIM_REFCOUNT_BLOCK] = "a refcount block",
        [Q2_CLAIM_SNAPSHOTS] = "the snapshot table",
        [Q2_CLAIM_SNAPSHOT_L1] = "a snapshot's L1 table",
        [Q2_CLAIM_BITMAPS] = "the bitmaps' metadata",
        [Q2_CLAIM_CRYPTO] = "the encryption header",
        [Q2_CLAIM_SEVERAL] = "metadata of several kinds",
    };
    return names[claim];
}

int
q2_claims_new(struct q2_claims **ret_claims, struct q2_error *err)
{
    struct q2_claims *claims = calloc(1, sizeof *claims);
    if (claims)
        claims->slots = calloc(FIRST_SLOTS, sizeof *claims->slots);
    if (!claims || !claims->slots) {
        free(claims);
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the list of metadata");
    }
    claims->mask = FIRST_SLOTS - 1;
    *ret_claims = claims;
    return 0;
}

void
q2_claims_free(struct q2_claims *claims)
{
    if (!claims)
        return;
    free(claims->slots);
    free(claims);
}

static enum q2_claim
claim_in(uint64_t slot)
{
    return slot & ((1 << CLAIM_BITS) - 1);
}

static uint64_t
home_of(const struct q2_claims *claims, uint64_t cluster)
{
    return (cluster * UINT64_C(0x9e3779b97f4a7c15)) >> 20 & claims->mask;
}

/* The slot that holds `cluster`, or the empty one where it would go. */
static uint64_t
slot_of(const struct q2_claims *claims, uint64_t cluster)
{
    uint64_t at = home_of(claims, cluster);
    while (claims->slots[at] && claims->slots[at] >> CLAIM_BITS != cluster)
        at = (at + 1) & claims->mask;
    return at;
}

static int
grow(struct q2_claims *claims, struct q2_error *err)
{
    struct q2_claims bigger = {.mask = claims->mask * 2 + 1, .used = claims->used};
    bigger.slots = calloc(bigger.mask + 1, sizeof *bigger.slots);
    if (!bigger.slots)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the list of metadata");
    for (uint64_t i = 0; i <= claims->mask; i++)
        if (claims->slots[i])
            bigger.slots[slot_of(&bigger, claims->slots[i] >> CLAIM_BITS)] = claims->slots[i];
    free(claims->slots);
    *claims = bigger;
    return 0;
}

int
q2_claims_add(struct q2_claims *claims, uint64_t first, uint64_t count, enum q2_claim claim,
              struct q2_error *err)
{
    for (uint64_t cluster = first; cluster < first + count; cluster++) {
        if (claims->used * 2 > claims->mask) {
            int rc = grow(claims, err);
            if (rc < 0)
                return rc;
        }
        uint64_t at = slot_of(claims, cluster), slot = cluster << CLAIM_BITS | claim;
        if (!claims->slots[at])
            claims->used++;
        else if (claims->slots[at] != slot)
            slot = cluster << CLAIM_BITS | Q2_CLAIM_SEVERAL;
        claims->slots[at] = slot;
    }
    return 0;
}

/* Empty a slot, and move back what lies behind it and would not be found across the gap. */
static void
empty(struct q2_claims *claims, uint64_t gap)
{
    claims->slots[gap] = 0;
    claims->used--;
    for (uint64_t at = (gap + 1) & claims->mask; claims->slots[at]; at = (at + 1) & claims->mask) {
        uint64_t home = home_of(claims, claims->slots[at] >> CLAIM_BITS);
        if (((at - home) & claims->mask) < ((at - gap) & claims->mask))
            continue;
        claims->slots[gap] = claims->slots[at];
        claims->slots[at] = 0;
        gap = at;
    }
}

void
q2_claims_remove(struct q2_claims *claims, uint64_t first, uint64_t count)
{
    for (uint64_t cluster = first; cluster < first + count; cluster++) {
        uint64_t at = slot_of(claims, cluster);
        if (claims->slots[at] && claim_in(claims->slots[at]) != Q2_CLAIM_SEVERAL)
            empty(claims, at);
    }
}

void
q2_claims_clear(struct q2_claims *claims)
{
    for (uint64_t i = 0; i <= claims->mask; i++)
        claims->slots[i] = 0;
    claims->used = 0;
}

enum q2_claim
q2_claims_clash(const struct q2_claims *claims, uint64_t first, uint64_t count,
                enum q2_claim allowed, uint64_t *ret_cluster)
{
    for (uint64_t cluster = first; cluster < first + count; cluster++) {
        uint64_t slot = claims->slots[slot_of(claims, cluster)];
        enum q2_claim claim = claim_in(slot);
        if (slot && claim != allowed) {
            *ret_cluster = cluster;
            return claim;
        }
    }
    return Q2_CLAIM_NONE;
}
