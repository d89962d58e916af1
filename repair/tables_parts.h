/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the files of fix_tables share. */

#ifndef Q2_REPAIR_TABLES_PARTS_H
#define Q2_REPAIR_TABLES_PARTS_H

#include "repair/place.h"

/* Everything that one look at the tables of an image gathers. */
struct q2_tables {
    struct q2_scene *scene;
    struct q2_survey *survey;
    struct q2_slots *slots;
    struct q2_carving *carving;
    struct q2_placing placing;
};

int q2_tables_open(struct q2_scene *scene, struct q2_tables *ret_tables, struct q2_error *err);
void q2_tables_close(struct q2_tables *tables);

/* Where the active L1 table is not where the header says, or is lost altogether, make a lost one
 * that fits the active one again. The scene must be checked anew then. */
int q2_tables_restore_l1(struct q2_tables *tables, struct q2_error *err);

/* Damaged L1 entries that nothing explains: give slots that share a table one each, and clear
 * what leads nowhere. */
int q2_tables_settle_rest(struct q2_tables *tables, struct q2_error *err);

/* Answer what the checker finds at fault in an L1 entry. */
void q2_tables_answer_entry(struct q2_tables *tables, uint64_t at, uint64_t raw);

#endif
