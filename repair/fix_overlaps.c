/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Guest clusters that share their host cluster with another guest range or with a structure, where
 * no lost cluster explains one of them for certain. Each gets a cluster of its own with the bytes
 * that it reads now, so that the next write to one does not change the other. What may have been
 * meant stays counted. */

#include "repair/fix.h"

#include "core/base/checked.h"
#include "repair/entries.h"

#include <inttypes.h>

enum {
    PIECE_BYTES = 64 << 10,
    BUDGET_SHARE = 4, /* of the memory that a repair may take, a quarter for copies */
};

struct copies {
    struct q2_entries *entries;
    uint64_t spare; /* a new cluster that was not needed, host, bytes; 0: none */
    uint64_t bytes; /* copied, or offered to be */
    bool full;      /* no more: what shares a cluster then goes on doing so */
};

static int
copy_cluster(struct q2_scene *scene, uint64_t from, uint64_t to, struct q2_error *err)
{
    uint64_t size = scene->check->geometry.cluster_size;
    void *piece;
    int rc = q2_budget_calloc(&scene->budget, PIECE_BYTES, 1, "a copy", &piece, err);
    for (uint64_t done = 0; rc == 0 && done < size;) {
        size_t now = (size_t)q2_min(size - done, PIECE_BYTES);
        rc = q2_file_read_padded(scene->file, from + done, piece, now, err);
        if (rc == 0)
            rc = q2_scene_write(scene, Q2_OWNER_DATA, to + done, piece, now, err);
        done += now;
    }
    if (piece)
        q2_budget_free(&scene->budget, piece, PIECE_BYTES, 1);
    return rc;
}

/* Whether an entry may have been empty before one bit was set: a copy would hide that for good. */
static bool
may_have_been_empty(const struct q2_suspect *suspect)
{
    uint64_t raw = suspect->entry.raw;
    return !(suspect->why & Q2_SUSPECT_METADATA) && (raw & (raw - 1)) == 0;
}

/* Whether something is lost that one of those who share a cluster may have meant, be it a cluster
 * or one that another map has there and that misses a reference: once each has its copy, nothing
 * tells of that any more. */
static bool
is_explained_by_loss(struct q2_entries *entries, const struct q2_suspect *suspect)
{
    uint64_t peer = 0, now = q2_entry_offset(suspect->entry.raw);
    bool several = false;
    if (entries->lost)
        return true;
    q2_entries_peers(entries, suspect, 1, &peer, &several);
    return several || (peer && peer << entries->survey->scene->check->geometry.cluster_bits != now);
}

static int
separate(struct copies *copies, const struct q2_suspect *suspect, struct q2_error *err)
{
    struct q2_entries *entries = copies->entries;
    struct q2_scene *scene = entries->survey->scene;
    uint64_t raw = suspect->entry.raw, to = copies->spare;
    int rc = to ? 0 : q2_scene_allocate(scene, 1, &to, err);
    if (rc < 0) {
        copies->full = rc == Q2_ERR_NOSPACE;
        return copies->full ? 0 : rc;
    }
    uint64_t flags = raw & ~Q2_ENTRY_OFFSET;
    enum q2_confidence confidence = is_explained_by_loss(entries, suspect) ? Q2_GUESS
                                    : may_have_been_empty(suspect)         ? Q2_LIKELY
                                                                           : Q2_CERTAIN;
    bool apply = q2_plan_begin(&scene->plan, Q2_ACTION_SEPARATE_CLUSTER, confidence, suspect->at,
                               "the cluster at 0x%" PRIx64 " belongs to %s too; a copy of it keeps "
                               "what the guest reads here",
                               q2_entry_offset(raw),
                               suspect->why & Q2_SUSPECT_METADATA ? "a structure of the image"
                                                                  : "another guest range");
    q2_entries_answer(entries, suspect);
    copies->spare = apply ? 0 : to;
    copies->bytes += scene->check->geometry.cluster_size;
    copies->full = copies->bytes > scene->budget.limit / BUDGET_SHARE;
    if (apply)
        rc = copy_cluster(scene, q2_entry_offset(raw), to, err);
    if (apply && rc == 0)
        rc = q2_scene_write64(scene, Q2_OWNER_L2_TABLE, suspect->at, flags | to, err);
    q2_plan_end(&scene->plan);
    return rc;
}

/* Of the entries that share a cluster, all but one move: the one stays that fits, or else the
 * first. A compressed cluster stays in any case, for others may be packed beside it. Entries of
 * different tables at one guest offset are one owner, so they stay or move together. */
static bool
stays(struct q2_entries *entries, const struct q2_suspect *suspect)
{
    unsigned bits = entries->survey->scene->check->geometry.cluster_bits;
    if (suspect->why & Q2_SUSPECT_METADATA)
        return false;
    const struct q2_sharing *sharing =
        q2_entries_sharing(entries, q2_entry_offset(suspect->entry.raw) >> bits);
    return !sharing || (!sharing->packed && sharing->keeper == suspect->guest);
}

static bool
may_separate(const struct q2_scene *scene)
{
    /* LUKS mixes where the cluster is into how it is encrypted. */
    return scene->check->header.crypt_method != Q2_CRYPT_LUKS;
}

int
q2_fix_overlaps(struct q2_scene *scene, struct q2_error *err)
{
    struct q2_entries entries;
    if (!q2_entries_wanted(scene) || !may_separate(scene))
        return 0;
    int rc = q2_entries_init(&entries, scene, err);
    if (rc < 0)
        return rc;
    struct copies copies = {.entries = &entries};
    for (uint64_t i = 0; i < entries.survey->suspect_count && rc == 0 && !copies.full; i++) {
        const struct q2_suspect *suspect = &entries.survey->suspects[i];
        bool shares = (suspect->why & (Q2_SUSPECT_SHARED | Q2_SUSPECT_METADATA)) &&
                      !(suspect->why & (Q2_SUSPECT_RULE | Q2_SUSPECT_PAST_END));
        if (suspect->is_l1 || !shares || (suspect->entry.raw & Q2_ENTRY_COMPRESSED) ||
            stays(&entries, suspect))
            continue;
        rc = separate(&copies, suspect, err);
    }
    q2_entries_destroy(&entries);
    return rc;
}
