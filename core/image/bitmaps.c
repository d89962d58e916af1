/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What callers do with bitmaps. Changes are made in memory while the whole image is held, and reach
 * the disk when the image is closed; a bitmap that is on the disk already is marked in use there
 * before it changes, so that a crash in between leaves nothing that is wrong and looks right. */

#include "core/image/bitmaps.h"

#include "core/image/bitmap_list.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- looking ---- */

/* The lock of an image that is otherwise only looked at. */
static pthread_mutex_t *
lock_of(const struct q2_image *image)
{
    return (pthread_mutex_t *)&image->lock;
}

unsigned
q2_bitmap_count(const struct q2_image *image)
{
    pthread_mutex_lock(lock_of(image));
    unsigned count = image->bitmaps ? image->bitmaps->count : 0;
    pthread_mutex_unlock(lock_of(image));
    return count;
}

static bool
find(const struct q2_image *image, const char *name, unsigned *ret_index)
{
    const struct q2_bitmaps *bitmaps = image->bitmaps;
    size_t length = strlen(name);
    for (unsigned i = 0; bitmaps && i < bitmaps->count; i++) {
        const struct q2_bitmap_item *item = &bitmaps->items[i];
        if (item->entry.name_length == length &&
            memcmp(q2_bitmap_item_name(item), name, length) == 0) {
            *ret_index = i;
            return true;
        }
    }
    return false;
}

int
q2_bitmap_find(const struct q2_image *image, const char *name, unsigned *ret_index,
               struct q2_error *err)
{
    char printable[64];
    pthread_mutex_lock(lock_of(image));
    bool found = find(image, name, ret_index);
    pthread_mutex_unlock(lock_of(image));
    if (found)
        return 0;
    return q2_error_set(err, Q2_ERR_NOT_FOUND, "%s: there is no bitmap '%s'", image->file->name,
                        q2_printable(printable, sizeof printable, name, strlen(name)));
}

/* Under the lock, or with the whole image held. */
static int
item_at(struct q2_image *image, unsigned index, struct q2_bitmap_item **ret_item,
        struct q2_error *err)
{
    unsigned count = image->bitmaps ? image->bitmaps->count : 0;
    if (index >= count)
        return q2_error_set(err, Q2_ERR_NOT_FOUND, "%s: there is no bitmap %u, but %u bitmaps",
                            image->file->name, index, count);
    *ret_item = &image->bitmaps->items[index];
    return 0;
}

static uint64_t
dirty_bytes(const struct q2_image *image, const struct q2_bitmap_item *item)
{
    unsigned granularity = item->entry.granularity_bits;
    uint64_t bytes = 0, end = 0, size = image->size;
    for (uint64_t at = 0; at < item->bit_count; at = end) {
        bool set = false;
        end = q2_bitmap_bits_run(item->bits, at, item->bit_count, &set);
        if (set)
            bytes += q2_min(end << granularity, size) - (at << granularity);
    }
    return bytes;
}

int
q2_bitmap_info(struct q2_image *image, unsigned index, struct q2_bitmap_info *ret_info,
               struct q2_error *err)
{
    struct q2_bitmap_item *item = NULL;
    pthread_mutex_lock(&image->lock);
    int rc = item_at(image, index, &item, err);
    if (rc == 0 && q2_bitmap_item_usable(item))
        rc = q2_bitmap_bits_need(image, item, err);
    if (rc == 0)
        *ret_info = (struct q2_bitmap_info){
            .name = q2_bitmap_item_name(item),
            .granularity = UINT64_C(1) << item->entry.granularity_bits,
            .enabled = q2_bitmap_item_enabled(item),
            .in_use = item->entry.flags & Q2_BITMAP_IN_USE,
            .dirty_bytes = item->bits ? dirty_bytes(image, item) : 0,
        };
    pthread_mutex_unlock(&image->lock);
    return rc;
}

/* The item, if its bits mean something, with them in memory. */
static int
usable_at(struct q2_image *image, unsigned index, struct q2_bitmap_item **ret_item,
          struct q2_error *err)
{
    struct q2_bitmap_item *item = NULL;
    int rc = item_at(image, index, &item, err);
    if (rc == 0)
        rc = q2_bitmap_item_check(image, item, err);
    if (rc == 0)
        rc = q2_bitmap_bits_need(image, item, err);
    if (rc == 0)
        *ret_item = item;
    return rc;
}

int
q2_bitmap_extent(struct q2_image *image, unsigned index, uint64_t offset, bool *ret_dirty,
                 uint64_t *ret_end, struct q2_error *err)
{
    struct q2_bitmap_item *item = NULL;
    pthread_mutex_lock(&image->lock);
    int rc = usable_at(image, index, &item, err);
    if (rc == 0 && offset >= image->size)
        rc = q2_error_set(err, Q2_ERR_RANGE,
                          "%s: offset %" PRIu64 " is not inside the disk of %" PRIu64 " bytes",
                          image->file->name, offset, image->size);
    if (rc == 0) {
        unsigned granularity = item->entry.granularity_bits;
        uint64_t end =
            q2_bitmap_bits_run(item->bits, offset >> granularity, item->bit_count, ret_dirty);
        *ret_end = q2_min(end << granularity, image->size);
    }
    pthread_mutex_unlock(&image->lock);
    return rc;
}

/* ---- changing ---- */

/* The smallest disk that QEMU knows a bitmap for has one bit; a table without entries it refuses.
 */
static int
validate_new(struct q2_image *image, const char *name, uint64_t granularity, struct q2_error *err)
{
    unsigned bits = (unsigned)__builtin_ctzll(granularity | UINT64_C(1) << 63);
    unsigned other = 0;
    size_t length = strlen(name);
    uint64_t size = image->size;
    if (image->header.version < 3)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED, "%s: version 2 has no bitmaps",
                            image->file->name);
    if (length == 0 || length > Q2_MAX_NAME)
        return q2_error_set(err, Q2_ERR_RANGE, "a bitmap's name of %zu bytes; it has 1 to %d bytes",
                            length, Q2_MAX_NAME);
    if (granularity != UINT64_C(1) << bits || bits < Q2_BITMAP_MIN_GRANULARITY_BITS ||
        bits > Q2_BITMAP_MAX_GRANULARITY_BITS)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "a bitmap's granularity of %" PRIu64
                            " bytes; it is a power of two from 512 to 2147483648",
                            granularity);
    if (size == 0 || q2_bitmap_clusters_for(&image->geometry, size, bits) >
                         Q2_MAX_BITMAP_BITS_BYTES >> image->geometry.cluster_bits)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "%s: a bitmap of granularity %" PRIu64 " for a disk of %" PRIu64
                            " bytes would have no bits or more than %" PRIu64 " bytes of them",
                            image->file->name, granularity, size, Q2_MAX_BITMAP_BITS_BYTES);
    if (find(image, name, &other))
        return q2_error_set(err, Q2_ERR_EXISTS, "%s: there is a bitmap of that name already",
                            image->file->name);
    if (image->bitmaps && image->bitmaps->count >= Q2_MAX_BITMAPS)
        return q2_error_set(err, Q2_ERR_RANGE, "%s: there are %d bitmaps already",
                            image->file->name, Q2_MAX_BITMAPS);
    return 0;
}

/* Whether the extension fits into the first cluster: better known now than when all is stored. */
static int
validate_room(const struct q2_image *image, struct q2_error *err)
{
    struct q2_header header = image->header;
    struct q2_area area = image->area;
    area.has_bitmaps = true;
    Q2_AUTOFREE uint8_t *cluster = calloc(1, image->geometry.cluster_size);
    if (!cluster)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a cluster");
    return q2_area_encode(&header, &area, cluster, image->geometry.cluster_size, err);
}

static uint64_t
default_granularity(const struct q2_image *image)
{
    return q2_min(q2_max(image->geometry.cluster_size, 4096), 65536);
}

static int
add(struct q2_image *image, const char *name, uint64_t granularity, bool enabled,
    struct q2_error *err)
{
    if (granularity == 0)
        granularity = default_granularity(image);
    int rc = validate_new(image, name, granularity, err);
    if (rc == 0)
        rc = validate_room(image, err);
    if (rc == 0 && !image->bitmaps)
        rc = q2_bitmap_list_new(&image->bitmaps, err);
    struct q2_bitmap_item *item = NULL;
    size_t length = strlen(name);
    if (rc == 0)
        rc = q2_bitmap_list_add(image->bitmaps, length, &item, err);
    if (rc < 0)
        return rc;
    memcpy(item->text, name, length);
    item->entry = (struct q2_bitmap){.flags = enabled ? Q2_BITMAP_AUTO : 0,
                                     .type = Q2_BITMAP_TYPE_DIRTY,
                                     .granularity_bits = (uint8_t)__builtin_ctzll(granularity),
                                     .name_length = (uint16_t)length};
    rc = q2_bitmap_bits_new(image, item, err);
    if (rc < 0) {
        q2_bitmap_list_drop(image->bitmaps, image->bitmaps->count - 1);
        return rc;
    }
    item->recording = enabled;
    item->changed = true;
    image->bitmaps->changed = true;
    return 0;
}

int
q2_bitmap_add(struct q2_image *image, const char *name, uint64_t granularity, bool enabled,
              struct q2_error *err)
{
    struct q2_exclusive exclusive;
    int rc = q2_exclusive_begin(image, &exclusive, true, err);
    if (rc < 0)
        return rc;
    rc = add(image, name, granularity, enabled, err);
    q2_exclusive_end(image, &exclusive);
    return rc;
}

int
q2_bitmap_remove(struct q2_image *image, unsigned index, struct q2_error *err)
{
    struct q2_exclusive exclusive;
    struct q2_bitmap_item *item = NULL;
    int rc = q2_exclusive_begin(image, &exclusive, true, err);
    if (rc < 0)
        return rc;
    rc = item_at(image, index, &item, err);
    if (rc == 0) {
        q2_bitmap_item_leave(image->bitmaps, item);
        q2_bitmap_list_drop(image->bitmaps, index);
        image->bitmaps->changed = true;
    }
    q2_exclusive_end(image, &exclusive);
    return rc;
}

int
q2_bitmap_clear(struct q2_image *image, unsigned index, struct q2_error *err)
{
    struct q2_exclusive exclusive;
    struct q2_bitmap_item *item = NULL;
    int rc = q2_exclusive_begin(image, &exclusive, true, err);
    if (rc < 0)
        return rc;
    rc = item_at(image, index, &item, err);
    if (rc == 0)
        rc = q2_bitmap_item_check(image, item, err);
    if (rc == 0)
        rc = q2_bitmap_item_mark(image, item, err);
    if (rc == 0)
        rc = q2_bitmap_bits_new(image, item, err);
    if (rc == 0)
        item->changed = true;
    q2_exclusive_end(image, &exclusive);
    return rc;
}

int
q2_bitmap_set_enabled(struct q2_image *image, unsigned index, bool enabled, struct q2_error *err)
{
    struct q2_exclusive exclusive;
    struct q2_bitmap_item *item = NULL;
    int rc = q2_exclusive_begin(image, &exclusive, true, err);
    if (rc < 0)
        return rc;
    rc = usable_at(image, index, &item, err);
    if (rc == 0 && q2_bitmap_item_enabled(item) != enabled)
        rc = q2_bitmap_item_mark(image, item, err);
    if (rc == 0) {
        item->entry.flags &= ~(uint32_t)Q2_BITMAP_AUTO;
        if (enabled)
            item->entry.flags |= Q2_BITMAP_AUTO;
        item->recording = enabled;
        image->bitmaps->changed = true;
    }
    q2_exclusive_end(image, &exclusive);
    return rc;
}

/* ---- merging ---- */

/* The bits of a bitmap as they are now, so that no two images are held at once. */
struct copy {
    uint64_t *bits;
    uint64_t count;
    unsigned granularity_bits;
    uint64_t disk_size; /* bytes */
};

static int
copy_bits(struct q2_image *image, unsigned index, struct copy *ret_copy, struct q2_error *err)
{
    struct q2_bitmap_item *item = NULL;
    pthread_mutex_lock(&image->lock);
    int rc = usable_at(image, index, &item, err);
    if (rc == 0) {
        uint64_t words = q2_units(item->bit_count, 6);
        uint64_t *bits = calloc(words + 1, sizeof *bits);
        if (!bits)
            rc = q2_error_set(err, Q2_ERR_NOMEM, "no memory for a copy of a bitmap");
        for (uint64_t i = 0; rc == 0 && i < words; i++)
            bits[i] = __atomic_load_n(&item->bits[i], __ATOMIC_RELAXED);
        if (rc == 0)
            *ret_copy =
                (struct copy){bits, item->bit_count, item->entry.granularity_bits, image->size};
    }
    pthread_mutex_unlock(&image->lock);
    return rc;
}

static void
merge(struct q2_bitmap_item *item, const struct copy *copy)
{
    unsigned to = item->entry.granularity_bits, from = copy->granularity_bits;
    uint64_t end = 0;
    for (uint64_t at = 0; at < copy->count; at = end) {
        bool set = false;
        end = q2_bitmap_bits_run(copy->bits, at, copy->count, &set);
        if (!set)
            continue;
        uint64_t first = at << from >> to;
        uint64_t last = q2_min(q2_units(q2_min(end << from, copy->disk_size), to), item->bit_count);
        q2_bitmap_bits_set(item->bits, first, last - first);
    }
}

int
q2_bitmap_merge(struct q2_image *image, unsigned index, struct q2_image *source,
                unsigned source_index, struct q2_error *err)
{
    struct q2_exclusive exclusive;
    struct q2_bitmap_item *item = NULL;
    struct copy copy = {0};
    int rc = copy_bits(source, source_index, &copy, err);
    if (rc < 0)
        return rc;
    rc = q2_exclusive_begin(image, &exclusive, true, err);
    if (rc < 0) {
        free(copy.bits);
        return rc;
    }
    if (copy.disk_size != image->size)
        rc = q2_error_set(err, Q2_ERR_RANGE,
                          "%s: a disk of %" PRIu64 " bytes cannot take the bits of one of %" PRIu64
                          " bytes",
                          image->file->name, image->size, copy.disk_size);
    if (rc == 0)
        rc = usable_at(image, index, &item, err);
    if (rc == 0)
        rc = q2_bitmap_item_mark(image, item, err);
    if (rc == 0) {
        merge(item, &copy);
        item->changed = true;
    }
    q2_exclusive_end(image, &exclusive);
    free(copy.bits);
    return rc;
}
