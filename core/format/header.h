/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The fixed part of the first cluster ("Header" in the specification), and the geometry that
 * follows from it. */

#ifndef Q2_FORMAT_HEADER_H
#define Q2_FORMAT_HEADER_H

#include "core/format/problem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define Q2_MAGIC UINT32_C(0x514649fb)

enum {
    Q2_HEADER_V2_LENGTH = 72,
    Q2_HEADER_V3_LENGTH = 104,
    Q2_HEADER_KNOWN_LENGTH = 112, /* with compression_type and its padding */
};

/* Limits that the format or every known implementation sets. */
enum {
    Q2_MIN_CLUSTER_BITS = 9,
    Q2_MAX_CLUSTER_BITS = 21,
    Q2_MIN_EXTENDED_CLUSTER_BITS = 14,
    Q2_MAX_REFCOUNT_ORDER = 6,
    Q2_MAX_L1_BYTES = 32 << 20,
    Q2_MAX_REFCOUNT_TABLE_BYTES = 8 << 20,
    Q2_MAX_SNAPSHOTS = 65536,
    Q2_MAX_SNAPSHOT_TABLE_BYTES = 64 << 20,
    Q2_MAX_NAME = 1023, /* backing file, data file and bitmap names, bytes */
};

enum q2_incompatible {
    Q2_INCOMPATIBLE_DIRTY = 1 << 0,
    Q2_INCOMPATIBLE_CORRUPT = 1 << 1,
    Q2_INCOMPATIBLE_DATA_FILE = 1 << 2,
    Q2_INCOMPATIBLE_COMPRESSION = 1 << 3,
    Q2_INCOMPATIBLE_EXTENDED_L2 = 1 << 4,
    Q2_INCOMPATIBLE_KNOWN = (1 << 5) - 1,
};

enum q2_compatible {
    Q2_COMPATIBLE_LAZY_REFCOUNTS = 1 << 0,
    Q2_COMPATIBLE_KNOWN = 1,
};

enum q2_autoclear {
    Q2_AUTOCLEAR_BITMAPS = 1 << 0,
    Q2_AUTOCLEAR_RAW_DATA = 1 << 1,
    Q2_AUTOCLEAR_KNOWN = 3,
};

enum q2_crypt_method {
    Q2_CRYPT_NONE = 0,
    Q2_CRYPT_AES = 1,
    Q2_CRYPT_LUKS = 2,
};

/* The fields as they are in the file, whatever they claim. Version 2 images get the values that the
 * specification assumes for the fields they lack. */
struct q2_header {
    uint32_t magic;
    uint32_t version;
    uint64_t backing_file_offset; /* bytes */
    uint32_t backing_file_size;   /* bytes */
    uint32_t cluster_bits;
    uint64_t size; /* of the virtual disk, bytes */
    uint32_t crypt_method;
    uint32_t l1_size; /* entries */
    uint64_t l1_table_offset;
    uint64_t refcount_table_offset;
    uint32_t refcount_table_clusters;
    uint32_t nb_snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible_features;
    uint64_t compatible_features;
    uint64_t autoclear_features;
    uint32_t refcount_order;
    uint32_t header_length; /* bytes */
    uint8_t compression_type;
};

/* What the other structures are measured with. Only ever made from a header whose cluster size,
 * version and refcount order obey the rules, so shifts by these numbers are safe. */
struct q2_geometry {
    uint32_t version;
    unsigned cluster_bits;
    uint64_t cluster_size;        /* bytes */
    unsigned l2_entry_size;       /* bytes: 8, or 16 with extended L2 entries */
    unsigned l2_bits;             /* log2 of the entries of an L2 table */
    uint64_t l2_entries;          /* of an L2 table */
    unsigned refcount_order;      /* refcounts are 2^order bits wide */
    unsigned refcount_block_bits; /* log2 of the entries of a refcount block */
    bool extended_l2;
    bool data_file; /* guest clusters live in an external data file */
    bool encrypted;
    uint64_t disk_size;     /* bytes */
    uint64_t file_size;     /* bytes */
    uint64_t file_clusters; /* clusters that the file has, a partial last one included */
};

/* Which parts of the image a header leaves usable: what a rule found broken is not. */
enum q2_usable {
    Q2_USABLE_GEOMETRY = 1 << 0, /* and everything below needs this */
    Q2_USABLE_L1 = 1 << 1,
    Q2_USABLE_REFCOUNTS = 1 << 2,
    Q2_USABLE_SNAPSHOTS = 1 << 3,
    Q2_USABLE_BACKING_NAME = 1 << 4,
    Q2_USABLE_EXTENSIONS = 1 << 5,
    Q2_USABLE_ALL = (1 << 6) - 1,
};

/* Decode the first `length` bytes of a file; fields past them are zero. */
void q2_header_decode(const uint8_t *bytes, size_t length, struct q2_header *ret_header);

/* Encode into `bytes`, of at least Q2_HEADER_KNOWN_LENGTH bytes. Returns the number of bytes
 * written: 72, 104 or 112, by version and header_length. */
size_t q2_header_encode(const struct q2_header *header, uint8_t *bytes);

/* Where a field of the header is, by its name in the specification. */
struct q2_header_field {
    uint16_t offset; /* bytes from the start of the file */
    uint16_t width;  /* bytes */
};
bool q2_header_field(const char *name, struct q2_header_field *ret_field);

/* Hold the header against the rules of the format and the size of the file, in bytes. Reports each
 * rule that is broken and returns the enum q2_usable bits that are left. The magic is not looked
 * at: whether the file is a qcow2 image at all is the caller's question. */
unsigned q2_header_validate(const struct q2_header *header, uint64_t file_size,
                            const struct q2_sink *sink);

/* Whether the fields behind the magic are those of a qcow2 header, so that a file with a damaged
 * magic is a damaged image rather than something else. */
bool q2_header_plausible(const struct q2_header *header, uint64_t file_size);

/* Needs a header that q2_header_validate found Q2_USABLE_GEOMETRY for. */
void q2_geometry_init(struct q2_geometry *geometry, const struct q2_header *header,
                      uint64_t file_size);

/* Entries that an L1 table needs to map `bytes` of guest data. */
uint64_t q2_l1_entries_for(const struct q2_geometry *geometry, uint64_t bytes);

/* Bytes of guest data that one L2 table maps. */
static inline uint64_t
q2_l2_reach(const struct q2_geometry *geometry)
{
    return geometry->cluster_size << geometry->l2_bits;
}

#endif
