/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Which guest clusters at one guest offset claim which host clusters: the entries of all L2 tables
 * of a slot, at one index, brought together. Both phases of the check ask this. */

#ifndef Q2_CHECKER_GUEST_H
#define Q2_CHECKER_GUEST_H

#include "checker/window.h"
#include "core/format/references.h"

/* One distinct host range that a guest cluster is mapped to by some of the tables. */
struct q2_claim {
    uint64_t key;        /* what tells claims apart: see q2_claim_key */
    uint64_t references; /* maps that have it */
    struct q2_l2_entry entry;
    uint64_t table; /* index of the first table that has it */
    bool active;    /* the active map is one of them, with this entry: */
    struct q2_l2_entry active_entry;
};

/* Standard clusters are the same claim when they have the same host cluster, whatever the flags and
 * subcluster bits say; compressed ones when they have the same descriptor. 0: claims nothing. */
static inline uint64_t
q2_claim_key(const struct q2_geometry *geometry, uint64_t raw)
{
    if (raw & Q2_ENTRY_COMPRESSED)
        return raw & ~Q2_ENTRY_COPIED;
    return q2_entry_offset(raw) & ~(geometry->cluster_size - 1);
}

/* Fill `claims`, which has room for one per table, from the entries at `index` of `buffers`, one
 * buffer per table of the window. Returns their number. */
uint64_t q2_claims_collect(const struct q2_window *window, uint8_t *const *buffers, uint64_t index,
                           struct q2_claim *claims);

#endif
