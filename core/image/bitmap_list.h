/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The image's bitmaps in memory. Private to core/image.
 *
 * The list, and which bitmaps record writes, change only while the whole image is held; so writers,
 * who hold the guest range that they change, may look at them and set bits without the image's
 * lock. Bits are read from the file when somebody needs them, under the lock.
 *
 * A bitmap is in one of two states on the disk. Either what is there is true, or it is marked in
 * use: that mark is durable before the first thing happens that makes the bits wrong, and goes away
 * with the directory that the new bits come with. */

#ifndef Q2_IMAGE_BITMAP_LIST_H
#define Q2_IMAGE_BITMAP_LIST_H

#include "core/base/budget.h"
#include "core/format/bitmap.h"
#include "core/image/internal.h"

enum {
    Q2_MAX_BITMAPS = 65535,
    Q2_BITMAP_BITS_BUDGET = 256 << 20, /* of all bits in memory, bytes */
};

#define Q2_MAX_BITMAP_BITS_BYTES (UINT64_C(512) << 20) /* of one bitmap; QEMU's limit */

struct q2_bitmap_item {
    /* Table and place are those on the disk, 0 where it is not there yet; the flags are those to
     * store, so that "in use" stands for an inconsistent bitmap alone. */
    struct q2_bitmap entry;
    uint8_t *text;        /* extra data, name and a NUL */
    bool marked;          /* is marked in use on the disk for our sake: has to be stored */
    bool recording;       /* writes set bits */
    _Atomic bool changed; /* the bits in memory are not those of the table */
    uint64_t *bits;       /* bit i of the bitmap is bit i % 64 of word i / 64; NULL: not read */
    uint64_t bit_count;   /* of `bits` */
    uint64_t cut_from;    /* the most bits that were there before some were cut off */
    /* While it is stored: where to, and the entries. */
    uint64_t *new_table;
    uint64_t new_offset;
    uint64_t new_entries;
};

/* A table that the directory on the disk leads to and the one in memory does not. */
struct q2_bitmap_gone {
    uint64_t offset; /* bytes */
    uint64_t entries;
};

struct q2_bitmaps {
    struct q2_bitmap_item *items;
    unsigned count, capacity;
    uint64_t directory_offset; /* bytes; 0: there is none on the disk yet */
    uint64_t directory_size;   /* bytes */
    bool changed;              /* the directory has to be written */
    struct q2_budget budget;   /* of bits */
    struct q2_bitmap_gone *gone;
    size_t gone_count, gone_capacity;
};

static inline const char *
q2_bitmap_item_name(const struct q2_bitmap_item *item)
{
    return (const char *)item->text + item->entry.extra_length;
}

/* Whether its bits mean something: not inconsistent, and no extra data that must be understood. */
bool q2_bitmap_item_usable(const struct q2_bitmap_item *item);

static inline bool
q2_bitmap_item_enabled(const struct q2_bitmap_item *item)
{
    return item->entry.flags & Q2_BITMAP_AUTO;
}

/* Refuses, naming the bitmap, what is not usable. */
int q2_bitmap_item_check(const struct q2_image *image, const struct q2_bitmap_item *item,
                         struct q2_error *err);

/* An empty list, for an image without bitmaps. */
int q2_bitmap_list_new(struct q2_bitmaps **ret_bitmaps, struct q2_error *err);
/* Append a zeroed item with room for `text_length` bytes of text. Pointers to items are void then.
 */
int q2_bitmap_list_add(struct q2_bitmaps *bitmaps, size_t text_length,
                       struct q2_bitmap_item **ret_item, struct q2_error *err);
void q2_bitmap_list_drop(struct q2_bitmaps *bitmaps, unsigned index);

/* ---- bits in memory (bitmap_bits.c) ---- */

/* Bits of a bitmap for a disk of `size` bytes, and clusters that hold them. */
uint64_t q2_bitmap_bits_for(uint64_t size, unsigned granularity_bits);
uint64_t q2_bitmap_clusters_for(const struct q2_geometry *geometry, uint64_t size,
                                unsigned granularity_bits);

/* Make sure that item->bits is there: read from the table. Under the image's lock. */
int q2_bitmap_bits_need(struct q2_image *image, struct q2_bitmap_item *item, struct q2_error *err);
/* The same, all clear, whatever the disk has. */
int q2_bitmap_bits_new(struct q2_image *image, struct q2_bitmap_item *item, struct q2_error *err);
void q2_bitmap_bits_free(struct q2_bitmaps *bitmaps, struct q2_bitmap_item *item);
/* For a disk of `size` bytes. What is added is clear, but dirty where bits were cut off before:
 * what they said is not known any more. */
int q2_bitmap_bits_resize(struct q2_bitmaps *bitmaps, struct q2_bitmap_item *item, uint64_t size,
                          struct q2_error *err);

/* Set bits [first, first + count), which exist. Others may do the same at the same time. Returns
 * whether one was clear before. */
bool q2_bitmap_bits_set(uint64_t *bits, uint64_t first, uint64_t count);

/* Where the run of bits that are like bit `first` ends; at most `end`, which is above `first`. */
uint64_t q2_bitmap_bits_run(const uint64_t *bits, uint64_t first, uint64_t end, bool *ret_set);

/* The entries of a bitmap table on the disk, each held against the rules. `name` is for messages.
 */
int q2_bitmap_table_read(struct q2_image *image, const char *name, uint64_t offset,
                         uint64_t entries, uint64_t **ret_table, struct q2_error *err);

/* ---- the disk (bitmap_store.c), under the image's lock ---- */

/* Mark it in use on the disk, durably, unless it is already. */
int q2_bitmap_item_mark(struct q2_image *image, struct q2_bitmap_item *item, struct q2_error *err);

/* Its table on the disk is to be freed once the directory no longer leads to it. Never fails: what
 * cannot be remembered leaks. */
void q2_bitmap_item_leave(struct q2_bitmaps *bitmaps, const struct q2_bitmap_item *item);

#endif
