/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Which host clusters L2 entries refer to: of a single one, and of runs that need no look at each
 * of them. The latter is where the time of counting references goes, so the functions are small,
 * and inline.
 *
 * A run is a number of entries: those of an L2 table, or of a part of one, that follow each other
 * from `index` on, and below `end`; 0 where not even the first is like that. No rule about single
 * entries is broken in a run. */

#ifndef Q2_FORMAT_REFERENCES_H
#define Q2_FORMAT_REFERENCES_H

#include "core/base/checked.h"
#include "core/format/entry.h"

/* The host clusters of an entry that a reference is counted for: those inside the file. An entry
 * that is not aligned still refers to the cluster that it points into. False: none. */
static inline bool
q2_entry_clusters(const struct q2_geometry *geometry, uint64_t raw, uint64_t *ret_first,
                  uint64_t *ret_count)
{
    uint64_t first, last;
    if (geometry->data_file)
        return false;
    if (raw & Q2_ENTRY_COMPRESSED) {
        struct q2_compressed_range range = q2_compressed_decode(geometry, raw);
        /* The offset has at most 61 bits and the length at most 22: no overflow. */
        first = range.offset >> geometry->cluster_bits;
        last = (range.offset + range.length - 1) >> geometry->cluster_bits;
    } else {
        first = last = q2_entry_offset(raw) >> geometry->cluster_bits;
        if (q2_entry_offset(raw) == 0)
            return false;
    }
    if (first >= geometry->file_clusters)
        return false;
    *ret_first = first;
    *ret_count = q2_min(last, geometry->file_clusters - 1) - first + 1;
    return true;
}

/* Entries that map no host cluster, all in the same way: nothing at all, or the zero flag alone. */
static inline uint64_t
q2_empty_run(const struct q2_geometry *geometry, const uint8_t *table, uint64_t index, uint64_t end)
{
    unsigned shift = geometry->extended_l2; /* log2 of the words of an entry */
    uint64_t at = index << shift, first = q2_load_be64(table + at * 8);
    if (first && (first != Q2_ENTRY_ZERO || geometry->version < 3 || geometry->extended_l2))
        return 0;
    while (at < end << shift && q2_load_be64(table + at * 8) == first)
        at++;
    return (at >> shift) - index;
}

/* Standard clusters inside the file, one after the other, with the same COPIED flag and no other.
 */
static inline uint64_t
q2_plain_run(const struct q2_geometry *geometry, const uint8_t *table, uint64_t index, uint64_t end)
{
    const uint8_t *at = table + index * 8;
    uint64_t raw = geometry->extended_l2 ? 0 : q2_load_be64(at), step = geometry->cluster_size;
    uint64_t first = q2_entry_offset(raw) >> geometry->cluster_bits;
    bool plain = first && first < geometry->file_clusters && !(raw & q2_entry_odd_bits(geometry));
    if (!plain || geometry->data_file)
        return 0;
    /* Even a larger file has no clusters that an entry has no bits for. */
    uint64_t clusters =
        q2_min(geometry->file_clusters, (Q2_ENTRY_OFFSET >> geometry->cluster_bits) + 1);
    uint64_t most = q2_min(end - index, clusters - first), count = 1;
    while (count < most && q2_load_be64(at + count * 8) == raw + count * step)
        count++;
    return count;
}

#endif
