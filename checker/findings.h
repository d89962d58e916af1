/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Collects findings: joins equal neighbours, counts all, keeps a bounded number of each problem. */

#ifndef Q2_CHECKER_FINDINGS_H
#define Q2_CHECKER_FINDINGS_H

#include "checker/check.h"
#include "core/base/budget.h"

struct q2_findings {
    struct q2_budget *budget;
    uint64_t max_details;
    struct q2_finding *items;
    uint64_t count;
    uint64_t capacity;
    struct q2_problem_count totals[Q2_PROBLEM_COUNT];
    uint64_t last[Q2_PROBLEM_COUNT]; /* index + 1 of the newest finding of each problem */
    int failed;                      /* the first error of a call, which later calls repeat */
    struct q2_error error;
};

void q2_findings_init(struct q2_findings *findings, struct q2_budget *budget, uint64_t max_details);
void q2_findings_destroy(struct q2_findings *findings);

/* Add one finding; `finding->count` 0 means 1, and `finding->detail` is copied. Callers add the
 * findings of a problem in ascending order of position where they can, so that neighbours join.
 * Lack of memory is remembered in `failed` for whoever asks at the end of a pass. */
void q2_findings_add(struct q2_findings *findings, const struct q2_finding *finding);

/* What a rule that core/format found broken says: the structure at fault, found, expected. The
 * detail stays the violation's. */
struct q2_finding q2_finding_of(const struct q2_violation *violation);

/* Add that as it is. */
void q2_findings_add_violation(struct q2_findings *findings, const struct q2_violation *violation);

/* Count `count` faults of a problem that concern the host range from `target_offset` on, if that is
 * all that adding them would do: so many are kept that there is no room, and the list has ended or
 * the newest of these does not go on there. Otherwise returns false, and they have to be added.
 * Saves making findings by the million for nothing. */
static inline bool
q2_findings_count(struct q2_findings *findings, enum q2_problem problem, uint64_t count,
                  uint64_t target_offset)
{
    struct q2_problem_count *total = &findings->totals[problem];
    if (total->findings < findings->max_details || findings->last[problem] == 0)
        return false;
    const struct q2_finding *last = &findings->items[findings->last[problem] - 1];
    if (!total->unlisted && last->target_offset + last->target_length == target_offset)
        return false;
    total->count += count;
    total->unlisted += count;
    return true;
}

/* Add all of `from`, as if they were found now. `ids` translates its sets of maps. */
void q2_findings_absorb(struct q2_findings *findings, const struct q2_findings *from,
                        const q2_map_set *ids);

/* A sink that adds what is reported to it as it is. */
struct q2_sink q2_findings_sink(struct q2_findings *findings);

/* Put them in the order of the public accessors. */
void q2_findings_sort(struct q2_findings *findings);

#endif
