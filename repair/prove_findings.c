/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The first two rules of the proof: no finding is new, and what was answered is gone.
 *
 * A finding is old if the image as it was has the same problem in the same place, at least as
 * often. A place is the host range at fault, the host range that it is about, or the guest range
 * that it is about in the same maps: structures may move in a repair.
 *
 * Some findings are new only to the eye, because the repair opened it. These are accepted, and no
 * others; what they mean to guests is the third rule's to judge:
 *   - what was left counted on purpose, to keep evidence: leaks, and tables that nothing leads to;
 *   - faults inside structures that nothing led to before and that the repair did not write, or in
 *     snapshots that were not to be found;
 *   - faults of guest ranges that an action names as its own data again, where they are no worse
 *     than what it answers, and in a structure that the repair did not write;
 *   - faults that no pass could have seen, because what leads there could not be read.
 * None of that holds for refcounts and COPIED flags, which a repair leaves right everywhere, nor
 * for overlaps: they put at risk what was sound, or give a guest range the data of another. */

#include "checker/refcounts.h"
#include "core/base/checked.h"
#include "repair/prove_parts.h"

struct inquiry {
    struct q2_proof *proof;
    const struct q2_scene *scene;
    int64_t *matches; /* maps before -> after, see q2_proof_match_maps */
    /* The findings of the problem at hand: ordered, so they are next to each other. */
    size_t old_first, old_end;
    size_t new_first, new_end;
};

static bool
counts(enum q2_problem problem)
{
    return q2_catalogue(problem)->severity <= Q2_SEVERITY_ERROR;
}

/* ---- places ---- */

static bool
host_touches(const struct q2_finding *a, const struct q2_finding *b)
{
    return a->has & b->has & Q2_HAS_HOST &&
           q2_ranges_overlap(a->host_offset, q2_max(a->host_length, 1), b->host_offset,
                             q2_max(b->host_length, 1));
}

static bool
target_touches(const struct q2_finding *a, const struct q2_finding *b)
{
    return a->has & b->has & Q2_HAS_TARGET &&
           q2_ranges_overlap(a->target_offset, q2_max(a->target_length, 1), b->target_offset,
                             q2_max(b->target_length, 1));
}

/* Whether a finding of the image as it was and one of the repaired one have a map in common. */
static bool
share_map(const struct inquiry *inquiry, const struct q2_finding *old,
          const struct q2_finding *finding)
{
    const uint32_t *from, *to;
    size_t from_count = q2_check_maps(inquiry->proof->before, old->maps, &from);
    size_t to_count = q2_check_maps(inquiry->proof->after, finding->maps, &to);
    for (size_t i = 0; i < from_count; i++)
        for (size_t j = 0; j < to_count; j++)
            if (inquiry->matches[from[i]] == (int64_t)to[j])
                return true;
    return false;
}

static bool
guest_touches(const struct inquiry *inquiry, const struct q2_finding *old,
              const struct q2_finding *finding)
{
    return old->has & finding->has & Q2_HAS_GUEST &&
           q2_ranges_overlap(old->guest_offset, q2_max(old->guest_length, 1), finding->guest_offset,
                             q2_max(finding->guest_length, 1)) &&
           share_map(inquiry, old, finding);
}

/* Whether the old findings cover all of the host range at fault (HOST), of the one concerned
 * (TARGET), or of the guest range of a finding. */
static int
is_covered(const struct inquiry *inquiry, const struct q2_finding *finding, unsigned has,
           struct q2_error *err)
{
    struct q2_proof_ranges ranges = {.budget = inquiry->proof->budget};
    bool host = has == Q2_HAS_HOST, target = has == Q2_HAS_TARGET;
    int rc = 0;
    if (!(finding->has & has))
        return 0;
    for (size_t i = inquiry->old_first; i < inquiry->old_end && rc == 0; i++) {
        const struct q2_finding *old = q2_check_finding(inquiry->proof->before, i);
        if (host && host_touches(old, finding))
            rc = q2_proof_ranges_add(&ranges, old->host_offset, q2_max(old->host_length, 1), err);
        else if (target && target_touches(old, finding))
            rc = q2_proof_ranges_add(&ranges, old->target_offset, q2_max(old->target_length, 1),
                                     err);
        else if (!host && !target && guest_touches(inquiry, old, finding))
            rc = q2_proof_ranges_add(&ranges, old->guest_offset, q2_max(old->guest_length, 1), err);
    }
    q2_proof_ranges_settle(&ranges);
    uint64_t offset = host     ? finding->host_offset
                      : target ? finding->target_offset
                               : finding->guest_offset;
    uint64_t length = host     ? finding->host_length
                      : target ? finding->target_length
                               : finding->guest_length;
    bool covered = q2_proof_ranges_until(&ranges, offset) >= offset + q2_max(length, 1);
    q2_proof_ranges_destroy(&ranges);
    return rc < 0 ? rc : covered;
}

/* Faults of the problem in the place of a finding, before and after. */
static bool
is_as_often(const struct inquiry *inquiry, const struct q2_finding *finding)
{
    uint64_t old_count = 0, new_count = 0;
    for (size_t i = inquiry->old_first; i < inquiry->old_end; i++) {
        const struct q2_finding *old = q2_check_finding(inquiry->proof->before, i);
        if (host_touches(old, finding) || target_touches(old, finding) ||
            guest_touches(inquiry, old, finding))
            old_count += old->count;
    }
    for (size_t i = inquiry->new_first; i < inquiry->new_end; i++) {
        const struct q2_finding *other = q2_check_finding(inquiry->proof->after, i);
        if (host_touches(other, finding) || target_touches(other, finding))
            new_count += other->count;
    }
    return new_count <= old_count;
}

/* 1: the image as it was has it too; 0: it has not; or an error. */
static int
is_old(const struct inquiry *inquiry, const struct q2_finding *finding, struct q2_error *err)
{
    static const unsigned places[] = {Q2_HAS_HOST, Q2_HAS_TARGET, Q2_HAS_GUEST};
    struct q2_problem_count was = q2_check_problem_count(inquiry->proof->before, finding->problem);
    struct q2_problem_count is = q2_check_problem_count(inquiry->proof->after, finding->problem);
    bool as_many = is.count <= was.count;
    if (!(finding->has & (Q2_HAS_HOST | Q2_HAS_TARGET | Q2_HAS_GUEST)) || was.unlisted)
        return was.count && as_many; /* it has no place, or may be one of those not listed */
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        int rc = is_covered(inquiry, finding, places[i], err);
        if (rc != 0)
            return rc < 0 ? rc : is_as_often(inquiry, finding);
    }
    return 0;
}

/* ---- what the repair merely brought to light ---- */

static bool
is_overlap(enum q2_problem problem)
{
    switch (problem) {
    case Q2_PROBLEM_OVERLAP_DATA:
    case Q2_PROBLEM_OVERLAP_METADATA_DATA:
    case Q2_PROBLEM_OVERLAP_METADATA:
    case Q2_PROBLEM_OVERLAP_BITMAPS:
    case Q2_PROBLEM_OVERLAP_L2_TABLE:
    case Q2_PROBLEM_REFCOUNT_BLOCK_OVERLAP:
    case Q2_PROBLEM_REFCOUNT_BLOCK_DUPLICATE:
    case Q2_PROBLEM_COMPRESSED_DUPLICATE: /* what it gives back is another's data */
        return true;
    default:
        return false;
    }
}

/* Space that is counted though nothing refers to it, all of it on purpose. */
static bool
is_kept(const struct inquiry *inquiry, const struct q2_finding *finding)
{
    const struct q2_geometry *geometry = &inquiry->proof->after->geometry;
    switch (finding->problem) {
    case Q2_PROBLEM_CLUSTER_LEAKED:
    case Q2_PROBLEM_REFCOUNT_TOO_HIGH:
    case Q2_PROBLEM_ORPHAN_L1_TABLE:
    case Q2_PROBLEM_ORPHAN_L2_TABLE:
    case Q2_PROBLEM_SNAPSHOT_TABLE_LOST:
        break;
    default:
        return false;
    }
    if (finding->problem == Q2_PROBLEM_REFCOUNT_TOO_HIGH && inquiry->scene->keep_high)
        return true;
    bool target = finding->has & Q2_HAS_TARGET;
    uint64_t offset = target ? finding->target_offset : finding->host_offset;
    uint64_t length = q2_max(target ? finding->target_length : finding->host_length, 1);
    uint64_t end = q2_units(offset + length, geometry->cluster_bits);
    if (inquiry->scene->keep_all)
        return true;
    for (uint64_t c = offset >> geometry->cluster_bits; c < end; c++)
        if (!q2_scene_kept(inquiry->scene, c))
            return false;
    return true;
}

static bool
is_written(const struct inquiry *inquiry, const struct q2_finding *finding)
{
    return finding->has & Q2_HAS_HOST &&
           q2_proof_ranges_touch(&inquiry->proof->edits, finding->host_offset,
                                 q2_max(finding->host_length, 1));
}

/* Whether nothing led to the structure at fault. */
static bool
was_unreachable(const struct inquiry *inquiry, const struct q2_finding *finding)
{
    const struct q2_check *before = inquiry->proof->before;
    enum q2_pass pass = q2_catalogue(finding->problem)->pass;
    if (!(finding->has & Q2_HAS_HOST) || (pass != Q2_PASS_MAP && pass != Q2_PASS_SNAPSHOTS &&
                                          pass != Q2_PASS_BITMAPS && pass != Q2_PASS_ENCRYPTION))
        return false;
    uint64_t cluster = finding->host_offset >> before->geometry.cluster_bits;
    const struct q2_chunk *chunk = q2_tally_chunk(before->tally, cluster >> Q2_CHUNK_BITS);
    return !chunk || q2_chunk_references(chunk, (unsigned)(cluster % Q2_CHUNK_CLUSTERS)) == 0;
}

static bool
is_in_new_maps(const struct inquiry *inquiry, const struct q2_finding *finding)
{
    const uint32_t *maps;
    size_t count = q2_check_maps(inquiry->proof->after, finding->maps, &maps);
    for (size_t i = 0; i < count; i++)
        for (uint64_t m = 0; m < inquiry->proof->before->map_count; m++)
            if (inquiry->matches[m] == (int64_t)maps[i])
                return false;
    return count > 0;
}

static enum q2_severity
worst_answer(const struct q2_action *action)
{
    enum q2_severity worst = Q2_SEVERITY_NOTE;
    for (uint64_t i = 0; i < action->answer_count; i++) {
        enum q2_severity severity = q2_catalogue(action->answers[i].problem)->severity;
        worst = severity < worst ? severity : worst;
    }
    return worst;
}

/* Whether an action that answers what is as bad gives a guest range its own data back. */
static bool
gives_back(const struct q2_action *action, const struct q2_finding *finding, uint32_t map)
{
    for (uint64_t i = 0; action->applied && i < action->change_count; i++) {
        const struct q2_change *change = &action->changes[i];
        if (change->map == map && change->kind != Q2_CHANGE_LOST &&
            q2_ranges_overlap(change->offset, change->length, finding->guest_offset,
                              q2_max(finding->guest_length, 1)))
            return worst_answer(action) <= q2_catalogue(finding->problem)->severity;
    }
    return false;
}

static bool
is_named(const struct inquiry *inquiry, const struct q2_finding *finding)
{
    const struct q2_plan *plan = inquiry->proof->plan;
    const uint32_t *maps;
    size_t count = q2_check_maps(inquiry->proof->after, finding->maps, &maps);
    if (!(finding->has & Q2_HAS_GUEST))
        return false;
    for (size_t i = 0; i < count; i++) {
        bool given = false;
        for (uint64_t a = 0; a < plan->count && !given; a++)
            given = gives_back(&plan->actions[a], finding, maps[i]);
        if (!given || !q2_plan_names(plan, maps[i], finding->guest_offset, finding->guest_length))
            return false;
    }
    return count > 0;
}

/* Whether what the header of the image as it was left usable kept a pass from seeing anything. */
static bool
was_unseen(const struct inquiry *inquiry, enum q2_problem problem)
{
    const struct q2_check *before = inquiry->proof->before;
    unsigned usable = before->usable;
    bool no_maps = !(usable & Q2_USABLE_L1) || !(usable & Q2_USABLE_SNAPSHOTS) || before->unlocated;
    switch (q2_catalogue(problem)->pass) {
    case Q2_PASS_EXTENSIONS:
        return !(usable & Q2_USABLE_EXTENSIONS);
    case Q2_PASS_REFCOUNTS:
        return !(usable & Q2_USABLE_REFCOUNTS);
    case Q2_PASS_SNAPSHOTS:
        return !(usable & Q2_USABLE_SNAPSHOTS) || before->unlocated;
    case Q2_PASS_BITMAPS:
        return !before->extensions.has_bitmaps;
    case Q2_PASS_ENCRYPTION:
        return !before->extensions.has_crypto;
    case Q2_PASS_MAP:
    case Q2_PASS_PAYLOAD:
        return no_maps;
    case Q2_PASS_REFERENCES:
        return no_maps && is_overlap(problem);
    default:
        return false;
    }
}

static bool
is_acceptable(const struct inquiry *inquiry, const struct q2_finding *finding)
{
    if (is_kept(inquiry, finding))
        return true;
    if (q2_problem_is_about_refcounts(finding->problem) || is_written(inquiry, finding))
        return false;
    if (was_unseen(inquiry, finding->problem))
        return true;
    return !is_overlap(finding->problem) &&
           (was_unreachable(inquiry, finding) || is_in_new_maps(inquiry, finding) ||
            is_named(inquiry, finding));
}

/* ---- the first rule ---- */

/* Where the refcount of the cluster is that a finding is about. */
static uint64_t
refcount_at(const struct q2_check *check, uint64_t offset)
{
    const struct q2_geometry *geometry = &check->geometry;
    uint64_t cluster = offset >> geometry->cluster_bits;
    uint64_t block = q2_refcount_block(check, cluster >> geometry->refcount_block_bits);
    uint64_t index = cluster & ((UINT64_C(1) << geometry->refcount_block_bits) - 1);
    return block > Q2_REFCOUNT_BLOCK_UNKNOWN ? block + ((index << geometry->refcount_order) >> 3)
                                             : 0;
}

static uint64_t
blame(const struct inquiry *inquiry, const struct q2_finding *finding)
{
    const struct q2_proof *proof = inquiry->proof;
    const uint32_t *maps;
    uint64_t found = UINT64_MAX;
    if (finding->has & Q2_HAS_HOST)
        found =
            q2_proof_blame(proof, finding->host_offset, q2_max(finding->host_length, 1), 0, 0, 0);
    for (int i = 0; finding->has & Q2_HAS_OWNERS && i < 2; i++)
        found =
            q2_proof_worse(proof, found, q2_proof_blame(proof, finding->owners[i].at, 8, 0, 0, 0));
    if (found == UINT64_MAX && finding->has & Q2_HAS_TARGET)
        found = q2_proof_blame(proof, finding->target_offset, q2_max(finding->target_length, 1), 0,
                               0, 0);
    if (found == UINT64_MAX && finding->has & Q2_HAS_GUEST &&
        q2_check_maps(proof->after, finding->maps, &maps))
        found = q2_proof_blame(proof, 0, 0, maps[0], finding->guest_offset, finding->guest_length);
    if (found == UINT64_MAX && finding->has & Q2_HAS_TARGET &&
        q2_problem_is_about_refcounts(finding->problem))
        found =
            q2_proof_blame(proof, refcount_at(proof->after, finding->target_offset), 8, 0, 0, 0);
    return found;
}

static int
object(const struct inquiry *inquiry, const struct q2_finding *finding)
{
    uint64_t offset = finding->has & Q2_HAS_HOST ? finding->host_offset : finding->target_offset;
    return q2_proof_object(inquiry->proof,
                           &(struct q2_objection){.kind = Q2_OBJECTION_NEW_FINDING,
                                                  .problem = finding->problem,
                                                  .offset = offset,
                                                  .action = blame(inquiry, finding)},
                           "there would be a new finding of %s at offset 0x%llx",
                           q2_catalogue(finding->problem)->id, (unsigned long long)offset);
}

/* The findings of one problem, which begin at new_first. */
static int
judge_problem(struct inquiry *inquiry, enum q2_problem problem, struct q2_error *err)
{
    struct q2_proof *proof = inquiry->proof;
    struct q2_problem_count was = q2_check_problem_count(proof->before, problem);
    struct q2_problem_count is = q2_check_problem_count(proof->after, problem);
    for (size_t i = inquiry->new_first; i < inquiry->new_end; i++) {
        const struct q2_finding *finding = q2_check_finding(proof->after, i);
        int rc = is_acceptable(inquiry, finding) ? 1 : is_old(inquiry, finding, err);
        if (rc < 0)
            return rc;
        if (rc == 0)
            return object(inquiry, finding);
    }
    /* Of what is not listed nobody knows where it is, so there must not be more of it. Where even
     * what is listed was all accepted, so is the rest of it. */
    if (!is.unlisted || is.count <= was.count || was.count == 0)
        return 1;
    return object(inquiry, q2_check_finding(proof->after, inquiry->new_first));
}

static size_t
find_problem(const struct q2_check *check, enum q2_problem problem, size_t *ret_end)
{
    size_t first = 0, count = q2_check_finding_count(check);
    while (first < count && q2_check_finding(check, first)->problem != problem)
        first++;
    *ret_end = first;
    while (*ret_end < count && q2_check_finding(check, *ret_end)->problem == problem)
        ++*ret_end;
    return first;
}

static int
judge_findings(struct inquiry *inquiry, struct q2_error *err)
{
    const struct q2_check *after = inquiry->proof->after;
    size_t count = q2_check_finding_count(after);
    for (size_t i = 0; i < count; i = inquiry->new_end) {
        enum q2_problem problem = q2_check_finding(after, i)->problem;
        inquiry->new_first = find_problem(after, problem, &inquiry->new_end);
        inquiry->old_first = find_problem(inquiry->proof->before, problem, &inquiry->old_end);
        int rc = counts(problem) ? judge_problem(inquiry, problem, err) : 1;
        if (rc <= 0)
            return rc;
    }
    return 1;
}

int
q2_proof_findings(struct q2_proof *proof, const struct q2_scene *scene, struct q2_error *err)
{
    struct inquiry inquiry = {.proof = proof, .scene = scene};
    if (!proof->before || !(proof->before->usable & Q2_USABLE_GEOMETRY))
        return 1; /* nothing could be checked, so all was there already */
    if (!proof->after)
        return q2_proof_object(proof,
                               &(struct q2_objection){.kind = Q2_OBJECTION_NEW_FINDING,
                                                      .problem = Q2_PROBLEM_HEADER_MAGIC,
                                                      .action =
                                                          q2_proof_blame(proof, 0, 1, 0, 0, 0)},
                               "there would be no header any more");
    int rc = q2_proof_match_maps(proof, &inquiry.matches, err);
    if (rc < 0)
        return rc;
    rc = judge_findings(&inquiry, err);
    q2_proof_free_maps(proof, inquiry.matches);
    return rc;
}

/* ---- the second rule ---- */

static bool
is_at(const struct q2_finding *finding, uint64_t offset)
{
    return (finding->has & Q2_HAS_HOST &&
            offset - finding->host_offset < q2_max(finding->host_length, 1)) ||
           (finding->has & Q2_HAS_TARGET &&
            offset - finding->target_offset < q2_max(finding->target_length, 1)) ||
           !(finding->has & (Q2_HAS_HOST | Q2_HAS_TARGET));
}

/* Faults of a problem at a place. */
static uint64_t
faults_at(const struct q2_check *check, enum q2_problem problem, uint64_t offset)
{
    uint64_t faults = 0;
    for (size_t i = 0; check && i < q2_check_finding_count(check); i++) {
        const struct q2_finding *finding = q2_check_finding(check, i);
        if (finding->problem == problem && is_at(finding, offset))
            faults += finding->count;
    }
    return faults;
}

/* Of several that share a cluster, one action answers one: the others' faults stay in the place. */
static bool
is_answered(const struct q2_proof *proof, const struct q2_answer *answer)
{
    uint64_t left = faults_at(proof->after, answer->problem, answer->offset);
    return left == 0 || (is_overlap(answer->problem) &&
                         left < faults_at(proof->before, answer->problem, answer->offset));
}

int
q2_proof_answers(struct q2_proof *proof)
{
    for (uint64_t i = 0; proof->after && i < proof->plan->count; i++) {
        const struct q2_action *action = &proof->plan->actions[i];
        for (uint64_t j = 0; action->applied && j < action->answer_count; j++) {
            const struct q2_answer *answer = &action->answers[j];
            if (q2_check_problem_count(proof->after, answer->problem).count &&
                !is_answered(proof, answer))
                return q2_proof_object(proof,
                                       &(struct q2_objection){.kind = Q2_OBJECTION_NOT_MENDED,
                                                              .problem = answer->problem,
                                                              .offset = answer->offset,
                                                              .action = i},
                                       "%s at offset 0x%llx would still be there after %s",
                                       q2_catalogue(answer->problem)->id,
                                       (unsigned long long)answer->offset,
                                       q2_action_id(action->kind));
        }
    }
    return 1;
}
