/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Which commands to run next: one row for each piece of advice, in the order to follow it. */

#include "checker/format.h"
#include "checker/report_parts.h"

struct situation {
    bool any;
    bool damaged; /* corruption, or something that could not be checked */
    bool leaks;
    bool salvage;             /* something that can only be copied around */
    enum q2_problem to_learn; /* the worst problem */
};

static bool
needs_repair(const struct situation *now)
{
    return now->damaged;
}

static bool
only_leaks(const struct situation *now)
{
    return now->leaks && !now->damaged;
}

static bool
needs_salvage(const struct situation *now)
{
    return now->salvage;
}

static bool
always(const struct situation *now)
{
    return now->any;
}

/* A command is `before`, then the image's name or the id of the worst problem, then `after`. */
static const struct {
    bool (*applies)(const struct situation *now);
    const char *before;
    enum { IMAGE, PROBLEM } about;
    const char *after;
    const char *why;
} advice[] = {
    {needs_repair, "qcow2-repair --dry-run ", IMAGE, "",
     "says what a repair would do, and why; it writes nothing"},
    {needs_repair, "qcow2-repair ", IMAGE, "",
     "does it so that it can be undone; `qemu-img check -r` may lose data"},
    {only_leaks, "qcow2-repair --leaks ", IMAGE, "", "gives the space back, and can be undone"},
    {needs_salvage, "qcow2-repair --format=qcow2 --salvage=salvaged.qcow2 ", IMAGE, "",
     "copies what is readable to a new image"},
    {always, "qcow2-check --explain ", PROBLEM, "",
     "says more about a problem; so for each of the ids above"},
};

static bool
is_worse(const struct q2_catalogue_entry *a, const struct q2_catalogue_entry *b)
{
    return a->severity != b->severity ? a->severity < b->severity : a->impact < b->impact;
}

static struct situation
look(const struct q2_check *check)
{
    const struct q2_check_counts *counts = q2_check_counts(check);
    struct situation now = {.damaged = counts->corruptions || counts->check_errors,
                            .leaks = counts->leaks};
    for (int i = 0; i < Q2_PROBLEM_COUNT; i++) {
        enum q2_problem problem = (enum q2_problem)i;
        const struct q2_catalogue_entry *entry = q2_catalogue(problem);
        if (q2_check_problem_count(check, problem).count == 0)
            continue;
        if (!now.any || is_worse(entry, q2_catalogue(now.to_learn)))
            now.to_learn = problem;
        now.any = true;
        now.salvage |= entry->repair == Q2_REPAIR_SALVAGE;
    }
    return now;
}

void
q2_report_advice(const struct q2_check *check, const char *filename, FILE *out)
{
    char name[1024];
    struct situation now = look(check);
    q2_format_shell(name, sizeof name, filename);
    fputs("\nNext:\n", out);
    for (size_t i = 0; i < sizeof advice / sizeof advice[0]; i++) {
        if (!advice[i].applies(&now))
            continue;
        fprintf(out, "  %s%s%s\n      %s\n", advice[i].before,
                advice[i].about == IMAGE ? name : q2_problem_id(now.to_learn), advice[i].after,
                advice[i].why);
    }
}
