/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The refcounts that the image records: reading them, and comparing them with the tally. */

#ifndef Q2_CHECKER_REFCOUNTS_H
#define Q2_CHECKER_REFCOUNTS_H

#include "checker/scan.h"

/* A reader of refcount blocks that keeps the part it read last. For one thread. */
struct q2_refcount_reader {
    struct q2_check *check;
    uint8_t *buffer;
    uint64_t first; /* cluster whose refcount is the first in the buffer */
    uint64_t count; /* refcounts in the buffer; 0: nothing there */
    bool zero;      /* there is no block, so all of these are 0 */
    int unknown;    /* they cannot be read: the error code, and Q2_ERR_FORMAT where the table entry
                     * does not even say where they are. They read as 0 then */
};

int q2_refcount_reader_init(struct q2_refcount_reader *reader, struct q2_check *check,
                            struct q2_error *err);
void q2_refcount_reader_destroy(struct q2_refcount_reader *reader);

/* Load the part of a block that has the refcount of `cluster`. */
void q2_refcount_load(struct q2_refcount_reader *reader, uint64_t cluster);

/* The refcount of a cluster; 0 where no usable block has it. */
uint64_t q2_refcount_of(struct q2_refcount_reader *reader, uint64_t cluster);

/* In check->refcount_table: an entry that does not say where its block is. */
#define Q2_REFCOUNT_BLOCK_UNKNOWN UINT64_C(1)

/* The offset of the block at `index` of the refcount table, 0 where there is none, or
 * Q2_REFCOUNT_BLOCK_UNKNOWN. */
uint64_t q2_refcount_block(const struct q2_check *check, uint64_t index);

/* Of 64 clusters from `cluster` on (a multiple of 64) whose refcounts are in the reader, those with
 * this refcount: bit i is cluster + i. */
uint64_t q2_refcounts_equal(const struct q2_refcount_reader *reader, uint64_t cluster,
                            uint64_t refcount);

/* The same for those whose refcount is not the number of their references, or contradicts a COPIED
 * flag. `chunk` is theirs in the tally, NULL for none. */
uint64_t q2_refcounts_contradict(const struct q2_refcount_reader *reader, uint64_t cluster,
                                 const struct q2_chunk *chunk);

/* What comparing the recorded refcounts with the tally needs to explain, as bit sets. */
struct q2_disagreement {
    uint64_t *blocks; /* of refcount table indexes; the last bit: chunks that no entry covers */
    uint64_t words;
    bool any;
};

/* Compare all refcounts with the tally, in parallel; only says where to look. */
int q2_refcounts_compare(struct q2_check *check, struct q2_disagreement *ret_disagreement,
                         struct q2_error *err);

/* Whether cluster `index` of the chunk has a COPIED flag that its recorded refcount contradicts. */
static inline bool
q2_copied_wrong(const struct q2_chunk *chunk, unsigned index, uint64_t refcount)
{
    return refcount == 1 ? q2_chunk_test(chunk->plain, index) : q2_chunk_test(chunk->copied, index);
}

#endif
