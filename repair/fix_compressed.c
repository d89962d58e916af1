/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Compressed clusters whose descriptor leads to nothing that decodes. Software packs the streams of
 * a disk one behind the other, and a stream says itself where it ends. So from a sound neighbour
 * the streams of a damaged run can be followed, each from where the one before ends; if the last
 * ends where the sound entry behind the run begins, nothing else fits. A single descriptor may also
 * be one flipped bit away from one that decodes. */

#include "repair/fix.h"

#include "core/base/checked.h"
#include "repair/chains.h"

#include <inttypes.h>

struct chain {
    struct q2_entries *entries;
    struct q2_anchors anchors;
    uint64_t *raws; /* found entries of the run */
    uint64_t count; /* of the run */
};

static int
set_entry(struct q2_entries *entries, const struct q2_suspect *suspect, uint64_t raw,
          enum q2_confidence confidence, const char *why, struct q2_error *err)
{
    struct q2_scene *scene = entries->survey->scene;
    bool apply = q2_plan_begin(&scene->plan, Q2_ACTION_MEND_COMPRESSED, confidence, suspect->at,
                               "compressed cluster 0x%" PRIx64 " becomes 0x%" PRIx64 ": %s",
                               suspect->entry.raw, raw, why);
    q2_entries_answer(entries, suspect);
    q2_survey_change(entries->survey, suspect, Q2_CHANGE_RECOVERED,
                     scene->check->geometry.cluster_size);
    int rc = apply ? q2_scene_write64(scene, Q2_OWNER_L2_TABLE, suspect->at, raw, err) : 0;
    if (apply)
        q2_entries_settle(entries, suspect, &(struct q2_match){.raw = raw});
    q2_plan_end(&scene->plan);
    return rc;
}

/* ---- runs of entries that break rules ---- */

static int
mend_run(struct chain *chain, uint64_t index, struct q2_error *err)
{
    struct q2_entries *entries = chain->entries;
    void *memory;
    uint64_t end;
    int rc = q2_budget_calloc(&entries->survey->scene->budget, chain->count, 8,
                              "a run of compressed clusters", &memory, err);
    if (rc < 0)
        return rc;
    chain->raws = memory;
    uint64_t from = q2_chain_end(entries, chain->anchors.before.raw);
    uint64_t found = q2_chain_follow(entries, from, entries->survey->suspects[index].guest,
                                     chain->count, chain->raws, &end);
    bool closed = found == chain->count && chain->anchors.has_behind &&
                  q2_chain_meets(entries, chain->anchors.behind.raw, end);
    for (uint64_t i = 0; i < found && rc == 0; i++)
        rc = set_entry(entries, &entries->survey->suspects[index + i], chain->raws[i],
                       closed ? Q2_CERTAIN : Q2_LIKELY,
                       closed ? "the streams between its neighbours follow each other exactly"
                              : "a stream begins where that of its neighbour ends",
                       err);
    q2_budget_free(&entries->survey->scene->budget, memory, chain->count, 8);
    return rc;
}

/* ---- entries that obey the rules, but do not decode ---- */

/* Where the L2 entry is that a finding is about: in the first map that it concerns. */
static bool
locate(const struct q2_check *check, const struct q2_finding *finding,
       struct q2_suspect *ret_suspect)
{
    const struct q2_geometry *geometry = &check->geometry;
    const uint32_t *maps;
    uint8_t word[16] = {0};
    if (q2_check_maps(check, finding->maps, &maps) == 0 ||
        finding->l1_index >= check->maps[maps[0]].l1_size)
        return false;
    uint64_t l1_at = check->maps[maps[0]].l1_offset + (uint64_t)finding->l1_index * 8;
    if (q2_file_read(check->file, l1_at, word, 8, NULL) < 0)
        return false;
    uint64_t at =
        q2_entry_offset(q2_load_be64(word)) + (uint64_t)finding->l2_index * geometry->l2_entry_size;
    if (q2_file_read(check->file, at, word, geometry->l2_entry_size, NULL) < 0)
        return false;
    *ret_suspect = (struct q2_suspect){
        .why = Q2_SUSPECT_TARGET,
        .map = maps[0],
        .l1_index = finding->l1_index,
        .l2_index = finding->l2_index,
        .at = at,
        .guest = finding->guest_offset,
        .entry = q2_l2_load(geometry, word, 0),
    };
    return true;
}

/* The stream that begins where that of the entry in front ends, and ends where that behind begins.
 */
static uint64_t
between_neighbours(struct q2_entries *entries, const struct q2_suspect *suspect)
{
    const struct q2_geometry *geometry = &entries->survey->scene->check->geometry;
    uint64_t index = suspect->l2_index, raw, end;
    if (index == 0 || index + 1 >= geometry->l2_entries ||
        !q2_table_view_load(&entries->view, suspect->at - index * geometry->l2_entry_size))
        return 0;
    uint64_t before = q2_l2_load(geometry, entries->view.bytes, index - 1).raw;
    uint64_t behind = q2_l2_load(geometry, entries->view.bytes, index + 1).raw;
    bool found =
        q2_chain_follow(entries, q2_chain_end(entries, before), suspect->guest, 1, &raw, &end) == 1;
    return found && q2_chain_meets(entries, behind, end) ? raw : 0;
}

static int
mend_undecodable(struct q2_entries *entries, const struct q2_finding *finding, struct q2_error *err)
{
    struct q2_scene *scene = entries->survey->scene;
    struct q2_suspect suspect;
    struct q2_matches near;
    if (!locate(scene->check, finding, &suspect))
        return 0;
    uint64_t between = between_neighbours(entries, &suspect);
    q2_entries_peers(entries, &suspect, 1, &entries->matcher.also, NULL);
    q2_match_near(&entries->matcher, &suspect, 1, &near);
    entries->matcher.also = 0;
    if (!between && near.count == 0)
        return 0;
    bool sure = between || near.count == 1;
    return set_entry(entries, &suspect, between ? between : near.items[0].raw,
                     sure ? Q2_CERTAIN : Q2_GUESS,
                     between ? "the streams between its neighbours follow each other exactly"
                             : "one flipped bit away is an entry whose data can be read",
                     err);
}

static int
mend_findings(struct q2_entries *entries, struct q2_error *err)
{
    const struct q2_check *check = entries->survey->scene->check;
    const unsigned needed = Q2_HAS_GUEST | Q2_HAS_L1 | Q2_HAS_L2;
    int rc = 0;
    for (size_t i = 0; i < q2_check_finding_count(check) && rc == 0; i++) {
        const struct q2_finding *finding = q2_check_finding(check, i);
        if (finding->problem == Q2_PROBLEM_COMPRESSED_BROKEN && finding->count == 1 &&
            (finding->has & needed) == needed)
            rc = mend_undecodable(entries, finding, err);
    }
    return rc;
}

int
q2_fix_compressed(struct q2_scene *scene, struct q2_error *err)
{
    struct q2_entries entries;
    if (scene->check->counts.compressed_clusters == 0 || !q2_entries_wanted(scene))
        return 0;
    int rc = q2_entries_init(&entries, scene, err);
    if (rc < 0)
        return rc;
    for (uint64_t i = 0, next; i < entries.survey->suspect_count && rc == 0; i = next) {
        const struct q2_suspect *suspect = &entries.survey->suspects[i];
        struct chain chain = {.entries = &entries};
        next = i + 1;
        if (suspect->is_l1 || !(suspect->why & (Q2_SUSPECT_RULE | Q2_SUSPECT_PAST_END)) ||
            (suspect->why & Q2_SUSPECT_CUT))
            continue;
        q2_anchors_find(&entries.view, i, &chain.anchors);
        chain.count = chain.anchors.count;
        next = i + chain.count;
        if (chain.anchors.has_before && (chain.anchors.before.raw & Q2_ENTRY_COMPRESSED))
            rc = mend_run(&chain, i, err);
    }
    if (rc == 0)
        rc = mend_findings(&entries, err);
    q2_entries_destroy(&entries);
    return rc;
}
