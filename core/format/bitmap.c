/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/format/bitmap.h"

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/format/entry.h"

/* Byte offsets inside a directory entry. */
enum {
    AT_TABLE_OFFSET = 0,
    AT_TABLE_SIZE = 8,
    AT_FLAGS = 12,
    AT_TYPE = 16,
    AT_GRANULARITY = 17,
    AT_NAME_LENGTH = 18,
    AT_EXTRA_LENGTH = 20,
};

static bool
aligned(const struct q2_geometry *geometry, uint64_t offset)
{
    return (offset & (geometry->cluster_size - 1)) == 0;
}

bool
q2_bitmap_directory_validate(const struct q2_geometry *geometry,
                             const struct q2_extensions *extensions, const struct q2_sink *sink)
{
    uint64_t size = extensions->bitmap_directory_size;
    uint64_t offset = extensions->bitmap_directory_offset;
    bool readable = true;
    if (size < Q2_BITMAP_FIXED_LENGTH || size > Q2_MAX_BITMAP_DIRECTORY_BYTES) {
        q2_violate(sink, Q2_PROBLEM_BITMAP_DIRECTORY_SIZE, extensions->bitmaps_at + 8, 8, size,
                   "bitmap_directory_size");
        readable = false;
        size = Q2_BITMAP_FIXED_LENGTH; /* the offset may be wrong too */
    }
    if (!aligned(geometry, offset) || offset == 0) {
        q2_violate(sink, Q2_PROBLEM_BITMAP_DIRECTORY_UNALIGNED, extensions->bitmaps_at + 16, 8,
                   offset, "bitmap_directory_offset");
        readable = false;
    } else if (!q2_range_inside(offset, size, geometry->file_size)) {
        q2_violate(sink, Q2_PROBLEM_BITMAP_DIRECTORY_PAST_END, extensions->bitmaps_at + 16, 8,
                   offset, "bitmap_directory_offset");
        readable = false;
    }
    return readable;
}

uint64_t
q2_bitmap_length(const struct q2_bitmap *bitmap)
{
    uint64_t length = (uint64_t)Q2_BITMAP_FIXED_LENGTH + bitmap->extra_length + bitmap->name_length;
    return (length + 7) & ~UINT64_C(7);
}

void
q2_bitmap_decode(const uint8_t *bytes, uint64_t at, struct q2_bitmap *ret_bitmap)
{
    *ret_bitmap = (struct q2_bitmap){
        .at = at,
        .table_offset = q2_load_be64(bytes + AT_TABLE_OFFSET),
        .table_size = q2_load_be32(bytes + AT_TABLE_SIZE),
        .flags = q2_load_be32(bytes + AT_FLAGS),
        .type = bytes[AT_TYPE],
        .granularity_bits = bytes[AT_GRANULARITY],
        .name_length = q2_load_be16(bytes + AT_NAME_LENGTH),
        .extra_length = q2_load_be32(bytes + AT_EXTRA_LENGTH),
    };
}

void
q2_bitmap_encode(const struct q2_bitmap *bitmap, uint8_t *bytes)
{
    q2_store_be64(bytes + AT_TABLE_OFFSET, bitmap->table_offset);
    q2_store_be32(bytes + AT_TABLE_SIZE, bitmap->table_size);
    q2_store_be32(bytes + AT_FLAGS, bitmap->flags);
    bytes[AT_TYPE] = bitmap->type;
    bytes[AT_GRANULARITY] = bitmap->granularity_bits;
    q2_store_be16(bytes + AT_NAME_LENGTH, bitmap->name_length);
    q2_store_be32(bytes + AT_EXTRA_LENGTH, bitmap->extra_length);
}

/* ---- rules ---- */

static void
validate_fields(const struct q2_bitmap *bitmap, const struct q2_sink *sink)
{
    uint64_t at = bitmap->at;
    if (bitmap->flags & ~(uint32_t)Q2_BITMAP_FLAGS_KNOWN)
        q2_violate_expected(sink, Q2_PROBLEM_BITMAP_FLAGS, at + AT_FLAGS, 4, bitmap->flags,
                            bitmap->flags & Q2_BITMAP_FLAGS_KNOWN, NULL);
    if (bitmap->flags & Q2_BITMAP_EXTRA_COMPATIBLE)
        q2_violate(sink, Q2_PROBLEM_BITMAP_EXTRA_FLAG, at + AT_FLAGS, 4, bitmap->flags, NULL);
    if (bitmap->flags & Q2_BITMAP_IN_USE)
        q2_violate(sink, Q2_PROBLEM_BITMAP_IN_USE, at + AT_FLAGS, 4, bitmap->flags, NULL);
    if (bitmap->type != Q2_BITMAP_TYPE_DIRTY)
        q2_violate_expected(sink, Q2_PROBLEM_BITMAP_TYPE, at + AT_TYPE, 1, bitmap->type,
                            Q2_BITMAP_TYPE_DIRTY, NULL);
    if (bitmap->extra_length)
        q2_violate_expected(sink, Q2_PROBLEM_BITMAP_EXTRA_DATA, at + AT_EXTRA_LENGTH, 4,
                            bitmap->extra_length, 0, NULL);
}

static void
validate_text(const struct q2_bitmap *bitmap, const uint8_t *entry, const struct q2_sink *sink)
{
    uint64_t name_at = (uint64_t)Q2_BITMAP_FIXED_LENGTH + bitmap->extra_length;
    unsigned tame = 0;
    while (tame < bitmap->name_length && entry[name_at + tame] >= 0x20 &&
           entry[name_at + tame] != 0x7f)
        tame++;
    if (bitmap->name_length > Q2_MAX_NAME)
        q2_violate(sink, Q2_PROBLEM_BITMAP_NAME, bitmap->at + AT_NAME_LENGTH, 2,
                   bitmap->name_length, "length");
    if (bitmap->name_length == 0)
        q2_violate(sink, Q2_PROBLEM_BITMAP_NAME_BYTES, bitmap->at + AT_NAME_LENGTH, 2, 0, "length");
    else if (tame < bitmap->name_length)
        q2_violate(sink, Q2_PROBLEM_BITMAP_NAME_BYTES, bitmap->at + name_at + tame, 1,
                   entry[name_at + tame], "byte %u", tame);

    uint64_t end = q2_bitmap_length(bitmap);
    for (uint64_t i = name_at + bitmap->name_length; i < end; i++)
        if (entry[i]) {
            q2_violate_expected(sink, Q2_PROBLEM_BITMAP_PADDING, bitmap->at + i, end - i, entry[i],
                                0, NULL);
            break;
        }
}

/* Entries that a bitmap's table must have: a bit for each granule of the disk. */
static uint64_t
table_entries_for(const struct q2_geometry *geometry, unsigned granularity_bits)
{
    uint64_t bits = q2_units(geometry->disk_size, granularity_bits);
    return q2_units(q2_units(bits, 3), geometry->cluster_bits);
}

bool
q2_bitmap_validate(const struct q2_geometry *geometry, const struct q2_bitmap *bitmap,
                   const uint8_t *entry, const struct q2_sink *sink)
{
    validate_fields(bitmap, sink);
    validate_text(bitmap, entry, sink);

    uint64_t at = bitmap->at;
    if (bitmap->granularity_bits < Q2_BITMAP_MIN_GRANULARITY_BITS ||
        bitmap->granularity_bits > Q2_BITMAP_MAX_GRANULARITY_BITS) {
        q2_violate(sink, Q2_PROBLEM_BITMAP_GRANULARITY, at + AT_GRANULARITY, 1,
                   bitmap->granularity_bits, NULL);
    } else if (!(bitmap->flags & Q2_BITMAP_IN_USE)) {
        /* A bitmap in use may lag behind a resize. */
        uint64_t needed = table_entries_for(geometry, bitmap->granularity_bits);
        if (bitmap->table_size != needed)
            q2_violate_expected(sink, Q2_PROBLEM_BITMAP_TABLE_SIZE, at + AT_TABLE_SIZE, 4,
                                bitmap->table_size, needed, NULL);
    }
    if (bitmap->table_size == 0)
        return false;
    if (!aligned(geometry, bitmap->table_offset) || bitmap->table_offset == 0) {
        q2_violate(sink, Q2_PROBLEM_BITMAP_TABLE_UNALIGNED, at + AT_TABLE_OFFSET, 8,
                   bitmap->table_offset, NULL);
        return false;
    }
    if (!q2_range_inside(bitmap->table_offset, (uint64_t)bitmap->table_size * 8,
                         geometry->file_size)) {
        q2_violate(sink, Q2_PROBLEM_BITMAP_TABLE_PAST_END, at + AT_TABLE_OFFSET, 8,
                   bitmap->table_offset, NULL);
        return false;
    }
    return true;
}

bool
q2_bitmap_entry_validate(const struct q2_geometry *geometry, uint64_t raw, uint64_t at,
                         const struct q2_sink *sink)
{
    uint64_t offset = raw & Q2_ENTRY_OFFSET;
    if ((raw & Q2_BITMAP_ENTRY_RESERVED) || (offset && (raw & Q2_BITMAP_ENTRY_ONES))) {
        uint64_t reserved = Q2_BITMAP_ENTRY_RESERVED | (offset ? Q2_BITMAP_ENTRY_ONES : 0);
        q2_violate_expected(sink, Q2_PROBLEM_BITMAP_ENTRY_RESERVED, at, 8, raw, raw & ~reserved,
                            NULL);
        return false;
    }
    if (offset == 0)
        return false;
    if (!aligned(geometry, offset)) {
        q2_violate(sink, Q2_PROBLEM_BITMAP_ENTRY_UNALIGNED, at, 8, raw, NULL);
        return false;
    }
    if (offset >= geometry->file_size) {
        q2_violate(sink, Q2_PROBLEM_BITMAP_ENTRY_PAST_END, at, 8, raw, NULL);
        return false;
    }
    return true;
}
