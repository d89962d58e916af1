/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the fixes of L2 entries share: a survey, a matcher, the table at hand, and the lost clusters
 * that have found their entry since the survey was taken. */

#ifndef Q2_REPAIR_ENTRIES_H
#define Q2_REPAIR_ENTRIES_H

#include "checker/refcounts.h"
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

/* A cluster that several suspects lead to, summed up: there may be millions of them. */
struct q2_sharing {
    uint64_t cluster;
    uint64_t first, end;          /* sharers: from the first to the last that is not gone */
    uint64_t keeper;              /* guest, bytes: who is to keep it, the first that fits */
    uint64_t first_fit, last_fit; /* guest, bytes: where any fits, the first and the last */
    bool fits;
    bool packed; /* some of the entries are compressed ones */
};

/* A range that a finding is about. */
struct q2_finding_range {
    enum q2_problem problem;
    uint64_t offset, end; /* host, bytes */
    uint64_t reach;       /* the largest `end` of the problem up to here */
};

struct q2_entries {
    struct q2_survey *survey;
    struct q2_sharer *sharers; /* by cluster, then guest, then suspect */
    uint64_t sharer_count, sharer_capacity;
    struct q2_sharing *sharings; /* by cluster */
    uint64_t sharing_count;
    struct q2_finding_range *ranges; /* by problem, then offset */
    uint64_t range_count, range_capacity;
    uint64_t *by_slot; /* indexes of survey->references, by slot */
    struct q2_refcount_reader reader;
    uint8_t *peers;     /* a cluster: a part of the table of another map */
    uint64_t peer_work; /* bytes read for peers so far */
    struct q2_matcher matcher;
    struct q2_table_view view;
    uint64_t *taken; /* a bit for each cluster */
    uint64_t lost;   /* clusters, when the survey was taken */
};

/* Whether the newest check found anything that suspect entries may be behind. */
bool q2_entries_wanted(const struct q2_scene *scene);

int q2_entries_init(struct q2_entries *entries, struct q2_scene *scene, struct q2_error *err);
void q2_entries_destroy(struct q2_entries *entries);

/* Those that share a cluster with others; NULL: nobody does. */
const struct q2_sharing *q2_entries_sharing(const struct q2_entries *entries, uint64_t cluster);

/* Whether the cluster of a suspect is still shared, by what was found so far. */
bool q2_entries_still_shared(const struct q2_entries *entries, const struct q2_suspect *suspect);

/* The clusters that another map has at the same guest offsets, from that of the suspect on for
 * `count` entries of its table, if they are counted more often than they are referred to: what
 * these entries may have led to as well. 0: there is none, or several, which *ret_unsure (may be
 * NULL) says; it is true too where there are too many tables to look into, or maps that have a
 * cluster there whose refcount is no evidence of another reference. */
void q2_entries_peers(struct q2_entries *entries, const struct q2_suspect *suspect, uint64_t count,
                      uint64_t *ret_clusters, bool *ret_unsure);

/* A part of q2_entries_init. */
int q2_entries_prepare_peers(struct q2_entries *entries, struct q2_error *err);

/* Whether a cluster was lost and is not any more. */
bool q2_entries_taken(const struct q2_entries *entries, uint64_t cluster);

/* Note in the action at hand which findings of the newest check are about this entry. */
void q2_entries_answer(struct q2_entries *entries, const struct q2_suspect *suspect);

/* The entry now is what `match` says. */
void q2_entries_settle(struct q2_entries *entries, const struct q2_suspect *suspect,
                       const struct q2_match *match);

#endif
