/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Damage to the metadata of a sound image, a word or a sector at a time. */

#include "fuzz/support/damage.h"

#include "core/base/endian.h"
#include "core/format/entry.h"
#include "core/format/refcount.h"

#include <string.h>

enum { WORD = 8, SECTOR = 512, HEADER_WORDS = 14 };

enum where { HEADER, EXTENSIONS, TABLE, BLOCK, L1, L2, SNAPSHOTS, ANY, WHERES };
enum how { FLIP, CLEAR, MOVE, SET, FILL, COPY, FLIP_TWO, CLEAR_SECTOR, HOWS };

/* The image, as its header has it. */
struct image {
    struct q2_file *file;
    struct q2_header header;
    uint64_t cluster_size, size; /* bytes */
};

static uint64_t
load(const struct image *image, uint64_t offset)
{
    uint8_t bytes[WORD] = {0};
    if (offset > image->size || q2_file_read_padded(image->file, offset, bytes, WORD, NULL) < 0)
        return 0;
    return q2_load_be64(bytes);
}

static void
store(const struct image *image, uint64_t offset, uint64_t word)
{
    uint8_t bytes[WORD];
    q2_store_be64(bytes, word);
    if (image->size >= WORD && offset <= image->size - WORD)
        q2_file_write(image->file, offset, bytes, WORD, NULL);
}

/* A word of one of the tables that the one at `parent` leads to, whose entries are so many; 0:
 * none.
 */
static uint64_t
find_below(const struct image *image, uint64_t parent, uint64_t entries, uint32_t place)
{
    uint64_t words = image->cluster_size / WORD, used = 0, wanted = place / words;
    entries = entries < 64 ? entries : 64;
    for (uint64_t i = 0; i < entries; i++)
        used += q2_entry_offset(load(image, parent + i * WORD)) != 0;
    for (uint64_t i = 0; i < entries && used > 0; i++) {
        uint64_t below = q2_entry_offset(load(image, parent + i * WORD));
        if (below != 0 && wanted-- % used == 0)
            return below + place % words * WORD;
    }
    return 0;
}

/* Offset of the word; 0: none, or it is that of the magic. */
static uint64_t
find(const struct image *image, enum where where, uint32_t place)
{
    const struct q2_header *h = &image->header;
    uint64_t table = h->refcount_table_clusters * image->cluster_size / WORD;
    switch (where) {
    case HEADER:
        return (uint64_t)place % HEADER_WORDS * WORD;
    case EXTENSIONS:
        return h->header_length + place % 32 * WORD;
    case TABLE:
        return h->refcount_table_offset + (table ? place % 4 % table : 0) * WORD;
    case BLOCK:
        return find_below(image, h->refcount_table_offset, table, place);
    case L1:
        return h->l1_table_offset + (h->l1_size ? place % h->l1_size : 0) * WORD;
    case L2:
        return find_below(image, h->l1_table_offset, h->l1_size, place);
    case SNAPSHOTS:
        return h->nb_snapshots ? h->snapshots_offset + place % 64 * WORD : 0;
    case ANY:
    case WHERES:
        break;
    }
    return image->size < WORD ? 0 : place % (image->size / WORD) * WORD;
}

static uint64_t
change(const struct image *image, enum how how, uint64_t offset, uint64_t word, uint32_t value)
{
    switch (how) {
    case FLIP:
        return word ^ UINT64_C(1) << value % 64;
    case FLIP_TWO:
        return word ^ UINT64_C(1) << value % 64 ^ UINT64_C(1) << value / 64 % 64;
    case MOVE:
        return word + (value % 64 - 32) * image->cluster_size;
    case SET:
        return value;
    case FILL:
        return UINT64_MAX;
    case COPY:
        return load(image, offset / SECTOR * SECTOR + value % (SECTOR / WORD) * WORD);
    case CLEAR:
    case CLEAR_SECTOR:
    case HOWS:
        break;
    }
    return 0;
}

void
q2_damage_image(struct q2_file *file, const struct q2_damage *damage)
{
    struct image image = {.file = file};
    uint8_t sector[SECTOR] = {0};
    if (q2_file_size(file, &image.size, NULL) < 0 ||
        q2_file_read_padded(file, 0, sector, SECTOR, NULL) < 0)
        return;
    q2_header_decode(sector, SECTOR, &image.header);
    /* Damage that came before may have made any number of it. */
    image.cluster_size = UINT64_C(1) << (image.header.cluster_bits % 32 < Q2_MIN_CLUSTER_BITS
                                             ? Q2_MIN_CLUSTER_BITS
                                             : image.header.cluster_bits % 32);
    enum how how = damage->kind / WHERES % HOWS;
    uint64_t at = find(&image, damage->kind % WHERES, damage->place);
    if (how == CLEAR_SECTOR) {
        memset(sector, 0, SECTOR);
        at = at / SECTOR * SECTOR;
        if (at > 0 && at < image.size)
            q2_file_write(file, at, sector, SECTOR, NULL);
        return;
    }
    store(&image, at, change(&image, how, at, load(&image, at), damage->value));
}
