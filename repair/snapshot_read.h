/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Reading snapshot tables that may not be where they should, or not be right: entry by entry, as
 * far as entries obey the rules and lead to L1 tables that are theirs or are lost. */

#ifndef Q2_REPAIR_SNAPSHOT_READ_H
#define Q2_REPAIR_SNAPSHOT_READ_H

#include "core/format/snapshot.h"
#include "repair/carve.h"

/* A byte that is read as if some of its bits were flipped. */
struct q2_snapshot_patch {
    uint64_t at; /* host, bytes; 0: none */
    uint8_t mask;
};

struct q2_snapshot_run {
    uint64_t at;     /* of the first entry, host, bytes */
    uint64_t count;  /* entries */
    uint64_t length; /* bytes */
    uint64_t lost;   /* of these, entries whose L1 table nothing else leads to */
    uint64_t last;   /* of the last entry, host, bytes */
};

/* Read up to `limit` entries from host offset `at` on. */
void q2_snapshot_run(struct q2_carving *carving, uint64_t at, uint64_t limit,
                     const struct q2_snapshot_patch *patch, struct q2_snapshot_run *ret_run);

/* Whether cluster `cluster` belongs to the L1 table of an entry of a run. */
bool q2_snapshot_run_has(struct q2_carving *carving, const struct q2_snapshot_run *run,
                         uint64_t cluster);

/* The single bits of the entry at `at` with which a table of `limit`
 * entries from `start` on can be read to its end. *ret_count says how many there are, the patch is
 * the first, or that which leaves an id of digits. */
void q2_snapshot_flips(struct q2_carving *carving, uint64_t start, uint64_t at, uint64_t limit,
                       struct q2_snapshot_patch *ret_patch, uint64_t *ret_count);

/* Find the lost clusters that begin with a snapshot table. The longest; *ret_count: how many have
 * as many entries. */
void q2_snapshot_search(struct q2_carving *carving, uint64_t limit, struct q2_snapshot_run *ret_run,
                        uint64_t *ret_count);

#endif
