/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the files of the survey share. Private to survey*.c. */

#ifndef Q2_REPAIR_SURVEY_PARTS_H
#define Q2_REPAIR_SURVEY_PARTS_H

#include "repair/survey.h"

int q2_survey_grow(struct q2_survey *survey, void *array, uint64_t count, uint64_t *capacity,
                   size_t size, struct q2_error *err);

/* Keep a suspect. */
int q2_survey_suspect(struct q2_survey *survey, const struct q2_suspect *suspect,
                      struct q2_error *err);

/* Whether the check saw two owners of a cluster that have nothing to do with each other. */
bool q2_survey_overlaps(const struct q2_survey *survey, uint64_t cluster);

/* Read the L1 table of map `number`: its references, or suspects. */
int q2_survey_read_l1(struct q2_survey *survey, uint32_t number, struct q2_error *err);

/* Of references to the same table, find those that are not right; mark the tables. */
int q2_survey_judge_tables(struct q2_survey *survey, struct q2_error *err);

/* Mark as sound what sound entries of all tables refer to. */
int q2_survey_mark_entries(struct q2_survey *survey, struct q2_error *err);

/* Pick the suspects among them. */
int q2_survey_suspect_entries(struct q2_survey *survey, struct q2_error *err);

/* What an entry's own form says against it: enum q2_suspicion. */
unsigned q2_survey_entry_faults(const struct q2_geometry *geometry, const struct q2_l2_entry *entry,
                                uint64_t guest);

#endif
