/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/entries.h"

#include "core/base/checked.h"
#include "core/format/references.h"
#include "repair/survey_parts.h"

#include <stdlib.h>

/* What single entries may be to blame for. */
static const enum q2_problem of_entries[] = {
    Q2_PROBLEM_L2_ENTRY_RESERVED,        Q2_PROBLEM_L2_ENTRY_UNALIGNED,
    Q2_PROBLEM_L2_ENTRY_PAST_END,        Q2_PROBLEM_L2_ENTRY_COPIED_EMPTY,
    Q2_PROBLEM_L2_ENTRY_ZERO_V2,         Q2_PROBLEM_L2_ENTRY_ZERO_EXTENDED,
    Q2_PROBLEM_L2_SUBCLUSTER_CONFLICT,   Q2_PROBLEM_L2_SUBCLUSTER_NO_OFFSET,
    Q2_PROBLEM_L2_SUBCLUSTER_COMPRESSED, Q2_PROBLEM_L2_COMPRESSED_COPIED,
    Q2_PROBLEM_L2_COMPRESSED_RESERVED,   Q2_PROBLEM_L2_COMPRESSED_PAST_END,
    Q2_PROBLEM_L2_DATA_FILE_OFFSET,      Q2_PROBLEM_OVERLAP_DATA,
    Q2_PROBLEM_OVERLAP_METADATA_DATA,    Q2_PROBLEM_OVERLAP_L2_TABLE,
    Q2_PROBLEM_REFCOUNT_BLOCK_OVERLAP,   Q2_PROBLEM_REFCOUNT_ZERO,
    Q2_PROBLEM_COMPRESSED_BROKEN,        Q2_PROBLEM_COMPRESSED_DUPLICATE,
};

bool
q2_entries_wanted(const struct q2_scene *scene)
{
    if (!(scene->check->usable & Q2_USABLE_L1))
        return false;
    for (size_t i = 0; i < sizeof of_entries / sizeof of_entries[0]; i++)
        if (q2_scene_count(scene, of_entries[i]))
            return true;
    return false;
}

static void
look_for_lost(struct q2_entries *entries)
{
    for (uint64_t i = 1; i < entries->survey->clusters; i++)
        entries->lost += q2_survey_lost(entries->survey, i);
}

/* ---- who shares what ---- */

static int
compare_sharers(const void *left, const void *right)
{
    const struct q2_sharer *a = left, *b = right;
    if (a->cluster != b->cluster)
        return a->cluster < b->cluster ? -1 : 1;
    if (a->guest != b->guest)
        return a->guest < b->guest ? -1 : 1;
    return (a->suspect > b->suspect) - (a->suspect < b->suspect);
}

static bool
fits(struct q2_entries *entries, uint64_t index, uint64_t cluster)
{
    const struct q2_geometry *geometry = &entries->survey->scene->check->geometry;
    const struct q2_suspect *suspect = &entries->survey->suspects[index];
    struct q2_anchors anchors;
    q2_anchors_find(&entries->view, index, &anchors);
    return q2_anchors_from_before(&anchors, geometry, suspect->l2_index) == cluster ||
           q2_anchors_from_behind(&anchors, geometry, suspect->l2_index) == cluster;
}

static int
add_sharer(struct q2_entries *entries, uint64_t index, uint64_t cluster, struct q2_error *err)
{
    struct q2_budget *budget = &entries->survey->scene->budget;
    if (entries->sharer_count == entries->sharer_capacity) {
        uint64_t larger = entries->sharer_capacity ? entries->sharer_capacity * 2 : 64;
        void *memory = entries->sharers;
        int rc = q2_budget_grow(budget, entries->sharer_capacity, larger, sizeof *entries->sharers,
                                "entries that share clusters", &memory, err);
        if (rc < 0)
            return rc;
        entries->sharers = memory;
        entries->sharer_capacity = larger;
    }
    entries->sharers[entries->sharer_count++] =
        (struct q2_sharer){.cluster = cluster,
                           .guest = entries->survey->suspects[index].guest,
                           .suspect = index,
                           .fits = fits(entries, index, cluster)};
    return 0;
}

static void
sum_up(const struct q2_entries *entries, uint64_t first, uint64_t end, struct q2_sharing *sharing)
{
    const struct q2_sharer *sharers = entries->sharers;
    *sharing = (struct q2_sharing){.cluster = sharers[first].cluster,
                                   .first = first,
                                   .end = end,
                                   .keeper = sharers[first].guest};
    for (uint64_t i = first; i < end; i++) {
        const struct q2_suspect *suspect = &entries->survey->suspects[sharers[i].suspect];
        sharing->packed |= (suspect->entry.raw & Q2_ENTRY_COMPRESSED) != 0;
        if (!sharers[i].fits)
            continue;
        if (!sharing->fits)
            sharing->keeper = sharing->first_fit = sharers[i].guest;
        sharing->last_fit = sharers[i].guest;
        sharing->fits = true;
    }
}

static int
sum_up_sharers(struct q2_entries *entries, struct q2_error *err)
{
    const struct q2_sharer *sharers = entries->sharers;
    uint64_t count = 0;
    void *memory;
    for (uint64_t i = 0; i < entries->sharer_count; i++)
        count += i == 0 || sharers[i].cluster != sharers[i - 1].cluster;
    if (count == 0)
        return 0;
    int rc = q2_budget_calloc(&entries->survey->scene->budget, count, sizeof *entries->sharings,
                              "clusters that are shared", &memory, err);
    if (rc < 0)
        return rc;
    entries->sharings = memory;
    entries->sharing_count = count;
    count = 0;
    for (uint64_t i = 0, next; i < entries->sharer_count; i = next) {
        for (next = i + 1;
             next < entries->sharer_count && sharers[next].cluster == sharers[i].cluster;)
            next++;
        sum_up(entries, i, next, &entries->sharings[count++]);
    }
    return 0;
}

static int
find_sharers(struct q2_entries *entries, struct q2_error *err)
{
    const struct q2_geometry *geometry = &entries->survey->scene->check->geometry;
    int rc = 0;
    for (uint64_t i = 0; i < entries->survey->suspect_count && rc == 0; i++) {
        const struct q2_suspect *suspect = &entries->survey->suspects[i];
        uint64_t first = 0, count = 0;
        if (suspect->is_l1 || !(suspect->why & Q2_SUSPECT_SHARED) ||
            !q2_entry_clusters(geometry, suspect->entry.raw, &first, &count))
            continue;
        for (uint64_t cluster = first; cluster < first + count && rc == 0; cluster++)
            if (q2_bit_test(entries->survey->shared, cluster))
                rc = add_sharer(entries, i, cluster, err);
    }
    if (entries->sharer_count)
        qsort(entries->sharers, entries->sharer_count, sizeof *entries->sharers, compare_sharers);
    return rc == 0 ? sum_up_sharers(entries, err) : rc;
}

static struct q2_sharing *
sharing_of(const struct q2_entries *entries, uint64_t cluster)
{
    uint64_t low = 0, high = entries->sharing_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (entries->sharings[middle].cluster < cluster)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < entries->sharing_count && entries->sharings[low].cluster == cluster;
    return found ? &entries->sharings[low] : NULL;
}

const struct q2_sharing *
q2_entries_sharing(const struct q2_entries *entries, uint64_t cluster)
{
    return sharing_of(entries, cluster);
}

/* The clusters of a suspect; false: none. */
static bool
clusters_of(const struct q2_entries *entries, const struct q2_suspect *suspect, uint64_t *ret_first,
            uint64_t *ret_end)
{
    uint64_t count;
    if (!q2_entry_clusters(&entries->survey->scene->check->geometry, suspect->entry.raw, ret_first,
                           &count))
        return false;
    *ret_end = *ret_first + count;
    return true;
}

bool
q2_entries_still_shared(const struct q2_entries *entries, const struct q2_suspect *suspect)
{
    uint64_t cluster, end;
    if (!clusters_of(entries, suspect, &cluster, &end))
        return false;
    for (; cluster < end; cluster++) {
        const struct q2_sharing *sharing = sharing_of(entries, cluster);
        if (sharing && sharing->first < sharing->end &&
            (entries->sharers[sharing->first].guest != suspect->guest ||
             entries->sharers[sharing->end - 1].guest != suspect->guest))
            return true;
    }
    return false;
}

static void
leave(struct q2_entries *entries, const struct q2_suspect *suspect, struct q2_sharing *sharing)
{
    struct q2_sharer *sharers = entries->sharers;
    const struct q2_sharer wanted = {
        .cluster = sharing->cluster,
        .guest = suspect->guest,
        .suspect = (uint64_t)(suspect - entries->survey->suspects),
    };
    struct q2_sharer *found =
        bsearch(&wanted, sharers + sharing->first, sharing->end - sharing->first, sizeof *found,
                compare_sharers);
    if (found)
        found->gone = true;
    while (sharing->first < sharing->end && sharers[sharing->first].gone)
        sharing->first++;
    while (sharing->first < sharing->end && sharers[sharing->end - 1].gone)
        sharing->end--;
}

static void
stop_sharing(struct q2_entries *entries, const struct q2_suspect *suspect)
{
    uint64_t cluster, end;
    if (!(suspect->why & Q2_SUSPECT_SHARED) || !clusters_of(entries, suspect, &cluster, &end))
        return;
    for (; cluster < end; cluster++) {
        struct q2_sharing *sharing = sharing_of(entries, cluster);
        if (sharing)
            leave(entries, suspect, sharing);
    }
}

/* ---- what is answered ---- */

/* Whether a problem is about what several entries, or an entry and a structure, lead to. */
static bool
is_about_target(enum q2_problem problem)
{
    return problem == Q2_PROBLEM_OVERLAP_DATA || problem == Q2_PROBLEM_OVERLAP_METADATA_DATA ||
           problem == Q2_PROBLEM_OVERLAP_L2_TABLE || problem == Q2_PROBLEM_REFCOUNT_ZERO ||
           problem == Q2_PROBLEM_REFCOUNT_BLOCK_OVERLAP || problem == Q2_PROBLEM_COMPRESSED_BROKEN;
}

static bool
is_of_entries(enum q2_problem problem)
{
    for (size_t i = 0; i < sizeof of_entries / sizeof of_entries[0]; i++)
        if (of_entries[i] == problem)
            return true;
    return false;
}

static int
compare_ranges(const void *left, const void *right)
{
    const struct q2_finding_range *a = left, *b = right;
    if (a->problem != b->problem)
        return a->problem < b->problem ? -1 : 1;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

static int
add_range(struct q2_entries *entries, const struct q2_finding *finding, struct q2_error *err)
{
    bool about = is_about_target(finding->problem);
    struct q2_finding_range range = {
        .problem = finding->problem,
        .offset = about ? finding->target_offset : finding->host_offset,
    };
    if (!(finding->has & (about ? Q2_HAS_TARGET : Q2_HAS_HOST)) ||
        !q2_add(range.offset, about ? finding->target_length : finding->host_length, &range.end))
        return 0;
    int rc = q2_survey_grow(entries->survey, &entries->ranges, entries->range_count,
                            &entries->range_capacity, sizeof range, err);
    if (rc == 0)
        entries->ranges[entries->range_count++] = range;
    return rc;
}

static int
index_findings(struct q2_entries *entries, struct q2_error *err)
{
    const struct q2_check *check = entries->survey->scene->check;
    int rc = 0;
    for (size_t i = 0; i < q2_check_finding_count(check) && rc == 0; i++)
        if (is_of_entries(q2_check_finding(check, i)->problem))
            rc = add_range(entries, q2_check_finding(check, i), err);
    struct q2_finding_range *all = entries->ranges;
    if (entries->range_count)
        qsort(all, entries->range_count, sizeof *all, compare_ranges);
    for (uint64_t i = 0; i < entries->range_count; i++) {
        bool goes_on = i && all[i - 1].problem == all[i].problem;
        all[i].reach = goes_on ? q2_max(all[i - 1].reach, all[i].end) : all[i].end;
    }
    return rc;
}

/* The first range of a problem at or behind `offset`. */
static uint64_t
first_range(const struct q2_entries *entries, enum q2_problem problem, uint64_t offset)
{
    const struct q2_finding_range wanted = {.problem = problem, .offset = offset};
    uint64_t low = 0, high = entries->range_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (compare_ranges(&entries->ranges[middle], &wanted) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* What of a problem is about host range [offset, end): once for each place. */
static void
answer(struct q2_entries *entries, enum q2_problem problem, uint64_t offset, uint64_t end)
{
    const struct q2_finding_range *all = entries->ranges;
    uint64_t last = UINT64_MAX, first = first_range(entries, problem, 0);
    for (uint64_t i = first_range(entries, problem, end); i-- > first && all[i].reach > offset;) {
        uint64_t place = q2_max(offset, all[i].offset);
        if (all[i].end <= offset || place == last)
            continue;
        q2_plan_answer(&entries->survey->scene->plan, problem, place, 1);
        last = place;
    }
}

void
q2_entries_answer(struct q2_entries *entries, const struct q2_suspect *suspect)
{
    const struct q2_geometry *geometry = &entries->survey->scene->check->geometry;
    unsigned bits = geometry->cluster_bits;
    uint64_t first = 0, end = 0;
    bool leads = clusters_of(entries, suspect, &first, &end);
    for (size_t i = 0; i < sizeof of_entries / sizeof of_entries[0]; i++) {
        if (!is_about_target(of_entries[i]))
            answer(entries, of_entries[i], suspect->at, suspect->at + geometry->l2_entry_size);
        else if (leads)
            answer(entries, of_entries[i], first << bits, end << bits);
    }
}

/* ---- beginning and end ---- */

int
q2_entries_init(struct q2_entries *entries, struct q2_scene *scene, struct q2_error *err)
{
    void *taken;
    *entries = (struct q2_entries){0};
    int rc = q2_survey_take(scene, true, &entries->survey, err);
    if (rc < 0)
        return rc;
    rc = q2_budget_calloc(&scene->budget, entries->survey->clusters / 64 + 1, 8,
                          "the survey of clusters", &taken, err);
    if (rc == 0) {
        entries->taken = taken;
        rc = q2_matcher_init(&entries->matcher, entries->survey, err);
    }
    if (rc == 0)
        rc = q2_table_view_init(&entries->view, entries->survey, err);
    if (rc == 0)
        rc = q2_entries_prepare_peers(entries, err);
    if (rc == 0)
        rc = index_findings(entries, err);
    if (rc == 0)
        rc = find_sharers(entries, err);
    if (rc < 0)
        q2_entries_destroy(entries);
    else
        look_for_lost(entries);
    return rc;
}

void
q2_entries_destroy(struct q2_entries *entries)
{
    struct q2_survey *survey = entries->survey;
    struct q2_budget *budget = &survey->scene->budget;
    q2_table_view_destroy(&entries->view);
    q2_matcher_destroy(&entries->matcher);
    q2_budget_free(budget, entries->taken, survey->clusters / 64 + 1, 8);
    q2_budget_free(budget, entries->sharers, entries->sharer_capacity, sizeof *entries->sharers);
    q2_budget_free(budget, entries->sharings, entries->sharing_count, sizeof *entries->sharings);
    q2_budget_free(budget, entries->ranges, entries->range_capacity, sizeof *entries->ranges);
    q2_budget_free(budget, entries->by_slot, survey->reference_count + 1, 8);
    q2_budget_free(budget, entries->peers, survey->scene->check->geometry.cluster_size, 1);
    q2_refcount_reader_destroy(&entries->reader);
    q2_survey_free(survey);
    *entries = (struct q2_entries){0};
}

bool
q2_entries_taken(const struct q2_entries *entries, uint64_t cluster)
{
    return cluster < entries->survey->clusters && q2_bit_test(entries->taken, cluster);
}

void
q2_entries_settle(struct q2_entries *entries, const struct q2_suspect *suspect,
                  const struct q2_match *match)
{
    const struct q2_geometry *geometry = &entries->survey->scene->check->geometry;
    uint64_t first, count;
    stop_sharing(entries, suspect);
    q2_match_take(&entries->matcher, match);
    q2_table_view_set(&entries->view, suspect->at, match->raw);
    if (!q2_entry_clusters(geometry, match->raw, &first, &count))
        return;
    for (uint64_t cluster = first; cluster < first + count; cluster++)
        q2_bit_set(entries->taken, cluster);
}
