/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* L2 tables that something else was written over. The pointer to such a table is sound, and no lost
 * table explains it, so its place is right and its content is gone. Entries that still obey the
 * rules and lead to clusters that nothing else has are kept; those that another map has at the same
 * place, and that are counted once more than they are used, come back; for the rest, the gaps that
 * are left may be filled (fix_gaps.c). */

#include "repair/fix.h"

#include "core/base/checked.h"
#include "core/format/references.h"
#include "repair/entries.h"
#include "repair/zero_entries.h"

#include <inttypes.h>
#include <string.h>

struct garbled {
    struct q2_entries *entries;
    const struct q2_suspect *suspect; /* the L1 entry */
    uint8_t *table;                   /* a cluster */
    uint64_t kept, found;
};

/* What the entry at `index` becomes; 0: nothing is known of it. */
static uint64_t
entry_for(struct garbled *garbled, uint64_t index)
{
    struct q2_entries *entries = garbled->entries;
    const struct q2_geometry *geometry = &entries->survey->scene->check->geometry;
    uint64_t table = q2_entry_offset(garbled->suspect->entry.raw), first, count;
    struct q2_suspect place = {
        .map = garbled->suspect->map,
        .l1_index = garbled->suspect->l1_index,
        .l2_index = (uint32_t)index,
        .at = table + index * geometry->l2_entry_size,
        .guest = garbled->suspect->guest + (index << geometry->cluster_bits),
        .entry = q2_l2_load(geometry, garbled->table, index),
    };
    struct q2_matches same;
    q2_match_near(&entries->matcher, &place, 0, &same);
    if (place.entry.raw && same.count == 1 &&
        q2_entry_clusters(geometry, place.entry.raw, &first, &count)) {
        garbled->kept++;
        return place.entry.raw;
    }
    place.entry = (struct q2_l2_entry){0};
    uint64_t peer;
    q2_entries_peers(entries, &place, 1, &peer, NULL);
    garbled->found += peer != 0;
    return peer << geometry->cluster_bits;
}

/* All maps that lead to the table. */
static void
name_changes(struct garbled *garbled)
{
    const struct q2_survey *survey = garbled->entries->survey;
    const struct q2_geometry *geometry = &survey->scene->check->geometry;
    uint64_t table = q2_entry_offset(garbled->suspect->entry.raw) >> geometry->cluster_bits;
    uint64_t reach = q2_l2_reach(geometry);
    for (uint64_t i = q2_survey_first_reference(survey, table);
         i < survey->reference_count && survey->references[i].table == table; i++)
        q2_plan_change(&survey->scene->plan, Q2_CHANGE_REPLACED, survey->references[i].map,
                       survey->references[i].slot * reach, reach);
}

/* Whether an L1 entry is the first of those that lead to its table. */
static bool
is_first(const struct q2_survey *survey, const struct q2_suspect *suspect)
{
    unsigned bits = survey->scene->check->geometry.cluster_bits;
    uint64_t index = q2_survey_first_reference(survey, q2_entry_offset(suspect->entry.raw) >> bits);
    return index < survey->reference_count && survey->references[index].at == suspect->at;
}

static int
write_table(struct garbled *garbled, struct q2_error *err)
{
    struct q2_scene *scene = garbled->entries->survey->scene;
    const struct q2_geometry *geometry = &scene->check->geometry;
    /* An empty entry shows what a backing file has there, and nobody knows which were empty. */
    bool shines = q2_empty_entries_show(scene->check);
    enum q2_confidence confidence =
        garbled->kept + garbled->found && !shines ? Q2_LIKELY : Q2_GUESS;
    uint64_t table = q2_entry_offset(garbled->suspect->entry.raw);
    bool apply = q2_plan_begin(&scene->plan, Q2_ACTION_REBUILD_L2_TABLE, confidence, table,
                               "the table at 0x%" PRIx64 " was overwritten: %" PRIu64
                               " entries are left, %" PRIu64 " come back from other maps",
                               table, garbled->kept, garbled->found);
    name_changes(garbled);
    int rc = apply ? q2_scene_write(scene, Q2_OWNER_L2_TABLE, table, garbled->table,
                                    geometry->cluster_size, err)
                   : 0;
    q2_plan_end(&scene->plan);
    return rc;
}

static int
rebuild(struct garbled *garbled, struct q2_error *err)
{
    const struct q2_check *check = garbled->entries->survey->scene->check;
    const struct q2_geometry *geometry = &check->geometry;
    uint64_t table = q2_entry_offset(garbled->suspect->entry.raw);
    if (q2_file_read_padded(check->file, table, garbled->table, geometry->cluster_size, NULL) < 0)
        return 0;
    for (uint64_t i = 0; i < geometry->l2_entries; i++) {
        uint8_t *at = garbled->table + i * geometry->l2_entry_size;
        uint64_t raw = entry_for(garbled, i), old = q2_load_be64(at);
        q2_store_be64(at, raw);
        if (geometry->extended_l2 && raw != old)
            q2_store_be64(at + 8, raw ? UINT32_MAX : 0);
    }
    return write_table(garbled, err);
}

int
q2_fix_garbled(struct q2_scene *scene, struct q2_error *err)
{
    const unsigned other = Q2_SUSPECT_RULE | Q2_SUSPECT_PAST_END | Q2_SUSPECT_METADATA;
    struct q2_entries entries;
    uint64_t size = scene->check->geometry.cluster_size;
    if (!q2_entries_wanted(scene) || scene->check->geometry.data_file)
        return 0;
    int rc = q2_entries_init(&entries, scene, err);
    if (rc < 0)
        return rc;
    void *table = NULL;
    rc = q2_budget_calloc(&scene->budget, size, 1, "an L2 table", &table, err);
    struct garbled garbled = {.entries = &entries, .table = table};
    for (uint64_t i = 0; i < entries.survey->suspect_count && rc == 0; i++) {
        garbled.suspect = &entries.survey->suspects[i];
        if (!garbled.suspect->is_l1 || !(garbled.suspect->why & Q2_SUSPECT_TARGET) ||
            (garbled.suspect->why & other) || !is_first(entries.survey, garbled.suspect))
            continue;
        garbled.kept = garbled.found = 0;
        rc = rebuild(&garbled, err);
    }
    if (table)
        q2_budget_free(&scene->budget, table, size, 1);
    q2_entries_destroy(&entries);
    return rc;
}
