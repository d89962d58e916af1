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

/* The same for a rule that core/format found broken: the structure at fault, found, expected. */
void q2_findings_add_violation(struct q2_findings *findings, const struct q2_violation *violation);

/* A sink that adds what is reported to it as it is. */
struct q2_sink q2_findings_sink(struct q2_findings *findings);

/* Put them in the order of the public accessors. */
void q2_findings_sort(struct q2_findings *findings);

#endif
