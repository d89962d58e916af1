/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The survey goes from the top: structures of known place, L1 entries, and then twice over the
 * entries of all L2 tables. The first walk finds what sound pointers lead to, and so whether
 * refcounts can be believed; the second picks the suspects. Each table is read once in a walk,
 * however many maps share it. */

#include "repair/survey.h"

#include "checker/refcounts.h"
#include "core/base/checked.h"
#include "repair/survey_parts.h"

#include <stdlib.h>
#include <string.h>

enum {
    TABLE_PIECE = 4096,   /* bytes of a bitmap table that are read at once */
    MAX_WRONG_COUNTS = 2, /* of a refcount block, whatever it covers */
    CLUSTER_COST = 4,     /* steps that walks over all clusters take for each */
};

/* ---- memory ---- */

static int
new_set(struct q2_survey *survey, uint64_t **set, struct q2_error *err)
{
    void *memory;
    int rc = q2_budget_calloc(&survey->scene->budget, survey->clusters / 64 + 1, 8,
                              "the survey of clusters", &memory, err);
    if (rc == 0)
        *set = memory;
    return rc;
}

int
q2_survey_grow(struct q2_survey *survey, void *array, uint64_t count, uint64_t *capacity,
               size_t size, struct q2_error *err)
{
    if (count < *capacity)
        return 0;
    uint64_t larger = *capacity ? *capacity * 2 : 64;
    void *memory;
    memcpy(&memory, array, sizeof memory);
    int rc = q2_budget_grow(&survey->scene->budget, *capacity, larger, size,
                            "the survey of pointers", &memory, err);
    if (rc < 0)
        return rc;
    memcpy(array, &memory, sizeof memory);
    *capacity = larger;
    return 0;
}

void
q2_survey_free(struct q2_survey *survey)
{
    if (!survey)
        return;
    struct q2_budget *budget = &survey->scene->budget;
    uint64_t words = survey->clusters / 64 + 1;
    q2_budget_free(budget, survey->structures, words, 8);
    q2_budget_free(budget, survey->sound, words, 8);
    q2_budget_free(budget, survey->shared, words, 8);
    q2_budget_free(budget, survey->counted, words, 8);
    q2_budget_free(budget, survey->false_blocks, words, 8);
    q2_budget_free(budget, survey->counting, words, 8);
    q2_budget_free(budget, survey->stored, words, 8);
    q2_budget_free(budget, survey->references, survey->reference_capacity,
                   sizeof *survey->references);
    q2_budget_free(budget, survey->streams, survey->stream_capacity, sizeof *survey->streams);
    q2_budget_free(budget, survey->suspects, survey->suspect_capacity, sizeof *survey->suspects);
    free(survey);
}

/* ---- structures of known place ---- */

static void
mark_range(struct q2_survey *survey, uint64_t *set, uint64_t offset, uint64_t length)
{
    unsigned bits = survey->scene->check->geometry.cluster_bits;
    uint64_t end = q2_min(q2_units(offset + length, bits), survey->clusters);
    for (uint64_t cluster = offset >> bits; cluster < end; cluster++)
        q2_bit_set(set, cluster);
}

static void
mark_structure(struct q2_survey *survey, uint64_t offset, uint64_t length)
{
    mark_range(survey, survey->structures, offset, length);
    mark_range(survey, survey->sound, offset, length);
}

static int
mark_bitmap_data(struct q2_survey *survey, const struct q2_bitmap_table *table,
                 struct q2_error *err)
{
    const struct q2_check *check = survey->scene->check;
    uint8_t piece[TABLE_PIECE];
    for (uint64_t done = 0; done < table->entries;) {
        uint64_t count = q2_min(table->entries - done, sizeof piece / 8);
        int rc = q2_file_read_padded(check->file, table->offset + done * 8, piece, count * 8, err);
        if (rc == Q2_ERR_NOMEM)
            return rc;
        for (uint64_t i = 0; rc == 0 && i < count; i++) {
            uint64_t offset = q2_entry_offset(q2_load_be64(piece + i * 8));
            if (offset && q2_host_inside(&check->geometry, offset))
                mark_structure(survey, offset, 1);
        }
        done += count;
    }
    return 0;
}

/* Whether what a refcount block says can nearly all be true. What a lost table led to is counted
 * too high, and what a damaged pointer leads to as well too low. Refcounts can always be made anew,
 * so a block that is not one must cast no doubt on what else is in its place. */
static bool
is_credible_block(const struct q2_survey *survey, struct q2_refcount_reader *reader, uint64_t index)
{
    const struct q2_scene *scene = survey->scene;
    unsigned bits = scene->check->geometry.refcount_block_bits;
    uint64_t slack = scene->check->geometry.refcount_order < 3 ? 1 : 64;
    uint64_t first = index << bits, seen = 0, wrong = 0;
    if (first >= survey->clusters)
        return false;
    uint64_t end = q2_min(first + (UINT64_C(1) << bits), survey->clusters);
    for (uint64_t cluster = first; cluster < end; cluster++) {
        uint64_t count = q2_refcount_of(reader, cluster);
        uint64_t used = q2_scene_references(scene, cluster);
        seen += count || used;
        wrong += (used && !count) || count > used + slack;
    }
    return wrong <= q2_max(seen / 8, MAX_WRONG_COUNTS);
}

/* What a block that is none says is no evidence: clusters count as used, or may be lost. */
static void
disbelieve(struct q2_survey *survey, uint64_t index)
{
    unsigned bits = survey->scene->check->geometry.refcount_block_bits;
    uint64_t first = index << bits;
    if (first >= survey->clusters)
        return;
    q2_bit_set(survey->false_blocks, index);
    for (uint64_t i = first; i < first + (UINT64_C(1) << bits) && i < survey->clusters; i++) {
        survey->counted[i / 64] &= ~(UINT64_C(1) << i % 64);
        if (q2_scene_references(survey->scene, i))
            q2_bit_set(survey->counted, i);
    }
}

/* The refcount table and its blocks, whether they are sound or not, are nobody's data. Nor are they
 * once the repair has made others: what they held is still there. Of a table from before, which the
 * header may have named wrongly, only what leads to blocks. */
static void
mark_counting(struct q2_survey *survey, const struct q2_check *check)
{
    const struct q2_geometry *geometry = &survey->scene->check->geometry;
    if (!check || !(check->usable & Q2_USABLE_REFCOUNTS) ||
        check->geometry.cluster_bits != geometry->cluster_bits)
        return;
    uint64_t table = check->header.refcount_table_offset;
    for (uint64_t i = 0; i < check->refcount_entries; i++) {
        uint64_t block = q2_refcount_block(check, i);
        if (check == survey->scene->check || block > Q2_REFCOUNT_BLOCK_UNKNOWN)
            mark_range(survey, survey->counting, table + i * 8, 8);
        if (block > Q2_REFCOUNT_BLOCK_UNKNOWN)
            mark_range(survey, survey->counting, block, 1);
    }
}

static int
mark_refcounts(struct q2_survey *survey, struct q2_error *err)
{
    struct q2_check *check = survey->scene->check;
    struct q2_refcount_reader reader;
    int rc = q2_refcount_reader_init(&reader, check, err);
    if (rc < 0)
        return rc;
    for (uint64_t i = 0; i < check->refcount_entries; i++) {
        uint64_t block = q2_refcount_block(check, i);
        if (!is_credible_block(survey, &reader, i)) {
            disbelieve(survey, i);
            continue;
        }
        survey->counts_help = true;
        if (block > Q2_REFCOUNT_BLOCK_UNKNOWN)
            mark_structure(survey, block, 1);
    }
    q2_refcount_reader_destroy(&reader);
    /* A refcount table that leads to refcounts is one. */
    for (uint64_t i = 0; survey->counts_help && i < check->region_count; i++)
        if (check->regions[i].owner.kind == Q2_OWNER_REFCOUNT_TABLE)
            mark_structure(survey, check->regions[i].offset, check->regions[i].length);
    return 0;
}

static int
mark_structures(struct q2_survey *survey, struct q2_error *err)
{
    const struct q2_check *check = survey->scene->check;
    int rc = check->usable & Q2_USABLE_REFCOUNTS ? mark_refcounts(survey, err) : 0;
    mark_counting(survey, check);
    mark_counting(survey, survey->scene->before);
    mark_counting(survey, q2_scene_origin(survey->scene));
    for (uint64_t i = 0; i < check->region_count; i++)
        if (check->regions[i].owner.kind != Q2_OWNER_REFCOUNT_TABLE)
            mark_structure(survey, check->regions[i].offset, check->regions[i].length);
    for (uint64_t i = 0; i < check->bitmap_table_count && rc == 0; i++)
        rc = mark_bitmap_data(survey, &check->bitmap_tables[i], err);
    return rc;
}

static int
mark_counted(struct q2_survey *survey, struct q2_error *err)
{
    struct q2_check *check = survey->scene->check;
    if (!(check->usable & Q2_USABLE_REFCOUNTS))
        return 0;
    struct q2_refcount_reader reader;
    int rc = q2_refcount_reader_init(&reader, check, err);
    if (rc < 0)
        return rc;
    for (uint64_t cluster = 0; cluster < survey->clusters; cluster++)
        if (q2_refcount_of(&reader, cluster))
            q2_bit_set(survey->counted, cluster);
    q2_refcount_reader_destroy(&reader);
    return 0;
}

/* ---- all of it ---- */

static int
compare_suspects(const void *left, const void *right)
{
    const struct q2_suspect *a = left, *b = right;
    return (a->at > b->at) - (a->at < b->at);
}

/* Refcounts help if nearly all of what is in use is counted. */
static bool
counts_help(const struct q2_survey *survey)
{
    uint64_t sound = 0, counted = 0;
    for (uint64_t i = 0; i < survey->clusters / 64 + 1; i++) {
        sound += (uint64_t)__builtin_popcountll(survey->sound[i]);
        counted += (uint64_t)__builtin_popcountll(survey->sound[i] & survey->counted[i]);
    }
    return counted > 1 && counted >= sound - sound / 8;
}

/* What the file has no hole for; all of it, where that cannot be told. */
static int
mark_stored(struct q2_survey *survey, struct q2_error *err)
{
    const struct q2_check *check = survey->scene->check;
    uint64_t size = check->geometry.file_size;
    int rc = new_set(survey, &survey->stored, err);
    for (uint64_t offset = 0, end; rc == 0 && offset < size; offset = end) {
        bool data = true;
        if (q2_file_extent(check->file, offset, &data, &end, NULL) < 0 || end <= offset)
            end = size;
        if (data)
            mark_range(survey, survey->stored, offset, end - offset);
    }
    return rc;
}

/* Say what is lost, now that it is known what is sound. */
static int
settle(struct q2_survey *survey, struct q2_error *err)
{
    survey->counts_help &= (survey->scene->check->usable & Q2_USABLE_L1) && counts_help(survey);
    int rc = mark_stored(survey, err);
    survey->settled = rc == 0;
    return rc;
}

static int
run(struct q2_survey *survey, bool entries, struct q2_error *err)
{
    uint64_t **sets[] = {&survey->structures, &survey->sound,        &survey->shared,
                         &survey->counted,    &survey->false_blocks, &survey->counting};
    int rc = 0;
    for (size_t i = 0; i < sizeof sets / sizeof sets[0] && rc == 0; i++)
        rc = new_set(survey, sets[i], err);
    if (rc == 0)
        rc = mark_counted(survey, err);
    if (rc == 0)
        rc = mark_structures(survey, err);
    if (rc == 0 && !(survey->scene->check->usable & Q2_USABLE_L1))
        return settle(survey, err);
    for (uint64_t m = 0; m < survey->scene->check->map_count && rc == 0; m++)
        rc = q2_survey_read_l1(survey, (uint32_t)m, err);
    if (rc == 0)
        rc = q2_survey_judge_tables(survey, err);
    if (rc == 0)
        rc = q2_survey_mark_entries(survey, err);
    if (rc == 0)
        rc = settle(survey, err);
    if (rc == 0 && entries)
        rc = q2_survey_suspect_entries(survey, err);
    if (survey->suspect_count)
        qsort(survey->suspects, survey->suspect_count, sizeof *survey->suspects, compare_suspects);
    return rc;
}

/* Where the file ended before the first round, clusters; UINT64_MAX: this is the first, or clusters
 * were not known, or of another size. */
static uint64_t
find_old_end(const struct q2_scene *scene)
{
    const struct q2_check *origin = q2_scene_origin(scene);
    struct q2_geometry old;
    return origin && q2_check_geometry(origin, &old) &&
                   old.cluster_bits == scene->check->geometry.cluster_bits
               ? old.file_clusters
               : UINT64_MAX;
}

int
q2_survey_take(struct q2_scene *scene, bool entries, struct q2_survey **ret_survey,
               struct q2_error *err)
{
    q2_scene_work(scene, CLUSTER_COST * scene->check->geometry.file_clusters);
    if (q2_scene_exhausted(scene))
        return q2_error_set(err, Q2_ERR_BUDGET, "%s: looking for what is lost takes too long",
                            scene->base->name);
    struct q2_survey *survey = calloc(1, sizeof *survey);
    if (!survey)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a survey");
    survey->scene = scene;
    survey->clusters = scene->check->geometry.file_clusters;
    survey->old_end = find_old_end(scene);
    int rc = run(survey, entries, err);
    if (rc < 0) {
        q2_survey_free(survey);
        return rc;
    }
    *ret_survey = survey;
    return 0;
}

/* ---- asking it ---- */

static bool
is_believed(const struct q2_survey *survey, uint64_t cluster)
{
    uint64_t index = cluster >> survey->scene->check->geometry.refcount_block_bits;
    return cluster >= survey->clusters || !q2_bit_test(survey->false_blocks, index);
}

uint64_t
q2_survey_refcount(const struct q2_survey *survey, struct q2_refcount_reader *reader,
                   uint64_t cluster)
{
    return is_believed(survey, cluster) ? q2_refcount_of(reader, cluster)
                                        : q2_scene_references(survey->scene, cluster);
}

bool
q2_survey_lost(const struct q2_survey *survey, uint64_t cluster)
{
    if (cluster == 0 || cluster >= survey->clusters || q2_bit_test(survey->sound, cluster) ||
        q2_bit_test(survey->counting, cluster))
        return false;
    bool counts = survey->counts_help && is_believed(survey, cluster);
    return q2_bit_test(counts ? survey->counted : survey->stored, cluster);
}

uint64_t
q2_survey_first_reference(const struct q2_survey *survey, uint64_t table)
{
    uint64_t low = 0, high = survey->reference_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (survey->references[middle].table < table)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < survey->reference_count && survey->references[low].table == table;
    return found ? low : survey->reference_count;
}

void
q2_survey_change(struct q2_survey *survey, const struct q2_suspect *suspect,
                 enum q2_change_kind kind, uint64_t length)
{
    struct q2_plan *plan = &survey->scene->plan;
    if (suspect->is_l1) {
        q2_plan_change(plan, kind, suspect->map, suspect->guest, length);
        return;
    }
    uint64_t table = suspect->at >> survey->scene->check->geometry.cluster_bits;
    for (uint64_t i = q2_survey_first_reference(survey, table);
         i < survey->reference_count && survey->references[i].table == table; i++)
        if (survey->references[i].slot == suspect->l1_index)
            q2_plan_change(plan, kind, survey->references[i].map, suspect->guest, length);
}

unsigned
q2_pointer_distance(uint64_t raw, uint64_t offset, bool copied)
{
    uint64_t meant = offset | (copied ? Q2_ENTRY_COPIED : 0);
    return (unsigned)__builtin_popcountll(raw ^ meant);
}
