/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Mutations of images: which there are, and how one is chosen. */

#include "fuzz/mutate/image.h"

#include "core/base/checked.h"

#include <string.h>

const struct q2_mutation_entry q2_mutations[] = {
    {"header-field", q2_change_header_field, 6},
    {"feature", q2_change_feature, 3},
    {"extension-insert", q2_change_extension_insert, 2},
    {"extension-remove", q2_change_extension_remove, 1},
    {"extension-length", q2_change_extension_length, 1},
    {"extension-type", q2_change_extension_type, 1},
    {"extension-data", q2_change_extension_data, 2},
    {"backing-name", q2_change_backing_name, 1},
    {"bitmaps-extension", q2_change_bitmaps_extension, 2},
    {"entry-flip", q2_change_entry_flip, 8},
    {"entry-retarget", q2_change_entry_retarget, 8},
    {"entry-copy", q2_change_entry_copy, 6},
    {"entry-zero", q2_change_entry_zero, 4},
    {"entry-swap", q2_change_entry_swap, 3},
    {"entry-flags", q2_change_entry_flags, 5},
    {"entry-value", q2_change_entry_value, 3},
    {"subclusters", q2_change_subclusters, 4},
    {"compressed", q2_change_compressed, 5},
    {"refcount", q2_change_refcount, 5},
    {"part-swap", q2_change_part_swap, 3},
    {"part-copy", q2_change_part_copy, 3},
    {"part-splice", q2_change_part_splice, 4},
    {"part-move", q2_change_part_move, 3},
    {"part-byte", q2_change_part_byte, 4},
    {"map-more", q2_change_map_more, 4},
    {"unmap", q2_change_unmap, 3},
    {"snapshot-add", q2_change_snapshot_add, 3},
    {"snapshot-remove", q2_change_snapshot_remove, 2},
    {"snapshot-edit", q2_change_snapshot_edit, 5},
    {"bitmap-add", q2_change_bitmap_add, 3},
    {"bitmap-remove", q2_change_bitmap_remove, 1},
    {"bitmap-edit", q2_change_bitmap_edit, 4},
    {"truncate", q2_change_truncate, 3},
    {"extend", q2_change_extend, 2},
    {"sector", q2_change_sector, 2},
    {"cluster", q2_change_cluster, 3},
};
const size_t q2_mutation_count = sizeof q2_mutations / sizeof *q2_mutations;

/* ---- what the mutations use ---- */

const struct q2_part *
q2_mutator_part(struct q2_mutator *mutator, enum q2_part_kind kind)
{
    const struct q2_layout *layout = &mutator->layout;
    if (layout->count == 0)
        return NULL;
    /* There is much data, and little else: ask for a kind first. */
    if (kind == Q2_PART_COUNT && q2_mutator_below(mutator, 4))
        kind = (enum q2_part_kind)q2_mutator_below(mutator, Q2_PART_COUNT);
    size_t start = q2_mutator_below(mutator, layout->count);
    if (kind == Q2_PART_COUNT)
        return &layout->parts[start];
    for (size_t i = 0; i < layout->count; i++) {
        const struct q2_part *part = &layout->parts[(start + i) % layout->count];
        if (part->kind == kind)
            return part;
    }
    return NULL;
}

uint64_t
q2_mutator_offset(struct q2_mutator *mutator)
{
    const struct q2_geometry *geometry = &mutator->layout.geometry;
    uint64_t size = geometry->cluster_size, end = geometry->file_clusters;
    const struct q2_part *part = q2_mutator_part(mutator, Q2_PART_COUNT);
    uint64_t known = part ? part->offset & ~(size - 1) : 0;
    switch (q2_mutator_below(mutator, 10)) {
    case 0:
        return q2_mutator_below(mutator, end + 1) * size + 512;
    case 1:
        return (end + q2_mutator_below(mutator, 3)) * size;
    case 2:
        return size << q2_mutator_below(mutator, 56 - geometry->cluster_bits);
    case 3:
        return 0;
    case 4:
    case 5:
        return q2_mutator_below(mutator, end + 1) * size;
    default:
        return known;
    }
}

uint64_t
q2_mutator_value(struct q2_mutator *mutator, uint64_t value, unsigned width)
{
    unsigned bits = 8 * width;
    uint64_t most = bits < 64 ? (UINT64_C(1) << bits) - 1 : UINT64_MAX;
    switch (q2_mutator_below(mutator, 9)) {
    case 0:
        return (value + 1) & most;
    case 1:
        return (value - 1) & most;
    case 2:
        return value ^ UINT64_C(1) << q2_mutator_below(mutator, bits);
    case 3:
        return (UINT64_C(1) << q2_mutator_below(mutator, bits)) - q2_mutator_below(mutator, 2);
    case 4:
        return most - q2_mutator_below(mutator, 2);
    case 5:
        return 0;
    case 6:
        return (value << q2_mutator_below(mutator, 4)) & most;
    case 7:
        return value >> (1 + q2_mutator_below(mutator, 3));
    default:
        return q2_fuzz_random(mutator->random) & most;
    }
}

size_t
q2_mutator_clusters(struct q2_mutator *mutator, size_t count)
{
    struct q2_fuzz_buffer *buffer = mutator->buffer;
    uint64_t size = mutator->layout.geometry.cluster_size;
    uint64_t start = q2_units(buffer->length, mutator->layout.geometry.cluster_bits) * size;
    if (count > 64 || start + count * size > buffer->capacity)
        return 0;
    size_t end = (size_t)(start + count * size);
    memset(buffer->bytes + buffer->length, 0, end - buffer->length);
    buffer->length = end;
    return (size_t)start;
}

uint64_t
q2_mutator_get(const struct q2_mutator *mutator, size_t at, unsigned width)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < width; i++)
        value = value << 8 | mutator->buffer->bytes[at + i];
    return value;
}

void
q2_mutator_set(struct q2_mutator *mutator, size_t at, unsigned width, uint64_t value)
{
    for (unsigned i = 0; i < width; i++)
        mutator->buffer->bytes[at + i] = (uint8_t)(value >> 8 * (width - 1 - i));
}

/* ---- options ---- */

struct options {
    bool present;
    uint8_t bytes[Q2_FUZZ_OPTIONS_LENGTH];
};

static const uint8_t magic[8] = {0x71, 0x32, 0x6b, 0x66, 0x75, 0x7a, 0x7a, 0x01};

/* Take the options off the end, and leave room for them. */
static struct options
take_options(struct q2_fuzz_buffer *buffer)
{
    struct options options = {0};
    size_t length = buffer->length;
    buffer->capacity -= q2_min(buffer->capacity, Q2_FUZZ_OPTIONS_LENGTH);
    if (length >= Q2_FUZZ_OPTIONS_LENGTH) {
        const uint8_t *at = buffer->bytes + length - Q2_FUZZ_OPTIONS_LENGTH;
        options.present = memcmp(at, magic, sizeof magic) == 0;
        if (options.present) {
            memcpy(options.bytes, at, sizeof options.bytes);
            buffer->length -= Q2_FUZZ_OPTIONS_LENGTH;
        }
    }
    if (buffer->length > buffer->capacity)
        buffer->length = buffer->capacity;
    return options;
}

static void
put_options(struct q2_fuzz_buffer *buffer, const struct options *options)
{
    size_t room = buffer->capacity - buffer->length;
    if (options->present && room >= Q2_FUZZ_OPTIONS_LENGTH) {
        memcpy(buffer->bytes + buffer->length, options->bytes, sizeof options->bytes);
        buffer->length += Q2_FUZZ_OPTIONS_LENGTH;
    }
}

static void
change_options(struct options *options, struct q2_fuzz_random *random)
{
    if (options->present && q2_fuzz_random_once_in(random, 8)) {
        options->present = false;
        return;
    }
    if (!options->present)
        *options = (struct options){.present = true};
    memcpy(options->bytes, magic, sizeof magic);
    uint64_t choice = q2_fuzz_random(random);
    switch (q2_fuzz_random_below(random, 4)) {
    case 0:
        options->bytes[8] = choice & 3;
        break;
    case 1:
        options->bytes[9] ^= (uint8_t)(1U << (choice & 7));
        break;
    case 2:
        options->bytes[10] = choice % 8 ? 0 : (uint8_t)(choice >> 8);
        options->bytes[11] = (uint8_t)(choice >> 16);
        break;
    default:
        memcpy(options->bytes + 12, &choice, 4);
        break;
    }
}

/* ---- the choice ---- */

static bool
change(size_t index, struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random)
{
    static struct q2_mutator mutator; /* large, and made anew each time */
    mutator.buffer = buffer;
    mutator.random = random;
    q2_layout_read(&mutator.layout, buffer->bytes, buffer->length);
    return q2_mutations[index].change(&mutator);
}

static size_t
choose(struct q2_fuzz_random *random)
{
    unsigned total = 0;
    for (size_t i = 0; i < q2_mutation_count; i++)
        total += q2_mutations[i].weight;
    uint64_t at = q2_fuzz_random_below(random, total);
    size_t i = 0;
    for (; at >= q2_mutations[i].weight; i++)
        at -= q2_mutations[i].weight;
    return i;
}

bool
q2_mutate_image_as(size_t index, struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random)
{
    size_t capacity = buffer->capacity;
    struct options options = take_options(buffer);
    bool changed = change(index, buffer, random);
    buffer->capacity = capacity;
    put_options(buffer, &options);
    return changed;
}

void
q2_mutate_image(struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random,
                q2_engine_mutate *engine)
{
    size_t capacity = buffer->capacity;
    if (engine && q2_fuzz_random_once_in(random, 16)) {
        buffer->length = engine(buffer->bytes, buffer->length, capacity);
        return;
    }
    struct options options = take_options(buffer);
    if (q2_fuzz_random_once_in(random, 16)) {
        change_options(&options, random);
    } else if (q2_fuzz_random_once_in(random, 32)) {
        q2_mutate_bytes(buffer, random);
    } else {
        bool changed = false;
        for (int tries = 0; !changed && tries < 8; tries++)
            changed = change(choose(random), buffer, random);
        if (q2_fuzz_random_once_in(random, 2))
            q2_mutate_fix(buffer);
    }
    buffer->capacity = capacity;
    put_options(buffer, &options);
}
