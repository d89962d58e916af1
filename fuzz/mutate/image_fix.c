/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Putting the counts right after a change, so that it is the change that is looked at, and not only
 * that the refcounts are wrong. What cannot be put right stays. */

#include "fuzz/mutate/image.h"

#include "core/base/checked.h"
#include "core/format/entry.h"
#include "core/format/refcount.h"

#include <string.h>

enum { MOST_CLUSTERS = 1 << 16 };

/* References of each cluster of the file. */
struct counts {
    uint32_t of[MOST_CLUSTERS];
    uint64_t clusters;
    unsigned bits;
};

static void
add(struct counts *counts, uint64_t offset, uint64_t length)
{
    uint64_t first = offset >> counts->bits, end = q2_units(offset + length, counts->bits);
    for (uint64_t i = first; i < q2_min(end, counts->clusters); i++)
        counts->of[i]++;
}

static void
count(struct counts *counts, const struct q2_layout *layout)
{
    memset(counts->of, 0, sizeof counts->of[0] * counts->clusters);
    for (size_t i = 0; i < layout->count; i++)
        add(counts, layout->parts[i].offset, layout->parts[i].length);
}

/* Every cluster of the file needs a place for its refcount; and so do the blocks made here. */
static bool
provide_blocks(struct q2_mutator *mutator)
{
    const struct q2_layout *layout = &mutator->layout;
    const struct q2_geometry *geometry = &layout->geometry;
    uint64_t table = layout->header.refcount_table_offset;
    uint64_t entries = (uint64_t)layout->header.refcount_table_clusters
                       << (geometry->cluster_bits - 3);
    bool made = false;
    for (uint64_t i = 0; i < entries && q2_range_inside(table + i * 8, 8, layout->length); i++) {
        size_t at = (size_t)(table + i * 8);
        uint64_t first = i << geometry->refcount_block_bits << geometry->cluster_bits;
        if (first >= mutator->buffer->length)
            break;
        uint64_t raw = q2_mutator_get(mutator, at, 8);
        if (raw && raw < layout->length && !(raw & (geometry->cluster_size - 1)))
            continue;
        size_t block = q2_mutator_clusters(mutator, 1);
        if (block == 0)
            break;
        q2_mutator_set(mutator, at, 8, block);
        made = true;
    }
    return made;
}

static void
set_refcounts(struct q2_mutator *mutator, const struct counts *counts)
{
    const struct q2_layout *layout = &mutator->layout;
    const struct q2_geometry *geometry = &layout->geometry;
    uint64_t most = q2_refcount_max(geometry->refcount_order);
    for (size_t i = 0; i < layout->count; i++) {
        const struct q2_part *part = &layout->parts[i];
        if (part->kind != Q2_PART_REFCOUNT_BLOCK || part->length < geometry->cluster_size)
            continue;
        uint64_t block = (part->at - layout->header.refcount_table_offset) / 8;
        uint64_t cluster = block << geometry->refcount_block_bits;
        for (uint64_t n = 0; n >> geometry->refcount_block_bits == 0; n++) {
            uint64_t value = cluster + n < counts->clusters ? counts->of[cluster + n] : 0;
            q2_refcount_set(mutator->buffer->bytes + part->offset, geometry->refcount_order, n,
                            q2_min(value, most));
        }
    }
}

static void
set_copied(struct q2_mutator *mutator, const struct counts *counts)
{
    const struct q2_layout *layout = &mutator->layout;
    for (size_t i = 0; i < layout->count; i++) {
        const struct q2_part *part = &layout->parts[i];
        if ((part->kind != Q2_PART_L2 && part->kind != Q2_PART_DATA) || !part->active)
            continue;
        uint64_t raw = q2_mutator_get(mutator, part->at, 8);
        bool alone = counts->of[part->offset >> counts->bits] == 1;
        bool packed = part->kind == Q2_PART_DATA && raw & Q2_ENTRY_COMPRESSED;
        raw &= ~Q2_ENTRY_COPIED;
        q2_mutator_set(mutator, part->at, 8, alone && !packed ? raw | Q2_ENTRY_COPIED : raw);
    }
}

void
q2_mutate_fix(struct q2_fuzz_buffer *buffer)
{
    static struct q2_mutator mutator;
    static struct counts counts;
    mutator.buffer = buffer;
    q2_layout_read(&mutator.layout, buffer->bytes, buffer->length);
    if (mutator.layout.count == 0)
        return;
    if (provide_blocks(&mutator))
        q2_layout_read(&mutator.layout, buffer->bytes, buffer->length);
    counts.clusters = mutator.layout.geometry.file_clusters;
    counts.bits = mutator.layout.geometry.cluster_bits;
    if (counts.clusters > MOST_CLUSTERS)
        return;
    count(&counts, &mutator.layout);
    set_refcounts(&mutator, &counts);
    set_copied(&mutator, &counts);
}
