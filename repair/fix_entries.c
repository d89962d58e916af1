/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* L2 entries that cannot be right. Each is held against what is lost: entries one flipped bit away
 * that lead to a lost cluster, and the lost cluster at which the neighbours meet. Where exactly one
 * possibility is left, that is the entry. Where nothing is lost that it could have meant, its data
 * is gone, and the guest is told so by zeros. */

#include "repair/fix.h"

#include "core/base/checked.h"
#include "repair/choices.h"

#include <inttypes.h>

enum { MAX_RIVALS = 16 }; /* entries that share a cluster, of which one is told from the others */

static const struct q2_geometry *
geometry_of(const struct q2_mender *mender)
{
    return &mender->entries->survey->scene->check->geometry;
}

/* ---- carrying it out ---- */

static int
carry_out(struct q2_mender *mender, const struct q2_choice *decision, struct q2_error *err)
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
another_fits(const struct q2_mender *mender, uint64_t cluster)
{
    const struct q2_sharing *sharing = q2_entries_sharing(mender->entries, cluster);
    uint64_t guest = mender->suspect->guest;
    return sharing && sharing->fits && (sharing->first_fit != guest || sharing->last_fit != guest);
}

/* Whether being one bit away from something lost may be mere coincidence. Of a pointer to a cluster
 * that is not counted, either the pointer is wrong or the count: only where one flipped bit
 * explains all that is uncounted and all that is lost, it was the pointer. */
static bool
is_coincidence(const struct q2_mender *mender, bool uncounted)
{
    const struct q2_scene *scene = mender->entries->survey->scene;
    if (mender->near.items[0].cluster ? mender->entries->lost > 1 || !mender->one_place
                                      : mender->left > 0)
        return true;
    return uncounted && q2_scene_count(scene, Q2_PROBLEM_REFCOUNT_ZERO) > 1;
}

/* Whether an entry that shares its cluster was empty before one bit was set: the cluster counts one
 * reference, and another has the COPIED flag that goes with it. */
static bool
was_empty(const struct q2_mender *mender, const struct q2_match *match)
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
choose_doubted(struct q2_mender *mender, struct q2_choice *ret_choice)
{
    const struct q2_suspect *suspect = mender->suspect;
    const struct q2_geometry *geometry = geometry_of(mender);
    uint64_t now = q2_entry_offset(suspect->entry.raw) >> geometry->cluster_bits;
    bool standard = !(suspect->entry.raw & Q2_ENTRY_COMPRESSED);
    if (standard ? q2_choice_agrees(mender, now)
                 : q2_matcher_decodes(&mender->entries->matcher, suspect->entry.raw, NULL))
        return false;
    if (suspect->why == Q2_SUSPECT_SHARED && !q2_entries_still_shared(mender->entries, suspect))
        return false;
    bool wrong = (suspect->why & Q2_SUSPECT_METADATA) || another_fits(mender, now);
    bool meet = q2_choice_neighbours_meet(mender), near = false,
         free = suspect->why == Q2_SUSPECT_FREE;
    bool found = q2_choose_near_agreeing(mender, ret_choice) ||
                 q2_choose_peer(mender, ret_choice) ||
                 (!free && meet && q2_choose_between(mender, ret_choice)) ||
                 (near = q2_choose_near(mender, ret_choice)) ||
                 (!free && wrong && q2_choose_between(mender, ret_choice)) ||
                 (!free && q2_choose_only_lost(mender, ret_choice));
    if (!found)
        return false;
    bool empties = near && !ret_choice->match.cluster;
    bool vain = free && !ret_choice->match.raw; /* for a count that may be what is wrong */
    if (vain && q2_scene_references(mender->entries->survey->scene, now) > 1)
        return false;
    /* It is wrong, and one cluster of the file waits for an entry, and no other entry for it. */
    if (wrong && mender->entries->lost == 1 && mender->one_place &&
        q2_match_lost(&mender->entries->matcher, ret_choice->match.cluster))
        ret_choice->confidence = Q2_CERTAIN;
    /* Of two that share a cluster each is one bit away from what is lost: the neighbours decide,
     * those of the one or those of the other. What decodes to exactly a cluster decides too. */
    bool decided = q2_choice_agrees(mender, ret_choice->match.cluster) || wrong ||
                   (mender->near.count == 1 && ret_choice->match.exact);
    /* What was overwritten by another entry may happen to be one bit away from something lost. */
    if (near && is_coincidence(mender, free) && !ret_choice->match.exact &&
        ret_choice->confidence == Q2_CERTAIN)
        ret_choice->confidence = free ? Q2_GUESS : Q2_LIKELY;
    if ((suspect->why & Q2_SUSPECT_SHARED) && !(suspect->why & Q2_SUSPECT_METADATA) && !decided)
        ret_choice->confidence = Q2_GUESS;
    if (near && was_empty(mender, &ret_choice->match))
        ret_choice->confidence = Q2_CERTAIN;
    /* What is shared at a power of two is one bit away from nothing, whosever it is. */
    else if (empties && (suspect->why & Q2_SUSPECT_SHARED) && ret_choice->confidence == Q2_CERTAIN)
        ret_choice->confidence = Q2_LIKELY;
    if (vain && ret_choice->confidence == Q2_CERTAIN)
        ret_choice->confidence = Q2_LIKELY;
    ret_choice->change = Q2_CHANGE_REPLACED;
    return true;
}

/* What breaks a rule is wrong in any case; but what is read all the same is no less the guest's
 * than what any other pointer leads to. */
static bool
choose_broken(struct q2_mender *mender, struct q2_choice *ret_choice)
{
    if (geometry_of(mender)->data_file)
        return (mender->near.count == 1 && q2_choose_near(mender, ret_choice)) ||
               q2_choose_external(mender, ret_choice);
    bool meet = q2_choice_neighbours_meet(mender);
    bool standard = !(mender->suspect->entry.raw & Q2_ENTRY_COMPRESSED);
    if ((mender->suspect->why & Q2_SUSPECT_CUT) ||
        (standard && q2_choice_was_cut_off(mender))) /* any likeness is mere chance */
        return q2_choose_near_agreeing(mender, ret_choice) || q2_choose_gone(mender, ret_choice);
    struct q2_choice as_read;
    if (q2_choose_as_read(mender, &as_read)) {
        bool better = q2_choose_near_agreeing(mender, ret_choice) ||
                      q2_choose_peer(mender, ret_choice) ||
                      (meet && q2_choose_between(mender, ret_choice));
        if (!better || ret_choice->match.cluster == as_read.match.cluster)
            *ret_choice = as_read;
        else
            ret_choice->change = Q2_CHANGE_REPLACED;
        return true;
    }
    bool between = meet || !mender->near.items[0].cluster;
    return q2_choose_near_agreeing(mender, ret_choice) || q2_choose_peer(mender, ret_choice) ||
           (between && q2_choose_between(mender, ret_choice)) ||
           q2_choose_near(mender, ret_choice) || q2_choose_between(mender, ret_choice) ||
           q2_choose_only_lost(mender, ret_choice) || q2_choose_gone(mender, ret_choice);
}

static int
mend(struct q2_mender *mender, uint64_t index, struct q2_error *err)
{
    struct q2_entries *entries = mender->entries;
    const struct q2_geometry *geometry = geometry_of(mender);
    struct q2_choice decision = {0};
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

/* Whether all suspects lead to one cluster, so that one of them is what is damaged. */
static bool
have_one_place(const struct q2_entries *entries)
{
    const struct q2_survey *survey = entries->survey;
    uint64_t first = 0;
    for (uint64_t i = 0; i < survey->suspect_count; i++) {
        const struct q2_suspect *suspect = &survey->suspects[i];
        uint64_t now = q2_entry_offset(suspect->entry.raw);
        if (suspect->is_l1 || (first && now != first) || (suspect->entry.raw & Q2_ENTRY_COMPRESSED))
            return false;
        first = now;
    }
    return survey->dropped == 0;
}

/* Entries that may have been empty come last: by then it is known what the others led to, and
 * whether anything is still lost. */
static int
mend_all(struct q2_entries *entries, struct q2_error *err)
{
    struct q2_survey *survey = entries->survey;
    uint64_t words = survey->suspect_count / 64 + 1;
    struct q2_mender mender = {.entries = entries,
                               .left = entries->lost,
                               .one_place = have_one_place(entries)};
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
