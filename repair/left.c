/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Why what a repair leaves is left, and what to do instead: nothing that is wrong goes without a
 * word. */

#include "repair/report.h"

#include "checker/catalogue.h"

/* Whether the report has an action that would mend a problem, and says why it is not done. */
static bool
is_offered(const struct q2_plan *plan, enum q2_problem problem)
{
    for (uint64_t i = 0; i < plan->count; i++) {
        const struct q2_action *action = &plan->actions[i];
        for (uint64_t j = 0; !action->applied && j < action->answer_count; j++)
            if (action->answers[j].problem == problem)
                return true;
    }
    return false;
}

/* What the catalogue does not tell. */
static const char *
why_this(enum q2_problem problem)
{
    switch (problem) {
    case Q2_PROBLEM_REFCOUNT_OVERFLOW:
        return "no refcount of this image can be that high; deleting a snapshot lowers it, and "
               "--salvage makes an image with wider refcounts";
    case Q2_PROBLEM_HEADER_TRUNCATED:
        return "the file ends inside its header: there is nothing behind that could be read";
    case Q2_PROBLEM_HEADER_INCOMPATIBLE_UNKNOWN:
        return "only software that knows the feature can tell what the tables mean";
    case Q2_PROBLEM_ORPHAN_L1_TABLE:
    case Q2_PROBLEM_ORPHAN_L2_TABLE:
        return "kept: it was part of a disk or a snapshot, and nothing tells of which";
    case Q2_PROBLEM_WORK_LIMIT:
        return "not all tables could be examined, so that nothing about them is certain; "
               "everything that can be read can be copied to a new image with --salvage";
    case Q2_PROBLEM_READ_UNSTABLE:
        return "the storage reads it one time and not another: look at that first, then repair "
               "again";
    case Q2_PROBLEM_LUKS_NO_ACTIVE_SLOT:
    case Q2_PROBLEM_LUKS_ITERATIONS:
    case Q2_PROBLEM_CRYPTO_HEADER_UNREADABLE:
        return "without the key material as it was, no pass phrase opens the disk; a copy of the "
               "LUKS header, if there is one, can be put back";
    default:
        return NULL;
    }
}

/* Whether the check knows of more than leaks. */
static bool
has_damage(struct q2_check *check)
{
    for (int p = 0; p < Q2_PROBLEM_COUNT; p++) {
        enum q2_severity severity = q2_catalogue((enum q2_problem)p)->severity;
        if ((severity == Q2_SEVERITY_CORRUPTION || severity == Q2_SEVERITY_ERROR) &&
            q2_check_problem_count(check, (enum q2_problem)p).count)
            return true;
    }
    return false;
}

const char *
q2_repair_left(const struct q2_repair *repair, enum q2_problem problem)
{
    struct q2_check *after = q2_repair_after(repair);
    const struct q2_catalogue_entry *entry = q2_catalogue(problem);
    if (!after || q2_check_problem_count(after, problem).count == 0 ||
        entry->severity > Q2_SEVERITY_ERROR || is_offered(q2_repair_actions(repair), problem))
        return NULL;
    if (why_this(problem))
        return why_this(problem);
    if (entry->severity == Q2_SEVERITY_LEAK)
        return has_damage(after)
                   ? "kept, because a damaged pointer may have meant these clusters"
                   : "kept, because they may be what a part of a table led to that was overwritten "
                     "with zeros";
    if (q2_repair_unsearched(repair))
        return q2_repair_unsearched(repair);
    switch (entry->repair) {
    case Q2_REPAIR_SALVAGE:
        return "what it takes is gone, or cannot be read, so that it cannot be mended in place; "
               "everything else can be copied to a new image with --salvage";
    case Q2_REPAIR_MANUAL:
        return "somebody who knows what the image is for has to decide; everything that can be "
               "read can be copied to a new image with --salvage";
    default:
        return "nothing that is left in the file tells how it was; everything that can be read "
               "can be copied to a new image with --salvage";
    }
}
