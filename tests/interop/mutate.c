/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* mutate FILE SEED NUMBER: damages a word of an image's metadata, and says which.
 *
 * The same seed and number do the same to the same image. A structure is chosen first and then a
 * word of it, preferably one that is not zero, so that small structures are hit as often as large
 * ones and hardly a mutation is without effect. */

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/base/endian.h"
#include "core/format/entry.h"
#include "core/format/header.h"
#include "core/io/posix.h"

#include <inttypes.h>
#include <stdio.h>

struct image {
    struct q2_file *file;
    struct q2_header header;
    uint64_t cluster; /* bytes */
    uint64_t random;  /* state */
};

struct place {
    const char *name;
    uint64_t offset; /* bytes */
    uint64_t length; /* bytes */
};

static _Noreturn void
die(const char *what)
{
    fprintf(stderr, "mutate: %s\n", what);
    exit(1);
}

/* splitmix64 */
static uint64_t
draw(struct image *image, uint64_t below)
{
    uint64_t z = image->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (z ^ z >> 31) % below;
}

static uint64_t
load(struct image *image, uint64_t at)
{
    uint8_t bytes[8];
    struct q2_error err = {0};
    if (q2_file_read_padded(image->file, at, bytes, sizeof bytes, &err) < 0)
        die(err.message);
    return q2_load_be64(bytes);
}

static void
store(struct image *image, uint64_t at, uint64_t value)
{
    uint8_t bytes[8];
    struct q2_error err = {0};
    q2_store_be64(bytes, value);
    if (q2_file_write(image->file, at, bytes, sizeof bytes, &err) < 0)
        die(err.message);
}

/* A word of a place, not zero if a few attempts find one; returns its offset. */
static uint64_t
choose_word(struct image *image, const struct place *place)
{
    enum { ATTEMPTS = 300 };
    uint64_t at = place->offset;
    for (int i = 0; i < ATTEMPTS; i++) {
        /* Tables fill from the front: look there more often. */
        uint64_t words = draw(image, 2) ? place->length / 8 : q2_min(place->length / 8, 64);
        at = place->offset + draw(image, words) * 8;
        if (load(image, at) & Q2_ENTRY_OFFSET)
            break;
    }
    return at;
}

/* The cluster that some entry of a table refers to. */
static struct place
follow(struct image *image, const char *name, const struct place *table)
{
    uint64_t offset = load(image, choose_word(image, table)) & Q2_ENTRY_OFFSET;
    return offset ? (struct place){name, offset, image->cluster} : *table;
}

static struct place
choose_place(struct image *image)
{
    const struct q2_header *header = &image->header;
    struct place start = {"header", 8, header->version > 2 ? 104 : 64};
    struct place l1 = {"L1 table", header->l1_table_offset, header->l1_size * UINT64_C(8)};
    struct place table = {"refcount table", header->refcount_table_offset,
                          header->refcount_table_clusters * image->cluster};
    struct place snapshots = {"snapshot table", header->snapshots_offset,
                              header->nb_snapshots * UINT64_C(64)};
    switch (draw(image, 8)) {
    case 0:
        return start;
    case 1:
        return l1;
    case 2:
        return table;
    case 3:
    case 4:
        return follow(image, "refcount block", &table);
    case 5:
        return snapshots.length ? snapshots : l1;
    default:
        return follow(image, "L2 table", &l1);
    }
}

/* One word for another, or the two exchanged. */
static const char *
mutate(struct image *image, const struct place *place, uint64_t at)
{
    uint64_t value = load(image, at), other = choose_word(image, place);
    switch (draw(image, 8)) {
    case 0:
        store(image, at, 0);
        return "zeroed";
    case 1:
        store(image, at, load(image, other));
        store(image, other, value);
        return "exchanged";
    case 2:
        store(image, at, load(image, other));
        return "copied over";
    case 3:
        store(image, at, value + image->cluster * (1 + draw(image, 8)));
        return "moved";
    default:
        store(image, at, value ^ UINT64_C(1) << draw(image, 64));
        return "flipped";
    }
}

int
main(int argc, char **argv)
{
    struct q2_error err = {0};
    struct image image = {0};
    uint8_t bytes[Q2_HEADER_KNOWN_LENGTH];
    if (argc != 4)
        die("usage: mutate FILE SEED NUMBER");
    image.random = strtoull(argv[2], NULL, 10) << 32 ^ strtoull(argv[3], NULL, 10);
    if (q2_file_open(argv[1], Q2_OPEN_WRITE, &image.file, &err) < 0 ||
        q2_file_read_padded(image.file, 0, bytes, sizeof bytes, &err) < 0)
        die(err.message);
    q2_header_decode(bytes, sizeof bytes, &image.header);
    if (image.header.magic != Q2_MAGIC || image.header.cluster_bits > Q2_MAX_CLUSTER_BITS)
        die("no sound image");
    image.cluster = UINT64_C(1) << image.header.cluster_bits;
    struct place place = choose_place(&image);
    uint64_t at = choose_word(&image, &place), before = load(&image, at);
    const char *what = mutate(&image, &place, at);
    printf("%s 0x%" PRIx64 " %s: 0x%" PRIx64 " -> 0x%" PRIx64 "\n", place.name, at, what, before,
           load(&image, at));
    q2_file_close(image.file);
    return 0;
}
