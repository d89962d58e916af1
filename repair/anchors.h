/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Where the neighbours of a damaged L2 entry say that its cluster should be: software that writes a
 * disk from front to back takes one cluster after the other. */

#ifndef Q2_REPAIR_ANCHORS_H
#define Q2_REPAIR_ANCHORS_H

#include "repair/survey.h"

/* A run of damaged entries in one L2 table, and what is right before and behind it. */
struct q2_anchors {
    uint64_t first; /* L2 index of the run */
    uint64_t count;
    bool has_before, has_behind;
    struct q2_l2_entry before; /* the entry in front of the run, a sound one that maps something */
    struct q2_l2_entry behind;
};

/* The L2 table read last. */
struct q2_table_view {
    struct q2_survey *survey;
    uint8_t *bytes;
    uint64_t offset;             /* host, bytes; UINT64_MAX: none */
    uint64_t run_first, run_end; /* suspects: the run of broken ones that was looked at last */
};

int q2_table_view_init(struct q2_table_view *view, struct q2_survey *survey, struct q2_error *err);
void q2_table_view_destroy(struct q2_table_view *view);

/* Make the table at host `offset` the one to look at; false where it cannot be read. Edits made
 * since it was read are not seen, but for those that `q2_table_view_set` is told of. */
bool q2_table_view_load(struct q2_table_view *view, uint64_t offset);

/* The entry at host offset `at` now is `raw`. */
void q2_table_view_set(struct q2_table_view *view, uint64_t at, uint64_t raw);

/* The run around suspect `index` of the survey. Entries that break rules make one run with their
 * neighbours that do; others stand alone. */
void q2_anchors_find(struct q2_table_view *view, uint64_t index, struct q2_anchors *ret_anchors);

/* The cluster that goes on from the front, or back from behind, at L2 index `index` of the run; 0
 * where nothing says so. */
uint64_t q2_anchors_from_before(const struct q2_anchors *anchors,
                                const struct q2_geometry *geometry, uint64_t index);
uint64_t q2_anchors_from_behind(const struct q2_anchors *anchors,
                                const struct q2_geometry *geometry, uint64_t index);

#endif
