/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Compressed clusters whose descriptor leads to nothing that decodes. Software packs the streams of
 * a disk one behind the other, and a stream says itself where it ends. So from a sound neighbour
 * the streams of a damaged run can be followed, each from where the one before ends; if the last
 * ends where the sound entry behind the run begins, nothing else fits. A single descriptor may also
 * be one flipped bit away from one that decodes. */

#include "repair/fix.h"

#include "core/base/checked.h"
#include "repair/entries.h"

#include <inttypes.h>


struct chain {
    struct q2_entries *entries;
    struct q2_anchors anchors;
    uint64_t *raws; /* found entries of the run */
    uint64_t count; /* of the run */
};

static uint64_t
end_of(struct q2_entries *entries, uint64_t raw)
{
    size_t used;
    if (!(raw & Q2_ENTRY_COMPRESSED) || !q2_matcher_decodes(&entries->matcher, raw, &used))
        return 0;
    return q2_compressed_decode(&entries->survey->scene->check->geometry, raw).offset + used;
}

/* The descriptor of the stream that begins at `offset`, as software makes it; 0: none does. */
static uint64_t
stream_at(struct q2_entries *entries, uint64_t offset, uint64_t *ret_end)
{
    const struct q2_geometry *geometry = &entries->survey->scene->check->geometry;
    uint64_t limit = geometry->file_clusters << geometry->cluster_bits;
    if (!q2_range_inside(offset, 1, limit))
        return 0;
    uint64_t most = q2_min(geometry->cluster_size, limit - offset);
    size_t used;
    if (!q2_matcher_decodes(&entries->matcher, q2_compressed_encode(geometry, offset, most),
                            &used) ||
        used == 0)
        return 0;
    *ret_end = offset + used;
    return q2_compressed_encode(geometry, offset, used);
}

/* Follow the streams from the front of the run; returns how many were found, and where the last
 * ends. */
static uint64_t
follow(struct chain *chain, uint64_t *ret_end)
{
    uint64_t at = chain->anchors.has_before ? end_of(chain->entries, chain->anchors.before.raw) : 0;
    uint64_t found = 0;
    while (at && found < chain->count) {
        uint64_t raw = stream_at(chain->entries, at, &at);
        if (!raw)
            break;
        chain->raws[found++] = raw;
    }
    *ret_end = at;
    return found;
}

static bool
meets_behind(const struct chain *chain, uint64_t end)
{
    const struct q2_geometry *geometry = &chain->entries->survey->scene->check->geometry;
    uint64_t raw = chain->anchors.behind.raw;
    return chain->anchors.has_behind && (raw & Q2_ENTRY_COMPRESSED) &&
           q2_compressed_decode(geometry, raw).offset == end;
}

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
    uint64_t found = follow(chain, &end);
    bool closed = found == chain->count && meets_behind(chain, end);
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

static int
mend_undecodable(struct q2_entries *entries, const struct q2_finding *finding, struct q2_error *err)
{
    const struct q2_check *check = entries->survey->scene->check;
    const struct q2_geometry *geometry = &check->geometry;
    struct q2_suspect suspect = {
        .why = Q2_SUSPECT_TARGET,
        .l1_index = finding->l1_index,
        .l2_index = finding->l2_index,
        .at = finding->host_offset,
        .guest = finding->guest_offset,
    };
    uint8_t word[16] = {0};
    struct q2_matches near;
    if (q2_file_read(check->file, suspect.at, word, geometry->l2_entry_size, NULL) < 0)
        return 0;
    suspect.entry = q2_l2_load(geometry, word, 0);
    q2_match_near(&entries->matcher, &suspect, 1, &near);
    if (near.count == 0)
        return 0;
    return set_entry(entries, &suspect, near.items[0].raw, near.count == 1 ? Q2_CERTAIN : Q2_GUESS,
                     "one flipped bit away is an entry whose data decodes", err);
}

static int
mend_findings(struct q2_entries *entries, struct q2_error *err)
{
    const struct q2_check *check = entries->survey->scene->check;
    const unsigned needed = Q2_HAS_HOST | Q2_HAS_GUEST | Q2_HAS_L1 | Q2_HAS_L2;
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
        if (suspect->is_l1 || !(suspect->why & (Q2_SUSPECT_RULE | Q2_SUSPECT_PAST_END)))
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
