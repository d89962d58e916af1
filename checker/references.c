/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* References: what the tables refer to against what the refcounts say, and what two owners claim.
 * Ends phase one with the comparison, and where that finds anything, runs phase two. */

#include "checker/masses.h"
#include "checker/orphans.h"
#include "checker/uses.h"
#include "core/base/checked.h"

/* What scanning the blocks that disagree gathers. */
struct scan {
    struct q2_check *check;
    struct q2_refcount_reader reader;
    struct q2_orphans orphans;
    struct q2_masses masses;
    bool reports_leaks;
    bool any_suspect;
    uint64_t highest; /* cluster in use */
};

static void
report_clusters(struct q2_check *check, enum q2_problem problem, uint64_t first, uint64_t count,
                uint64_t refcount)
{
    unsigned bits = check->geometry.cluster_bits;
    if (q2_findings_count(&check->findings, problem, count, first << bits))
        return;
    q2_findings_add(&check->findings, &(struct q2_finding){
                                          .problem = problem,
                                          .has = Q2_HAS_TARGET | Q2_HAS_GOT | Q2_HAS_EXPECTED,
                                          .count = count,
                                          .target_offset = first << bits,
                                          .target_length = count << bits,
                                          .got = refcount,
                                      });
}

/* `count` clusters that have this refcount, and no reference. */
static void
take_unreferenced(struct scan *scan, uint64_t first, uint64_t count, uint64_t refcount)
{
    struct q2_check *check = scan->check;
    uint64_t inside = first < check->geometry.file_clusters
                          ? q2_min(count, check->geometry.file_clusters - first)
                          : 0;
    if (count > inside)
        report_clusters(check, Q2_PROBLEM_REFCOUNT_BEYOND_END, first + inside, count - inside,
                        refcount);
    if (inside == 0)
        return;
    scan->highest = q2_max(scan->highest, first + inside - 1);
    if (scan->reports_leaks)
        report_clusters(check, Q2_PROBLEM_CLUSTER_LEAKED, first, inside, refcount);
    /* Where a table has been lost, it is among these. What one that cannot be read refers to is
     * not lost, though. */
    if (!check->unread && !check->work.exceeded)
        q2_orphans_add(&scan->orphans, first, inside);
}

/* Those of 64 clusters from `cluster` on that have a refcount and no reference, one run of equal
 * refcounts at a time. */
static void
take_unreferenced_word(struct scan *scan, uint64_t cluster, uint64_t unreferenced)
{
    uint64_t equal = 0, refcount = 0;
    while (unreferenced) {
        unsigned bit = (unsigned)__builtin_ctzll(unreferenced);
        if (!(equal >> bit & 1)) {
            refcount = q2_refcount_of(&scan->reader, cluster + bit);
            equal = q2_refcounts_equal(&scan->reader, cluster, refcount);
        }
        unsigned run = q2_word_run(unreferenced & equal, bit);
        take_unreferenced(scan, cluster + bit, run, refcount);
        unreferenced &= ~q2_word_mask(bit, run);
    }
}

/* The part of a block that is in the reader. */
static int
scan_part(struct scan *scan, struct q2_error *err)
{
    const struct q2_refcount_reader *reader = &scan->reader;
    struct q2_tally *tally = scan->check->tally;
    struct q2_chunk *chunk = NULL;
    for (uint64_t i = 0; i < reader->count; i += 64) {
        uint64_t cluster = reader->first + i;
        unsigned word = (unsigned)(cluster % Q2_CHUNK_CLUSTERS / 64);
        if (i == 0 || word == 0)
            chunk = q2_tally_chunk(tally, cluster >> Q2_CHUNK_BITS);
        uint64_t odd = q2_refcounts_contradict(reader, cluster, chunk);
        uint64_t suspect = chunk ? odd & chunk->seen[word] : 0;
        take_unreferenced_word(scan, cluster, odd & ~suspect);
        if (suspect)
            suspect = q2_masses_take(&scan->masses, reader, chunk, cluster, suspect);
        if (!suspect)
            continue;
        scan->any_suspect = true;
        int rc = q2_tally_suspect(tally, chunk, word, suspect, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void
report_unreadable(struct scan *scan, uint64_t index)
{
    struct q2_check *check = scan->check;
    q2_findings_add(&check->findings,
                    &(struct q2_finding){.problem = Q2_PROBLEM_REFCOUNT_BLOCK_UNREADABLE,
                                         .has = Q2_HAS_HOST,
                                         .host_offset = q2_refcount_block(check, index),
                                         .host_length = check->geometry.cluster_size});
}

static int
scan_block(struct scan *scan, uint64_t index, struct q2_error *err)
{
    struct q2_check *check = scan->check;
    unsigned bits = check->geometry.refcount_block_bits;
    uint64_t first = index << bits, end = first + (UINT64_C(1) << bits);
    for (uint64_t cluster = first; cluster < end; cluster += scan->reader.count) {
        q2_refcount_load(&scan->reader, cluster);
        if (scan->reader.unknown == Q2_ERR_IO) {
            report_unreadable(scan, index);
            return 0;
        }
        int rc = scan->reader.unknown ? 0 : scan_part(scan, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Where there is no block, every refcount is 0: all that is referred to is wrong. */
static int
scan_uncovered(struct scan *scan, uint64_t first, uint64_t end, struct q2_error *err)
{
    const struct q2_refcount_reader none = {.check = scan->check, .zero = true};
    uint64_t number = first >> Q2_CHUNK_BITS;
    struct q2_chunk *chunk;
    for (; (chunk = q2_tally_next(scan->check->tally, &number)) != NULL; number++) {
        uint64_t base = number << Q2_CHUNK_BITS;
        if (base >= end)
            return 0;
        for (unsigned w = 0; w < Q2_CHUNK_WORDS; w++) {
            uint64_t cluster = base + (uint64_t)w * 64;
            if (cluster < first || cluster >= end || !chunk->seen[w])
                continue;
            uint64_t suspect = q2_masses_take(&scan->masses, &none, chunk, cluster, chunk->seen[w]);
            if (!suspect)
                continue;
            scan->any_suspect = true;
            int rc = q2_tally_suspect(scan->check->tally, chunk, w, suspect, err);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

static int
scan_blocks(struct scan *scan, const struct q2_disagreement *disagreement, struct q2_error *err)
{
    struct q2_check *check = scan->check;
    unsigned bits = check->geometry.refcount_block_bits;
    uint64_t entries = check->refcount_entries;
    for (uint64_t i = 0; i < entries; i++) {
        if (!q2_bit_test(disagreement->blocks, i))
            continue;
        int rc = q2_refcount_block(check, i)
                     ? scan_block(scan, i, err)
                     : scan_uncovered(scan, i << bits, (i + 1) << bits, err);
        if (rc < 0)
            return rc;
    }
    return q2_bit_test(disagreement->blocks, entries)
               ? scan_uncovered(scan, entries << bits, UINT64_MAX, err)
               : 0;
}

/* Mark what two owners claim; find the highest cluster that is referred to. */
static void
scan_overlaps(struct scan *scan)
{
    uint64_t number = 0;
    struct q2_chunk *chunk;
    for (; (chunk = q2_tally_next(scan->check->tally, &number)) != NULL; number++) {
        for (unsigned w = 0; w < Q2_CHUNK_WORDS; w++) {
            uint64_t seen = chunk->seen[w];
            if (seen)
                scan->highest = (number << Q2_CHUNK_BITS) + (uint64_t)w * 64 + 63 -
                                (unsigned)__builtin_clzll(seen);
        }
        if (!chunk->overlap)
            continue;
        /* The tally of overlaps is also the first list of suspects. */
        for (unsigned w = 0; w < Q2_CHUNK_WORDS; w++)
            scan->any_suspect |= chunk->overlap[w] != 0;
    }
}

static int
suspect_overlaps(struct q2_check *check, struct q2_error *err)
{
    uint64_t number = 0;
    struct q2_chunk *chunk;
    for (; (chunk = q2_tally_next(check->tally, &number)) != NULL; number++)
        for (unsigned w = 0; chunk->overlap && w < Q2_CHUNK_WORDS; w++) {
            int rc = q2_tally_suspect(check->tally, chunk, w, chunk->overlap[w], err);
            if (rc < 0)
                return rc;
        }
    return 0;
}

static int
explain(struct scan *scan, const uint64_t *odd_units, struct q2_error *err)
{
    struct q2_check *check = scan->check;
    struct q2_uses uses;
    int rc = suspect_overlaps(check, err);
    if (rc < 0)
        return rc;
    q2_work_reset(&check->work); /* a second walk, with the same bound */
    q2_uses_init(&uses, check);
    q2_uses_add_structures(&uses);
    rc = q2_uses_add_maps(&uses, odd_units, scan->any_suspect, true, err);
    if (rc == 0)
        rc = q2_uses_settle(&uses, err);
    if (rc == 0)
        rc = q2_uses_judge(&uses, err);
    q2_uses_destroy(&uses);
    return rc;
}

static int
compare(struct scan *scan, struct q2_error *err)
{
    struct q2_check *check = scan->check;
    struct q2_disagreement disagreement = {0};
    int rc = q2_refcounts_compare(check, &disagreement, err);
    if (rc == 0 && disagreement.any)
        rc = scan_blocks(scan, &disagreement, err);
    q2_budget_free(&check->budget, disagreement.blocks, disagreement.words, 8);
    return rc;
}

/* Whether a snapshot that the header does not count is lost rather than deleted: then its L1 table
 * still has a refcount, and no other owner. */
static void
judge_lost(struct scan *scan)
{
    struct q2_check *check = scan->check;
    uint64_t cluster = q2_cluster_of(check, check->lost_l1);
    if (!check->lost_at)
        return;
    const struct q2_chunk *chunk = q2_tally_chunk(check->tally, cluster >> Q2_CHUNK_BITS);
    bool used = chunk && q2_chunk_references(chunk, (unsigned)(cluster % Q2_CHUNK_CLUSTERS));
    bool kept =
        !check->refcount_entries || q2_refcount_of(&scan->reader, cluster) || scan->reader.unknown;
    if (used || !kept) {
        check->lost_at = 0;
        return;
    }
    struct q2_sink sink = q2_findings_sink(&check->findings);
    q2_violate(&sink, Q2_PROBLEM_SNAPSHOT_TABLE_LOST, check->lost_at, check->lost_length,
               check->header.nb_snapshots, "nb_snapshots");
    check->unlocated = true;
}

int
q2_pass_references(struct q2_check *check, const uint64_t *odd_units, struct q2_error *err)
{
    struct scan scan = {.check = check};
    q2_orphans_init(&scan.orphans, check);
    q2_masses_init(&scan.masses, check);
    int rc = q2_refcount_reader_init(&scan.reader, check, err);
    if (rc < 0)
        return rc;
    judge_lost(&scan);
    scan.reports_leaks = q2_references_complete(check);
    scan_overlaps(&scan);
    if (check->refcount_entries)
        rc = compare(&scan, err);
    if (rc == 0)
        rc = explain(&scan, odd_units, err);
    if (rc == 0)
        rc = q2_orphans_examine(&scan.orphans, err);
    check->counts.image_end_offset = (scan.highest + 1) << check->geometry.cluster_bits;
    q2_orphans_destroy(&scan.orphans);
    q2_masses_destroy(&scan.masses);
    q2_refcount_reader_destroy(&scan.reader);
    return rc;
}
