/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "fuzz/support/guest.h"

#include "core/base/checked.h"

enum { MOST_PIECES = 2048 };

/* The piece at `offset`, if it can be read. */
static void
look(struct q2_image *image, uint64_t offset, uint64_t length,
     void (*visit)(void *data, uint64_t offset, const uint8_t *bytes, size_t length), void *data)
{
    uint8_t bytes[Q2_FUZZ_PIECE];
    if (q2_image_read(image, offset, bytes, (size_t)length, NULL) == 0)
        visit(data, offset, bytes, (size_t)length);
}

void
q2_fuzz_guest(struct q2_image *image,
              void (*visit)(void *data, uint64_t offset, const uint8_t *bytes, size_t length),
              void *data)
{
    uint64_t size = q2_image_size(image), offset = 0;
    uint64_t unit = q2_min(q2_image_geometry(image)->cluster_size, Q2_FUZZ_PIECE);
    for (int i = 0; i < MOST_PIECES && offset < size; i++) {
        uint64_t length = q2_min(unit, size - offset), end = offset + length;
        struct q2_extent extent;
        look(image, offset, length, visit, data);
        int rc = q2_image_map_own(image, offset, size - offset, &extent, NULL);
        if (rc == 0 && !extent.data && extent.length > 2 * unit)
            end = (offset + extent.length - 1) / unit * unit;
        offset = end;
    }
}
