/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* L1 entries in the survey: which lead to tables, which of those that lead to the same one are
 * right, and which are suspects. */

#include "repair/survey.h"

#include "core/base/checked.h"
#include "repair/survey_parts.h"

#include <stdlib.h>
#include <string.h>

enum {
    L1_PIECE = 4096, /* bytes of an L1 table that are read at once */
    MAX_REFERENCES = 1 << 24,
    SECTOR = 512,
};

static void
note_fault(void *data, const struct q2_violation *violation)
{
    unsigned *why = data;
    bool past_end = violation->problem == Q2_PROBLEM_L1_ENTRY_PAST_END;
    *why |= past_end ? Q2_SUSPECT_PAST_END : Q2_SUSPECT_RULE;
}

static int
suspect_reference(struct q2_survey *survey, struct q2_table_reference *reference, unsigned why,
                  struct q2_error *err)
{
    reference->suspect = true;
    const struct q2_suspect suspect = {
        .why = why,
        .is_l1 = true,
        .map = reference->map,
        .l1_index = reference->slot,
        .at = reference->at,
        .guest = reference->slot * q2_l2_reach(&survey->scene->check->geometry),
        .entry = {.raw = reference->raw},
    };
    return q2_survey_suspect(survey, &suspect, err);
}

static int
add_l1_entry(struct q2_survey *survey, const struct q2_table_reference *entry, struct q2_error *err)
{
    const struct q2_geometry *geometry = &survey->scene->check->geometry;
    unsigned why = 0;
    const struct q2_sink sink = {.report = note_fault, .data = &why};
    bool leads = q2_l1_entry_validate(geometry, entry->raw, entry->at, &sink);
    struct q2_table_reference reference = *entry;
    if (why || !leads)
        return why ? suspect_reference(survey, &reference, why, err) : 0;
    if (survey->reference_count >= MAX_REFERENCES)
        return q2_error_set(err, Q2_ERR_BUDGET, "%s: more than %d L2 tables to survey",
                            survey->scene->base->name, MAX_REFERENCES);
    int rc = q2_survey_grow(survey, &survey->references, survey->reference_count,
                            &survey->reference_capacity, sizeof reference, err);
    if (rc < 0)
        return rc;
    reference.table = q2_entry_offset(entry->raw) >> geometry->cluster_bits;
    survey->references[survey->reference_count++] = reference;
    return 0;
}

int
q2_survey_read_l1(struct q2_survey *survey, uint32_t number, struct q2_error *err)
{
    const struct q2_check *check = survey->scene->check;
    const struct q2_map *map = &check->maps[number];
    uint8_t piece[L1_PIECE];
    for (uint64_t done = 0; done < map->l1_size;) {
        uint64_t count = q2_min(map->l1_size - done, sizeof piece / 8);
        uint64_t at = map->l1_offset + done * 8;
        if (q2_file_read_padded(check->file, at, piece, count * 8, NULL) < 0)
            memset(piece, 0, sizeof piece);
        for (uint64_t i = 0; i < count; i++) {
            const struct q2_table_reference entry = {.at = at + i * 8,
                                                     .raw = q2_load_be64(piece + i * 8),
                                                     .map = number,
                                                     .slot = (uint32_t)(done + i)};
            int rc = entry.raw ? add_l1_entry(survey, &entry, err) : 0;
            if (rc < 0)
                return rc;
        }
        done += count;
    }
    return 0;
}

static int
compare_references(const void *left, const void *right)
{
    const struct q2_table_reference *a = left, *b = right;
    if (a->table != b->table)
        return a->table < b->table ? -1 : 1;
    if (a->slot != b->slot)
        return a->slot < b->slot ? -1 : 1;
    return (a->map > b->map) - (a->map < b->map);
}

/* What is wrong with the references to one table, if anything. */
static int
judge_table(struct q2_survey *survey, const struct q2_table_reference *first, uint64_t count,
            unsigned *ret_why, struct q2_error *err)
{
    const struct q2_scene *scene = survey->scene;
    struct q2_table_look look;
    unsigned why = 0;
    int rc =
        q2_survey_look(survey, first->table << scene->check->geometry.cluster_bits, &look, err);
    if (rc < 0)
        return rc;
    if (q2_bit_test(survey->structures, first->table))
        why |= Q2_SUSPECT_METADATA;
    /* A sector of garbage in it, or one entry in an empty one, is no reason to give it up. */
    if (!look.readable || look.faults > (look.mapped ? look.mapped * 8 + SECTOR / 8 : 2))
        why |= Q2_SUSPECT_TARGET;
    if (first[count - 1].slot != first->slot || q2_survey_overlaps(survey, first->table))
        why |= Q2_SUSPECT_SHARED;
    *ret_why = why;
    return 0;
}

int
q2_survey_judge_tables(struct q2_survey *survey, struct q2_error *err)
{
    struct q2_table_reference *all = survey->references;
    if (survey->reference_count)
        qsort(all, survey->reference_count, sizeof *all, compare_references);
    for (uint64_t i = 0, next; i < survey->reference_count; i = next) {
        unsigned why = 0;
        for (next = i + 1; next < survey->reference_count && all[next].table == all[i].table;)
            next++;
        int rc = judge_table(survey, &all[i], next - i, &why, err);
        for (uint64_t k = i; rc == 0 && why && k < next; k++)
            rc = suspect_reference(survey, &all[k], why, err);
        if (rc < 0)
            return rc;
        /* A table that is shared is one all the same: what it maps is not lost. */
        if (why & ~(unsigned)Q2_SUSPECT_SHARED)
            continue;
        for (uint64_t k = i; k < next; k++)
            all[k].suspect = false;
        q2_bit_set(survey->structures, all[i].table);
        q2_bit_set(survey->sound, all[i].table);
    }
    return 0;
}
