/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/image/refcount_bulk.h"

#include "core/image/strict.h"

#include <string.h>

/* Blocks that follow each other in the table and in the file are read and written at once, up to
 * this many bytes, or one block where that is more. */
enum { WINDOW_BYTES = 4 << 20 };

/* One pass over the refcount blocks that count what a tally counts. */
struct pass {
    struct q2_image *image;
    const struct q2_tally *tally;
    bool raise;
    bool write; /* otherwise only look whether it would go well */
    uint8_t *window;
    uint64_t freed; /* a run of clusters that became free, to be given back */
    uint64_t freed_count;
};

/* Host offset of block `index`, held against the rules; 0: there is none. */
static int
block_offset(struct q2_image *image, uint64_t index, uint64_t *ret_offset, struct q2_error *err)
{
    uint64_t raw = index < image->refcount_table_entries ? image->refcount_table[index] : 0;
    struct q2_strict strict;
    q2_strict_init(&strict, q2_image_name(image));
    bool usable =
        q2_refcount_entry_validate(&image->geometry, raw,
                                   image->header.refcount_table_offset + index * 8, &strict.sink);
    int rc = q2_strict_result(&strict, err);
    if (rc == 0)
        *ret_offset = usable ? raw & ~Q2_REFCOUNT_TABLE_RESERVED : 0;
    return rc;
}

/* ---- which blocks ---- */

/* Whether the tally counts a cluster of block `index`, as far as this chunk goes. */
static bool
chunk_touches(const struct pass *pass, const struct q2_chunk *chunk, uint64_t number,
              uint64_t index)
{
    unsigned bits = pass->image->geometry.refcount_block_bits;
    uint64_t base = number << Q2_CHUNK_BITS;
    uint64_t from = q2_max(index << bits, base);
    uint64_t to = q2_min((index + 1) << bits, base + Q2_CHUNK_CLUSTERS);
    return from < to && q2_bit_any(chunk->seen, from - base, to - from);
}

/* The first block from *index on that counts something of the tally. False: there is none. */
static bool
next_block(const struct pass *pass, uint64_t *index)
{
    unsigned bits = pass->image->geometry.refcount_block_bits;
    uint64_t number = *index << bits >> Q2_CHUNK_BITS;
    const struct q2_chunk *chunk;
    for (; (chunk = q2_tally_next(pass->tally, &number)); number++) {
        uint64_t base = number << Q2_CHUNK_BITS;
        uint64_t last = (base + Q2_CHUNK_CLUSTERS - 1) >> bits;
        for (uint64_t i = q2_max(*index, base >> bits); i <= last; i++)
            if (chunk_touches(pass, chunk, number, i)) {
                *index = i;
                return true;
            }
    }
    return false;
}

/* ---- one block ---- */

static int
refuse(const struct pass *pass, uint64_t cluster, uint64_t refcount, uint64_t references,
       struct q2_error *err)
{
    struct q2_image *image = pass->image;
    unsigned long long offset = cluster << image->geometry.cluster_bits;
    unsigned order = image->geometry.refcount_order;
    if (pass->raise)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "%s: the refcount of the cluster at 0x%llx cannot grow from %llu by "
                            "%llu: the maximum for %u bits is %llu",
                            q2_image_name(image), offset, (unsigned long long)refcount,
                            (unsigned long long)references, 1U << order,
                            (unsigned long long)q2_refcount_max(order));
    return q2_error_set(err, Q2_ERR_FORMAT,
                        "%s: the cluster at 0x%llx has refcount %llu, but %llu references to it "
                        "are to go",
                        q2_image_name(image), offset, (unsigned long long)refcount,
                        (unsigned long long)references);
}

/* Clusters of `mask` from `cluster` on have become free. */
static void
note_freed(struct pass *pass, uint64_t cluster, uint64_t mask)
{
    struct q2_image *image = pass->image;
    while (mask) {
        unsigned first = (unsigned)__builtin_ctzll(mask), count = q2_word_run(mask, first);
        image->free_hint = q2_min(image->free_hint, cluster + first);
        if (pass->freed_count && pass->freed + pass->freed_count == cluster + first) {
            pass->freed_count += count;
        } else {
            if (pass->freed_count)
                (void)q2_free_bytes(image, pass->freed, pass->freed_count, NULL);
            pass->freed = cluster + first;
            pass->freed_count = count;
        }
        mask &= ~q2_word_mask(first, count);
    }
}

/* 64 refcounts of 16 bits, all to change by the same number. False: one cannot, and none has.
 * *ret_freed: which became 0. */
static bool
change_all_16(uint8_t *at, uint64_t by, bool raise, bool write, uint64_t *ret_freed)
{
    uint16_t values[64];
    uint32_t bad = 0;
    uint64_t freed = 0;
    if (by > UINT16_MAX)
        return false;
    uint32_t step = (uint32_t)by;
    memcpy(values, at, sizeof values);
    for (unsigned i = 0; i < 64; i++) {
        uint32_t value = be16toh(values[i]);
        uint32_t changed = raise ? value + step : value - step;
        bad |= changed; /* a borrow fills the upper half as a carry does */
        values[i] = htobe16((uint16_t)changed);
    }
    if (bad >> 16)
        return false;
    if (!raise)
        for (unsigned i = 0; i < 64; i++)
            freed |= (uint64_t)(values[i] == 0) << i;
    if (write)
        memcpy(at, values, sizeof values);
    *ret_freed = freed;
    return true;
}

/* Refcounts [index, index + 64) of a block, those of `mask`; they belong to the clusters from
 * `cluster` on, which are word `word` of the chunk. */
static int
change_word(struct pass *pass, uint8_t *block, uint64_t index, const struct q2_chunk *chunk,
            unsigned word, uint64_t cluster, struct q2_error *err)
{
    unsigned order = pass->image->geometry.refcount_order;
    uint64_t mask = chunk->seen[word], freed = 0;
    bool done = order == 4 && mask == UINT64_MAX && !chunk->counts &&
                change_all_16(block + index * 2, chunk->uniform, pass->raise, pass->write, &freed);
    for (uint64_t left = done ? 0 : mask; left; left &= left - 1) {
        unsigned bit = (unsigned)__builtin_ctzll(left);
        uint64_t references = q2_chunk_references(chunk, word * 64 + bit);
        uint64_t value = q2_refcount_get(block, order, index + bit);
        if (pass->raise ? references > q2_refcount_max(order) - value : references > value)
            return refuse(pass, cluster + bit, value, references, err);
        value = pass->raise ? value + references : value - references;
        if (pass->write)
            q2_refcount_set(block, order, index + bit, value);
        freed |= (uint64_t)(value == 0) << bit;
    }
    if (pass->write && !pass->raise && freed)
        note_freed(pass, cluster, freed);
    return 0;
}

/* All refcounts of block `index`. Blocks have at least 64, so that no word of the tally is in two.
 */
static int
change_block(struct pass *pass, uint8_t *block, uint64_t index, struct q2_error *err)
{
    unsigned bits = pass->image->geometry.refcount_block_bits;
    uint64_t first = index << bits, end = (index + 1) << bits, number = first >> Q2_CHUNK_BITS;
    const struct q2_chunk *chunk;
    for (; (chunk = q2_tally_next(pass->tally, &number)); number++) {
        uint64_t base = number << Q2_CHUNK_BITS;
        if (base >= end)
            break;
        uint64_t from = q2_max(first, base), to = q2_min(end, base + Q2_CHUNK_CLUSTERS);
        for (uint64_t cluster = from; cluster < to; cluster += 64) {
            int rc = change_word(pass, block, cluster - first, chunk,
                                 (unsigned)(cluster - base) / 64, cluster, err);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

/* ---- all of them ---- */

/* How many blocks, from `index` on, all of them touched, follow each other in the file. */
static uint64_t
blocks_at_once(const struct pass *pass, uint64_t index, uint64_t offset)
{
    const struct q2_image *image = pass->image;
    uint64_t size = image->geometry.cluster_size, count = 1;
    uint64_t most = q2_max(WINDOW_BYTES / size, 1);
    while (count < most && index + count < image->refcount_table_entries &&
           image->refcount_table[index + count] == offset + count * size) {
        uint64_t next = index + count;
        if (!next_block(pass, &next) || next != index + count)
            break;
        count++;
    }
    return count;
}

static int
change_window(struct pass *pass, uint64_t index, uint64_t offset, uint64_t count,
              struct q2_error *err)
{
    uint64_t size = pass->image->geometry.cluster_size;
    int rc = 0;
    if (offset)
        rc = q2_meta_read(pass->image, offset, pass->window, count * size, err);
    else
        memset(pass->window, 0, size);
    for (uint64_t i = 0; i < count && rc == 0; i++)
        rc = change_block(pass, pass->window + i * size, index + i, err);
    if (rc == 0 && pass->write)
        rc = q2_meta_write(pass->image, Q2_CLAIM_REFCOUNT_BLOCK, offset, pass->window, count * size,
                           err);
    return rc;
}

static int
run_pass(struct pass *pass, struct q2_error *err)
{
    struct q2_image *image = pass->image;
    /* As much as there are blocks for, one at least. */
    uint64_t blocks = q2_max(image->refcount_blocks_end, 1), size = image->geometry.cluster_size;
    Q2_AUTOFREE uint8_t *window = malloc(q2_max(q2_min(WINDOW_BYTES, blocks * size), size));
    if (!window)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for refcount blocks");
    pass->window = window;
    int rc = 0;
    for (uint64_t index = 0, count; rc == 0 && next_block(pass, &index); index += count) {
        uint64_t offset;
        rc = block_offset(image, index, &offset, err);
        if (rc < 0)
            break;
        count = offset ? blocks_at_once(pass, index, offset) : 1;
        rc = change_window(pass, index, offset, count, err);
    }
    if (pass->freed_count)
        (void)q2_free_bytes(image, pass->freed, pass->freed_count, NULL);
    return rc;
}

int
q2_refcounts_check(struct q2_image *image, const struct q2_tally *tally, int sign,
                   struct q2_error *err)
{
    struct pass pass = {.image = image, .tally = tally, .raise = sign > 0};
    return run_pass(&pass, err);
}

/* Make the blocks that are missing, through the cache, and bring them to the disk. */
static int
make_blocks(struct pass *pass, struct q2_error *err)
{
    struct q2_image *image = pass->image;
    bool made = false;
    int rc = 0;
    for (uint64_t index = 0; rc == 0 && next_block(pass, &index); index++) {
        uint64_t offset;
        rc = block_offset(image, index, &offset, err);
        if (rc == 0 && !offset) {
            rc = q2_refcount_block_need(image, index << image->geometry.refcount_block_bits, err);
            made = true;
        }
    }
    return rc == 0 && made ? q2_image_settle(image, err) : rc;
}

int
q2_refcounts_apply(struct q2_image *image, const struct q2_tally *tally, int sign,
                   struct q2_error *err)
{
    struct pass pass = {.image = image, .tally = tally, .raise = sign > 0};
    int rc = run_pass(&pass, err);
    if (rc == 0 && pass.raise)
        rc = make_blocks(&pass, err);
    if (rc < 0)
        return rc;
    pass.write = true;
    rc = run_pass(&pass, err);
    q2_cache_forget_all(image->refcount_cache);
    return rc;
}

/* ---- whose refcount is 1 ---- */

/* Sets of bits, one for each block, made when asked for. All are dropped when they become many,
 * which takes a file of dozens of terabytes. */
enum { ONES_BYTES_MAX = 128 << 20 };

struct q2_ones {
    struct q2_image *image;
    uint64_t **sets; /* of refcount_table_entries blocks */
    uint64_t used;   /* bytes */
    uint8_t *block;
};

static void
drop_sets(struct q2_ones *ones)
{
    for (uint64_t i = 0; i < ones->image->refcount_table_entries; i++) {
        free(ones->sets[i]);
        ones->sets[i] = NULL;
    }
    ones->used = 0;
}

void
q2_ones_free(struct q2_ones *ones)
{
    if (!ones)
        return;
    drop_sets(ones);
    free(ones->sets);
    free(ones->block);
    free(ones);
}

int
q2_ones_new(struct q2_image *image, struct q2_ones **ret_ones, struct q2_error *err)
{
    struct q2_ones *ones = calloc(1, sizeof *ones);
    if (ones) {
        ones->image = image;
        ones->sets = calloc(image->refcount_table_entries + 1, sizeof *ones->sets);
        ones->block = malloc(image->geometry.cluster_size);
    }
    if (ones && ones->sets && ones->block) {
        *ret_ones = ones;
        return 0;
    }
    if (ones) {
        free(ones->sets);
        free(ones->block);
        free(ones);
    }
    return q2_error_set(err, Q2_ERR_NOMEM, "no memory for refcounts");
}

/* The set of block `index`; NULL where there is no block. */
static int
obtain_set(struct q2_ones *ones, uint64_t index, const uint64_t **ret_set, struct q2_error *err)
{
    const struct q2_geometry *geometry = &ones->image->geometry;
    uint64_t words = UINT64_C(1) << geometry->refcount_block_bits >> 6, offset;
    if (index < ones->image->refcount_table_entries && ones->sets[index]) {
        *ret_set = ones->sets[index];
        return 0;
    }
    int rc = block_offset(ones->image, index, &offset, err);
    if (rc < 0)
        return rc;
    if (!offset) {
        *ret_set = NULL;
        return 0;
    }
    if (ones->used + words * 8 > ONES_BYTES_MAX)
        drop_sets(ones);
    uint64_t *set = calloc(words, sizeof *set);
    if (!set)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for refcounts");
    ones->sets[index] = set;
    ones->used += words * 8;
    rc = q2_meta_read(ones->image, offset, ones->block, geometry->cluster_size, err);
    if (rc < 0) {
        free(set);
        ones->sets[index] = NULL;
        return rc;
    }
    for (uint64_t i = 0; i < words * 64; i++)
        set[i / 64] |= (uint64_t)(q2_refcount_get(ones->block, geometry->refcount_order, i) == 1)
                       << (i % 64);
    *ret_set = set;
    return 0;
}

int
q2_ones_run(struct q2_ones *ones, uint64_t cluster, uint64_t count, bool *ret_one,
            uint64_t *ret_run, struct q2_error *err)
{
    unsigned bits = ones->image->geometry.refcount_block_bits;
    uint64_t in_block = cluster & ((UINT64_C(1) << bits) - 1);
    uint64_t most = q2_min(count, (UINT64_C(1) << bits) - in_block), run = 0;
    const uint64_t *set;
    int rc = obtain_set(ones, cluster >> bits, &set, err);
    if (rc < 0)
        return rc;
    bool one = set && q2_bit_test(set, in_block);
    while (run < most) {
        uint64_t at = in_block + run;
        uint64_t word = set ? set[at / 64] : 0;
        unsigned same = q2_word_run(one ? word : ~word, at % 64);
        run += q2_min(same, 64 - at % 64);
        if (same < 64 - at % 64)
            break;
    }
    *ret_one = one;
    *ret_run = q2_min(run, most);
    return 0;
}
