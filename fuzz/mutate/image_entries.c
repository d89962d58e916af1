/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Changes to the entries of tables. */

#include "fuzz/mutate/image.h"

#include "core/base/checked.h"
#include "core/format/bitmap.h"
#include "core/format/entry.h"
#include "core/format/refcount.h"

/* An entry of 64 bits of some table, and the next one of the same. */
struct place {
    const struct q2_part *part;
    size_t at;    /* bytes */
    size_t other; /* of another entry of the same table, bytes */
    unsigned step;
};

static bool
find_entry(struct q2_mutator *mutator, struct place *ret_place)
{
    static const enum q2_part_kind kinds[] = {
        Q2_PART_L1,          Q2_PART_L2, Q2_PART_L2, Q2_PART_L2, Q2_PART_REFCOUNT_TABLE,
        Q2_PART_BITMAP_TABLE};
    enum q2_part_kind kind = kinds[q2_mutator_below(mutator, sizeof kinds / sizeof *kinds)];
    const struct q2_part *part = q2_mutator_part(mutator, kind);
    if (!part)
        return false;
    unsigned step = part->kind == Q2_PART_L2 ? mutator->layout.geometry.l2_entry_size : 8;
    size_t count = part->length / step;
    if (count == 0)
        return false;
    /* Entries that say something are of more interest; and they often stand in front. */
    size_t index = 0;
    for (int tries = 0; tries < 8; tries++) {
        index = q2_mutator_below(mutator, q2_mutator_below(mutator, 2) ? count : q2_min(count, 16));
        if (q2_mutator_get(mutator, part->offset + index * step, 8))
            break;
    }
    *ret_place = (struct place){
        .part = part,
        .at = part->offset + index * step,
        .other = part->offset + q2_mutator_below(mutator, count) * step,
        .step = step,
    };
    return true;
}

bool
q2_change_entry_flip(struct q2_mutator *mutator)
{
    struct place place;
    if (!find_entry(mutator, &place))
        return false;
    for (uint64_t bits = 1 + q2_mutator_below(mutator, 2); bits > 0; bits--)
        q2_mutator_set(mutator, place.at, 8,
                       q2_mutator_get(mutator, place.at, 8) ^ UINT64_C(1)
                                                                  << q2_mutator_below(mutator, 64));
    return true;
}

bool
q2_change_entry_retarget(struct q2_mutator *mutator)
{
    struct place place;
    if (!find_entry(mutator, &place))
        return false;
    uint64_t flags = q2_mutator_get(mutator, place.at, 8) & (Q2_ENTRY_COPIED | Q2_ENTRY_ZERO);
    q2_mutator_set(mutator, place.at, 8, q2_mutator_offset(mutator) | flags);
    return true;
}

bool
q2_change_entry_copy(struct q2_mutator *mutator)
{
    struct place place;
    if (!find_entry(mutator, &place))
        return false;
    for (unsigned i = 0; i < place.step; i += 8)
        q2_mutator_set(mutator, place.other + i, 8, q2_mutator_get(mutator, place.at + i, 8));
    return place.at != place.other;
}

bool
q2_change_entry_zero(struct q2_mutator *mutator)
{
    struct place place;
    if (!find_entry(mutator, &place) || q2_mutator_get(mutator, place.at, 8) == 0)
        return false;
    q2_mutator_set(mutator, place.at, 8, 0);
    return true;
}

bool
q2_change_entry_swap(struct q2_mutator *mutator)
{
    struct place place;
    if (!find_entry(mutator, &place))
        return false;
    for (unsigned i = 0; i < place.step; i += 8) {
        uint64_t one = q2_mutator_get(mutator, place.at + i, 8);
        q2_mutator_set(mutator, place.at + i, 8, q2_mutator_get(mutator, place.other + i, 8));
        q2_mutator_set(mutator, place.other + i, 8, one);
    }
    return place.at != place.other;
}

bool
q2_change_entry_flags(struct q2_mutator *mutator)
{
    static const uint64_t flags[] = {Q2_ENTRY_COPIED,  Q2_ENTRY_COPIED,  Q2_ENTRY_COMPRESSED,
                                     Q2_ENTRY_ZERO,    UINT64_C(1) << 8, UINT64_C(1) << 61,
                                     UINT64_C(1) << 56};
    struct place place;
    if (!find_entry(mutator, &place))
        return false;
    uint64_t flag = flags[q2_mutator_below(mutator, sizeof flags / sizeof *flags)];
    q2_mutator_set(mutator, place.at, 8, q2_mutator_get(mutator, place.at, 8) ^ flag);
    return true;
}

bool
q2_change_entry_value(struct q2_mutator *mutator)
{
    struct place place;
    if (!find_entry(mutator, &place))
        return false;
    q2_mutator_set(mutator, place.at, 8,
                   q2_mutator_value(mutator, q2_mutator_get(mutator, place.at, 8), 8));
    return true;
}

bool
q2_change_subclusters(struct q2_mutator *mutator)
{
    const struct q2_part *part = q2_mutator_part(mutator, Q2_PART_L2);
    if (!part || !mutator->layout.geometry.extended_l2 || part->length < 16)
        return false;
    size_t at = part->offset + 16 * q2_mutator_below(mutator, q2_min(part->length / 16, 16)) + 8;
    uint64_t bit = UINT64_C(1) << q2_mutator_below(mutator, 32), both = bit | bit << 32;
    uint64_t bitmap = q2_mutator_get(mutator, at, 8);
    const uint64_t values[] = {bitmap ^ bit, bitmap ^ bit << 32, bitmap ^ both, bitmap | both, 0,
                               UINT32_MAX,   UINT64_MAX << 32};
    q2_mutator_set(mutator, at, 8,
                   values[q2_mutator_below(mutator, sizeof values / sizeof *values)]);
    return true;
}

/* A compressed cluster's descriptor; 0: there is none. */
static size_t
find_compressed(struct q2_mutator *mutator)
{
    for (int tries = 0; tries < 16; tries++) {
        const struct q2_part *part = q2_mutator_part(mutator, Q2_PART_DATA);
        if (part && part->at && q2_mutator_get(mutator, part->at, 8) & Q2_ENTRY_COMPRESSED)
            return part->at;
    }
    return 0;
}

bool
q2_change_compressed(struct q2_mutator *mutator)
{
    const struct q2_geometry *geometry = &mutator->layout.geometry;
    size_t at = find_compressed(mutator);
    if (at == 0)
        return false;
    uint64_t raw = q2_mutator_get(mutator, at, 8);
    unsigned shift = 62 - (geometry->cluster_bits - 8);
    uint64_t offset = raw & ((UINT64_C(1) << shift) - 1);
    uint64_t sectors = (raw & ~Q2_ENTRY_COPIED & ~Q2_ENTRY_COMPRESSED) >> shift;
    switch (q2_mutator_below(mutator, 4)) {
    case 0:
        sectors = q2_mutator_value(mutator, sectors, 1);
        break;
    case 1:
        offset += q2_mutator_below(mutator, 1024) - 512;
        break;
    case 2:
        offset = q2_mutator_offset(mutator) + q2_mutator_below(mutator, 2);
        break;
    default:
        offset ^= UINT64_C(1) << q2_mutator_below(mutator, shift);
        break;
    }
    offset &= (UINT64_C(1) << shift) - 1;
    sectors &= (UINT64_C(1) << (62 - shift)) - 1;
    q2_mutator_set(mutator, at, 8, Q2_ENTRY_COMPRESSED | sectors << shift | offset);
    return true;
}

bool
q2_change_refcount(struct q2_mutator *mutator)
{
    const struct q2_part *part = q2_mutator_part(mutator, Q2_PART_REFCOUNT_BLOCK);
    unsigned order = mutator->layout.geometry.refcount_order;
    if (!part || part->length < 8)
        return false;
    uint64_t limit =
        q2_min((uint64_t)part->length * 8 >> order, mutator->layout.geometry.file_clusters + 4);
    uint64_t index = q2_mutator_below(mutator, q2_max(limit, 1));
    if ((index + 1) << order > (uint64_t)part->length * 8)
        return false;
    uint8_t *block = mutator->buffer->bytes + part->offset;
    uint64_t old = q2_refcount_get(block, order, index), most = q2_refcount_max(order);
    const uint64_t values[] = {
        0, 1, old + 1, old - 1, most, most - 1, q2_fuzz_random(mutator->random)};
    q2_refcount_set(block, order, index,
                    values[q2_mutator_below(mutator, sizeof values / sizeof *values)] & most);
    return true;
}
