/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/place.h"

#include "core/base/checked.h"

enum {
    MAX_GAP = 4,         /* clusters between two runs: a table, and refcount blocks */
    MAX_TURNS = 1 << 28, /* of all loops together */
};

static bool
has_twin(const struct q2_slots *slots)
{
    const struct q2_slot_map *active = &slots->maps[0];
    for (uint32_t m = 1; m < slots->map_count; m++) {
        const struct q2_slot_map *map = &slots->maps[m];
        bool same = active->raw && map->raw && map->sound > 0;
        for (uint64_t s = 0; same && s < q2_min(active->size, map->size); s++)
            same = q2_entry_offset(active->raw[s]) == q2_entry_offset(map->raw[s]);
        if (same)
            return true;
    }
    return false;
}

void
q2_placing_init(struct q2_placing *placing, struct q2_carving *carving)
{
    *placing = (struct q2_placing){.slots = carving->slots,
                                   .carving = carving,
                                   .turns = MAX_TURNS,
                                   .twin = has_twin(carving->slots)};
}

void
q2_placing_destroy(struct q2_placing *placing)
{
    q2_budget_free(&placing->slots->scene->budget, placing->items, placing->capacity,
                   sizeof *placing->items);
    placing->items = NULL;
}

int
q2_place(struct q2_placing *placing, const struct q2_placement *placement, struct q2_error *err)
{
    struct q2_slot_map *map = &placing->slots->maps[placement->map];
    if (placing->count == placing->capacity) {
        uint64_t larger = placing->capacity ? placing->capacity * 2 : 16;
        void *memory = placing->items;
        int rc = q2_budget_grow(&placing->slots->scene->budget, placing->capacity, larger,
                                sizeof *placing->items, "places of tables", &memory, err);
        if (rc < 0)
            return rc;
        placing->items = memory;
        placing->capacity = larger;
    }
    placing->items[placing->count] = *placement;
    placing->items[placing->count++].before = map->raw[placement->slot];
    map->raw[placement->slot] = placement->table;
    map->state[placement->slot] = Q2_SLOT_PLACED;
    if (placement->found)
        placement->found->placed = true;
    return 0;
}

/* ---- what goes where ---- */

bool
q2_table_fits(const struct q2_placing *placing, const struct q2_table_facts *facts, uint32_t map,
              uint64_t slot)
{
    const struct q2_check *check = placing->slots->scene->check;
    const struct q2_geometry *geometry = &check->geometry;
    uint64_t end;
    if (slot >= placing->slots->maps[map].slots)
        return false;
    if (!q2_mul(slot, q2_l2_reach(geometry), &end) || facts->used == 0 ||
        !q2_add(end, (facts->used - 1) << geometry->cluster_bits, &end))
        return false;
    return end < check->maps[map].limit;
}

bool
q2_table_flags_fit(const struct q2_placing *placing, const struct q2_carved *table, uint32_t map)
{
    const struct q2_table_facts *facts = &table->facts;
    if (placing->slots->scene->check->geometry.data_file)
        return true;
    if (!placing->slots->survey->counts_help)
        return map == 0 || facts->look.copied == 0;
    if (map == 0)
        return facts->own == 0 || facts->own_copied * 2 >= facts->own;
    return facts->own_copied == 0;
}

static bool
is_refcount_block(const struct q2_check *check, uint64_t cluster)
{
    uint64_t offset = cluster << check->geometry.cluster_bits;
    for (uint64_t i = 0; i < check->refcount_entries; i++)
        if (q2_refcount_block(check, i) == offset)
            return true;
    return false;
}

bool
q2_tables_follow(const struct q2_placing *placing, const struct q2_table_facts *left,
                 uint64_t right_offset, const struct q2_table_facts *right, bool *ret_strong)
{
    const struct q2_check *check = placing->slots->scene->check;
    uint64_t last = left->look.last_cluster, first = right->look.first_cluster;
    uint64_t table = right_offset >> check->geometry.cluster_bits;
    if (left->look.mapped == 0 || right->look.mapped == 0 || check->geometry.data_file ||
        left->look.last != check->geometry.l2_entries - 1 || right->look.first != 0 ||
        first < last || first - last > MAX_GAP)
        return false;
    for (uint64_t between = last + 1; between < first; between++)
        if (between != table && !is_refcount_block(check, between))
            return false;
    *ret_strong = left->tail > 1 && right->head > 1;
    return true;
}

/* ---- the neighbours of a slot ---- */

static uint64_t
sound_table(const struct q2_slot_map *map, uint64_t slot)
{
    bool has = slot < map->size &&
               (map->state[slot] == Q2_SLOT_SOUND || map->state[slot] == Q2_SLOT_PLACED);
    return has ? q2_entry_offset(map->raw[slot]) : 0;
}

int
q2_place_score(struct q2_placing *placing, uint64_t offset, const struct q2_table_facts *facts,
               uint32_t map, uint64_t slot, int *ret_score, struct q2_error *err)
{
    const struct q2_slot_map *slots = &placing->slots->maps[map];
    uint64_t before = slot ? sound_table(slots, slot - 1) : 0;
    uint64_t behind = sound_table(slots, slot + 1);
    struct q2_table_facts other;
    int score = (before || behind) && (!before || before < offset) && (!behind || offset < behind);
    bool strong;
    if (before) {
        int rc = q2_table_facts(placing->carving, before, &other, err);
        if (rc < 0)
            return rc;
        if (q2_tables_follow(placing, &other, offset, facts, &strong))
            score += strong ? 4 : 2;
    }
    if (behind) {
        int rc = q2_table_facts(placing->carving, behind, &other, err);
        if (rc < 0)
            return rc;
        if (q2_tables_follow(placing, facts, behind, &other, &strong))
            score += strong ? 4 : 2;
    }
    *ret_score = score;
    return 0;
}
