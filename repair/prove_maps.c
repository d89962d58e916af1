/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Which snapshot of the repaired image is which of the image as it was. The id tells, and where a
 * repair had to change that, the place of the L1 table does. */

#include "core/base/checked.h"
#include "repair/prove_parts.h"

#include <stdlib.h>
#include <string.h>

/* A snapshot of the repaired image. */
struct candidate {
    const char *id;
    uint64_t l1_offset;
    uint32_t map;
    bool taken;
};

struct matching {
    struct q2_proof *proof;
    struct candidate *candidates;
    uint64_t count;
    int64_t *matches;
    uint64_t match_count;
};

static int
compare_ids(const void *left, const void *right)
{
    const struct candidate *a = left, *b = right;
    int order = strcmp(a->id, b->id);
    return order ? order : (a->map > b->map) - (a->map < b->map);
}

static int
compare_places(const void *left, const void *right)
{
    const struct candidate *a = left, *b = right;
    if (a->l1_offset != b->l1_offset)
        return a->l1_offset < b->l1_offset ? -1 : 1;
    return (a->map > b->map) - (a->map < b->map);
}

/* Whether a candidate comes before what is looked for. */
static bool
is_below(const struct candidate *candidate, const char *id, uint64_t l1_offset)
{
    return id ? strcmp(candidate->id, id) < 0 : candidate->l1_offset < l1_offset;
}

static bool
is_it(const struct candidate *candidate, const char *id, uint64_t l1_offset)
{
    return id ? strcmp(candidate->id, id) == 0 : candidate->l1_offset == l1_offset;
}

/* The candidate with an id, or, where that is NULL, with an L1 table: of several, first the one in
 * the same place of the snapshot table, then the next that is free. */
static struct candidate *
find(const struct matching *matching, const char *id, uint64_t l1_offset, uint32_t map)
{
    uint64_t low = 0, high = matching->count;
    struct candidate *free = NULL;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (is_below(&matching->candidates[middle], id, l1_offset))
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < matching->count && is_it(&matching->candidates[low], id, l1_offset); low++) {
        struct candidate *candidate = &matching->candidates[low];
        if (candidate->taken)
            continue;
        if (candidate->map == map)
            return candidate;
        free = free ? free : candidate;
        if (candidate->map > map)
            break;
    }
    return free;
}

static void
match(struct matching *matching, bool by_id)
{
    const struct q2_check *before = matching->proof->before;
    if (matching->count)
        qsort(matching->candidates, matching->count, sizeof *matching->candidates,
              by_id ? compare_ids : compare_places);
    for (uint64_t m = 1; m < matching->match_count; m++) {
        if (matching->matches[m] != Q2_PROOF_NO_MAP)
            continue;
        struct candidate *found = find(matching, by_id ? before->snapshots[m - 1].id : NULL,
                                       before->maps[m].l1_offset, (uint32_t)m);
        if (!found)
            continue;
        found->taken = true;
        matching->matches[m] = found->map;
    }
}

int
q2_proof_match_maps(struct q2_proof *proof, int64_t **ret_matches, struct q2_error *err)
{
    static const char purpose[] = "the proof of a repair";
    const struct q2_check *before = proof->before, *after = proof->after;
    void *matches, *candidates;
    int rc =
        q2_budget_calloc(proof->budget, before->map_count, sizeof(int64_t), purpose, &matches, err);
    if (rc < 0)
        return rc;
    struct matching matching = {.proof = proof,
                                .matches = matches,
                                .match_count = before->map_count,
                                .count = after->map_count ? after->map_count - 1 : 0};
    rc = q2_budget_calloc(proof->budget, matching.count, sizeof *matching.candidates, purpose,
                          &candidates, err);
    if (rc < 0) {
        q2_proof_free_maps(proof, matches);
        return rc;
    }
    matching.candidates = candidates;
    for (uint32_t i = 0; i < matching.count; i++)
        matching.candidates[i] = (struct candidate){.id = after->snapshots[i].id,
                                                    .l1_offset = after->maps[i + 1].l1_offset,
                                                    .map = i + 1};
    for (uint64_t m = 0; m < matching.match_count; m++)
        matching.matches[m] = Q2_PROOF_NO_MAP;
    if (matching.match_count && after->map_count)
        matching.matches[0] = 0;
    match(&matching, true);
    match(&matching, false);
    q2_budget_free(proof->budget, candidates, matching.count, sizeof *matching.candidates);
    *ret_matches = matches;
    return 0;
}

void
q2_proof_free_maps(struct q2_proof *proof, int64_t *matches)
{
    q2_budget_free(proof->budget, matches, proof->before->map_count, sizeof *matches);
}
