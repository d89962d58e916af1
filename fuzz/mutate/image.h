/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the mutations of images share. Private to image*.c. */

#ifndef Q2_FUZZ_MUTATE_IMAGE_H
#define Q2_FUZZ_MUTATE_IMAGE_H

#include "core/format/header.h"
#include "fuzz/mutate/mutate.h"

/* ---- where things are ---- */

enum q2_part_kind {
    Q2_PART_HEADER,
    Q2_PART_L1,
    Q2_PART_L2,
    Q2_PART_DATA,
    Q2_PART_REFCOUNT_TABLE,
    Q2_PART_REFCOUNT_BLOCK,
    Q2_PART_SNAPSHOT_TABLE,
    Q2_PART_BITMAP_DIRECTORY,
    Q2_PART_BITMAP_TABLE,
    Q2_PART_BITMAP_DATA,
    Q2_PART_LUKS,
    Q2_PART_COUNT,
};

/* A structure, as something refers to it: one that is referred to twice is two parts. */
struct q2_part {
    enum q2_part_kind kind;
    bool active;   /* of the active map; of L1 and L2 tables and data */
    size_t offset; /* bytes; inside the image */
    size_t length; /* bytes; inside the image, not 0 */
    size_t at;     /* of the 64 bits that refer to it, bytes; 0: none (those of the header have) */
};

enum { Q2_LAYOUT_PARTS = 4096 };

/* An image, decoded as far as that goes. All that it says is inside the image. */
struct q2_layout {
    const uint8_t *bytes;
    size_t length;
    struct q2_header header;
    struct q2_geometry geometry; /* believable even where the header is not */
    size_t count;
    struct q2_part parts[Q2_LAYOUT_PARTS];
    size_t snapshot_at[64]; /* of the entries of the snapshot table, bytes */
    size_t snapshot_count;
    size_t bitmap_at[64]; /* of the entries of the bitmap directory, bytes */
    size_t bitmap_count;
    size_t extension_at[64]; /* of the extensions but the end marker, bytes */
    size_t extension_count;
    size_t extension_end; /* where the next would be; 0: unknown */
    size_t bitmaps_at;    /* of the data of the bitmaps extension, bytes; 0: none */
};

void q2_layout_read(struct q2_layout *layout, const uint8_t *bytes, size_t length);

/* ---- changing it ---- */

struct q2_mutator {
    struct q2_fuzz_buffer *buffer; /* without the options */
    struct q2_fuzz_random *random;
    struct q2_layout layout;
};

/* A change. Returns whether it found something to change. */
typedef bool q2_mutation(struct q2_mutator *mutator);

struct q2_mutation_entry {
    const char *name;
    q2_mutation *change;
    unsigned weight;
};
extern const struct q2_mutation_entry q2_mutations[];
extern const size_t q2_mutation_count;

/* Make the change at `index` of the table to an image; the options, if it has any, stay. */
bool q2_mutate_image_as(size_t index, struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random);

/* Count the references anew, and set refcounts and COPIED flags accordingly; provide refcount
 * blocks where there are none. */
void q2_mutate_fix(struct q2_fuzz_buffer *buffer);

/* ---- for mutations ---- */

static inline uint64_t
q2_mutator_below(struct q2_mutator *mutator, uint64_t limit)
{
    return q2_fuzz_random_below(mutator->random, limit);
}

/* A part of this kind, or Q2_PART_COUNT for any kind; NULL: there is none. */
const struct q2_part *q2_mutator_part(struct q2_mutator *mutator, enum q2_part_kind kind);

/* A host offset to point at: of a structure, of a cluster, past the end, not aligned, nothing. */
uint64_t q2_mutator_offset(struct q2_mutator *mutator);

/* A value that has something to do with `value`, of `width` bytes: a neighbour, an edge, a flipped
 * bit, anything. */
uint64_t q2_mutator_value(struct q2_mutator *mutator, uint64_t value, unsigned width);

/* Add clusters of zeros at the end; 0 where there is no room. */
size_t q2_mutator_clusters(struct q2_mutator *mutator, size_t count);

/* Big-endian numbers of 1 to 8 bytes; `at` and what follows are inside the buffer. */
uint64_t q2_mutator_get(const struct q2_mutator *mutator, size_t at, unsigned width);
void q2_mutator_set(struct q2_mutator *mutator, size_t at, unsigned width, uint64_t value);

/* ---- the mutations ---- */

q2_mutation q2_change_header_field, q2_change_feature, q2_change_extension_insert,
    q2_change_extension_remove, q2_change_extension_length, q2_change_extension_type,
    q2_change_extension_data, q2_change_backing_name, q2_change_bitmaps_extension;
q2_mutation q2_change_entry_flip, q2_change_entry_retarget, q2_change_entry_copy,
    q2_change_entry_zero, q2_change_entry_swap, q2_change_entry_flags, q2_change_entry_value,
    q2_change_subclusters, q2_change_compressed, q2_change_refcount;
q2_mutation q2_change_part_swap, q2_change_part_copy, q2_change_part_splice, q2_change_part_move,
    q2_change_part_byte, q2_change_map_more, q2_change_unmap;
q2_mutation q2_change_snapshot_add, q2_change_snapshot_remove, q2_change_snapshot_edit,
    q2_change_bitmap_add, q2_change_bitmap_remove, q2_change_bitmap_edit;
q2_mutation q2_change_truncate, q2_change_extend, q2_change_sector, q2_change_cluster;

#endif
