/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Which bytes a repair touched, as ranges, and whether a guest may see any of it. */

#include "core/base/checked.h"
#include "core/io/overlay.h"
#include "repair/prove_parts.h"

#include <stdlib.h>

/* ---- ranges ---- */

int
q2_proof_ranges_add(struct q2_proof_ranges *ranges, uint64_t offset, uint64_t length,
                    struct q2_error *err)
{
    uint64_t end;
    if (length == 0)
        return 0;
    if (!q2_add(offset, length, &end))
        end = UINT64_MAX;
    struct q2_proof_range *last = ranges->count ? &ranges->items[ranges->count - 1] : NULL;
    if (last && offset >= last->offset && offset <= last->end) {
        last->end = q2_max(last->end, end);
        return 0;
    }
    if (ranges->count == ranges->capacity) {
        uint64_t larger = ranges->capacity ? ranges->capacity * 2 : 16;
        void *memory = ranges->items;
        int rc = q2_budget_grow(ranges->budget, ranges->capacity, larger, sizeof *ranges->items,
                                "the proof of a repair", &memory, err);
        if (rc < 0)
            return rc;
        ranges->items = memory;
        ranges->capacity = larger;
    }
    ranges->items[ranges->count++] = (struct q2_proof_range){.offset = offset, .end = end};
    return 0;
}

static int
compare_ranges(const void *left, const void *right)
{
    const struct q2_proof_range *a = left, *b = right;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

void
q2_proof_ranges_settle(struct q2_proof_ranges *ranges)
{
    uint64_t kept = 0;
    if (ranges->count == 0)
        return;
    qsort(ranges->items, ranges->count, sizeof *ranges->items, compare_ranges);
    for (uint64_t i = 1; i < ranges->count; i++) {
        if (ranges->items[i].offset <= ranges->items[kept].end)
            ranges->items[kept].end = q2_max(ranges->items[kept].end, ranges->items[i].end);
        else
            ranges->items[++kept] = ranges->items[i];
    }
    ranges->count = kept + 1;
}

void
q2_proof_ranges_destroy(struct q2_proof_ranges *ranges)
{
    if (ranges->budget)
        q2_budget_free(ranges->budget, ranges->items, ranges->capacity, sizeof *ranges->items);
    *ranges = (struct q2_proof_ranges){.budget = ranges->budget};
}

/* The first range that ends behind `offset`, as an index; the count where there is none. */
static uint64_t
find(const struct q2_proof_ranges *ranges, uint64_t offset)
{
    uint64_t low = 0, high = ranges->count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (ranges->items[middle].end > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

bool
q2_proof_ranges_touch(const struct q2_proof_ranges *ranges, uint64_t offset, uint64_t length)
{
    uint64_t i = find(ranges, offset);
    return length && i < ranges->count &&
           (ranges->items[i].offset <= offset || ranges->items[i].offset - offset < length);
}

uint64_t
q2_proof_ranges_until(const struct q2_proof_ranges *ranges, uint64_t offset)
{
    uint64_t i = find(ranges, offset);
    return i < ranges->count && ranges->items[i].offset <= offset ? ranges->items[i].end : offset;
}

uint64_t
q2_proof_ranges_next(const struct q2_proof_ranges *ranges, uint64_t offset)
{
    uint64_t i = find(ranges, offset);
    if (i < ranges->count && ranges->items[i].offset <= offset)
        i++;
    return i < ranges->count ? ranges->items[i].offset : UINT64_MAX;
}

/* ---- the edits ---- */

struct noting {
    struct q2_proof *proof;
    struct q2_error *err;
};

static int
note(const struct q2_edit *edit, void *data)
{
    struct noting *noting = data;
    return q2_proof_ranges_add(&noting->proof->edits, edit->offset, edit->length, noting->err);
}

static int
note_edits(struct q2_proof *proof, struct q2_error *err)
{
    uint64_t old_size, new_size;
    if (!q2_overlay_is_over(proof->file, proof->base))
        return q2_proof_ranges_add(&proof->edits, 0, UINT64_MAX, err);
    int rc = q2_file_size(proof->base, &old_size, err);
    if (rc == 0)
        rc = q2_file_size(proof->file, &new_size, err);
    if (rc == 0) {
        struct noting noting = {.proof = proof, .err = err};
        rc = q2_overlay_visit(proof->file, note, &noting);
        if (rc == Q2_ERR_NOMEM && err && err->code != Q2_ERR_NOMEM)
            q2_error_set(err, Q2_ERR_NOMEM, "no memory for the proof of a repair");
    }
    if (rc == 0 && new_size < old_size)
        rc = q2_proof_ranges_add(&proof->edits, new_size, old_size - new_size, err);
    return rc;
}

int
q2_proof_open(struct q2_proof *proof, struct q2_error *err)
{
    proof->edits = (struct q2_proof_ranges){.budget = proof->budget};
    proof->work.limit = 0;
    if (proof->before)
        proof->work.limit = proof->before->work.limit;
    if (proof->after)
        proof->work.limit = q2_max(proof->work.limit, proof->after->work.limit);
    int rc = note_edits(proof, err);
    q2_proof_ranges_settle(&proof->edits);
    return rc;
}

void
q2_proof_close(struct q2_proof *proof)
{
    q2_proof_ranges_destroy(&proof->edits);
}

/* ---- whether a guest may see them ---- */

int
q2_proof_structures(struct q2_proof *proof, struct q2_proof_ranges *known, struct q2_error *err)
{
    const struct q2_check *check = proof->before;
    uint64_t size = check->geometry.cluster_size;
    int rc = 0;
    for (uint64_t i = 0; i < check->region_count && rc == 0; i++) {
        const struct q2_region *region = &check->regions[i];
        uint64_t start = region->offset & ~(size - 1), end;
        /* The last cluster of a structure is its own to the end. */
        if (q2_add(region->offset, region->length, &end) && end <= UINT64_MAX - size)
            rc = q2_proof_ranges_add(known, start, ((end + size - 1) & ~(size - 1)) - start, err);
    }
    for (uint64_t i = 0; i < check->refcount_entries && rc == 0; i++) {
        uint64_t block = check->refcount_table[i];
        if (block > 1) /* Q2_REFCOUNT_BLOCK_UNKNOWN is 1 */
            rc = q2_proof_ranges_add(known, block, size, err);
    }
    q2_proof_ranges_settle(known);
    return rc;
}

static bool
cluster_matters(const struct q2_check *check, const struct q2_proof_ranges *known, uint64_t cluster)
{
    const struct q2_chunk *chunk = q2_tally_chunk(check->tally, cluster >> Q2_CHUNK_BITS);
    uint64_t references =
        chunk ? q2_chunk_references(chunk, (unsigned)(cluster % Q2_CHUNK_CLUSTERS)) : 0;
    if (references == 0)
        return false;
    return references > 1 ||
           !q2_proof_ranges_touch(known, cluster << check->geometry.cluster_bits, 1);
}

int
q2_proof_edits_matter(struct q2_proof *proof, bool *ret_matter, struct q2_error *err)
{
    const struct q2_check *check = proof->before;
    struct q2_proof_ranges known = {.budget = proof->budget};
    bool matter = !q2_references_complete(check);
    int rc = matter ? 0 : q2_proof_structures(proof, &known, err);
    unsigned bits = check->geometry.cluster_bits;
    for (uint64_t i = 0; i < proof->edits.count && rc == 0 && !matter; i++) {
        const struct q2_proof_range *edit = &proof->edits.items[i];
        uint64_t end = q2_min(q2_units(edit->end, bits), check->geometry.file_clusters);
        for (uint64_t c = edit->offset >> bits; c < end && !matter; c++)
            matter = cluster_matters(check, &known, c);
    }
    q2_proof_ranges_destroy(&known);
    if (rc == 0)
        *ret_matter = matter;
    return rc;
}
