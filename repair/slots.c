/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/slots.h"

#include "core/base/checked.h"
#include "repair/cut_off.h"

#include <stdlib.h>

enum {
    MAX_BYTES = 48 << 20, /* of L1 tables that are held at once */
    PIECE = 4096,         /* entries that are read at once */
};

uint64_t
q2_slot_at(const struct q2_slots *slots, uint32_t map, uint64_t slot)
{
    return slots->scene->check->maps[map].l1_offset + slot * 8;
}

uint64_t
q2_slots_references(const struct q2_slots *slots, uint64_t cluster)
{
    const struct q2_survey *survey = slots->survey;
    if (cluster >= survey->clusters || !q2_bit_test(survey->sound, cluster))
        return 0;
    return q2_scene_references(slots->scene, cluster);
}

/* ---- states ---- */

/* Whether several slots lead to a table. */
static bool
has_two_slots(const struct q2_survey *survey, uint64_t table)
{
    uint64_t low = 0, high = survey->reference_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (survey->references[middle].table < table)
            low = middle + 1;
        else
            high = middle;
    }
    uint32_t slot = low < survey->reference_count ? survey->references[low].slot : 0;
    for (; low < survey->reference_count && survey->references[low].table == table; low++)
        if (survey->references[low].slot != slot)
            return true;
    return false;
}

/* Whether what shares a table with an entry is to blame, rather than the entry: it is no other
 * entry, and the table is one. */
static bool
is_victim(struct q2_survey *survey, const struct q2_suspect *suspect)
{
    struct q2_table_look look;
    uint64_t offset = q2_entry_offset(suspect->entry.raw);
    return suspect->why == Q2_SUSPECT_SHARED &&
           !has_two_slots(survey, offset >> survey->scene->check->geometry.cluster_bits) &&
           q2_survey_look(survey, offset, &look, NULL) == 0 && look.mapped > 0;
}

static bool
is_suspect(struct q2_survey *survey, uint64_t at)
{
    uint64_t low = 0, high = survey->suspect_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (survey->suspects[middle].at < at)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < survey->suspect_count && survey->suspects[low].at == at; low++)
        if (survey->suspects[low].is_l1 && !is_victim(survey, &survey->suspects[low]))
            return true;
    return false;
}

static enum q2_slot_state
judge(const struct q2_slots *slots, uint32_t map, uint64_t slot, uint64_t raw)
{
    const struct q2_geometry *geometry = &slots->scene->check->geometry;
    if (raw == 0)
        return Q2_SLOT_EMPTY;
    uint64_t cluster = q2_entry_offset(raw) >> geometry->cluster_bits;
    if (!(raw & q2_entry_odd_bits(geometry)) && cluster >= slots->survey->clusters &&
        q2_cut_entry(slots->scene, raw, true))
        return Q2_SLOT_CUT;
    if ((raw & q2_entry_odd_bits(geometry)) || cluster == 0 || cluster >= slots->survey->clusters ||
        !q2_bit_test(slots->survey->sound, cluster) ||
        is_suspect(slots->survey, q2_slot_at(slots, map, slot)))
        return Q2_SLOT_SUSPECT;
    return Q2_SLOT_SOUND;
}

/* ---- loading ---- */

static int
read_entries(struct q2_slots *slots, uint32_t map, struct q2_error *err)
{
    struct q2_slot_map *into = &slots->maps[map];
    uint8_t bytes[PIECE];
    for (uint64_t i = 0; i < into->size; i += PIECE / 8) {
        uint64_t count = q2_min(into->size - i, PIECE / 8);
        int rc = q2_file_read_padded(slots->scene->file, q2_slot_at(slots, map, i), bytes,
                                     count * 8, err);
        if (rc < 0)
            return rc;
        for (uint64_t j = 0; j < count; j++)
            into->raw[i + j] = q2_load_be64(bytes + j * 8);
    }
    return 0;
}

static void
forget_map(struct q2_slots *slots, uint32_t map)
{
    struct q2_slot_map *into = &slots->maps[map];
    q2_budget_free(&slots->scene->budget, into->raw, into->size, 8);
    q2_budget_free(&slots->scene->budget, into->state, into->size, 1);
    *into = (struct q2_slot_map){0};
}

static int
load_map(struct q2_slots *slots, uint32_t map, struct q2_error *err)
{
    struct q2_check *check = slots->scene->check;
    struct q2_slot_map *into = &slots->maps[map];
    uint64_t reach = q2_l2_reach(&check->geometry), limit = check->maps[map].limit;
    void *raw, *state;
    into->size = check->maps[map].l1_size;
    if (into->size == 0)
        return 0;
    int rc = q2_budget_calloc(&slots->scene->budget, into->size, 8, "L1 tables", &raw, err);
    if (rc < 0)
        return rc;
    into->raw = raw;
    rc = q2_budget_calloc(&slots->scene->budget, into->size, 1, "L1 tables", &state, err);
    if (rc < 0)
        return rc;
    into->state = state;
    /* A table of which a part cannot be read is left alone. */
    if (read_entries(slots, map, NULL) < 0) {
        forget_map(slots, map);
        return 0;
    }
    into->slots = q2_min(into->size, limit / reach + (limit % reach != 0));
    for (uint64_t i = 0; i < into->size; i++) {
        into->state[i] = (uint8_t)judge(slots, map, i, into->raw[i]);
        into->sound += into->state[i] == Q2_SLOT_SOUND;
    }
    return 0;
}

/* ---- owners ---- */

static int
compare_owners(const void *left, const void *right)
{
    const struct q2_slot_owner *a = left, *b = right;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    if (a->map != b->map)
        return a->map < b->map ? -1 : 1;
    return (a->slot > b->slot) - (a->slot < b->slot);
}

static int
find_owners(struct q2_slots *slots, struct q2_error *err)
{
    uint64_t count = 0, kept = 0;
    void *memory;
    for (uint64_t m = 0; m < slots->map_count; m++)
        count += slots->maps[m].sound;
    int rc = q2_budget_calloc(&slots->scene->budget, count, sizeof *slots->owners, "L2 tables",
                              &memory, err);
    if (rc < 0)
        return rc;
    slots->owners = memory;
    slots->owner_capacity = count;
    for (uint32_t m = 0; m < slots->map_count; m++)
        for (uint64_t i = 0; i < slots->maps[m].size; i++)
            if (slots->maps[m].state[i] == Q2_SLOT_SOUND)
                slots->owners[slots->owner_count++] =
                    (struct q2_slot_owner){.offset = q2_entry_offset(slots->maps[m].raw[i]),
                                           .map = m,
                                           .slot = (uint32_t)i};
    qsort(slots->owners, count, sizeof *slots->owners, compare_owners);
    for (uint64_t i = 0; i < count; i++)
        if (kept == 0 || slots->owners[i].offset != slots->owners[kept - 1].offset)
            slots->owners[kept++] = slots->owners[i];
    slots->owner_count = kept;
    return 0;
}

const struct q2_slot_owner *
q2_slots_owner(const struct q2_slots *slots, uint64_t offset)
{
    uint64_t low = 0, high = slots->owner_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (slots->owners[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < slots->owner_count && slots->owners[low].offset == offset;
    return found ? &slots->owners[low] : NULL;
}

/* ---- the whole ---- */

static int
load(struct q2_slots *slots, struct q2_error *err)
{
    struct q2_check *check = slots->scene->check;
    uint64_t bytes = 0;
    void *memory;
    int rc = q2_refcount_reader_init(&slots->reader, check, err);
    if (rc < 0)
        return rc;
    rc = q2_budget_calloc(&slots->scene->budget, check->map_count, sizeof *slots->maps, "L1 tables",
                          &memory, err);
    if (rc < 0)
        return rc;
    slots->maps = memory;
    slots->map_count = check->map_count;
    for (uint32_t m = 0; m < slots->map_count && rc == 0; m++) {
        bytes += (uint64_t)check->maps[m].l1_size * 9;
        if (bytes <= MAX_BYTES)
            rc = load_map(slots, m, err);
    }
    return rc == 0 ? find_owners(slots, err) : rc;
}

int
q2_slots_load(struct q2_survey *survey, struct q2_slots **ret_slots, struct q2_error *err)
{
    struct q2_slots *slots = calloc(1, sizeof *slots);
    if (!slots)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for L1 tables");
    slots->survey = survey;
    slots->scene = survey->scene;
    int rc = load(slots, err);
    if (rc < 0) {
        q2_slots_free(slots);
        return rc;
    }
    *ret_slots = slots;
    return 0;
}

void
q2_slots_free(struct q2_slots *slots)
{
    if (!slots)
        return;
    for (uint32_t m = 0; m < slots->map_count; m++)
        forget_map(slots, m);
    struct q2_budget *budget = &slots->scene->budget;
    q2_budget_free(budget, slots->maps, slots->map_count, sizeof *slots->maps);
    q2_budget_free(budget, slots->owners, slots->owner_capacity, sizeof *slots->owners);
    q2_refcount_reader_destroy(&slots->reader);
    free(slots);
}
