/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A window over the same L1 slots of all maps at once.
 *
 * Snapshots share L2 tables, so the walk goes by slot, not by map: for one slot, the maps' entries
 * fall into groups with the same L2 table, which is read once however many maps share it. And
 * because all tables of a guest range are seen together, the same host cluster at the same guest
 * offset in several of them is one claim, while any other second claim is an overlap. */

#ifndef Q2_CHECKER_WINDOW_H
#define Q2_CHECKER_WINDOW_H

#include "checker/scan.h"

/* An L2 table as seen from one slot. */
struct q2_slot_table {
    uint64_t offset;     /* bytes */
    uint64_t references; /* maps that lead to it from this slot */
    bool active;         /* the active map is one of them */
    bool copied;         /* and its L1 entry has the COPIED flag */
    uint64_t first;      /* its references in `items` of the window */
};

struct q2_slot_item {
    uint64_t offset; /* of the L2 table, bytes */
    uint32_t map;
    bool copied;
};

struct q2_window {
    struct q2_check *check;
    uint64_t capacity; /* slots */
    uint64_t first;    /* slot */
    uint64_t count;    /* slots */
    uint8_t *entries;  /* of map m and slot s: (m * capacity + s - first) * 8, in file byte order */
    struct q2_slot_item *items;
    struct q2_slot_table *tables; /* of the current slot */
    uint64_t table_count;
    bool odd; /* an entry of the current slot breaks a rule, or its L1 table cannot be read */
    bool unreadable;
};

/* The number of slots that one unit of work covers, and of units. */
uint64_t q2_unit_slots(const struct q2_check *check);
uint64_t q2_unit_count(const struct q2_check *check);

int q2_window_init(struct q2_window *window, struct q2_check *check, struct q2_error *err);
void q2_window_destroy(struct q2_window *window);

/* Read the L1 entries of one unit of work. An L1 table that cannot be read leaves its entries zero
 * and sets `unreadable`; once the work limit is reached, the window stays empty. */
void q2_window_load(struct q2_window *window, uint64_t unit);

/* Group the entries of one slot into `tables`, by ascending offset. Entries that lead nowhere
 * usable are left out and set `odd`. */
void q2_window_group(struct q2_window *window, uint64_t slot);

/* The raw entry of a map in a slot; 0 past the end of its L1 table. */
uint64_t q2_window_entry(const struct q2_window *window, uint64_t map, uint64_t slot);

/* Read [part, part + length) of the L2 table at `offset`. A hole, and what lies past the end of the
 * file, reads as zeros. Returns 0, Q2_ERR_IO, or Q2_ERR_RANGE where the work limit forbids it. */
int q2_read_table(struct q2_check *check, uint64_t offset, uint64_t part, uint8_t *buffer,
                  size_t length);

/* Whether the cluster at host `offset` could be an L2 table: it maps something, and no entry breaks
 * a rule. A guest's own data practically never passes. */
bool q2_table_plausible(struct q2_check *check, uint64_t offset);

#endif
