/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What an L2 entry that cannot be right may become. Private to fix_entries.c and choices.c. */

#ifndef Q2_REPAIR_CHOICES_H
#define Q2_REPAIR_CHOICES_H

#include "repair/anchors.h"
#include "repair/entries.h"
#include "repair/match.h"

/* What an entry is to become. */
struct q2_choice {
    enum q2_action_kind action;
    enum q2_confidence confidence;
    enum q2_change_kind change;
    struct q2_match match;
    const char *why;
};

/* The entry at hand, and what is known of it. */
struct q2_mender {
    struct q2_entries *entries;
    const struct q2_suspect *suspect;
    struct q2_anchors anchors;
    uint64_t from_before, from_behind; /* clusters; 0: nothing says so */
    uint64_t peer;                     /* what another map has here, and misses a reference */
    bool several_peers;                /* there may be more than one such cluster */
    struct q2_matches near;
    uint64_t *later; /* a bit for each suspect that is left for last */
    bool last;
    uint64_t left;  /* clusters that are lost still, at the last count */
    bool one_place; /* all suspects lead to one and the same cluster */
    struct {
        uint64_t at, first; /* of the run, and of the clusters that it was held against */
        bool fits;
    } run; /* what fits_exactly said last */
};

/* Whether the neighbours, or other maps, lead to this cluster here. */
bool q2_choice_agrees(const struct q2_mender *mender, uint64_t cluster);

/* Whether the neighbours meet at a lost cluster, and so speak against any other. */
bool q2_choice_neighbours_meet(const struct q2_mender *mender);

/* Whether a pointer is not damaged, but what it leads to was cut off: it goes on where its
 * neighbours end, or what it leads to was counted. */
bool q2_choice_was_cut_off(const struct q2_mender *mender);

/* The only entry one bit away that leads to what the neighbours, or other maps, have here. */
bool q2_choose_near_agreeing(const struct q2_mender *mender, struct q2_choice *ret_choice);

/* What the entry leads to by all readers, where only bits that nothing uses are wrong. */
bool q2_choose_as_read(const struct q2_mender *mender, struct q2_choice *ret_choice);

/* One of the entries that are one bit away. */
bool q2_choose_near(const struct q2_mender *mender, struct q2_choice *ret_choice);

/* The lost cluster that goes on from a neighbour. */
bool q2_choose_between(struct q2_mender *mender, struct q2_choice *ret_choice);

/* One cluster of the whole file is lost, and so it must be this one. */
bool q2_choose_only_lost(const struct q2_mender *mender, struct q2_choice *ret_choice);

/* What other maps have here, where it is counted once more than anything refers to it. */
bool q2_choose_peer(const struct q2_mender *mender, struct q2_choice *ret_choice);

/* Zeros, for what broke a rule and led to nothing that is left. */
bool q2_choose_gone(const struct q2_mender *mender, struct q2_choice *ret_choice);

/* With a data file, the one place where a cluster can be. */
bool q2_choose_external(const struct q2_mender *mender, struct q2_choice *ret_choice);

#endif
