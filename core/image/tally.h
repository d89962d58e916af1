/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* How often each host cluster is referred to, at about two bits a cluster.
 *
 * The file is cut into chunks of 4096 clusters, which exist once something refers to them. As long
 * as all clusters of a chunk that are used at all are used equally often (once, in most images, or
 * once for each snapshot), a bitmap and that number say it all; a chunk where they differ widens to
 * 8, 16, 32 or 64 bits a cluster. Memory follows what is referred to, never what a header claims.
 *
 * Beside the number, a chunk remembers per cluster whether two different owners claim it, and
 * whether the active map refers to it with and without the COPIED flag. */

#ifndef Q2_IMAGE_TALLY_H
#define Q2_IMAGE_TALLY_H

#include "core/base/bitset.h"
#include "core/base/budget.h"

#include <pthread.h>
#include <stdbool.h>

enum {
    Q2_CHUNK_BITS = 12,
    Q2_CHUNK_CLUSTERS = 1 << Q2_CHUNK_BITS,
    Q2_CHUNK_WORDS = Q2_CHUNK_CLUSTERS / 64,
};

struct q2_chunk {
    pthread_mutex_t lock;
    uint64_t uniform; /* references of each seen cluster, while there are no counts */
    void *counts;     /* a number for each cluster, or NULL */
    unsigned count_bytes;
    uint64_t *plain; /* bit sets that few chunks need, or NULL */
    uint64_t *overlap;
    uint64_t *packed;
    uint64_t *suspect;
    uint64_t seen[Q2_CHUNK_WORDS];
    uint64_t copied[Q2_CHUNK_WORDS];
};

struct q2_tally;

enum q2_reference_flags {
    Q2_REFERENCE_COPIED = 1 << 0, /* from the active map, with the COPIED flag */
    Q2_REFERENCE_PLAIN = 1 << 1,  /* from the active map, without it */
    Q2_REFERENCE_PACKED =
        1 << 2, /* of a compressed cluster: may share its host cluster with others */
};

int q2_tally_new(struct q2_budget *budget, struct q2_tally **ret_tally, struct q2_error *err);
void q2_tally_free(struct q2_tally *tally);

/* A place in the tally that one thread adds at. It holds the lock of a chunk between calls, so a
 * thread has one cursor, and releases it before it waits for anything. */
struct q2_tally_cursor {
    struct q2_tally *tally;
    struct q2_chunk *chunk;
    uint64_t number; /* of the chunk */
};

void q2_tally_cursor_init(struct q2_tally_cursor *cursor, struct q2_tally *tally);
void q2_tally_release(struct q2_tally_cursor *cursor);

/* Add `references` to each of `count` clusters from `first` on. All references of one call have the
 * same owner; calls with clusters in common have different owners. */
int q2_tally_add(struct q2_tally_cursor *cursor, uint64_t first, uint64_t count,
                 uint64_t references, unsigned flags, struct q2_error *err);

/* ---- once all is added: no locks ---- */

/* The chunk with this number, or NULL where nothing refers to any of its clusters. */
struct q2_chunk *q2_tally_chunk(const struct q2_tally *tally, uint64_t number);

/* The first chunk numbered *number or above; *number becomes its number. NULL: none. */
struct q2_chunk *q2_tally_next(const struct q2_tally *tally, uint64_t *number);

/* References to cluster `index` of the chunk (0 to 4095). */
uint64_t q2_chunk_references(const struct q2_chunk *chunk, unsigned index);

/* Mark clusters to be explained: bit i of `mask` is cluster 64 * word + i of the chunk. */
int q2_tally_suspect(struct q2_tally *tally, struct q2_chunk *chunk, unsigned word, uint64_t mask,
                     struct q2_error *err);

static inline bool
q2_chunk_test(const uint64_t *set, unsigned index)
{
    return set && q2_bit_test(set, index);
}

static inline uint64_t
q2_chunk_word(const uint64_t *set, unsigned word)
{
    return set ? set[word] : 0;
}

#endif
