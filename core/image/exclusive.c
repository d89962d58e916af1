/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What comes before the first change, and having the image to oneself. */

#include "core/image/internal.h"

static int
check_writable(const struct q2_image *image, struct q2_error *err)
{
    if (!(image->flags & Q2_IMAGE_WRITE))
        return q2_error_set(err, Q2_ERR_READ_ONLY, "%s: the image is open read only",
                            image->file->name);
    return q2_check_broken(image, err);
}

int
q2_image_prepare_write(struct q2_image *image, struct q2_error *err)
{
    int rc = check_writable(image, err);
    if (rc < 0 || image->modified)
        return rc;

    struct q2_header header = image->header;
    bool lazy = header.version >= 3 && (header.compatible_features & Q2_COMPATIBLE_LAZY_REFCOUNTS);
    if (lazy)
        header.incompatible_features |= Q2_INCOMPATIBLE_DIRTY;
    /* Whoever set a bit that is unknown here would not know of this change. */
    header.autoclear_features &= Q2_AUTOCLEAR_KNOWN;
    if (header.incompatible_features != image->header.incompatible_features ||
        header.autoclear_features != image->header.autoclear_features) {
        rc = q2_header_store(image, &header, err);
        if (rc == 0)
            rc = q2_image_barrier(image, err);
    }
    if (rc == 0)
        rc = q2_bitmaps_prepare(image, err);
    if (rc < 0)
        return rc;
    image->marked_dirty = lazy;
    image->modified = true;
    return 0;
}

int
q2_exclusive_begin(struct q2_image *image, struct q2_exclusive *exclusive, bool to_write,
                   struct q2_error *err)
{
    q2_range_hold(&image->ranges, &exclusive->range, 0, UINT64_MAX, true);
    pthread_mutex_lock(&image->lock);
    int rc = to_write ? q2_image_prepare_write(image, err) : 0;
    if (rc == 0 && (image->flags & Q2_IMAGE_WRITE) && !image->broken)
        rc = q2_image_settle(image, err);
    if (rc < 0)
        q2_exclusive_end(image, exclusive);
    return rc;
}

void
q2_exclusive_end(struct q2_image *image, struct q2_exclusive *exclusive)
{
    pthread_mutex_unlock(&image->lock);
    q2_range_release(&image->ranges, &exclusive->range);
}
