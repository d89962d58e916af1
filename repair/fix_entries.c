/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* L2 entries that cannot be right. Each is held against what is lost: entries one flipped bit away
 * that lead to a lost cluster, and the lost cluster at which the neighbours meet. Where exactly one
 * possibility is left, that is the entry. Where nothing is lost that it could have meant, its data
 * is gone, and the guest is told so by zeros. */

#include "repair/fix.h"

#include "core/base/checked.h"
#include "repair/anchors.h"
#include "repair/entries.h"
#include "repair/match.h"

#include <inttypes.h>

enum { MAX_RIVALS = 16 }; /* entries that share a cluster, of which one is told from the others */

struct decision {
    enum q2_action_kind action;
    enum q2_confidence confidence;
    enum q2_change_kind change;
    struct q2_match match;
    const char *why;
};

struct mender {
    struct q2_entries *entries;
    const struct q2_suspect *suspect;
    struct q2_anchors anchors;
    uint64_t from_before, from_behind; /* clusters; 0: nothing says so */
    uint64_t peer;                     /* what another map has here, and misses a reference */
    bool several_peers;                /* there may be more than one such cluster */
    struct q2_matches near;
    uint64_t *later; /* a bit for each suspect that is left for last */
    bool last;
    uint64_t left; /* clusters that are lost still, at the last count */
    struct {
        uint64_t at, first; /* of the run, and of the clusters that it was held against */
        bool fits;
    } run; /* what fits_exactly said last */
};

static const struct q2_geometry *
geometry_of(const struct mender *mender)
{
    return &mender->entries->survey->scene->check->geometry;
}

/* ---- one bit away ---- */

static bool
agrees(const struct mender *mender, uint64_t cluster)
{
    return cluster && (cluster == mender->from_before || cluster == mender->from_behind ||
                       cluster == mender->peer);
}

/* Whether the neighbours meet at a lost cluster, and so speak against any other. */
static bool
neighbours_meet(const struct mender *mender)
{
    return mender->from_before && mender->from_before == mender->from_behind &&
           q2_match_lost(&mender->entries->matcher, mender->from_before);
}

/* The only entry one bit away that leads to what the neighbours, or other maps, have here. */
static bool
choose_near_agreeing(const struct mender *mender, struct decision *ret_decision)
{
    const struct q2_matches *near = &mender->near;
    size_t kept = near->count < Q2_MATCHES_MAX ? near->count : Q2_MATCHES_MAX, agreeing = 0;
    for (size_t i = 0; i < kept; i++) {
        if (!agrees(mender, near->items[i].cluster))
            continue;
        agreeing++;
        *ret_decision = (struct decision){
            .action = Q2_ACTION_MEND_L2_ENTRY,
            .confidence = Q2_CERTAIN,
            .match = near->items[i],
            .why = "one flipped bit away is the lost cluster that its neighbours, or other maps, "
                   "lead to",
        };
    }
    return agreeing == 1;
}

static bool
choose_near(const struct mender *mender, struct decision *ret_decision)
{
    const struct q2_matches *near = &mender->near;
    if (near->count == 0)
        return false;
    /* Or it led to what is lost, and more than one bit is gone. */
    bool empties = !near->items[0].cluster && mender->left && !geometry_of(mender)->data_file;
    *ret_decision = (struct decision){
        .action = Q2_ACTION_MEND_L2_ENTRY,
        .confidence = near->count > 1 ? Q2_GUESS
                      : empties       ? Q2_LIKELY
                                      : Q2_CERTAIN,
        .match = near->items[0],
        .why = near->count == 1
                   ? "one flipped bit away is the only entry that obeys the rules"
                   : "one flipped bit away are several entries that lead to lost clusters",
    };
    return true;
}

/* ---- between the neighbours ---- */

/* Whether the lost clusters from `first` on are exactly as many as the entries of the run. */
static bool
fits_run(const struct mender *mender, uint64_t first)
{
    struct q2_matcher *matcher = &mender->entries->matcher;
    for (uint64_t i = 0; i < mender->anchors.count; i++)
        if (!q2_match_lost(matcher, first + i) && !q2_entries_taken(mender->entries, first + i))
            return false;
    return !q2_match_lost(matcher, first - 1) &&
           !q2_match_lost(matcher, first + mender->anchors.count);
}

/* Whether the lost clusters that go on from one side are exactly as many as the entries that are
 * damaged. All entries of a run ask the same, and there may be as many as a table has. */
static bool
fits_exactly(struct mender *mender, uint64_t cluster)
{
    uint64_t index = mender->suspect->l2_index - mender->anchors.first, first = cluster - index;
    uint64_t at = mender->suspect->at - index * geometry_of(mender)->l2_entry_size;
    if (cluster <= index || mender->anchors.count < 2)
        return false;
    if (mender->run.at != at || mender->run.first != first) {
        mender->run.fits = fits_run(mender, first);
        mender->run.at = at;
        mender->run.first = first;
    }
    return mender->run.fits;
}

static bool
choose_between(struct mender *mender, struct decision *ret_decision)
{
    struct q2_matcher *matcher = &mender->entries->matcher;
    bool before = mender->from_before && q2_match_lost(matcher, mender->from_before);
    bool behind = mender->from_behind && q2_match_lost(matcher, mender->from_behind);
    if (!before && !behind)
        return false;
    uint64_t cluster = before ? mender->from_before : mender->from_behind;
    bool meet = neighbours_meet(mender), exact = fits_exactly(mender, cluster);
    bool torn = before && behind && !meet, only = mender->entries->lost == 1;
    /* One bit away may be something else that is lost. */
    bool sure = exact || ((meet || only) && !mender->near.items[0].cluster);
    *ret_decision = (struct decision){
        .action = Q2_ACTION_MATCH_L2_ENTRY,
        .confidence = torn   ? Q2_GUESS
                      : sure ? Q2_CERTAIN
                             : Q2_LIKELY,
        .match = {.raw = cluster << geometry_of(mender)->cluster_bits | Q2_ENTRY_COPIED,
                  .cluster = cluster},
        .why = meet ? "its neighbours meet at this lost cluster"
               : exact
                   ? "the damaged entries are as many as the lost clusters beside their neighbour"
                   : "this lost cluster goes on where a neighbour ends",
    };
    return true;
}

/* Of those that share a cluster any may have led to what is lost; but writers go upwards more often
 * than not. */
static bool
is_in_order(const struct mender *mender, uint64_t cluster)
{
    const struct q2_entries *entries = mender->entries;
    uint64_t now = q2_entry_offset(mender->suspect->entry.raw) >> geometry_of(mender)->cluster_bits;
    const struct q2_sharing *sharing = q2_entries_sharing(entries, now);
    if (mender->suspect->why != Q2_SUSPECT_SHARED || !sharing || sharing->fits ||
        sharing->first >= sharing->end)
        return true;
    uint64_t index = cluster > now ? sharing->end - 1 : sharing->first;
    return entries->sharers[index].guest == mender->suspect->guest;
}

/* One cluster of the whole file is lost, and so it must be this one. */
static bool
choose_only_lost(const struct mender *mender, struct decision *ret_decision)
{
    struct q2_entries *entries = mender->entries;
    uint64_t cluster = 1;
    if (entries->lost != 1)
        return false;
    while (cluster < entries->survey->clusters && !q2_match_lost(&entries->matcher, cluster))
        cluster++;
    if (cluster == entries->survey->clusters || !is_in_order(mender, cluster))
        return false;
    *ret_decision = (struct decision){
        .action = Q2_ACTION_MATCH_L2_ENTRY,
        .confidence = Q2_LIKELY,
        .match = {.raw = cluster << geometry_of(mender)->cluster_bits | Q2_ENTRY_COPIED,
                  .cluster = cluster},
        .why = "this is the one lost cluster of the file",
    };
    return true;
}

/* What other maps have here, where it is counted once more than anything refers to it. */
static bool
choose_peer(const struct mender *mender, struct decision *ret_decision)
{
    bool broken = mender->suspect->why & (Q2_SUSPECT_RULE | Q2_SUSPECT_PAST_END);
    bool neighbours = mender->peer == mender->from_before || mender->peer == mender->from_behind;
    if (!mender->peer)
        return false;
    *ret_decision = (struct decision){
        .action = Q2_ACTION_MATCH_L2_ENTRY,
        .confidence = broken || neighbours ? Q2_CERTAIN : Q2_LIKELY,
        .match = {.raw = mender->peer << geometry_of(mender)->cluster_bits,
                  .cluster = mender->peer},
        .why = "another map has this cluster here, and it is counted once more than it is used",
    };
    return true;
}

/* ---- gone ---- */

/* A pointer that goes on where its neighbours end is not damaged: what it leads to was cut off. */
static bool
was_cut_off(const struct mender *mender)
{
    const struct q2_geometry *geometry = geometry_of(mender);
    uint64_t raw = mender->suspect->entry.raw;
    if (mender->suspect->why & Q2_SUSPECT_CUT)
        return true;
    if (mender->suspect->why != Q2_SUSPECT_PAST_END)
        return false;
    if (raw & Q2_ENTRY_COMPRESSED)
        return q2_compressed_decode(geometry, raw).offset >> geometry->cluster_bits <=
               geometry->file_clusters + 1;
    return agrees(mender, q2_entry_offset(raw) >> geometry->cluster_bits);
}

/* Whether all that is wrong are bits beside the offset, and another has the cluster that this leads
 * to: either may be the one that has come to it by damage. */
static bool
is_contested(const struct mender *mender)
{
    const struct q2_survey *survey = mender->entries->survey;
    uint64_t raw = mender->suspect->entry.raw;
    uint64_t cluster = q2_entry_offset(raw) >> geometry_of(mender)->cluster_bits;
    return mender->suspect->why == Q2_SUSPECT_RULE && !(raw & Q2_ENTRY_COMPRESSED) &&
           raw & Q2_ENTRY_COPIED && cluster && cluster < survey->clusters &&
           q2_bit_test(survey->sound, cluster) && !q2_bit_test(survey->structures, cluster);
}

static bool
choose_gone(const struct mender *mender, struct decision *ret_decision)
{
    const struct q2_check *check = mender->entries->survey->scene->check;
    if (!(mender->suspect->why & (Q2_SUSPECT_RULE | Q2_SUSPECT_PAST_END)))
        return false;
    /* Compressed data may be packed beside what is not lost. */
    bool packed = check->counts.compressed_clusters > 0;
    bool unexplained = mender->entries->lost || mender->several_peers;
    bool cut = was_cut_off(mender);
    bool sure = cut || (!unexplained && !packed && !is_contested(mender));
    /* In version 2 nothing reads as zeros that has a backing file. */
    bool shines = check->geometry.version < 3 && check->header.backing_file_offset;
    *ret_decision = (struct decision){
        .action = Q2_ACTION_CLEAR_L2_ENTRY,
        .confidence = sure && !shines ? Q2_CERTAIN : Q2_GUESS,
        .change = Q2_CHANGE_LOST,
        .match = {.raw = check->geometry.version >= 3 && !check->geometry.extended_l2
                             ? Q2_ENTRY_ZERO
                             : 0},
        .why = mender->suspect->why & Q2_SUSPECT_CUT
                   ? "the cluster was in use, and the file was cut off before it"
               : cut  ? "the file ends before the cluster that it goes on with from its neighbour"
               : sure ? "no cluster of the file is lost that it could have led to"
                      : "none of the lost clusters is like what it says",
    };
    return true;
}

/* ---- with a data file ---- */

/* With a data file, a cluster is where the guest has it; only whether it is there may be open. */
static bool
choose_external(const struct mender *mender, struct decision *ret_decision)
{
    const struct q2_check *check = mender->entries->survey->scene->check;
    bool raw = check->header.autoclear_features & Q2_AUTOCLEAR_RAW_DATA;
    *ret_decision = (struct decision){
        .action = Q2_ACTION_MEND_L2_ENTRY,
        .confidence = raw ? Q2_CERTAIN : Q2_LIKELY,
        .match = {.raw = mender->suspect->guest | Q2_ENTRY_COPIED},
        .why = "in the data file a cluster is where the guest has it",
    };
    return true;
}

/* ---- carrying it out ---- */

static int
carry_out(struct mender *mender, const struct decision *decision, struct q2_error *err)
{
    struct q2_entries *entries = mender->entries;
    struct q2_scene *scene = entries->survey->scene;
    const struct q2_suspect *suspect = mender->suspect;
    struct q2_plan *plan = &scene->plan;
    bool apply = q2_plan_begin(plan, decision->action, decision->confidence, suspect->at,
                               "L2 entry 0x%" PRIx64 " becomes 0x%" PRIx64 ": %s",
                               suspect->entry.raw, decision->match.raw, decision->why);
    q2_entries_answer(entries, suspect);
    q2_survey_change(entries->survey, suspect, decision->change,
                     scene->check->geometry.cluster_size);
    int rc = 0;
    if (apply) {
        rc = q2_scene_write64(scene, Q2_OWNER_L2_TABLE, suspect->at, decision->match.raw, err);
        bool gone = decision->change == Q2_CHANGE_LOST;
        if (rc == 0 && gone && scene->check->geometry.extended_l2)
            rc = q2_scene_write64(scene, Q2_OWNER_L2_TABLE, suspect->at + 8,
                                  UINT64_C(0xffffffff) << 32, err);
        q2_entries_settle(entries, suspect, &decision->match);
    }
    q2_plan_end(plan);
    return rc;
}

/* Whether another entry that leads to `cluster` has neighbours which say that it is right. */
static bool
another_fits(const struct mender *mender, uint64_t cluster)
{
    const struct q2_sharing *sharing = q2_entries_sharing(mender->entries, cluster);
    uint64_t guest = mender->suspect->guest;
    return sharing && sharing->fits && (sharing->first_fit != guest || sharing->last_fit != guest);
}

/* Whether being one bit away from something lost may be mere coincidence. Of a pointer to a cluster
 * that is not counted, either the pointer is wrong or the count: only where one flipped bit
 * explains all that is uncounted and all that is lost, it was the pointer. */
static bool
is_coincidence(const struct mender *mender, bool uncounted)
{
    const struct q2_scene *scene = mender->entries->survey->scene;
    if (mender->near.items[0].cluster ? mender->entries->lost > 1 : mender->left > 0)
        return true;
    return uncounted && q2_scene_count(scene, Q2_PROBLEM_REFCOUNT_ZERO) > 1;
}

/* Whether an entry that shares its cluster was empty before one bit was set: the cluster counts one
 * reference, and another has the COPIED flag that goes with it. */
static bool
was_empty(const struct mender *mender, const struct q2_match *match)
{
    struct q2_entries *entries = mender->entries;
    const struct q2_suspect *suspect = mender->suspect;
    uint64_t raw = suspect->entry.raw;
    uint64_t cluster = q2_entry_offset(raw) >> geometry_of(mender)->cluster_bits;
    const struct q2_sharing *sharing = q2_entries_sharing(entries, cluster);
    if (match->raw || mender->near.count > 1 || (raw & (raw - 1)) || !sharing ||
        sharing->end - sharing->first > MAX_RIVALS || !entries->survey->counts_help ||
        q2_survey_refcount(entries->survey, &entries->reader, cluster) != 1)
        return false;
    for (uint64_t i = sharing->first; i < sharing->end; i++)
        if (entries->survey->suspects[entries->sharers[i].suspect].entry.raw & Q2_ENTRY_COPIED)
            return true;
    return false;
}

/* A pointer that is not broken is only doubted for what it leads to. */
static bool
choose_doubted(struct mender *mender, struct decision *ret_decision)
{
    const struct q2_suspect *suspect = mender->suspect;
    const struct q2_geometry *geometry = geometry_of(mender);
    uint64_t now = q2_entry_offset(suspect->entry.raw) >> geometry->cluster_bits;
    bool standard = !(suspect->entry.raw & Q2_ENTRY_COMPRESSED);
    if (standard ? agrees(mender, now)
                 : q2_matcher_decodes(&mender->entries->matcher, suspect->entry.raw, NULL))
        return false;
    if (suspect->why == Q2_SUSPECT_SHARED && !q2_entries_still_shared(mender->entries, suspect))
        return false;
    bool wrong = (suspect->why & Q2_SUSPECT_METADATA) || another_fits(mender, now);
    bool meet = neighbours_meet(mender), near = false, free = suspect->why == Q2_SUSPECT_FREE;
    bool found = choose_near_agreeing(mender, ret_decision) || choose_peer(mender, ret_decision) ||
                 (!free && meet && choose_between(mender, ret_decision)) ||
                 (near = choose_near(mender, ret_decision)) ||
                 (!free && wrong && choose_between(mender, ret_decision)) ||
                 (!free && choose_only_lost(mender, ret_decision));
    if (!found)
        return false;
    bool vain = free && !ret_decision->match.raw; /* for a count that may be what is wrong */
    if (vain && q2_scene_references(mender->entries->survey->scene, now) > 1)
        return false;
    /* It is wrong, and one cluster of the file waits for an entry. */
    if (wrong && mender->entries->lost == 1 &&
        q2_match_lost(&mender->entries->matcher, ret_decision->match.cluster))
        ret_decision->confidence = Q2_CERTAIN;
    /* Of two that share a cluster each is one bit away from what is lost: the neighbours decide,
     * those of the one or those of the other. What decodes to exactly a cluster decides too. */
    bool decided = agrees(mender, ret_decision->match.cluster) || wrong ||
                   (mender->near.count == 1 && ret_decision->match.exact);
    /* What was overwritten by another entry may happen to be one bit away from something lost. */
    if (near && is_coincidence(mender, free) && !ret_decision->match.exact &&
        ret_decision->confidence == Q2_CERTAIN)
        ret_decision->confidence = free ? Q2_GUESS : Q2_LIKELY;
    if ((suspect->why & Q2_SUSPECT_SHARED) && !(suspect->why & Q2_SUSPECT_METADATA) && !decided)
        ret_decision->confidence = Q2_GUESS;
    if (near && was_empty(mender, &ret_decision->match))
        ret_decision->confidence = Q2_CERTAIN;
    if (vain && ret_decision->confidence == Q2_CERTAIN)
        ret_decision->confidence = Q2_LIKELY;
    ret_decision->change = Q2_CHANGE_REPLACED;
    return true;
}

/* What breaks a rule is wrong in any case. */
static bool
choose_broken(struct mender *mender, struct decision *ret_decision)
{
    if (geometry_of(mender)->data_file)
        return (mender->near.count == 1 && choose_near(mender, ret_decision)) ||
               choose_external(mender, ret_decision);
    bool between = neighbours_meet(mender) || !mender->near.items[0].cluster;
    if (mender->suspect->why & Q2_SUSPECT_CUT) /* any likeness is mere chance */
        return choose_near_agreeing(mender, ret_decision) || choose_gone(mender, ret_decision);
    return choose_near_agreeing(mender, ret_decision) || choose_peer(mender, ret_decision) ||
           (between && choose_between(mender, ret_decision)) || choose_near(mender, ret_decision) ||
           choose_between(mender, ret_decision) || choose_only_lost(mender, ret_decision) ||
           choose_gone(mender, ret_decision);
}

static int
mend(struct mender *mender, uint64_t index, struct q2_error *err)
{
    struct q2_entries *entries = mender->entries;
    const struct q2_geometry *geometry = geometry_of(mender);
    struct decision decision = {0};
    mender->suspect = &entries->survey->suspects[index];
    q2_anchors_find(&entries->view, index, &mender->anchors);
    uint64_t at = mender->suspect->l2_index;
    mender->from_before = q2_anchors_from_before(&mender->anchors, geometry, at);
    mender->from_behind = q2_anchors_from_behind(&mender->anchors, geometry, at);
    q2_entries_peers(entries, mender->suspect, 1, &mender->peer, &mender->several_peers);
    entries->matcher.also = mender->peer;
    q2_match_near(&entries->matcher, mender->suspect, 1, &mender->near);
    if (!mender->last && mender->near.count && !mender->near.items[0].cluster) {
        entries->matcher.also = 0;
        q2_bit_set(mender->later, index);
        return 0;
    }
    bool broken = mender->suspect->why & (Q2_SUSPECT_RULE | Q2_SUSPECT_PAST_END);
    bool found = broken ? choose_broken(mender, &decision) : choose_doubted(mender, &decision);
    entries->matcher.also = 0;
    /* What stays as it is is not what is wrong: that is in the subcluster bits then. */
    bool changes =
        decision.match.raw != mender->suspect->entry.raw || decision.change == Q2_CHANGE_LOST;
    return found && changes ? carry_out(mender, &decision, err) : 0;
}

/* Entries that may have been empty come last: by then it is known what the others led to, and
 * whether anything is still lost. */
static int
mend_all(struct q2_entries *entries, struct q2_error *err)
{
    struct q2_survey *survey = entries->survey;
    uint64_t words = survey->suspect_count / 64 + 1;
    struct mender mender = {.entries = entries, .left = entries->lost};
    void *later;
    int rc = q2_budget_calloc(&survey->scene->budget, words, 8, "damaged entries", &later, err);
    if (rc < 0)
        return rc;
    mender.later = later;
    for (uint64_t i = 0; i < survey->suspect_count && rc == 0; i++)
        if (!survey->suspects[i].is_l1)
            rc = mend(&mender, i, err);
    mender.last = true;
    mender.left = 0;
    for (uint64_t cluster = 1; cluster < survey->clusters; cluster++)
        mender.left += q2_survey_lost(survey, cluster);
    for (uint64_t i = 0; i < survey->suspect_count && rc == 0; i++)
        if (q2_bit_test(mender.later, i))
            rc = mend(&mender, i, err);
    q2_budget_free(&survey->scene->budget, later, words, 8);
    return rc;
}

int
q2_fix_entries(struct q2_scene *scene, struct q2_error *err)
{
    struct q2_entries entries;
    if (!q2_entries_wanted(scene))
        return 0;
    int rc = q2_entries_init(&entries, scene, err);
    if (rc < 0)
        return rc;
    rc = mend_all(&entries, err);
    q2_entries_destroy(&entries);
    return rc;
}
