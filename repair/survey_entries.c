/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The entries of L2 tables, as the survey sees them. */

#include "core/base/checked.h"
#include "core/format/references.h"
#include "repair/cut_off.h"
#include "repair/survey_parts.h"

#include <stdlib.h>

enum {
    MAX_CONTESTED = 1 << 20,
    SUSPECT_MEMORY = 2048, /* bytes that a suspect, its action and its edits may take */
};

/* A sound reference to a cluster that has several owners according to the check. */
struct contested {
    uint64_t cluster;
    uint64_t guest; /* cluster */
    bool compressed;
};

struct entry_walk {
    struct q2_survey *survey;
    uint8_t *table; /* one cluster */
    const struct q2_table_reference *reference;
    struct contested *contested;
    uint64_t contested_count, contested_capacity;
};

typedef int visit_entry(struct entry_walk *walk, const struct q2_l2_entry *entry, uint64_t index,
                        struct q2_error *err);

int
q2_survey_suspect(struct q2_survey *survey, const struct q2_suspect *suspect, struct q2_error *err)
{
    if (survey->suspect_count >= survey->scene->budget.limit / SUSPECT_MEMORY) {
        survey->dropped++;
        return 0;
    }
    int rc = q2_survey_grow(survey, &survey->suspects, survey->suspect_count,
                            &survey->suspect_capacity, sizeof *suspect, err);
    if (rc < 0)
        return rc;
    survey->suspects[survey->suspect_count] = *suspect;
    if (suspect->why == Q2_SUSPECT_PAST_END &&
        q2_cut_entry(survey->scene, suspect->entry.raw, suspect->is_l1))
        survey->suspects[survey->suspect_count].why |= Q2_SUSPECT_CUT;
    survey->suspect_count++;
    return 0;
}

bool
q2_survey_overlaps(const struct q2_survey *survey, uint64_t cluster)
{
    const struct q2_chunk *chunk =
        q2_tally_chunk(survey->scene->check->tally, cluster >> Q2_CHUNK_BITS);
    return chunk && q2_chunk_test(chunk->overlap, (unsigned)(cluster % Q2_CHUNK_CLUSTERS));
}

/* ---- one entry ---- */

static void
note_fault(void *data, const struct q2_violation *violation)
{
    unsigned *why = data;
    if (violation->problem == Q2_PROBLEM_L2_ENTRY_PAST_END ||
        violation->problem == Q2_PROBLEM_L2_COMPRESSED_PAST_END)
        *why |= Q2_SUSPECT_PAST_END;
    else if (violation->problem != Q2_PROBLEM_L2_COMPRESSED_ENCRYPTED &&
             violation->problem != Q2_PROBLEM_L2_COPIED_CLEAR)
        *why |= Q2_SUSPECT_RULE;
}

unsigned
q2_survey_entry_faults(const struct q2_geometry *geometry, const struct q2_l2_entry *entry,
                       uint64_t guest)
{
    unsigned why = 0;
    const struct q2_sink sink = {.report = note_fault, .data = &why};
    q2_l2_entry_validate(geometry, entry, 0, guest, &sink);
    return why;
}

static uint64_t
guest_of(const struct entry_walk *walk, uint64_t index)
{
    const struct q2_geometry *geometry = &walk->survey->scene->check->geometry;
    return walk->reference->slot * q2_l2_reach(geometry) + (index << geometry->cluster_bits);
}

/* ---- all tables ---- */

static int
walk_table(struct entry_walk *walk, visit_entry *visit, struct q2_error *err)
{
    const struct q2_check *check = walk->survey->scene->check;
    const struct q2_geometry *geometry = &check->geometry;
    uint64_t offset = walk->reference->table << geometry->cluster_bits;
    if (q2_file_read_padded(check->file, offset, walk->table, geometry->cluster_size, NULL) < 0)
        return 0;
    for (uint64_t i = 0; i < geometry->l2_entries; i++) {
        struct q2_l2_entry entry = q2_l2_load(geometry, walk->table, i);
        int rc = entry.raw || entry.bitmap ? visit(walk, &entry, i, err) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int
walk_all(struct entry_walk *walk, visit_entry *visit, struct q2_error *err)
{
    struct q2_survey *survey = walk->survey;
    uint64_t size = survey->scene->check->geometry.cluster_size;
    void *memory;
    int rc =
        q2_budget_calloc(&survey->scene->budget, size, 1, "the survey of pointers", &memory, err);
    if (rc < 0)
        return rc;
    walk->table = memory;
    uint64_t last = UINT64_MAX;
    for (uint64_t i = 0; i < survey->reference_count && rc == 0; i++) {
        walk->reference = &survey->references[i];
        if (walk->reference->suspect || walk->reference->table == last)
            continue;
        last = walk->reference->table;
        rc = walk_table(walk, visit, err);
    }
    q2_budget_free(&survey->scene->budget, memory, size, 1);
    return rc;
}

/* ---- the first walk ---- */

static int
contest(struct entry_walk *walk, uint64_t cluster, uint64_t guest, bool compressed,
        struct q2_error *err)
{
    if (walk->contested_count >= MAX_CONTESTED)
        return 0;
    int rc = q2_survey_grow(walk->survey, &walk->contested, walk->contested_count,
                            &walk->contested_capacity, sizeof *walk->contested, err);
    if (rc == 0)
        walk->contested[walk->contested_count++] =
            (struct contested){.cluster = cluster, .guest = guest, .compressed = compressed};
    return rc;
}

static int
claim_stream(struct entry_walk *walk, uint64_t raw, uint64_t guest, struct q2_error *err)
{
    struct q2_survey *survey = walk->survey;
    const struct q2_geometry *geometry = &survey->scene->check->geometry;
    int rc = q2_survey_grow(survey, &survey->streams, survey->stream_count,
                            &survey->stream_capacity, sizeof *survey->streams, err);
    if (rc == 0)
        survey->streams[survey->stream_count++] =
            (struct q2_claimed_stream){.offset = q2_compressed_decode(geometry, raw).offset,
                                       .guest = guest >> geometry->cluster_bits};
    return rc;
}

static int
compare_streams(const void *left, const void *right)
{
    const struct q2_claimed_stream *a = left, *b = right;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return (a->guest > b->guest) - (a->guest < b->guest);
}

bool
q2_survey_claimed(const struct q2_survey *survey, uint64_t offset, uint64_t guest)
{
    uint64_t low = 0, high = survey->stream_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (survey->streams[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    guest >>= survey->scene->check->geometry.cluster_bits;
    for (; low < survey->stream_count && survey->streams[low].offset == offset; low++)
        if (survey->streams[low].guest != guest)
            return true;
    return false;
}

static int
mark_entry(struct entry_walk *walk, const struct q2_l2_entry *entry, uint64_t index,
           struct q2_error *err)
{
    struct q2_survey *survey = walk->survey;
    const struct q2_geometry *geometry = &survey->scene->check->geometry;
    uint64_t first, count, guest = guest_of(walk, index);
    if (!q2_entry_clusters(geometry, entry->raw, &first, &count) ||
        q2_survey_entry_faults(geometry, entry, guest))
        return 0;
    if (entry->raw & Q2_ENTRY_COMPRESSED) {
        int rc = claim_stream(walk, entry->raw, guest, err);
        if (rc < 0)
            return rc;
    }
    for (uint64_t cluster = first; cluster < first + count; cluster++) {
        q2_bit_set(survey->sound, cluster);
        int rc = q2_survey_overlaps(survey, cluster)
                     ? contest(walk, cluster, guest >> geometry->cluster_bits,
                               (entry->raw & Q2_ENTRY_COMPRESSED) != 0, err)
                     : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int
compare_contested(const void *left, const void *right)
{
    const struct contested *a = left, *b = right;
    if (a->cluster != b->cluster)
        return a->cluster < b->cluster ? -1 : 1;
    return (a->guest > b->guest) - (a->guest < b->guest);
}

/* Several guest clusters may be packed into one, but then all are compressed. */
static void
mark_shared(struct entry_walk *walk)
{
    struct contested *all = walk->contested;
    if (walk->contested_count)
        qsort(all, walk->contested_count, sizeof *all, compare_contested);
    for (uint64_t i = 0, next; i < walk->contested_count; i = next) {
        bool packed = true;
        for (next = i; next < walk->contested_count && all[next].cluster == all[i].cluster; next++)
            packed = packed && all[next].compressed;
        if (!packed && all[next - 1].guest != all[i].guest)
            q2_bit_set(walk->survey->shared, all[i].cluster);
    }
}

int
q2_survey_mark_entries(struct q2_survey *survey, struct q2_error *err)
{
    struct entry_walk walk = {.survey = survey};
    int rc = walk_all(&walk, mark_entry, err);
    if (rc == 0)
        mark_shared(&walk);
    if (survey->stream_count)
        qsort(survey->streams, survey->stream_count, sizeof *survey->streams, compare_streams);
    q2_budget_free(&survey->scene->budget, walk.contested, walk.contested_capacity,
                   sizeof *walk.contested);
    return rc;
}

/* ---- the second walk ---- */

static unsigned
suspicion(const struct entry_walk *walk, const struct q2_l2_entry *entry, uint64_t guest)
{
    const struct q2_survey *survey = walk->survey;
    const struct q2_geometry *geometry = &survey->scene->check->geometry;
    uint64_t first, count;
    /* Software may leave counting for later, and mark the image as one that needs it. */
    bool lags = survey->scene->check->header.incompatible_features & Q2_INCOMPATIBLE_DIRTY;
    unsigned why = q2_survey_entry_faults(geometry, entry, guest);
    if (why || !q2_entry_clusters(geometry, entry->raw, &first, &count))
        return why;
    for (uint64_t cluster = first; cluster < first + count; cluster++) {
        if (q2_bit_test(survey->structures, cluster))
            why |= Q2_SUSPECT_METADATA;
        if (q2_bit_test(survey->shared, cluster))
            why |= Q2_SUSPECT_SHARED;
        if (survey->counts_help && !lags && cluster < survey->old_end &&
            !q2_bit_test(survey->counted, cluster))
            why |= Q2_SUSPECT_FREE;
    }
    return why;
}

static int
suspect_entry(struct entry_walk *walk, const struct q2_l2_entry *entry, uint64_t index,
              struct q2_error *err)
{
    const struct q2_geometry *geometry = &walk->survey->scene->check->geometry;
    uint64_t guest = guest_of(walk, index);
    const struct q2_suspect suspect = {
        .why = suspicion(walk, entry, guest),
        .map = walk->reference->map,
        .l1_index = walk->reference->slot,
        .l2_index = (uint32_t)index,
        .at = (walk->reference->table << geometry->cluster_bits) + index * geometry->l2_entry_size,
        .guest = guest,
        .entry = *entry,
    };
    return suspect.why ? q2_survey_suspect(walk->survey, &suspect, err) : 0;
}

int
q2_survey_suspect_entries(struct q2_survey *survey, struct q2_error *err)
{
    struct entry_walk walk = {.survey = survey};
    return walk_all(&walk, suspect_entry, err);
}

/* ---- what a cluster would be as a table ---- */

static void
look_at(struct q2_survey *survey, const struct q2_l2_entry *entry, uint64_t index,
        struct q2_table_look *look)
{
    const struct q2_geometry *geometry = &survey->scene->check->geometry;
    uint64_t first, count;
    /* Where the guest cluster is does not matter, except to a data file. */
    uint64_t guest = geometry->data_file ? q2_entry_offset(entry->raw) : 0;
    if (q2_survey_entry_faults(geometry, entry, guest)) {
        look->faults++;
        return;
    }
    if (geometry->data_file)
        look->mapped += q2_l2_kind(geometry, entry->raw) != Q2_CLUSTER_UNALLOCATED;
    if (!q2_entry_clusters(geometry, entry->raw, &first, &count))
        return;
    if (look->mapped++ == 0) {
        look->first = index;
        look->first_cluster = first;
    }
    look->last = index;
    look->last_cluster = first + count - 1;
    look->copied += (entry->raw & Q2_ENTRY_COPIED) != 0;
    look->lost += survey->settled && q2_survey_lost(survey, first);
}

int
q2_survey_look(struct q2_survey *survey, uint64_t offset, struct q2_table_look *ret_look,
               struct q2_error *err)
{
    const struct q2_check *check = survey->scene->check;
    const struct q2_geometry *geometry = &check->geometry;
    struct q2_table_look look = {0};
    void *memory;
    int rc = q2_budget_calloc(&survey->scene->budget, geometry->cluster_size, 1, "a table", &memory,
                              err);
    if (rc < 0)
        return rc;
    look.readable =
        q2_file_read_padded(check->file, offset, memory, geometry->cluster_size, NULL) == 0;
    for (uint64_t i = 0; look.readable && i < geometry->l2_entries; i++) {
        struct q2_l2_entry entry = q2_l2_load(geometry, memory, i);
        if (entry.raw || entry.bitmap)
            look_at(survey, &entry, i, &look);
    }
    q2_budget_free(&survey->scene->budget, memory, geometry->cluster_size, 1);
    *ret_look = look;
    return 0;
}

bool
q2_table_credible(const struct q2_table_look *look)
{
    return look->readable && look->mapped > 0 && look->faults * 4 <= look->mapped;
}
