/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/entries.h"

#include "checker/refcounts.h"
#include "core/base/checked.h"
#include "core/format/references.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PEERS = 4096 };

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
    for (uint64_t i = 1; i < entries->survey->clusters && entries->lost < 2; i++)
        entries->lost += q2_survey_lost(entries->survey, i);
}

/* ---- who shares what ---- */

static int
compare_sharers(const void *left, const void *right)
{
    const struct q2_sharer *a = left, *b = right;
    if (a->cluster != b->cluster)
        return a->cluster < b->cluster ? -1 : 1;
    return (a->guest > b->guest) - (a->guest < b->guest);
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
    return rc;
}

const struct q2_sharer *
q2_entries_sharers(const struct q2_entries *entries, uint64_t cluster, uint64_t *ret_count)
{
    uint64_t low = 0, high = entries->sharer_count, end;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (entries->sharers[middle].cluster < cluster)
            low = middle + 1;
        else
            high = middle;
    }
    for (end = low; end < entries->sharer_count && entries->sharers[end].cluster == cluster;)
        end++;
    *ret_count = end - low;
    return entries->sharers + low;
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
    uint64_t cluster, end, count;
    if (!clusters_of(entries, suspect, &cluster, &end))
        return false;
    for (; cluster < end; cluster++) {
        const struct q2_sharer *sharers = q2_entries_sharers(entries, cluster, &count);
        for (uint64_t i = 0; i < count; i++)
            if (!sharers[i].gone && sharers[i].guest != suspect->guest)
                return true;
    }
    return false;
}

static void
stop_sharing(struct q2_entries *entries, const struct q2_suspect *suspect)
{
    uint64_t cluster, end, count;
    if (!(suspect->why & Q2_SUSPECT_SHARED) || !clusters_of(entries, suspect, &cluster, &end))
        return;
    for (; cluster < end; cluster++) {
        const struct q2_sharer *found = q2_entries_sharers(entries, cluster, &count);
        struct q2_sharer *sharers = entries->sharers + (found - entries->sharers);
        for (uint64_t i = 0; i < count; i++)
            sharers[i].gone |= entries->survey->suspects[sharers[i].suspect].at == suspect->at;
    }
}

/* ---- other maps at the same place ---- */

static int
compare_slots(const void *left, const void *right, void *data)
{
    const struct q2_table_reference *all = data;
    const uint64_t *a = left, *b = right;
    if (all[*a].slot != all[*b].slot)
        return all[*a].slot < all[*b].slot ? -1 : 1;
    return (*a > *b) - (*a < *b);
}

static int
index_slots(struct q2_entries *entries, struct q2_error *err)
{
    struct q2_survey *survey = entries->survey;
    void *memory;
    int rc = q2_budget_calloc(&survey->scene->budget, survey->reference_count + 1, 8,
                              "L2 tables by slot", &memory, err);
    if (rc < 0)
        return rc;
    entries->by_slot = memory;
    for (uint64_t i = 0; i < survey->reference_count; i++)
        entries->by_slot[i] = i;
    qsort_r(entries->by_slot, survey->reference_count, 8, compare_slots, survey->references);
    return 0;
}

static uint64_t
first_of_slot(const struct q2_entries *entries, uint32_t slot)
{
    const struct q2_survey *survey = entries->survey;
    uint64_t low = 0, high = survey->reference_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (survey->references[entries->by_slot[middle]].slot < slot)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* In how many maps an L2 table is. */
static uint64_t
maps_of(const struct q2_entries *entries, uint64_t table, uint32_t slot)
{
    const struct q2_survey *survey = entries->survey;
    uint64_t maps = 0;
    for (uint64_t i = first_of_slot(entries, slot); i < survey->reference_count; i++) {
        const struct q2_table_reference *reference = &survey->references[entries->by_slot[i]];
        if (reference->slot != slot)
            break;
        maps += reference->table == table;
    }
    return maps;
}

/* Whether a cluster is counted more often than others than the suspect refer to it. */
static bool
misses_one(struct q2_entries *entries, const struct q2_suspect *suspect, uint64_t cluster)
{
    struct q2_scene *scene = entries->survey->scene;
    unsigned bits = scene->check->geometry.cluster_bits;
    struct q2_refcount_reader reader;
    uint64_t first, count, own = 0;
    if (!entries->survey->counts_help || q2_refcount_reader_init(&reader, scene->check, NULL) < 0)
        return false;
    if (q2_entry_clusters(&scene->check->geometry, suspect->entry.raw, &first, &count) &&
        cluster - first < count)
        own = maps_of(entries, suspect->at >> bits, suspect->l1_index);
    bool misses = q2_refcount_of(&reader, cluster) + own > q2_scene_references(scene, cluster);
    q2_refcount_reader_destroy(&reader);
    return misses;
}

/* The standard cluster that a table has at `index`; 0: none. */
static uint64_t
cluster_in(const struct q2_entries *entries, uint64_t table, uint64_t index)
{
    const struct q2_check *check = entries->survey->scene->check;
    const struct q2_geometry *geometry = &check->geometry;
    uint8_t bytes[16] = {0};
    uint64_t first, count, at = (table << geometry->cluster_bits) + index * geometry->l2_entry_size;
    if (q2_file_read_padded(check->file, at, bytes, geometry->l2_entry_size, NULL) < 0)
        return 0;
    struct q2_l2_entry entry = q2_l2_load(geometry, bytes, 0);
    if ((entry.raw & (Q2_ENTRY_COMPRESSED | Q2_L2_RESERVED)) ||
        !q2_entry_clusters(geometry, entry.raw, &first, &count))
        return 0;
    return first;
}

uint64_t
q2_entries_peer(struct q2_entries *entries, const struct q2_suspect *suspect)
{
    const struct q2_survey *survey = entries->survey;
    uint64_t own = suspect->at >> survey->scene->check->geometry.cluster_bits, found = 0, seen = 0;
    for (uint64_t i = first_of_slot(entries, suspect->l1_index); i < survey->reference_count; i++) {
        const struct q2_table_reference *reference = &survey->references[entries->by_slot[i]];
        if (reference->slot != suspect->l1_index || seen++ == MAX_PEERS)
            break;
        if (reference->table == own || reference->suspect)
            continue;
        uint64_t cluster = cluster_in(entries, reference->table, suspect->l2_index);
        if (!cluster || cluster == found || !misses_one(entries, suspect, cluster))
            continue;
        if (found)
            return 0;
        found = cluster;
    }
    return found;
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
        rc = index_slots(entries, err);
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
    q2_budget_free(budget, entries->by_slot, survey->reference_count + 1, 8);
    q2_survey_free(survey);
    *entries = (struct q2_entries){0};
}

bool
q2_entries_taken(const struct q2_entries *entries, uint64_t cluster)
{
    return cluster < entries->survey->clusters && q2_bit_test(entries->taken, cluster);
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

void
q2_entries_answer(struct q2_entries *entries, const struct q2_suspect *suspect)
{
    struct q2_scene *scene = entries->survey->scene;
    const struct q2_geometry *geometry = &scene->check->geometry;
    uint64_t first = 0, count = 0;
    if (!q2_entry_clusters(geometry, suspect->entry.raw, &first, &count))
        count = 0;
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++) {
        const struct q2_finding *finding = q2_check_finding(scene->check, i);
        if (!is_of_entries(finding->problem))
            continue;
        bool about = is_about_target(finding->problem);
        if (!about && (finding->has & Q2_HAS_HOST) &&
            q2_ranges_overlap(finding->host_offset, finding->host_length, suspect->at,
                              geometry->l2_entry_size))
            q2_plan_answer(&scene->plan, finding->problem, suspect->at, 1);
        if (about && count && (finding->has & Q2_HAS_TARGET) &&
            q2_ranges_overlap(finding->target_offset, finding->target_length,
                              first << geometry->cluster_bits, count << geometry->cluster_bits))
            q2_plan_answer(&scene->plan, finding->problem,
                           q2_max(first << geometry->cluster_bits, finding->target_offset), 1);
    }
}

void
q2_entries_settle(struct q2_entries *entries, const struct q2_suspect *suspect,
                  const struct q2_match *match)
{
    const struct q2_geometry *geometry = &entries->survey->scene->check->geometry;
    uint64_t first, count;
    stop_sharing(entries, suspect);
    q2_match_take(&entries->matcher, match);
    q2_table_view_forget(&entries->view);
    if (!q2_entry_clusters(geometry, match->raw, &first, &count))
        return;
    for (uint64_t cluster = first; cluster < first + count; cluster++)
        q2_bit_set(entries->taken, cluster);
}
