/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Interned sets of maps, so that a finding can say "snapshots 3, 4 and 7" in one number. */

#ifndef Q2_CHECKER_MAPSET_H
#define Q2_CHECKER_MAPSET_H

#include "checker/finding.h"
#include "core/base/budget.h"

struct q2_mapset;

int q2_mapset_new(struct q2_budget *budget, struct q2_mapset **ret_sets, struct q2_error *err);
void q2_mapset_free(struct q2_mapset *sets);

/* The id of the set of `count` ascending members; always the same for the same members. */
int q2_mapset_intern(struct q2_mapset *sets, const uint32_t *members, size_t count,
                     q2_map_set *ret_set, struct q2_error *err);

/* Intern all sets of `from`, in the order in which they were interned there. *ret_ids, of
 * `*ret_count` members and taken from the budget of `sets`, says for each id in `from` what it is
 * in `sets`. */
int q2_mapset_absorb(struct q2_mapset *sets, const struct q2_mapset *from, q2_map_set **ret_ids,
                     uint64_t *ret_count, struct q2_error *err);

/* The members of a set; the pointer lives until the next intern. */
size_t q2_mapset_members(const struct q2_mapset *sets, q2_map_set set,
                         const uint32_t **ret_members);

#endif
