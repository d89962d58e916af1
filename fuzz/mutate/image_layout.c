/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Where the structures of an image are, as far as its damage lets one see. Nothing is believed
 * that does not lie inside the image, and lists end when they are full. */

#include "fuzz/mutate/image.h"

#include "core/base/checked.h"
#include "core/format/bitmap.h"
#include "core/format/entry.h"
#include "core/format/extension.h"
#include "core/format/snapshot.h"

#include <string.h>

enum { MOST_SNAPSHOTS = 64, MOST_BITMAPS = 64, MOST_EXTENSIONS = 64 };

/* Note a structure of which some bytes are inside the image. Returns how many, 0: none. */
static size_t
note(struct q2_layout *layout, enum q2_part_kind kind, bool active, size_t at, uint64_t offset,
     uint64_t length)
{
    if (offset >= layout->length || layout->count == Q2_LAYOUT_PARTS)
        return 0;
    size_t inside = (size_t)q2_min(length, layout->length - offset);
    if (inside > 0)
        layout->parts[layout->count++] = (struct q2_part){
            .kind = kind,
            .active = active,
            .offset = (size_t)offset,
            .length = inside,
            .at = at,
        };
    return inside;
}

static uint64_t
aligned(const struct q2_layout *layout, uint64_t offset)
{
    return offset & ~(layout->geometry.cluster_size - 1);
}

/* A header that can be worked with, whatever is wrong with the real one. */
static void
read_header(struct q2_layout *layout)
{
    struct q2_header *header = &layout->header;
    q2_header_decode(layout->bytes, layout->length, header);
    struct q2_header usable = *header;
    usable.version = header->version == 2 ? 2 : 3;
    if (usable.cluster_bits < Q2_MIN_CLUSTER_BITS || usable.cluster_bits > Q2_MAX_CLUSTER_BITS)
        usable.cluster_bits = Q2_MIN_CLUSTER_BITS;
    if (usable.refcount_order > Q2_MAX_REFCOUNT_ORDER)
        usable.refcount_order = 4;
    if (usable.cluster_bits < Q2_MIN_EXTENDED_CLUSTER_BITS)
        usable.incompatible_features &= ~(uint64_t)Q2_INCOMPATIBLE_EXTENDED_L2;
    q2_geometry_init(&layout->geometry, &usable, layout->length);
}

static void
read_extensions(struct q2_layout *layout)
{
    const struct q2_header *header = &layout->header;
    uint64_t offset = header->version == 2 ? Q2_HEADER_V2_LENGTH : header->header_length;
    uint64_t area = q2_min(layout->length, layout->geometry.cluster_size);
    struct q2_extension extension;
    while (layout->extension_count < MOST_EXTENSIONS && offset < area) {
        int rc = q2_extension_next(layout->bytes, (size_t)area, &offset, &extension);
        if (rc == 0)
            layout->extension_end = (size_t)q2_min(extension.offset, area);
        if (rc <= 0)
            break;
        layout->extension_at[layout->extension_count++] = (size_t)extension.offset;
        if (extension.type == Q2_EXTENSION_BITMAPS &&
            extension.length >= Q2_EXTENSION_BITMAPS_LENGTH)
            layout->bitmaps_at = (size_t)extension.offset + Q2_EXTENSION_HEADER_LENGTH;
        if (extension.type == Q2_EXTENSION_CRYPTO && extension.length >= Q2_EXTENSION_CRYPTO_LENGTH)
            note(layout, Q2_PART_LUKS, false, (size_t)extension.offset + Q2_EXTENSION_HEADER_LENGTH,
                 q2_load_be64(extension.data), q2_load_be64(extension.data + 8));
    }
}

static void
read_refcounts(struct q2_layout *layout)
{
    const struct q2_header *header = &layout->header;
    uint64_t cluster_size = layout->geometry.cluster_size, offset = header->refcount_table_offset;
    size_t length = note(layout, Q2_PART_REFCOUNT_TABLE, false, 48, offset,
                         (uint64_t)header->refcount_table_clusters * cluster_size);
    for (size_t i = 0; i + 8 <= length; i += 8) {
        uint64_t block = q2_load_be64(layout->bytes + offset + i) & ~UINT64_C(0x1ff);
        if (block)
            note(layout, Q2_PART_REFCOUNT_BLOCK, false, (size_t)offset + i, block, cluster_size);
    }
}

static void
read_l2(struct q2_layout *layout, size_t offset, size_t length, bool active)
{
    const struct q2_geometry *geometry = &layout->geometry;
    for (size_t i = 0; i + geometry->l2_entry_size <= length; i += geometry->l2_entry_size) {
        uint64_t raw = q2_load_be64(layout->bytes + offset + i);
        if (raw & Q2_ENTRY_COMPRESSED) {
            struct q2_compressed_range range = q2_compressed_decode(geometry, raw);
            note(layout, Q2_PART_DATA, active, offset + i, range.offset, range.length);
        } else if (q2_entry_offset(raw) && !geometry->data_file) {
            note(layout, Q2_PART_DATA, active, offset + i, aligned(layout, q2_entry_offset(raw)),
                 geometry->cluster_size);
        }
    }
}

static void
read_map(struct q2_layout *layout, size_t at, uint64_t offset, uint64_t entries, bool active)
{
    size_t length = note(layout, Q2_PART_L1, active, at, offset, entries * 8);
    for (size_t i = 0; i + 8 <= length; i += 8) {
        uint64_t table = aligned(layout, q2_entry_offset(q2_load_be64(layout->bytes + offset + i)));
        size_t inside = table ? note(layout, Q2_PART_L2, active, (size_t)offset + i, table,
                                     layout->geometry.cluster_size)
                              : 0;
        read_l2(layout, (size_t)table, inside, active);
    }
}

static void
read_snapshots(struct q2_layout *layout)
{
    uint64_t at = layout->header.snapshots_offset;
    uint64_t count = q2_min(layout->header.nb_snapshots, MOST_SNAPSHOTS), start = at;
    for (; layout->snapshot_count < count; layout->snapshot_count++) {
        if (!q2_range_inside(at, Q2_SNAPSHOT_FIXED_LENGTH, layout->length))
            break;
        const uint8_t *entry = layout->bytes + at;
        uint64_t length = q2_snapshot_length(entry);
        if (!q2_range_inside(at, length, layout->length))
            break;
        layout->snapshot_at[layout->snapshot_count] = (size_t)at;
        read_map(layout, (size_t)at, q2_load_be64(entry), q2_load_be32(entry + 8), false);
        at += length;
    }
    if (count > 0)
        note(layout, Q2_PART_SNAPSHOT_TABLE, false, 64, start, q2_max(at - start, 8));
}

static void
read_bitmap(struct q2_layout *layout, const struct q2_bitmap *bitmap)
{
    size_t length = note(layout, Q2_PART_BITMAP_TABLE, false, (size_t)bitmap->at,
                         bitmap->table_offset, (uint64_t)bitmap->table_size * 8);
    for (size_t i = 0; i + 8 <= length; i += 8) {
        size_t at = (size_t)bitmap->table_offset + i;
        uint64_t data = aligned(layout, q2_entry_offset(q2_load_be64(layout->bytes + at)));
        if (data)
            note(layout, Q2_PART_BITMAP_DATA, false, at, data, layout->geometry.cluster_size);
    }
}

static void
read_bitmaps(struct q2_layout *layout)
{
    if (!layout->bitmaps_at)
        return;
    const uint8_t *data = layout->bytes + layout->bitmaps_at;
    uint64_t count = q2_min(q2_load_be32(data), MOST_BITMAPS);
    uint64_t size = q2_load_be64(data + 8), offset = q2_load_be64(data + 16);
    size_t inside =
        note(layout, Q2_PART_BITMAP_DIRECTORY, false, layout->bitmaps_at + 16, offset, size);
    struct q2_bitmap bitmap;
    for (uint64_t at = offset, end = offset + inside; layout->bitmap_count < count;) {
        if (inside == 0 || end - at < Q2_BITMAP_FIXED_LENGTH)
            break;
        q2_bitmap_decode(layout->bytes + at, at, &bitmap);
        uint64_t length = q2_bitmap_length(&bitmap);
        if (length > end - at)
            break;
        layout->bitmap_at[layout->bitmap_count++] = (size_t)at;
        read_bitmap(layout, &bitmap);
        at += length;
    }
}

void
q2_layout_read(struct q2_layout *layout, const uint8_t *bytes, size_t length)
{
    layout->bytes = bytes;
    layout->length = length;
    layout->count = layout->snapshot_count = layout->bitmap_count = 0;
    layout->extension_count = layout->extension_end = layout->bitmaps_at = 0;
    read_header(layout);
    if (length < Q2_HEADER_V2_LENGTH)
        return;
    note(layout, Q2_PART_HEADER, false, 0, 0, layout->geometry.cluster_size);
    read_extensions(layout);
    read_refcounts(layout);
    read_map(layout, 40, layout->header.l1_table_offset, layout->header.l1_size, true);
    read_snapshots(layout);
    read_bitmaps(layout);
}
