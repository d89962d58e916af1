/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Blocks of 512 bytes, small because most edits are single entries of tables, with one bit per byte
 * that is edited. A block known to be zero is edited as a whole. */

#include "core/io/edits.h"

#include "core/base/bitset.h"
#include "core/base/checked.h"

#include <string.h>

enum { BLOCK_BITS = 9, BLOCK_SIZE = 1 << BLOCK_BITS };

struct block {
    uint64_t edited[BLOCK_SIZE / 64];
    uint8_t bytes[BLOCK_SIZE];
};

void
q2_edits_init(struct q2_edits *edits, struct q2_budget *budget, const char *name)
{
    q2_sparse_init(&edits->blocks, sizeof(struct block), budget, name);
}

void
q2_edits_clear(struct q2_edits *edits)
{
    q2_sparse_clear(&edits->blocks);
}

/* How many of `length` bytes at `offset` lie in the block of the first. */
static size_t
piece_at(uint64_t offset, uint64_t length)
{
    return (size_t)q2_min(length, BLOCK_SIZE - offset % BLOCK_SIZE);
}

/* The first byte in [from, BLOCK_SIZE) that is edited, or is not; BLOCK_SIZE if there is none. */
static size_t
next_byte(const struct block *block, size_t from, bool edited)
{
    while (from < BLOCK_SIZE) {
        uint64_t word = block->edited[from / 64];
        word = (edited ? word : ~word) & UINT64_MAX << from % 64;
        if (word)
            return from / 64 * 64 + (size_t)__builtin_ctzll(word);
        from = from / 64 * 64 + 64;
    }
    return BLOCK_SIZE;
}

static void
mark_bytes(struct block *block, size_t from, size_t end, bool edited)
{
    while (from < end) {
        size_t until = (size_t)q2_min(end, from / 64 * 64 + 64);
        uint64_t mask = q2_word_mask((unsigned)(from % 64), (unsigned)(until - from));
        if (edited)
            block->edited[from / 64] |= mask;
        else
            block->edited[from / 64] &= ~mask;
        from = until;
    }
}

static int
block_make(struct q2_edits *edits, uint64_t index, struct block **ret_block, struct q2_error *err)
{
    void *memory;
    enum q2_sparse_state was;
    int rc = q2_sparse_make(&edits->blocks, index, &memory, &was, err);
    if (rc < 0)
        return rc;
    if (was == Q2_SPARSE_ZERO)
        mark_bytes(memory, 0, BLOCK_SIZE, true);
    *ret_block = memory;
    return 0;
}

/* Edit bytes inside one block; NULL for zeros. */
static int
edit_block(struct q2_edits *edits, uint64_t offset, const uint8_t *from, size_t length,
           struct q2_error *err)
{
    struct block *block;
    int rc = block_make(edits, offset >> BLOCK_BITS, &block, err);
    if (rc < 0)
        return rc;
    size_t start = offset % BLOCK_SIZE;
    if (from)
        memcpy(block->bytes + start, from, length);
    else
        memset(block->bytes + start, 0, length);
    mark_bytes(block, start, start + length, true);
    return 0;
}

int
q2_edits_write(struct q2_edits *edits, uint64_t offset, const uint8_t *bytes, size_t length,
               uint64_t *reached, struct q2_error *err)
{
    while (length) {
        size_t piece = piece_at(offset, length);
        int rc = edit_block(edits, offset, bytes, piece, err);
        if (rc < 0)
            return rc;
        offset += piece;
        bytes += piece;
        length -= piece;
        *reached = q2_max(*reached, offset);
    }
    return 0;
}

int
q2_edits_zero(struct q2_edits *edits, uint64_t offset, uint64_t end, struct q2_error *err)
{
    int rc = 0;
    if (offset < end && offset % BLOCK_SIZE) {
        size_t piece = piece_at(offset, end - offset);
        rc = edit_block(edits, offset, NULL, piece, err);
        offset += piece;
    }
    if (rc == 0 && offset < end && end % BLOCK_SIZE) {
        rc = edit_block(edits, end - end % BLOCK_SIZE, NULL, end % BLOCK_SIZE, err);
        end -= end % BLOCK_SIZE;
    }
    if (rc == 0 && offset < end)
        rc = q2_sparse_fill(&edits->blocks, offset >> BLOCK_BITS, end >> BLOCK_BITS, Q2_SPARSE_ZERO,
                            err);
    return rc;
}

int
q2_edits_cut(struct q2_edits *edits, uint64_t offset, struct q2_error *err)
{
    int rc = q2_sparse_fill(&edits->blocks, q2_units(offset, BLOCK_BITS),
                            q2_units(Q2_FILE_SIZE_MAX, BLOCK_BITS), Q2_SPARSE_ABSENT, err);
    if (rc < 0)
        return rc;
    void *memory;
    if (q2_sparse_find(&edits->blocks, offset >> BLOCK_BITS, &memory) == Q2_SPARSE_BACKED)
        mark_bytes(memory, offset % BLOCK_SIZE, BLOCK_SIZE, false);
    return 0;
}

static void
apply_block(const struct block *block, uint64_t offset, uint8_t *to, size_t length)
{
    size_t start = offset % BLOCK_SIZE, end = start + length;
    size_t from = next_byte(block, start, true);
    while (from < end) {
        size_t until = (size_t)q2_min(next_byte(block, from, false), end);
        memcpy(to + (from - start), block->bytes + from, until - from);
        from = next_byte(block, until, true);
    }
}

void
q2_edits_apply(const struct q2_edits *edits, uint64_t offset, uint8_t *to, size_t length)
{
    struct q2_sparse_run run;
    uint64_t at = offset, end = offset + length;
    while (at < end && q2_sparse_next(&edits->blocks, at >> BLOCK_BITS, &run)) {
        at = q2_max(at, run.first << BLOCK_BITS);
        uint64_t until = q2_min(end, run.end << BLOCK_BITS);
        if (at >= until)
            return;
        if (run.memory)
            apply_block(run.memory, at, to + (at - offset), (size_t)(until - at));
        else
            memset(to + (at - offset), 0, (size_t)(until - at));
        at = until;
    }
}

bool
q2_edits_cover(const struct q2_edits *edits, uint64_t offset, uint64_t end, uint64_t *ret_until)
{
    struct q2_sparse_run run;
    uint64_t index = offset >> BLOCK_BITS;
    bool any = q2_sparse_next(&edits->blocks, index, &run);
    if (!any || run.first != index) {
        *ret_until = any ? q2_min(end, run.first << BLOCK_BITS) : end;
        return false;
    }
    uint64_t until = q2_min(end, run.end << BLOCK_BITS);
    *ret_until = until;
    if (!run.memory)
        return true;
    size_t start = offset % BLOCK_SIZE;
    return next_byte(run.memory, start, false) >= start + (until - offset);
}

enum q2_sparse_state
q2_edits_extent(const struct q2_edits *edits, uint64_t offset, uint64_t *ret_end)
{
    struct q2_sparse_run run;
    uint64_t index = offset >> BLOCK_BITS;
    bool any = q2_sparse_next(&edits->blocks, index, &run);
    if (!any || run.first != index) {
        *ret_end = any ? run.first << BLOCK_BITS : UINT64_MAX;
        return Q2_SPARSE_ABSENT;
    }
    enum q2_sparse_state state = run.memory ? Q2_SPARSE_BACKED : Q2_SPARSE_ZERO;
    uint64_t end = run.end;
    while (q2_sparse_next(&edits->blocks, end, &run) && run.first == end &&
           !run.memory == (state == Q2_SPARSE_ZERO))
        end = run.end;
    *ret_end = end << BLOCK_BITS;
    return state;
}

bool
q2_edits_next(const struct q2_edits *edits, uint64_t offset, struct q2_edit *ret_edit)
{
    struct q2_sparse_run run;
    while (q2_sparse_next(&edits->blocks, offset >> BLOCK_BITS, &run)) {
        uint64_t block = run.first << BLOCK_BITS, end = run.end << BLOCK_BITS;
        uint64_t from = q2_max(offset, block);
        const uint8_t *bytes = NULL;
        if (run.memory) {
            const struct block *memory = run.memory;
            size_t first = next_byte(memory, (size_t)(from - block), true);
            end = block + next_byte(memory, first, false);
            from = block + first;
            bytes = memory->bytes + first;
        }
        if (from < end) {
            *ret_edit = (struct q2_edit){.offset = from, .length = end - from, .bytes = bytes};
            return true;
        }
        offset = run.end << BLOCK_BITS;
    }
    return false;
}
