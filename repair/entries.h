/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the fixes of L2 entries share: a survey, a matcher, the table at hand, and the lost clusters
 * that have found their entry since the survey was taken. */

#ifndef Q2_REPAIR_ENTRIES_H
#define Q2_REPAIR_ENTRIES_H

#include "repair/anchors.h"
#include "repair/match.h"

struct q2_entries {
    struct q2_survey *survey;
    struct q2_matcher matcher;
    struct q2_table_view view;
    uint64_t *taken; /* a bit for each cluster */
    bool any_lost;   /* when the survey was taken */
};

/* Whether the newest check found anything that suspect entries may be behind. */
bool q2_entries_wanted(const struct q2_scene *scene);

int q2_entries_init(struct q2_entries *entries, struct q2_scene *scene, struct q2_error *err);
void q2_entries_destroy(struct q2_entries *entries);

/* Whether a cluster was lost and is not any more. */
bool q2_entries_taken(const struct q2_entries *entries, uint64_t cluster);

/* Note in the action at hand which findings of the newest check are about this entry. */
void q2_entries_answer(struct q2_entries *entries, const struct q2_suspect *suspect);

/* The entry now is what `match` says. */
void q2_entries_settle(struct q2_entries *entries, const struct q2_suspect *suspect,
                       const struct q2_match *match);

#endif
