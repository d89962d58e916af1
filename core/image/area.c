/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The first cluster is rewritten as a whole, so it is read as a whole: what software of today does
 * not know (fields behind the known ones, extensions of unknown types, another's feature names) is
 * carried along as bytes. */

#include "core/image/area.h"

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/image/strict.h"

#include <stdlib.h>
#include <string.h>

enum {
    TAIL_START = Q2_HEADER_V3_LENGTH + 1,
    END_LENGTH = Q2_EXTENSION_HEADER_LENGTH,
};

/* The names that the specification gives the features; the texts are those other software shows. */
static const struct {
    uint8_t type; /* 0: incompatible, 1: compatible, 2: autoclear */
    uint8_t bit;
    const char *name;
} feature_names[] = {
    {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
    {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
    {2, 0, "bitmaps"},          {2, 1, "raw external data"},
};
enum { FEATURE_COUNT = sizeof feature_names / sizeof feature_names[0] };

static int
no_memory(struct q2_error *err)
{
    return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the header area");
}

/* ---- decoding ---- */

static int
take_text(const struct q2_text *text, char **ret_text, struct q2_error *err)
{
    if (!text->bytes)
        return 0;
    *ret_text = strndup((const char *)text->bytes, text->length);
    return *ret_text ? 0 : no_memory(err);
}

static int
take_bytes(const uint8_t *bytes, size_t length, uint8_t **ret_bytes, size_t *ret_length,
           struct q2_error *err)
{
    if (length == 0)
        return 0;
    *ret_bytes = malloc(length);
    if (!*ret_bytes)
        return no_memory(err);
    memcpy(*ret_bytes, bytes, length);
    *ret_length = length;
    return 0;
}

/* The header's bytes from the padding of compression_type on, if they say anything. */
static int
take_tail(const struct q2_header *header, const uint8_t *bytes, size_t length, struct q2_area *area,
          struct q2_error *err)
{
    uint64_t end = header->version < 3 ? 0 : q2_min(header->header_length, length), last = 0;
    for (uint64_t at = TAIL_START; at < end; at++)
        if (bytes[at])
            last = at;
    if (end <= Q2_HEADER_KNOWN_LENGTH && !last)
        return 0;
    return take_bytes(bytes + TAIL_START, (size_t)(end - TAIL_START), &area->tail,
                      &area->tail_length, err);
}

static bool
is_known(uint32_t type)
{
    return type == Q2_EXTENSION_BITMAPS || type == Q2_EXTENSION_CRYPTO ||
           type == Q2_EXTENSION_DATA_FILE || type == Q2_EXTENSION_FEATURES ||
           type == Q2_EXTENSION_BACKING_FORMAT;
}

/* All extensions of unknown types, one behind the other, each as long as a multiple of 8. */
static int
take_unknown(const struct q2_header *header, unsigned usable, const uint8_t *bytes, size_t length,
             struct q2_area *area, struct q2_error *err)
{
    size_t end = q2_extension_area(header, usable, length), total = 0;
    uint64_t offset = header->header_length;
    struct q2_extension extension;
    while (q2_extension_next(bytes, end, &offset, &extension) > 0)
        if (!is_known(extension.type))
            total += (size_t)(offset - extension.offset);
    if (total == 0)
        return 0;

    area->unknown = calloc(1, total);
    if (!area->unknown)
        return no_memory(err);
    offset = header->header_length;
    while (q2_extension_next(bytes, end, &offset, &extension) > 0) {
        if (is_known(extension.type))
            continue;
        /* The padding of the last one may be cut off by the end of the area. */
        memcpy(area->unknown + area->unknown_length, bytes + extension.offset,
               (size_t)(q2_min(offset, end) - extension.offset));
        area->unknown_length += (size_t)(offset - extension.offset);
    }
    return 0;
}

static int
take_all(const struct q2_header *header, unsigned usable, const uint8_t *bytes, size_t length,
         const struct q2_extensions *extensions, struct q2_area *area, struct q2_error *err)
{
    area->has_crypto = extensions->has_crypto;
    area->crypto_offset = extensions->crypto_offset;
    area->crypto_length = extensions->crypto_length;
    area->has_bitmaps = extensions->has_bitmaps;
    area->nb_bitmaps = extensions->nb_bitmaps;
    area->bitmap_directory_size = extensions->bitmap_directory_size;
    area->bitmap_directory_offset = extensions->bitmap_directory_offset;
    area->has_features = extensions->features.bytes != NULL;

    int rc = take_text(&extensions->backing_file, &area->backing_file, err);
    if (rc == 0)
        rc = take_text(&extensions->backing_format, &area->backing_format, err);
    if (rc == 0)
        rc = take_text(&extensions->data_file, &area->data_file, err);
    if (rc == 0 && area->has_features)
        rc = take_bytes(extensions->features.bytes, extensions->features.length, &area->features,
                        &area->features_length, err);
    if (rc == 0)
        rc = take_tail(header, bytes, length, area, err);
    if (rc == 0 && (usable & Q2_USABLE_EXTENSIONS))
        rc = take_unknown(header, usable, bytes, length, area, err);
    return rc;
}

int
q2_area_decode(const struct q2_header *header, unsigned usable, const uint8_t *bytes, size_t length,
               const char *file_name, struct q2_area *ret_area, struct q2_error *err)
{
    struct q2_strict strict;
    q2_strict_init(&strict, file_name);
    struct q2_extensions extensions;
    q2_extensions_decode(header, usable, bytes, length, &strict.sink, &extensions);
    int rc = q2_strict_result(&strict, err);
    if (rc < 0)
        return rc;

    struct q2_area area = {0};
    rc = take_all(header, usable, bytes, length, &extensions, &area, err);
    if (rc < 0)
        q2_area_destroy(&area);
    else
        *ret_area = area;
    return rc;
}

/* ---- encoding ---- */

static size_t
padded(size_t length)
{
    return (length + 7) & ~(size_t)7;
}

static size_t
text_length(const char *text)
{
    return text ? strlen(text) : 0;
}

static size_t
extension_length(const char *text)
{
    return text ? Q2_EXTENSION_HEADER_LENGTH + padded(strlen(text)) : 0;
}

/* The length of the fixed fields and what is kept behind them. */
static size_t
fixed_length(const struct q2_header *header, const struct q2_area *area)
{
    if (header->version < 3)
        return Q2_HEADER_V2_LENGTH;
    return padded((size_t)q2_max(Q2_HEADER_KNOWN_LENGTH, TAIL_START + area->tail_length));
}

static size_t
features_length(const struct q2_header *header, const struct q2_area *area)
{
    if (header->version < 3 || !area->has_features)
        return 0;
    return Q2_EXTENSION_HEADER_LENGTH + (area->features
                                             ? padded(area->features_length)
                                             : (size_t)FEATURE_COUNT * Q2_FEATURE_ENTRY_LENGTH);
}

/* All of it without the feature name table. */
static size_t
needed_length(const struct q2_header *header, const struct q2_area *area)
{
    size_t length = fixed_length(header, area) + END_LENGTH + area->unknown_length;
    length += extension_length(area->backing_format) + extension_length(area->data_file);
    if (area->has_crypto)
        length += Q2_EXTENSION_HEADER_LENGTH + Q2_EXTENSION_CRYPTO_LENGTH;
    if (area->has_bitmaps)
        length += Q2_EXTENSION_HEADER_LENGTH + Q2_EXTENSION_BITMAPS_LENGTH;
    return length + text_length(area->backing_file);
}

/* Begin an extension at *at: its header is written, its data follows. */
static uint8_t *
put_extension(uint8_t **at, uint32_t type, size_t length)
{
    uint8_t *data = *at + Q2_EXTENSION_HEADER_LENGTH;
    q2_store_be32(*at, type);
    q2_store_be32(*at + 4, (uint32_t)length);
    *at = data + padded(length);
    return data;
}

static void
put_text(uint8_t **at, uint32_t type, const char *text)
{
    if (text)
        memcpy(put_extension(at, type, strlen(text)), text, strlen(text));
}

static void
put_features(uint8_t **at, const struct q2_area *area)
{
    if (area->features) {
        memcpy(put_extension(at, Q2_EXTENSION_FEATURES, area->features_length), area->features,
               area->features_length);
        return;
    }
    uint8_t *entry =
        put_extension(at, Q2_EXTENSION_FEATURES, (size_t)FEATURE_COUNT * Q2_FEATURE_ENTRY_LENGTH);
    for (size_t i = 0; i < FEATURE_COUNT; i++, entry += Q2_FEATURE_ENTRY_LENGTH) {
        entry[0] = feature_names[i].type;
        entry[1] = feature_names[i].bit;
        memcpy(entry + 2, feature_names[i].name, strlen(feature_names[i].name));
    }
}

static void
put_crypto(uint8_t **at, const struct q2_area *area)
{
    uint8_t *data = put_extension(at, Q2_EXTENSION_CRYPTO, Q2_EXTENSION_CRYPTO_LENGTH);
    q2_store_be64(data, area->crypto_offset);
    q2_store_be64(data + 8, area->crypto_length);
}

static void
put_bitmaps(uint8_t **at, const struct q2_area *area)
{
    uint8_t *data = put_extension(at, Q2_EXTENSION_BITMAPS, Q2_EXTENSION_BITMAPS_LENGTH);
    q2_store_be32(data, area->nb_bitmaps);
    q2_store_be64(data + 8, area->bitmap_directory_size);
    q2_store_be64(data + 16, area->bitmap_directory_offset);
}

static void
put_extensions(uint8_t **at, const struct q2_area *area, bool features)
{
    /* What changes in an image's life comes before what is long, so that all of it is in the first
     * sector of most images, and a write that is torn by a power cut between sectors keeps it
     * whole. */
    if (area->has_bitmaps)
        put_bitmaps(at, area);
    put_text(at, Q2_EXTENSION_BACKING_FORMAT, area->backing_format);
    put_text(at, Q2_EXTENSION_DATA_FILE, area->data_file);
    if (area->has_crypto)
        put_crypto(at, area);
    if (features)
        put_features(at, area);
    if (area->unknown)
        memcpy(*at, area->unknown, area->unknown_length);
    *at += area->unknown_length;
    put_extension(at, Q2_EXTENSION_END, 0);
}

int
q2_area_encode(struct q2_header *header, const struct q2_area *area, uint8_t *bytes,
               size_t cluster_size, struct q2_error *err)
{
    size_t needed = needed_length(header, area), features = features_length(header, area);
    if (needed > cluster_size)
        return q2_error_set(err, Q2_ERR_NOSPACE,
                            "the header with its extensions and the backing file name takes %zu "
                            "bytes, but the first cluster has %zu",
                            needed, cluster_size);
    memset(bytes, 0, cluster_size);
    uint8_t *at = bytes + fixed_length(header, area);
    put_extensions(&at, area, features > 0 && needed + features <= cluster_size);

    size_t name = text_length(area->backing_file);
    header->backing_file_offset = name ? (uint64_t)(at - bytes) : 0;
    header->backing_file_size = (uint32_t)name;
    header->header_length = (uint32_t)fixed_length(header, area);
    if (name)
        memcpy(at, area->backing_file, name);
    q2_header_encode(header, bytes);
    if (header->version >= 3 && area->tail)
        memcpy(bytes + TAIL_START, area->tail, area->tail_length);
    return 0;
}

/* ---- the struct itself ---- */

static int
copy_text(const char *text, char **ret_copy, struct q2_error *err)
{
    *ret_copy = text ? strdup(text) : NULL;
    return text && !*ret_copy ? no_memory(err) : 0;
}

int
q2_area_copy(const struct q2_area *area, struct q2_area *ret_copy, struct q2_error *err)
{
    struct q2_area copy = *area;
    copy.backing_file = copy.backing_format = copy.data_file = NULL;
    copy.features = copy.tail = copy.unknown = NULL;

    int rc = copy_text(area->backing_file, &copy.backing_file, err);
    if (rc == 0)
        rc = copy_text(area->backing_format, &copy.backing_format, err);
    if (rc == 0)
        rc = copy_text(area->data_file, &copy.data_file, err);
    if (rc == 0)
        rc = take_bytes(area->features, area->features_length, &copy.features,
                        &copy.features_length, err);
    if (rc == 0)
        rc = take_bytes(area->tail, area->tail_length, &copy.tail, &copy.tail_length, err);
    if (rc == 0)
        rc = take_bytes(area->unknown, area->unknown_length, &copy.unknown, &copy.unknown_length,
                        err);
    if (rc < 0)
        q2_area_destroy(&copy);
    else
        *ret_copy = copy;
    return rc;
}

void
q2_area_destroy(struct q2_area *area)
{
    if (!area)
        return;
    free(area->backing_file);
    free(area->backing_format);
    free(area->data_file);
    free(area->features);
    free(area->tail);
    free(area->unknown);
    *area = (struct q2_area){0};
}
