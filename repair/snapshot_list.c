/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What a new snapshot table would list: entries of the old one that are sound, wherever in it they
 * are, and L1 tables that no entry has. */

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "repair/l1_find.h"
#include "repair/snapshot_rebuild.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_AREA = 1 << 20, /* bytes of a table that are searched for entries */
    MAX_ENTRIES = 1024, /* that are kept, and L1 tables that are found */
    MAX_BEFORE = 64,    /* empty clusters that an L1 table may begin with */
};

/* ---- entries of the old table ---- */

bool
q2_snapshot_in_step(const struct q2_scene *scene, uint32_t map)
{
    const struct q2_snapshot_name *name = &scene->check->snapshots[map - 1];
    return name->id[0] && !strchr(name->id, '\\') && !strchr(name->name, '\\');
}

static bool
has_l1(const struct q2_snapshot_list *list, uint64_t cluster)
{
    for (uint64_t i = 0; i < list->kept_count; i++)
        if (cluster - list->kept[i].l1_first < list->kept[i].l1_count)
            return true;
    return false;
}

static int
grow(struct q2_tables *tables, void *array, uint64_t count, uint64_t *capacity, size_t size,
     struct q2_error *err)
{
    void *memory;
    if (count < *capacity)
        return 0;
    uint64_t larger = *capacity ? *capacity * 2 : 16;
    memcpy(&memory, array, sizeof memory);
    int rc =
        q2_budget_grow(&tables->scene->budget, *capacity, larger, size, "snapshots", &memory, err);
    if (rc < 0)
        return rc;
    memcpy(array, &memory, sizeof memory);
    *capacity = larger;
    return 0;
}

/* Whether another entry is inside one: its length is wrong, and its texts are not its own. */
static bool
swallows(struct q2_tables *tables, uint64_t at, uint64_t length)
{
    struct q2_snapshot_run run = {0};
    for (uint64_t i = Q2_SNAPSHOT_FIXED_LENGTH; i < length && run.count == 0; i += 8)
        q2_snapshot_run(tables->carving, at + i, 1, NULL, &run);
    return run.count > 0;
}

/* Whether what an entry leads to is in place, but is no L1 table. */
static bool
leads_astray(const struct q2_tables *tables, const struct q2_snapshot *snapshot)
{
    const struct q2_check *check = tables->scene->check;
    for (uint32_t m = 1; m < tables->slots->map_count; m++) {
        const struct q2_slot_map *map = &tables->slots->maps[m];
        bool empty = true;
        if (check->maps[m].l1_offset != snapshot->l1_table_offset || map->sound || !map->raw)
            continue;
        for (uint64_t i = 0; i < map->size && empty; i++)
            empty = map->raw[i] == 0;
        return !empty;
    }
    return false;
}

/* Take the entry at host offset `at`, if there is one. */
static int
take_entry(struct q2_tables *tables, struct q2_snapshot_list *list, uint64_t at,
           uint64_t *ret_length, struct q2_error *err)
{
    const struct q2_geometry *geometry = &tables->scene->check->geometry;
    struct q2_snapshot_run run;
    struct q2_snapshot snapshot;
    uint8_t bytes[Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH];
    q2_snapshot_run(tables->carving, at, 1, NULL, &run);
    if (run.count == 0 || list->kept_count >= MAX_ENTRIES ||
        q2_file_read_padded(tables->scene->file, at, bytes, sizeof bytes, NULL) < 0)
        return 0;
    q2_snapshot_decode(geometry, bytes, at, &snapshot);
    struct q2_kept_entry entry = {.at = at,
                                  .length = run.length,
                                  .l1_first = snapshot.l1_table_offset >> geometry->cluster_bits,
                                  .l1_count = q2_units((uint64_t)snapshot.l1_size * 8,
                                                       geometry->cluster_bits)};
    if (has_l1(list, entry.l1_first) || leads_astray(tables, &snapshot))
        return 0;
    list->guessed = list->guessed || swallows(tables, at, run.length);
    int rc = grow(tables, &list->kept, list->kept_count, &list->kept_capacity, sizeof entry, err);
    if (rc < 0)
        return rc;
    list->kept[list->kept_count++] = entry;
    *ret_length = run.length;
    return 0;
}

/* Whether a word may be the first of an entry: it leads to a cluster. */
static bool
may_begin(const struct q2_geometry *geometry, uint64_t word)
{
    return word && !(word & (geometry->cluster_size - 1)) && word < geometry->file_size;
}

/* Look for entries, which begin at multiples of eight bytes, in [start, end). */
static int
search_area(struct q2_tables *tables, struct q2_snapshot_list *list, uint64_t start, uint64_t end,
            struct q2_error *err)
{
    const struct q2_geometry *geometry = &tables->scene->check->geometry;
    uint8_t words[4096];
    uint64_t at = start, loaded = UINT64_MAX;
    int rc = 0;
    while (at < end && rc == 0) {
        uint64_t piece = at & ~(uint64_t)(sizeof words - 1), length = 0;
        if (piece != loaded &&
            q2_file_read_padded(tables->scene->file, piece, words, sizeof words, NULL) < 0) {
            at = piece + sizeof words;
            continue;
        }
        loaded = piece;
        if (may_begin(geometry, q2_load_be64(words + (at - piece))))
            rc = take_entry(tables, list, at, &length, err);
        at += length ? length : 8;
    }
    return rc;
}

/* Whether a cluster belongs to the snapshot table alone, or to nothing. */
static bool
is_free_for_table(struct q2_tables *tables, uint64_t cluster)
{
    const struct q2_check *check = tables->scene->check;
    uint64_t references = q2_scene_references(tables->scene, cluster), own = 0;
    unsigned bits = check->geometry.cluster_bits;
    if (cluster >= check->geometry.file_clusters)
        return false;
    for (uint64_t i = 0; i < check->region_count; i++) {
        const struct q2_region *region = &check->regions[i];
        uint64_t first = region->offset >> bits;
        uint64_t end = q2_units(region->offset + region->length, bits);
        own += region->owner.kind == Q2_OWNER_SNAPSHOT_TABLE && cluster - first < end - first;
    }
    return references == own && q2_refcount_of(&tables->slots->reader, cluster) > 0;
}

uint64_t
q2_snapshot_table_room(struct q2_tables *tables)
{
    const struct q2_check *check = tables->scene->check;
    const struct q2_geometry *geometry = &check->geometry;
    uint64_t start = check->header.snapshots_offset, length = 0;
    if (!start || (start & (geometry->cluster_size - 1)) || start >= geometry->file_size)
        return 0;
    while (length < MAX_AREA &&
           is_free_for_table(tables, (start + length) >> geometry->cluster_bits))
        length += geometry->cluster_size;
    return length;
}

/* Where the header leads nowhere: in all that is lost. */
static int
search_lost(struct q2_tables *tables, struct q2_snapshot_list *list, struct q2_error *err)
{
    const struct q2_geometry *geometry = &tables->scene->check->geometry;
    unsigned bits = geometry->cluster_bits;
    int rc = 0;
    for (uint64_t cluster = 1; cluster < geometry->file_clusters && rc == 0; cluster++)
        if (q2_survey_lost(tables->survey, cluster) &&
            !q2_carved_at(tables->carving, cluster << bits))
            rc = search_area(tables, list, cluster << bits, (cluster + 1) << bits, err);
    return rc;
}

/* ---- L1 tables that no entry has ---- */

static bool
is_found(const struct q2_snapshot_list *list, const struct q2_geometry *geometry, uint64_t first,
         uint64_t count)
{
    for (uint64_t i = 0; i < list->found_count; i++) {
        uint64_t other = list->found[i].offset >> geometry->cluster_bits;
        if (first < other + list->found[i].clusters && other < first + count)
            return true;
    }
    for (uint64_t i = 0; i < list->kept_count; i++)
        if (first < list->kept[i].l1_first + list->kept[i].l1_count &&
            list->kept[i].l1_first < first + count)
            return true;
    return false;
}

/* How many entries of the L1 table at `offset` are in use, if there is one: nothing of it leads
 * elsewhere, or hardly anything. */
static bool
fits(struct q2_tables *tables, const struct q2_snapshot_list *list, uint64_t offset,
     uint64_t entries, struct q2_l1_look *ret_look)
{
    const struct q2_geometry *geometry = &tables->scene->check->geometry;
    uint64_t count = q2_units(entries * 8, geometry->cluster_bits);
    if (entries == 0 || entries * 8 > Q2_MAX_L1_BYTES ||
        is_found(list, geometry, offset >> geometry->cluster_bits, count) ||
        !q2_l1_is_lost(tables->carving, offset, entries))
        return false;
    q2_l1_look(tables->carving, offset, entries, ret_look);
    return q2_l1_credible(ret_look);
}

/* Where the table begins of which a piece is at `piece`: there, or with empty clusters before. */
static bool
find_start(struct q2_tables *tables, const struct q2_snapshot_list *list, uint64_t piece,
           uint64_t entries, uint64_t *ret_offset)
{
    const struct q2_geometry *geometry = &tables->scene->check->geometry;
    uint64_t clusters = q2_units(entries * 8, geometry->cluster_bits), best = 0;
    for (uint64_t before = 0; before < q2_min(clusters, MAX_BEFORE); before++) {
        struct q2_l1_look look;
        uint64_t length = before << geometry->cluster_bits;
        if (length >= piece)
            break;
        if (!fits(tables, list, piece - length, entries, &look) || look.leads <= best)
            continue;
        best = look.leads;
        *ret_offset = piece - length;
    }
    return best > 0;
}

/* Entries at `offset` from `entry` on that lead to tables, without a gap. */
static uint64_t
entries_in_a_row(struct q2_tables *tables, uint64_t offset, uint64_t entry, uint64_t limit)
{
    uint64_t count = 0;
    while (entry + count < limit) {
        struct q2_l1_look look;
        q2_l1_look(tables->carving, offset + (entry + count) * 8, 1, &look);
        if (look.leads == 0)
            break;
        count++;
    }
    return count;
}

static bool
measure(struct q2_tables *tables, const struct q2_snapshot_list *list, uint64_t piece,
        struct q2_found_l1 *ret_found)
{
    const struct q2_check *check = tables->scene->check;
    const struct q2_geometry *geometry = &check->geometry;
    uint64_t needed = q2_l1_entries_for(geometry, check->header.size), clusters;
    struct q2_found_l1 found = {.entries = needed};
    struct q2_l1_look look;
    clusters = q2_units(needed * 8, geometry->cluster_bits);
    if (!find_start(tables, list, piece, needed, &found.offset)) {
        /* The disk was smaller then. */
        uint64_t limit = geometry->cluster_size / 8;
        found.offset = piece;
        found.entries = entries_in_a_row(tables, piece, 0, q2_min(limit, needed));
        found.shorter = true;
        clusters = 1;
        if (!fits(tables, list, piece, found.entries, &look))
            return false;
    }
    /* As long as the active one is now, if nothing speaks against it. */
    if (!found.shorter && check->header.l1_size > needed &&
        fits(tables, list, found.offset, check->header.l1_size, &look) && look.astray == 0) {
        found.entries = check->header.l1_size;
        clusters = q2_units(found.entries * 8, geometry->cluster_bits);
    }
    /* VM state is behind the disk. */
    uint64_t behind = found.shorter ? 0
                                    : entries_in_a_row(tables, found.offset, needed,
                                                       (clusters << geometry->cluster_bits) / 8);
    found.entries = q2_max(found.entries, needed * !found.shorter + behind);
    found.vm_state_size = behind * q2_l2_reach(geometry);
    found.clusters = clusters;
    *ret_found = found;
    return true;
}

/* Whether an L1 table may begin at a lost cluster, or a piece of one be there. Software writes no
 * more than its entries, so that what follows in its cluster is left of whatever was there. */
static bool
may_be_l1(struct q2_tables *tables, uint64_t offset)
{
    const struct q2_check *check = tables->scene->check;
    const struct q2_carved *carved = q2_carved_at(tables->carving, offset);
    uint64_t needed = q2_l1_entries_for(&check->geometry, check->header.size);
    struct q2_l1_look look;
    if (carved && carved->is_l1)
        return true;
    q2_l1_look(tables->carving, offset, q2_min(needed, check->geometry.cluster_size / 8), &look);
    return look.leads > 0 && look.astray == 0;
}

static int
find_l1s(struct q2_tables *tables, struct q2_snapshot_list *list, struct q2_error *err)
{
    const struct q2_geometry *geometry = &tables->scene->check->geometry;
    unsigned bits = geometry->cluster_bits;
    int rc = 0;
    for (uint64_t cluster = 1; cluster < geometry->file_clusters && rc == 0; cluster++) {
        struct q2_found_l1 found;
        if (list->found_count >= MAX_ENTRIES || !q2_survey_lost(tables->survey, cluster) ||
            is_found(list, geometry, cluster, 1) || !may_be_l1(tables, cluster << bits) ||
            !measure(tables, list, cluster << bits, &found))
            continue;
        rc =
            grow(tables, &list->found, list->found_count, &list->found_capacity, sizeof found, err);
        if (rc == 0)
            list->found[list->found_count++] = found;
    }
    return rc;
}

/* ---- entries that lead elsewhere ---- */

static int
compare_entries(const void *left, const void *right)
{
    const struct q2_kept_entry *a = left, *b = right;
    return a->at < b->at ? -1 : a->at > b->at;
}

static bool
is_kept(const struct q2_snapshot_list *list, uint64_t at)
{
    for (uint64_t i = 0; i < list->kept_count; i++)
        if (at - list->kept[i].at < list->kept[i].length)
            return true;
    return false;
}

/* Keep an entry that is sound but for its L1 table, which will be found table `l1`. */
static int
keep_name(struct q2_tables *tables, struct q2_snapshot_list *list, uint64_t at, uint64_t l1,
          struct q2_error *err)
{
    const struct q2_geometry *geometry = &tables->scene->check->geometry;
    struct q2_found_l1 *found = &list->found[l1];
    uint8_t bytes[Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH];
    struct q2_l1_look look;
    struct q2_snapshot snapshot;
    if (q2_file_read_padded(tables->scene->file, at, bytes, sizeof bytes, NULL) < 0)
        return 0;
    q2_snapshot_decode(geometry, bytes, at, &snapshot);
    struct q2_kept_entry entry = {.at = at,
                                  .length = q2_snapshot_length(bytes),
                                  .l1_offset = found->offset,
                                  .l1_size = (uint32_t)found->entries};
    /* As many as it says, if that can be. */
    if (snapshot.l1_size > found->entries && (uint64_t)snapshot.l1_size * 8 <= Q2_MAX_L1_BYTES &&
        q2_l1_is_lost(tables->carving, found->offset, snapshot.l1_size)) {
        q2_l1_look(tables->carving, found->offset, snapshot.l1_size, &look);
        entry.l1_size = q2_l1_credible(&look) ? snapshot.l1_size : entry.l1_size;
    }
    int rc = grow(tables, &list->kept, list->kept_count, &list->kept_capacity, sizeof entry, err);
    if (rc == 0) {
        list->kept[list->kept_count++] = entry;
        found->named = true;
    }
    return rc;
}

/* The found L1 table that an entry with these numbers had; UINT64_MAX: any may be it. */
static uint64_t
own_l1(const struct q2_snapshot_list *list, uint64_t offset)
{
    for (uint64_t i = 0; i < list->found_count; i++)
        if (list->found[i].offset == offset && !list->found[i].named)
            return i;
    return UINT64_MAX;
}

/* Entries whose names can be read get the L1 tables that were found: their own where it is still
 * said which that is, and then those that are left, in the order of both. */
static int
name_l1s(struct q2_tables *tables, struct q2_snapshot_list *list, bool own, struct q2_error *err)
{
    const struct q2_check *check = tables->scene->check;
    uint64_t next = 0, guessed = 0;
    int rc = 0;
    for (uint32_t m = 1; m < check->map_count && rc == 0; m++) {
        uint64_t at = check->maps[m].entry_at;
        if (!q2_snapshot_in_step(tables->scene, m))
            break;
        if (is_kept(list, at))
            continue;
        uint64_t l1 = own ? own_l1(list, check->maps[m].l1_offset) : next;
        while (!own && l1 < list->found_count && list->found[l1].named)
            l1++;
        if (l1 >= list->found_count)
            continue;
        next = l1 + 1;
        guessed += !own;
        rc = keep_name(tables, list, at, l1, err);
    }
    list->guessed = list->guessed || guessed > 1;
    return rc;
}

/* Forget the L1 tables that have an entry with a name. */
static void
forget_named(struct q2_snapshot_list *list)
{
    uint64_t kept = 0;
    for (uint64_t i = 0; i < list->found_count; i++)
        if (!list->found[i].named)
            list->found[kept++] = list->found[i];
    list->named_count = list->found_count - kept;
    list->found_count = kept;
}

/* ---- the whole ---- */

int
q2_snapshot_list_find(struct q2_tables *tables, struct q2_snapshot_list *ret_list,
                      struct q2_error *err)
{
    uint64_t start = tables->scene->check->header.snapshots_offset;
    uint64_t room = q2_snapshot_table_room(tables);
    *ret_list = (struct q2_snapshot_list){0};
    int rc = room ? search_area(tables, ret_list, start, start + room, err)
                  : search_lost(tables, ret_list, err);
    if (rc == 0)
        rc = find_l1s(tables, ret_list, err);
    if (rc == 0)
        rc = name_l1s(tables, ret_list, true, err);
    if (rc == 0)
        rc = name_l1s(tables, ret_list, false, err);
    forget_named(ret_list);
    if (ret_list->kept_count)
        qsort(ret_list->kept, ret_list->kept_count, sizeof *ret_list->kept, compare_entries);
    return rc;
}

void
q2_snapshot_list_destroy(struct q2_tables *tables, struct q2_snapshot_list *list)
{
    struct q2_budget *budget = &tables->scene->budget;
    q2_budget_free(budget, list->kept, list->kept_capacity, sizeof *list->kept);
    q2_budget_free(budget, list->found, list->found_capacity, sizeof *list->found);
    q2_budget_free(budget, list->bytes, list->room, 1);
    *list = (struct q2_snapshot_list){0};
}
