/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Damage to refcounts, the header, snapshots and bitmaps, and damage that hits wherever it hits. */

#include "tests/bench/recovery/damage.h"

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/format/entry.h"
#include "core/format/refcount.h"

#include <string.h>

enum { SECTOR = 512 };

typedef void fill(struct hit *hit, uint64_t at, uint64_t length);

static bool
fill_place(struct hit *hit, enum q2_owner_kind kind, fill *how)
{
    const struct place *place = hit_place(hit, kind);
    if (place)
        how(hit, place->offset, place->length);
    return place != NULL;
}

static bool
fill_places(struct hit *hit, enum q2_owner_kind kind, fill *how)
{
    const struct subject *subject = hit->subject;
    for (unsigned i = 0; i < subject->place_count; i++)
        if (subject->places[i].kind == kind)
            how(hit, subject->places[i].offset, subject->places[i].length);
    return hit->what[0] != 0;
}

/* ---- refcounts ---- */

bool
refcounts_zeroed(struct hit *hit)
{
    return fill_places(hit, Q2_OWNER_REFCOUNT_BLOCK, hit_zero);
}

bool
refcounts_random(struct hit *hit)
{
    return fill_places(hit, Q2_OWNER_REFCOUNT_BLOCK, hit_garbage);
}

bool
refcounts_some(struct hit *hit)
{
    const struct q2_geometry *geometry = &hit->subject->geometry;
    for (uint64_t n = 1 + random_below(&hit->random, 8); n; n--) {
        const struct place *block = hit_place(hit, Q2_OWNER_REFCOUNT_BLOCK);
        uint64_t first = block->index << geometry->refcount_block_bits;
        uint64_t most =
            q2_min(UINT64_C(1) << geometry->refcount_block_bits, geometry->file_clusters - first);
        uint64_t index = random_below(&hit->random, most);
        uint64_t value = random_below(&hit->random, 4) & q2_refcount_max(geometry->refcount_order);
        hit_say(hit, "refcount of cluster %llu = %llu", (unsigned long long)(first + index),
                (unsigned long long)value);
        q2_refcount_set(hit->bytes + block->offset, geometry->refcount_order, index, value);
    }
    return true;
}

bool
refcount_block_zeroed(struct hit *hit)
{
    return fill_place(hit, Q2_OWNER_REFCOUNT_BLOCK, hit_zero);
}

bool
refcount_block_garbage(struct hit *hit)
{
    return fill_place(hit, Q2_OWNER_REFCOUNT_BLOCK, hit_guest_data);
}

bool
refcount_table_zeroed(struct hit *hit)
{
    return fill_place(hit, Q2_OWNER_REFCOUNT_TABLE, hit_zero);
}

bool
refcount_table_random(struct hit *hit)
{
    return fill_place(hit, Q2_OWNER_REFCOUNT_TABLE, hit_garbage);
}

/* Where the refcount table says where a block is. */
static uint64_t
table_entry(struct hit *hit)
{
    const struct place *block = hit_place(hit, Q2_OWNER_REFCOUNT_BLOCK);
    return hit->subject->header.refcount_table_offset + block->index * 8;
}

bool
refcount_entry_flip(struct hit *hit)
{
    hit_flip(hit, table_entry(hit), (unsigned)random_below(&hit->random, 64));
    return true;
}

bool
refcount_entry_past_end(struct hit *hit)
{
    uint64_t at = table_entry(hit);
    hit_put64(hit, at, hit_get64(hit, at) + (UINT64_C(8) << 40));
    return true;
}

bool
refcount_entry_shared(struct hit *hit)
{
    const struct slot *slot = hit_slot(hit, false);
    if (!slot)
        return false;
    hit_put64(hit, table_entry(hit), q2_entry_offset(slot->raw));
    return true;
}

/* ---- the header ---- */

static struct q2_header_field
some_field(struct hit *hit)
{
    static const char *const names[] = {"magic",
                                        "version",
                                        "backing_file_offset",
                                        "backing_file_size",
                                        "cluster_bits",
                                        "size",
                                        "crypt_method",
                                        "l1_size",
                                        "l1_table_offset",
                                        "nb_snapshots",
                                        "refcount_table_offset",
                                        "refcount_table_clusters",
                                        "refcount_order",
                                        "header_length",
                                        "snapshots_offset",
                                        "incompatible_features",
                                        "autoclear_features"};
    struct q2_header_field field = {0};
    do {
        const char *name = names[random_below(&hit->random, sizeof names / sizeof *names)];
        if (!q2_header_field(name, &field))
            field.width = 0;
        else if (field.offset < Q2_HEADER_V2_LENGTH || hit->subject->geometry.version >= 3)
            hit_say(hit, "%s", name);
        else
            field.width = 0;
    } while (!field.width);
    return field;
}

bool
header_field_flip(struct hit *hit)
{
    struct q2_header_field field = some_field(hit);
    unsigned bit = (unsigned)random_below(&hit->random, field.width * 8U);
    hit_say(hit, "bit %u flipped", bit);
    hit->bytes[field.offset + field.width - 1U - bit / 8] ^= (uint8_t)(1U << bit % 8);
    return true;
}

bool
header_field_random(struct hit *hit)
{
    struct q2_header_field field = some_field(hit);
    hit_garbage(hit, field.offset, field.width);
    return true;
}

bool
header_tables(struct hit *hit)
{
    /* Where and how large the L1 and refcount tables are: bytes 36 to 60. */
    if (random_below(&hit->random, 2))
        hit_zero(hit, 36, 24);
    else
        hit_garbage(hit, 36, 24);
    return true;
}

bool
header_sector_zeroed(struct hit *hit)
{
    hit_zero(hit, 0, SECTOR);
    return true;
}

bool
header_sector_garbage(struct hit *hit)
{
    hit_garbage(hit, 0, SECTOR);
    return true;
}

bool
header_cluster_zeroed(struct hit *hit)
{
    hit_zero(hit, 0, hit->subject->geometry.cluster_size);
    return true;
}

bool
header_cluster_garbage(struct hit *hit)
{
    hit_guest_data(hit, 0, hit->subject->geometry.cluster_size);
    return true;
}

bool
header_extensions(struct hit *hit)
{
    uint64_t from = hit->subject->geometry.version < 3 ? Q2_HEADER_V2_LENGTH
                                                       : hit->subject->header.header_length;
    uint64_t at = from + random_below(&hit->random, 64);
    if (hit->subject->backing)
        return false; /* the name that is there is in no other place */
    hit_flip(hit, at & ~UINT64_C(7), (unsigned)random_below(&hit->random, 64));
    return true;
}

bool
first_mib_zeroed(struct hit *hit)
{
    hit_zero(hit, 0, q2_min(1 << 20, hit->length / 4));
    return true;
}

bool
feature_bits(struct hit *hit)
{
    if (hit->subject->geometry.version < 3)
        return false;
    uint64_t bits = 1 + random_below(&hit->random, 3);
    hit_put64(hit, 72, hit_get64(hit, 72) | bits);
    return true;
}

bool
autoclear_unknown(struct hit *hit)
{
    if (hit->subject->geometry.version < 3)
        return false;
    hit_put64(hit, 88, hit_get64(hit, 88) | UINT64_C(4) << random_below(&hit->random, 20));
    return true;
}

bool
luks_header_flip(struct hit *hit)
{
    const struct place *luks = hit_place(hit, Q2_OWNER_LUKS_HEADER);
    if (!luks)
        return false;
    hit_flip(hit, luks->offset + random_below(&hit->random, 14) * 8,
             (unsigned)random_below(&hit->random, 64));
    return true;
}

/* ---- snapshots and bitmaps ---- */

bool
snapshots_zero(struct hit *hit)
{
    if (hit->subject->maps < 2)
        return false;
    hit_put32(hit, 60, 0);
    return true;
}

bool
snapshots_random(struct hit *hit)
{
    if (hit->subject->maps < 2)
        return false;
    uint32_t value = (uint32_t)random_next(&hit->random);
    hit_put32(hit, 60, random_below(&hit->random, 2) ? value : value % 100);
    return true;
}

bool
snapshots_offset(struct hit *hit)
{
    if (hit->subject->maps < 2)
        return false;
    hit_flip(hit, 64, (unsigned)random_below(&hit->random, 40));
    return true;
}

bool
snapshot_table_flip(struct hit *hit)
{
    const struct place *table = hit_place(hit, Q2_OWNER_SNAPSHOT_TABLE);
    if (table)
        hit_flip(hit, table->offset + random_below(&hit->random, table->length / 8) * 8,
                 (unsigned)random_below(&hit->random, 64));
    return table != NULL;
}

bool
snapshot_table_zeroed(struct hit *hit)
{
    return fill_place(hit, Q2_OWNER_SNAPSHOT_TABLE, hit_zero);
}

bool
snapshot_table_garbage(struct hit *hit)
{
    return fill_place(hit, Q2_OWNER_SNAPSHOT_TABLE, hit_guest_data);
}

bool
snapshot_l1_field(struct hit *hit)
{
    const struct place *table = hit_place(hit, Q2_OWNER_SNAPSHOT_TABLE);
    if (table && random_below(&hit->random, 2))
        hit_put64(hit, table->offset, random_next(&hit->random) >> random_below(&hit->random, 40));
    else if (table)
        hit_put32(hit, table->offset + 8, (uint32_t)random_next(&hit->random));
    return table != NULL;
}

bool
snapshot_l1_zeroed(struct hit *hit)
{
    const struct place *l1 = NULL;
    if (hit->subject->maps < 2)
        return false;
    while (!l1 || l1->map == 0)
        l1 = hit_place(hit, Q2_OWNER_L1_TABLE);
    hit_zero(hit, l1->offset, l1->length);
    return true;
}

bool
bitmap_directory(struct hit *hit)
{
    const struct place *place = hit_place(hit, Q2_OWNER_BITMAP_DIRECTORY);
    if (place && random_below(&hit->random, 2))
        hit_flip(hit, place->offset + random_below(&hit->random, place->length / 8) * 8,
                 (unsigned)random_below(&hit->random, 64));
    else if (place)
        hit_garbage(hit, place->offset, place->length);
    return place != NULL;
}

bool
bitmap_table(struct hit *hit)
{
    return fill_place(hit, Q2_OWNER_BITMAP_TABLE,
                      random_below(&hit->random, 2) ? hit_zero : hit_garbage);
}

/* ---- wherever it hits ---- */

static const struct place *
any_place(struct hit *hit)
{
    return &hit->subject->places[random_below(&hit->random, hit->subject->place_count)];
}

/* A sector of metadata; of large tables one that says something. */
static uint64_t
metadata_sector(struct hit *hit)
{
    static const uint8_t zeros[SECTOR];
    for (unsigned tries = 0;; tries++) {
        const struct place *place = any_place(hit);
        uint64_t sectors = (place->length + SECTOR - 1) / SECTOR;
        uint64_t at = place->offset + random_below(&hit->random, sectors) * SECTOR;
        if (at + SECTOR <= hit->length &&
            (tries > 200 || memcmp(hit->bytes + at, zeros, SECTOR) != 0))
            return at;
    }
}

bool
guest_over_metadata(struct hit *hit)
{
    uint64_t cluster = hit->subject->geometry.cluster_size;
    uint64_t at = metadata_sector(hit) & ~(cluster - 1);
    hit_guest_data(hit, at, cluster << random_below(&hit->random, 3));
    return true;
}

bool
metadata_bit(struct hit *hit)
{
    hit_flip(hit, metadata_sector(hit) + random_below(&hit->random, 64) * 8,
             (unsigned)random_below(&hit->random, 64));
    return true;
}

bool
metadata_bits(struct hit *hit)
{
    for (uint64_t n = 2 + random_below(&hit->random, 15); n; n--)
        metadata_bit(hit);
    return true;
}

bool
metadata_sector_zeroed(struct hit *hit)
{
    hit_zero(hit, metadata_sector(hit), SECTOR);
    return true;
}

bool
metadata_sector_garbage(struct hit *hit)
{
    hit_garbage(hit, metadata_sector(hit), SECTOR);
    return true;
}

static uint64_t
any_sector(struct hit *hit)
{
    return random_below(&hit->random, hit->length / SECTOR) * SECTOR;
}

bool
anywhere_bit(struct hit *hit)
{
    hit_flip(hit, any_sector(hit) + random_below(&hit->random, 64) * 8,
             (unsigned)random_below(&hit->random, 64));
    return true;
}

bool
anywhere_bits(struct hit *hit)
{
    for (uint64_t n = 10 + random_below(&hit->random, 200); n; n--)
        anywhere_bit(hit);
    return true;
}

bool
anywhere_sectors_zeroed(struct hit *hit)
{
    for (uint64_t n = 1 + random_below(&hit->random, 20); n; n--)
        hit_zero(hit, any_sector(hit), SECTOR);
    return true;
}

bool
anywhere_sectors_garbage(struct hit *hit)
{
    for (uint64_t n = 1 + random_below(&hit->random, 20); n; n--)
        hit_garbage(hit, any_sector(hit), SECTOR);
    return true;
}

bool
holes(struct hit *hit)
{
    for (uint64_t n = 1 + random_below(&hit->random, 6); n; n--)
        hit_zero(hit, any_sector(hit) & ~UINT64_C(4095),
                 UINT64_C(4096) << random_below(&hit->random, 5));
    return true;
}

bool
truncated_little(struct hit *hit)
{
    hit->length -= q2_min(hit->length / 2, 1 + random_below(&hit->random, 8 * SECTOR));
    hit_say(hit, "truncated to %llu", (unsigned long long)hit->length);
    return true;
}

bool
truncated_much(struct hit *hit)
{
    hit->length -= random_below(&hit->random, hit->length / 2);
    hit_say(hit, "truncated to %llu", (unsigned long long)hit->length);
    return true;
}

bool
undamaged(struct hit *hit)
{
    hit_say(hit, "nothing");
    return true;
}
