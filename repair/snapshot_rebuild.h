/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A snapshot table that is destroyed, or in part, while the L1 tables of the snapshots are still
 * there: a new one is made of what can be read of the old one and of an entry for each L1 table
 * that nothing leads to. Their names and dates are lost. */

#ifndef Q2_REPAIR_SNAPSHOT_REBUILD_H
#define Q2_REPAIR_SNAPSHOT_REBUILD_H

#include "repair/snapshot_read.h"
#include "repair/tables_parts.h"

/* An entry of the old table that is sound, perhaps but for its L1 table. */
struct q2_kept_entry {
    uint64_t at;                 /* host, bytes */
    uint64_t length;             /* bytes */
    uint64_t l1_first, l1_count; /* clusters of its own L1 table */
    uint64_t l1_offset;          /* of the one that it gets, host, bytes; 0: its own */
    uint32_t l1_size;            /* entries */
};

/* An L1 table that no entry has. */
struct q2_found_l1 {
    uint64_t offset; /* host, bytes */
    uint64_t entries;
    uint64_t vm_state_size; /* bytes */
    uint64_t clusters;
    bool shorter; /* than the disk needs */
    bool named;   /* an entry that leads elsewhere gets it */
};

struct q2_snapshot_list {
    struct q2_kept_entry *kept;
    struct q2_found_l1 *found;
    uint64_t kept_count, found_count;
    uint64_t kept_capacity, found_capacity;
    uint64_t named_count; /* of those kept, entries that get an L1 table */
    bool guessed;         /* which of several, or whose name */
    uint8_t *bytes;       /* the new table */
    uint64_t length;      /* bytes */
    uint64_t room;        /* bytes allocated */
};

/* Whether the entry of a snapshot is where it seems to be: one that an earlier entry's wrong length
 * made up has no texts. */
bool q2_snapshot_in_step(const struct q2_scene *scene, uint32_t map);

/* Mend the fields of a snapshot's entry, where that is in step. */
int q2_snapshot_mend(struct q2_tables *tables, uint32_t map, struct q2_error *err);

/* Give entries the extra data that they lack, and take what is too much. */
int q2_snapshot_fix_extra(struct q2_tables *tables, struct q2_error *err);

/* Find what a new table would list. Destroy the list also if this failed. */
int q2_snapshot_list_find(struct q2_tables *tables, struct q2_snapshot_list *ret_list,
                          struct q2_error *err);
void q2_snapshot_list_destroy(struct q2_tables *tables, struct q2_snapshot_list *list);

/* Bytes that are free for a table where the header says: nothing else refers to them. */
uint64_t q2_snapshot_table_room(struct q2_tables *tables);

/* Make a new table, where the table has only `readable` entries that can be read from its start on,
 * and L1 tables are lost. *ret_done: this has been dealt with, done or offered. */
int q2_snapshots_rebuild(struct q2_tables *tables, uint64_t readable, bool *ret_done,
                         struct q2_error *err);

#endif
