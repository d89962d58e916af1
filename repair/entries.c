/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/entries.h"

#include "core/base/checked.h"
#include "core/format/references.h"

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
    for (uint64_t i = 1; i < entries->survey->clusters && !entries->any_lost; i++)
        entries->any_lost = q2_survey_lost(entries->survey, i);
}

int
q2_entries_init(struct q2_entries *entries, struct q2_scene *scene, struct q2_error *err)
{
    struct q2_survey *survey;
    void *taken;
    *entries = (struct q2_entries){0};
    int rc = q2_survey_take(scene, true, &survey, err);
    if (rc < 0)
        return rc;
    rc = q2_budget_calloc(&scene->budget, survey->clusters / 64 + 1, 8, "the survey of clusters",
                          &taken, err);
    if (rc < 0) {
        q2_survey_free(survey);
        return rc;
    }
    entries->survey = survey;
    entries->taken = taken;
    rc = q2_matcher_init(&entries->matcher, survey, err);
    if (rc == 0) {
        rc = q2_table_view_init(&entries->view, survey, err);
        if (rc < 0)
            q2_matcher_destroy(&entries->matcher);
    }
    if (rc < 0) {
        q2_budget_free(&scene->budget, taken, survey->clusters / 64 + 1, 8);
        q2_survey_free(survey);
        return rc;
    }
    look_for_lost(entries);
    return 0;
}

void
q2_entries_destroy(struct q2_entries *entries)
{
    struct q2_survey *survey = entries->survey;
    q2_table_view_destroy(&entries->view);
    q2_matcher_destroy(&entries->matcher);
    q2_budget_free(&survey->scene->budget, entries->taken, survey->clusters / 64 + 1, 8);
    q2_survey_free(survey);
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
           problem == Q2_PROBLEM_REFCOUNT_BLOCK_OVERLAP;
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
            q2_plan_answer(&scene->plan, finding->problem, first << geometry->cluster_bits, 1);
    }
}

void
q2_entries_settle(struct q2_entries *entries, const struct q2_suspect *suspect,
                  const struct q2_match *match)
{
    const struct q2_geometry *geometry = &entries->survey->scene->check->geometry;
    uint64_t first, count;
    (void)suspect;
    q2_match_take(&entries->matcher, match);
    q2_table_view_forget(&entries->view);
    if (!q2_entry_clusters(geometry, match->raw, &first, &count))
        return;
    for (uint64_t cluster = first; cluster < first + count; cluster++)
        q2_bit_set(entries->taken, cluster);
}
