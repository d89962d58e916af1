/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* L1 tables and the L2 tables behind them: what leads nowhere, and what nothing leads to.
 *
 * Evidence is gathered (carve.h), each open slot gets the table that belongs there (place.h), and
 * that is carried out as far as the level permits. Each table that is back in its place is evidence
 * for others, so this goes on until a round changes nothing; only then is said what could not be
 * done, and cleared what is beyond help. */

#include "repair/fix.h"

#include "core/base/checked.h"
#include "repair/numbering.h"
#include "repair/tables_parts.h"

#include <inttypes.h>

enum { MAX_ROUNDS = 4 };

int
q2_tables_open(struct q2_scene *scene, struct q2_tables *ret_tables, struct q2_error *err)
{
    struct q2_tables tables = {.scene = scene};
    int rc = q2_survey_take(scene, false, &tables.survey, err);
    if (rc == 0)
        rc = q2_slots_load(tables.survey, &tables.slots, err);
    if (rc == 0)
        rc = q2_carve(tables.slots, &tables.carving, err);
    if (rc == 0)
        rc = q2_number_tables(tables.carving, err);
    if (rc < 0) {
        q2_tables_close(&tables);
        return rc;
    }
    q2_placing_init(&tables.placing, tables.carving);
    *ret_tables = tables;
    return 0;
}

void
q2_tables_close(struct q2_tables *tables)
{
    if (tables->carving)
        q2_placing_destroy(&tables->placing);
    q2_carving_free(tables->carving);
    q2_slots_free(tables->slots);
    q2_survey_free(tables->survey);
    *tables = (struct q2_tables){0};
}

/* ---- carrying it out ---- */

struct answering {
    struct q2_plan *plan;
};

static void
answer(void *data, const struct q2_violation *violation)
{
    struct answering *answering = data;
    q2_plan_answer(answering->plan, violation->problem, violation->offset, 1);
}

void
q2_tables_answer_entry(struct q2_tables *tables, uint64_t at, uint64_t raw)
{
    struct answering answering = {.plan = &tables->scene->plan};
    const struct q2_sink sink = {.report = answer, .data = &answering};
    if (raw)
        q2_l1_entry_validate(&tables->scene->check->geometry, raw, at, &sink);
}

static bool
is_permitted(const struct q2_scene *scene, enum q2_confidence confidence)
{
    return (int)confidence <= (int)scene->plan.level - (int)Q2_LEVEL_CERTAIN;
}

/* The entry that leads to a table from its new place. */
static uint64_t
entry_for(const struct q2_tables *tables, const struct q2_placement *placement)
{
    struct q2_slots *slots = tables->slots;
    uint64_t cluster = placement->table >> tables->scene->check->geometry.cluster_bits;
    bool alone = !tables->survey->counts_help ||
                 q2_survey_refcount(tables->survey, &slots->reader, cluster) == 1;
    return placement->table | (placement->map == 0 && alone ? Q2_ENTRY_COPIED : 0);
}

static enum q2_action_kind
kind_of(const struct q2_tables *tables, const struct q2_placement *placement)
{
    unsigned bits =
        q2_pointer_distance(placement->before & ~Q2_ENTRY_COPIED, placement->table, false);
    if (placement->before & ~Q2_ENTRY_COPIED && bits <= 2)
        return Q2_ACTION_MEND_L1_ENTRY;
    return tables->slots->maps[placement->map].sound ? Q2_ACTION_ATTACH_L2_TABLE
                                                     : Q2_ACTION_REBUILD_L1_TABLE;
}

static void
describe(struct q2_tables *tables, const struct q2_placement *placement)
{
    const struct q2_geometry *geometry = &tables->scene->check->geometry;
    struct q2_plan *plan = &tables->scene->plan;
    uint64_t at = q2_slot_at(tables->slots, placement->map, placement->slot);
    uint64_t reach = q2_l2_reach(geometry), before = q2_entry_offset(placement->before);
    bool read = before && !(before & (geometry->cluster_size - 1)) &&
                before < geometry->file_size && before != placement->table;
    q2_tables_answer_entry(tables, at, placement->before);
    if (placement->found)
        q2_plan_answer(plan, Q2_PROBLEM_ORPHAN_L2_TABLE, placement->table, 1);
    q2_plan_change(plan, read ? Q2_CHANGE_REPLACED : Q2_CHANGE_RECOVERED, placement->map,
                   placement->slot * reach, reach);
}

static int
carry_out(struct q2_tables *tables, const struct q2_placement *placement, struct q2_error *err)
{
    struct q2_scene *scene = tables->scene;
    uint64_t at = q2_slot_at(tables->slots, placement->map, placement->slot);
    int rc = 0;
    bool doing = q2_plan_begin(&scene->plan, kind_of(tables, placement), placement->confidence, at,
                               "the L2 table at offset 0x%" PRIx64 " belongs into slot %" PRIu64
                               " of the L1 table: %s",
                               placement->table, placement->slot, placement->why);
    describe(tables, placement);
    if (doing)
        rc = q2_scene_write64(scene, Q2_OWNER_L1_TABLE, at, entry_for(tables, placement), err);
    q2_plan_end(&scene->plan);
    return rc;
}

/* One round: those that the level permits, or those that it does not. */
static int
carry_out_all(struct q2_tables *tables, bool permitted, struct q2_error *err)
{
    int rc = 0;
    for (uint64_t i = 0; i < tables->placing.count && rc == 0; i++)
        if (is_permitted(tables->scene, tables->placing.items[i].confidence) == permitted)
            rc = carry_out(tables, &tables->placing.items[i], err);
    return rc;
}

/* What is not explained must not be freed: tables that may yet be put in their places, and what
 * they map. Entries that cannot be right need no word: the check goes on finding them. */
static void
keep_evidence(struct q2_tables *tables)
{
    for (uint64_t i = 0; i < tables->placing.count; i++)
        if (!is_permitted(tables->scene, tables->placing.items[i].confidence))
            tables->scene->keep_all = true;
}

/* Whether it is not known where the active L1 table is: what seems to be lost may well be what it
 * leads to, or even belong to the refcounts. */
static bool
lacks_l1(const struct q2_tables *tables)
{
    const struct q2_check *check = tables->scene->check;
    return !(check->usable & Q2_USABLE_L1) ||
           (q2_scene_count(tables->scene, Q2_PROBLEM_HEADER_L1_TOO_SMALL) &&
            tables->slots->maps[0].sound == 0);
}

static int
run_round(struct q2_scene *scene, bool last, struct q2_error *err)
{
    struct q2_tables tables;
    int rc = q2_tables_open(scene, &tables, err);
    if (rc < 0)
        return rc;
    rc = q2_tables_restore_l1(&tables, err);
    if (rc < 0 || scene->edited || lacks_l1(&tables)) {
        scene->keep_all |= !scene->edited;
        q2_tables_close(&tables);
        return rc;
    }
    rc = q2_place_flips(&tables.placing, err);
    if (rc == 0)
        rc = q2_place_missing(&tables.placing, err);
    if (rc == 0)
        rc = q2_place_lost(&tables.placing, err);
    if (rc == 0)
        rc = carry_out_all(&tables, true, err);
    if (rc == 0 && (last || !scene->edited)) {
        rc = carry_out_all(&tables, false, err);
        if (rc == 0)
            rc = q2_tables_settle_rest(&tables, err);
        keep_evidence(&tables);
    }
    q2_tables_close(&tables);
    return rc;
}

static bool
is_clean(const struct q2_check *check)
{
    return check->counts.corruptions == 0 && check->counts.leaks == 0 &&
           check->counts.check_errors == 0;
}

int
q2_fix_tables(struct q2_scene *scene, struct q2_error *err)
{
    if (!scene->check || !(scene->check->usable & Q2_USABLE_GEOMETRY) || is_clean(scene->check))
        return 0;
    int rc = 0;
    for (int round = 1; round <= MAX_ROUNDS && rc == 0; round++) {
        bool last = round == MAX_ROUNDS;
        rc = run_round(scene, last, err);
        if (rc < 0 || last || !scene->edited)
            return rc;
        rc = q2_scene_recheck(scene, err);
    }
    return rc;
}
