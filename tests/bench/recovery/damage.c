/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What all classes of damage share, and their list. */

#include "tests/bench/recovery/damage.h"

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/format/entry.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const struct damage damages[] = {
    {"undamaged", LEFT_ALL, undamaged},
    {"refcounts-zeroed", LEFT_ALL, refcounts_zeroed},
    {"refcounts-random", LEFT_ALL, refcounts_random},
    {"refcounts-some", LEFT_ALL, refcounts_some},
    {"refcount-block-zeroed", LEFT_ALL, refcount_block_zeroed},
    {"refcount-block-garbage", LEFT_ALL, refcount_block_garbage},
    {"refcount-table-zeroed", LEFT_ALL, refcount_table_zeroed},
    {"refcount-table-random", LEFT_ALL, refcount_table_random},
    {"refcount-entry-flip", LEFT_ALL, refcount_entry_flip},
    {"refcount-entry-past-end", LEFT_ALL, refcount_entry_past_end},
    {"refcount-entry-shared", LEFT_ALL, refcount_entry_shared},
    {"copied-flags", LEFT_ALL, copied_flags},
    {"reserved-bits", LEFT_ALL, reserved_bits},
    {"feature-bits", LEFT_ALL, feature_bits},
    {"autoclear-unknown", LEFT_ALL, autoclear_unknown},
    {"subcluster-bits", LEFT_ALL, subcluster_bits},
    {"l2-entry-flip", LEFT_ALL, l2_entry_flip},
    {"l2-entries-flip", LEFT_ALL, l2_entries_flip},
    {"l2-entry-past-end", LEFT_ALL, l2_entry_past_end},
    {"l2-entry-unaligned", LEFT_ALL, l2_entry_unaligned},
    {"l2-entry-at-metadata", LEFT_ALL, l2_entry_at_metadata},
    {"l2-entry-doubled", LEFT_ALL, l2_entry_doubled},
    {"l2-entry-zeroed", LEFT_SOME, l2_entry_zeroed},
    {"l2-entry-random", LEFT_SOME, l2_entry_random},
    {"compressed-length", LEFT_ALL, compressed_length},
    {"compressed-offset", LEFT_ALL, compressed_offset},
    {"compressed-past-end", LEFT_ALL, compressed_past_end},
    {"l1-entry-zeroed", LEFT_ALL, l1_entry_zeroed},
    {"l1-entry-flip", LEFT_ALL, l1_entry_flip},
    {"l1-entry-past-end", LEFT_ALL, l1_entry_past_end},
    {"l1-entry-unaligned", LEFT_ALL, l1_entry_unaligned},
    {"l1-entry-doubled", LEFT_ALL, l1_entry_doubled},
    {"l1-entry-at-data", LEFT_ALL, l1_entry_at_data},
    {"l1-zeroed", LEFT_ALL, l1_zeroed},
    {"l1-random", LEFT_ALL, l1_random},
    {"l2-table-zeroed", LEFT_SOME, l2_table_zeroed},
    {"l2-table-garbage", LEFT_SOME, l2_table_garbage},
    {"l2-table-sector", LEFT_SOME, l2_table_sector},
    {"header-field-flip", LEFT_ALL, header_field_flip},
    {"header-field-random", LEFT_ALL, header_field_random},
    {"header-tables", LEFT_ALL, header_tables},
    {"header-sector-zeroed", LEFT_SOME, header_sector_zeroed},
    {"header-sector-garbage", LEFT_SOME, header_sector_garbage},
    {"header-cluster-zeroed", LEFT_SOME, header_cluster_zeroed},
    {"header-cluster-garbage", LEFT_SOME, header_cluster_garbage},
    {"header-extensions", LEFT_ALL, header_extensions},
    {"first-mib-zeroed", LEFT_SOME, first_mib_zeroed},
    {"luks-header-flip", LEFT_SOME, luks_header_flip},
    {"snapshots-zero", LEFT_ALL, snapshots_zero},
    {"snapshots-random", LEFT_ALL, snapshots_random},
    {"snapshots-offset", LEFT_ALL, snapshots_offset},
    {"snapshot-table-flip", LEFT_ALL, snapshot_table_flip},
    {"snapshot-table-zeroed", LEFT_ALL, snapshot_table_zeroed},
    {"snapshot-table-garbage", LEFT_ALL, snapshot_table_garbage},
    {"snapshot-l1-field", LEFT_ALL, snapshot_l1_field},
    {"snapshot-l1-zeroed", LEFT_ALL, snapshot_l1_zeroed},
    {"bitmap-directory", LEFT_ALL, bitmap_directory},
    {"bitmap-table", LEFT_ALL, bitmap_table},
    {"guest-over-metadata", LEFT_SOME, guest_over_metadata},
    {"metadata-bit", LEFT_ALL, metadata_bit},
    {"metadata-bits", LEFT_SOME, metadata_bits},
    {"metadata-sector-zeroed", LEFT_SOME, metadata_sector_zeroed},
    {"metadata-sector-garbage", LEFT_SOME, metadata_sector_garbage},
    {"anywhere-bit", LEFT_ALL, anywhere_bit},
    {"anywhere-bits", LEFT_SOME, anywhere_bits},
    {"anywhere-sectors-zeroed", LEFT_SOME, anywhere_sectors_zeroed},
    {"anywhere-sectors-garbage", LEFT_SOME, anywhere_sectors_garbage},
    {"holes", LEFT_SOME, holes},
    {"truncated-little", LEFT_SOME, truncated_little},
    {"truncated-much", LEFT_SOME, truncated_much},
    {"l1-entry-offset-zeroed", LEFT_ALL, l1_entry_offset_zeroed},
    {"two-damages", LEFT_SOME, two_damages},
    {"three-damages", LEFT_SOME, three_damages},
};
const unsigned damage_count = sizeof damages / sizeof *damages;

void
hit_say(struct hit *hit, const char *format, ...)
{
    size_t used = strlen(hit->what);
    if (used > sizeof hit->what - 80)
        return;
    va_list args;
    va_start(args, format);
    if (used)
        used += (size_t)snprintf(hit->what + used, sizeof hit->what - used, "; ");
    vsnprintf(hit->what + used, sizeof hit->what - used, format, args);
    va_end(args);
}

static bool
fits(const struct hit *hit, uint64_t at, uint64_t length)
{
    return q2_range_inside(at, length, hit->length);
}

uint64_t
hit_get64(const struct hit *hit, uint64_t at)
{
    return fits(hit, at, 8) ? q2_load_be64(hit->bytes + at) : 0;
}

void
hit_put64(struct hit *hit, uint64_t at, uint64_t value)
{
    if (!fits(hit, at, 8))
        return;
    hit_say(hit, "0x%" PRIx64 ": 0x%" PRIx64 " -> 0x%" PRIx64, at, hit_get64(hit, at), value);
    q2_store_be64(hit->bytes + at, value);
}

void
hit_put32(struct hit *hit, uint64_t at, uint32_t value)
{
    if (!fits(hit, at, 4))
        return;
    hit_say(hit, "0x%" PRIx64 ": 0x%x -> 0x%x", at, q2_load_be32(hit->bytes + at), value);
    q2_store_be32(hit->bytes + at, value);
}

/* The part of the range that the file has. */
static uint64_t
cut(const struct hit *hit, uint64_t at, uint64_t length)
{
    return at < hit->length ? q2_min(length, hit->length - at) : 0;
}

void
hit_zero(struct hit *hit, uint64_t at, uint64_t length)
{
    hit_say(hit, "zeros at 0x%" PRIx64 ", %" PRIu64 " bytes", at, length);
    memset(hit->bytes + at, 0, cut(hit, at, length));
}

void
hit_garbage(struct hit *hit, uint64_t at, uint64_t length)
{
    hit_say(hit, "garbage at 0x%" PRIx64 ", %" PRIu64 " bytes", at, length);
    for (uint64_t i = 0, end = cut(hit, at, length); i < end; i++)
        hit->bytes[at + i] = (uint8_t)random_next(&hit->random);
}

void
hit_guest_data(struct hit *hit, uint64_t at, uint64_t length)
{
    static const char text[] = "the quick brown fox jumps over the lazy dog; ";
    hit_say(hit, "guest data at 0x%" PRIx64 ", %" PRIu64 " bytes", at, length);
    for (uint64_t i = 0, end = cut(hit, at, length); i < end; i++) {
        uint8_t number = (uint8_t)(i % 4 == 0 ? i / 4 : 0);
        uint64_t style = (i / 512 + at / 512) % 3;
        hit->bytes[at + i] = style == 0   ? (uint8_t)text[i % (sizeof text - 1)]
                             : style == 1 ? number
                                          : (uint8_t)random_next(&hit->random);
    }
}

void
hit_flip(struct hit *hit, uint64_t at, unsigned bit)
{
    uint64_t was = hit_get64(hit, at);
    if (!fits(hit, at, 8))
        return;
    hit_say(hit, "0x%" PRIx64 ": bit %u of 0x%" PRIx64, at, bit, was);
    q2_store_be64(hit->bytes + at, was ^ UINT64_C(1) << bit);
}

const struct place *
hit_place(struct hit *hit, enum q2_owner_kind kind)
{
    const struct subject *subject = hit->subject;
    unsigned count = 0;
    for (unsigned i = 0; i < subject->place_count; i++)
        count += subject->places[i].kind == kind;
    uint64_t nth = random_below(&hit->random, count);
    for (unsigned i = 0; i < subject->place_count; i++)
        if (subject->places[i].kind == kind && nth-- == 0)
            return &subject->places[i];
    return NULL;
}

const struct slot *
hit_slot(struct hit *hit, bool compressed)
{
    const struct subject *subject = hit->subject;
    for (unsigned tries = 0; subject->slot_count && tries < 1000; tries++) {
        const struct slot *slot = &subject->slots[random_below(&hit->random, subject->slot_count)];
        if (((slot->raw & Q2_ENTRY_COMPRESSED) != 0) == compressed)
            return slot;
    }
    return NULL;
}

uint64_t
hit_l1_entry(struct hit *hit, bool active)
{
    for (unsigned tries = 0; tries < 1000; tries++) {
        const struct place *l1 = hit_place(hit, Q2_OWNER_L1_TABLE);
        if (!l1 || (active && l1->map != 0))
            continue;
        uint64_t at = l1->offset + random_below(&hit->random, l1->length / 8) * 8;
        if (q2_entry_offset(hit_get64(hit, at)))
            return at;
    }
    return 0;
}
