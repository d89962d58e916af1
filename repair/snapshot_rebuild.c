/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Writing a new snapshot table. Whether it is right is seen from the whole image: if every cluster
 * is counted exactly as often as the L1 tables in it and the active one need, and there are as many
 * as the header counts, no other set of snapshots agrees with it. */

#include "repair/snapshot_rebuild.h"

#include "core/base/checked.h"
#include "core/base/endian.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT = 32 }; /* bytes, for an id or a name that are made up */

/* ---- its bytes ---- */

/* Whether an entry that is kept has this id. */
static bool
is_used(struct q2_tables *tables, const struct q2_snapshot_list *list, const char *id)
{
    const struct q2_geometry *geometry = &tables->scene->check->geometry;
    for (uint64_t i = 0; i < list->kept_count; i++) {
        uint8_t bytes[Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH];
        char text[TEXT];
        struct q2_snapshot snapshot;
        uint64_t at = list->kept[i].at;
        if (q2_file_read_padded(tables->scene->file, at, bytes, sizeof bytes, NULL) < 0)
            continue;
        q2_snapshot_decode(geometry, bytes, at, &snapshot);
        if (snapshot.id_length == strlen(id) &&
            q2_file_read_padded(tables->scene->file,
                                at + Q2_SNAPSHOT_FIXED_LENGTH + snapshot.extra_length, text,
                                snapshot.id_length, NULL) == 0 &&
            memcmp(text, id, snapshot.id_length) == 0)
            return true;
    }
    return false;
}

/* Make the entry of an L1 table; `bytes` has room for TEXT * 2 more than the fixed part. */
static uint64_t
make_entry(struct q2_tables *tables, const struct q2_found_l1 *found, uint64_t number,
           uint8_t *bytes)
{
    const struct q2_check *check = tables->scene->check;
    char id[TEXT], name[TEXT];
    uint64_t reach = q2_l2_reach(&check->geometry), disk = check->header.size;
    if (found->shorter)
        disk = q2_min(disk, found->entries * reach);
    struct q2_snapshot snapshot = {.l1_table_offset = found->offset,
                                   .l1_size = (uint32_t)found->entries,
                                   .id_length =
                                       (uint16_t)snprintf(id, sizeof id, "%" PRIu64, number),
                                   .name_length = (uint16_t)snprintf(name, sizeof name,
                                                                     "recovered-%" PRIu64, number),
                                   .vm_state_size = found->vm_state_size,
                                   .disk_size = disk};
    q2_snapshot_encode(&snapshot, bytes);
    uint8_t *text = bytes + Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH;
    memcpy(text, id, snapshot.id_length);
    memcpy(text + snapshot.id_length, name, snapshot.name_length);
    return q2_snapshot_length(bytes);
}

static int
make_table(struct q2_tables *tables, struct q2_snapshot_list *list, struct q2_error *err)
{
    enum { MOST = Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH + 2 * TEXT };
    uint64_t used = 0, number = 0, room = list->found_count * MOST;
    for (uint64_t i = 0; i < list->kept_count; i++)
        room += list->kept[i].length;
    void *memory;
    int rc = q2_budget_calloc(&tables->scene->budget, room, 1, "a snapshot table", &memory, err);
    if (rc < 0)
        return rc;
    list->bytes = memory;
    list->room = room;
    for (uint64_t i = 0; i < list->kept_count && rc == 0; i++) {
        rc = q2_file_read_padded(tables->scene->file, list->kept[i].at, list->bytes + used,
                                 list->kept[i].length, err);
        if (list->kept[i].l1_offset) {
            q2_store_be64(list->bytes + used, list->kept[i].l1_offset);
            q2_store_be32(list->bytes + used + 8, list->kept[i].l1_size);
        }
        used += list->kept[i].length;
    }
    for (uint64_t i = 0; i < list->found_count && rc == 0; i++) {
        char id[TEXT];
        do {
            snprintf(id, sizeof id, "%" PRIu64, ++number);
        } while (is_used(tables, list, id));
        used += make_entry(tables, &list->found[i], number, list->bytes + used);
    }
    list->length = used;
    return rc;
}

/* ---- writing it ---- */

static int
write_to(struct q2_scene *scene, struct q2_file *file, uint64_t offset, const void *bytes,
         size_t length, enum q2_owner_kind kind, struct q2_error *err)
{
    return file ? q2_file_write(file, offset, bytes, length, err)
                : q2_scene_write(scene, kind, offset, bytes, length, err);
}

/* Write the table and what the header says of it, to `file` or to the scene. */
static int
write_table(struct q2_scene *scene, const struct q2_snapshot_list *list, uint64_t offset,
            struct q2_file *file, struct q2_error *err)
{
    struct q2_header_field count_field, offset_field;
    uint8_t bytes[8];
    uint64_t count = list->kept_count + list->found_count;
    if (!q2_header_field("nb_snapshots", &count_field) ||
        !q2_header_field("snapshots_offset", &offset_field))
        return 0;
    int rc = write_to(scene, file, offset, list->bytes, list->length, Q2_OWNER_SNAPSHOT_TABLE, err);
    q2_store_be32(bytes, (uint32_t)count);
    if (rc == 0 && count != scene->check->header.nb_snapshots)
        rc = write_to(scene, file, count_field.offset, bytes, 4, Q2_OWNER_HEADER, err);
    q2_store_be64(bytes, offset);
    if (rc == 0 && offset != scene->check->header.snapshots_offset)
        rc = write_to(scene, file, offset_field.offset, bytes, 8, Q2_OWNER_HEADER, err);
    return rc;
}

/* Whether nothing at all is wrong with the image that has the new table. */
static int
is_exact(struct q2_scene *scene, const struct q2_snapshot_list *list, bool *ret_exact,
         struct q2_error *err)
{
    const struct q2_check_options options = {.threads = scene->options->threads};
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    struct q2_check *check = NULL;
    int rc = q2_file_new_overlay(scene->file, &scene->budget, &file, err);
    if (rc == 0)
        rc = write_table(scene, list, scene->check->header.snapshots_offset, file, err);
    if (rc == 0)
        rc = q2_check_run(file, &options, &check, err);
    if (rc < 0)
        return rc;
    const struct q2_check_counts *counts = q2_check_counts(check);
    *ret_exact = counts->corruptions == 0 && counts->leaks == 0 && counts->check_errors == 0;
    q2_check_free(check);
    return 0;
}

static int
place_table(struct q2_tables *tables, const struct q2_snapshot_list *list, bool in_place,
            struct q2_error *err)
{
    struct q2_scene *scene = tables->scene;
    uint64_t offset = scene->check->header.snapshots_offset;
    unsigned bits = scene->check->geometry.cluster_bits;
    if (!in_place) {
        int rc = q2_scene_allocate(scene, q2_units(list->length, bits), &offset, err);
        if (rc < 0) {
            scene->keep_all = true;
            return rc == Q2_ERR_NOSPACE || rc == Q2_ERR_IO ? 0 : rc;
        }
    }
    return write_table(scene, list, offset, NULL, err);
}

/* ---- the action ---- */

static void
describe(struct q2_tables *tables, const struct q2_snapshot_list *list)
{
    static const enum q2_problem problems[] = {
        Q2_PROBLEM_HEADER_SNAPSHOTS_UNALIGNED, Q2_PROBLEM_HEADER_SNAPSHOTS_TOO_MANY,
        Q2_PROBLEM_SNAPSHOT_TABLE_PAST_END,    Q2_PROBLEM_SNAPSHOT_TABLE_UNREADABLE,
        Q2_PROBLEM_SNAPSHOT_TABLE_TOO_BIG,     Q2_PROBLEM_SNAPSHOT_TABLE_LOST,
        Q2_PROBLEM_SNAPSHOT_TABLE_SHORT,       Q2_PROBLEM_ORPHAN_L1_TABLE};
    struct q2_scene *scene = tables->scene;
    for (size_t p = 0; p < q2_check_finding_count(scene->check); p++) {
        const struct q2_finding *finding = q2_check_finding(scene->check, p);
        bool answered = q2_catalogue(finding->problem)->pass == Q2_PASS_SNAPSHOTS;
        for (size_t i = 0; i < sizeof problems / sizeof problems[0]; i++)
            answered |= finding->problem == problems[i];
        if (answered)
            q2_plan_answer(&scene->plan, finding->problem, finding->host_offset, finding->count);
    }
    for (uint64_t i = 0; i < list->kept_count + list->found_count; i++) {
        uint64_t limit = scene->check->header.size;
        if (i >= list->kept_count)
            limit =
                list->found[i - list->kept_count].entries * q2_l2_reach(&scene->check->geometry);
        q2_plan_change(&scene->plan, Q2_CHANGE_RECOVERED, (uint32_t)i + 1, 0,
                       q2_max(limit, scene->check->header.size));
    }
}

static int
judge(struct q2_tables *tables, const struct q2_snapshot_list *list, bool in_place,
      enum q2_confidence *ret_confidence, struct q2_error *err)
{
    bool counted =
        list->kept_count + list->found_count == tables->scene->check->header.nb_snapshots;
    bool exact = false;
    int rc = in_place ? is_exact(tables->scene, list, &exact, err) : 0;
    if (rc < 0)
        return rc;
    if (counted && exact && !list->guessed)
        *ret_confidence = Q2_CERTAIN;
    else if ((counted || exact) && tables->survey->counts_help)
        *ret_confidence = Q2_LIKELY;
    else
        *ret_confidence = Q2_GUESS;
    return 0;
}

static bool
begin(struct q2_scene *scene, const struct q2_snapshot_list *list, enum q2_confidence confidence,
      uint64_t key)
{
    const char *agrees = confidence == Q2_CERTAIN ? "; every refcount agrees with that" : "";
    uint32_t counted = scene->check->header.nb_snapshots;
    if (list->found_count == 0)
        return q2_plan_begin(&scene->plan, Q2_ACTION_MEND_SNAPSHOT, confidence, key,
                             "%" PRIu64 " of the %" PRIu32
                             " entries that the header counts lead elsewhere, and there are as "
                             "many L1 tables that nothing leads to%s",
                             list->named_count, counted, agrees);
    return q2_plan_begin(&scene->plan, Q2_ACTION_REBUILD_SNAPSHOT, confidence, key,
                         "of the %" PRIu32 " entries that the header counts, %" PRIu64
                         " can be read; %" PRIu64
                         " L1 tables that nothing leads to become snapshots again, whose names, "
                         "dates and order are lost%s",
                         counted, list->kept_count, list->found_count, agrees);
}

/* Whether the new table goes where the old one is: there is room, and what is there can be read,
 * for what is written over has to be kept for an undo. */
static bool
fits_in_place(struct q2_tables *tables, const struct q2_snapshot_list *list)
{
    struct q2_file *file = tables->scene->file;
    uint64_t start = tables->scene->check->header.snapshots_offset;
    uint8_t piece[4096];
    if (q2_snapshot_table_room(tables) < list->length)
        return false;
    for (uint64_t at = 0; at < list->length; at += sizeof piece)
        if (q2_file_read_padded(file, start + at, piece, sizeof piece, NULL) < 0)
            return false;
    return true;
}

static int
rebuild(struct q2_tables *tables, struct q2_snapshot_list *list, struct q2_error *err)
{
    struct q2_scene *scene = tables->scene;
    struct q2_header_field field;
    enum q2_confidence confidence;
    int rc = make_table(tables, list, err);
    bool in_place = rc == 0 && fits_in_place(tables, list);
    if (rc == 0)
        rc = judge(tables, list, in_place, &confidence, err);
    if (rc < 0 || !q2_header_field("nb_snapshots", &field))
        return rc;
    if (begin(scene, list, confidence, field.offset))
        rc = place_table(tables, list, in_place, err);
    else
        scene->keep_all = true;
    describe(tables, list);
    q2_plan_end(&scene->plan);
    return rc;
}

/* Whether all entries are there, and some get other L1 tables. */
static bool
is_renaming(const struct q2_snapshot_list *list, uint64_t counted)
{
    return list->found_count == 0 && list->kept_count == counted;
}

int
q2_snapshots_rebuild(struct q2_tables *tables, uint64_t readable, bool *ret_done,
                     struct q2_error *err)
{
    const struct q2_check *check = tables->scene->check;
    uint64_t counted = check->header.nb_snapshots;
    struct q2_snapshot_list list = {0};
    *ret_done = false;
    /* Where the active L1 table is lost, that is what was found. */
    if (counted == 0 || !(check->usable & Q2_USABLE_L1) || tables->slots->map_count == 0 ||
        tables->slots->maps[0].sound == 0)
        return 0;
    int rc = q2_snapshot_list_find(tables, &list, err);
    uint64_t count = list.kept_count + list.found_count;
    if (rc == 0 && list.named_count + list.found_count > 0 &&
        (readable == 0 || (count == counted && readable < counted) ||
         is_renaming(&list, counted))) {
        *ret_done = true;
        rc = rebuild(tables, &list, err);
    }
    q2_snapshot_list_destroy(tables, &list);
    return rc;
}
