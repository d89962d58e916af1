/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Headers on trial. What a header says cannot be judged from the header alone, but what it leads to
 * can: the right one leads to tables, and to refcounts that agree with them; a wrong one leads to
 * something else. A glance looks at the first bytes of each structure, and sorts out nearly all
 * candidates; those that are left have the whole image checked under them. */

#ifndef Q2_REPAIR_HEADER_TRY_H
#define Q2_REPAIR_HEADER_TRY_H

#include "core/codec/codec.h"
#include "core/format/header.h"
#include "repair/scene.h"

/* A header that might be the right one. */
struct q2_candidate {
    uint8_t bytes[Q2_HEADER_KNOWN_LENGTH];
    uint64_t flip_at;  /* of a byte behind these that differs, too: in a header extension */
    uint8_t flip_mask; /* its bits that do; 0: none */
    bool fresh;        /* nothing follows the header: an end marker is to be written there */
    uint64_t at;       /* of the first byte that differs from what is there, for the plan */
    bool one_bit;      /* that is all that differs from what it was made of */
    /* Of the glance. */
    uint64_t bad;    /* contradictions */
    uint64_t good;   /* what agrees */
    bool header_bad; /* the header itself breaks rules */
    /* Of the check. */
    bool tried;
    uint64_t faults;        /* findings of all kinds but those that say nothing of the header */
    uint64_t header_faults; /* of those, in the header and its extensions */
};

enum { Q2_TRIAL_VERDICTS = 32, Q2_TRIAL_PART = 4096, Q2_TRIAL_DECODERS = Q2_COMPRESSION_ZSTD + 1 };

struct q2_trial {
    struct q2_scene *scene;
    uint8_t *area; /* the first bytes of the file as they are now */
    uint64_t length;
    uint64_t capacity;
    uint64_t file_size;
    /* What a glance reads at once of a refcount block, of an L1 table, and of what else there is.
     */
    uint8_t block[Q2_TRIAL_PART], l1[Q2_TRIAL_PART], part[Q2_TRIAL_PART];
    struct q2_decoder *decoders[Q2_TRIAL_DECODERS]; /* made when first needed */
    struct q2_candidate verdict[Q2_TRIAL_VERDICTS]; /* the last that were checked */
    unsigned verdicts;                              /* all that were */
};

int q2_trial_init(struct q2_trial *trial, struct q2_scene *scene, struct q2_error *err);
void q2_trial_destroy(struct q2_trial *trial);

/* The header as it is, as a candidate. */
void q2_trial_identity(const struct q2_trial *trial, struct q2_candidate *ret_candidate);

/* Fill in the part of the glance. It ends early where there are more contradictions than `most`,
 * and then tells no more than that. */
void q2_trial_glance(struct q2_trial *trial, struct q2_candidate *candidate, uint64_t most);

/* Fill in the part of the check. A candidate that is no header at all has UINT64_MAX faults. What
 * was checked before is not checked again, unless the check itself is asked for: the overlay must
 * not change during a trial.
 * *ret_check, unless NULL, gets the check (NULL for such), for the caller to free; its file is gone
 * by then. */
int q2_trial_check(struct q2_trial *trial, struct q2_candidate *candidate,
                   struct q2_check **ret_check, struct q2_error *err);

/* Whether the first `length` bytes of a file are a header of version 3 in all but its version, 2.
 */
bool q2_header_in_disguise(const uint8_t *area, uint64_t length);

/* Whether `a` is better than `b`, by the check, or where that is even by the glance. */
bool q2_candidate_better(const struct q2_candidate *a, const struct q2_candidate *b);

#endif
