/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the files that place lost tables share. */

#ifndef Q2_REPAIR_PLACE_PARTS_H
#define Q2_REPAIR_PLACE_PARTS_H

#include "repair/place.h"

enum { Q2_NO_NODE = -1 };

/* A table that has, or may have, a place in the map at hand. */
struct q2_node {
    struct q2_carved *found; /* NULL: in place */
    uint64_t offset;         /* host, bytes */
    struct q2_table_facts facts;
    uint64_t slot; /* Q2_NO_SLOT: not known yet */
    int64_t next, previous;
    bool strong; /* the continuation in `next` is */
    uint64_t left, right;
};

struct q2_place_work {
    struct q2_placing *placing;
    uint32_t map;
    struct q2_slot_map *slots;
    struct q2_node *nodes; /* by the first host cluster that they map */
    uint64_t count, capacity;
    uint64_t loose;  /* nodes without a slot */
    uint64_t open;   /* slots */
    uint64_t strong; /* continuations */
    uint64_t anchors;
    bool in_order; /* the tables in place are */
    bool twin;     /* some snapshot has the same L1 table: what is lost may be from before */
};

bool q2_work_open(const struct q2_place_work *work, uint64_t slot);

/* The table that a slot has now, 0 for none. */
uint64_t q2_work_table(const struct q2_place_work *work, uint64_t slot);

/* Whether a lost table may go into a slot, as far as the slot and the table say. */
bool q2_work_can_go(const struct q2_place_work *work, const struct q2_node *node, uint64_t slot);

/* Maps in which a lost table could go into this slot. */
uint64_t q2_work_rivals(const struct q2_place_work *work, const struct q2_carved *table,
                        uint64_t slot);

/* Put a node into a slot, with the confidence that all the circumstances leave. */
int q2_work_put(struct q2_place_work *work, struct q2_node *node, uint64_t slot,
                enum q2_confidence confidence, const char *why, struct q2_error *err);

/* Put nodes where their order in the file puts them; with `certain`, only those that have no other
 * place. */
int q2_put_in_order(struct q2_place_work *work, bool certain, struct q2_error *err);

#endif
