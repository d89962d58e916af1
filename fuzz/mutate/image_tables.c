/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Changes to whole structures: swapped, copied, moved, taken from another image, made. */

#include "fuzz/mutate/image.h"

#include "core/base/checked.h"
#include "core/format/entry.h"

#include <string.h>

bool
q2_change_part_swap(struct q2_mutator *mutator)
{
    const struct q2_part *a = q2_mutator_part(mutator, Q2_PART_COUNT);
    const struct q2_part *b = q2_mutator_part(mutator, a ? a->kind : Q2_PART_COUNT);
    if (!a || !b || a->offset == b->offset)
        return false;
    uint8_t *bytes = mutator->buffer->bytes;
    size_t length = q2_min(a->length, b->length);
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = bytes[a->offset + i];
        bytes[a->offset + i] = bytes[b->offset + i];
        bytes[b->offset + i] = byte;
    }
    return true;
}

bool
q2_change_part_copy(struct q2_mutator *mutator)
{
    const struct q2_part *from = q2_mutator_part(mutator, Q2_PART_COUNT);
    const struct q2_part *to = q2_mutator_part(mutator, Q2_PART_COUNT);
    if (!from || !to || from->offset == to->offset)
        return false;
    uint8_t *bytes = mutator->buffer->bytes;
    memmove(bytes + to->offset, bytes + from->offset, q2_min(from->length, to->length));
    return true;
}

bool
q2_change_part_splice(struct q2_mutator *mutator)
{
    static struct q2_layout layout, *other = &layout; /* large, and read anew each time */
    const struct q2_part *to = q2_mutator_part(mutator, Q2_PART_COUNT);
    const struct q2_fuzz_buffer *buffer = mutator->buffer;
    if (!to || buffer->other_length == 0)
        return false;
    q2_layout_read(other, buffer->other, buffer->other_length);
    if (other->count == 0)
        return false;
    for (int tries = 0; tries < 32; tries++) {
        const struct q2_part *from = &other->parts[q2_mutator_below(mutator, other->count)];
        if (from->kind != to->kind && tries < 24)
            continue;
        memcpy(mutator->buffer->bytes + to->offset, other->bytes + from->offset,
               q2_min(from->length, to->length));
        return true;
    }
    return false;
}

bool
q2_change_part_move(struct q2_mutator *mutator)
{
    const struct q2_part *part = q2_mutator_part(mutator, Q2_PART_COUNT);
    if (!part || part->at == 0)
        return false;
    uint64_t raw = q2_mutator_get(mutator, part->at, 8);
    if (raw & Q2_ENTRY_COMPRESSED)
        return false;
    size_t clusters = q2_units(part->length, mutator->layout.geometry.cluster_bits);
    size_t to = q2_mutator_clusters(mutator, clusters);
    if (to == 0)
        return false;
    memcpy(mutator->buffer->bytes + to, mutator->buffer->bytes + part->offset, part->length);
    /* The old one stays, to be found by those who look for lost tables. */
    q2_mutator_set(mutator, part->at, 8, (raw & ~Q2_ENTRY_OFFSET) | to);
    return true;
}

bool
q2_change_part_byte(struct q2_mutator *mutator)
{
    const struct q2_part *part = q2_mutator_part(mutator, Q2_PART_COUNT);
    if (!part)
        return false;
    static const unsigned widths[] = {1, 2, 4, 8};
    unsigned width = widths[q2_mutator_below(mutator, 4)];
    if (part->length < width)
        return false;
    size_t at = part->offset + q2_mutator_below(mutator, part->length - width + 1);
    q2_mutator_set(mutator, at, width,
                   q2_mutator_value(mutator, q2_mutator_get(mutator, at, width), width));
    return true;
}

/* Give an entry that says nothing a cluster, and that some content. */
bool
q2_change_map_more(struct q2_mutator *mutator)
{
    const struct q2_geometry *geometry = &mutator->layout.geometry;
    enum q2_part_kind kind = q2_mutator_below(mutator, 3) ? Q2_PART_L2 : Q2_PART_L1;
    const struct q2_part *part = q2_mutator_part(mutator, kind);
    unsigned step = kind == Q2_PART_L2 ? geometry->l2_entry_size : 8;
    if (!part || part->length < step || (kind == Q2_PART_L2 && geometry->data_file))
        return false;
    size_t at = part->offset + q2_mutator_below(mutator, part->length / step) * step;
    if (q2_entry_offset(q2_mutator_get(mutator, at, 8)))
        return false;
    const struct q2_part *like =
        q2_mutator_part(mutator, kind == Q2_PART_L1 ? Q2_PART_L2 : Q2_PART_DATA);
    size_t to = q2_mutator_clusters(mutator, 1);
    if (to == 0)
        return false;
    uint8_t *bytes = mutator->buffer->bytes;
    if (like && kind == Q2_PART_L1 && q2_mutator_below(mutator, 2))
        memcpy(bytes + to, bytes + like->offset, q2_min(like->length, geometry->cluster_size));
    else if (kind == Q2_PART_L2)
        memset(bytes + to, (int)q2_mutator_below(mutator, 256), geometry->cluster_size);
    q2_mutator_set(mutator, at, 8, to | Q2_ENTRY_COPIED);
    if (step == 16)
        q2_mutator_set(mutator, at + 8, 8, UINT32_MAX);
    return true;
}

/* Lose the first entries of a table, or all of it. */
bool
q2_change_unmap(struct q2_mutator *mutator)
{
    const struct q2_part *part = q2_mutator_part(mutator, Q2_PART_COUNT);
    if (!part || part->kind == Q2_PART_DATA)
        return false;
    size_t length = part->length;
    if (q2_mutator_below(mutator, 2))
        length = q2_min(length, (size_t)8 << q2_mutator_below(mutator, 8));
    memset(mutator->buffer->bytes + part->offset, 0, length);
    return true;
}
