/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/anchors.h"

#include <string.h>

int
q2_table_view_init(struct q2_table_view *view, struct q2_survey *survey, struct q2_error *err)
{
    void *memory;
    int rc = q2_budget_calloc(&survey->scene->budget, survey->scene->check->geometry.cluster_size,
                              1, "an L2 table", &memory, err);
    if (rc == 0)
        *view = (struct q2_table_view){.survey = survey, .bytes = memory, .offset = UINT64_MAX};
    return rc;
}

void
q2_table_view_destroy(struct q2_table_view *view)
{
    if (!view->survey)
        return;
    struct q2_scene *scene = view->survey->scene;
    q2_budget_free(&scene->budget, view->bytes, scene->check->geometry.cluster_size, 1);
}

bool
q2_table_view_load(struct q2_table_view *view, uint64_t offset)
{
    const struct q2_check *check = view->survey->scene->check;
    if (view->offset == offset)
        return true;
    view->offset = UINT64_MAX;
    if (q2_file_read_padded(check->file, offset, view->bytes, check->geometry.cluster_size, NULL) <
        0)
        return false;
    view->offset = offset;
    return true;
}

void
q2_table_view_set(struct q2_table_view *view, uint64_t at, uint64_t raw)
{
    uint64_t size = view->survey->scene->check->geometry.cluster_size;
    if (view->offset != UINT64_MAX && at >= view->offset && at - view->offset < size)
        q2_store_be64(view->bytes + (at - view->offset), raw);
}

/* ---- runs ---- */

static bool
is_broken(const struct q2_suspect *suspect)
{
    return (suspect->why & (Q2_SUSPECT_RULE | Q2_SUSPECT_PAST_END)) != 0;
}

static bool
follows(const struct q2_suspect *a, const struct q2_suspect *b, unsigned entry_size)
{
    return !a->is_l1 && !b->is_l1 && a->l1_index == b->l1_index && b->at == a->at + entry_size &&
           b->l2_index == a->l2_index + 1;
}

/* Whether the entry beside a run says where its cluster is. */
static bool
usable(const struct q2_table_view *view, uint64_t index, struct q2_l2_entry *ret_entry)
{
    const struct q2_geometry *geometry = &view->survey->scene->check->geometry;
    struct q2_l2_entry entry = q2_l2_load(geometry, view->bytes, index);
    enum q2_cluster_kind kind = q2_l2_kind(geometry, entry.raw);
    if (kind == Q2_CLUSTER_UNALLOCATED || kind == Q2_CLUSTER_ZERO)
        return false;
    *ret_entry = entry;
    return true;
}

static bool
is_suspect(const struct q2_survey *survey, uint64_t index, int step, uint64_t at)
{
    uint64_t beside = step < 0 ? index - 1 : index + 1;
    if ((step < 0 && index == 0) || beside >= survey->suspect_count)
        return false;
    return survey->suspects[beside].at == at;
}

/* The run of broken suspects around one of them: [view->run_first, view->run_end). It may have as
 * many as a table has entries, and is asked for by each of them. */
static void
find_run(struct q2_table_view *view, uint64_t index)
{
    const struct q2_survey *survey = view->survey;
    const struct q2_suspect *all = survey->suspects;
    unsigned size = survey->scene->check->geometry.l2_entry_size;
    uint64_t first = index, end = index + 1;
    if (index >= view->run_first && index < view->run_end)
        return;
    while (first > 0 && is_broken(&all[first - 1]) && follows(&all[first - 1], &all[first], size))
        first--;
    while (end < survey->suspect_count && is_broken(&all[end]) &&
           follows(&all[end - 1], &all[end], size))
        end++;
    view->run_first = first;
    view->run_end = end;
}

void
q2_anchors_find(struct q2_table_view *view, uint64_t index, struct q2_anchors *ret_anchors)
{
    const struct q2_survey *survey = view->survey;
    const struct q2_geometry *geometry = &survey->scene->check->geometry;
    const struct q2_suspect *all = survey->suspects;
    unsigned size = geometry->l2_entry_size;
    uint64_t first = index, last = index;
    if (is_broken(&all[index])) {
        find_run(view, index);
        first = view->run_first;
        last = view->run_end - 1;
    }
    *ret_anchors = (struct q2_anchors){.first = all[first].l2_index, .count = last - first + 1};
    uint64_t table = all[index].at - (uint64_t)all[index].l2_index * size;
    if (!q2_table_view_load(view, table))
        return;
    if (all[first].l2_index > 0 && !is_suspect(survey, first, -1, all[first].at - size))
        ret_anchors->has_before = usable(view, all[first].l2_index - 1, &ret_anchors->before);
    if (all[last].l2_index + 1 < geometry->l2_entries &&
        !is_suspect(survey, last, 1, all[last].at + size))
        ret_anchors->has_behind = usable(view, all[last].l2_index + 1, &ret_anchors->behind);
}

/* ---- where they point ---- */

static uint64_t
standard_cluster(const struct q2_geometry *geometry, bool has, const struct q2_l2_entry *entry)
{
    if (!has || (entry->raw & Q2_ENTRY_COMPRESSED))
        return 0;
    return q2_entry_offset(entry->raw) >> geometry->cluster_bits;
}

uint64_t
q2_anchors_from_before(const struct q2_anchors *anchors, const struct q2_geometry *geometry,
                       uint64_t index)
{
    uint64_t cluster = standard_cluster(geometry, anchors->has_before, &anchors->before);
    return cluster ? cluster + (index - anchors->first) + 1 : 0;
}

uint64_t
q2_anchors_from_behind(const struct q2_anchors *anchors, const struct q2_geometry *geometry,
                       uint64_t index)
{
    uint64_t cluster = standard_cluster(geometry, anchors->has_behind, &anchors->behind);
    uint64_t back = anchors->first + anchors->count - index;
    return cluster > back ? cluster - back : 0;
}
