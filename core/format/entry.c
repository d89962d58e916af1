/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/format/entry.h"

#include "core/base/checked.h"

enum { SECTOR = 512 };

static bool
aligned(const struct q2_geometry *geometry, uint64_t offset)
{
    return (offset & (geometry->cluster_size - 1)) == 0;
}

enum q2_cluster_kind
q2_l2_kind(const struct q2_geometry *geometry, uint64_t raw)
{
    if (raw & Q2_ENTRY_COMPRESSED)
        return Q2_CLUSTER_COMPRESSED;
    uint64_t offset = q2_entry_offset(raw);
    if ((raw & Q2_ENTRY_ZERO) && !geometry->extended_l2)
        return offset ? Q2_CLUSTER_ZERO_ALLOCATED : Q2_CLUSTER_ZERO;
    /* In a data file, offset 0 is where guest offset 0 lives, and COPIED tells it from nothing. */
    if (offset || (geometry->data_file && (raw & Q2_ENTRY_COPIED)))
        return Q2_CLUSTER_STANDARD;
    return Q2_CLUSTER_UNALLOCATED;
}

/* ---- compressed cluster descriptors ---- */

/* Number of bits of the host offset; the sector count is in those above, up to bit 61. */
static unsigned
offset_bits(const struct q2_geometry *geometry)
{
    return 62 - (geometry->cluster_bits - 8);
}

struct q2_compressed_range
q2_compressed_decode(const struct q2_geometry *geometry, uint64_t raw)
{
    unsigned bits = offset_bits(geometry);
    uint64_t offset = raw & ((UINT64_C(1) << bits) - 1);
    uint64_t sectors = (raw & (Q2_ENTRY_COMPRESSED - 1)) >> bits;
    return (struct q2_compressed_range){.offset = offset,
                                        .length = (sectors + 1) * SECTOR - offset % SECTOR};
}

uint64_t
q2_compressed_encode(const struct q2_geometry *geometry, uint64_t offset, uint64_t length)
{
    uint64_t sectors = (offset % SECTOR + length + SECTOR - 1) / SECTOR;
    return Q2_ENTRY_COMPRESSED | (sectors - 1) << offset_bits(geometry) | offset;
}

/* ---- rules ---- */

bool
q2_l1_entry_validate(const struct q2_geometry *geometry, uint64_t raw, uint64_t at,
                     const struct q2_sink *sink)
{
    uint64_t offset = q2_entry_offset(raw);
    if (raw & Q2_L1_RESERVED)
        q2_violate_expected(sink, Q2_PROBLEM_L1_ENTRY_RESERVED, at, 8, raw, raw & ~Q2_L1_RESERVED,
                            NULL);
    if (!offset) {
        if (raw & Q2_ENTRY_COPIED)
            q2_violate(sink, Q2_PROBLEM_L1_ENTRY_COPIED_EMPTY, at, 8, raw, NULL);
        return false;
    }
    bool inside = q2_host_inside(geometry, offset);
    if (!aligned(geometry, offset))
        q2_violate(sink, Q2_PROBLEM_L1_ENTRY_UNALIGNED, at, 8, raw, NULL);
    if (!inside)
        q2_violate(sink, Q2_PROBLEM_L1_ENTRY_PAST_END, at, 8, raw, NULL);
    return inside && aligned(geometry, offset);
}

static bool
validate_compressed(const struct q2_geometry *geometry, const struct q2_l2_entry *entry,
                    uint64_t at, const struct q2_sink *sink)
{
    struct q2_compressed_range range = q2_compressed_decode(geometry, entry->raw);
    if (entry->raw & Q2_ENTRY_COPIED)
        q2_violate_expected(sink, Q2_PROBLEM_L2_COMPRESSED_COPIED, at, 8, entry->raw,
                            entry->raw & ~Q2_ENTRY_COPIED, NULL);
    if (entry->bitmap)
        q2_violate_expected(sink, Q2_PROBLEM_L2_SUBCLUSTER_COMPRESSED, at + 8, 8, entry->bitmap, 0,
                            NULL);
    if (geometry->data_file) {
        q2_violate(sink, Q2_PROBLEM_L2_COMPRESSED_DATA_FILE, at, 8, entry->raw, NULL);
        return false;
    }
    if (geometry->encrypted)
        q2_violate(sink, Q2_PROBLEM_L2_COMPRESSED_ENCRYPTED, at, 8, entry->raw, NULL);
    if (range.offset >> 56) {
        q2_violate(sink, Q2_PROBLEM_L2_COMPRESSED_RESERVED, at, 8, entry->raw, NULL);
        return false;
    }
    if (q2_range_inside(range.offset, range.length,
                        geometry->file_clusters << geometry->cluster_bits))
        return true;
    q2_violate(sink, Q2_PROBLEM_L2_COMPRESSED_PAST_END, at, 8, entry->raw,
               "%llu bytes at offset 0x%llx", (unsigned long long)range.length,
               (unsigned long long)range.offset);
    return false;
}

static void
validate_subclusters(const struct q2_geometry *geometry, const struct q2_l2_entry *entry,
                     uint64_t at, const struct q2_sink *sink)
{
    uint32_t allocated = (uint32_t)entry->bitmap, zero = (uint32_t)(entry->bitmap >> 32);
    if (entry->raw & Q2_ENTRY_ZERO)
        q2_violate_expected(sink, Q2_PROBLEM_L2_ENTRY_ZERO_EXTENDED, at, 8, entry->raw,
                            entry->raw & ~Q2_ENTRY_ZERO, NULL);
    if (q2_l2_kind(geometry, entry->raw) == Q2_CLUSTER_UNALLOCATED) {
        if (allocated)
            q2_violate(sink, Q2_PROBLEM_L2_SUBCLUSTER_NO_OFFSET, at + 8, 8, entry->bitmap, NULL);
    } else if (allocated & zero) {
        q2_violate(sink, Q2_PROBLEM_L2_SUBCLUSTER_CONFLICT, at + 8, 8, entry->bitmap, NULL);
    }
}

bool
q2_l2_entry_validate(const struct q2_geometry *geometry, const struct q2_l2_entry *entry,
                     uint64_t at, uint64_t guest, const struct q2_sink *sink)
{
    uint64_t raw = entry->raw, offset = q2_entry_offset(raw);
    if (raw & Q2_ENTRY_COMPRESSED)
        return validate_compressed(geometry, entry, at, sink);

    if (raw & Q2_L2_RESERVED)
        q2_violate_expected(sink, Q2_PROBLEM_L2_ENTRY_RESERVED, at, 8, raw, raw & ~Q2_L2_RESERVED,
                            NULL);
    if (geometry->extended_l2)
        validate_subclusters(geometry, entry, at, sink);
    else if ((raw & Q2_ENTRY_ZERO) && geometry->version < 3)
        q2_violate(sink, Q2_PROBLEM_L2_ENTRY_ZERO_V2, at, 8, raw, NULL);

    enum q2_cluster_kind kind = q2_l2_kind(geometry, raw);
    if (kind != Q2_CLUSTER_STANDARD && kind != Q2_CLUSTER_ZERO_ALLOCATED) {
        /* Zeros written over guest offset 0 of a data file keep both flags, and rightly so. */
        bool start = geometry->data_file && guest == 0 && kind == Q2_CLUSTER_ZERO;
        if ((raw & Q2_ENTRY_COPIED) && !start)
            q2_violate(sink, Q2_PROBLEM_L2_ENTRY_COPIED_EMPTY, at, 8, raw, NULL);
        return false;
    }
    if (geometry->data_file && offset != guest) {
        q2_violate_expected(sink, Q2_PROBLEM_L2_DATA_FILE_OFFSET, at, 8, offset, guest, NULL);
        return false;
    }
    if (!aligned(geometry, offset))
        q2_violate(sink, Q2_PROBLEM_L2_ENTRY_UNALIGNED, at, 8, raw, NULL);
    if (geometry->data_file) {
        /* None of its clusters is ever shared: that is a refcount, and references, of one. */
        if (!(raw & Q2_ENTRY_COPIED))
            q2_violate_expected(sink, Q2_PROBLEM_L2_COPIED_CLEAR, at, 8, 1, 1, NULL);
        return true;
    }
    bool inside = q2_host_inside(geometry, offset);
    if (!inside)
        q2_violate(sink, Q2_PROBLEM_L2_ENTRY_PAST_END, at, 8, raw, NULL);
    return inside && aligned(geometry, offset);
}
