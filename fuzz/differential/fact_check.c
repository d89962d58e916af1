/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The check: verdict, exit status and every count. */

#include "fuzz/differential/trial.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

static const char *const counters[] = {
    "corruptions",         "leaks",
    "check-errors",        "image-end-offset",
    "total-clusters",      "allocated-clusters",
    "fragmented-clusters", "compressed-clusters",
};

/* How a program that gave no report ended. */
static const char *
why_none(const struct outcome *outcome)
{
    if (outcome->end == RUN_HANG)
        return "hangs";
    if (outcome->end == RUN_CRASH)
        return "crashes";
    return outcome->status == 63 ? "not-supported" : "cannot-check";
}

/* Of our report; it has a line for each. */
static uint64_t
our_count(const struct report *report, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = report->run.output; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, length) == 0 && line[length] == ' ')
            return strtoull(line + length, NULL, 10);
    }
    return 0;
}

static uint64_t
their_count(json_object *report, const char *name)
{
    json_object *value;
    return json_object_object_get_ex(report, name, &value) ? json_object_get_uint64(value) : 0;
}

void
compare_checks(struct trial *trial, const char *fact, const char *image,
               const struct report *report)
{
    const char *const argv[] = {"qemu-img", "check", "--output=json", "-f", "qcow2", image, NULL};
    struct outcome theirs;
    run_program(argv, NULL, &theirs);
    json_object *counts = json_tokener_parse(theirs.output);
    bool has = counts && json_object_object_get_ex(counts, "check-errors", NULL);
    if (report->made && has && theirs.end == RUN_EXIT) {
        trial_differ_numbers(trial, fact, "exit", (uint64_t)report->run.status,
                             (uint64_t)theirs.status);
        for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
            trial_differ_numbers(trial, fact, counters[i], our_count(report, counters[i]),
                                 their_count(counts, counters[i]));
    } else {
        char a[16], b[16];
        trial_differ(trial, fact, "report",
                     report->made ? outcome_word(&report->run, a) : why_none(&report->run),
                     has && theirs.end == RUN_EXIT ? outcome_word(&theirs, b) : why_none(&theirs));
    }
    json_object_put(counts);
    outcome_destroy(&theirs);
}

/* It is the traits of what is checked that explain a difference. */
void
compare_changed(struct trial *trial, const char *fact, const char *image)
{
    struct report before = trial->report;
    report_make(image, &trial->report);
    compare_checks(trial, fact, image, &trial->report);
    report_destroy(&trial->report);
    trial->report = before;
}

void compare_check(struct trial *trial);

void
compare_check(struct trial *trial)
{
    compare_checks(trial, "check", trial->image, &trial->report);
}
