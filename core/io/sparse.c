/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A slot at height h stands for 64^h blocks: absent (NULL), all zero (the mark below), or what it
 * points to: at height 0 a block, above that a node of 64 slots. A bit per slot says which are not
 * absent, so that finding the next one is a count of trailing zeros. */

#include "core/io/sparse.h"

#include "core/base/bitset.h"
#include "core/base/checked.h"

#include <stdlib.h>

enum { SLOT_BITS = 6, SLOTS = 1 << SLOT_BITS };

struct q2_sparse_node {
    uint64_t present;
    void *slots[SLOTS];
};

static char zero_mark;

static enum q2_sparse_state
state_of(const void *slot)
{
    return !slot ? Q2_SPARSE_ABSENT : slot == &zero_mark ? Q2_SPARSE_ZERO : Q2_SPARSE_BACKED;
}

static unsigned
levels_for(uint64_t block)
{
    unsigned levels = 1;
    while (block >>= SLOT_BITS)
        levels++;
    return levels;
}

/* The last block of the slot at `height` that holds `block`. */
static uint64_t
slot_last(uint64_t block, unsigned height)
{
    unsigned bits = height * SLOT_BITS;
    return bits >= 64 ? UINT64_MAX : block | ((UINT64_C(1) << bits) - 1);
}

static unsigned
slot_index(uint64_t block, unsigned height)
{
    return (unsigned)(block >> (height * SLOT_BITS)) % SLOTS;
}

static void
set_slot(struct q2_sparse_node *node, unsigned index, void *slot)
{
    node->slots[index] = slot;
    if (slot)
        node->present |= UINT64_C(1) << index;
    else
        node->present &= ~(UINT64_C(1) << index);
}

static int
allocate(struct q2_sparse *sparse, size_t size, void **ret_memory, struct q2_error *err)
{
    if (sparse->budget)
        return q2_budget_calloc(sparse->budget, 1, size, sparse->name, ret_memory, err);
    void *memory = calloc(1, size);
    if (!memory)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for %zu bytes", sparse->name, size);
    *ret_memory = memory;
    return 0;
}

static void
release(struct q2_sparse *sparse, void *memory, size_t size)
{
    if (sparse->budget)
        q2_budget_free(sparse->budget, memory, 1, size);
    else
        free(memory);
}

static void
release_slot(struct q2_sparse *sparse, void *slot, unsigned height)
{
    if (!slot || slot == &zero_mark)
        return;
    if (height == 0) {
        release(sparse, slot, sparse->block_size);
        sparse->blocks--;
        return;
    }
    struct q2_sparse_node *node = slot;
    for (uint64_t left = node->present; left; left &= left - 1)
        release_slot(sparse, node->slots[__builtin_ctzll(left)], height - 1);
    release(sparse, node, sizeof *node);
}

void
q2_sparse_init(struct q2_sparse *sparse, size_t block_size, struct q2_budget *budget,
               const char *name)
{
    *sparse = (struct q2_sparse){.block_size = block_size, .budget = budget, .name = name};
}

void
q2_sparse_clear(struct q2_sparse *sparse)
{
    release_slot(sparse, sparse->root, sparse->levels);
    sparse->root = NULL;
    sparse->levels = 0;
}

enum q2_sparse_state
q2_sparse_find(const struct q2_sparse *sparse, uint64_t block, void **ret_memory)
{
    unsigned height = sparse->levels;
    void *slot = height && levels_for(block) <= height ? sparse->root : NULL;
    while (slot && slot != &zero_mark && height > 0) {
        height--;
        slot = ((struct q2_sparse_node *)slot)->slots[slot_index(block, height)];
    }
    *ret_memory = slot == &zero_mark ? NULL : slot;
    return state_of(slot);
}

/* Make the tree high enough for `block`: the old root becomes the first slot of the new one. */
static int
grow(struct q2_sparse *sparse, uint64_t block, struct q2_error *err)
{
    unsigned wanted = levels_for(block);
    while (sparse->levels < wanted) {
        void *memory;
        int rc = allocate(sparse, sizeof(struct q2_sparse_node), &memory, err);
        if (rc < 0)
            return rc;
        struct q2_sparse_node *above = memory;
        if (sparse->root)
            set_slot(above, 0, sparse->root);
        sparse->levels = sparse->root ? sparse->levels + 1 : wanted;
        sparse->root = above;
    }
    return 0;
}

/* The node in a slot, made if there is none; in place of a zero mark, one full of them. */
static int
child_of(struct q2_sparse *sparse, struct q2_sparse_node *node, unsigned index,
         struct q2_sparse_node **ret_child, struct q2_error *err)
{
    void *slot = node->slots[index];
    if (!slot || slot == &zero_mark) {
        void *memory;
        int rc = allocate(sparse, sizeof(struct q2_sparse_node), &memory, err);
        if (rc < 0)
            return rc;
        struct q2_sparse_node *child = memory;
        for (unsigned i = 0; slot && i < SLOTS; i++)
            set_slot(child, i, &zero_mark);
        set_slot(node, index, child);
    }
    *ret_child = node->slots[index];
    return 0;
}

int
q2_sparse_make(struct q2_sparse *sparse, uint64_t block, void **ret_memory,
               enum q2_sparse_state *ret_was, struct q2_error *err)
{
    int rc = grow(sparse, block, err);
    struct q2_sparse_node *node = sparse->root;
    for (unsigned height = sparse->levels; rc == 0 && height > 1; height--)
        rc = child_of(sparse, node, slot_index(block, height - 1), &node, err);
    if (rc < 0)
        return rc;

    unsigned index = slot_index(block, 0);
    void *memory = node->slots[index];
    enum q2_sparse_state was = state_of(memory);
    if (was != Q2_SPARSE_BACKED) {
        rc = allocate(sparse, sparse->block_size, &memory, err);
        if (rc < 0)
            return rc;
        set_slot(node, index, memory);
        sparse->blocks++;
    }
    *ret_was = was;
    *ret_memory = memory;
    return 0;
}

/* Fill [first, last] below a node whose slots stand for 64^height blocks. The leftmost slot comes
 * first, all the way down, so that memory is taken before anything changes as long as only the left
 * edge cuts a zero slot in two. */
static int
fill_node(struct q2_sparse *sparse, struct q2_sparse_node *node, unsigned height, uint64_t first,
          uint64_t last, enum q2_sparse_state state, struct q2_error *err)
{
    void *mark = state == Q2_SPARSE_ZERO ? &zero_mark : NULL;
    for (uint64_t at = first;;) {
        unsigned index = slot_index(at, height);
        uint64_t slot_end = slot_last(at, height), until = q2_min(slot_end, last);
        bool whole = until == slot_end && (at & slot_last(0, height)) == 0;
        void *slot = node->slots[index];
        if (whole || slot == mark) {
            release_slot(sparse, slot, height);
            set_slot(node, index, mark);
        } else {
            struct q2_sparse_node *child = NULL;
            int rc = child_of(sparse, node, index, &child, err);
            if (rc == 0)
                rc = fill_node(sparse, child, height - 1, at, until, state, err);
            if (rc < 0)
                return rc;
            if (!child->present) {
                release_slot(sparse, child, height);
                set_slot(node, index, NULL);
            }
        }
        if (until == last)
            return 0;
        at = until + 1;
    }
}

int
q2_sparse_fill(struct q2_sparse *sparse, uint64_t first, uint64_t end, enum q2_sparse_state state,
               struct q2_error *err)
{
    if (first >= end)
        return 0;
    uint64_t last = end - 1;
    if (state == Q2_SPARSE_ZERO) {
        int rc = grow(sparse, last, err);
        if (rc < 0)
            return rc;
    } else {
        if (!sparse->root || levels_for(first) > sparse->levels)
            return 0;
        last = q2_min(last, slot_last(0, sparse->levels));
    }
    return fill_node(sparse, sparse->root, sparse->levels - 1, first, last, state, err);
}

static bool
next_in_node(const struct q2_sparse_node *node, unsigned height, uint64_t block,
             struct q2_sparse_run *ret_run)
{
    unsigned index = slot_index(block, height);
    uint64_t left = node->present & q2_word_mask(index, SLOTS - index);
    for (; left; left &= left - 1) {
        unsigned found = (unsigned)__builtin_ctzll(left);
        void *slot = node->slots[found];
        /* The first block of the slot, or `block` itself if the slot holds it. */
        uint64_t first = block;
        if (found != index)
            first = (block & ~slot_last(0, height + 1)) + ((uint64_t)found << height * SLOT_BITS);
        if (slot == &zero_mark || height == 0) {
            *ret_run = (struct q2_sparse_run){
                .first = first,
                .end = slot_last(first, height) + 1,
                .memory = slot == &zero_mark ? NULL : slot,
            };
            return true;
        }
        if (next_in_node(slot, height - 1, first, ret_run))
            return true;
    }
    return false;
}

bool
q2_sparse_next(const struct q2_sparse *sparse, uint64_t block, struct q2_sparse_run *ret_run)
{
    if (!sparse->root || levels_for(block) > sparse->levels)
        return false;
    return next_in_node(sparse->root, sparse->levels - 1, block, ret_run);
}
