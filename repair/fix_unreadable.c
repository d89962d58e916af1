/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Tables that lie over sectors which cannot be read. A single one makes the whole table useless to
 * most software. So what is left of the table is copied to a place of its own, and whatever led to
 * the table leads to the copy. The entries that are missing there are empty ones for the fixes that
 * follow, which know how to find what they led to; what they do not find is lost, and named here.
 * The disk may yet change its mind about the sector, so that by default this is only done where
 * nothing can be lost, and never with L2 tables of which nothing can be read. Where an empty entry
 * would show a backing file, entries of L2 tables say zeros; L1 entries cannot, so that the proof
 * does not let them pass unless lost tables were found for all of them. */

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "repair/fix.h"
#include "repair/survey.h"
#include "repair/zero_entries.h"

#include <inttypes.h>
#include <string.h>

enum {
    SECTOR = 512, /* bytes */
    MAX_TABLES = 4096,
};

/* What is left of a table. */
struct rest {
    struct q2_budget *budget;
    uint8_t *bytes; /* zeros where it cannot be read */
    uint64_t length;
    uint64_t *gone; /* a bit for each sector that cannot be read */
    uint64_t sectors;
    uint64_t gone_count;
};

static void
rest_destroy(struct rest *rest)
{
    q2_budget_free(rest->budget, rest->bytes, rest->length, 1);
    q2_budget_free(rest->budget, rest->gone, rest->sectors / 64 + 1, 8);
    *rest = (struct rest){.budget = rest->budget};
}

/* `rest` is destroyed by the caller also if this failed. */
static int
rest_init(struct rest *rest, struct q2_scene *scene, uint64_t length, struct q2_error *err)
{
    *rest = (struct rest){.budget = &scene->budget};
    uint64_t sectors = (length + SECTOR - 1) / SECTOR;
    void *memory;
    int rc = q2_budget_calloc(rest->budget, length, 1, "what is left of a table", &memory, err);
    if (rc < 0)
        return rc;
    rest->bytes = memory;
    rest->length = length;
    rc = q2_budget_calloc(rest->budget, sectors / 64 + 1, 8, "what is left of a table", &memory,
                          err);
    if (rc < 0)
        return rc;
    rest->gone = memory;
    rest->sectors = sectors;
    return 0;
}

/* Read a table of the length that `rest` has; returns whether some of it cannot be read. */
static bool
rest_read(struct rest *rest, struct q2_file *file, uint64_t offset)
{
    rest->gone_count = 0;
    if (q2_file_read_padded(file, offset, rest->bytes, rest->length, NULL) == 0)
        return false;
    memset(rest->gone, 0, (rest->sectors / 64 + 1) * 8);
    for (uint64_t i = 0; i < rest->sectors; i++) {
        uint64_t at = i * SECTOR;
        size_t length = (size_t)q2_min(SECTOR, rest->length - at);
        if (q2_file_read_padded(file, offset + at, rest->bytes + at, length, NULL) == 0)
            continue;
        memset(rest->bytes + at, 0, length);
        q2_bit_set(rest->gone, i);
        rest->gone_count++;
    }
    return rest->gone_count > 0;
}

/* Name what entries of `entry_size` bytes map that are gone, each `reach` bytes from `guest` on;
 * with `name` false, only say whether there is anything to name. */
static bool
lost_by(struct q2_scene *scene, const struct rest *rest, uint32_t map, uint64_t guest,
        uint64_t entry_size, uint64_t reach, bool name)
{
    uint64_t limit = scene->check->maps[map].limit;
    bool any = false;
    for (uint64_t i = 0; i < rest->sectors; i++) {
        uint64_t first = i * SECTOR / entry_size;
        uint64_t end = q2_min((i + 1) * SECTOR, rest->length) / entry_size;
        uint64_t from = guest + first * reach;
        bool lost = q2_bit_test(rest->gone, i) && from < limit;
        any |= lost;
        if (lost && name)
            q2_plan_change(&scene->plan, Q2_CHANGE_LOST, map, from,
                           q2_min((end - first) * reach, limit - from));
    }
    return any;
}

static void
answer(struct q2_scene *scene, enum q2_problem problem, uint64_t offset, uint64_t length)
{
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++) {
        const struct q2_finding *finding = q2_check_finding(scene->check, i);
        uint64_t at = finding->has & Q2_HAS_TARGET ? finding->target_offset : finding->host_offset;
        if (finding->problem == problem && at - offset < length)
            q2_plan_answer(&scene->plan, problem, finding->host_offset, finding->count);
    }
}

/* Copy the rest to new clusters. *ret_copy is 0 where there is no room. */
static int
place_copy(struct q2_scene *scene, const struct rest *rest, enum q2_owner_kind kind,
           uint64_t *ret_copy, struct q2_error *err)
{
    unsigned bits = scene->check->geometry.cluster_bits;
    static const uint8_t zeros[SECTOR];
    uint64_t clusters = q2_units(rest->length, bits), copy, end = clusters << bits;
    *ret_copy = 0;
    int rc = q2_scene_allocate(scene, clusters, &copy, err);
    if (rc < 0)
        return rc == Q2_ERR_NOSPACE ? 0 : rc;
    rc = q2_scene_write(scene, kind, copy, rest->bytes, rest->length, err);
    for (uint64_t at = rest->length; at < end && rc == 0; at = (at / SECTOR + 1) * SECTOR)
        rc = q2_scene_write(scene, kind, copy + at, zeros, SECTOR - at % SECTOR, err);
    if (rc == 0)
        *ret_copy = copy;
    return rc;
}

/* ---- L1 tables ---- */

/* Make all that have their L1 table at `from` have it at `to`. */
static int
move_l1(struct q2_scene *scene, uint64_t from, uint64_t to, struct q2_error *err)
{
    const struct q2_check *check = scene->check;
    struct q2_header_field field;
    int rc = 0;
    for (uint64_t m = 0; m < check->map_count && rc == 0; m++) {
        if (check->maps[m].l1_offset != from || check->maps[m].l1_size == 0)
            continue;
        if (m > 0)
            rc = q2_scene_write64(scene, Q2_OWNER_SNAPSHOT_TABLE, check->maps[m].entry_at, to, err);
        else if (q2_header_field("l1_table_offset", &field))
            rc = q2_scene_write64(scene, Q2_OWNER_HEADER, field.offset, to, err);
    }
    return rc;
}

static int
rebuild_l1(struct q2_scene *scene, const struct rest *rest, uint64_t offset, struct q2_error *err)
{
    const struct q2_check *check = scene->check;
    uint64_t copy = 0;
    int rc = 0;
    if (q2_plan_begin(&scene->plan, Q2_ACTION_REBUILD_L1_TABLE, Q2_LIKELY, offset,
                      "%" PRIu64 " of the %" PRIu64 " sectors of the L1 table at 0x%" PRIx64
                      " cannot be read; the others are copied to where they can",
                      rest->gone_count, rest->sectors, offset))
        rc = place_copy(scene, rest, Q2_OWNER_L1_TABLE, &copy, err);
    else
        scene->keep_all = true;
    if (rc == 0 && copy)
        rc = move_l1(scene, offset, copy, err);
    answer(scene, Q2_PROBLEM_L1_TABLE_UNREADABLE, offset, rest->length);
    for (uint32_t m = 0; m < check->map_count; m++)
        if (check->maps[m].l1_offset == offset && check->maps[m].l1_size)
            lost_by(scene, rest, m, 0, 8, q2_l2_reach(&check->geometry), true);
    q2_plan_end(&scene->plan);
    return rc;
}

/* The longest table at the place of that of map `index`; 0 where an earlier map has it. */
static uint64_t
l1_length(const struct q2_check *check, uint64_t index)
{
    uint64_t entries = 0;
    for (uint64_t m = 0; m < check->map_count; m++) {
        if (check->maps[m].l1_offset != check->maps[index].l1_offset)
            continue;
        if (m < index && check->maps[m].l1_size)
            return 0;
        entries = q2_max(entries, check->maps[m].l1_size);
    }
    return entries * 8;
}

static int
rebuild_l1s(struct q2_scene *scene, struct q2_error *err)
{
    const struct q2_check *check = scene->check;
    int rc = 0;
    for (uint64_t m = 0; m < q2_min(check->map_count, MAX_TABLES) && rc == 0; m++) {
        struct rest rest;
        uint64_t length = l1_length(check, m);
        if (length == 0)
            continue;
        rc = rest_init(&rest, scene, length, err);
        if (rc == 0 && rest_read(&rest, scene->file, check->maps[m].l1_offset))
            rc = rebuild_l1(scene, &rest, check->maps[m].l1_offset, err);
        rest_destroy(&rest);
    }
    return rc;
}

/* ---- L2 tables ---- */

static bool
lost_by_l2(struct q2_scene *scene, const struct rest *rest,
           const struct q2_table_reference *reference, bool name)
{
    const struct q2_geometry *geometry = &scene->check->geometry;
    return lost_by(scene, rest, reference->map, reference->slot * q2_l2_reach(geometry),
                   geometry->l2_entry_size, geometry->cluster_size, name);
}

/* The entries that are gone, where empty ones would show a backing file. */
static void
hide_backing(const struct q2_check *check, struct rest *rest)
{
    uint64_t entries = SECTOR / check->geometry.l2_entry_size;
    for (uint64_t i = 0; i < rest->sectors; i++)
        if (q2_bit_test(rest->gone, i))
            q2_zero_entries(check, rest->bytes + i * SECTOR, entries);
}

/* All that lead to one table. */
static int
rebuild_l2(struct q2_scene *scene, struct rest *rest, const struct q2_table_reference *first,
           uint64_t count, struct q2_error *err)
{
    const struct q2_geometry *geometry = &scene->check->geometry;
    uint64_t offset = first->table << geometry->cluster_bits, copy = 0;
    bool lost = false;
    int rc = 0;
    for (uint64_t i = 0; i < count; i++)
        lost |= lost_by_l2(scene, rest, &first[i], false);
    hide_backing(scene->check, rest);
    if (q2_plan_begin(&scene->plan, Q2_ACTION_REBUILD_L2_TABLE, lost ? Q2_LIKELY : Q2_CERTAIN,
                      offset,
                      "%" PRIu64 " of the %" PRIu64 " sectors of the L2 table at 0x%" PRIx64
                      " cannot be read; the others are copied to where they can",
                      rest->gone_count, rest->sectors, offset))
        rc = place_copy(scene, rest, Q2_OWNER_L2_TABLE, &copy, err);
    else
        scene->keep_all = true;
    for (uint64_t i = 0; i < count && rc == 0; i++) {
        uint64_t raw = first[i].raw ^ q2_entry_offset(first[i].raw);
        if (copy)
            rc = q2_scene_write64(scene, Q2_OWNER_L1_TABLE, first[i].at, raw | copy, err);
        lost_by_l2(scene, rest, &first[i], true);
    }
    answer(scene, Q2_PROBLEM_L2_TABLE_UNREADABLE, offset, rest->length);
    q2_plan_end(&scene->plan);
    return rc;
}

static int
rebuild_l2s(struct q2_survey *survey, struct q2_error *err)
{
    struct q2_scene *scene = survey->scene;
    const struct q2_table_reference *all = survey->references;
    unsigned bits = scene->check->geometry.cluster_bits;
    struct rest rest;
    int rc = rest_init(&rest, scene, scene->check->geometry.cluster_size, err);
    for (uint64_t i = 0, next; i < survey->reference_count && rc == 0; i = next) {
        for (next = i + 1; next < survey->reference_count && all[next].table == all[i].table;)
            next++;
        if (!q2_bit_test(survey->structures, all[i].table) &&
            rest_read(&rest, scene->file, all[i].table << bits) && rest.gone_count < rest.sectors)
            rc = rebuild_l2(scene, &rest, all + i, next - i, err);
    }
    rest_destroy(&rest);
    return rc;
}

/* ---- the whole ---- */

int
q2_fix_unreadable(struct q2_scene *scene, struct q2_error *err)
{
    int rc = 0;
    if (!(scene->check->usable & Q2_USABLE_L1))
        return 0;
    if (q2_scene_count(scene, Q2_PROBLEM_L1_TABLE_UNREADABLE)) {
        rc = rebuild_l1s(scene, err);
        if (rc == 0)
            rc = q2_scene_recheck(scene, err);
    }
    if (rc < 0 || !q2_scene_count(scene, Q2_PROBLEM_L2_TABLE_UNREADABLE))
        return rc;
    struct q2_survey *survey;
    rc = q2_survey_take(scene, false, &survey, err);
    if (rc < 0)
        return rc;
    rc = rebuild_l2s(survey, err);
    q2_survey_free(survey);
    return rc == 0 ? q2_scene_recheck(scene, err) : rc;
}
