/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Finding an L1 table that what should lead to it does not lead to any more. */

#ifndef Q2_REPAIR_L1_FIND_H
#define Q2_REPAIR_L1_FIND_H

#include "repair/carve.h"

/* What the bytes at a place would be as an L1 table. */
struct q2_l1_look {
    uint64_t leads;  /* entries that lead to L2 tables, lost ones or such in place */
    uint64_t lost;   /* of these, to lost ones */
    uint64_t copied; /* of these, with the COPIED flag */
    uint64_t astray; /* entries that lead elsewhere or break a rule */
};

/* Look at `entries` entries at host `offset`. */
void q2_l1_look(struct q2_carving *carving, uint64_t offset, uint64_t entries,
                struct q2_l1_look *ret_look);

/* Whether all clusters that `entries` entries at host `offset` take are lost. */
bool q2_l1_is_lost(struct q2_carving *carving, uint64_t offset, uint64_t entries);

/* Whether that is an L1 table: it leads to tables, and hardly anywhere else. */
bool q2_l1_credible(const struct q2_l1_look *look);

/* Find the lost L1 table of `entries` entries that `wrong` was to lead to, before a bit of it
 * flipped. *ret_offset is 0 where there is none, or more than one. */
void q2_l1_near(struct q2_carving *carving, uint64_t wrong, uint64_t entries, uint64_t *ret_offset);

/* The lost L1 table of `entries` entries that leads to most tables; `*ret_count`: how many there
 * are. `active` prefers those with COPIED flags. */
void q2_l1_best(struct q2_carving *carving, uint64_t entries, bool active, uint64_t *ret_offset,
                uint64_t *ret_count);

#endif
