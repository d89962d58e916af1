/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Who uses the clusters that are to be explained (those marked suspect in the tally). */

#ifndef Q2_CHECKER_USES_H
#define Q2_CHECKER_USES_H

#include "checker/scan.h"

struct q2_use {
    uint64_t cluster;
    uint64_t references;
    struct q2_owner owner;
    bool active; /* reached from the active map */
    bool copied; /* through an entry with the COPIED flag */
};

struct q2_uses {
    struct q2_check *check;
    struct q2_use *items;
    uint64_t count;
    uint64_t capacity;
    bool dropped; /* memory did not suffice for all */
    /* The chunk looked at last. */
    const struct q2_chunk *chunk;
    uint64_t number;
};

void q2_uses_init(struct q2_uses *uses, struct q2_check *check);
void q2_uses_destroy(struct q2_uses *uses);

/* Whether any of the `count` clusters from `first` on is to be explained. */
bool q2_uses_wanted(struct q2_uses *uses, uint64_t first, uint64_t count);

/* Note that `use->owner` uses `count` clusters from `first` on; kept for those that are to be
 * explained. */
void q2_uses_add(struct q2_uses *uses, uint64_t first, uint64_t count, const struct q2_use *use);

/* Add all of `from`. `ids` translates its sets of maps. */
void q2_uses_absorb(struct q2_uses *uses, const struct q2_uses *from, const q2_map_set *ids);

/* Add the uses by structures other than the maps: regions, bitmap data, refcount blocks. */
void q2_uses_add_structures(struct q2_uses *uses);

/* Re-walk the maps: all units, or only those in `odd_units` if `all` is false. Adds the uses by L2
 * tables and guest clusters, and, if `report` is true, reports every entry that breaks a rule. */
int q2_uses_add_maps(struct q2_uses *uses, const uint64_t *odd_units, bool all, bool report,
                     struct q2_error *err);

/* Sort by cluster and join the uses of one cluster that have the same owner. */
int q2_uses_settle(struct q2_uses *uses, struct q2_error *err);

/* Report what is wrong with each cluster that is to be explained. */
int q2_uses_judge(struct q2_uses *uses, struct q2_error *err);

#endif
