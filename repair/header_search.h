/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The search for the header that an image should have: candidates are offered, the best few by a
 * glance are kept, and those have the image checked under them. The best one is the answer, and how
 * far the next is behind it says how sure that is. */

#ifndef Q2_REPAIR_HEADER_SEARCH_H
#define Q2_REPAIR_HEADER_SEARCH_H

#include "repair/header_try.h"

enum { Q2_SEARCH_KEPT = 12 };

struct q2_search {
    struct q2_trial *trial;
    struct q2_candidate base;                 /* what it is now */
    struct q2_candidate kept[Q2_SEARCH_KEPT]; /* best first */
    unsigned count;
};

/* `base`: what to be better than. */
void q2_search_init(struct q2_search *search, struct q2_trial *trial,
                    const struct q2_candidate *base);

/* Consider a candidate. It has to be better than the base, at a glance. */
void q2_search_offer(struct q2_search *search, const struct q2_candidate *candidate);

/* Offer everything that differs from the base in one bit, but for bits that tell of the image's
 * life (dirty, corrupt, compatible and most autoclear features), and in one field that has few
 * possible values. */
void q2_search_offer_flips(struct q2_search *search);

/* Check the image under those that were kept. Returns false where none is better than the base;
 * *ret_confidence is how sure the best is to be right. */
int q2_search_decide(struct q2_search *search, bool *ret_found, struct q2_candidate *ret_best,
                     enum q2_confidence *ret_confidence, struct q2_error *err);

/* The name of the header field at `offset`, or "a header extension". */
const char *q2_header_field_at(uint64_t offset);

#endif
