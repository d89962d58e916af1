/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Bitmaps and the disk.
 *
 * Marking in use changes four bytes in place, which no sector boundary cuts: whatever a crash
 * leaves of several such writes, each bitmap is either true or marked. Storing writes nothing in
 * place: new tables and a new directory go into new clusters, and one write of the header leads to
 * them. Before it all bitmaps that changed are marked, after it none is. */

#include "core/image/bitmap_list.h"

#include "core/base/endian.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { AT_FLAGS = 12 }; /* in a directory entry */

/* ---- marks ---- */

/* Not durable before a barrier. */
static int
write_mark(struct q2_image *image, struct q2_bitmap_item *item, struct q2_error *err)
{
    uint8_t flags[4];
    if (item->marked || item->entry.at == 0)
        return 0;
    q2_store_be32(flags, item->entry.flags | Q2_BITMAP_IN_USE);
    int rc =
        q2_meta_write(image, Q2_CLAIM_BITMAPS, item->entry.at + AT_FLAGS, flags, sizeof flags, err);
    item->marked |= rc == 0;
    return rc;
}

int
q2_bitmap_item_mark(struct q2_image *image, struct q2_bitmap_item *item, struct q2_error *err)
{
    int rc = write_mark(image, item, err);
    return rc < 0 ? rc : q2_image_barrier(image, err);
}

/* It cannot follow what happens to the disk: from now on it is inconsistent. */
static void
lose(struct q2_bitmaps *bitmaps, struct q2_bitmap_item *item)
{
    q2_bitmap_bits_free(bitmaps, item);
    item->entry.flags |= Q2_BITMAP_IN_USE;
    item->recording = false;
    item->changed = false;
}

static bool
lacks_memory(int rc)
{
    return rc == Q2_ERR_BUDGET || rc == Q2_ERR_NOMEM;
}

int
q2_bitmaps_prepare(struct q2_image *image, struct q2_error *err)
{
    struct q2_bitmaps *bitmaps = image->bitmaps;
    bool any = false;
    int rc = 0;
    for (unsigned i = 0; bitmaps && i < bitmaps->count && rc >= 0; i++) {
        struct q2_bitmap_item *item = &bitmaps->items[i];
        if (!q2_bitmap_item_enabled(item) || (item->entry.flags & Q2_BITMAP_IN_USE))
            continue;
        if (q2_bitmap_item_usable(item))
            rc = q2_bitmap_bits_need(image, item, err);
        if (rc < 0 && !lacks_memory(rc))
            break;
        rc = write_mark(image, item, err);
        any = true;
    }
    if (any && rc == 0)
        rc = q2_image_barrier(image, err);
    for (unsigned i = 0; any && rc == 0 && i < bitmaps->count; i++) {
        struct q2_bitmap_item *item = &bitmaps->items[i];
        if (!q2_bitmap_item_enabled(item) || (item->entry.flags & Q2_BITMAP_IN_USE))
            continue;
        item->recording = q2_bitmap_item_usable(item) && item->bits;
        if (!item->recording)
            lose(bitmaps, item);
    }
    return rc;
}

void
q2_bitmaps_mark(struct q2_image *image, uint64_t offset, uint64_t length)
{
    struct q2_bitmaps *bitmaps = image->bitmaps;
    if (!bitmaps || length == 0)
        return;
    for (unsigned i = 0; i < bitmaps->count; i++) {
        struct q2_bitmap_item *item = &bitmaps->items[i];
        unsigned granularity = item->entry.granularity_bits;
        if (!item->recording)
            continue;
        uint64_t first = offset >> granularity;
        uint64_t end = q2_min(q2_units(offset + length, granularity), item->bit_count);
        if (first < end && q2_bitmap_bits_set(item->bits, first, end - first))
            atomic_store_explicit(&item->changed, true, memory_order_relaxed);
    }
}

int
q2_bitmaps_resize(struct q2_image *image, uint64_t size, struct q2_error *err)
{
    struct q2_bitmaps *bitmaps = image->bitmaps;
    int rc = 0;
    for (unsigned i = 0; bitmaps && i < bitmaps->count && rc == 0; i++) {
        struct q2_bitmap_item *item = &bitmaps->items[i];
        unsigned granularity = item->entry.granularity_bits;
        if (item->entry.flags & Q2_BITMAP_IN_USE)
            continue; /* may lag behind */
        uint64_t clusters = q2_bitmap_clusters_for(&image->geometry, size, granularity);
        if (size == 0 || clusters > Q2_MAX_BITMAP_BITS_BYTES >> image->geometry.cluster_bits)
            return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                                "%s: a bitmap of granularity %" PRIu64
                                " cannot follow a disk of %" PRIu64 " bytes",
                                image->file->name, UINT64_C(1) << granularity, size);
        rc = q2_bitmap_item_check(image, item, err);
        if (rc == 0)
            rc = q2_bitmap_bits_need(image, item, err);
    }
    for (unsigned i = 0; bitmaps && i < bitmaps->count && rc == 0; i++)
        if (!(bitmaps->items[i].entry.flags & Q2_BITMAP_IN_USE))
            rc = write_mark(image, &bitmaps->items[i], err);
    if (!bitmaps || rc < 0)
        return rc;
    rc = q2_image_barrier(image, err);
    for (unsigned i = 0; i < bitmaps->count && rc == 0; i++) {
        struct q2_bitmap_item *item = &bitmaps->items[i];
        if (item->entry.flags & Q2_BITMAP_IN_USE)
            continue;
        if (q2_bitmap_bits_resize(bitmaps, item, size, NULL) < 0)
            lose(bitmaps, item);
        else
            item->changed = true;
    }
    return rc;
}

/* ---- what is left behind ---- */

void
q2_bitmap_item_leave(struct q2_bitmaps *bitmaps, const struct q2_bitmap_item *item)
{
    if (item->entry.table_size == 0)
        return;
    if (bitmaps->gone_count == bitmaps->gone_capacity) {
        size_t capacity = bitmaps->gone_capacity ? 2 * bitmaps->gone_capacity : 4;
        void *grown = realloc(bitmaps->gone, capacity * sizeof *bitmaps->gone);
        if (!grown)
            return;
        bitmaps->gone = grown;
        bitmaps->gone_capacity = capacity;
    }
    bitmaps->gone[bitmaps->gone_count++] =
        (struct q2_bitmap_gone){.offset = item->entry.table_offset,
                                .entries = item->entry.table_size};
}

static void
free_bytes(struct q2_image *image, uint64_t offset, uint64_t length, bool now)
{
    unsigned bits = image->geometry.cluster_bits;
    if (length == 0)
        return;
    if (now)
        q2_free_now(image, offset >> bits, q2_units(length, bits));
    else
        q2_free_later(image, offset >> bits, q2_units(length, bits));
}

static void
free_entries(struct q2_image *image, const uint64_t *table, uint64_t entries, bool now)
{
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t cluster = q2_entry_offset(table[i]) >> image->geometry.cluster_bits;
        if (cluster && now)
            q2_free_now(image, cluster, 1);
        else if (cluster)
            q2_free_data_later(image, cluster, 1);
    }
}

/* A table that cannot be read leaks what it led to. */
static void
free_gone(struct q2_image *image, struct q2_bitmaps *bitmaps)
{
    for (size_t i = 0; i < bitmaps->gone_count; i++) {
        const struct q2_bitmap_gone *gone = &bitmaps->gone[i];
        Q2_AUTOFREE uint64_t *table = NULL;
        if (q2_bitmap_table_read(image, image->file->name, gone->offset, gone->entries, &table,
                                 NULL) == 0)
            free_entries(image, table, gone->entries, false);
        free_bytes(image, gone->offset, gone->entries * 8, false);
    }
    bitmaps->gone_count = 0;
}

/* ---- storing ---- */

/* The entry of the new table that stands for `count` words, with `bits` bits. */
static int
store_cluster(struct q2_image *image, const uint64_t *words, uint64_t count, uint64_t bits,
              uint8_t *buffer, uint64_t *ret_entry, struct q2_error *err)
{
    bool set = false;
    if (q2_bitmap_bits_run(words, 0, bits, &set) == bits) {
        *ret_entry = set ? Q2_BITMAP_ENTRY_ONES : 0;
        return 0;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t word = htole64(words[i]);
        memcpy(buffer + i * 8, &word, 8);
    }
    memset(buffer + count * 8, 0, image->geometry.cluster_size - count * 8);
    uint64_t offset = 0;
    int rc = q2_allocate(image, 1, Q2_CLAIM_NONE, &offset, err);
    if (rc < 0)
        return rc;
    *ret_entry = offset; /* so that it is freed where the write fails */
    return q2_meta_write(image, Q2_CLAIM_NONE, offset, buffer, image->geometry.cluster_size, err);
}

/* The new table itself: entries in a whole number of clusters. */
static int
store_table(struct q2_image *image, struct q2_bitmap_item *item, struct q2_error *err)
{
    uint64_t clusters = q2_units(item->new_entries * 8, image->geometry.cluster_bits);
    uint64_t bytes = clusters << image->geometry.cluster_bits;
    Q2_AUTOFREE uint8_t *buffer = calloc(1, bytes);
    if (!buffer)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a bitmap table of %" PRIu64 " bytes",
                            bytes);
    for (uint64_t i = 0; i < item->new_entries; i++)
        q2_store_be64(buffer + i * 8, item->new_table[i]);
    int rc = q2_allocate(image, clusters, Q2_CLAIM_BITMAPS, &item->new_offset, err);
    return rc < 0 ? rc
                  : q2_meta_write(image, Q2_CLAIM_BITMAPS, item->new_offset, buffer, bytes, err);
}

/* Where the disk did not get the size that the bitmap prepared for, what is not known is dirty. */
static int
fit(struct q2_image *image, struct q2_bitmap_item *item, struct q2_error *err)
{
    uint64_t had = item->bit_count;
    uint64_t need = q2_bitmap_bits_for(image->size, item->entry.granularity_bits);
    if (had == need)
        return 0;
    int rc = q2_bitmap_bits_resize(image->bitmaps, item, image->size, err);
    if (rc == 0 && had < need)
        q2_bitmap_bits_set(item->bits, had, need - had);
    return rc;
}

static int
store_bits(struct q2_image *image, struct q2_bitmap_item *item, uint8_t *buffer,
           struct q2_error *err)
{
    const struct q2_geometry *geometry = &image->geometry;
    int rc = fit(image, item, err);
    if (rc < 0)
        return rc;
    uint64_t entries = q2_bitmap_clusters_for(geometry, image->size, item->entry.granularity_bits);
    item->new_table = calloc(entries + 1, sizeof *item->new_table);
    if (!item->new_table)
        return q2_error_set(err, Q2_ERR_NOMEM,
                            "no memory for a bitmap table of %" PRIu64 " entries", entries);
    item->new_entries = entries;
    uint64_t bits_per_cluster = geometry->cluster_size * 8;
    for (uint64_t i = 0; i < entries && rc == 0; i++) {
        uint64_t first = i * bits_per_cluster;
        uint64_t bits = q2_min(bits_per_cluster, item->bit_count - first);
        rc = store_cluster(image, item->bits + first / 64, q2_units(bits, 6), bits, buffer,
                           &item->new_table[i], err);
    }
    return rc < 0 ? rc : store_table(image, item, err);
}

struct directory {
    uint64_t offset; /* bytes */
    uint64_t size;   /* bytes */
};

static int
store_directory(struct q2_image *image, struct directory *ret_directory, struct q2_error *err)
{
    struct q2_bitmaps *bitmaps = image->bitmaps;
    unsigned bits = image->geometry.cluster_bits;
    uint64_t size = 0;
    for (unsigned i = 0; i < bitmaps->count; i++)
        size += q2_bitmap_length(&bitmaps->items[i].entry);
    if (size > Q2_MAX_BITMAP_DIRECTORY_BYTES)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "%s: a bitmap directory of %" PRIu64 " bytes is larger than %d bytes",
                            image->file->name, size, Q2_MAX_BITMAP_DIRECTORY_BYTES);
    uint64_t clusters = q2_units(size, bits), at = 0, offset = 0;
    Q2_AUTOFREE uint8_t *buffer = calloc(clusters + 1, image->geometry.cluster_size);
    if (!buffer)
        return q2_error_set(err, Q2_ERR_NOMEM,
                            "no memory for a bitmap directory of %" PRIu64 " bytes", size);
    for (unsigned i = 0; i < bitmaps->count; i++) {
        const struct q2_bitmap_item *item = &bitmaps->items[i];
        struct q2_bitmap entry = item->entry;
        if (item->new_table) {
            entry.table_offset = item->new_offset;
            entry.table_size = (uint32_t)item->new_entries;
        }
        q2_bitmap_encode(&entry, buffer + at);
        memcpy(buffer + at + Q2_BITMAP_FIXED_LENGTH, item->text,
               (size_t)entry.extra_length + entry.name_length);
        at += q2_bitmap_length(&entry);
    }
    int rc = clusters ? q2_allocate(image, clusters, Q2_CLAIM_BITMAPS, &offset, err) : 0;
    if (rc < 0)
        return rc;
    *ret_directory = (struct directory){.offset = offset, .size = size};
    return clusters ? q2_meta_write(image, Q2_CLAIM_BITMAPS, offset, buffer, clusters << bits, err)
                    : 0;
}

/* One write of the first cluster, and from then on the disk has the new directory. */
static int
lead_to(struct q2_image *image, const struct directory *directory, struct q2_error *err)
{
    struct q2_area *area = &image->area, before = *area;
    struct q2_header header = image->header;
    area->has_bitmaps = image->bitmaps->count > 0;
    area->nb_bitmaps = image->bitmaps->count;
    area->bitmap_directory_offset = directory->offset;
    area->bitmap_directory_size = directory->size;
    header.autoclear_features &= ~(uint64_t)Q2_AUTOCLEAR_BITMAPS;
    if (area->has_bitmaps)
        header.autoclear_features |= Q2_AUTOCLEAR_BITMAPS;
    int rc = q2_area_store(image, &header, area, err);
    if (rc < 0) {
        area->has_bitmaps = before.has_bitmaps;
        area->nb_bitmaps = before.nb_bitmaps;
        area->bitmap_directory_offset = before.bitmap_directory_offset;
        area->bitmap_directory_size = before.bitmap_directory_size;
    }
    return rc;
}

/* Nothing on the disk leads to what was made. */
static void
undo(struct q2_image *image, const struct directory *directory)
{
    for (unsigned i = 0; i < image->bitmaps->count; i++) {
        struct q2_bitmap_item *item = &image->bitmaps->items[i];
        if (!item->new_table)
            continue;
        free_entries(image, item->new_table, item->new_entries, true);
        if (item->new_offset)
            free_bytes(image, item->new_offset, item->new_entries * 8, true);
    }
    free_bytes(image, directory->offset, directory->size, true);
}

static void
forget_new(struct q2_bitmaps *bitmaps)
{
    for (unsigned i = 0; i < bitmaps->count; i++) {
        struct q2_bitmap_item *item = &bitmaps->items[i];
        free(item->new_table);
        item->new_table = NULL;
        item->new_offset = item->new_entries = 0;
    }
}

/* The disk has the new directory: make the list say so, and remember what is old. */
static void
adopt(struct q2_bitmaps *bitmaps, const struct directory *directory)
{
    uint64_t at = directory->offset;
    for (unsigned i = 0; i < bitmaps->count; i++) {
        struct q2_bitmap_item *item = &bitmaps->items[i];
        if (item->new_table) {
            q2_bitmap_item_leave(bitmaps, item);
            item->entry.table_offset = item->new_offset;
            item->entry.table_size = (uint32_t)item->new_entries;
            item->changed = false;
        }
        item->entry.at = at;
        item->marked = false;
        item->recording = false;
        at += q2_bitmap_length(&item->entry);
    }
    bitmaps->directory_offset = directory->offset;
    bitmaps->directory_size = directory->size;
    bitmaps->changed = false;
}

static bool
must_store(const struct q2_bitmaps *bitmaps)
{
    for (unsigned i = 0; i < bitmaps->count; i++) {
        const struct q2_bitmap_item *item = &bitmaps->items[i];
        bool lost = item->entry.flags & Q2_BITMAP_IN_USE;
        if (item->changed || (item->marked && !lost))
            return true;
    }
    return bitmaps->changed;
}

int
q2_bitmaps_store(struct q2_image *image, struct q2_error *err)
{
    struct q2_bitmaps *bitmaps = image->bitmaps;
    struct directory directory = {0}, old;
    if (!bitmaps || !must_store(bitmaps))
        return 0;
    Q2_AUTOFREE uint8_t *buffer = malloc(image->geometry.cluster_size);
    if (!buffer)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a cluster of a bitmap");
    int rc = 0;
    for (unsigned i = 0; i < bitmaps->count && rc == 0; i++)
        if (bitmaps->items[i].changed)
            rc = store_bits(image, &bitmaps->items[i], buffer, err);
    if (rc == 0)
        rc = store_directory(image, &directory, err);
    if (rc == 0)
        rc = q2_image_write_back(image, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    if (rc < 0) {
        undo(image, &directory);
        forget_new(bitmaps);
        return rc;
    }
    old = (struct directory){bitmaps->directory_offset, bitmaps->directory_size};
    rc = lead_to(image, &directory, err);
    if (rc < 0) { /* what became of that write is not known: neither side is freed */
        forget_new(bitmaps);
        return rc;
    }
    adopt(bitmaps, &directory);
    forget_new(bitmaps);
    image->modified = false; /* who writes next has to mark again */
    rc = q2_image_barrier(image, err);
    if (rc < 0)
        return rc;
    free_gone(image, bitmaps);
    free_bytes(image, old.offset, old.size, false);
    return 0;
}
