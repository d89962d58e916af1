/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Persistent dirty bitmaps ("Bitmaps" in the specification): which parts of the disk were written
 * since some time, kept for incremental backups.
 *
 * An image opened for writing marks its enabled bitmaps "in use" at the first write, keeps them in
 * memory while it is open, and stores them when it is closed; after a crash they are inconsistent,
 * as the specification demands, and can only be removed. */

#ifndef Q2_IMAGE_BITMAPS_H
#define Q2_IMAGE_BITMAPS_H

#include "core/image/image.h"

struct q2_bitmap_info {
    const char *name;     /* belongs to the image until its bitmaps change */
    uint64_t granularity; /* bytes of the disk for each bit */
    bool enabled;         /* records writes ("auto") */
    bool in_use;          /* inconsistent: it was not stored when last used */
    uint64_t dirty_bytes; /* of the disk, as far as bits are known */
};

unsigned q2_bitmap_count(const struct q2_image *image);
int q2_bitmap_info(struct q2_image *image, unsigned index, struct q2_bitmap_info *ret_info,
                   struct q2_error *err);
/* Q2_ERR_NOT_FOUND. */
int q2_bitmap_find(const struct q2_image *image, const char *name, unsigned *ret_index,
                   struct q2_error *err);

/* `granularity` is a power of two from 512 bytes to 2 GiB; 0: the cluster size, within 4 KiB to
 * 64 KiB. */
int q2_bitmap_add(struct q2_image *image, const char *name, uint64_t granularity, bool enabled,
                  struct q2_error *err);
int q2_bitmap_remove(struct q2_image *image, unsigned index, struct q2_error *err);
int q2_bitmap_clear(struct q2_image *image, unsigned index, struct q2_error *err);
int q2_bitmap_set_enabled(struct q2_image *image, unsigned index, bool enabled,
                          struct q2_error *err);
/* Add the bits of a bitmap of `source` (which may be `image` itself) to that of `image`; both disks
 * have the same size, the granularities may differ. */
int q2_bitmap_merge(struct q2_image *image, unsigned index, struct q2_image *source,
                    unsigned source_index, struct q2_error *err);

/* Whether the byte at `offset` is marked dirty, and where the run of equal bits ends. */
int q2_bitmap_extent(struct q2_image *image, unsigned index, uint64_t offset, bool *ret_dirty,
                     uint64_t *ret_end, struct q2_error *err);

#endif
