/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The snapshot table: where it is, how many entries it has, and the entries themselves.
 *
 * What a table lists can be held against the rest of the image: the L1 table of a snapshot that is
 * not listed any more is lost, and so is what only that leads to. So an entry is believed whose L1
 * table is lost, and a table all of whose entries are like that. What a crash leaves behind when a
 * snapshot is made or deleted looks the same, but for the header: it never counts fewer snapshots
 * than the table that it leads to has. */

#include "repair/fix.h"

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "repair/snapshot_read.h"
#include "repair/snapshot_rebuild.h"
#include "repair/tables_parts.h"

#include <inttypes.h>

enum { MAX_L1S = 1024 }; /* lost L1 tables that are looked for in a snapshot table */

static const enum q2_problem table_problems[] = {
    Q2_PROBLEM_HEADER_SNAPSHOTS_UNALIGNED, Q2_PROBLEM_HEADER_SNAPSHOTS_TOO_MANY,
    Q2_PROBLEM_SNAPSHOT_TABLE_PAST_END,    Q2_PROBLEM_SNAPSHOT_TABLE_UNREADABLE,
    Q2_PROBLEM_SNAPSHOT_TABLE_TOO_BIG,     Q2_PROBLEM_SNAPSHOT_TABLE_LOST,
    Q2_PROBLEM_SNAPSHOT_TABLE_SHORT,
};

/* Answer all findings of a problem. */
static void
answer(struct q2_scene *scene, enum q2_problem problem)
{
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++) {
        const struct q2_finding *finding = q2_check_finding(scene->check, i);
        if (finding->problem == problem)
            q2_plan_answer(&scene->plan, problem, finding->host_offset, finding->count);
    }
}

/* ---- how many, and where ---- */

/* What the header should say of the snapshot table. */
struct verdict {
    bool any;
    uint64_t offset;
    uint64_t count;
    enum q2_confidence confidence;
    const char *why;
};

/* Whether an L1 table is lost that no entry of a run has. */
static bool
has_lost_l1(struct q2_tables *tables, const struct q2_snapshot_run *run)
{
    unsigned bits = tables->scene->check->geometry.cluster_bits;
    for (uint64_t i = 0; i < tables->carving->count; i++)
        if (tables->carving->tables[i].is_l1 &&
            (i >= MAX_L1S ||
             !q2_snapshot_run_has(tables->carving, run, tables->carving->tables[i].offset >> bits)))
            return true;
    return false;
}

static bool
is_place(const struct q2_check *check, uint64_t offset)
{
    return offset && !(offset & (check->geometry.cluster_size - 1)) &&
           offset < check->geometry.file_size;
}

/* Entries that the checker could use, from the first on: they stay, whatever is wrong with them. */
static uint64_t
usable_entries(const struct q2_check *check)
{
    uint64_t count = 0;
    while (count + 1 < check->map_count && check->maps[count + 1].l1_size)
        count++;
    return count;
}

/* The table is where the header says, and has more entries or fewer. */
static struct verdict
judge_count(struct q2_tables *tables, const struct q2_snapshot_run *run)
{
    const struct q2_check *check = tables->scene->check;
    uint64_t counted = check->header.nb_snapshots;
    uint64_t count = q2_max(run->count, usable_entries(check));
    struct verdict verdict = {.offset = run->at, .count = count};
    /* An entry that breaks a rule ends a run, and is one all the same. */
    if (count == counted ||
        (count < counted && check->snapshot_count > count && check->maps[count + 1].l1_size))
        return verdict;
    if (count < counted && check->snapshot_count == counted && run->lost == 0)
        return verdict;
    verdict.any = true;
    if (count > counted) {
        verdict.confidence = run->lost >= count - counted ? Q2_CERTAIN : Q2_GUESS;
        verdict.why = "nothing else leads to the L1 tables of those that are not counted";
    } else {
        verdict.confidence = has_lost_l1(tables, run) ? Q2_LIKELY : Q2_CERTAIN;
        verdict.why = "nothing that looks like an entry follows the last one";
    }
    return verdict;
}

/* There is no table where the header says: one flipped bit away, or elsewhere? */
static struct verdict
judge_place(struct q2_tables *tables)
{
    const struct q2_header *header = &tables->scene->check->header;
    struct verdict verdict = {0};
    struct q2_snapshot_run run;
    uint64_t near = 0, tied;
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t offset = header->snapshots_offset ^ UINT64_C(1) << bit;
        if (!is_place(tables->scene->check, offset))
            continue;
        q2_snapshot_run(tables->carving, offset, Q2_MAX_SNAPSHOTS, NULL, &run);
        if (run.lost == 0 || (header->nb_snapshots && run.count > header->nb_snapshots))
            continue;
        near++;
        verdict = (struct verdict){.any = true,
                                   .offset = offset,
                                   .count = run.count,
                                   .confidence =
                                       run.count == header->nb_snapshots ? Q2_CERTAIN : Q2_LIKELY,
                                   .why = "one bit of its offset differs"};
    }
    if (near == 1)
        return verdict;
    q2_snapshot_search(tables->carving, Q2_MAX_SNAPSHOTS, &run, &tied);
    if (run.count == 0)
        return (struct verdict){0};
    bool exact = run.count == header->nb_snapshots;
    return (struct verdict){.any = true,
                            .offset = run.at,
                            .count = run.count,
                            .confidence = tied > 1 ? Q2_GUESS
                                          : exact  ? Q2_CERTAIN
                                                   : Q2_LIKELY,
                            .why = exact ? "it has as many entries as the header counts"
                                         : "nothing leads to it or to what it lists"};
}

/* No entry can be read, and nothing is lost that one could list. */
static struct verdict
judge_nothing(struct q2_tables *tables)
{
    const struct q2_header *header = &tables->scene->check->header;
    bool lost = has_lost_l1(tables, &(struct q2_snapshot_run){0});
    return (struct verdict){.any = header->nb_snapshots > 0,
                            .confidence =
                                !header->snapshots_offset && !lost ? Q2_CERTAIN : Q2_GUESS,
                            .why = lost ? "no entry of it can be read" : "there is none"};
}

static int
write_header(struct q2_scene *scene, const struct verdict *verdict, struct q2_error *err)
{
    struct q2_header_field count, offset;
    uint8_t bytes[8];
    if (!q2_header_field("nb_snapshots", &count) || !q2_header_field("snapshots_offset", &offset))
        return 0;
    q2_store_be32(bytes, (uint32_t)verdict->count);
    int rc = 0;
    if (verdict->count != scene->check->header.nb_snapshots)
        rc = q2_scene_write(scene, Q2_OWNER_HEADER, count.offset, bytes, 4, err);
    if (rc == 0 && verdict->offset != scene->check->header.snapshots_offset)
        rc = q2_scene_write64(scene, Q2_OWNER_HEADER, offset.offset, verdict->offset, err);
    return rc;
}

static int
carry_out(struct q2_tables *tables, const struct verdict *verdict, struct q2_error *err)
{
    struct q2_scene *scene = tables->scene;
    const struct q2_header *header = &scene->check->header;
    struct q2_header_field field;
    enum q2_confidence confidence = verdict->confidence;
    if (!verdict->any || !q2_header_field("nb_snapshots", &field))
        return 0;
    if (!tables->survey->counts_help && confidence == Q2_CERTAIN && verdict->count)
        confidence = Q2_LIKELY;
    int rc = 0;
    bool doing = q2_plan_begin(&scene->plan,
                               verdict->count             ? Q2_ACTION_RESTORE_SNAPSHOT_TABLE
                               : header->snapshots_offset ? Q2_ACTION_REMOVE_SNAPSHOT
                                                          : Q2_ACTION_MEND_HEADER,
                               confidence, field.offset,
                               "the header counts %" PRIu32 " snapshots in a table at 0x%" PRIx64
                               "; there are %" PRIu64 " at 0x%" PRIx64 ", and %s",
                               header->nb_snapshots, header->snapshots_offset, verdict->count,
                               verdict->offset, verdict->why);
    for (size_t i = 0; i < sizeof table_problems / sizeof table_problems[0]; i++)
        answer(scene, table_problems[i]);
    for (uint64_t i = scene->check->map_count - 1; i < verdict->count; i++)
        q2_plan_change(&scene->plan, Q2_CHANGE_RECOVERED, (uint32_t)i + 1, 0, header->size);
    if (doing)
        rc = write_header(scene, verdict, err);
    else
        scene->keep_all = true;
    q2_plan_end(&scene->plan);
    return rc;
}

static int
flip_byte(struct q2_scene *scene, const struct q2_snapshot_patch *patch, struct q2_error *err)
{
    uint8_t byte;
    int rc = q2_file_read(scene->file, patch->at, &byte, 1, err);
    byte ^= patch->mask;
    return rc == 0 ? q2_scene_write(scene, Q2_OWNER_SNAPSHOT_TABLE, patch->at, &byte, 1, err) : rc;
}

/* Whether every entry that the header counts is there, whatever else is wrong with it. */
static bool
is_whole(const struct q2_scene *scene)
{
    uint64_t count = usable_entries(scene->check);
    if (count != scene->check->header.nb_snapshots ||
        q2_scene_count(scene, Q2_PROBLEM_SNAPSHOT_EXTRA_BIG))
        return false;
    for (uint32_t m = 1; m <= count; m++)
        if (!q2_snapshot_in_step(scene, m))
            return false;
    return true;
}

/* The table ends too early: a flipped bit in an entry hides those behind it. */
static int
mend_chain(struct q2_tables *tables, const struct q2_snapshot_run *run, bool *ret_mended,
           struct q2_error *err)
{
    struct q2_scene *scene = tables->scene;
    const struct q2_header *header = &scene->check->header;
    struct q2_snapshot_patch patch, other;
    uint64_t start = header->snapshots_offset, count = 0, others = 0;
    *ret_mended = false;
    if (!is_place(scene->check, start) || run->count >= header->nb_snapshots || is_whole(scene) ||
        header->nb_snapshots > Q2_MAX_SNAPSHOTS)
        return 0;
    q2_snapshot_flips(tables->carving, start, start + run->length, header->nb_snapshots, &patch,
                      &count);
    if (run->count)
        q2_snapshot_flips(tables->carving, start, run->last, header->nb_snapshots, &other, &others);
    if (count + others == 0)
        return 0;
    if (count == 0)
        patch = other;
    *ret_mended = true;
    int rc = 0;
    if (q2_plan_begin(&scene->plan, Q2_ACTION_MEND_SNAPSHOT,
                      count + others == 1 ? Q2_CERTAIN : Q2_LIKELY, patch.at,
                      "with one bit of the byte at 0x%" PRIx64
                      " flipped, the table has the %" PRIu32
                      " entries that the header counts, and their L1 tables are lost",
                      patch.at, header->nb_snapshots))
        rc = flip_byte(scene, &patch, err);
    else
        scene->keep_all = true;
    for (size_t i = 0; i < sizeof table_problems / sizeof table_problems[0]; i++)
        answer(scene, table_problems[i]);
    for (uint64_t i = run->count; i < header->nb_snapshots; i++)
        q2_plan_change(&scene->plan, Q2_CHANGE_RECOVERED, (uint32_t)i + 1, 0, header->size);
    q2_plan_end(&scene->plan);
    return rc;
}

static int
mend_table(struct q2_tables *tables, struct q2_error *err)
{
    const struct q2_header *header = &tables->scene->check->header;
    struct q2_snapshot_run run = {.at = header->snapshots_offset};
    struct verdict verdict;
    bool mended;
    if (is_place(tables->scene->check, header->snapshots_offset))
        q2_snapshot_run(tables->carving, header->snapshots_offset, Q2_MAX_SNAPSHOTS, NULL, &run);
    int rc = mend_chain(tables, &run, &mended, err);
    if (rc < 0 || mended)
        return rc;
    uint64_t readable = q2_max(run.count, usable_entries(tables->scene->check));
    verdict = readable ? judge_count(tables, &run) : judge_place(tables);
    if (readable || !verdict.any) {
        rc = q2_snapshots_rebuild(tables, readable, &mended, err);
        if (rc < 0 || mended)
            return rc;
    }
    if (!verdict.any && readable == 0)
        verdict = judge_nothing(tables);
    return carry_out(tables, &verdict, err);
}

/* ---- the whole ---- */

static bool
concerns(const struct q2_scene *scene)
{
    for (size_t i = 0; i < sizeof table_problems / sizeof table_problems[0]; i++)
        if (q2_scene_count(scene, table_problems[i]))
            return true;
    return scene->check->header.nb_snapshots > 0 ||
           q2_scene_count(scene, Q2_PROBLEM_ORPHAN_L1_TABLE);
}

static bool
is_clean(const struct q2_check *check)
{
    return check->counts.corruptions == 0 && check->counts.leaks == 0 &&
           check->counts.check_errors == 0;
}

static int
run(struct q2_scene *scene, bool entries, struct q2_error *err)
{
    struct q2_tables tables;
    int rc = q2_tables_open(scene, &tables, err);
    if (rc < 0)
        return rc;
    if (!entries)
        rc = mend_table(&tables, err);
    for (uint32_t m = 1;
         entries && m < tables.slots->map_count && rc == 0 && q2_snapshot_in_step(scene, m); m++)
        rc = q2_snapshot_mend(&tables, m, err);
    if (!entries && rc == 0 && !scene->edited && !scene->keep_all)
        rc = q2_snapshot_fix_extra(&tables, err);
    q2_tables_close(&tables);
    return rc == 0 ? q2_scene_recheck(scene, err) : rc;
}

int
q2_fix_snapshots(struct q2_scene *scene, struct q2_error *err)
{
    if (!scene->check || !(scene->check->usable & Q2_USABLE_GEOMETRY) || is_clean(scene->check) ||
        !concerns(scene) || !q2_scene_searches(scene))
        return 0;
    int rc = run(scene, true, err);
    return rc == 0 ? run(scene, false, err) : rc;
}
