/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Persistent bitmaps: directory entries and bitmap table entries ("Bitmaps"). */

#ifndef Q2_FORMAT_BITMAP_H
#define Q2_FORMAT_BITMAP_H

#include "core/format/extension.h"

enum {
    Q2_BITMAP_FIXED_LENGTH = 24, /* bytes of a directory entry before its extra data */
    Q2_BITMAP_MIN_GRANULARITY_BITS = 9,
    Q2_BITMAP_MAX_GRANULARITY_BITS = 31,
    Q2_BITMAP_TYPE_DIRTY = 1,
    Q2_MAX_BITMAP_DIRECTORY_BYTES = 64 << 20,
};

enum q2_bitmap_flag {
    Q2_BITMAP_IN_USE = 1 << 0,
    Q2_BITMAP_AUTO = 1 << 1,
    Q2_BITMAP_EXTRA_COMPATIBLE = 1 << 2,
    Q2_BITMAP_FLAGS_KNOWN = 7,
};

#define Q2_BITMAP_ENTRY_RESERVED UINT64_C(0xff000000000001fe) /* without bit 0 */
#define Q2_BITMAP_ENTRY_ONES     UINT64_C(1)

struct q2_bitmap {
    uint64_t at; /* of the directory entry in the file, bytes */
    uint64_t table_offset;
    uint32_t table_size; /* entries */
    uint32_t flags;
    uint8_t type;
    uint8_t granularity_bits;
    uint16_t name_length;  /* bytes */
    uint32_t extra_length; /* bytes */
};

/* Hold the extension's fields against the rules. Returns whether the directory can be read. */
bool q2_bitmap_directory_validate(const struct q2_geometry *geometry,
                                  const struct q2_extensions *extensions,
                                  const struct q2_sink *sink);

/* Length of a directory entry with its padding, in bytes. */
uint64_t q2_bitmap_length(const struct q2_bitmap *bitmap);

/* Decode and encode the fixed part, Q2_BITMAP_FIXED_LENGTH bytes. */
void q2_bitmap_decode(const uint8_t *bytes, uint64_t at, struct q2_bitmap *ret_bitmap);
void q2_bitmap_encode(const struct q2_bitmap *bitmap, uint8_t *bytes);

/* Hold a directory entry against the rules; `entry` is the whole of it, q2_bitmap_length bytes.
 * Returns whether its table can be read. */
bool q2_bitmap_validate(const struct q2_geometry *geometry, const struct q2_bitmap *bitmap,
                        const uint8_t *entry, const struct q2_sink *sink);

/* Hold one entry of a bitmap table, found at host offset `at`, against the rules. Returns whether
 * it leads to a cluster that can be read. */
bool q2_bitmap_entry_validate(const struct q2_geometry *geometry, uint64_t raw, uint64_t at,
                              const struct q2_sink *sink);

#endif
