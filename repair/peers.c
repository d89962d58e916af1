/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What other maps have where an entry is damaged: a snapshot and the active disk share clusters,
 * and a cluster that is counted once more than it is referred to misses just such an entry. */

#include "core/base/checked.h"
#include "core/format/references.h"
#include "repair/entries.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_PEER_WORK = 1 << 30, /* bytes */
    PEER_COST = 16,          /* of a reference that is passed over, bytes */
    READ_COST = 512,         /* the least that a read costs */
};

#define SEVERAL UINT64_MAX /* clusters that an entry may have led to */

/* ---- tables by slot ---- */

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

int
q2_entries_prepare_peers(struct q2_entries *entries, struct q2_error *err)
{
    struct q2_scene *scene = entries->survey->scene;
    void *memory;
    int rc = index_slots(entries, err);
    if (rc == 0)
        rc = q2_refcount_reader_init(&entries->reader, scene->check, err);
    if (rc == 0)
        rc = q2_budget_calloc(&scene->budget, scene->check->geometry.cluster_size, 1, "an L2 table",
                              &memory, err);
    if (rc == 0)
        entries->peers = memory;
    return rc;
}

/* ---- looking ---- */

/* The first reference at or behind a table and slot. */
static uint64_t
first_of_table(const struct q2_survey *survey, uint64_t table, uint64_t slot)
{
    uint64_t low = 0, high = survey->reference_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        const struct q2_table_reference *reference = &survey->references[middle];
        if (reference->table < table || (reference->table == table && reference->slot < slot))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* How many maps refer to a cluster by way of the suspect. */
static uint64_t
own_references(const struct q2_entries *entries, const struct q2_suspect *suspect, uint64_t cluster)
{
    const struct q2_survey *survey = entries->survey;
    const struct q2_geometry *geometry = &survey->scene->check->geometry;
    uint64_t first, count, table = suspect->at >> geometry->cluster_bits;
    if (!q2_entry_clusters(geometry, suspect->entry.raw, &first, &count) ||
        cluster - first >= count)
        return 0;
    return first_of_table(survey, table, (uint64_t)suspect->l1_index + 1) -
           first_of_table(survey, table, suspect->l1_index);
}

/* Whether a cluster is counted more often than others than the suspect refer to it. */
static bool
misses_one(struct q2_entries *entries, const struct q2_suspect *suspect, uint64_t cluster)
{
    entries->peer_work += READ_COST;
    return q2_survey_refcount(entries->survey, &entries->reader, cluster) +
               own_references(entries, suspect, cluster) >
           q2_scene_references(entries->survey->scene, cluster);
}

/* The standard cluster that an entry of the table read last leads to; 0: none. */
static uint64_t
peer_cluster(const struct q2_entries *entries, uint64_t index)
{
    const struct q2_geometry *geometry = &entries->survey->scene->check->geometry;
    struct q2_l2_entry entry = q2_l2_load(geometry, entries->peers, index);
    uint64_t first, count;
    if ((entry.raw & (Q2_ENTRY_COMPRESSED | Q2_L2_RESERVED)) ||
        !q2_entry_clusters(geometry, entry.raw, &first, &count))
        return 0;
    return first;
}

/* Look into one table. SEVERAL stands for more than one cluster. Returns whether it has any that is
 * not counted once more: whoever counted references anew after the damage has seen to that. */
static bool
look_for_peers(struct q2_entries *entries, const struct q2_suspect *suspect, uint64_t table,
               uint64_t count, uint64_t *clusters)
{
    bool others = false;
    const struct q2_check *check = entries->survey->scene->check;
    const struct q2_geometry *geometry = &check->geometry;
    uint64_t length = count * geometry->l2_entry_size;
    uint64_t at =
        (table << geometry->cluster_bits) + (uint64_t)suspect->l2_index * geometry->l2_entry_size;
    entries->peer_work += q2_max(length, READ_COST);
    if (q2_file_read_padded(check->file, at, entries->peers, length, NULL) < 0)
        return false;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t cluster = peer_cluster(entries, i);
        if (!cluster || cluster == clusters[i] || clusters[i] == SEVERAL)
            continue;
        if (entries->survey->counts_help && misses_one(entries, suspect, cluster))
            clusters[i] = clusters[i] ? SEVERAL : cluster;
        else
            others = true;
    }
    return others;
}

void
q2_entries_peers(struct q2_entries *entries, const struct q2_suspect *suspect, uint64_t count,
                 uint64_t *ret_clusters, bool *ret_unsure)
{
    const struct q2_survey *survey = entries->survey;
    uint64_t own = suspect->at >> survey->scene->check->geometry.cluster_bits, last = own;
    bool unsure = false, others = false;
    memset(ret_clusters, 0, count * sizeof *ret_clusters);
    for (uint64_t i = first_of_slot(entries, suspect->l1_index); i < survey->reference_count; i++) {
        const struct q2_table_reference *reference = &survey->references[entries->by_slot[i]];
        if (reference->slot != suspect->l1_index)
            break;
        unsure = entries->peer_work >= MAX_PEER_WORK;
        if (unsure)
            break;
        entries->peer_work += PEER_COST;
        if (reference->table == own || reference->table == last || reference->suspect)
            continue;
        last = reference->table;
        others |= look_for_peers(entries, suspect, last, count, ret_clusters);
    }
    for (uint64_t k = 0; k < count; k++) {
        bool several = ret_clusters[k] == SEVERAL;
        ret_clusters[k] = several || unsure ? 0 : ret_clusters[k];
        unsure |= (several || others) && count == 1;
    }
    if (ret_unsure)
        *ret_unsure = unsure;
}
