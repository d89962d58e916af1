/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The same part of all L2 tables of a slot, in memory at once. One table is read in large parts;
 * many are read in smaller ones, so that memory does not follow the number of snapshots. */

#ifndef Q2_CHECKER_SLICES_H
#define Q2_CHECKER_SLICES_H

#include "checker/guest.h"

struct q2_slices {
    struct q2_check *check;
    uint64_t longest;        /* bytes of one table that are read at once at most */
    uint64_t length;         /* bytes of each table that are read at once, for the slot at hand */
    uint8_t **buffers;       /* one for each table, into `bytes` */
    struct q2_claim *claims; /* room for one for each table */
    uint64_t tables;         /* that there is room for */
    uint8_t *bytes;
    uint64_t capacity; /* bytes */
};

void q2_slices_init(struct q2_slices *slices, struct q2_check *check, uint64_t longest);
void q2_slices_destroy(struct q2_slices *slices);

/* Make room for the tables of the slot that the window is at, and settle on a length: a power of
 * two that divides a cluster. */
int q2_slices_fit(struct q2_slices *slices, const struct q2_window *window, struct q2_error *err);

/* Read the part of all tables that begins at byte `part`. One that cannot be read counts as empty;
 * returns how many those are, leaving out what the work limit forbids. */
uint64_t q2_slices_read(struct q2_slices *slices, const struct q2_window *window, uint64_t part);

#endif
