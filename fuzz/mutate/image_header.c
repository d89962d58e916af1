/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Changes to the header and its extensions. */

#include "fuzz/mutate/image.h"

#include "core/format/extension.h"

#include <string.h>

/* The fields of the header; those that hold host offsets are marked. */
static const struct {
    uint16_t at;
    uint8_t width;
    bool is_offset;
} fields[] = {
    {0, 4, false},  {4, 4, false},  {8, 8, true},    {16, 4, false},  {20, 4, false},
    {24, 8, false}, {32, 4, false}, {36, 4, false},  {40, 8, true},   {48, 8, true},
    {56, 4, false}, {60, 4, false}, {64, 8, true},   {72, 8, false},  {80, 8, false},
    {88, 8, false}, {96, 4, false}, {100, 4, false}, {104, 1, false}, {105, 7, false},
};
enum { FIELDS = sizeof fields / sizeof *fields };

bool
q2_change_header_field(struct q2_mutator *mutator)
{
    size_t i = q2_mutator_below(mutator, FIELDS);
    unsigned width = fields[i].width;
    if (fields[i].at + width > mutator->buffer->length)
        return false;
    uint64_t value = q2_mutator_get(mutator, fields[i].at, width);
    if (fields[i].is_offset && q2_mutator_below(mutator, 2))
        value = q2_mutator_offset(mutator);
    else
        value = q2_mutator_value(mutator, value, width);
    q2_mutator_set(mutator, fields[i].at, width, value);
    return true;
}

bool
q2_change_feature(struct q2_mutator *mutator)
{
    static const unsigned known[] = {5, 1, 2};
    size_t word = q2_mutator_below(mutator, 3), at = 72 + 8 * word;
    if (at + 8 > mutator->buffer->length)
        return false;
    unsigned limit = q2_mutator_below(mutator, 8) ? known[word] : 64;
    uint64_t bit = UINT64_C(1) << q2_mutator_below(mutator, limit);
    q2_mutator_set(mutator, at, 8, q2_mutator_get(mutator, at, 8) ^ bit);
    return true;
}

/* ---- extensions ---- */

/* Move the header area from `at` on by `by` bytes; what leaves the area is lost. */
static bool
shift(struct q2_mutator *mutator, size_t at, ptrdiff_t by)
{
    uint8_t *bytes = mutator->buffer->bytes;
    size_t end = (size_t)mutator->layout.geometry.cluster_size;
    if (end > mutator->buffer->length)
        end = mutator->buffer->length;
    size_t less = (size_t)(by < 0 ? -by : by);
    if (at + less > end)
        return false;
    if (by < 0) {
        memmove(bytes + at, bytes + at + less, end - at - less);
        memset(bytes + end - less, 0, less);
    } else {
        memmove(bytes + at + less, bytes + at, end - at - less);
        memset(bytes + at, 0, less);
    }
    uint64_t name = mutator->layout.header.backing_file_offset;
    if (name >= at && name < end)
        q2_mutator_set(mutator, 8, 8, name + (uint64_t)by);
    return true;
}

static uint32_t
some_type(struct q2_mutator *mutator)
{
    static const uint32_t types[] = {
        Q2_EXTENSION_END,
        Q2_EXTENSION_BITMAPS,
        Q2_EXTENSION_CRYPTO,
        Q2_EXTENSION_DATA_FILE,
        Q2_EXTENSION_FEATURES,
        Q2_EXTENSION_BACKING_FORMAT,
        0x5a5a5a5a,
        0xffffffff,
    };
    return types[q2_mutator_below(mutator, sizeof types / sizeof *types)];
}

/* One of the extensions; 0: there is none. */
static size_t
some_extension(struct q2_mutator *mutator)
{
    const struct q2_layout *layout = &mutator->layout;
    size_t count = layout->extension_count;
    return count ? layout->extension_at[q2_mutator_below(mutator, count)] : 0;
}

bool
q2_change_extension_insert(struct q2_mutator *mutator)
{
    static const uint32_t lengths[] = {0, 3, 5, 8, 16, 24, 48, 96};
    const struct q2_layout *layout = &mutator->layout;
    size_t at = q2_mutator_below(mutator, 2) ? some_extension(mutator) : layout->extension_end;
    uint32_t type = some_type(mutator);
    uint32_t length = lengths[q2_mutator_below(mutator, sizeof lengths / sizeof *lengths)];
    size_t padded = (length + 7) & ~7U;
    if (at == 0 || !shift(mutator, at, (ptrdiff_t)padded + 8))
        return false;
    q2_mutator_set(mutator, at, 4, type);
    q2_mutator_set(mutator, at + 4, 4, length);
    for (size_t i = 0; i < length; i++)
        mutator->buffer->bytes[at + 8 + i] = (uint8_t)('a' + i % 26);
    if (type == Q2_EXTENSION_CRYPTO && length >= 16) {
        q2_mutator_set(mutator, at + 8, 8, q2_mutator_offset(mutator));
        q2_mutator_set(mutator, at + 16, 8, 1 + q2_mutator_below(mutator, 1 << 16));
    }
    return true;
}

bool
q2_change_extension_remove(struct q2_mutator *mutator)
{
    size_t at = some_extension(mutator);
    if (at == 0)
        return false;
    uint64_t length = q2_mutator_get(mutator, at + 4, 4);
    return shift(mutator, at, -(ptrdiff_t)(8 + ((length + 7) & ~UINT64_C(7))));
}

bool
q2_change_extension_length(struct q2_mutator *mutator)
{
    size_t at = some_extension(mutator);
    if (at == 0)
        return false;
    q2_mutator_set(mutator, at + 4, 4,
                   q2_mutator_value(mutator, q2_mutator_get(mutator, at + 4, 4), 4));
    return true;
}

bool
q2_change_extension_type(struct q2_mutator *mutator)
{
    size_t at = some_extension(mutator);
    if (at == 0)
        return false;
    q2_mutator_set(mutator, at, 4, some_type(mutator));
    return true;
}

bool
q2_change_extension_data(struct q2_mutator *mutator)
{
    size_t at = some_extension(mutator);
    uint64_t length = at ? q2_mutator_get(mutator, at + 4, 4) : 0;
    if (length == 0)
        return false;
    unsigned width = length >= 8 && q2_mutator_below(mutator, 2) ? 8 : 1;
    size_t in = at + 8 + q2_mutator_below(mutator, length - width + 1);
    q2_mutator_set(mutator, in, width,
                   q2_mutator_value(mutator, q2_mutator_get(mutator, in, width), width));
    return true;
}

bool
q2_change_bitmaps_extension(struct q2_mutator *mutator)
{
    size_t at = mutator->layout.bitmaps_at;
    if (at == 0)
        return false;
    static const struct {
        size_t at;
        unsigned width;
    } parts[] = {{0, 4}, {4, 4}, {8, 8}, {16, 8}};
    size_t i = q2_mutator_below(mutator, 4);
    uint64_t value =
        i == 3 && q2_mutator_below(mutator, 2)
            ? q2_mutator_offset(mutator)
            : q2_mutator_value(mutator, q2_mutator_get(mutator, at + parts[i].at, parts[i].width),
                               parts[i].width);
    q2_mutator_set(mutator, at + parts[i].at, parts[i].width, value);
    return true;
}

bool
q2_change_backing_name(struct q2_mutator *mutator)
{
    static const char *const names[] = {"input", "b", "json:{\"driver\":\"raw\"}", "a/../b", ""};
    const struct q2_layout *layout = &mutator->layout;
    const char *name = names[q2_mutator_below(mutator, sizeof names / sizeof *names)];
    size_t length = strlen(name), at = layout->extension_end + 8;
    if (layout->extension_end == 0 || at + length > mutator->buffer->length)
        return false;
    memcpy(mutator->buffer->bytes + at, name, length);
    q2_mutator_set(mutator, 8, 8, length ? at : 0);
    q2_mutator_set(mutator, 16, 4, length);
    return true;
}
