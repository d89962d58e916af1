/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The verdict on each cluster that does not add up: too few or too many references counted, two
 * owners, or a COPIED flag that contradicts the refcount. */

#include "checker/refcounts.h"
#include "checker/uses.h"
#include "core/base/checked.h"
#include "core/format/refcount.h"

#include <inttypes.h>

/* One cluster with all its uses. */
struct trial {
    struct q2_check *check;
    uint64_t cluster;
    const struct q2_use *uses;
    uint64_t count;
    uint64_t references; /* counted */
    uint64_t refcount;   /* recorded */
    const struct q2_chunk *chunk;
    unsigned index; /* in the chunk */
};

static bool
is_guest(const struct q2_owner *owner)
{
    return owner->kind == Q2_OWNER_DATA || owner->kind == Q2_OWNER_COMPRESSED;
}

static bool
is_bitmap(const struct q2_owner *owner)
{
    return owner->kind == Q2_OWNER_BITMAP_DIRECTORY || owner->kind == Q2_OWNER_BITMAP_TABLE ||
           owner->kind == Q2_OWNER_BITMAP_DATA;
}

/* Of two uses, the one that says where a finding is: the later one that has a guest range. */
static const struct q2_use *
place_of(const struct q2_use *first, const struct q2_use *second)
{
    if (!second)
        return first;
    return second->owner.guest_length || !first->owner.guest_length ? second : first;
}

/* Say where a finding is in terms of one owner: the guest range that depends on it. */
static void
add_place(const struct trial *trial, struct q2_finding *finding, const struct q2_use *use)
{
    const struct q2_geometry *geometry = &trial->check->geometry;
    finding->maps = use->owner.maps;
    if (is_guest(&use->owner)) {
        finding->has |= Q2_HAS_GUEST | Q2_HAS_L1 | Q2_HAS_L2;
        finding->guest_offset = use->owner.guest;
        finding->guest_length = geometry->cluster_size;
        finding->l2_index = (uint32_t)use->owner.index;
        finding->l1_index = (uint32_t)(use->owner.guest / q2_l2_reach(geometry));
    } else if (use->owner.kind == Q2_OWNER_L2_TABLE) {
        finding->has |= Q2_HAS_GUEST | Q2_HAS_L1;
        finding->guest_offset = use->owner.guest;
        finding->guest_length = q2_l2_reach(geometry);
        finding->l1_index = (uint32_t)use->owner.index;
    }
}

static void
add(const struct trial *trial, enum q2_problem problem, const struct q2_use *first,
    const struct q2_use *second, uint64_t expected, uint64_t count)
{
    const struct q2_geometry *geometry = &trial->check->geometry;
    struct q2_finding finding = {
        .problem = problem,
        .has = Q2_HAS_TARGET,
        .count = count,
        .target_offset = trial->cluster << geometry->cluster_bits,
        .target_length = geometry->cluster_size,
    };
    if (!second) {
        finding.has |= Q2_HAS_GOT | Q2_HAS_EXPECTED;
        finding.got = trial->refcount;
        finding.expected = expected;
    }
    if (first) {
        finding.has |= Q2_HAS_OWNERS;
        finding.owners[0] = first->owner;
        add_place(trial, &finding, place_of(first, second));
    }
    if (second)
        finding.owners[1] = second->owner;
    q2_findings_add(&trial->check->findings, &finding);
}

/* ---- refcounts ---- */

/* What two owners share has a reference too many rather than a refcount too low: once the overlap
 * is resolved, the refcount may be right. Blocks are rebuilt, not moved, so there both are said. */
static void
judge_refcount(const struct trial *trial, bool overlaps)
{
    uint64_t most = q2_refcount_max(trial->check->geometry.refcount_order);
    const struct q2_use *first = trial->count ? &trial->uses[0] : NULL;
    uint64_t countable = q2_min(trial->references, most);
    if (trial->references > most && !overlaps)
        add(trial, Q2_PROBLEM_REFCOUNT_OVERFLOW, first, NULL, trial->references,
            trial->references - most);
    if (trial->refcount == countable)
        return;
    enum q2_problem problem = trial->refcount == 0          ? Q2_PROBLEM_REFCOUNT_ZERO
                              : trial->refcount < countable ? Q2_PROBLEM_REFCOUNT_TOO_LOW
                                                            : Q2_PROBLEM_REFCOUNT_TOO_HIGH;
    bool explained = problem == Q2_PROBLEM_REFCOUNT_TOO_LOW && overlaps;
    bool doubtful =
        problem == Q2_PROBLEM_REFCOUNT_TOO_HIGH && !q2_references_complete(trial->check);
    if (!explained && !doubtful)
        add(trial, problem, first, NULL, countable, 1);
}

/* ---- the COPIED flag ---- */

static void
judge_copied(const struct trial *trial)
{
    static const enum q2_problem problems[2][2] = {
        {Q2_PROBLEM_L1_COPIED_CLEAR, Q2_PROBLEM_L1_COPIED_SET},
        {Q2_PROBLEM_L2_COPIED_CLEAR, Q2_PROBLEM_L2_COPIED_SET},
    };
    for (uint64_t i = 0; i < trial->count; i++) {
        const struct q2_use *use = &trial->uses[i];
        if (!use->active || use->copied == (trial->refcount == 1))
            continue;
        struct q2_finding finding = {
            .problem = problems[is_guest(&use->owner)][use->copied],
            .has = Q2_HAS_HOST | Q2_HAS_GOT | Q2_HAS_TARGET,
            .host_offset = use->owner.at,
            .host_length = is_guest(&use->owner) ? trial->check->geometry.l2_entry_size : 8,
            .target_offset = trial->cluster << trial->check->geometry.cluster_bits,
            .target_length = trial->check->geometry.cluster_size,
            .got = trial->refcount,
        };
        add_place(trial, &finding, use);
        q2_findings_add(&trial->check->findings, &finding);
    }
}

/* ---- overlaps ---- */

static enum q2_problem
overlap_of(const struct q2_owner *a, const struct q2_owner *b)
{
    bool block_a = a->kind == Q2_OWNER_REFCOUNT_BLOCK, block_b = b->kind == Q2_OWNER_REFCOUNT_BLOCK;
    if (block_a && block_b)
        return Q2_PROBLEM_REFCOUNT_BLOCK_DUPLICATE;
    if (block_a || block_b)
        return Q2_PROBLEM_REFCOUNT_BLOCK_OVERLAP;
    if (is_guest(a) && is_guest(b))
        return Q2_PROBLEM_OVERLAP_DATA;
    if (is_guest(a) || is_guest(b))
        return Q2_PROBLEM_OVERLAP_METADATA_DATA;
    if (a->kind == Q2_OWNER_L2_TABLE && b->kind == Q2_OWNER_L2_TABLE)
        return Q2_PROBLEM_OVERLAP_L2_TABLE;
    if (is_bitmap(a) && is_bitmap(b))
        return Q2_PROBLEM_OVERLAP_BITMAPS;
    return Q2_PROBLEM_OVERLAP_METADATA;
}

/* Every use beyond the first is one fault, reported against the first; uses are in the order of
 * enum q2_owner_kind. Compressed clusters may share a host cluster with each other. Returns whether
 * two owners other than refcount blocks overlap. */
static bool
judge_overlap(const struct trial *trial)
{
    bool overlaps = false;
    if (!q2_chunk_test(trial->chunk->overlap, trial->index) || trial->count < 2)
        return false;
    const struct q2_use *first = &trial->uses[0];
    for (uint64_t i = 1; i < trial->count; i++) {
        const struct q2_use *use = &trial->uses[i];
        if (first->owner.kind == Q2_OWNER_COMPRESSED && use->owner.kind == Q2_OWNER_COMPRESSED)
            continue;
        enum q2_problem problem = overlap_of(&first->owner, &use->owner);
        overlaps |= problem != Q2_PROBLEM_REFCOUNT_BLOCK_DUPLICATE &&
                    problem != Q2_PROBLEM_REFCOUNT_BLOCK_OVERLAP;
        add(trial, problem, first, use, 0, 1);
    }
    return overlaps;
}

/* ---- all of them ---- */

static void
judge(const struct trial *trial, bool has_refcount)
{
    bool overlaps = judge_overlap(trial);
    if (has_refcount) {
        judge_refcount(trial, overlaps);
        judge_copied(trial);
    }
}

/* The uses of one cluster: from *at on, which moves past them. */
static void
gather(const struct q2_uses *uses, uint64_t cluster, uint64_t *at, struct trial *trial)
{
    while (*at < uses->count && uses->items[*at].cluster < cluster)
        ++*at;
    trial->uses = uses->count ? &uses->items[*at] : NULL;
    trial->count = 0;
    while (*at < uses->count && uses->items[*at].cluster == cluster) {
        trial->count++;
        ++*at;
    }
}

int
q2_uses_judge(struct q2_uses *uses, struct q2_error *err)
{
    struct q2_check *check = uses->check;
    struct q2_refcount_reader reader;
    int rc = q2_refcount_reader_init(&reader, check, err);
    if (rc < 0)
        return rc;
    bool has_refcounts = check->refcount_entries > 0;
    uint64_t at = 0, number = 0;
    const struct q2_chunk *chunk;
    for (; (chunk = q2_tally_next(check->tally, &number)) != NULL; number++) {
        for (unsigned w = 0; chunk->suspect && w < Q2_CHUNK_WORDS; w++) {
            for (uint64_t left = chunk->suspect[w]; left; left &= left - 1) {
                unsigned i = w * 64 + (unsigned)__builtin_ctzll(left);
                struct trial trial = {.check = check,
                                      .cluster = (number << Q2_CHUNK_BITS) + i,
                                      .references = q2_chunk_references(chunk, i),
                                      .chunk = chunk,
                                      .index = i};
                trial.refcount = q2_refcount_of(&reader, trial.cluster);
                gather(uses, trial.cluster, &at, &trial);
                judge(&trial, has_refcounts && !reader.unknown);
            }
        }
    }
    q2_refcount_reader_destroy(&reader);
    return 0;
}
