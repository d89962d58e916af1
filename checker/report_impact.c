/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* From findings to guest bytes: the union of the guest ranges of all findings of one impact, split
 * into what the active disk sees, what only snapshots see, and VM state. */

#include "checker/report_parts.h"
#include "core/base/checked.h"

#include <stdlib.h>

enum view { VIEW_ACTIVE, VIEW_SNAPSHOTS, VIEW_COUNT };

struct range {
    uint64_t start;
    uint64_t end;
};

struct ranges {
    struct range *list;
    size_t count;
};

static enum view
view_of(const struct q2_check *check, q2_map_set maps)
{
    const uint32_t *members = NULL;
    size_t count = maps == Q2_MAP_SET_NONE ? 0 : q2_check_maps(check, maps, &members);
    return count && members[0] != 0 ? VIEW_SNAPSHOTS : VIEW_ACTIVE;
}

static void
add_range(struct ranges *views, enum view view, uint64_t start, uint64_t length)
{
    uint64_t end;
    if (length == 0 || !q2_add(start, length, &end))
        return;
    views[view].list[views[view].count++] = (struct range){start, end};
}

/* A finding brings at most three ranges: its own and one for each owner. */
static void
add_finding(const struct q2_check *check, const struct q2_finding *finding, struct ranges *views)
{
    if (finding->has & Q2_HAS_GUEST)
        add_range(views, view_of(check, finding->maps), finding->guest_offset,
                  finding->guest_length);
    if (finding->has & Q2_HAS_OWNERS)
        for (int i = 0; i < 2; i++) {
            const struct q2_owner *owner = &finding->owners[i];
            add_range(views, view_of(check, owner->maps), owner->guest, owner->guest_length);
        }
}

static int
compare_ranges(const void *left, const void *right)
{
    const struct range *a = left, *b = right;
    return a->start < b->start ? -1 : a->start > b->start;
}

/* Sort, and join what overlaps or touches. */
static void
normalise(struct ranges *ranges)
{
    if (ranges->count == 0)
        return;
    qsort(ranges->list, ranges->count, sizeof *ranges->list, compare_ranges);
    size_t kept = 0;
    for (size_t i = 1; i < ranges->count; i++)
        if (ranges->list[i].start <= ranges->list[kept].end)
            ranges->list[kept].end = q2_max(ranges->list[kept].end, ranges->list[i].end);
        else
            ranges->list[++kept] = ranges->list[i];
    ranges->count = kept + 1;
}

/* Bytes of `ranges` below `limit`; what lies behind it goes to *behind. */
static uint64_t
bytes_below(const struct ranges *ranges, uint64_t limit, uint64_t *behind)
{
    uint64_t below = 0;
    for (size_t i = 0; i < ranges->count; i++) {
        struct range range = ranges->list[i];
        below += q2_min(range.end, limit) - q2_min(range.start, limit);
        *behind += q2_max(range.end, limit) - q2_max(range.start, limit);
    }
    return below;
}

/* Bytes of `ranges` below `limit` that `other` does not have. */
static uint64_t
bytes_outside(const struct ranges *ranges, const struct ranges *other, uint64_t limit)
{
    uint64_t bytes = 0;
    size_t at = 0;
    for (size_t i = 0; i < ranges->count; i++) {
        uint64_t start = ranges->list[i].start, end = q2_min(ranges->list[i].end, limit);
        while (start < end) {
            while (at < other->count && other->list[at].end <= start)
                at++;
            uint64_t next = at < other->count ? q2_min(other->list[at].start, end) : end;
            if (next > start)
                bytes += next - start;
            start = at < other->count ? q2_max(next, q2_min(other->list[at].end, end)) : end;
        }
    }
    return bytes;
}

static void
measure(struct ranges *views, uint64_t disk_size, struct q2_impact_sum *sum)
{
    for (int i = 0; i < VIEW_COUNT; i++)
        normalise(&views[i]);
    struct ranges *active = &views[VIEW_ACTIVE];
    uint64_t behind = 0;
    sum->active_bytes = bytes_below(active, disk_size, &behind);
    bytes_below(&views[VIEW_SNAPSHOTS], disk_size, &behind);
    sum->vm_state_bytes = behind;
    sum->snapshot_bytes = bytes_outside(&views[VIEW_SNAPSHOTS], active, disk_size);
    if (sum->active_bytes) {
        sum->first = active->list[0].start;
        sum->first_size = q2_min(active->list[0].end, disk_size) - active->list[0].start;
        for (size_t i = 0; i < active->count; i++)
            sum->ranges += active->list[i].start < disk_size;
    }
}

static bool
is_about(const struct q2_finding *finding, enum q2_impact impact)
{
    return q2_catalogue(finding->problem)->impact == impact;
}

/* Fill `views` with the ranges of all findings of `impact`. Returns whether each of them has one;
 * without memory none is known. */
static bool
collect(const struct q2_check *check, enum q2_impact impact, struct ranges *views)
{
    size_t findings = q2_check_finding_count(check), count = 0;
    for (size_t i = 0; i < findings; i++)
        count += is_about(q2_check_finding(check, i), impact);
    for (int i = 0; i < VIEW_COUNT; i++) {
        views[i].list = malloc((3 * count + 1) * sizeof *views[i].list);
        if (!views[i].list)
            return false;
    }
    bool all = true;
    for (size_t i = 0; i < findings; i++) {
        const struct q2_finding *finding = q2_check_finding(check, i);
        if (!is_about(finding, impact))
            continue;
        all = all && finding->has & (Q2_HAS_GUEST | Q2_HAS_OWNERS);
        add_finding(check, finding, views);
    }
    return all;
}

static void
sum_impact(const struct q2_check *check, enum q2_impact impact, uint64_t disk_size,
           struct q2_impact_sum *sum)
{
    struct ranges views[VIEW_COUNT] = {{NULL, 0}};
    sum->at_least = !collect(check, impact, views);
    measure(views, disk_size, sum);
    for (int i = 0; i < VIEW_COUNT; i++)
        free(views[i].list);

    for (int i = 0; i < Q2_PROBLEM_COUNT; i++)
        if (q2_catalogue((enum q2_problem)i)->impact == impact)
            sum->at_least |= q2_check_problem_count(check, (enum q2_problem)i).unlisted != 0;
}

void
q2_impact_sums(const struct q2_check *check, struct q2_impact_sum sums[Q2_IMPACT_COUNT])
{
    struct q2_geometry geometry = {.disk_size = UINT64_MAX};
    q2_check_geometry(check, &geometry);
    for (int i = 0; i < Q2_IMPACT_COUNT; i++)
        sums[i] = (struct q2_impact_sum){0};
    for (int i = 0; i < Q2_PROBLEM_COUNT; i++) {
        const struct q2_catalogue_entry *entry = q2_catalogue((enum q2_problem)i);
        uint64_t count = q2_check_problem_count(check, (enum q2_problem)i).count;
        if (entry->severity <= Q2_SEVERITY_ERROR)
            sums[entry->impact].faults += count;
        else
            sums[entry->impact].remarks += count;
    }
    for (int i = 0; i < Q2_IMPACT_COUNT; i++)
        if (sums[i].faults || sums[i].remarks)
            sum_impact(check, (enum q2_impact)i, geometry.disk_size, &sums[i]);
}
