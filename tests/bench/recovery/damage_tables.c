/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Damage to L1 and L2 tables, entry by entry and as a whole. */

#include "tests/bench/recovery/damage.h"

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/format/entry.h"

/* ---- flags ---- */

bool
copied_flags(struct hit *hit)
{
    uint64_t entry = hit_l1_entry(hit, false);
    if (entry && random_below(&hit->random, 2))
        hit_flip(hit, entry, 63);
    for (uint64_t n = 1 + random_below(&hit->random, 6); n; n--) {
        const struct slot *slot = hit_slot(hit, false);
        if (slot)
            hit_flip(hit, slot->at, 63);
    }
    return hit->what[0] != 0;
}

bool
reserved_bits(struct hit *hit)
{
    uint64_t entry = hit_l1_entry(hit, false);
    if (entry && random_below(&hit->random, 2))
        hit_flip(hit, entry, 56 + (unsigned)random_below(&hit->random, 6));
    for (uint64_t n = 1 + random_below(&hit->random, 4); n; n--) {
        const struct slot *slot = hit_slot(hit, false);
        unsigned bit = (unsigned)random_below(&hit->random, 13);
        if (slot)
            hit_flip(hit, slot->at, bit < 6 ? 56 + bit : bit - 5);
    }
    return hit->what[0] != 0;
}

bool
subcluster_bits(struct hit *hit)
{
    const struct slot *slot = hit_slot(hit, false);
    if (!slot || !hit->subject->geometry.extended_l2)
        return false;
    /* Zero and allocated at once. */
    uint64_t bitmap = hit_get64(hit, slot->at + 8), allocated = bitmap & UINT32_MAX;
    unsigned bit = (unsigned)random_below(&hit->random, 32);
    hit_put64(hit, slot->at + 8, bitmap | (allocated & UINT64_C(1) << bit) << 32 | allocated << 32);
    return true;
}

/* ---- L2 entries ---- */

static bool
flip_offset_bit(struct hit *hit)
{
    const struct slot *slot = hit_slot(hit, false);
    if (!slot)
        return false;
    unsigned low = hit->subject->geometry.cluster_bits;
    hit_flip(hit, slot->at, low + (unsigned)random_below(&hit->random, 56 - low));
    return true;
}

bool
l2_entry_flip(struct hit *hit)
{
    return flip_offset_bit(hit);
}

bool
l2_entries_flip(struct hit *hit)
{
    bool done = false;
    for (uint64_t n = 2 + random_below(&hit->random, 6); n; n--)
        done = flip_offset_bit(hit);
    return done;
}

bool
l2_entry_past_end(struct hit *hit)
{
    const struct slot *slot = hit_slot(hit, false);
    const struct q2_geometry *geometry = &hit->subject->geometry;
    if (!slot)
        return false;
    uint64_t past = (geometry->file_clusters + 10 + random_below(&hit->random, 1 << 20))
                    << geometry->cluster_bits;
    hit_put64(hit, slot->at, (slot->raw & Q2_ENTRY_COPIED) | past);
    return true;
}

bool
l2_entry_unaligned(struct hit *hit)
{
    const struct slot *slot = hit_slot(hit, false);
    unsigned bits = hit->subject->geometry.cluster_bits;
    if (!slot || bits == 9)
        return false;
    hit_flip(hit, slot->at, 9 + (unsigned)random_below(&hit->random, bits - 9));
    return true;
}

bool
l2_entry_at_metadata(struct hit *hit)
{
    const struct slot *slot = hit_slot(hit, false);
    const struct subject *subject = hit->subject;
    if (!slot)
        return false;
    const struct place *place = &subject->places[random_below(&hit->random, subject->place_count)];
    uint64_t to = place->offset & ~(subject->geometry.cluster_size - 1);
    if (to == 0)
        to = subject->header.l1_table_offset;
    hit_put64(hit, slot->at, (slot->raw & Q2_ENTRY_COPIED) | to);
    return true;
}

bool
l2_entry_doubled(struct hit *hit)
{
    const struct slot *one = hit_slot(hit, false), *other = hit_slot(hit, false);
    if (!one || !other || q2_entry_offset(one->raw) == q2_entry_offset(other->raw))
        return false;
    hit_put64(hit, one->at, other->raw);
    return true;
}

bool
l2_entry_zeroed(struct hit *hit)
{
    const struct slot *slot = hit_slot(hit, random_below(&hit->random, 2));
    if (!slot)
        return false;
    hit_put64(hit, slot->at, 0);
    return true;
}

bool
l2_entry_random(struct hit *hit)
{
    const struct slot *slot = hit_slot(hit, false);
    if (!slot)
        return false;
    hit_put64(hit, slot->at, random_next(&hit->random));
    return true;
}

/* ---- compressed clusters ---- */

bool
compressed_length(struct hit *hit)
{
    const struct slot *slot = hit_slot(hit, true);
    if (!slot)
        return false;
    unsigned bits = hit->subject->geometry.cluster_bits, low = 62 - (bits - 8);
    hit_flip(hit, slot->at, low + (unsigned)random_below(&hit->random, bits - 8));
    return true;
}

bool
compressed_offset(struct hit *hit)
{
    const struct slot *slot = hit_slot(hit, true);
    if (!slot)
        return false;
    hit_flip(hit, slot->at, (unsigned)random_below(&hit->random, 26));
    return true;
}

bool
compressed_past_end(struct hit *hit)
{
    const struct slot *slot = hit_slot(hit, true);
    if (!slot)
        return false;
    unsigned low = 62 - (hit->subject->geometry.cluster_bits - 8);
    hit_flip(hit, slot->at, 28 + (unsigned)random_below(&hit->random, low - 28));
    return true;
}

/* ---- L1 entries ---- */

bool
l1_entry_zeroed(struct hit *hit)
{
    uint64_t at = hit_l1_entry(hit, false);
    if (at)
        hit_put64(hit, at, 0);
    return at != 0;
}

/* What other software makes of an entry that it clears without its flag. */
bool
l1_entry_offset_zeroed(struct hit *hit)
{
    uint64_t entry = hit_l1_entry(hit, false);
    if (entry)
        hit_put64(hit, entry, hit_get64(hit, entry) & Q2_ENTRY_COPIED);
    return entry != 0;
}

bool
l1_entry_flip(struct hit *hit)
{
    uint64_t at = hit_l1_entry(hit, false);
    unsigned low = hit->subject->geometry.cluster_bits;
    if (at)
        hit_flip(hit, at, low + (unsigned)random_below(&hit->random, 56 - low));
    return at != 0;
}

bool
l1_entry_past_end(struct hit *hit)
{
    uint64_t at = hit_l1_entry(hit, false);
    const struct q2_geometry *geometry = &hit->subject->geometry;
    if (at)
        hit_put64(hit, at,
                  Q2_ENTRY_COPIED |
                      (geometry->file_clusters + 3 + random_below(&hit->random, 1 << 20))
                          << geometry->cluster_bits);
    return at != 0;
}

bool
l1_entry_unaligned(struct hit *hit)
{
    uint64_t at = hit_l1_entry(hit, false);
    unsigned bits = hit->subject->geometry.cluster_bits;
    if (!at || bits == 9)
        return false;
    hit_flip(hit, at, 9 + (unsigned)random_below(&hit->random, bits - 9));
    return true;
}

bool
l1_entry_doubled(struct hit *hit)
{
    uint64_t one = hit_l1_entry(hit, true), other = hit_l1_entry(hit, true);
    if (!one || one == other)
        return false;
    hit_put64(hit, one, hit_get64(hit, other));
    return true;
}

bool
l1_entry_at_data(struct hit *hit)
{
    uint64_t at = hit_l1_entry(hit, false);
    const struct slot *slot = hit_slot(hit, false);
    if (!at || !slot)
        return false;
    hit_put64(hit, at, Q2_ENTRY_COPIED | q2_entry_offset(slot->raw));
    return true;
}

/* ---- whole tables ---- */

static const struct place *
active_l1(struct hit *hit)
{
    for (unsigned i = 0; i < hit->subject->place_count; i++)
        if (hit->subject->places[i].kind == Q2_OWNER_L1_TABLE && hit->subject->places[i].map == 0)
            return &hit->subject->places[i];
    return NULL;
}

bool
l1_zeroed(struct hit *hit)
{
    const struct place *l1 = active_l1(hit);
    if (l1)
        hit_zero(hit, l1->offset, l1->length);
    return l1 != NULL;
}

bool
l1_random(struct hit *hit)
{
    const struct place *l1 = active_l1(hit);
    if (l1)
        hit_garbage(hit, l1->offset, l1->length);
    return l1 != NULL;
}

bool
l2_table_zeroed(struct hit *hit)
{
    const struct place *table = hit_place(hit, Q2_OWNER_L2_TABLE);
    if (table)
        hit_zero(hit, table->offset, table->length);
    return table != NULL;
}

bool
l2_table_garbage(struct hit *hit)
{
    const struct place *table = hit_place(hit, Q2_OWNER_L2_TABLE);
    if (table)
        hit_garbage(hit, table->offset, table->length);
    return table != NULL;
}

bool
l2_table_sector(struct hit *hit)
{
    /* The sector of an entry in use. */
    const struct slot *slot = hit_slot(hit, false);
    if (slot && random_below(&hit->random, 2))
        hit_zero(hit, slot->at & ~UINT64_C(511), 512);
    else if (slot)
        hit_garbage(hit, slot->at & ~UINT64_C(511), 512);
    return slot != NULL;
}
