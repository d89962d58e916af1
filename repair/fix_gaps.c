/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Gaps of the disk that lost clusters fill exactly: a piece of an L2 table was overwritten with
 * zeros. Zeros break no rule, and the guest may well have discarded just this range before a crash,
 * so none of this is certain. But as long as it may be so, the clusters are not given away. */

#include "repair/fix.h"

#include "core/base/checked.h"
#include "core/format/references.h"
#include "repair/chains.h"

#include <inttypes.h>

enum {
    SECTOR = 512,
    TORN_SECTORS = 8,  /* that are lost at once: disks write 4 KiB or less */
    MIN_SCATTERED = 8, /* clusters; fewer are what a crash leaks */
};

struct gap {
    struct q2_entries *entries;
    const struct q2_table_reference *reference;
    uint64_t first; /* L2 index */
    uint64_t count;
    uint64_t before, behind; /* entries beside it; 0: none, or the table ends there */
    uint64_t torn;           /* entries so far in gaps of whole sectors among entries that map */
    uint64_t most;  /* clusters, at most, to which empty sectors of tables so far may have led */
    uint64_t least; /* and to which one of the sparsest table would have led; 0: there is none */
    bool blank;     /* there is a table with nothing in it */
    bool offered;   /* some of what is lost may fill a gap, but is beyond the level */
};

static const struct q2_geometry *
geometry_of(const struct gap *gap)
{
    return &gap->entries->survey->scene->check->geometry;
}

static uint64_t
standard(const struct gap *gap, uint64_t raw)
{
    return raw & Q2_ENTRY_COMPRESSED ? 0 : q2_entry_offset(raw) >> geometry_of(gap)->cluster_bits;
}

/* ---- carrying it out ---- */

static int
fill(struct gap *gap, uint64_t skip, uint64_t count, const uint64_t *raws,
     enum q2_confidence confidence, const char *why, struct q2_error *err)
{
    struct q2_survey *survey = gap->entries->survey;
    struct q2_scene *scene = survey->scene;
    const struct q2_geometry *geometry = geometry_of(gap);
    uint64_t index = gap->first + skip, slot = gap->reference->slot;
    uint64_t at =
        (gap->reference->table << geometry->cluster_bits) + index * geometry->l2_entry_size;
    const struct q2_suspect place = {
        .at = at,
        .map = gap->reference->map,
        .l1_index = gap->reference->slot,
        .guest = slot * q2_l2_reach(geometry) + (index << geometry->cluster_bits),
    };
    bool apply =
        q2_plan_begin(&scene->plan, Q2_ACTION_FILL_GAP, confidence, at,
                      "%" PRIu64 " empty L2 entries from 0x%" PRIx64 " on: %s", count, at, why);
    q2_survey_change(survey, &place, Q2_CHANGE_RECOVERED, count << geometry->cluster_bits);
    int rc = 0;
    gap->offered |= !apply;
    for (uint64_t i = 0; i < count && rc == 0; i++) {
        const struct q2_match match = {.raw = raws[i]};
        uint64_t first, length;
        if (apply)
            rc = q2_scene_write64(scene, Q2_OWNER_L2_TABLE, at + i * geometry->l2_entry_size,
                                  raws[i], err);
        if (rc == 0 && apply && geometry->extended_l2)
            rc = q2_scene_write64(scene, Q2_OWNER_L2_TABLE, at + i * geometry->l2_entry_size + 8,
                                  UINT32_MAX, err);
        if (rc == 0 && q2_entry_clusters(geometry, raws[i], &first, &length) && !apply)
            rc = q2_scene_keep(scene, first, length, err);
        q2_match_take(&gap->entries->matcher, &match);
    }
    q2_plan_end(&scene->plan);
    return rc;
}

static int
new_raws(const struct gap *gap, uint64_t **ret_raws, struct q2_error *err)
{
    void *memory;
    int rc = q2_budget_calloc(&gap->entries->survey->scene->budget, gap->count, 8, "a gap", &memory,
                              err);
    if (rc == 0)
        *ret_raws = memory;
    return rc;
}

static void
free_raws(const struct gap *gap, uint64_t *raws)
{
    q2_budget_free(&gap->entries->survey->scene->budget, raws, gap->count, 8);
}

/* ---- standard clusters ---- */

/* Lost clusters in a row from `cluster` on, at most `most`; backwards with step -1. */
static uint64_t
lost_run(const struct gap *gap, uint64_t cluster, bool backwards, uint64_t most)
{
    uint64_t count = 0;
    while (count < most &&
           q2_survey_lost(gap->entries->survey, backwards ? cluster - count : cluster + count))
        count++;
    return count;
}

static int
fill_standard(struct gap *gap, uint64_t skip, uint64_t count, uint64_t cluster, bool exact,
              const char *why, struct q2_error *err)
{
    uint64_t *raws;
    int rc = new_raws(gap, &raws, err);
    if (rc < 0)
        return rc;
    for (uint64_t i = 0; i < count; i++)
        raws[i] = (cluster + i) << geometry_of(gap)->cluster_bits | Q2_ENTRY_COPIED;
    bool likely = exact && gap->entries->survey->counts_help;
    rc = fill(gap, skip, count, raws, likely ? Q2_LIKELY : Q2_GUESS, why, err);
    free_raws(gap, raws);
    return rc;
}

/* Whether a side of the gap is where a sector of the table begins or ends: what overwrites a part
 * of a table does so in sectors. Anywhere else lost clusters are rather leaks of a crash. */
static bool
at_sector(const struct gap *gap, uint64_t index)
{
    return index * geometry_of(gap)->l2_entry_size % SECTOR == 0;
}

static int
try_standard(struct gap *gap, struct q2_error *err)
{
    uint64_t before = standard(gap, gap->before), behind = standard(gap, gap->behind);
    /* The clusters of a table are often taken right after it. */
    if (gap->first == 0)
        before = gap->reference->table;
    uint64_t ahead = before ? lost_run(gap, before + 1, false, gap->count + 1) : 0;
    uint64_t back = behind > 1 ? lost_run(gap, behind - 1, true, gap->count + 1) : 0;
    bool front_torn = at_sector(gap, gap->first);
    bool back_torn = at_sector(gap, gap->first + gap->count);
    if (before && behind == before + gap->count + 1 && ahead >= gap->count)
        return fill_standard(gap, 0, gap->count, before + 1, true,
                             "lost clusters fill the gap between its neighbours exactly", err);
    if (ahead && ahead <= gap->count && front_torn)
        return fill_standard(gap, 0, ahead, before + 1, ahead == gap->count,
                             "lost clusters go on where the entry in front ends", err);
    if (back && back <= gap->count && back_torn)
        return fill_standard(gap, gap->count - back, back, behind - back, back == gap->count,
                             "lost clusters end where the entry behind begins", err);
    return 0;
}

/* ---- compressed clusters ---- */

static int
try_compressed(struct gap *gap, struct q2_error *err)
{
    uint64_t *raws, end;
    uint64_t from = q2_chain_end(gap->entries, gap->before);
    if (!from || !(gap->behind & Q2_ENTRY_COMPRESSED) ||
        q2_chain_meets(gap->entries, gap->behind, from))
        return 0;
    int rc = new_raws(gap, &raws, err);
    if (rc < 0)
        return rc;
    uint64_t guest = gap->reference->slot * q2_l2_reach(geometry_of(gap)) +
                     (gap->first << geometry_of(gap)->cluster_bits);
    uint64_t found = q2_chain_follow(gap->entries, from, guest, gap->count, raws, &end);
    if (found == gap->count && q2_chain_meets(gap->entries, gap->behind, end))
        rc = fill(gap, 0, found, raws, Q2_LIKELY,
                  "streams that nothing leads to fill the gap between its neighbours exactly", err);
    free_raws(gap, raws);
    return rc;
}

/* ---- what other maps have ---- */

/* Entries that other maps have in the gap, of clusters that are counted once more than they are
 * used.
 */
static int
try_peers(struct gap *gap, struct q2_error *err)
{
    const struct q2_geometry *geometry = geometry_of(gap);
    uint64_t *raws, run = 0;
    int rc = new_raws(gap, &raws, err);
    if (rc < 0)
        return rc;
    const struct q2_suspect place = {
        .at = (gap->reference->table << geometry->cluster_bits) +
              gap->first * geometry->l2_entry_size,
        .l1_index = gap->reference->slot,
        .l2_index = (uint32_t)gap->first,
    };
    q2_entries_peers(gap->entries, &place, gap->count, raws, NULL);
    for (uint64_t i = 0; i <= gap->count && rc == 0; i++) {
        if (i < gap->count && raws[i]) {
            raws[i] <<= geometry->cluster_bits;
            run++;
            continue;
        }
        if (run)
            rc =
                fill(gap, i - run, run, raws + i - run, Q2_LIKELY,
                     "other maps have clusters there that are counted once more than they are used",
                     err);
        run = 0;
    }
    free_raws(gap, raws);
    return rc;
}

/* ---- finding them ---- */

static bool
is_empty(const struct gap *gap, uint64_t index)
{
    struct q2_l2_entry entry = q2_l2_load(geometry_of(gap), gap->entries->view.bytes, index);
    return entry.raw == 0 && entry.bitmap == 0;
}

/* A sector of the table in memory that is empty may have been as full as the others, if it lies
 * beside one of them: not farther than what is written at once reaches. */
static void
count_empty_sectors(struct gap *gap)
{
    const struct q2_geometry *geometry = geometry_of(gap);
    uint64_t per_sector = SECTOR / geometry->l2_entry_size;
    uint64_t empty = 0, row = 0, occupied = 0, mapped = 0, fullest = 0;
    for (uint64_t i = 0; i < geometry->l2_entries; i += per_sector) {
        uint64_t here = 0;
        for (uint64_t j = 0; j < per_sector; j++)
            here += !is_empty(gap, i + j);
        row += here == 0;
        if (here == 0)
            continue;
        empty += q2_min(row, occupied ? 2 * TORN_SECTORS : TORN_SECTORS);
        row = 0;
        occupied++;
        mapped += here;
        fullest = q2_max(fullest, here);
    }
    empty += q2_min(row, TORN_SECTORS);
    gap->blank |= occupied == 0;
    if (empty == 0 || occupied == 0)
        return;
    gap->most += empty * fullest;
    gap->least = gap->least ? q2_min(gap->least, mapped / occupied) : mapped / occupied;
}

static int
look_in_table(struct gap *gap, struct q2_error *err)
{
    const struct q2_geometry *geometry = geometry_of(gap);
    const uint8_t *table = gap->entries->view.bytes;
    int rc = 0;
    if (!q2_table_view_load(&gap->entries->view, gap->reference->table << geometry->cluster_bits))
        return 0;
    count_empty_sectors(gap);
    for (uint64_t i = 0, end; i < geometry->l2_entries && rc == 0; i = end) {
        end = i + 1;
        if (!is_empty(gap, i))
            continue;
        while (end < geometry->l2_entries && is_empty(gap, end))
            end++;
        gap->first = i;
        gap->count = end - i;
        gap->before = i ? q2_l2_load(geometry, table, i - 1).raw : 0;
        gap->behind = end < geometry->l2_entries ? q2_l2_load(geometry, table, end).raw : 0;
        if (at_sector(gap, i) && at_sector(gap, end) && (gap->before || gap->behind))
            gap->torn += gap->count;
        rc = gap->before & Q2_ENTRY_COMPRESSED ? try_compressed(gap, err) : try_standard(gap, err);
        if (rc == 0 && gap->entries->survey->counts_help &&
            q2_scene_count(gap->entries->survey->scene, Q2_PROBLEM_REFCOUNT_TOO_HIGH))
            rc = try_peers(gap, err);
    }
    return rc;
}

/* Whether the lost clusters are what empty sectors led to, as far as can be told. Those of a gap of
 * just whole sectors may lie anywhere; in longer gaps what lies behind all else is rather what a
 * crash leaked, as are a few. */
static bool
are_torn(const struct gap *gap, uint64_t lost, bool inside)
{
    if (lost && lost <= gap->torn && lost >= gap->torn / 2)
        return true;
    return inside && lost <= gap->most && lost >= q2_max(gap->least / 2, MIN_SCATTERED);
}

/* Keep what is lost where empty sectors of tables could have led to it, and hardly anything else:
 * it cannot be told which cluster belongs where. A table with nothing in it could have led to
 * anything, and where a part of what is lost may fill a gap, the rest may be of the same table. */
static int
keep_for_torn(const struct gap *gap, struct q2_error *err)
{
    struct q2_survey *survey = gap->entries->survey;
    uint64_t lost = 0;
    bool inside = false, behind = false, any = gap->blank || gap->offered;
    int rc = 0;
    if (!any && (q2_scene_count(survey->scene, Q2_PROBLEM_ORPHAN_L2_TABLE) ||
                 q2_scene_count(survey->scene, Q2_PROBLEM_ORPHAN_L1_TABLE)))
        return 0;
    for (uint64_t cluster = survey->clusters; cluster-- > 1;) {
        bool here = q2_survey_lost(survey, cluster);
        lost += here;
        inside |= here && behind;
        behind |= !here && q2_bit_test(survey->sound, cluster);
    }
    if (!any && !are_torn(gap, lost, inside))
        return 0;
    for (uint64_t cluster = 1; cluster < survey->clusters && rc == 0; cluster++)
        if (q2_survey_lost(survey, cluster))
            rc = q2_scene_keep(survey->scene, cluster, 1, err);
    return rc;
}

int
q2_fix_gaps(struct q2_scene *scene, struct q2_error *err)
{
    struct q2_entries entries;
    bool lost = q2_scene_count(scene, Q2_PROBLEM_CLUSTER_LEAKED) ||
                q2_scene_count(scene, Q2_PROBLEM_REFCOUNT_TOO_HIGH);
    if (!lost || !(scene->check->usable & Q2_USABLE_L1) || scene->check->geometry.data_file)
        return 0;
    int rc = q2_entries_init(&entries, scene, err);
    if (rc < 0)
        return rc;
    uint64_t last = UINT64_MAX;
    struct gap gap = {.entries = &entries};
    for (uint64_t i = 0; i < entries.survey->reference_count && rc == 0; i++) {
        gap.reference = &entries.survey->references[i];
        if (gap.reference->suspect || gap.reference->table == last)
            continue;
        last = gap.reference->table;
        rc = look_in_table(&gap, err);
    }
    if (rc == 0 && (gap.torn || gap.most || gap.blank || gap.offered))
        rc = keep_for_torn(&gap, err);
    q2_entries_destroy(&entries);
    return rc;
}
