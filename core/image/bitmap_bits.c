/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The bits of bitmaps in memory. They are as many as the disk's size demands, not as the file has,
 * so that they come from a budget. Bits are set by many writers at once, without a lock: a word
 * that has them already is only looked at. */

#include "core/image/bitmap_list.h"

#include "core/base/bitset.h"
#include "core/base/endian.h"
#include "core/image/strict.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

uint64_t
q2_bitmap_bits_for(uint64_t size, unsigned granularity_bits)
{
    return q2_units(size, granularity_bits);
}

uint64_t
q2_bitmap_clusters_for(const struct q2_geometry *geometry, uint64_t size, unsigned granularity_bits)
{
    return q2_units(q2_units(q2_bitmap_bits_for(size, granularity_bits), 3),
                    geometry->cluster_bits);
}

static uint64_t
words_for(uint64_t bits)
{
    return q2_units(bits, 6);
}

void
q2_bitmap_bits_free(struct q2_bitmaps *bitmaps, struct q2_bitmap_item *item)
{
    q2_budget_free(&bitmaps->budget, item->bits, words_for(item->bit_count), sizeof *item->bits);
    item->bits = NULL;
    item->bit_count = 0;
}

bool
q2_bitmap_bits_set(uint64_t *bits, uint64_t first, uint64_t count)
{
    bool any = false;
    while (count > 0) {
        unsigned bit = (unsigned)(first % 64), here = (unsigned)q2_min(count, 64 - bit);
        uint64_t mask = q2_word_mask(bit, here), *word = &bits[first / 64];
        if (~__atomic_load_n(word, __ATOMIC_RELAXED) & mask) {
            __atomic_fetch_or(word, mask, __ATOMIC_RELAXED);
            any = true;
        }
        first += here;
        count -= here;
    }
    return any;
}

uint64_t
q2_bitmap_bits_run(const uint64_t *bits, uint64_t first, uint64_t end, bool *ret_set)
{
    bool set = __atomic_load_n(&bits[first / 64], __ATOMIC_RELAXED) >> (first % 64) & 1;
    uint64_t at = first;
    while (at < end) {
        uint64_t word = __atomic_load_n(&bits[at / 64], __ATOMIC_RELAXED);
        uint64_t other = (set ? ~word : word) >> (at % 64);
        if (other) {
            at += (unsigned)__builtin_ctzll(other);
            break;
        }
        at += 64 - at % 64;
    }
    *ret_set = set;
    return q2_min(at, end);
}

/* ---- from the file ---- */

int
q2_bitmap_table_read(struct q2_image *image, const char *name, uint64_t offset, uint64_t entries,
                     uint64_t **ret_table, struct q2_error *err)
{
    Q2_AUTOFREE uint64_t *table = malloc(entries * 8 + 1);
    if (!table)
        return q2_error_set(err, Q2_ERR_NOMEM,
                            "no memory for a bitmap table of %" PRIu64 " entries", entries);
    int rc = entries ? q2_meta_read(image, offset, table, entries * 8, err) : 0;
    if (rc < 0)
        return rc;
    struct q2_strict strict;
    q2_strict_init(&strict, name);
    for (uint64_t i = 0; i < entries; i++) {
        table[i] = q2_load_be64(&table[i]);
        q2_bitmap_entry_validate(&image->geometry, table[i], offset + i * 8, &strict.sink);
    }
    rc = q2_strict_result(&strict, err);
    if (rc == 0)
        *ret_table = Q2_STEAL(table);
    return rc;
}

/* Read the cluster that entry `raw` stands for into words of the bitmap, which are zero. */
static int
read_cluster(struct q2_image *image, uint64_t raw, uint64_t *words, uint64_t count,
             struct q2_error *err)
{
    if (raw == 0)
        return 0;
    if (raw == Q2_BITMAP_ENTRY_ONES) {
        memset(words, 0xff, count * 8);
        return 0;
    }
    int rc = q2_meta_read(image, raw & Q2_ENTRY_OFFSET, words, count * 8, err);
    for (uint64_t i = 0; i < count && rc == 0; i++)
        words[i] = le64toh(words[i]);
    return rc;
}

static int
read_bits(struct q2_image *image, const struct q2_bitmap_item *item, uint64_t *bits, uint64_t words,
          struct q2_error *err)
{
    Q2_AUTOFREE uint64_t *table = NULL;
    uint64_t per_cluster = image->geometry.cluster_size / 8;
    int rc = q2_bitmap_table_read(image, image->file->name, item->entry.table_offset,
                                  item->entry.table_size, &table, err);
    for (uint64_t i = 0; i < item->entry.table_size && i * per_cluster < words && rc == 0; i++)
        rc = read_cluster(image, table[i], bits + i * per_cluster,
                          q2_min(per_cluster, words - i * per_cluster), err);
    return rc;
}

/* Bits behind the last one are none: an entry of all ones sets them too. */
static void
trim(uint64_t *bits, uint64_t count)
{
    if (count % 64)
        bits[count / 64] &= q2_word_mask(0, (unsigned)(count % 64));
}

int
q2_bitmap_bits_new(struct q2_image *image, struct q2_bitmap_item *item, struct q2_error *err)
{
    uint64_t count = q2_bitmap_bits_for(image->size, item->entry.granularity_bits);
    void *bits = NULL;
    int rc = q2_budget_calloc(&image->bitmaps->budget, words_for(count), 8, "a bitmap", &bits, err);
    if (rc < 0)
        return rc;
    q2_bitmap_bits_free(image->bitmaps, item);
    item->bits = bits;
    item->bit_count = count;
    return 0;
}

int
q2_bitmap_bits_need(struct q2_image *image, struct q2_bitmap_item *item, struct q2_error *err)
{
    if (item->bits)
        return 0;
    int rc = q2_bitmap_bits_new(image, item, err);
    if (rc < 0)
        return rc;
    rc = read_bits(image, item, item->bits, words_for(item->bit_count), err);
    if (rc < 0)
        q2_bitmap_bits_free(image->bitmaps, item);
    else
        trim(item->bits, item->bit_count);
    return rc;
}

int
q2_bitmap_bits_resize(struct q2_bitmaps *bitmaps, struct q2_bitmap_item *item, uint64_t size,
                      struct q2_error *err)
{
    uint64_t count = q2_bitmap_bits_for(size, item->entry.granularity_bits);
    void *bits = NULL;
    int rc = q2_budget_calloc(&bitmaps->budget, words_for(count), 8, "a bitmap", &bits, err);
    if (rc < 0)
        return rc;
    memcpy(bits, item->bits, words_for(q2_min(count, item->bit_count)) * 8);
    uint64_t had = item->bit_count, again = q2_min(item->cut_from, count);
    q2_bitmap_bits_free(bitmaps, item);
    item->bits = bits;
    item->bit_count = count;
    item->cut_from = q2_max(item->cut_from, had);
    trim(item->bits, count);
    if (again > had)
        q2_bitmap_bits_set(item->bits, had, again - had);
    return 0;
}
