/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A map from block numbers to blocks of memory, for contents of up to 2^63 bytes of which little is
 * there: what memory files and overlays are made of.
 *
 * Each block number is in one of three states: absent, zero (known to be zeros, at no cost) or
 * backed by memory. It is a radix tree as high as the largest number needs, with a state in any
 * slot, so that a range of any length is marked in a handful of steps. Not thread-safe. */

#ifndef Q2_IO_SPARSE_H
#define Q2_IO_SPARSE_H

#include "core/base/budget.h"

#include <stdbool.h>

struct q2_sparse_node;

struct q2_sparse {
    struct q2_sparse_node *root;
    unsigned levels;          /* of nodes; 0: empty */
    size_t block_size;        /* bytes */
    uint64_t blocks;          /* how many are backed by memory */
    struct q2_budget *budget; /* where memory comes from; NULL: not counted */
    const char *name;         /* of the file, for messages; borrowed */
};

enum q2_sparse_state { Q2_SPARSE_ABSENT, Q2_SPARSE_ZERO, Q2_SPARSE_BACKED };

void q2_sparse_init(struct q2_sparse *sparse, size_t block_size, struct q2_budget *budget,
                    const char *name);
/* Make all absent; afterwards nothing is left to free. */
void q2_sparse_clear(struct q2_sparse *sparse);

/* The state of a block, and its memory (NULL unless backed). */
enum q2_sparse_state q2_sparse_find(const struct q2_sparse *sparse, uint64_t block,
                                    void **ret_memory);

/* The memory of a block, made and zeroed if it has none, and the state it was in before. */
int q2_sparse_make(struct q2_sparse *sparse, uint64_t block, void **ret_memory,
                   enum q2_sparse_state *ret_was, struct q2_error *err);

/* Make blocks [first, end) absent or zero, and free their memory. Fails for want of memory: always
 * before anything changes where all from `first` on becomes absent, else maybe half way. Where no
 * block was ever made zero, making blocks absent cannot fail. */
int q2_sparse_fill(struct q2_sparse *sparse, uint64_t first, uint64_t end,
                   enum q2_sparse_state state, struct q2_error *err);

/* Blocks [first, end), which are zero, or one block that is backed by memory. */
struct q2_sparse_run {
    uint64_t first;
    uint64_t end;
    void *memory; /* NULL: zero */
};

/* Find the first run at or after `block`. False: all from there on is absent. */
bool q2_sparse_next(const struct q2_sparse *sparse, uint64_t block, struct q2_sparse_run *ret_run);

#endif
