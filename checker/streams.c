/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/streams.h"

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
q2_streams_add(struct q2_streams *streams, uint64_t offset, uint64_t guest)
{
    if (streams->dropped)
        return;
    int rc = q2_check_grow(streams->check, &streams->items, streams->count, &streams->capacity,
                           sizeof *streams->items, NULL);
    if (rc < 0)
        streams->dropped = true;
    else
        streams->items[streams->count++] = (struct q2_stream){.offset = offset, .guest = guest};
}

void
q2_streams_merge(struct q2_streams *streams, const struct q2_streams *from)
{
    for (uint64_t i = 0; i < from->count; i++)
        q2_streams_add(streams, from->items[i].offset, from->items[i].guest);
    streams->dropped |= from->dropped;
}

static int
compare(const void *left, const void *right)
{
    const struct q2_stream *a = left, *b = right;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return (a->guest > b->guest) - (a->guest < b->guest);
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
report_pair(struct q2_check *check, const struct q2_stream *a, const struct q2_stream *b)
{
    const struct q2_geometry *geometry = &check->geometry;
    struct q2_owner first = owner_of(geometry, a), second = owner_of(geometry, b);
    q2_findings_add(&check->findings,
                    &(struct q2_finding){
                        .problem = Q2_PROBLEM_COMPRESSED_DUPLICATE,
                        .has = Q2_HAS_TARGET | Q2_HAS_GUEST | Q2_HAS_L1 | Q2_HAS_L2 | Q2_HAS_OWNERS,
                        .target_offset = a->offset,
                        .target_length = 512 - a->offset % 512,
                        .guest_offset = second.guest,
                        .guest_length = geometry->cluster_size,
                        .l1_index = (uint32_t)(b->guest >> geometry->l2_bits),
                        .l2_index = (uint32_t)second.index,
                        .owners = {first, second},
                    });
}

void
q2_streams_report(struct q2_streams *streams)
{
    static char incomplete[] = "compressed clusters were not all compared with each other";
    struct q2_check *check = streams->check;
    if (streams->count)
        qsort(streams->items, streams->count, sizeof *streams->items, compare);
    for (uint64_t i = 1; i < streams->count; i++) {
        const struct q2_stream *a = &streams->items[i - 1], *b = &streams->items[i];
        if (a->offset == b->offset && a->guest != b->guest)
            report_pair(check, a, b);
    }
    if (streams->dropped)
        q2_findings_add(&check->findings, &(struct q2_finding){.problem = Q2_PROBLEM_WORK_LIMIT,
                                                               .has = Q2_HAS_GOT,
                                                               .got = check->budget.limit,
                                                               .detail = incomplete});
}
