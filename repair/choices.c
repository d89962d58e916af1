/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What an L2 entry that cannot be right may become, each by what speaks for it. */

#include "repair/choices.h"

#include "core/base/checked.h"
#include "repair/survey_parts.h"
#include "repair/zero_entries.h"

static const struct q2_geometry *
geometry_of(const struct q2_mender *mender)
{
    return &mender->entries->survey->scene->check->geometry;
}

/* ---- one bit away ---- */

bool
q2_choice_agrees(const struct q2_mender *mender, uint64_t cluster)
{
    return cluster && (cluster == mender->from_before || cluster == mender->from_behind ||
                       cluster == mender->peer);
}

/* Whether the neighbours meet at a lost cluster, and so speak against any other. */
bool
q2_choice_neighbours_meet(const struct q2_mender *mender)
{
    return mender->from_before && mender->from_before == mender->from_behind &&
           q2_match_lost(&mender->entries->matcher, mender->from_before);
}

/* The only entry one bit away that leads to what the neighbours, or other maps, have here. */
bool
q2_choose_near_agreeing(const struct q2_mender *mender, struct q2_choice *ret_choice)
{
    const struct q2_matches *near = &mender->near;
    size_t kept = near->count < Q2_MATCHES_MAX ? near->count : Q2_MATCHES_MAX, agreeing = 0;
    for (size_t i = 0; i < kept; i++) {
        if (!q2_choice_agrees(mender, near->items[i].cluster))
            continue;
        agreeing++;
        *ret_choice = (struct q2_choice){
            .action = Q2_ACTION_MEND_L2_ENTRY,
            .confidence = Q2_CERTAIN,
            .match = near->items[i],
            .why = "one flipped bit away is the lost cluster that its neighbours, or other maps, "
                   "lead to",
        };
    }
    return agreeing == 1;
}

bool
q2_choose_near(const struct q2_mender *mender, struct q2_choice *ret_choice)
{
    const struct q2_matches *near = &mender->near;
    if (near->count == 0)
        return false;
    /* Or it led to what is lost, and more than one bit is gone. */
    bool empties = !near->items[0].cluster && mender->left && !geometry_of(mender)->data_file;
    *ret_choice = (struct q2_choice){
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

/* ---- as it is read ---- */

/* Software reads what an entry leads to without a look at bits that nothing uses; so nobody may say
 * that its data is gone, whoever else leads there. */
bool
q2_choose_as_read(const struct q2_mender *mender, struct q2_choice *ret_choice)
{
    const struct q2_survey *survey = mender->entries->survey;
    const struct q2_geometry *geometry = geometry_of(mender);
    const struct q2_suspect *suspect = mender->suspect;
    struct q2_l2_entry meant = suspect->entry;
    meant.raw &= ~(Q2_L2_RESERVED | (geometry->extended_l2 ? Q2_ENTRY_ZERO : 0));
    uint64_t cluster = q2_entry_offset(meant.raw) >> geometry->cluster_bits;
    if (suspect->why != Q2_SUSPECT_RULE || meant.raw & Q2_ENTRY_COMPRESSED || geometry->data_file ||
        !cluster || cluster >= survey->clusters || q2_bit_test(survey->structures, cluster) ||
        q2_survey_entry_faults(geometry, &meant, suspect->guest))
        return false;
    /* What is lost may be its own, and the bits tell who was damaged of those who share this. */
    bool contested = q2_bit_test(survey->sound, cluster) && mender->entries->lost;
    *ret_choice = (struct q2_choice){
        .action = Q2_ACTION_MEND_L2_ENTRY,
        .confidence = contested ? Q2_LIKELY : Q2_CERTAIN,
        .match = {.raw = meant.raw, .cluster = cluster},
        .why = "only bits that nothing uses are wrong, and what it leads to is read without them",
    };
    return true;
}

/* ---- between the neighbours ---- */

/* Whether the lost clusters from `first` on are exactly as many as the entries of the run. */
static bool
fits_run(const struct q2_mender *mender, uint64_t first)
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
fits_exactly(struct q2_mender *mender, uint64_t cluster)
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

bool
q2_choose_between(struct q2_mender *mender, struct q2_choice *ret_choice)
{
    struct q2_matcher *matcher = &mender->entries->matcher;
    bool before = mender->from_before && q2_match_lost(matcher, mender->from_before);
    bool behind = mender->from_behind && q2_match_lost(matcher, mender->from_behind);
    if (!before && !behind)
        return false;
    uint64_t cluster = before ? mender->from_before : mender->from_behind;
    bool meet = q2_choice_neighbours_meet(mender), exact = fits_exactly(mender, cluster);
    bool torn = before && behind && !meet, only = mender->entries->lost == 1;
    /* One bit away may be something else that is lost. */
    bool sure = exact || ((meet || only) && !mender->near.items[0].cluster);
    *ret_choice = (struct q2_choice){
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
is_in_order(const struct q2_mender *mender, uint64_t cluster)
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
bool
q2_choose_only_lost(const struct q2_mender *mender, struct q2_choice *ret_choice)
{
    struct q2_entries *entries = mender->entries;
    uint64_t cluster = 1;
    if (entries->lost != 1)
        return false;
    while (cluster < entries->survey->clusters && !q2_match_lost(&entries->matcher, cluster))
        cluster++;
    if (cluster == entries->survey->clusters || !is_in_order(mender, cluster))
        return false;
    *ret_choice = (struct q2_choice){
        .action = Q2_ACTION_MATCH_L2_ENTRY,
        .confidence = Q2_LIKELY,
        .match = {.raw = cluster << geometry_of(mender)->cluster_bits | Q2_ENTRY_COPIED,
                  .cluster = cluster},
        .why = "this is the one lost cluster of the file",
    };
    return true;
}

/* What other maps have here, where it is counted once more than anything refers to it. */
bool
q2_choose_peer(const struct q2_mender *mender, struct q2_choice *ret_choice)
{
    bool broken = mender->suspect->why & (Q2_SUSPECT_RULE | Q2_SUSPECT_PAST_END);
    bool neighbours = mender->peer == mender->from_before || mender->peer == mender->from_behind;
    if (!mender->peer)
        return false;
    *ret_choice = (struct q2_choice){
        .action = Q2_ACTION_MATCH_L2_ENTRY,
        .confidence = broken || neighbours ? Q2_CERTAIN : Q2_LIKELY,
        .match = {.raw = mender->peer << geometry_of(mender)->cluster_bits,
                  .cluster = mender->peer},
        .why = "another map has this cluster here, and it is counted once more than it is used",
    };
    return true;
}

/* ---- gone ---- */

bool
q2_choice_was_cut_off(const struct q2_mender *mender)
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
    return q2_choice_agrees(mender, q2_entry_offset(raw) >> geometry->cluster_bits);
}

/* Whether all that is wrong are bits beside the offset, and another has the cluster that this leads
 * to: either may be the one that has come to it by damage. */
static bool
is_contested(const struct q2_mender *mender)
{
    const struct q2_survey *survey = mender->entries->survey;
    uint64_t raw = mender->suspect->entry.raw;
    uint64_t cluster = q2_entry_offset(raw) >> geometry_of(mender)->cluster_bits;
    return mender->suspect->why == Q2_SUSPECT_RULE && !(raw & Q2_ENTRY_COMPRESSED) && cluster &&
           cluster < survey->clusters && q2_bit_test(survey->sound, cluster) &&
           !q2_bit_test(survey->structures, cluster);
}

bool
q2_choose_gone(const struct q2_mender *mender, struct q2_choice *ret_choice)
{
    const struct q2_check *check = mender->entries->survey->scene->check;
    if (!(mender->suspect->why & (Q2_SUSPECT_RULE | Q2_SUSPECT_PAST_END)))
        return false;
    /* An entry of version 2 cannot say zeros: what the backing file has there would be read. */
    if (q2_empty_entries_show(check) && !q2_zero_entries_exist(check))
        return false;
    /* Compressed data may be packed beside what is not lost. */
    bool packed = check->counts.compressed_clusters > 0;
    bool unexplained = mender->entries->lost || mender->several_peers;
    bool cut = q2_choice_was_cut_off(mender);
    bool sure = cut || (!unexplained && !packed && !is_contested(mender));
    *ret_choice = (struct q2_choice){
        .action = Q2_ACTION_CLEAR_L2_ENTRY,
        .confidence = sure ? Q2_CERTAIN : Q2_GUESS,
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
bool
q2_choose_external(const struct q2_mender *mender, struct q2_choice *ret_choice)
{
    const struct q2_check *check = mender->entries->survey->scene->check;
    bool raw = check->header.autoclear_features & Q2_AUTOCLEAR_RAW_DATA;
    *ret_choice = (struct q2_choice){
        .action = Q2_ACTION_MEND_L2_ENTRY,
        .confidence = raw ? Q2_CERTAIN : Q2_LIKELY,
        .match = {.raw = mender->suspect->guest | Q2_ENTRY_COPIED},
        .why = "in the data file a cluster is where the guest has it",
    };
    return true;
}
