/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/streams.h"

#include "core/format/entry.h"

#include <stdlib.h>

void
q2_streams_init(struct q2_streams *streams, struct q2_check *check)
{
    *streams = (struct q2_streams){.check = check};
}

void
q2_streams_destroy(struct q2_streams *streams)
{
    q2_budget_free(&streams->check->budget, streams->items, streams->capacity,
                   sizeof *streams->items);
}

void
q2_streams_add(struct q2_streams *streams, uint64_t raw, uint64_t guest)
{
    if (streams->dropped)
        return;
    int rc = q2_check_grow(streams->check, &streams->items, streams->count, &streams->capacity,
                           sizeof *streams->items, NULL);
    if (rc < 0)
        streams->dropped = true;
    else
        streams->items[streams->count++] =
            (struct q2_stream){.raw = raw & ~Q2_ENTRY_COPIED, .guest = guest};
}

void
q2_streams_merge(struct q2_streams *streams, const struct q2_streams *from)
{
    for (uint64_t i = 0; i < from->count; i++)
        q2_streams_add(streams, from->items[i].raw, from->items[i].guest);
    streams->dropped |= from->dropped;
}

static uint64_t
offset_of(const struct q2_geometry *geometry, const struct q2_stream *stream)
{
    return q2_compressed_decode(geometry, stream->raw).offset;
}

static int
compare(const void *left, const void *right, void *data)
{
    const struct q2_stream *a = left, *b = right;
    uint64_t at_a = offset_of(data, a), at_b = offset_of(data, b);
    if (at_a != at_b)
        return at_a < at_b ? -1 : 1;
    if (a->guest != b->guest)
        return a->guest < b->guest ? -1 : 1;
    return (a->raw > b->raw) - (a->raw < b->raw);
}

static struct q2_owner
owner_of(const struct q2_geometry *geometry, const struct q2_stream *stream)
{
    return (struct q2_owner){.kind = Q2_OWNER_COMPRESSED,
                             .guest = stream->guest << geometry->cluster_bits,
                             .guest_length = geometry->cluster_size,
                             .index = stream->guest & (geometry->l2_entries - 1)};
}

static void
report_pair(struct q2_check *check, const struct q2_stream *stream, const struct q2_owner *first,
            const struct q2_owner *second)
{
    const struct q2_geometry *geometry = &check->geometry;
    struct q2_compressed_range range = q2_compressed_decode(geometry, stream->raw);
    q2_findings_add(&check->findings,
                    &(struct q2_finding){
                        .problem = Q2_PROBLEM_COMPRESSED_DUPLICATE,
                        .has = Q2_HAS_TARGET | Q2_HAS_GUEST | Q2_HAS_L1 | Q2_HAS_L2 | Q2_HAS_OWNERS,
                        .target_offset = range.offset,
                        .target_length = range.length,
                        .guest_offset = second->guest,
                        .guest_length = geometry->cluster_size,
                        .l1_index = (uint32_t)(stream->guest >> geometry->l2_bits),
                        .l2_index = (uint32_t)second->index,
                        .maps = second->maps,
                        .owners = {*first, *second},
                    });
}

int
q2_streams_report(struct q2_streams *streams, q2_stream_find *find, void *data,
                  struct q2_error *err)
{
    static char incomplete[] = "compressed clusters were not all compared with each other";
    struct q2_check *check = streams->check;
    struct q2_geometry *geometry = &check->geometry;
    int rc = 0;
    if (streams->count)
        qsort_r(streams->items, streams->count, sizeof *streams->items, compare, geometry);
    for (uint64_t i = 1; i < streams->count && rc == 0; i++) {
        const struct q2_stream *a = &streams->items[i - 1], *b = &streams->items[i];
        if (a->guest == b->guest || offset_of(geometry, a) != offset_of(geometry, b))
            continue;
        struct q2_owner first = owner_of(geometry, a), second = owner_of(geometry, b);
        rc = find(data, a, &first, err);
        rc = rc ? rc : find(data, b, &second, err);
        if (rc == 0)
            report_pair(check, b, &first, &second);
    }
    if (streams->dropped)
        q2_findings_add(&check->findings, &(struct q2_finding){.problem = Q2_PROBLEM_WORK_LIMIT,
                                                               .detail = incomplete});
    return rc;
}
