/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The L1 tables of all maps in memory, slot by slot: which slots lead to a table as they should,
 * which are empty, and which hold what cannot be right. Where lost tables belong is a question
 * about slots. */

#ifndef Q2_REPAIR_SLOTS_H
#define Q2_REPAIR_SLOTS_H

#include "checker/refcounts.h"
#include "repair/survey.h"

enum q2_slot_state {
    Q2_SLOT_EMPTY,
    Q2_SLOT_SOUND,
    Q2_SLOT_SUSPECT,
    Q2_SLOT_PLACED, /* it was one of the others, and now has a table */
    Q2_SLOT_CUT,    /* its table was cut off with the end of the file */
};

struct q2_slot_map {
    uint64_t *raw;  /* entries, in native byte order; NULL: the table could not be loaded */
    uint8_t *state; /* enum q2_slot_state */
    uint64_t size;  /* entries */
    uint64_t slots; /* of these, those below the end of the disk and its VM state */
    uint64_t sound; /* of these, sound ones */
};

/* An L2 table that sound slots lead to; the first of them. */
struct q2_slot_owner {
    uint64_t offset; /* host, bytes */
    uint32_t map;
    uint32_t slot;
};

struct q2_slots {
    struct q2_scene *scene;
    struct q2_survey *survey;
    struct q2_refcount_reader reader;
    struct q2_slot_map *maps; /* as check->maps */
    uint64_t map_count;
    struct q2_slot_owner *owners; /* by offset */
    uint64_t owner_count, owner_capacity;
};

/* Load the L1 tables of scene->check. What is too much to hold is left out. `survey` must outlive
 * the slots. */
int q2_slots_load(struct q2_survey *survey, struct q2_slots **ret_slots, struct q2_error *err);
void q2_slots_free(struct q2_slots *slots);

/* Host offset of an L1 entry, bytes. */
uint64_t q2_slot_at(const struct q2_slots *slots, uint32_t map, uint64_t slot);

/* The sound slot that leads to the L2 table at host `offset`, or NULL. */
const struct q2_slot_owner *q2_slots_owner(const struct q2_slots *slots, uint64_t offset);

/* How often sound pointers lead to a cluster, as far as that can be told. */
uint64_t q2_slots_references(const struct q2_slots *slots, uint64_t cluster);

/* Whether a table may go into a slot: it is open. */
static inline bool
q2_slot_open(const struct q2_slot_map *map, uint64_t slot)
{
    return slot < map->slots && map->raw &&
           (map->state[slot] == Q2_SLOT_EMPTY || map->state[slot] == Q2_SLOT_SUSPECT);
}

#endif
