/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The header as one table of fields: decoding, encoding and the offsets in reports all come from
 * it, so that a field is described once. */

#include "core/format/header.h"

#include "core/base/checked.h"
#include "core/base/endian.h"

#include <inttypes.h>
#include <string.h>

struct field {
    const char *name;
    uint16_t at;     /* byte offset in the file */
    uint16_t width;  /* bytes */
    uint16_t member; /* offset in struct q2_header */
};

enum { ONLY_V3_FROM = Q2_HEADER_V2_LENGTH };

#define FIELD(name, at, width)                             \
    {                                                      \
#name, at, width, offsetof(struct q2_header, name) \
    }

static const struct field fields[] = {
    FIELD(magic, 0, 4),
    FIELD(version, 4, 4),
    FIELD(backing_file_offset, 8, 8),
    FIELD(backing_file_size, 16, 4),
    FIELD(cluster_bits, 20, 4),
    FIELD(size, 24, 8),
    FIELD(crypt_method, 32, 4),
    FIELD(l1_size, 36, 4),
    FIELD(l1_table_offset, 40, 8),
    FIELD(refcount_table_offset, 48, 8),
    FIELD(refcount_table_clusters, 56, 4),
    FIELD(nb_snapshots, 60, 4),
    FIELD(snapshots_offset, 64, 8),
    FIELD(incompatible_features, 72, 8),
    FIELD(compatible_features, 80, 8),
    FIELD(autoclear_features, 88, 8),
    FIELD(refcount_order, 96, 4),
    FIELD(header_length, 100, 4),
    FIELD(compression_type, 104, 1),
};
enum { FIELD_COUNT = sizeof fields / sizeof fields[0] };

static const struct field *
find(const char *name)
{
    for (size_t i = 0; i < FIELD_COUNT; i++)
        if (strcmp(fields[i].name, name) == 0)
            return &fields[i];
    return NULL;
}

bool
q2_header_field(const char *name, struct q2_header_field *ret_field)
{
    const struct field *field = find(name);
    if (!field)
        return false;
    *ret_field = (struct q2_header_field){.offset = field->at, .width = field->width};
    return true;
}

void
q2_header_decode(const uint8_t *bytes, size_t length, struct q2_header *ret_header)
{
    memset(ret_header, 0, sizeof *ret_header);
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        const struct field *field = &fields[i];
        char *member = (char *)ret_header + field->member;
        bool absent = field->at >= ONLY_V3_FROM && ret_header->version < 3;
        /* compression_type is there only where header_length says so. */
        absent |= field->at >= Q2_HEADER_V3_LENGTH && ret_header->header_length <= field->at;
        if (absent || !q2_range_inside(field->at, field->width, length))
            continue;
        if (field->width == 8)
            *(uint64_t *)(void *)member = q2_load_be64(bytes + field->at);
        else if (field->width == 4)
            *(uint32_t *)(void *)member = q2_load_be32(bytes + field->at);
        else
            *(uint8_t *)member = bytes[field->at];
    }
    if (ret_header->version < 3) {
        ret_header->refcount_order = 4;
        ret_header->header_length = Q2_HEADER_V2_LENGTH;
    }
}

size_t
q2_header_encode(const struct q2_header *header, uint8_t *bytes)
{
    size_t length = header->version < 3                           ? Q2_HEADER_V2_LENGTH
                    : header->header_length > Q2_HEADER_V3_LENGTH ? Q2_HEADER_KNOWN_LENGTH
                                                                  : Q2_HEADER_V3_LENGTH;
    memset(bytes, 0, length);
    for (size_t i = 0; i < FIELD_COUNT && fields[i].at < length; i++) {
        const char *member = (const char *)header + fields[i].member;
        uint8_t *to = bytes + fields[i].at;
        if (fields[i].width == 8)
            q2_store_be64(to, *(const uint64_t *)(const void *)member);
        else if (fields[i].width == 4)
            q2_store_be32(to, *(const uint32_t *)(const void *)member);
        else
            *to = *(const uint8_t *)member;
    }
    return length;
}

/* ---- rules ---- */

static void
broken(const struct q2_sink *sink, enum q2_problem problem, const char *name, uint64_t got)
{
    const struct field *field = find(name);
    q2_violate(sink, problem, field->at, field->width, got, "%s", name);
}

static bool
aligned(const struct q2_header *header, uint64_t offset)
{
    return (offset & ((UINT64_C(1) << header->cluster_bits) - 1)) == 0;
}

static unsigned
check_geometry(const struct q2_header *header, const struct q2_sink *sink)
{
    unsigned lost = 0;
    if (header->version != 2 && header->version != 3) {
        broken(sink, Q2_PROBLEM_HEADER_VERSION, "version", header->version);
        lost = Q2_USABLE_ALL;
    }
    if (header->cluster_bits < Q2_MIN_CLUSTER_BITS || header->cluster_bits > Q2_MAX_CLUSTER_BITS) {
        broken(sink, Q2_PROBLEM_HEADER_CLUSTER_BITS, "cluster_bits", header->cluster_bits);
        lost = Q2_USABLE_ALL & ~Q2_USABLE_EXTENSIONS;
    } else if ((header->incompatible_features & Q2_INCOMPATIBLE_EXTENDED_L2) &&
               header->cluster_bits < Q2_MIN_EXTENDED_CLUSTER_BITS) {
        broken(sink, Q2_PROBLEM_HEADER_EXTENDED_L2_CLUSTER, "cluster_bits", header->cluster_bits);
        lost = Q2_USABLE_L1 | Q2_USABLE_SNAPSHOTS;
    }
    if (header->refcount_order > Q2_MAX_REFCOUNT_ORDER) {
        broken(sink, Q2_PROBLEM_HEADER_REFCOUNT_ORDER, "refcount_order", header->refcount_order);
        lost |= Q2_USABLE_REFCOUNTS;
    }
    return lost;
}

static unsigned
check_length(const struct q2_header *header, const struct q2_sink *sink)
{
    if (header->version != 3)
        return 0;
    bool known =
        header->cluster_bits >= Q2_MIN_CLUSTER_BITS && header->cluster_bits <= Q2_MAX_CLUSTER_BITS;
    bool fits = !known || header->header_length <= UINT64_C(1) << header->cluster_bits;
    if (header->header_length >= Q2_HEADER_V3_LENGTH && header->header_length % 8 == 0 && fits)
        return 0;
    broken(sink, Q2_PROBLEM_HEADER_LENGTH, "header_length", header->header_length);
    return Q2_USABLE_EXTENSIONS;
}

static void
check_features(const struct q2_header *header, const struct q2_sink *sink)
{
    static const struct {
        const char *name;
        uint64_t known;
        enum q2_problem problem;
    } sets[] = {
        {"incompatible_features", Q2_INCOMPATIBLE_KNOWN, Q2_PROBLEM_HEADER_INCOMPATIBLE_UNKNOWN},
        {"compatible_features", Q2_COMPATIBLE_KNOWN, Q2_PROBLEM_HEADER_COMPATIBLE_UNKNOWN},
        {"autoclear_features", Q2_AUTOCLEAR_KNOWN, Q2_PROBLEM_HEADER_AUTOCLEAR_UNKNOWN},
    };
    const uint64_t values[] = {header->incompatible_features, header->compatible_features,
                               header->autoclear_features};
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++)
        for (unsigned bit = 0; bit < 64; bit++)
            if ((values[i] & ~sets[i].known) >> bit & 1)
                q2_violate(sink, sets[i].problem, find(sets[i].name)->at, 8, bit, "bit %u of %s",
                           bit, sets[i].name);

    uint64_t incompatible = header->incompatible_features;
    if (incompatible & Q2_INCOMPATIBLE_DIRTY)
        broken(sink, Q2_PROBLEM_HEADER_DIRTY, "incompatible_features", incompatible);
    if (incompatible & Q2_INCOMPATIBLE_CORRUPT)
        broken(sink, Q2_PROBLEM_HEADER_CORRUPT, "incompatible_features", incompatible);

    bool flagged = incompatible & Q2_INCOMPATIBLE_COMPRESSION;
    if (header->compression_type > 1 || flagged != (header->compression_type != 0))
        broken(sink, Q2_PROBLEM_HEADER_COMPRESSION_TYPE, "compression_type",
               header->compression_type);

    bool data_file = incompatible & Q2_INCOMPATIBLE_DATA_FILE;
    bool raw = header->autoclear_features & Q2_AUTOCLEAR_RAW_DATA;
    if (raw && !data_file)
        broken(sink, Q2_PROBLEM_HEADER_RAW_DATA_BIT, "autoclear_features",
               header->autoclear_features);
    if (raw && data_file && header->backing_file_offset)
        broken(sink, Q2_PROBLEM_HEADER_BACKING_RAW_DATA, "backing_file_offset",
               header->backing_file_offset);
    if (data_file && header->nb_snapshots)
        broken(sink, Q2_PROBLEM_HEADER_DATA_FILE_SNAPSHOTS, "nb_snapshots", header->nb_snapshots);
    if (header->crypt_method > Q2_CRYPT_LUKS)
        broken(sink, Q2_PROBLEM_HEADER_CRYPT_METHOD, "crypt_method", header->crypt_method);
}

/* Bits of guest address space that one L1 entry covers. */
static unsigned
l1_shift(const struct q2_header *header)
{
    bool extended = header->incompatible_features & Q2_INCOMPATIBLE_EXTENDED_L2;
    return header->cluster_bits + header->cluster_bits - (extended ? 4 : 3);
}

static unsigned
check_l1(const struct q2_header *header, uint64_t file_size, const struct q2_sink *sink)
{
    unsigned lost = 0;
    uint64_t bytes = (uint64_t)header->l1_size * 8;
    uint64_t needed = q2_units(header->size, l1_shift(header));

    if (header->size % 512)
        broken(sink, Q2_PROBLEM_HEADER_SIZE_UNALIGNED, "size", header->size);
    if (needed > Q2_MAX_L1_BYTES / 8)
        broken(sink, Q2_PROBLEM_HEADER_SIZE_TOO_BIG, "size", header->size);
    else if (header->l1_size < needed)
        q2_violate_expected(sink, Q2_PROBLEM_HEADER_L1_TOO_SMALL, find("l1_size")->at, 4,
                            header->l1_size, needed, "l1_size");
    if (bytes > Q2_MAX_L1_BYTES) {
        broken(sink, Q2_PROBLEM_HEADER_L1_TOO_BIG, "l1_size", header->l1_size);
        lost = Q2_USABLE_L1;
    }
    if (!aligned(header, header->l1_table_offset) || (bytes && !header->l1_table_offset)) {
        broken(sink, Q2_PROBLEM_HEADER_L1_UNALIGNED, "l1_table_offset", header->l1_table_offset);
        lost = Q2_USABLE_L1;
    } else if (!lost && !q2_range_inside(header->l1_table_offset, bytes, file_size)) {
        broken(sink, Q2_PROBLEM_HEADER_L1_PAST_END, "l1_table_offset", header->l1_table_offset);
        lost = Q2_USABLE_L1;
    }
    return lost;
}

static unsigned
check_refcount_table(const struct q2_header *header, uint64_t file_size, const struct q2_sink *sink)
{
    unsigned lost = 0;
    uint64_t bytes = (uint64_t)header->refcount_table_clusters << header->cluster_bits;
    if (bytes == 0 || bytes > Q2_MAX_REFCOUNT_TABLE_BYTES) {
        broken(sink, Q2_PROBLEM_HEADER_REFCOUNT_TABLE_SIZE, "refcount_table_clusters",
               header->refcount_table_clusters);
        lost = Q2_USABLE_REFCOUNTS;
    }
    if (!aligned(header, header->refcount_table_offset) || !header->refcount_table_offset) {
        broken(sink, Q2_PROBLEM_HEADER_REFCOUNT_TABLE_UNALIGNED, "refcount_table_offset",
               header->refcount_table_offset);
        lost = Q2_USABLE_REFCOUNTS;
    } else if (!lost && !q2_range_inside(header->refcount_table_offset, bytes, file_size)) {
        broken(sink, Q2_PROBLEM_HEADER_REFCOUNT_TABLE_PAST_END, "refcount_table_offset",
               header->refcount_table_offset);
        lost = Q2_USABLE_REFCOUNTS;
    }
    return lost;
}

static unsigned
check_snapshots(const struct q2_header *header, uint64_t file_size, const struct q2_sink *sink)
{
    unsigned lost = 0;
    if (header->nb_snapshots > Q2_MAX_SNAPSHOTS) {
        broken(sink, Q2_PROBLEM_HEADER_SNAPSHOTS_TOO_MANY, "nb_snapshots", header->nb_snapshots);
        lost = Q2_USABLE_SNAPSHOTS;
    }
    if (!aligned(header, header->snapshots_offset) ||
        (header->nb_snapshots && !header->snapshots_offset)) {
        broken(sink, Q2_PROBLEM_HEADER_SNAPSHOTS_UNALIGNED, "snapshots_offset",
               header->snapshots_offset);
        lost = Q2_USABLE_SNAPSHOTS;
    } else if ((header->nb_snapshots && header->snapshots_offset >= file_size) ||
               header->snapshots_offset > INT64_MAX) { /* which software refuses in any case */
        broken(sink, Q2_PROBLEM_SNAPSHOT_TABLE_PAST_END, "snapshots_offset",
               header->snapshots_offset);
        lost = Q2_USABLE_SNAPSHOTS;
    }
    return lost;
}

static unsigned
check_backing_name(const struct q2_header *header, uint64_t file_size, const struct q2_sink *sink)
{
    if (!header->backing_file_offset)
        return 0;
    uint64_t limit = q2_min(UINT64_C(1) << header->cluster_bits, file_size);
    if (header->backing_file_size <= Q2_MAX_NAME &&
        header->backing_file_offset >= header->header_length &&
        q2_range_inside(header->backing_file_offset, header->backing_file_size, limit))
        return 0;
    q2_violate(sink, Q2_PROBLEM_HEADER_BACKING_NAME, find("backing_file_offset")->at, 12,
               header->backing_file_offset, "%" PRIu32 " bytes at offset %" PRIu64,
               header->backing_file_size, header->backing_file_offset);
    return Q2_USABLE_BACKING_NAME;
}

unsigned
q2_header_validate(const struct q2_header *header, uint64_t file_size, const struct q2_sink *sink)
{
    uint64_t known = header->version == 2 ? Q2_HEADER_V2_LENGTH : Q2_HEADER_V3_LENGTH;
    if (file_size < known) {
        q2_violate_expected(sink, Q2_PROBLEM_HEADER_TRUNCATED, 0, file_size, file_size, known,
                            "file size");
        return 0;
    }

    unsigned lost = check_geometry(header, sink) | check_length(header, sink);
    check_features(header, sink);
    if (lost & Q2_USABLE_GEOMETRY)
        return Q2_USABLE_ALL & ~lost;
    lost |= check_l1(header, file_size, sink);
    lost |= check_refcount_table(header, file_size, sink);
    lost |= check_snapshots(header, file_size, sink);
    lost |= check_backing_name(header, file_size, sink);
    return Q2_USABLE_ALL & ~lost;
}

bool
q2_header_plausible(const struct q2_header *header, uint64_t file_size)
{
    if ((header->version != 2 && header->version != 3) ||
        header->cluster_bits < Q2_MIN_CLUSTER_BITS || header->cluster_bits > Q2_MAX_CLUSTER_BITS)
        return false;
    return aligned(header, header->l1_table_offset) && header->l1_table_offset < file_size &&
           aligned(header, header->refcount_table_offset) && header->refcount_table_offset &&
           header->refcount_table_offset < file_size && header->refcount_order <= 6 &&
           header->crypt_method <= Q2_CRYPT_LUKS;
}

void
q2_geometry_init(struct q2_geometry *geometry, const struct q2_header *header, uint64_t file_size)
{
    bool extended = header->incompatible_features & Q2_INCOMPATIBLE_EXTENDED_L2;
    unsigned entry_bits = extended ? 4 : 3;
    unsigned order = header->refcount_order <= Q2_MAX_REFCOUNT_ORDER ? header->refcount_order : 4;
    *geometry = (struct q2_geometry){
        .version = header->version,
        .cluster_bits = header->cluster_bits,
        .cluster_size = UINT64_C(1) << header->cluster_bits,
        .l2_entry_size = 1U << entry_bits,
        .l2_bits = header->cluster_bits - entry_bits,
        .l2_entries = UINT64_C(1) << (header->cluster_bits - entry_bits),
        .refcount_order = order,
        .refcount_block_bits = header->cluster_bits + 3 - order,
        .extended_l2 = extended,
        .data_file = header->incompatible_features & Q2_INCOMPATIBLE_DATA_FILE,
        .encrypted = header->crypt_method != Q2_CRYPT_NONE,
        .disk_size = header->size,
        .file_size = file_size,
        .file_clusters = q2_units(file_size, header->cluster_bits),
    };
}

uint64_t
q2_l1_entries_for(const struct q2_geometry *geometry, uint64_t bytes)
{
    return q2_units(bytes, geometry->cluster_bits + geometry->l2_bits);
}
