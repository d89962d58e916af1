/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Carving: finding tables among the lost clusters by what they look like, and saying what they
 * know about themselves: whether refcounts leave room for them, whose they are by their COPIED
 * flags, what they share with tables that are still in place.
 *
 * A lost table is not yet damage. A crash leaves tables behind that were not linked yet, or not
 * any more; so each is held against all that could explain it. */

#ifndef Q2_REPAIR_CARVE_H
#define Q2_REPAIR_CARVE_H

#include "repair/slots.h"

#define Q2_NO_SLOT UINT64_MAX

/* What a table says, whether it is lost or not. */
struct q2_table_facts {
    struct q2_table_look look;
    uint64_t used;   /* index behind the last entry that is not empty */
    uint64_t room;   /* of those mapped, entries whose clusters are counted once more than sound
                      * pointers explain */
    uint64_t shared; /* of those mapped, entries that lead to clusters which sound pointers have */
    uint64_t own;    /* of those mapped, standard ones that nobody else has: refcount 1 */
    uint64_t own_copied;  /* and of these, with the COPIED flag */
    uint64_t key_index;   /* the first shared entry */
    uint64_t key_cluster; /* and where it leads to */
    uint64_t head, tail;  /* entries in a row at both ends that lead to clusters in a row */
    uint64_t lowest;      /* host clusters that it leads to */
    uint64_t highest;
    uint64_t tables;    /* of those mapped, entries that lead to tables */
    uint64_t data_slot; /* with a data file: the slot that its entries name */
    bool ascending;     /* host clusters ascend with the guest's */
};

struct q2_carved {
    uint64_t offset; /* host, bytes */
    uint64_t refcount;
    struct q2_table_facts facts;
    uint64_t home;  /* slot in which a sound table shares data with it; Q2_NO_SLOT: none */
    uint64_t named; /* slot that its data names (numbering.h); Q2_NO_SLOT: none */
    bool ruled;     /* and several tables agree in how */
    uint32_t leads; /* L1 tables that were found and lead to it */
    bool like_l2;   /* by its form */
    bool is_l1;     /* it leads to tables */
    bool is_data;   /* a table maps it: the guest's own data */
    bool stale;     /* what it says contradicts what is in place */
    bool placed;
};

struct q2_carving {
    struct q2_slots *slots;
    struct q2_carved *tables; /* by offset */
    uint64_t count, capacity;
    bool dropped; /* there were more than could be kept */
    uint8_t *buffer;
};

/* Look into all lost clusters. `slots` must outlive the result. */
int q2_carve(struct q2_slots *slots, struct q2_carving **ret_carving, struct q2_error *err);
void q2_carving_free(struct q2_carving *carving);

/* The carved table at host `offset`, or NULL. */
struct q2_carved *q2_carved_at(const struct q2_carving *carving, uint64_t offset);

/* Gather the facts about the table at host `offset`. */
int q2_table_facts(struct q2_carving *carving, uint64_t offset, struct q2_table_facts *ret_facts,
                   struct q2_error *err);

/* Whether a carved table is a lost L2 table by all that it says itself. */
bool q2_carved_is_l2(const struct q2_carving *carving, const struct q2_carved *table);

#endif
