/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Streams of compressed clusters, followed from one to the next: software packs those of a disk one
 * behind the other, and a stream says itself where it ends. */

#ifndef Q2_REPAIR_CHAINS_H
#define Q2_REPAIR_CHAINS_H

#include "repair/entries.h"

/* Where the stream of a compressed entry ends, host, bytes; 0: it is none, or does not decode. */
uint64_t q2_chain_end(struct q2_entries *entries, uint64_t raw);

/* Follow at most `count` streams from host offset `from` on; `raws` gets their entries, as software
 * makes them. They are to be those of the guest clusters from `guest` (bytes) on: the chain ends at
 * one that belongs to another. Returns how many there are, and where the last ends. */
uint64_t q2_chain_follow(struct q2_entries *entries, uint64_t from, uint64_t guest, uint64_t count,
                         uint64_t *raws, uint64_t *ret_end);

/* Whether the stream of entry `raw` begins at host offset `end`. */
bool q2_chain_meets(const struct q2_entries *entries, uint64_t raw, uint64_t end);

#endif
