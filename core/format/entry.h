/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* L1 and L2 entries: from guest offsets to host offsets ("Cluster mapping", "Extended L2 Entries"
 * in the specification). */

#ifndef Q2_FORMAT_ENTRY_H
#define Q2_FORMAT_ENTRY_H

#include "core/base/endian.h"
#include "core/format/header.h"

#define Q2_ENTRY_OFFSET     UINT64_C(0x00fffffffffffe00)
#define Q2_ENTRY_COPIED     (UINT64_C(1) << 63)
#define Q2_ENTRY_COMPRESSED (UINT64_C(1) << 62)
#define Q2_ENTRY_ZERO       UINT64_C(1)
#define Q2_L1_RESERVED      UINT64_C(0x7f000000000001ff)
#define Q2_L2_RESERVED      UINT64_C(0x3f000000000001fe) /* of standard clusters, without bit 0 */

enum { Q2_SUBCLUSTERS = 32 };

/* An L2 entry in native byte order. */
struct q2_l2_entry {
    uint64_t raw;
    uint64_t bitmap; /* of extended L2 entries: allocated in the low half, zero in the high half */
};

enum q2_cluster_kind {
    Q2_CLUSTER_UNALLOCATED,
    Q2_CLUSTER_ZERO,           /* reads as zeros, no host cluster */
    Q2_CLUSTER_ZERO_ALLOCATED, /* reads as zeros, keeps a host cluster */
    Q2_CLUSTER_STANDARD,
    Q2_CLUSTER_COMPRESSED,
};

/* Where the bytes of a compressed cluster are: not aligned, and the end is that of a sector. */
struct q2_compressed_range {
    uint64_t offset; /* in the file, bytes */
    uint64_t length; /* bytes */
};

/* Entry `index` of an L2 table, or of a part of one, in file byte order. */
static inline struct q2_l2_entry
q2_l2_load(const struct q2_geometry *geometry, const uint8_t *table, uint64_t index)
{
    const uint8_t *at = table + index * geometry->l2_entry_size;
    return (struct q2_l2_entry){.raw = q2_load_be64(at),
                                .bitmap = geometry->extended_l2 ? q2_load_be64(at + 8) : 0};
}

static inline uint64_t
q2_entry_offset(uint64_t raw)
{
    return raw & Q2_ENTRY_OFFSET;
}

/* The bits that are clear in an entry which simply points at an aligned cluster, COPIED or not. */
static inline uint64_t
q2_entry_odd_bits(const struct q2_geometry *geometry)
{
    return ~(Q2_ENTRY_COPIED | (Q2_ENTRY_OFFSET & ~(geometry->cluster_size - 1)));
}

enum q2_cluster_kind q2_l2_kind(const struct q2_geometry *geometry, uint64_t raw);

struct q2_compressed_range q2_compressed_decode(const struct q2_geometry *geometry, uint64_t raw);

/* The raw entry of a compressed cluster of `length` bytes at `offset`, which must fit. */
uint64_t q2_compressed_encode(const struct q2_geometry *geometry, uint64_t offset, uint64_t length);

/* Whether a structure that should start at host `offset` starts inside the file. The last cluster
 * may be cut short. */
static inline bool
q2_host_inside(const struct q2_geometry *geometry, uint64_t offset)
{
    return offset < geometry->file_size;
}

/* Hold one L1 entry, found at host offset `at`, against the rules. Returns whether it leads to an
 * L2 table that can be read: aligned and inside the file. */
bool q2_l1_entry_validate(const struct q2_geometry *geometry, uint64_t raw, uint64_t at,
                          const struct q2_sink *sink);

/* Hold one L2 entry, found at host offset `at` and mapping guest offset `guest`, against the
 * rules that can be seen from the entry alone. Returns whether its host range can be read. */
bool q2_l2_entry_validate(const struct q2_geometry *geometry, const struct q2_l2_entry *entry,
                          uint64_t at, uint64_t guest, const struct q2_sink *sink);

#endif
