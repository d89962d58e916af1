/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/uses.h"

#include "checker/refcounts.h"
#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/format/bitmap.h"

#include <stdlib.h>

enum { PIECE_BYTES = 4096 };

void
q2_uses_init(struct q2_uses *uses, struct q2_check *check)
{
    *uses = (struct q2_uses){.check = check, .number = UINT64_MAX};
}

void
q2_uses_destroy(struct q2_uses *uses)
{
    q2_budget_free(&uses->check->budget, uses->items, uses->capacity, sizeof *uses->items);
}

/* The clusters of one chunk that are to be explained, or NULL. */
static const uint64_t *
suspects(struct q2_uses *uses, uint64_t number)
{
    if (number != uses->number) {
        uses->number = number;
        uses->chunk = q2_tally_chunk(uses->check->tally, number);
    }
    return uses->chunk ? uses->chunk->suspect : NULL;
}

bool
q2_uses_wanted(struct q2_uses *uses, uint64_t first, uint64_t count)
{
    while (count > 0) {
        uint64_t index = first & (Q2_CHUNK_CLUSTERS - 1);
        uint64_t now = q2_min(count, Q2_CHUNK_CLUSTERS - index);
        const uint64_t *set = suspects(uses, first >> Q2_CHUNK_BITS);
        if (set && q2_bit_any(set, index, now))
            return true;
        first += now;
        count -= now;
    }
    return false;
}

static void
keep(struct q2_uses *uses, const struct q2_use *use)
{
    if (uses->dropped)
        return;
    int rc = q2_check_grow(uses->check, &uses->items, uses->count, &uses->capacity,
                           sizeof *uses->items, NULL);
    if (rc < 0)
        uses->dropped = true;
    else
        uses->items[uses->count++] = *use;
}

void
q2_uses_add(struct q2_uses *uses, uint64_t first, uint64_t count, const struct q2_use *use)
{
    for (uint64_t i = 0; i < count; i++) {
        if (!q2_uses_wanted(uses, first + i, 1))
            continue;
        struct q2_use one = *use;
        one.cluster = first + i;
        keep(uses, &one);
    }
}

void
q2_uses_absorb(struct q2_uses *uses, const struct q2_uses *from, const q2_map_set *ids)
{
    for (uint64_t i = 0; i < from->count; i++) {
        struct q2_use use = from->items[i];
        use.owner.maps = ids[use.owner.maps];
        keep(uses, &use);
    }
    uses->dropped |= from->dropped;
}

/* ---- structures of known place ---- */

static void
add_bitmap_data(struct q2_uses *uses, const struct q2_bitmap_table *table)
{
    struct q2_check *check = uses->check;
    uint8_t piece[PIECE_BYTES];
    for (uint64_t i = 0; i < table->entries; i++) {
        uint64_t inside = i * 8 % PIECE_BYTES, at = table->offset + i * 8;
        if (inside == 0 &&
            q2_file_read_padded(check->file, at, piece,
                                q2_min(PIECE_BYTES, (table->entries - i) * 8), NULL) < 0) {
            atomic_store(&check->unread, true);
            return;
        }
        uint64_t raw = q2_load_be64(piece + inside), offset = raw & ~Q2_BITMAP_ENTRY_RESERVED;
        bool usable = offset && !(raw & Q2_BITMAP_ENTRY_RESERVED) &&
                      !(offset & (check->geometry.cluster_size - 1)) &&
                      offset < check->geometry.file_size;
        if (usable)
            q2_uses_add(uses, q2_cluster_of(check, offset), 1,
                        &(struct q2_use){.references = 1,
                                         .owner = {.kind = Q2_OWNER_BITMAP_DATA,
                                                   .index = table->index,
                                                   .at = at}});
    }
}

void
q2_uses_add_structures(struct q2_uses *uses)
{
    struct q2_check *check = uses->check;
    unsigned bits = check->geometry.cluster_bits;
    for (uint64_t i = 0; i < check->region_count; i++) {
        const struct q2_region *region = &check->regions[i];
        uint64_t first = region->offset >> bits;
        uint64_t end =
            q2_min(q2_units(region->offset + region->length, bits), check->geometry.file_clusters);
        if (end > first)
            q2_uses_add(uses, first, end - first,
                        &(struct q2_use){.references = 1, .owner = region->owner});
    }
    for (uint64_t i = 0; i < check->bitmap_table_count; i++)
        add_bitmap_data(uses, &check->bitmap_tables[i]);
    for (uint64_t i = 0; i < check->refcount_entries; i++)
        if (check->refcount_table[i] > Q2_REFCOUNT_BLOCK_UNKNOWN)
            q2_uses_add(uses, check->refcount_table[i] >> bits, 1,
                        &(struct q2_use){.references = 1,
                                         .owner = {.kind = Q2_OWNER_REFCOUNT_BLOCK,
                                                   .index = i,
                                                   .at = check->header.refcount_table_offset +
                                                         i * 8}});
}

/* ---- settling ---- */

static int
compare(const void *left, const void *right)
{
    const struct q2_use *a = left, *b = right;
    if (a->cluster != b->cluster)
        return a->cluster < b->cluster ? -1 : 1;
    if (a->owner.kind != b->owner.kind)
        return a->owner.kind < b->owner.kind ? -1 : 1;
    if (a->owner.guest != b->owner.guest)
        return a->owner.guest < b->owner.guest ? -1 : 1;
    if (a->owner.at != b->owner.at)
        return a->owner.at < b->owner.at ? -1 : 1;
    return 0;
}

static bool
is_guest(enum q2_owner_kind kind)
{
    return kind == Q2_OWNER_DATA || kind == Q2_OWNER_COMPRESSED;
}

/* Whether two uses of one cluster are the same owner seen from several maps. */
static bool
same_owner(const struct q2_use *a, const struct q2_use *b)
{
    bool maps = is_guest(a->owner.kind) || a->owner.kind == Q2_OWNER_L2_TABLE;
    return maps && a->cluster == b->cluster && a->owner.kind == b->owner.kind &&
           a->owner.guest == b->owner.guest;
}

static int
compare_members(const void *left, const void *right)
{
    const uint32_t *a = left, *b = right;
    return (*a > *b) - (*a < *b);
}

static int
unite_maps(struct q2_check *check, q2_map_set a, q2_map_set b, q2_map_set *ret_set,
           struct q2_error *err)
{
    const uint32_t *from_a, *from_b;
    size_t count_a = q2_mapset_members(check->sets, a, &from_a);
    size_t count_b = q2_mapset_members(check->sets, b, &from_b);
    void *memory;
    if (a == b || count_a == 0 || count_b == 0) {
        *ret_set = a ? a : b;
        return 0;
    }
    int rc =
        q2_budget_calloc(&check->budget, count_a + count_b, 4, "sets of snapshots", &memory, err);
    if (rc < 0)
        return rc;
    uint32_t *members = memory;
    size_t kept = 0;
    for (size_t i = 0; i < count_a; i++)
        members[i] = from_a[i];
    for (size_t i = 0; i < count_b; i++)
        members[count_a + i] = from_b[i];
    qsort(members, count_a + count_b, sizeof *members, compare_members);
    for (size_t i = 0; i < count_a + count_b; i++)
        if (kept == 0 || members[kept - 1] != members[i])
            members[kept++] = members[i];
    rc = q2_mapset_intern(check->sets, members, kept, ret_set, err);
    q2_budget_free(&check->budget, memory, count_a + count_b, 4);
    return rc;
}

int
q2_uses_settle(struct q2_uses *uses, struct q2_error *err)
{
    uint64_t kept = 0;
    if (uses->count)
        qsort(uses->items, uses->count, sizeof *uses->items, compare);
    for (uint64_t i = 0; i < uses->count; i++) {
        struct q2_use *use = &uses->items[i];
        struct q2_use *last = kept ? &uses->items[kept - 1] : NULL;
        if (!last || !same_owner(last, use)) {
            uses->items[kept++] = *use;
            continue;
        }
        int rc = unite_maps(uses->check, last->owner.maps, use->owner.maps, &last->owner.maps, err);
        if (rc < 0)
            return rc;
        last->references += use->references;
        if (use->active) {
            last->active = true;
            last->copied = use->copied;
            last->owner.at = use->owner.at;
        }
    }
    uses->count = kept;
    return 0;
}
