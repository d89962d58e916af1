/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* References that refcounts say are missing: a table in place is counted once more than it is
 * referred to, and so is all that it maps, and another map has nothing in that slot, or nonsense.
 *
 * A snapshot that was made before the table came into being has nothing there either, and rightly
 * so: what is missing is missing from the youngest maps first. And an L1 table that a crash or a
 * deleted snapshot left behind accounts for missing references too. */

#include "core/base/checked.h"
#include "repair/place.h"

/* How a slot's table spreads over the maps. */
struct spread {
    uint64_t table;   /* host offset, bytes */
    uint64_t oldest;  /* age of the first map that has it */
    uint64_t broken;  /* maps that have there what cannot be right */
    uint64_t younger; /* of the others, those after that with nothing there */
    uint64_t older;   /* and before */
};

/* The position of a map in time: snapshots are listed in the order in which they were made. */
static uint64_t
age(uint32_t map)
{
    return map == 0 ? UINT64_MAX : map;
}

/* The maps from the youngest to the oldest. */
static uint32_t
by_age(const struct q2_slots *slots, uint32_t turn)
{
    return turn == 0 ? 0 : (uint32_t)slots->map_count - turn;
}

static bool
has_table(const struct q2_slot_map *map, uint64_t slot, uint64_t table)
{
    return map->raw && slot < map->size && map->state[slot] == Q2_SLOT_SOUND &&
           q2_entry_offset(map->raw[slot]) == table;
}

/* Whether a lost table shares data with those that other maps have in this slot, and so may be what
 * this map had there: a copy that was made when the map was written to. */
static bool
is_claimed(const struct q2_placing *placing, uint32_t map, uint64_t slot)
{
    const struct q2_carving *carving = placing->carving;
    for (uint64_t i = 0; i < carving->count; i++) {
        const struct q2_carved *table = &carving->tables[i];
        if (table->home == slot && table->like_l2 && !table->is_l1 && !table->is_data &&
            !table->placed && q2_table_flags_fit(placing, table, map) &&
            q2_table_fits(placing, &table->facts, map, slot))
            return true;
    }
    return false;
}

/* Whether a damaged entry leads to what looks like the table that it should lead to, and no entry
 * of another slot does: what else has that cluster may be what is wrong. */
static bool
is_disputed(const struct q2_placing *placing, uint32_t map, uint64_t slot)
{
    const struct q2_survey *survey = placing->slots->survey;
    const struct q2_geometry *geometry = &survey->scene->check->geometry;
    uint64_t raw = placing->slots->maps[map].raw[slot];
    uint64_t table = q2_entry_offset(raw) >> geometry->cluster_bits;
    struct q2_table_facts facts;
    if (table == 0 || table >= survey->clusters || (raw & q2_entry_odd_bits(geometry)))
        return false;
    for (uint64_t i = q2_survey_first_reference(survey, table);
         i < survey->reference_count && survey->references[i].table == table; i++)
        if (survey->references[i].slot != slot)
            return false;
    return q2_table_facts(placing->carving, table << geometry->cluster_bits, &facts, NULL) == 0 &&
           facts.look.readable && facts.tables == 0 && q2_table_credible(&facts.look);
}

static bool
is_broken(const struct q2_placing *placing, uint32_t map, uint64_t slot)
{
    return placing->slots->maps[map].state[slot] == Q2_SLOT_SUSPECT;
}

static bool
is_open(const struct q2_placing *placing, uint32_t map, uint64_t slot)
{
    return q2_slot_open(&placing->slots->maps[map], slot) && !is_claimed(placing, map, slot) &&
           !(is_broken(placing, map, slot) && is_disputed(placing, map, slot));
}

static struct spread
spread_of(const struct q2_placing *placing, uint64_t slot, uint64_t table)
{
    const struct q2_slots *slots = placing->slots;
    struct spread spread = {.table = table, .oldest = UINT64_MAX};
    for (uint32_t m = 0; m < slots->map_count; m++)
        if (has_table(&slots->maps[m], slot, table))
            spread.oldest = q2_min(spread.oldest, age(m));
    for (uint32_t m = 0; m < slots->map_count; m++) {
        if (!is_open(placing, m, slot))
            continue;
        bool broken = is_broken(placing, m, slot);
        spread.broken += broken;
        spread.younger += !broken && age(m) > spread.oldest;
        spread.older += !broken && age(m) < spread.oldest;
    }
    return spread;
}

/* Whether an L1 table that was found leads to a table from this slot. */
static bool
is_explained(const struct q2_carving *carving, uint64_t slot, uint64_t table)
{
    struct q2_check *check = carving->slots->scene->check;
    uint8_t bytes[8];
    for (uint64_t i = 0; i < carving->count; i++)
        if (carving->tables[i].is_l1 &&
            q2_file_read_padded(check->file, carving->tables[i].offset + slot * 8, bytes,
                                sizeof bytes, NULL) == 0 &&
            q2_entry_offset(q2_load_be64(bytes)) == table)
            return true;
    return false;
}

/* Whether all refcounts are in one block, and so of one moment. */
static bool
has_one_block(const struct q2_check *check)
{
    uint64_t blocks = 0;
    for (uint64_t i = 0; i < check->refcount_entries && blocks < 2; i++)
        blocks += q2_refcount_block(check, i) != 0;
    return blocks == 1;
}

static enum q2_confidence
trust(const struct q2_placing *placing, const struct spread *spread, uint64_t missing,
      const struct q2_table_facts *facts)
{
    if (spread->younger + spread->broken > missing)
        return Q2_GUESS;
    if (facts->room < facts->look.mapped)
        return Q2_LIKELY;
    /* What is broken was not empty. */
    if (spread->broken)
        return spread->younger + spread->broken == missing ? Q2_CERTAIN : Q2_LIKELY;
    if (placing->twin)
        return Q2_LIKELY;
    /* What was there once stays, so that older maps lost it only after all younger ones have it. */
    bool counted = has_one_block(placing->slots->scene->check);
    return spread->younger == missing || counted ? Q2_CERTAIN : Q2_LIKELY;
}

/* Give the table to the maps that have nonsense instead, and then to the youngest that lack it. */
static int
place_in_all(struct q2_placing *placing, const struct spread *spread, uint64_t slot,
             uint64_t missing, struct q2_error *err)
{
    struct q2_slots *slots = placing->slots;
    struct q2_table_facts facts;
    int rc = q2_table_facts(placing->carving, spread->table, &facts, err);
    if (rc < 0)
        return rc;
    enum q2_confidence confidence = trust(placing, spread, missing, &facts);
    for (uint32_t turn = 0; turn < slots->map_count * 2 && missing && rc == 0; turn++) {
        uint32_t m = by_age(slots, turn % (uint32_t)slots->map_count);
        bool broken = turn < slots->map_count;
        if (!is_open(placing, m, slot) || is_broken(placing, m, slot) != broken)
            continue;
        missing--;
        if (!q2_table_fits(placing, &facts, m, slot))
            continue;
        const struct q2_placement placement = {
            .map = m,
            .slot = slot,
            .table = spread->table,
            .confidence = confidence,
            .why = "another map has it in this slot, and refcounts count one reference more"};
        rc = q2_place(placing, &placement, err);
    }
    return rc;
}

/* References that a table gets by what has been placed: each explains one that it is missing. */
static uint64_t
placed(const struct q2_placing *placing, uint64_t table)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < placing->count; i++)
        count += placing->items[i].table == table;
    return count;
}

static int
look_at_slot(struct q2_placing *placing, uint64_t slot, struct q2_error *err)
{
    struct q2_slots *slots = placing->slots;
    unsigned bits = slots->scene->check->geometry.cluster_bits;
    uint64_t done = 0;
    for (uint32_t m = 0; m < slots->map_count; m++) {
        const struct q2_slot_map *map = &slots->maps[m];
        if (!map->raw || slot >= map->size || map->state[slot] != Q2_SLOT_SOUND)
            continue;
        uint64_t table = q2_entry_offset(map->raw[slot]);
        uint64_t refcount = q2_survey_refcount(slots->survey, &slots->reader, table >> bits);
        uint64_t references = q2_slots_references(slots, table >> bits) + placed(placing, table);
        if (table == done || refcount <= references ||
            !q2_placing_spend(placing, slots->map_count * 3 * (placing->carving->count + 1) +
                                           placing->carving->count + placing->count))
            continue;
        done = table;
        struct spread spread = spread_of(placing, slot, table);
        if (spread.younger + spread.older + spread.broken == 0 ||
            is_explained(placing->carving, slot, table))
            continue;
        int rc = place_in_all(placing, &spread, slot, refcount - references, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int
q2_place_missing(struct q2_placing *placing, struct q2_error *err)
{
    struct q2_slots *slots = placing->slots;
    uint64_t most = 0;
    int rc = 0;
    if (!slots->survey->counts_help || slots->map_count < 2)
        return 0;
    for (uint32_t m = 0; m < slots->map_count; m++)
        most = q2_max(most, slots->maps[m].slots);
    for (uint64_t slot = 0; slot < most && rc == 0; slot++) {
        bool open = false;
        for (uint32_t m = 0; m < slots->map_count && !open; m++)
            open = q2_slot_open(&slots->maps[m], slot);
        if (open)
            rc = look_at_slot(placing, slot, err);
    }
    return rc;
}
