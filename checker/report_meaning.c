/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The end of the human report, for a reader who skips everything above it: what the findings mean
 * for the guest's data, worst first and at most two sentences. */

#include "checker/format.h"
#include "checker/report_parts.h"

#include <string.h>

/* %s stands for the amount of data, such as "64 KiB of guest data"; the second form follows a
 * sentence about something worse. */
static const struct {
    const char *first;
    const char *also;
} sentences[Q2_IMPACT_COUNT] = {
    [Q2_IMPACT_LOST_DATA] = {"%s can no longer be reached, though it is probably still in the "
                             "file: write nothing to the image before it has been repaired.",
                             "%s can no longer be reached, but is probably still in the file."},
    [Q2_IMPACT_UNREADABLE] = {"%s cannot be read.", "%s cannot be read."},
    [Q2_IMPACT_WRONG_DATA] = {"%s may be wrong: the guest may read or overwrite bytes that are not "
                              "its own.",
                              "%s may be wrong."},
    [Q2_IMPACT_KEYS] = {"The encrypted data may no longer be unlocked.",
                        "The encrypted data may no longer be unlocked."},
    [Q2_IMPACT_SHARED_WRITE] = {"Nothing is lost yet, but the next write to the image may change "
                                "a snapshot or other data that shares its clusters.",
                                "The next write to the image may change a snapshot or other data "
                                "that shares its clusters."},
    [Q2_IMPACT_AT_RISK] = {"Nothing is lost yet, but the next write to the image may overwrite "
                           "what is in use: start no guest on it before it has been repaired.",
                           "The next write to the image may overwrite what is in use."},
    [Q2_IMPACT_SNAPSHOTS] = {"Snapshots are affected; the active disk is not.",
                             "Snapshots are affected too."},
    [Q2_IMPACT_CANNOT_OPEN] = {"Software refuses to open the image; the guest data in it is not "
                               "touched by that.",
                               "Software refuses to open the image."},
    [Q2_IMPACT_CANNOT_WRITE] = {"Guest data can be read, but software refuses to write to the "
                                "image until it has been repaired.",
                                "Software refuses to write to the image until it has been "
                                "repaired."},
    [Q2_IMPACT_BITMAPS] = {"Guest data is not affected, but dirty bitmaps are: the next "
                           "incremental backup must be a full one.",
                           "Dirty bitmaps are affected: the next incremental backup must be a full "
                           "one."},
    [Q2_IMPACT_SPACE] = {"Guest data is not affected; %s wasted.", "%s wasted."},
    [Q2_IMPACT_NONE] = {"Guest data is not affected.", ""},
};

/* "64 KiB of guest data", or with its place where that is one range. */
static void
describe_amount(const struct q2_check *check, enum q2_impact impact,
                const struct q2_impact_sum *sum, bool first, char *text, size_t size)
{
    const char *least = sum->at_least ? "At least " : "";
    size_t used = 0;
    struct q2_geometry geometry;
    text[0] = '\0';
    if (impact == Q2_IMPACT_SPACE && q2_check_geometry(check, &geometry)) {
        uint64_t clusters = q2_check_problem_count(check, Q2_PROBLEM_CLUSTER_LEAKED).count;
        if (clusters)
            q2_format_append(text, size, &used, "%s of space is",
                             q2_format_size(clusters * geometry.cluster_size).text);
        else
            q2_format_append(text, size, &used, "%s space may be", first ? "some" : "Some");
    } else if (sum->active_bytes) {
        q2_format_append(text, size, &used, "%s%s of guest data", least,
                         q2_format_size(sum->active_bytes).text);
        if (sum->ranges == 1)
            q2_format_append(text, size, &used, " (%s)",
                             q2_format_range(sum->first, sum->first_size).text);
        if (sum->snapshot_bytes)
            q2_format_append(text, size, &used, " and %s of snapshots",
                             q2_format_size(sum->snapshot_bytes).text);
    } else if (sum->snapshot_bytes) {
        q2_format_append(text, size, &used, "%s%s of the data of snapshots", least,
                         q2_format_size(sum->snapshot_bytes).text);
    } else if (sum->vm_state_bytes) {
        q2_format_append(text, size, &used, "%s%s of saved VM state", least,
                         q2_format_size(sum->vm_state_bytes).text);
    } else {
        q2_format_append(text, size, &used, "Some guest data");
    }
}

static void
append_sentence(const struct q2_check *check, enum q2_impact impact,
                const struct q2_impact_sum *sum, bool first, char *text, size_t size, size_t *used)
{
    char amount[256];
    const char *sentence = first ? sentences[impact].first : sentences[impact].also;
    const char *gap = strstr(sentence, "%s");
    describe_amount(check, impact, sum, first, amount, sizeof amount);
    if (*sentence)
        q2_format_append(text, size, used, "%s%.*s%s%s", *used ? " " : "",
                         gap ? (int)(gap - sentence) : 0, sentence, gap ? amount : "",
                         gap ? gap + 2 : sentence);
}

/* Worst first: faults before remarks, then by impact. That data in use may be overwritten says
 * all that shared clusters mean, and more. */
static void
describe_meaning(const struct q2_check *check, char *text, size_t size)
{
    struct q2_impact_sum sums[Q2_IMPACT_COUNT];
    size_t used = 0;
    int told = 0;
    q2_impact_sums(check, sums);
    text[0] = '\0';
    bool incomplete = q2_check_counts(check)->check_errors != 0;
    for (int remarks = 0; remarks < 2; remarks++)
        for (int i = 0; i < Q2_IMPACT_COUNT && told < 2; i++) {
            uint64_t count = remarks ? sums[i].remarks : sums[i].faults;
            bool repeated = (remarks && sums[i].faults) ||
                            (i == Q2_IMPACT_SHARED_WRITE && sums[Q2_IMPACT_AT_RISK].faults);
            if (count == 0 || repeated || (told && i == Q2_IMPACT_NONE))
                continue;
            append_sentence(check, (enum q2_impact)i, &sums[i], told == 0, text, size, &used);
            told++;
        }
    if (incomplete && told < 2)
        q2_format_append(text, size, &used,
                         "%sPart of the image could not be checked, so there may be more.",
                         used ? " " : "");
}

void
q2_report_meaning(const struct q2_check *check, const char *filename, FILE *out)
{
    char text[1024];
    if (!q2_check_finding_count(check))
        return;
    describe_meaning(check, text, sizeof text);
    fputs("\nWhat this means: ", out);
    q2_format_wrap(out, 17, 0, text);
    q2_report_advice(check, filename, out);
}
