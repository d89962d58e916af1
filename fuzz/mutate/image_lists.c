/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Snapshots and bitmaps: one more, one less, one that is different. */

#include "fuzz/mutate/image.h"

#include "core/base/checked.h"
#include "core/format/bitmap.h"
#include "core/format/snapshot.h"

#include <string.h>

/* ---- lists of entries that follow each other ---- */

/* Where the list goes that had `length` bytes at `offset` and gets `more`: where it is, if what
 * follows is zeros up to the end of its cluster, or new clusters. 0: there is no room. */
static size_t
make_room(struct q2_mutator *mutator, size_t offset, size_t length, size_t more)
{
    const struct q2_geometry *geometry = &mutator->layout.geometry;
    const uint8_t *bytes = mutator->buffer->bytes;
    size_t end = offset + length + more;
    bool fits =
        length > 0 && end <= mutator->buffer->length &&
        q2_units(end, geometry->cluster_bits) == q2_units(offset + length, geometry->cluster_bits);
    for (size_t i = offset + length; fits && i < end; i++)
        fits = bytes[i] == 0;
    if (fits)
        return offset;
    size_t to = q2_mutator_clusters(mutator, q2_units(length + more, geometry->cluster_bits));
    if (to > 0 && length > 0)
        memcpy(mutator->buffer->bytes + to, mutator->buffer->bytes + offset, length);
    return to;
}

/* Take the entry at `at` out of a list that ends at `end`. */
static void
take_out(struct q2_mutator *mutator, size_t at, size_t length, size_t end)
{
    uint8_t *bytes = mutator->buffer->bytes;
    memmove(bytes + at, bytes + at + length, end - at - length);
    memset(bytes + end - length, 0, length);
}

/* ---- snapshots ---- */

static size_t
snapshot_length(const struct q2_mutator *mutator, size_t at)
{
    return (size_t)q2_snapshot_length(mutator->buffer->bytes + at);
}

/* Where the last entry ends; 0: there are none. */
static size_t
snapshots_end(const struct q2_mutator *mutator)
{
    size_t count = mutator->layout.snapshot_count;
    if (count == 0)
        return 0;
    size_t last = mutator->layout.snapshot_at[count - 1];
    return last + snapshot_length(mutator, last);
}

/* A copy of the active L1 table, or of what is called that. */
static size_t
copy_l1(struct q2_mutator *mutator, uint32_t *ret_entries)
{
    const struct q2_part *part = q2_mutator_part(mutator, Q2_PART_L1);
    if (!part)
        return 0;
    unsigned bits = mutator->layout.geometry.cluster_bits;
    *ret_entries = (uint32_t)(part->length / 8);
    if (q2_mutator_below(mutator, 8) == 0)
        return part->offset;
    size_t to = q2_mutator_clusters(mutator, q2_units(part->length, bits));
    if (to > 0)
        memcpy(mutator->buffer->bytes + to, mutator->buffer->bytes + part->offset, part->length);
    return to;
}

bool
q2_change_snapshot_add(struct q2_mutator *mutator)
{
    const struct q2_layout *layout = &mutator->layout;
    uint8_t entry[Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH + 8] = {0};
    struct q2_snapshot snapshot = {
        .id_length = 1,
        .name_length = (uint16_t)q2_mutator_below(mutator, 6),
        .date_seconds = 1700000000,
        .extra_length = Q2_SNAPSHOT_EXTRA_LENGTH,
        .disk_size = layout->header.size,
    };
    snapshot.l1_table_offset = copy_l1(mutator, &snapshot.l1_size);
    if (snapshot.l1_table_offset == 0)
        return false;
    q2_snapshot_encode(&snapshot, entry);
    size_t names = Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH;
    entry[names] = (uint8_t)('1' + q2_mutator_below(mutator, 9));
    memset(entry + names + 1, 'n', snapshot.name_length);

    size_t end = snapshots_end(mutator), more = (size_t)q2_snapshot_length(entry);
    size_t length = end ? end - layout->snapshot_at[0] : 0;
    size_t table = make_room(mutator, end ? layout->snapshot_at[0] : 0, length, more);
    if (table == 0)
        return false;
    memcpy(mutator->buffer->bytes + table + length, entry, more);
    q2_mutator_set(mutator, 60, 4, layout->snapshot_count + 1);
    q2_mutator_set(mutator, 64, 8, table);
    return true;
}

bool
q2_change_snapshot_remove(struct q2_mutator *mutator)
{
    const struct q2_layout *layout = &mutator->layout;
    if (layout->snapshot_count == 0)
        return false;
    size_t at = layout->snapshot_at[q2_mutator_below(mutator, layout->snapshot_count)];
    take_out(mutator, at, snapshot_length(mutator, at), snapshots_end(mutator));
    if (q2_mutator_below(mutator, 4))
        q2_mutator_set(mutator, 60, 4, layout->snapshot_count - 1);
    return true;
}

bool
q2_change_snapshot_edit(struct q2_mutator *mutator)
{
    static const struct {
        size_t at;
        unsigned width;
    } fields[] = {{0, 8},  {8, 4},  {12, 2}, {14, 2}, {16, 4}, {20, 4},
                  {24, 8}, {32, 4}, {36, 4}, {40, 8}, {48, 8}, {56, 1}};
    const struct q2_layout *layout = &mutator->layout;
    if (layout->snapshot_count == 0)
        return false;
    size_t at = layout->snapshot_at[q2_mutator_below(mutator, layout->snapshot_count)];
    size_t i = q2_mutator_below(mutator, sizeof fields / sizeof *fields);
    size_t in = at + fields[i].at;
    if (in + fields[i].width > mutator->buffer->length)
        return false;
    uint64_t value = q2_mutator_get(mutator, in, fields[i].width);
    value = i == 0 && q2_mutator_below(mutator, 2)
                ? q2_mutator_offset(mutator)
                : q2_mutator_value(mutator, value, fields[i].width);
    q2_mutator_set(mutator, in, fields[i].width, value);
    return true;
}

/* ---- bitmaps ---- */

static size_t
bitmap_length(const struct q2_mutator *mutator, size_t at)
{
    struct q2_bitmap bitmap;
    q2_bitmap_decode(mutator->buffer->bytes + at, at, &bitmap);
    return (size_t)q2_bitmap_length(&bitmap);
}

/* Where the last entry ends; 0: there are none. */
static size_t
bitmaps_end(const struct q2_mutator *mutator)
{
    size_t count = mutator->layout.bitmap_count;
    if (count == 0)
        return 0;
    size_t last = mutator->layout.bitmap_at[count - 1];
    return last + bitmap_length(mutator, last);
}

/* A table of a bitmap, with a cluster of data; 0: there is no room. */
static size_t
make_bitmap_table(struct q2_mutator *mutator, const struct q2_bitmap *bitmap)
{
    unsigned bits = mutator->layout.geometry.cluster_bits;
    if (bitmap->table_size > 4096)
        return 0;
    size_t clusters = q2_units((uint64_t)bitmap->table_size * 8, bits);
    size_t table = q2_mutator_clusters(mutator, clusters + 1);
    if (table == 0 || bitmap->table_size == 0)
        return table;
    size_t data = table + (clusters << bits);
    memset(mutator->buffer->bytes + data, 0xa5, (size_t)1 << bits >> 3);
    q2_mutator_set(mutator, table, 8, data);
    if (bitmap->table_size > 1)
        q2_mutator_set(mutator, table + 8, 8, q2_mutator_below(mutator, 2));
    return table;
}

bool
q2_change_bitmap_add(struct q2_mutator *mutator)
{
    const struct q2_layout *layout = &mutator->layout;
    if (!layout->bitmaps_at)
        return false;
    struct q2_bitmap bitmap = {
        .flags = q2_mutator_below(mutator, 3) ? 0 : Q2_BITMAP_AUTO,
        .type = Q2_BITMAP_TYPE_DIRTY,
        .granularity_bits = (uint8_t)(9 + q2_mutator_below(mutator, 8)),
        .name_length = (uint16_t)(1 + q2_mutator_below(mutator, 8)),
    };
    unsigned covers = bitmap.granularity_bits + layout->geometry.cluster_bits + 3;
    bitmap.table_size = (uint32_t)q2_units(layout->geometry.disk_size, covers);
    bitmap.table_offset = make_bitmap_table(mutator, &bitmap);
    if (bitmap.table_offset == 0)
        return false;
    uint8_t entry[Q2_BITMAP_FIXED_LENGTH + 16] = {0};
    q2_bitmap_encode(&bitmap, entry);
    memset(entry + Q2_BITMAP_FIXED_LENGTH, (int)('a' + q2_mutator_below(mutator, 26)),
           bitmap.name_length);

    size_t end = bitmaps_end(mutator), more = (size_t)q2_bitmap_length(&bitmap);
    size_t length = end ? end - layout->bitmap_at[0] : 0;
    size_t table = make_room(mutator, end ? layout->bitmap_at[0] : 0, length, more);
    if (table == 0)
        return false;
    memcpy(mutator->buffer->bytes + table + length, entry, more);
    q2_mutator_set(mutator, layout->bitmaps_at, 4, layout->bitmap_count + 1);
    q2_mutator_set(mutator, layout->bitmaps_at + 8, 8, length + more);
    q2_mutator_set(mutator, layout->bitmaps_at + 16, 8, table);
    return true;
}

bool
q2_change_bitmap_remove(struct q2_mutator *mutator)
{
    const struct q2_layout *layout = &mutator->layout;
    if (layout->bitmap_count == 0)
        return false;
    size_t at = layout->bitmap_at[q2_mutator_below(mutator, layout->bitmap_count)];
    size_t length = bitmap_length(mutator, at), end = bitmaps_end(mutator);
    take_out(mutator, at, length, end);
    if (q2_mutator_below(mutator, 4)) {
        q2_mutator_set(mutator, layout->bitmaps_at, 4, layout->bitmap_count - 1);
        q2_mutator_set(mutator, layout->bitmaps_at + 8, 8, end - length - layout->bitmap_at[0]);
    }
    return true;
}

bool
q2_change_bitmap_edit(struct q2_mutator *mutator)
{
    static const struct {
        size_t at;
        unsigned width;
    } fields[] = {{0, 8}, {8, 4}, {12, 4}, {16, 1}, {17, 1}, {18, 2}, {20, 4}};
    const struct q2_layout *layout = &mutator->layout;
    if (layout->bitmap_count == 0)
        return false;
    size_t at = layout->bitmap_at[q2_mutator_below(mutator, layout->bitmap_count)];
    size_t i = q2_mutator_below(mutator, sizeof fields / sizeof *fields);
    uint64_t value = q2_mutator_get(mutator, at + fields[i].at, fields[i].width);
    value = i == 0 && q2_mutator_below(mutator, 2)
                ? q2_mutator_offset(mutator)
                : q2_mutator_value(mutator, value, fields[i].width);
    q2_mutator_set(mutator, at + fields[i].at, fields[i].width, value);
    return true;
}
