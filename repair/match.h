/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What an L2 entry that cannot be right may have been before it was damaged: entries a few bits
 * away that lead to lost clusters, and the lost cluster that goes on where the neighbours end. */

#ifndef Q2_REPAIR_MATCH_H
#define Q2_REPAIR_MATCH_H

#include "core/codec/codec.h"
#include "repair/survey.h"

enum { Q2_MATCHES_MAX = 16 };

struct q2_match {
    uint64_t raw;      /* the entry as it would be */
    uint64_t cluster;  /* the first that it leads to; 0: it maps nothing */
    unsigned distance; /* bits in which it differs from the entry as it is */
    bool exact; /* a compressed one, whose descriptor is as long as the stream and no longer */
};

struct q2_matches {
    struct q2_match items[Q2_MATCHES_MAX];
    size_t count; /* may exceed what is kept */
};

/* What matching needs again and again. */
struct q2_matcher {
    struct q2_survey *survey;
    struct q2_decoder *decoder; /* NULL where there are no compressed clusters */
    uint8_t *source;            /* room for two clusters and a sector */
    uint8_t *decoded;           /* one cluster */
    /* A cluster that counts as lost for the entry at hand, though something leads to it; 0: none.
     */
    uint64_t also;
};

int q2_matcher_init(struct q2_matcher *matcher, struct q2_survey *survey, struct q2_error *err);
void q2_matcher_destroy(struct q2_matcher *matcher);

/* Whether a compressed descriptor leads to a stream that decodes to exactly one cluster. *ret_used
 * is the length of the stream, bytes; may be NULL. */
bool q2_matcher_decodes(struct q2_matcher *matcher, uint64_t raw, size_t *ret_used);

/* Entries that differ from `raw` in exactly `distance` bits (0 to 2), obey the rules, and lead to
 * what is lost; of compressed clusters, to a stream that decodes. Where some of these are exact, as
 * software makes them, those that are longer than need be are left out. */
void q2_match_near(struct q2_matcher *matcher, const struct q2_suspect *suspect, unsigned distance,
                   struct q2_matches *ret_matches);

/* Whether a standard cluster at `cluster` could be what a lost entry led to. */
bool q2_match_lost(struct q2_matcher *matcher, uint64_t cluster);

/* Take a cluster from the lost ones: something leads to it again. */
void q2_match_take(struct q2_matcher *matcher, const struct q2_match *match);

#endif
