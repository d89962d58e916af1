/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/chains.h"

#include "core/base/checked.h"

static const struct q2_geometry *
geometry_of(const struct q2_entries *entries)
{
    return &entries->survey->scene->check->geometry;
}

uint64_t
q2_chain_end(struct q2_entries *entries, uint64_t raw)
{
    size_t used;
    if (!(raw & Q2_ENTRY_COMPRESSED) || !q2_matcher_decodes(&entries->matcher, raw, &used))
        return 0;
    return q2_compressed_decode(geometry_of(entries), raw).offset + used;
}

/* The entry of the stream that begins at `offset`; 0: none does. */
static uint64_t
stream_at(struct q2_entries *entries, uint64_t offset, uint64_t *ret_end)
{
    const struct q2_geometry *geometry = geometry_of(entries);
    uint64_t limit = geometry->file_clusters << geometry->cluster_bits;
    if (!q2_range_inside(offset, 1, limit))
        return 0;
    uint64_t most = q2_min(geometry->cluster_size, limit - offset);
    size_t used;
    if (!q2_matcher_decodes(&entries->matcher, q2_compressed_encode(geometry, offset, most),
                            &used) ||
        used == 0)
        return 0;
    *ret_end = offset + used;
    return q2_compressed_encode(geometry, offset, used);
}

uint64_t
q2_chain_follow(struct q2_entries *entries, uint64_t from, uint64_t guest, uint64_t count,
                uint64_t *raws, uint64_t *ret_end)
{
    uint64_t found = 0, size = geometry_of(entries)->cluster_size;
    while (from && found < count &&
           !q2_survey_claimed(entries->survey, from, guest + found * size)) {
        uint64_t raw = stream_at(entries, from, &from);
        if (!raw)
            break;
        raws[found++] = raw;
    }
    *ret_end = from;
    return found;
}

bool
q2_chain_meets(const struct q2_entries *entries, uint64_t raw, uint64_t end)
{
    return (raw & Q2_ENTRY_COMPRESSED) &&
           q2_compressed_decode(geometry_of(entries), raw).offset == end;
}
