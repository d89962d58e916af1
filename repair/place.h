/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Placing: which slot of which L1 table leads to which L2 table, for slots that are empty or
 * damaged and tables that nothing leads to.
 *
 * Evidence, from the strongest: an entry that is one flipped bit away from a lost table; the slot
 * in which another map has the table, or one that shares data with it; runs of host clusters that
 * go on from the end of one table to the begin of the next; the order in which a sequential writer
 * allocates; and that there is one slot left for one table. */

#ifndef Q2_REPAIR_PLACE_H
#define Q2_REPAIR_PLACE_H

#include "repair/carve.h"

struct q2_placement {
    uint32_t map;
    uint64_t slot;
    uint64_t table;          /* host offset, bytes */
    struct q2_carved *found; /* NULL: a table that another slot leads to as well */
    enum q2_confidence confidence;
    const char *why; /* a clause */
    uint64_t before; /* the entry that was there; q2_place fills it in */
};

struct q2_placing {
    struct q2_slots *slots;
    struct q2_carving *carving;
    struct q2_placement *items;
    uint64_t count, capacity;
    uint64_t turns; /* of loops whose length an image can multiply */
    /* A snapshot's L1 table is the same as the active one: the disk was just set back to it, or
     * nothing was written since, and what is lost may be of a state that was given up. */
    bool twin;
};

void q2_placing_init(struct q2_placing *placing, struct q2_carving *carving);
void q2_placing_destroy(struct q2_placing *placing);

/* Note that `slot` of `map` is to lead to a table, and take both off the lists of what is open. */
int q2_place(struct q2_placing *placing, const struct q2_placement *placement,
             struct q2_error *err);

/* Take part in what all loops may do together; false once that is used up. */
static inline bool
q2_placing_spend(struct q2_placing *placing, uint64_t turns)
{
    placing->turns = turns > placing->turns ? 0 : placing->turns - turns;
    return placing->turns > 0;
}

/* Whether what a table maps lies below the end of a map's disk, if it is in this slot. */
bool q2_table_fits(const struct q2_placing *placing, const struct q2_table_facts *facts,
                   uint32_t map, uint64_t slot);

/* Whether the COPIED flags of a lost table are those of the active map's tables, or of
 * snapshots'. */
bool q2_table_flags_fit(const struct q2_placing *placing, const struct q2_carved *table,
                        uint32_t map);

/* Whether the host clusters of table `right` go on where those of `left` end, at the border of two
 * slots; `*ret_strong`: more than one on both sides does. Offsets are those of the tables. */
bool q2_tables_follow(const struct q2_placing *placing, const struct q2_table_facts *left,
                      uint64_t right_offset, const struct q2_table_facts *right, bool *ret_strong);

/* How well a table goes between the neighbours of a slot: 4 for each strong continuation, 1 where
 * it lies between them in the file. */
int q2_place_score(struct q2_placing *placing, uint64_t offset, const struct q2_table_facts *facts,
                   uint32_t map, uint64_t slot, int *ret_score, struct q2_error *err);

/* ---- the kinds of evidence, in this order ---- */

/* Damaged entries that are a bit or two away from a lost table, or from one in the same slot of
 * another map; and sound ones that lead to an empty cluster instead of the table. */
int q2_place_flips(struct q2_placing *placing, struct q2_error *err);

/* Open slots whose table another map has, where refcounts say that one reference is missing. */
int q2_place_missing(struct q2_placing *placing, struct q2_error *err);

/* Lost tables whose slot follows from what is around. */
int q2_place_lost(struct q2_placing *placing, struct q2_error *err);

#endif
