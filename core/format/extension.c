/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/format/extension.h"

#include "core/base/checked.h"
#include "core/base/endian.h"

#include <inttypes.h>
#include <string.h>

int
q2_extension_next(const uint8_t *area, size_t length, uint64_t *offset,
                  struct q2_extension *ret_extension)
{
    if (!q2_range_inside(*offset, Q2_EXTENSION_HEADER_LENGTH, length)) {
        *ret_extension = (struct q2_extension){.type = UINT32_MAX, .offset = *offset};
        return 0;
    }
    const uint8_t *at = area + *offset;
    *ret_extension = (struct q2_extension){
        .type = q2_load_be32(at),
        .length = q2_load_be32(at + 4),
        .offset = *offset,
        .data = at + Q2_EXTENSION_HEADER_LENGTH,
    };
    /* Software looks at the length first, even at that of the end marker. */
    if (!q2_range_inside(*offset + Q2_EXTENSION_HEADER_LENGTH, ret_extension->length, length))
        return -1;
    if (ret_extension->type == Q2_EXTENSION_END)
        return 0;
    /* Both terms are below 2^33 here. */
    *offset += Q2_EXTENSION_HEADER_LENGTH + (((uint64_t)ret_extension->length + 7) & ~UINT64_C(7));
    return 1;
}

size_t
q2_extension_area(const struct q2_header *header, unsigned usable, size_t length)
{
    uint64_t end = length;
    if (usable & Q2_USABLE_GEOMETRY)
        end = q2_min(end, UINT64_C(1) << header->cluster_bits);
    if (header->backing_file_offset && (usable & Q2_USABLE_BACKING_NAME))
        end = q2_min(end, header->backing_file_offset);
    return (size_t)end;
}

/* Report a name that is empty, longer than `most`, or has a control character. */
static bool
name_is_bad(const struct q2_sink *sink, enum q2_problem problem, const struct q2_text *name,
            uint64_t length_at, size_t most)
{
    char printable[Q2_DETAIL_SIZE / 2];
    if (name->length == 0 || name->length > most) {
        q2_violate(sink, problem, length_at, 4, name->length, "length");
        return true;
    }
    for (size_t i = 0; i < name->length; i++) {
        if (name->bytes[i] >= 0x20 && name->bytes[i] != 0x7f)
            continue;
        q2_violate(sink, problem, name->offset + i, 1, name->bytes[i], "byte %zu of \"%s\"", i,
                   q2_printable(printable, sizeof printable, name->bytes, name->length));
        return true;
    }
    return false;
}

/* ---- one function for each known extension ---- */

struct decoding {
    const struct q2_header *header;
    const struct q2_sink *sink;
    struct q2_extensions *out;
};

static struct q2_text
text_of(const struct q2_extension *extension)
{
    return (struct q2_text){.bytes = extension->data,
                            .length = extension->length,
                            .offset = extension->offset + Q2_EXTENSION_HEADER_LENGTH};
}

static void
take_backing_format(struct decoding *d, const struct q2_extension *e)
{
    char text[Q2_DETAIL_SIZE / 2];
    struct q2_text name = text_of(e);
    if (name_is_bad(d->sink, Q2_PROBLEM_EXTENSION_BACKING_FORMAT, &name, e->offset + 4,
                    Q2_MAX_BACKING_FORMAT))
        return;
    d->out->backing_format = name;
    if (!d->header->backing_file_offset)
        q2_violate_text(d->sink, Q2_PROBLEM_EXTENSION_BACKING_FORMAT_UNUSED, e->offset, 8, "\"%s\"",
                        q2_printable(text, sizeof text, name.bytes, name.length));
}

static void
take_data_file(struct decoding *d, const struct q2_extension *e)
{
    char text[Q2_DETAIL_SIZE / 2];
    struct q2_text name = text_of(e);
    if (name_is_bad(d->sink, Q2_PROBLEM_EXTENSION_DATA_FILE_NAME, &name, e->offset + 4,
                    Q2_MAX_NAME))
        return;
    d->out->data_file = name;
    if (!(d->header->incompatible_features & Q2_INCOMPATIBLE_DATA_FILE))
        q2_violate_text(d->sink, Q2_PROBLEM_EXTENSION_DATA_FILE_UNUSED, e->offset, 8, "\"%s\"",
                        q2_printable(text, sizeof text, name.bytes, name.length));
}

static void
take_features(struct decoding *d, const struct q2_extension *e)
{
    const uint64_t start = e->offset + Q2_EXTENSION_HEADER_LENGTH;
    const unsigned entries = e->length / Q2_FEATURE_ENTRY_LENGTH;
    if (e->length % Q2_FEATURE_ENTRY_LENGTH)
        q2_violate(d->sink, Q2_PROBLEM_EXTENSION_FEATURE_TABLE, e->offset + 4, 4, e->length,
                   "length");
    for (unsigned i = 0; i < entries; i++) {
        const uint8_t *entry = e->data + i * Q2_FEATURE_ENTRY_LENGTH;
        uint64_t at = start + i * Q2_FEATURE_ENTRY_LENGTH;
        if (entry[0] > 2)
            q2_violate(d->sink, Q2_PROBLEM_EXTENSION_FEATURE_TABLE, at, 1, entry[0],
                       "type of entry %u", i);
        if (entry[1] > 63)
            q2_violate(d->sink, Q2_PROBLEM_EXTENSION_FEATURE_TABLE, at + 1, 1, entry[1],
                       "bit of entry %u", i);
    }
    d->out->features = text_of(e);
}

static void
take_crypto(struct decoding *d, const struct q2_extension *e)
{
    if (e->length != Q2_EXTENSION_CRYPTO_LENGTH) {
        q2_violate_expected(d->sink, Q2_PROBLEM_EXTENSION_CRYPTO_LENGTH, e->offset, 8, e->length,
                            Q2_EXTENSION_CRYPTO_LENGTH, "length");
        return;
    }
    if (d->header->crypt_method != Q2_CRYPT_LUKS)
        q2_violate(d->sink, Q2_PROBLEM_EXTENSION_CRYPTO_UNUSED, e->offset, 8,
                   d->header->crypt_method, "crypt_method");
    d->out->has_crypto = true;
    d->out->crypto_at = e->offset + Q2_EXTENSION_HEADER_LENGTH;
    d->out->crypto_offset = q2_load_be64(e->data);
    d->out->crypto_length = q2_load_be64(e->data + 8);
}

static void
take_bitmaps(struct decoding *d, const struct q2_extension *e)
{
    if (e->length != Q2_EXTENSION_BITMAPS_LENGTH) {
        q2_violate_expected(d->sink, Q2_PROBLEM_EXTENSION_BITMAPS_LENGTH, e->offset, 8, e->length,
                            Q2_EXTENSION_BITMAPS_LENGTH, "length");
        return;
    }
    uint32_t count = q2_load_be32(e->data), reserved = q2_load_be32(e->data + 4);
    if (count == 0 || count > 65535)
        q2_violate(d->sink, Q2_PROBLEM_EXTENSION_BITMAPS_FIELDS, e->offset + 8, 4, count,
                   "nb_bitmaps");
    if (reserved)
        q2_violate_expected(d->sink, Q2_PROBLEM_EXTENSION_BITMAPS_FIELDS, e->offset + 12, 4,
                            reserved, 0, "reserved");
    if (!(d->header->autoclear_features & Q2_AUTOCLEAR_BITMAPS))
        q2_violate(d->sink, Q2_PROBLEM_EXTENSION_BITMAPS_STALE, e->offset, 8,
                   d->header->autoclear_features, "autoclear_features");
    d->out->has_bitmaps = true;
    d->out->bitmaps_at = e->offset + Q2_EXTENSION_HEADER_LENGTH;
    d->out->nb_bitmaps = count;
    d->out->bitmap_directory_size = q2_load_be64(e->data + 8);
    d->out->bitmap_directory_offset = q2_load_be64(e->data + 16);
}

static const struct {
    uint32_t type;
    const char *name;
    void (*take)(struct decoding *d, const struct q2_extension *e);
} known[] = {
    {Q2_EXTENSION_BACKING_FORMAT, "backing format", take_backing_format},
    {Q2_EXTENSION_DATA_FILE, "external data file name", take_data_file},
    {Q2_EXTENSION_FEATURES, "feature name table", take_features},
    {Q2_EXTENSION_CRYPTO, "encryption header", take_crypto},
    {Q2_EXTENSION_BITMAPS, "bitmaps", take_bitmaps},
};
enum { KNOWN_COUNT = sizeof known / sizeof known[0] };

static void
take(struct decoding *d, const struct q2_extension *e, unsigned *seen)
{
    for (unsigned i = 0; i < KNOWN_COUNT; i++) {
        if (known[i].type != e->type)
            continue;
        if (*seen >> i & 1)
            q2_violate_text(d->sink, Q2_PROBLEM_EXTENSION_DUPLICATE, e->offset, 8, "another \"%s\"",
                            known[i].name);
        else
            known[i].take(d, e);
        *seen |= 1U << i;
        return;
    }
    q2_violate(d->sink, Q2_PROBLEM_EXTENSION_UNKNOWN, e->offset, 8, e->type,
               "type of %" PRIu32 " bytes", e->length);
}

static bool
seen_type(unsigned seen, uint32_t type)
{
    for (unsigned i = 0; i < KNOWN_COUNT; i++)
        if (known[i].type == type)
            return seen >> i & 1;
    return false;
}

/* What header fields and extensions demand of each other. */
static void
check_presence(struct decoding *d, unsigned seen)
{
    const struct q2_header *header = d->header;
    if (header->crypt_method == Q2_CRYPT_LUKS && !seen_type(seen, Q2_EXTENSION_CRYPTO))
        q2_violate(d->sink, Q2_PROBLEM_EXTENSION_CRYPTO_MISSING, 32, 4, header->crypt_method,
                   "crypt_method");
    if ((header->autoclear_features & Q2_AUTOCLEAR_BITMAPS) &&
        !seen_type(seen, Q2_EXTENSION_BITMAPS))
        q2_violate(d->sink, Q2_PROBLEM_EXTENSION_BITMAPS_MISSING, 88, 8, header->autoclear_features,
                   "autoclear_features");
    if ((header->incompatible_features & Q2_INCOMPATIBLE_DATA_FILE) &&
        !seen_type(seen, Q2_EXTENSION_DATA_FILE))
        q2_violate(d->sink, Q2_PROBLEM_EXTENSION_DATA_FILE_MISSING, 72, 8,
                   header->incompatible_features, "incompatible_features");
}

/* Fields between the known ones and header_length are for newer versions, and otherwise zero. */
static void
check_padding(struct decoding *d, const uint8_t *bytes, size_t length)
{
    if (d->header->version < 3)
        return;
    uint64_t end = q2_min(d->header->header_length, length);
    for (uint64_t at = Q2_HEADER_V3_LENGTH + 1; at < end; at++)
        if (bytes[at]) {
            q2_violate_expected(d->sink, Q2_PROBLEM_HEADER_UNKNOWN_FIELDS, at, end - at, bytes[at],
                                0, NULL);
            return;
        }
}

static void
take_backing_name(struct decoding *d, unsigned usable, const uint8_t *bytes, size_t length)
{
    const struct q2_header *header = d->header;
    if (!header->backing_file_offset || !(usable & Q2_USABLE_BACKING_NAME) ||
        !q2_range_inside(header->backing_file_offset, header->backing_file_size, length))
        return;
    struct q2_text name = {.bytes = bytes + header->backing_file_offset,
                           .length = header->backing_file_size,
                           .offset = header->backing_file_offset};
    name_is_bad(d->sink, Q2_PROBLEM_HEADER_BACKING_NAME_BYTES, &name, 16, Q2_MAX_NAME);
    d->out->backing_file = name;
}

void
q2_extensions_decode(const struct q2_header *header, unsigned usable, const uint8_t *bytes,
                     size_t length, const struct q2_sink *sink,
                     struct q2_extensions *ret_extensions)
{
    memset(ret_extensions, 0, sizeof *ret_extensions);
    struct decoding d = {.header = header, .sink = sink, .out = ret_extensions};
    take_backing_name(&d, usable, bytes, length);
    if (!(usable & Q2_USABLE_EXTENSIONS))
        return;

    check_padding(&d, bytes, length);
    size_t area = q2_extension_area(header, usable, length);
    uint64_t offset = header->header_length;
    struct q2_extension extension;
    unsigned seen = 0;
    int rc;
    while ((rc = q2_extension_next(bytes, area, &offset, &extension)) > 0)
        take(&d, &extension, &seen);
    if (rc < 0)
        q2_violate(sink, Q2_PROBLEM_EXTENSION_PAST_AREA, extension.offset, 8, extension.length,
                   "length of type 0x%08" PRIx32 ", with %" PRIu64 " bytes left", extension.type,
                   area - extension.offset - Q2_EXTENSION_HEADER_LENGTH);
    else if (area > extension.offset && area == header->backing_file_offset &&
             extension.type != Q2_EXTENSION_END)
        q2_violate_expected(sink, Q2_PROBLEM_EXTENSION_PAST_AREA, extension.offset,
                            area - extension.offset, area - extension.offset,
                            Q2_EXTENSION_HEADER_LENGTH, "bytes left");
    else if (extension.type != Q2_EXTENSION_END && header->version >= 3)
        q2_violate_expected(sink, Q2_PROBLEM_EXTENSION_NO_END, extension.offset, 0,
                            area > extension.offset ? area - extension.offset : 0,
                            Q2_EXTENSION_HEADER_LENGTH, "bytes left");
    check_presence(&d, seen);
}

bool
q2_feature_name(const struct q2_extensions *extensions, unsigned type, unsigned bit,
                struct q2_text *ret_name)
{
    const struct q2_text *table = &extensions->features;
    for (size_t at = 0; at + Q2_FEATURE_ENTRY_LENGTH <= table->length;
         at += Q2_FEATURE_ENTRY_LENGTH) {
        const uint8_t *entry = table->bytes + at;
        if (entry[0] != type || entry[1] != bit)
            continue;
        *ret_name =
            (struct q2_text){.bytes = entry + 2,
                             .length = strnlen((const char *)entry + 2, Q2_FEATURE_NAME_LENGTH),
                             .offset = table->offset + at + 2};
        return true;
    }
    return false;
}
