/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/l1_find.h"

#include "core/base/checked.h"

enum { PIECE = 4096 };

static void
look_at_entry(struct q2_carving *carving, uint64_t raw, struct q2_l1_look *look)
{
    const struct q2_geometry *geometry = &carving->slots->scene->check->geometry;
    uint64_t offset = q2_entry_offset(raw);
    const struct q2_carved *table = q2_carved_at(carving, offset);
    bool lost = table && table->like_l2 && !table->is_l1;
    if (raw == 0)
        return;
    if ((raw & q2_entry_odd_bits(geometry)) || !(lost || q2_slots_owner(carving->slots, offset))) {
        look->astray++;
        return;
    }
    look->leads++;
    look->lost += lost;
    look->copied += (raw & Q2_ENTRY_COPIED) != 0;
}

void
q2_l1_look(struct q2_carving *carving, uint64_t offset, uint64_t entries,
           struct q2_l1_look *ret_look)
{
    struct q2_l1_look look = {0};
    uint8_t piece[PIECE];
    for (uint64_t i = 0; i < entries; i += PIECE / 8) {
        uint64_t count = q2_min(entries - i, PIECE / 8);
        if (q2_file_read_padded(carving->slots->scene->file, offset + i * 8, piece, count * 8,
                                NULL) < 0) {
            look.astray += count;
            continue;
        }
        for (uint64_t k = 0; k < count; k++)
            look_at_entry(carving, q2_load_be64(piece + k * 8), &look);
    }
    *ret_look = look;
}

bool
q2_l1_is_lost(struct q2_carving *carving, uint64_t offset, uint64_t entries)
{
    const struct q2_geometry *geometry = &carving->slots->scene->check->geometry;
    uint64_t first = offset >> geometry->cluster_bits;
    uint64_t count = q2_units(entries * 8, geometry->cluster_bits);
    if (offset == 0 || (offset & (geometry->cluster_size - 1)) ||
        !q2_range_inside(first, count, geometry->file_clusters))
        return false;
    for (uint64_t i = 0; i < count; i++)
        if (!q2_survey_lost(carving->slots->survey, first + i))
            return false;
    return true;
}

bool
q2_l1_credible(const struct q2_l1_look *look)
{
    return look->leads > 0 && look->astray * 4 <= look->leads;
}

static bool
is_l1(struct q2_carving *carving, uint64_t offset, uint64_t entries, struct q2_l1_look *ret_look)
{
    if (!q2_l1_is_lost(carving, offset, entries))
        return false;
    q2_l1_look(carving, offset, entries, ret_look);
    return q2_l1_credible(ret_look);
}

void
q2_l1_near(struct q2_carving *carving, uint64_t wrong, uint64_t entries, uint64_t *ret_offset)
{
    uint64_t found = 0, count = 0;
    struct q2_l1_look look;
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t offset = wrong ^ UINT64_C(1) << bit;
        if (!is_l1(carving, offset, entries, &look))
            continue;
        found = offset;
        count++;
    }
    *ret_offset = count == 1 ? found : 0;
}

void
q2_l1_best(struct q2_carving *carving, uint64_t entries, bool active, uint64_t *ret_offset,
           uint64_t *ret_count)
{
    uint64_t best = 0, offset = 0, count = 0;
    for (uint64_t i = 0; i < carving->count; i++) {
        struct q2_l1_look look;
        if (!carving->tables[i].is_l1 || !is_l1(carving, carving->tables[i].offset, entries, &look))
            continue;
        uint64_t worth = look.leads + (active ? look.copied : 0);
        count++;
        if (worth <= best)
            continue;
        best = worth;
        offset = carving->tables[i].offset;
    }
    *ret_offset = offset;
    *ret_count = count;
}
