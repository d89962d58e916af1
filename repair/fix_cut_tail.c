/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A file that was cut off within a cluster. What is missing of that cluster reads as zeros, as of
 * any file that ends early, and nothing is at fault with it; but here there was more, as clusters
 * show that are counted behind the end. So it is said what is lost, and the last entry of an L2
 * table, of which a part is left, does not lead anywhere by mistake. */

#include "repair/fix.h"

#include "core/base/checked.h"
#include "repair/entries.h"
#include "repair/zero_entries.h"

#include <inttypes.h>

struct tail {
    struct q2_entries *entries;
    uint64_t cluster; /* the last one */
    uint64_t kept;    /* bytes that are left of it */
    bool found;       /* something that is lost */
    bool table;       /* the last cluster is an L2 table */
    bool naming;
};

static void
name(struct tail *tail, const struct q2_table_reference *reference, uint64_t index, uint64_t skip,
     uint64_t length)
{
    struct q2_survey *survey = tail->entries->survey;
    const struct q2_check *check = survey->scene->check;
    const struct q2_geometry *geometry = &check->geometry;
    const struct q2_suspect place = {
        .at = (reference->table << geometry->cluster_bits) + index * geometry->l2_entry_size,
        .map = reference->map,
        .l1_index = reference->slot,
        .l2_index = (uint32_t)index,
        .guest = reference->slot * q2_l2_reach(geometry) + (index << geometry->cluster_bits) + skip,
    };
    uint64_t limit = check->maps[reference->map].limit;
    if (place.guest >= limit)
        return;
    if (tail->naming)
        q2_survey_change(survey, &place, Q2_CHANGE_LOST, q2_min(length, limit - place.guest));
    tail->found = true;
}

/* What the table at hand maps to the last cluster. */
static void
look_in_table(struct tail *tail, const struct q2_table_reference *reference)
{
    const struct q2_geometry *geometry = &tail->entries->survey->scene->check->geometry;
    const struct q2_table_view *view = &tail->entries->view;
    for (uint64_t i = 0; i < geometry->l2_entries; i++) {
        struct q2_l2_entry entry = q2_l2_load(geometry, view->bytes, i);
        if (!(entry.raw & (Q2_ENTRY_COMPRESSED | q2_entry_odd_bits(geometry))) &&
            q2_entry_offset(entry.raw) >> geometry->cluster_bits == tail->cluster &&
            q2_l2_kind(geometry, entry.raw) == Q2_CLUSTER_STANDARD)
            name(tail, reference, i, tail->kept, geometry->cluster_size - tail->kept);
    }
}

static int
fill(struct tail *tail, uint64_t from, struct q2_error *err)
{
    struct q2_scene *scene = tail->entries->survey->scene;
    const struct q2_geometry *geometry = &scene->check->geometry;
    enum q2_owner_kind kind = tail->table ? Q2_OWNER_L2_TABLE : Q2_OWNER_DATA;
    uint64_t size = geometry->cluster_size;
    void *zeros;
    int rc = q2_budget_calloc(&scene->budget, size - from, 1, "the end of the file", &zeros, err);
    if (rc < 0)
        return rc;
    if (tail->table)
        q2_zero_entries(scene->check, zeros, (size - from) / geometry->l2_entry_size);
    rc = q2_scene_write(scene, kind, tail->cluster * size + from, zeros, size - from, err);
    q2_budget_free(&scene->budget, zeros, size - from, 1);
    return rc;
}

/* All tables: what was in the last cluster, and what the end of a table led to. */
static void
look(struct tail *tail)
{
    struct q2_survey *survey = tail->entries->survey;
    const struct q2_geometry *geometry = &survey->scene->check->geometry;
    uint64_t last = UINT64_MAX, index = tail->kept / geometry->l2_entry_size;
    for (uint64_t i = 0; i < survey->reference_count; i++) {
        const struct q2_table_reference *reference = &survey->references[i];
        if (reference->suspect || reference->table == last ||
            !q2_table_view_load(&tail->entries->view, reference->table << geometry->cluster_bits))
            continue;
        last = reference->table;
        look_in_table(tail, reference);
        if (reference->table != tail->cluster)
            continue;
        tail->table = true;
        name(tail, reference, index, 0, (geometry->l2_entries - index) << geometry->cluster_bits);
    }
}

static int
mend(struct tail *tail, struct q2_error *err)
{
    struct q2_scene *scene = tail->entries->survey->scene;
    const struct q2_geometry *geometry = &scene->check->geometry;
    look(tail);
    if (!tail->found)
        return 0;
    /* Entries that are lost show what a backing file has there. */
    bool shines =
        tail->table && q2_empty_entries_show(scene->check) && !q2_zero_entries_exist(scene->check);
    bool apply = q2_plan_begin(&scene->plan, Q2_ACTION_EXTEND_FILE, shines ? Q2_GUESS : Q2_CERTAIN,
                               tail->cluster << geometry->cluster_bits,
                               "clusters behind the end were in use, so the file was cut off, and "
                               "of its last cluster %" PRIu64 " bytes are left",
                               tail->kept);
    tail->naming = true;
    look(tail);
    uint64_t from =
        tail->table ? tail->kept / geometry->l2_entry_size * geometry->l2_entry_size : tail->kept;
    int rc = apply ? fill(tail, from, err) : 0;
    q2_plan_end(&scene->plan);
    return rc;
}

int
q2_fix_cut_tail(struct q2_scene *scene, struct q2_error *err)
{
    const struct q2_geometry *geometry = &scene->check->geometry;
    struct tail tail = {
        .cluster = geometry->file_size >> geometry->cluster_bits,
        .kept = geometry->file_size & (geometry->cluster_size - 1),
    };
    struct q2_entries entries;
    if (!tail.kept || !q2_scene_count(scene, Q2_PROBLEM_REFCOUNT_BEYOND_END) ||
        scene->options->fixed_size || geometry->data_file || !q2_entries_wanted(scene))
        return 0;
    int rc = q2_entries_init(&entries, scene, err);
    if (rc < 0)
        return rc;
    tail.entries = &entries;
    rc = mend(&tail, err);
    q2_entries_destroy(&entries);
    return rc;
}
