/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/image/tally.h"

#include "core/base/checked.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Chunks hang in a radix tree of fixed depth: 8 levels of 6 bits and the chunk's own 12 reach 2^60
 * clusters, more than 64-bit offsets can name. Nodes are small, as a small image has one on each
 * level; they appear by compare-and-swap and stay. */
enum {
    NODE_BITS = 6,
    NODE_SLOTS = 1 << NODE_BITS,
    LEVELS = 8,
};

struct node {
    _Atomic(void *) slot[NODE_SLOTS]; /* nodes, and chunks at the lowest level */
};

struct q2_tally {
    struct q2_budget *budget;
    struct node *root;
    _Atomic uint64_t highest; /* number of any chunk */
};

static unsigned
slot_of(uint64_t number, unsigned level)
{
    return (unsigned)(number >> (level * NODE_BITS)) & (NODE_SLOTS - 1);
}

int
q2_tally_new(struct q2_budget *budget, struct q2_tally **ret_tally, struct q2_error *err)
{
    struct q2_tally *tally = calloc(1, sizeof *tally);
    if (!tally)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the reference tally");
    tally->budget = budget;
    void *root;
    int rc = q2_budget_calloc(budget, 1, sizeof(struct node), "reference tally", &root, err);
    if (rc < 0) {
        free(tally);
        return rc;
    }
    tally->root = root;
    *ret_tally = tally;
    return 0;
}

static void
free_set(struct q2_tally *tally, uint64_t *set)
{
    q2_budget_free(tally->budget, set, Q2_CHUNK_WORDS, sizeof *set);
}

static void
free_chunk(struct q2_tally *tally, struct q2_chunk *chunk)
{
    free_set(tally, chunk->plain);
    free_set(tally, chunk->overlap);
    free_set(tally, chunk->packed);
    free_set(tally, chunk->suspect);
    q2_budget_free(tally->budget, chunk->counts, Q2_CHUNK_CLUSTERS, chunk->count_bytes);
    pthread_mutex_destroy(&chunk->lock);
    q2_budget_free(tally->budget, chunk, 1, sizeof *chunk);
}

static void
free_node(struct q2_tally *tally, struct node *node, unsigned level)
{
    for (unsigned i = 0; i < NODE_SLOTS; i++) {
        void *below = atomic_load_explicit(&node->slot[i], memory_order_relaxed);
        if (below && level > 0)
            free_node(tally, below, level - 1);
        else if (below)
            free_chunk(tally, below);
    }
    q2_budget_free(tally->budget, node, 1, sizeof *node);
}

void
q2_tally_free(struct q2_tally *tally)
{
    if (!tally)
        return;
    free_node(tally, tally->root, LEVELS - 1);
    free(tally);
}

/* ---- finding and making chunks ---- */

/* What hangs in `slot`, made of `size` zeroed bytes if nothing does. */
static int
descend(struct q2_tally *tally, _Atomic(void *) *slot, size_t size, bool is_chunk, void **ret_below,
        struct q2_error *err)
{
    void *below = atomic_load_explicit(slot, memory_order_acquire);
    if (below) {
        *ret_below = below;
        return 0;
    }
    void *made;
    int rc = q2_budget_calloc(tally->budget, 1, size, "reference tally", &made, err);
    if (rc < 0)
        return rc;
    if (is_chunk)
        pthread_mutex_init(&((struct q2_chunk *)made)->lock, NULL);
    if (!atomic_compare_exchange_strong(slot, &below, made)) {
        /* Another thread was first. */
        q2_budget_free(tally->budget, made, 1, size);
        made = below;
    }
    *ret_below = made;
    return 0;
}

static int
obtain(struct q2_tally *tally, uint64_t number, struct q2_chunk **ret_chunk, struct q2_error *err)
{
    void *at = tally->root;
    for (unsigned level = LEVELS; level-- > 0;) {
        struct node *node = at;
        size_t size = level ? sizeof(struct node) : sizeof(struct q2_chunk);
        int rc = descend(tally, &node->slot[slot_of(number, level)], size, level == 0, &at, err);
        if (rc < 0)
            return rc;
    }
    uint64_t highest = atomic_load_explicit(&tally->highest, memory_order_relaxed);
    while (highest < number && !atomic_compare_exchange_weak(&tally->highest, &highest, number))
        ;
    *ret_chunk = at;
    return 0;
}

struct q2_chunk *
q2_tally_chunk(const struct q2_tally *tally, uint64_t number)
{
    void *at = tally->root;
    if (number >> (LEVELS * NODE_BITS))
        return NULL;
    for (unsigned level = LEVELS; at && level-- > 0;) {
        struct node *node = at;
        at = atomic_load_explicit(&node->slot[slot_of(number, level)], memory_order_acquire);
    }
    return at;
}

/* The first chunk at or after `*number` below `node`, whose first chunk is numbered `base`. */
static struct q2_chunk *
next_below(struct node *node, unsigned level, uint64_t base, uint64_t *number)
{
    unsigned shift = level * NODE_BITS;
    uint64_t from = *number > base ? (*number - base) >> shift : 0;
    for (uint64_t i = from; i < NODE_SLOTS; i++) {
        void *below = atomic_load_explicit(&node->slot[i], memory_order_acquire);
        uint64_t start = base + (i << shift);
        if (!below)
            continue;
        if (level == 0) {
            *number = start;
            return below;
        }
        struct q2_chunk *chunk = next_below(below, level - 1, start, number);
        if (chunk)
            return chunk;
    }
    return NULL;
}

struct q2_chunk *
q2_tally_next(const struct q2_tally *tally, uint64_t *number)
{
    if (*number > atomic_load_explicit(&tally->highest, memory_order_relaxed))
        return NULL;
    return next_below(tally->root, LEVELS - 1, 0, number);
}

/* ---- counting ---- */

void
q2_tally_cursor_init(struct q2_tally_cursor *cursor, struct q2_tally *tally)
{
    *cursor = (struct q2_tally_cursor){.tally = tally};
}

void
q2_tally_release(struct q2_tally_cursor *cursor)
{
    if (cursor->chunk)
        pthread_mutex_unlock(&cursor->chunk->lock);
    cursor->chunk = NULL;
}

static int
seek(struct q2_tally_cursor *cursor, uint64_t number, struct q2_error *err)
{
    if (cursor->chunk && cursor->number == number)
        return 0;
    q2_tally_release(cursor);
    struct q2_chunk *chunk;
    int rc = obtain(cursor->tally, number, &chunk, err);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&chunk->lock);
    cursor->chunk = chunk;
    cursor->number = number;
    return 0;
}

static uint64_t
count_at(const struct q2_chunk *chunk, unsigned index)
{
    switch (chunk->count_bytes) {
    case 1:
        return ((const uint8_t *)chunk->counts)[index];
    case 2:
        return ((const uint16_t *)chunk->counts)[index];
    case 4:
        return ((const uint32_t *)chunk->counts)[index];
    default:
        return ((const uint64_t *)chunk->counts)[index];
    }
}

static void
put_count(void *counts, unsigned bytes, unsigned index, uint64_t value)
{
    switch (bytes) {
    case 1:
        ((uint8_t *)counts)[index] = (uint8_t)value;
        break;
    case 2:
        ((uint16_t *)counts)[index] = (uint16_t)value;
        break;
    case 4:
        ((uint32_t *)counts)[index] = (uint32_t)value;
        break;
    default:
        ((uint64_t *)counts)[index] = value;
        break;
    }
}

uint64_t
q2_chunk_references(const struct q2_chunk *chunk, unsigned index)
{
    if (chunk->counts)
        return count_at(chunk, index);
    return q2_bit_test(chunk->seen, index) ? chunk->uniform : 0;
}

/* Count what has been seen so often as all of it has been. */
static void
spread(const struct q2_chunk *chunk, void *counts, unsigned bytes)
{
    for (unsigned word = 0; word < Q2_CHUNK_WORDS; word++)
        for (uint64_t left = chunk->seen[word]; left; left &= left - 1)
            put_count(counts, bytes, word * 64 + (unsigned)__builtin_ctzll(left), chunk->uniform);
}

/* Give the chunk counts wide enough for `value`. */
static int
widen(struct q2_tally *tally, struct q2_chunk *chunk, uint64_t value, struct q2_error *err)
{
    unsigned bytes = value <= UINT8_MAX ? 1 : value <= UINT16_MAX ? 2 : value <= UINT32_MAX ? 4 : 8;
    if (chunk->counts && bytes <= chunk->count_bytes)
        return 0;
    void *counts;
    int rc =
        q2_budget_calloc(tally->budget, Q2_CHUNK_CLUSTERS, bytes, "reference counts", &counts, err);
    if (rc < 0)
        return rc;
    if (chunk->counts)
        for (unsigned i = 0; i < Q2_CHUNK_CLUSTERS; i++)
            put_count(counts, bytes, i, count_at(chunk, i));
    else
        spread(chunk, counts, bytes);
    q2_budget_free(tally->budget, chunk->counts, Q2_CHUNK_CLUSTERS, chunk->count_bytes);
    chunk->counts = counts;
    chunk->count_bytes = bytes;
    return 0;
}

static int
add_counts(struct q2_tally *tally, struct q2_chunk *chunk, unsigned first, unsigned count,
           uint64_t references, struct q2_error *err)
{
    for (unsigned i = first; i < first + count; i++) {
        uint64_t sum;
        if (!q2_add(q2_chunk_references(chunk, i), references, &sum))
            sum = UINT64_MAX;
        /* Widen for what the chunk already holds as well: `uniform` may be the larger number. */
        int rc = widen(tally, chunk, q2_max(sum, chunk->counts ? 0 : chunk->uniform), err);
        if (rc < 0)
            return rc;
        put_count(chunk->counts, chunk->count_bytes, i, sum);
    }
    return 0;
}

static int
need_set(struct q2_tally *tally, uint64_t **set, struct q2_error *err)
{
    if (*set)
        return 0;
    void *memory;
    int rc = q2_budget_calloc(tally->budget, Q2_CHUNK_WORDS, sizeof **set, "reference tally",
                              &memory, err);
    if (rc == 0)
        *set = memory;
    return rc;
}

/* Set the bits of `mask` in one word of a set that may have to be made. */
static int
mark(struct q2_tally *tally, uint64_t **set, unsigned word, uint64_t mask, struct q2_error *err)
{
    if (!mask)
        return 0;
    int rc = need_set(tally, set, err);
    if (rc == 0)
        (*set)[word] |= mask;
    return rc;
}

static int
add_word(struct q2_tally *tally, struct q2_chunk *chunk, unsigned word, uint64_t mask,
         unsigned flags, struct q2_error *err)
{
    uint64_t clash = chunk->seen[word] & mask;
    if (flags & Q2_REFERENCE_PACKED)
        clash &= ~q2_chunk_word(chunk->packed, word);
    chunk->seen[word] |= mask;
    if (flags & Q2_REFERENCE_COPIED)
        chunk->copied[word] |= mask;

    int rc = mark(tally, &chunk->overlap, word, clash, err);
    if (rc == 0 && (flags & Q2_REFERENCE_PACKED))
        rc = mark(tally, &chunk->packed, word, mask, err);
    if (rc == 0 && (flags & Q2_REFERENCE_PLAIN))
        rc = mark(tally, &chunk->plain, word, mask, err);
    return rc;
}

/* Add to [first, first + count) of the chunk under the cursor. */
static int
add_inside(struct q2_tally_cursor *cursor, unsigned first, unsigned count, uint64_t references,
           unsigned flags, struct q2_error *err)
{
    struct q2_chunk *chunk = cursor->chunk;
    if (chunk->uniform == 0)
        chunk->uniform = references;
    if (chunk->counts || references != chunk->uniform || q2_bit_any(chunk->seen, first, count)) {
        int rc = add_counts(cursor->tally, chunk, first, count, references, err);
        if (rc < 0)
            return rc;
    }
    for (unsigned at = first; at < first + count;) {
        unsigned bit = at % 64, bits = (unsigned)q2_min(64 - bit, first + count - at);
        int rc = add_word(cursor->tally, chunk, at / 64, q2_word_mask(bit, bits), flags, err);
        if (rc < 0)
            return rc;
        at += bits;
    }
    return 0;
}

int
q2_tally_add(struct q2_tally_cursor *cursor, uint64_t first, uint64_t count, uint64_t references,
             unsigned flags, struct q2_error *err)
{
    while (count > 0) {
        unsigned index = (unsigned)(first & (Q2_CHUNK_CLUSTERS - 1));
        unsigned now = (unsigned)q2_min(count, Q2_CHUNK_CLUSTERS - index);
        int rc = seek(cursor, first >> Q2_CHUNK_BITS, err);
        if (rc == 0)
            rc = add_inside(cursor, index, now, references, flags, err);
        if (rc < 0)
            return rc;
        first += now;
        count -= now;
    }
    return 0;
}

int
q2_tally_suspect(struct q2_tally *tally, struct q2_chunk *chunk, unsigned word, uint64_t mask,
                 struct q2_error *err)
{
    return mark(tally, &chunk->suspect, word, mask, err);
}
