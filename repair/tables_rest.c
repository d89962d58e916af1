/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What is left once lost tables are back in their places: an L1 table that is somewhere else, L1
 * entries that share a table, and such that lead nowhere. */

#include "core/base/checked.h"
#include "repair/l1_find.h"
#include "repair/tables_parts.h"
#include "repair/zero_entries.h"

#include <inttypes.h>
#include <string.h>

enum {
    MAX_COPIED = 16 << 20, /* bytes of L2 tables that are copied in any case */
    COPIED_SHARE = 4,      /* and otherwise this part of the file */
};

/* ---- the active L1 table ---- */

static bool
is_elsewhere(const struct q2_tables *tables)
{
    const struct q2_check *check = tables->scene->check;
    if (!(check->usable & Q2_USABLE_L1) || tables->slots->map_count == 0 ||
        tables->slots->maps[0].sound == 0)
        return true;
    for (uint64_t m = 1; m < check->map_count; m++)
        if (check->maps[m].l1_size && check->maps[m].l1_offset == check->maps[0].l1_offset)
            return true;
    return false;
}

static int
restore(struct q2_tables *tables, uint64_t offset, enum q2_confidence confidence, const char *why,
        struct q2_error *err)
{
    struct q2_scene *scene = tables->scene;
    const struct q2_header *header = &scene->check->header;
    struct q2_header_field field;
    int rc = 0;
    if (!q2_header_field("l1_table_offset", &field))
        return 0;
    if (q2_plan_begin(&scene->plan, Q2_ACTION_RESTORE_L1_TABLE, confidence, field.offset,
                      "l1_table_offset is 0x%" PRIx64
                      ", where there is no L1 table; the one at 0x%" PRIx64 " is lost, and %s",
                      header->l1_table_offset, offset, why))
        rc = q2_scene_write64(scene, Q2_OWNER_HEADER, field.offset, offset, err);
    else
        scene->keep_all = true;
    q2_plan_answer(&scene->plan, Q2_PROBLEM_HEADER_L1_UNALIGNED, field.offset, 1);
    q2_plan_answer(&scene->plan, Q2_PROBLEM_HEADER_L1_PAST_END, field.offset, 1);
    q2_plan_answer(&scene->plan, Q2_PROBLEM_ORPHAN_L1_TABLE, offset, 1);
    q2_plan_change(&scene->plan, Q2_CHANGE_RECOVERED, 0, 0, header->size);
    q2_plan_end(&scene->plan);
    return rc;
}

int
q2_tables_restore_l1(struct q2_tables *tables, struct q2_error *err)
{
    const struct q2_header *header = &tables->scene->check->header;
    uint64_t entries = header->l1_size, near, best, count;
    if (entries == 0 || entries * 8 > Q2_MAX_L1_BYTES || !is_elsewhere(tables))
        return 0;
    q2_l1_near(tables->carving, header->l1_table_offset, entries, &near);
    if (near)
        return restore(tables, near, Q2_CERTAIN, "one bit of its offset differs", err);
    q2_l1_best(tables->carving, entries, true, &best, &count);
    if (!best)
        return 0;
    return restore(tables, best, count == 1 ? Q2_LIKELY : Q2_GUESS,
                   count == 1 ? "there is no other" : "it leads to more tables than others", err);
}

/* ---- entries that share a table ---- */

static bool
is_unexplained(const struct q2_tables *tables, const struct q2_suspect *suspect)
{
    const struct q2_slot_map *map = suspect->is_l1 ? &tables->slots->maps[suspect->map] : NULL;
    return map && map->raw && suspect->l1_index < map->size &&
           (map->state[suspect->l1_index] == Q2_SLOT_SUSPECT ||
            map->state[suspect->l1_index] == Q2_SLOT_CUT);
}

/* Whether an entry is the one of those that share its table which keeps it: the first, or the one
 * that no lost table explains. */
static bool
keeps(const struct q2_tables *tables, const struct q2_suspect *suspect)
{
    bool first = true, keeps = true;
    for (uint64_t i = 0; i < tables->survey->suspect_count; i++) {
        const struct q2_suspect *other = &tables->survey->suspects[i];
        if (other == suspect) {
            first = false;
            continue;
        }
        if (!other->is_l1 || other->l1_index == suspect->l1_index ||
            q2_entry_offset(other->entry.raw) != q2_entry_offset(suspect->entry.raw))
            continue;
        if (!is_unexplained(tables, other))
            return true;
        keeps = keeps && !first;
    }
    return keeps;
}

static int
copy_table(struct q2_tables *tables, const struct q2_suspect *suspect, struct q2_error *err)
{
    struct q2_scene *scene = tables->scene;
    uint64_t size = scene->check->geometry.cluster_size, copy;
    uint64_t table = q2_entry_offset(suspect->entry.raw);
    int rc = q2_file_read_padded(scene->file, table, tables->carving->buffer, size, NULL);
    if (rc < 0 || (rc = q2_scene_allocate(scene, 1, &copy, err)) < 0)
        return rc == Q2_ERR_NOSPACE || rc == Q2_ERR_IO ? 0 : rc;
    rc = q2_scene_write(scene, Q2_OWNER_L2_TABLE, copy, tables->carving->buffer, size, err);
    if (rc < 0)
        return rc;
    return q2_scene_write64(scene, Q2_OWNER_L1_TABLE, suspect->at,
                            copy | (suspect->map == 0 ? Q2_ENTRY_COPIED : 0), err);
}

/* Whether an entry of 0 would not read as zeros: the old data of a backing file would show. */
static bool
lies_over_backing(const struct q2_tables *tables, const struct q2_suspect *suspect)
{
    const struct q2_check *check = tables->scene->check;
    return q2_empty_entries_show(check) && suspect->guest < check->maps[suspect->map].limit;
}

/* Whether those that share tables are so many that it is no accident: each copy brings one of
 * everything that the table leads to, and a repair must not grow an image at will. So are those
 * that need a table to hide a backing file. */
static bool
are_too_many(const struct q2_tables *tables)
{
    const struct q2_geometry *geometry = &tables->scene->check->geometry;
    uint64_t room = q2_max(MAX_COPIED, geometry->file_size / COPIED_SHARE), needed = 0;
    for (uint64_t i = 0; i < tables->survey->suspect_count; i++) {
        const struct q2_suspect *suspect = &tables->survey->suspects[i];
        needed += is_unexplained(tables, suspect) &&
                  (suspect->why == Q2_SUSPECT_SHARED || lies_over_backing(tables, suspect));
    }
    return needed > room >> geometry->cluster_bits;
}

static int
share_out(struct q2_tables *tables, const struct q2_suspect *suspect, struct q2_error *err)
{
    struct q2_plan *plan = &tables->scene->plan;
    uint64_t table = q2_entry_offset(suspect->entry.raw);
    int rc = 0;
    if (keeps(tables, suspect))
        return 0;
    if (q2_plan_begin(plan, Q2_ACTION_COPY_L2_TABLE, Q2_LIKELY, suspect->at,
                      "two slots have the L2 table at offset 0x%" PRIx64
                      ", and no lost table explains either",
                      table))
        rc = copy_table(tables, suspect, err);
    q2_plan_answer(plan, Q2_PROBLEM_OVERLAP_L2_TABLE, table, 1);
    q2_plan_end(plan);
    return rc;
}

/* ---- entries that lead nowhere ---- */

static bool
anything_lost(struct q2_tables *tables)
{
    for (uint64_t cluster = 1; cluster < tables->survey->clusters; cluster++)
        if (q2_survey_lost(tables->survey, cluster))
            return true;
    return false;
}

/* Whether there may well be a table where an entry leads, only that it cannot be read. */
static bool
leads_to_the_unreadable(struct q2_tables *tables, const struct q2_suspect *suspect)
{
    struct q2_table_look look;
    return suspect->why == Q2_SUSPECT_TARGET &&
           q2_survey_look(tables->survey, q2_entry_offset(suspect->entry.raw), &look, NULL) == 0 &&
           !look.readable;
}

/* Whether what an entry leads to looks like the table that it should be: then the other who has it
 * may be the one that is wrong. Bits beside the offset keep no reader from it that ignores them. */
static bool
is_disputed(struct q2_tables *tables, const struct q2_suspect *suspect)
{
    const struct q2_geometry *geometry = &tables->scene->check->geometry;
    uint64_t offset = q2_entry_offset(suspect->entry.raw);
    struct q2_table_look look;
    if (!(suspect->why & (Q2_SUSPECT_METADATA | Q2_SUSPECT_RULE)) || offset == 0 ||
        (offset & (geometry->cluster_size - 1)) || !q2_host_inside(geometry, offset))
        return false;
    return q2_survey_look(tables->survey, offset, &look, NULL) == 0 && look.readable &&
           q2_table_credible(&look);
}

/* Whether an entry lies in what is an L2 table too: it may be no entry at all. */
static bool
lies_in_l2_table(struct q2_tables *tables, const struct q2_suspect *suspect)
{
    const struct q2_survey *survey = tables->survey;
    uint64_t cluster = suspect->at >> tables->scene->check->geometry.cluster_bits;
    uint64_t first = q2_survey_first_reference(survey, cluster);
    return first < survey->reference_count && survey->references[first].table == cluster;
}

/* Where to put what hides the backing file. What leads past the end keeps a file from growing, but
 * a table that was cut off may get its place back where nothing leads to what is before it. */
static int
find_place(struct q2_tables *tables, const struct q2_suspect *suspect, uint64_t *ret_table,
           struct q2_error *err)
{
    struct q2_scene *scene = tables->scene;
    uint64_t own = q2_entry_offset(suspect->entry.raw);
    int rc = q2_scene_allocate(scene, 1, ret_table, err);
    if (rc != Q2_ERR_NOSPACE || !(suspect->why & Q2_SUSPECT_CUT) || scene->options->fixed_size ||
        own >> scene->check->geometry.cluster_bits != scene->dangling)
        return rc;
    *ret_table = own;
    return 0;
}

/* What hides the backing file: an L2 table of which all entries read as zeros. */
static int
write_zeros(struct q2_tables *tables, const struct q2_suspect *suspect, struct q2_error *err)
{
    struct q2_scene *scene = tables->scene;
    const struct q2_geometry *geometry = &scene->check->geometry;
    uint64_t limit = scene->check->maps[suspect->map].limit, table;
    uint64_t on_disk = q2_units(limit - suspect->guest, geometry->cluster_bits);
    uint8_t *buffer = tables->carving->buffer;
    int rc = find_place(tables, suspect, &table, err);
    if (rc < 0)
        return rc == Q2_ERR_NOSPACE ? 0 : rc;
    memset(buffer, 0, geometry->cluster_size);
    q2_zero_entries(scene->check, buffer, q2_min(geometry->l2_entries, on_disk));
    rc = q2_scene_write(scene, Q2_OWNER_L2_TABLE, table, buffer, geometry->cluster_size, err);
    if (rc < 0)
        return rc;
    return q2_scene_write64(scene, Q2_OWNER_L1_TABLE, suspect->at,
                            table | (suspect->map == 0 ? Q2_ENTRY_COPIED : 0), err);
}

/* `hide`: whether there is room for a table that hides the backing file, if there is one. */
static int
clear(struct q2_tables *tables, const struct q2_suspect *suspect, enum q2_confidence confidence,
      bool hide, struct q2_error *err)
{
    struct q2_scene *scene = tables->scene;
    uint64_t reach = q2_l2_reach(&scene->check->geometry);
    bool unreadable = leads_to_the_unreadable(tables, suspect);
    bool cut = suspect->why & Q2_SUSPECT_CUT, inside = lies_in_l2_table(tables, suspect);
    bool disputed = inside || is_disputed(tables, suspect);
    bool over = lies_over_backing(tables, suspect);
    hide = hide && over && q2_zero_entries_exist(scene->check);
    int rc = 0;
    if (unreadable || disputed || (over && !hide))
        confidence = Q2_GUESS;
    else if (cut && confidence > Q2_LIKELY)
        confidence = Q2_LIKELY;
    bool doing = q2_plan_begin(&scene->plan, Q2_ACTION_CLEAR_L1_ENTRY, confidence, suspect->at,
                               "entry 0x%016" PRIx64 " of slot %" PRIu32 " leads to %s, and %s%s",
                               suspect->entry.raw, suspect->l1_index,
                               unreadable ? "what cannot be read"
                               : inside   ? "no L2 table, but may be part of one"
                               : disputed ? "what is something else's too"
                                          : "no L2 table",
                               cut                        ? "the file was cut off before it"
                               : confidence == Q2_CERTAIN ? "none is lost"
                                                          : "none that is lost belongs there",
                               hide   ? "; a table of zeros hides the backing file"
                               : over ? "; without it the backing file shows"
                                      : "");
    scene->keep_all |= (unreadable || disputed) && !doing;
    q2_tables_answer_entry(tables, suspect->at, suspect->entry.raw);
    q2_plan_change(&scene->plan, Q2_CHANGE_LOST, suspect->map, suspect->guest, reach);
    if (doing && hide)
        rc = write_zeros(tables, suspect, err);
    else if (doing)
        rc = q2_scene_write64(scene, Q2_OWNER_L1_TABLE, suspect->at, 0, err);
    q2_plan_end(&scene->plan);
    return rc;
}

int
q2_tables_settle_rest(struct q2_tables *tables, struct q2_error *err)
{
    bool lost = anything_lost(tables), tables_lost = false;
    bool too_many = are_too_many(tables);
    int rc = 0;
    for (uint64_t i = 0; i < tables->carving->count; i++)
        tables_lost |= tables->carving->tables[i].like_l2 && !tables->carving->tables[i].placed;
    for (uint64_t i = 0; i < tables->survey->suspect_count && rc == 0; i++) {
        const struct q2_suspect *suspect = &tables->survey->suspects[i];
        if (!is_unexplained(tables, suspect))
            continue;
        if (suspect->why == Q2_SUSPECT_SHARED)
            rc = too_many ? 0 : share_out(tables, suspect, err);
        /* Where no table is lost, the entry is right, and its table was overwritten: what is left
         * of it is for fix_garbled.c. */
        else if (suspect->why != Q2_SUSPECT_TARGET || tables_lost || !lost ||
                 tables->scene->check->geometry.data_file)
            rc = clear(tables, suspect,
                       tables_lost ? Q2_GUESS
                       : lost      ? Q2_LIKELY
                                   : Q2_CERTAIN,
                       !too_many, err);
    }
    return rc;
}
