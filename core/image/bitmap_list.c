/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The bitmap directory: read when the image is opened, held against all rules, kept as a list. Of
 * the bitmaps themselves nothing is read until somebody needs it.
 *
 * A directory without the autoclear bit was left behind by a program that does not know bitmaps: it
 * says nothing that can be trusted, not even which clusters are its own, and is left alone. */

#include "core/image/bitmap_list.h"

#include "core/image/strict.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

bool
q2_bitmap_item_usable(const struct q2_bitmap_item *item)
{
    return !(item->entry.flags & Q2_BITMAP_IN_USE) &&
           (item->entry.extra_length == 0 || (item->entry.flags & Q2_BITMAP_EXTRA_COMPATIBLE));
}

int
q2_bitmap_item_check(const struct q2_image *image, const struct q2_bitmap_item *item,
                     struct q2_error *err)
{
    char name[64];
    if (q2_bitmap_item_usable(item))
        return 0;
    q2_printable(name, sizeof name, q2_bitmap_item_name(item), item->entry.name_length);
    if (item->entry.flags & Q2_BITMAP_IN_USE)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "%s: bitmap '%s' is marked in use, it was not stored when the image "
                            "was last written: it can only be removed",
                            image->file->name, name);
    return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                        "%s: bitmap '%s' has %" PRIu32 " bytes of extra data, which are unknown "
                        "and must be understood",
                        image->file->name, name, item->entry.extra_length);
}

/* ---- the list ---- */

int
q2_bitmap_list_new(struct q2_bitmaps **ret_bitmaps, struct q2_error *err)
{
    struct q2_bitmaps *bitmaps = calloc(1, sizeof *bitmaps);
    if (!bitmaps)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the bitmaps");
    q2_budget_init(&bitmaps->budget, Q2_BITMAP_BITS_BUDGET);
    *ret_bitmaps = bitmaps;
    return 0;
}

int
q2_bitmap_list_add(struct q2_bitmaps *bitmaps, size_t text_length, struct q2_bitmap_item **ret_item,
                   struct q2_error *err)
{
    uint8_t *text = malloc(text_length + 1);
    if (text && bitmaps->count == bitmaps->capacity) {
        unsigned capacity = bitmaps->capacity ? 2 * bitmaps->capacity : 4;
        void *grown = realloc(bitmaps->items, capacity * sizeof *bitmaps->items);
        if (grown) {
            bitmaps->items = grown;
            bitmaps->capacity = capacity;
        }
    }
    if (!text || bitmaps->count == bitmaps->capacity) {
        free(text);
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a bitmap's entry");
    }
    struct q2_bitmap_item *item = &bitmaps->items[bitmaps->count++];
    *item = (struct q2_bitmap_item){.text = text};
    text[text_length] = '\0';
    *ret_item = item;
    return 0;
}

static void
item_destroy(struct q2_bitmaps *bitmaps, struct q2_bitmap_item *item)
{
    q2_bitmap_bits_free(bitmaps, item);
    free(item->text);
    free(item->new_table);
}

void
q2_bitmap_list_drop(struct q2_bitmaps *bitmaps, unsigned index)
{
    item_destroy(bitmaps, &bitmaps->items[index]);
    bitmaps->count--;
    memmove(&bitmaps->items[index], &bitmaps->items[index + 1],
            (bitmaps->count - index) * sizeof *bitmaps->items);
}

void
q2_bitmaps_free(struct q2_bitmaps *bitmaps)
{
    if (!bitmaps)
        return;
    for (unsigned i = 0; i < bitmaps->count; i++)
        item_destroy(bitmaps, &bitmaps->items[i]);
    free(bitmaps->items);
    free(bitmaps->gone);
    free(bitmaps);
}

/* ---- reading the directory ---- */

static int
compare_names(const void *left, const void *right)
{
    const struct q2_bitmap_item *a = *(const struct q2_bitmap_item *const *)left;
    const struct q2_bitmap_item *b = *(const struct q2_bitmap_item *const *)right;
    if (a->entry.name_length != b->entry.name_length)
        return a->entry.name_length < b->entry.name_length ? -1 : 1;
    return memcmp(q2_bitmap_item_name(a), q2_bitmap_item_name(b), a->entry.name_length);
}

static int
validate_names(const struct q2_bitmaps *bitmaps, const struct q2_sink *sink, struct q2_error *err)
{
    Q2_AUTOFREE const struct q2_bitmap_item **sorted = calloc(bitmaps->count, sizeof *sorted);
    if (!sorted)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the names of bitmaps");
    for (unsigned i = 0; i < bitmaps->count; i++)
        sorted[i] = &bitmaps->items[i];
    qsort(sorted, bitmaps->count, sizeof *sorted, compare_names);
    for (unsigned i = 1; i < bitmaps->count; i++)
        if (compare_names(&sorted[i - 1], &sorted[i]) == 0) {
            char name[64];
            q2_violate_text(sink, Q2_PROBLEM_BITMAP_NAME_DUPLICATE, sorted[i]->entry.at,
                            Q2_BITMAP_FIXED_LENGTH, "'%s'",
                            q2_printable(name, sizeof name, q2_bitmap_item_name(sorted[i]),
                                         sorted[i]->entry.name_length));
        }
    return 0;
}

/* Take the entries of the directory over into the list. */
static int
decode(const struct q2_image *image, const uint8_t *bytes, uint32_t entries,
       struct q2_bitmaps *bitmaps, const struct q2_sink *sink, struct q2_error *err)
{
    uint64_t at = 0, size = bitmaps->directory_size;
    for (uint32_t i = 0; i < entries; i++) {
        struct q2_bitmap entry = {0};
        uint64_t length = Q2_BITMAP_FIXED_LENGTH;
        if (length <= size - at) {
            q2_bitmap_decode(bytes + at, bitmaps->directory_offset + at, &entry);
            length = q2_bitmap_length(&entry);
        }
        if (length > size - at) {
            q2_violate(sink, Q2_PROBLEM_BITMAP_DIRECTORY_SIZE, bitmaps->directory_offset, size,
                       size, "entry %" PRIu32 " of %" PRIu32, i + 1, entries);
            return 0;
        }
        q2_bitmap_validate(&image->geometry, &entry, bytes + at, sink);
        if (entry.table_size > Q2_MAX_BITMAP_BITS_BYTES >> image->geometry.cluster_bits)
            return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                                "%s: bitmap %" PRIu32 " has a table of %" PRIu32
                                " entries, for more than %" PRIu64 " bytes of bits",
                                image->file->name, i + 1, entry.table_size,
                                Q2_MAX_BITMAP_BITS_BYTES);
        struct q2_bitmap_item *item = NULL;
        size_t text_length = (size_t)entry.extra_length + entry.name_length;
        int rc = q2_bitmap_list_add(bitmaps, text_length, &item, err);
        if (rc < 0)
            return rc;
        memcpy(item->text, bytes + at + Q2_BITMAP_FIXED_LENGTH, text_length);
        item->entry = entry;
        at += length;
    }
    if (at != size)
        q2_violate_expected(sink, Q2_PROBLEM_BITMAP_DIRECTORY_SIZE, bitmaps->directory_offset, size,
                            size, at, NULL);
    return 0;
}

static int
read_directory(struct q2_image *image, struct q2_bitmaps *bitmaps, struct q2_error *err)
{
    size_t size = (size_t)bitmaps->directory_size;
    Q2_AUTOFREE uint8_t *bytes = malloc(size);
    if (!bytes)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a bitmap directory of %zu bytes",
                            size);
    int rc = q2_meta_read(image, bitmaps->directory_offset, bytes, size, err);
    if (rc < 0)
        return rc;
    struct q2_strict strict;
    q2_strict_init(&strict, image->file->name);
    rc = decode(image, bytes, image->area.nb_bitmaps, bitmaps, &strict.sink, err);
    if (rc == 0 && bitmaps->count > 0)
        rc = validate_names(bitmaps, &strict.sink, err);
    return rc < 0 ? rc : q2_strict_result(&strict, err);
}

int
q2_bitmaps_load(struct q2_image *image, struct q2_bitmaps **ret_bitmaps, struct q2_error *err)
{
    const struct q2_area *area = &image->area;
    if (!area->has_bitmaps || !(image->header.autoclear_features & Q2_AUTOCLEAR_BITMAPS)) {
        *ret_bitmaps = NULL;
        return 0;
    }
    struct q2_strict strict;
    q2_strict_init(&strict, image->file->name);
    struct q2_extensions extensions = {.has_bitmaps = true,
                                       .nb_bitmaps = area->nb_bitmaps,
                                       .bitmap_directory_size = area->bitmap_directory_size,
                                       .bitmap_directory_offset = area->bitmap_directory_offset};
    q2_bitmap_directory_validate(&image->geometry, &extensions, &strict.sink);
    int rc = q2_strict_result(&strict, err);
    if (rc < 0)
        return rc;

    struct q2_bitmaps *bitmaps = NULL;
    rc = q2_bitmap_list_new(&bitmaps, err);
    if (rc < 0)
        return rc;
    bitmaps->directory_offset = area->bitmap_directory_offset;
    bitmaps->directory_size = area->bitmap_directory_size;
    rc = read_directory(image, bitmaps, err);
    if (rc < 0) {
        q2_bitmaps_free(bitmaps);
        return rc;
    }
    *ret_bitmaps = bitmaps;
    return 0;
}

/* What lies on other metadata is refused here, which also bounds the work by the size of the file.
 */
static int
claim(struct q2_image *image, const char *what, uint64_t offset, uint64_t length,
      struct q2_error *err)
{
    unsigned bits = image->geometry.cluster_bits;
    uint64_t first = offset >> bits, count = q2_units(length, bits), cluster = 0;
    if (length == 0)
        return 0;
    enum q2_claim other = q2_claims_clash(image->claims, first, count, Q2_CLAIM_NONE, &cluster);
    if (other != Q2_CLAIM_NONE)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: %s at offset 0x%" PRIx64 " overlaps %s at offset 0x%" PRIx64,
                            image->file->name, what, offset, q2_claim_name(other), cluster << bits);
    return q2_claims_add(image->claims, first, count, Q2_CLAIM_BITMAPS, err);
}

int
q2_bitmaps_claim(struct q2_image *image, struct q2_error *err)
{
    const struct q2_bitmaps *bitmaps = image->bitmaps;
    if (!bitmaps)
        return 0;
    int rc = claim(image, "the bitmap directory", bitmaps->directory_offset,
                   bitmaps->directory_size, err);
    for (unsigned i = 0; i < bitmaps->count && rc == 0; i++) {
        const struct q2_bitmap *entry = &bitmaps->items[i].entry;
        rc = claim(image, "a bitmap table", entry->table_offset, (uint64_t)entry->table_size * 8,
                   err);
    }
    return rc;
}
