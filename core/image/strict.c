/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/image/strict.h"

#include <inttypes.h>
#include <stdio.h>

enum severity { CORRUPTION, LEAK, ERROR, SUSPICIOUS, NOTE };

static const uint8_t severities[] = {
#define Q2_PROBLEM(name, id, pass, severity, impact, repair, sentence) severity,
#include "core/format/problems.def"
#undef Q2_PROBLEM
};

static bool
breaks(enum q2_problem problem)
{
    switch (problem) {
    case Q2_PROBLEM_HEADER_CORRUPT: /* open has rules of its own for these two */
    case Q2_PROBLEM_HEADER_DIRTY:
    /* How version 2 images were made, and what old software left when it made them version 3. */
    case Q2_PROBLEM_SNAPSHOT_EXTRA_SHORT:
    case Q2_PROBLEM_L2_COPIED_CLEAR: /* all that comes of it is a needless copy */
        return false;
    default:
        break;
    }
    return severities[problem] == CORRUPTION || severities[problem] == ERROR;
}

static void
report(void *data, const struct q2_violation *violation)
{
    struct q2_strict *strict = data;
    if (strict->broken || !breaks(violation->problem))
        return;
    strict->broken = true;
    strict->first = *violation;
}

void
q2_strict_init(struct q2_strict *strict, const char *file_name)
{
    *strict =
        (struct q2_strict){.sink = {.report = report, .data = strict}, .file_name = file_name};
}

int
q2_strict_result(const struct q2_strict *strict, struct q2_error *err)
{
    if (!strict->broken)
        return 0;
    const struct q2_violation *first = &strict->first;
    char got[64] = "";
    if (first->has_got)
        snprintf(got, sizeof got, ": found 0x%" PRIx64, first->got);
    bool unknown = first->problem == Q2_PROBLEM_HEADER_INCOMPATIBLE_UNKNOWN;
    return q2_error_set(err, unknown ? Q2_ERR_UNSUPPORTED : Q2_ERR_FORMAT,
                        "%s: %s at offset 0x%" PRIx64 "%s%s%s%s", strict->file_name,
                        q2_problem_id(first->problem), first->offset, got,
                        first->detail[0] ? " (" : "", first->detail, first->detail[0] ? ")" : "");
}
