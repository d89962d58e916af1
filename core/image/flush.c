/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The order in which metadata reaches the disk. internal.h says why. */

#include "core/image/refcounts.h"

#include <string.h>

int
q2_image_barrier(struct q2_image *image, struct q2_error *err)
{
    if (image->flags & Q2_IMAGE_UNSAFE)
        return 0;
    int rc = q2_file_flush(image->file, err);
    if (rc == 0 && image->data && image->data != image->file)
        rc = q2_file_flush(image->data, err);
    return rc;
}

/* Write the dirty sectors of a table of big-endian numbers at host `offset`. `dirty` has a bit for
 * each 64 entries. */
static int
write_table(struct q2_image *image, enum q2_claim claim, uint64_t offset, const uint64_t *table,
            uint64_t entries, uint64_t *dirty, struct q2_error *err)
{
    uint64_t sectors = q2_units(entries, 6);
    for (uint64_t sector = 0; sector < sectors; sector++) {
        if (!dirty[sector / 64]) {
            sector |= 63;
            continue;
        }
        if (!(dirty[sector / 64] >> (sector % 64) & 1))
            continue;
        uint8_t bytes[512];
        uint64_t count = q2_min(64, entries - sector * 64);
        for (uint64_t i = 0; i < count; i++)
            q2_store_be64(bytes + i * 8, table[sector * 64 + i]);
        int rc = q2_meta_write(image, claim, offset + sector * 512, bytes, count * 8, err);
        if (rc < 0)
            return rc;
        dirty[sector / 64] &= ~(UINT64_C(1) << (sector % 64));
    }
    return 0;
}

/* Refcounts that grew, with their blocks before the table that leads to them. With the dirty bit
 * set they may wait, as a crash has them counted anew. */
static int
write_refcounts(struct q2_image *image, struct q2_error *err)
{
    int rc = 0;
    if (image->refcount_table_any_dirty || !image->marked_dirty)
        rc = q2_cache_write(image->refcount_cache, false, err);
    if (rc < 0 || !image->refcount_table_any_dirty)
        return rc;
    rc = q2_image_barrier(image, err);
    if (rc == 0)
        rc = write_table(image, Q2_CLAIM_REFCOUNT_TABLE, image->header.refcount_table_offset,
                         image->refcount_table, image->refcount_table_entries,
                         image->refcount_table_dirty, err);
    if (rc == 0)
        image->refcount_table_any_dirty = false;
    return rc;
}

static int
write_mapping(struct q2_image *image, struct q2_error *err)
{
    int rc = q2_cache_write(image->l2_cache, true, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    if (rc == 0)
        rc = q2_cache_write(image->l2_cache, false, err);
    if (rc == 0)
        rc = write_table(image, Q2_CLAIM_L1, image->header.l1_table_offset, image->l1,
                         image->header.l1_size, image->l1_dirty, err);
    if (rc == 0) {
        image->l1_any_dirty = false;
        rc = q2_image_barrier(image, err);
    }
    if (rc == 0)
        q2_cache_settle(image->l2_cache);
    return rc;
}

static bool
mapping_dirty(const struct q2_image *image)
{
    return image->l1_any_dirty || q2_cache_any_dirty(image->l2_cache);
}

int
q2_image_write_back(struct q2_image *image, struct q2_error *err)
{
    if (!image->refcount_cache)
        return 0;
    int rc = q2_check_broken(image, err);
    if (rc == 0)
        rc = write_refcounts(image, err);
    if (rc == 0 && (mapping_dirty(image) || image->mapping_unsettled)) {
        /* Written but not yet known to be durable, should a barrier fail. */
        image->mapping_unsettled = true;
        rc = write_mapping(image, err);
        if (rc == 0)
            image->mapping_unsettled = false;
    }
    if (rc == 0)
        q2_release_leaving(image);
    return rc;
}

int
q2_image_settle(struct q2_image *image, struct q2_error *err)
{
    int rc = q2_image_write_back(image, err);
    if (rc < 0 || !image->refcount_cache)
        return rc;
    rc = q2_free_released(image, err);
    if (rc == 0)
        rc = q2_cache_write(image->refcount_cache, false, err);
    return rc;
}

int
q2_image_flush(struct q2_image *image, struct q2_error *err)
{
    pthread_mutex_lock(&image->lock);
    int rc = 0;
    /* Writing the mapping ends with a barrier of its own; what is freed after it may wait. */
    bool barrier = image->refcount_cache && (mapping_dirty(image) || image->mapping_unsettled);
    bool metadata = image->refcount_cache &&
                    (barrier || image->refcount_table_any_dirty || image->leaving.count > 0 ||
                     image->released.count > 0 || q2_cache_any_dirty(image->refcount_cache));
    if (metadata) {
        rc = q2_image_write_back(image, err);
        if (rc == 0)
            rc = q2_free_released(image, err);
        if (rc == 0 && !image->marked_dirty)
            rc = q2_cache_write(image->refcount_cache, false, err);
    }
    pthread_mutex_unlock(&image->lock);
    /* Also without metadata to write there may be guest data to make durable. */
    if (rc == 0 && !barrier && (image->flags & Q2_IMAGE_WRITE))
        rc = q2_image_barrier(image, err);
    return rc;
}
