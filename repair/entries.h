/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the fixes of L2 entries share: a survey, a matcher, the table at hand, and the lost clusters
 * that have found their entry since the survey was taken. */

#ifndef Q2_REPAIR_ENTRIES_H
#define Q2_REPAIR_ENTRIES_H

#include "repair/anchors.h"
#include "repair/match.h"

/* A suspect that shares its cluster. */
struct q2_sharer {
    uint64_t cluster;
    uint64_t guest; /* bytes */
    uint64_t suspect;
    bool fits; /* the cluster is where the neighbours of the entry say */
    bool gone; /* the entry leads elsewhere now */
};

struct q2_entries {
    struct q2_survey *survey;
    struct q2_sharer *sharers; /* by cluster, then guest */
    uint64_t sharer_count, sharer_capacity;
    uint64_t *by_slot; /* indexes of survey->references, by slot */
    struct q2_matcher matcher;
    struct q2_table_view view;
    uint64_t *taken; /* a bit for each cluster */
    uint64_t lost;   /* clusters, when the survey was taken; counted up to 2 */
};

/* Whether the newest check found anything that suspect entries may be behind. */
bool q2_entries_wanted(const struct q2_scene *scene);

int q2_entries_init(struct q2_entries *entries, struct q2_scene *scene, struct q2_error *err);
void q2_entries_destroy(struct q2_entries *entries);

/* Those that share a cluster with others: *ret_count from the result on. */
const struct q2_sharer *q2_entries_sharers(const struct q2_entries *entries, uint64_t cluster,
                                           uint64_t *ret_count);

/* Whether the cluster of a suspect is still shared, by what was found so far. */
bool q2_entries_still_shared(const struct q2_entries *entries, const struct q2_suspect *suspect);

/* The cluster that another map has at the same guest offset, if it is counted more often than it is
 * referred to: what this entry may have led to as well. 0: there is none, or several. */
uint64_t q2_entries_peer(struct q2_entries *entries, const struct q2_suspect *suspect);

/* Whether a cluster was lost and is not any more. */
bool q2_entries_taken(const struct q2_entries *entries, uint64_t cluster);

/* Note in the action at hand which findings of the newest check are about this entry. */
void q2_entries_answer(struct q2_entries *entries, const struct q2_suspect *suspect);

/* The entry now is what `match` says. */
void q2_entries_settle(struct q2_entries *entries, const struct q2_suspect *suspect,
                       const struct q2_match *match);

#endif
