/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The report for people: the verdict first, then a block for each problem with as many of its
 * findings as fit a screen, and last what all of it means. */

#include "checker/format.h"
#include "checker/report_parts.h"

#include <inttypes.h>
#include <string.h>

enum { LINE_SIZE = 1024 };

struct page {
    const struct q2_check *check;
    const struct q2_report_style *style;
    FILE *out;
};

static const char *const severity_colours[Q2_SEVERITY_COUNT] = {
    [Q2_SEVERITY_CORRUPTION] = "\033[1;31m", [Q2_SEVERITY_LEAK] = "\033[33m",
    [Q2_SEVERITY_ERROR] = "\033[1;31m",      [Q2_SEVERITY_SUSPICIOUS] = "\033[33m",
    [Q2_SEVERITY_NOTE] = "\033[36m",
};

static const char *
colour(const struct q2_report_style *style, const char *sequence)
{
    return style->colour ? sequence : "";
}

/* ---- the head ---- */

static uint64_t
remark_count(const struct q2_check *check)
{
    uint64_t remarks = 0;
    for (int i = 0; i < Q2_PROBLEM_COUNT; i++)
        if (q2_catalogue((enum q2_problem)i)->severity >= Q2_SEVERITY_SUSPICIOUS)
            remarks += q2_check_problem_count(check, (enum q2_problem)i).count;
    return remarks;
}

static void
append_count(char *line, size_t *used, uint64_t count, const char *noun)
{
    if (count)
        q2_format_append(line, LINE_SIZE, used, "%s%s", *used ? ", " : "",
                         q2_format_plural(count, noun).text);
}

void
q2_report_verdict(const struct q2_check *check, const char *filename,
                  const struct q2_report_style *style, FILE *out)
{
    static const struct {
        const char *text;
        const char *colour;
    } verdicts[] = {
        [Q2_EXIT_CLEAN] = {"no errors found", "\033[1;32m"},
        [Q2_EXIT_INCOMPLETE] = {"could not be checked completely", "\033[1;31m"},
        [Q2_EXIT_CORRUPT] = {"damaged", "\033[1;31m"},
        [Q2_EXIT_LEAKS] = {"sound, but wastes space", "\033[1;33m"},
    };
    const struct q2_check_counts *counts = q2_check_counts(check);
    enum q2_check_exit status = q2_check_exit(check);
    if (status > Q2_EXIT_LEAKS)
        status = Q2_EXIT_INCOMPLETE;

    char line[LINE_SIZE] = "", name[LINE_SIZE];
    size_t used = 0;
    bool both = status == Q2_EXIT_INCOMPLETE && counts->corruptions;
    append_count(line, &used, counts->corruptions, "corruption");
    append_count(line, &used, counts->check_errors, "check error");
    append_count(line, &used, counts->leaks, "leak");
    append_count(line, &used, remark_count(check), "remark");
    fprintf(out, "%s: %s%s%s%s%s\n", q2_printable(name, sizeof name, filename, strlen(filename)),
            colour(style, verdicts[status].colour),
            both ? "damaged, and could not be checked completely" : verdicts[status].text,
            colour(style, "\033[m"), *line ? ": " : "", line);
}

static void
print_image(const struct page *page)
{
    struct q2_geometry geometry;
    if (!q2_check_geometry(page->check, &geometry))
        return;
    const struct q2_check_counts *counts = q2_check_counts(page->check);
    size_t snapshots = q2_check_snapshot_count(page->check);
    fprintf(page->out, "  qcow2 version %" PRIu32 ", disk of %s, clusters of %s%s%s%s",
            geometry.version, q2_format_size(geometry.disk_size).text,
            q2_format_size(geometry.cluster_size).text,
            geometry.extended_l2 ? ", extended L2 entries" : "",
            geometry.encrypted ? ", encrypted" : "",
            geometry.data_file ? ", external data file" : "");
    if (snapshots)
        fprintf(page->out, ", %s", q2_format_plural(snapshots, "snapshot").text);
    fprintf(page->out, "\n  file of %s, ", q2_format_size(geometry.file_size).text);
    fprintf(page->out, "%s of the disk allocated, %s fragmented, %s compressed\n",
            q2_format_percent(counts->allocated_clusters, counts->total_clusters).text,
            q2_format_percent(counts->fragmented_clusters, counts->allocated_clusters).text,
            q2_format_percent(counts->compressed_clusters, counts->allocated_clusters).text);
}

/* ---- one finding ---- */

/* The entry at fault, such as "at 0x40028 (L1[0] L2[5])". */
static void
append_place(const struct q2_finding *finding, char *line, size_t *used)
{
    uint64_t length = finding->host_length > 8 ? finding->host_length : 0;
    if (finding->has & Q2_HAS_HOST)
        q2_format_append(line, LINE_SIZE, used, "at %s",
                         q2_format_host(finding->host_offset, length).text);
    if (!(finding->has & (Q2_HAS_L1 | Q2_HAS_L2)))
        return;
    q2_format_append(line, LINE_SIZE, used, "%s", finding->has & Q2_HAS_HOST ? " (" : "");
    if (finding->has & Q2_HAS_L1)
        q2_format_append(line, LINE_SIZE, used, "L1[%" PRIu32 "]", finding->l1_index);
    if (finding->has & Q2_HAS_L2)
        q2_format_append(line, LINE_SIZE, used, "%sL2[%" PRIu32 "]",
                         finding->has & Q2_HAS_L1 ? " " : "", finding->l2_index);
    q2_format_append(line, LINE_SIZE, used, "%s", finding->has & Q2_HAS_HOST ? ")" : "");
}

static void
append_target(const struct page *page, const struct q2_finding *finding, char *line, size_t *used)
{
    struct q2_geometry geometry;
    if (!(finding->has & Q2_HAS_TARGET))
        return;
    q2_format_append(line, LINE_SIZE, used, "%shost %s", *used ? " -> " : "",
                     q2_format_host(finding->target_offset, finding->target_length).text);
    if (q2_check_geometry(page->check, &geometry) && finding->target_length > geometry.cluster_size)
        q2_format_append(line, LINE_SIZE, used, " (%s)",
                         q2_format_size(finding->target_length).text);
}

static void
append_guest(const struct page *page, const struct q2_finding *finding, char *line, size_t *used)
{
    char maps[256];
    q2_report_maps(page->check, finding->maps, maps, sizeof maps);
    if (finding->has & Q2_HAS_GUEST)
        q2_format_append(line, LINE_SIZE, used, "%sguest %s", *used ? ", " : "",
                         q2_format_range(finding->guest_offset, finding->guest_length).text);
    if (*maps)
        q2_format_append(line, LINE_SIZE, used, "%s(%s)", *used ? " " : "", maps);
}

/* What was found; `got` means something else for a few problems. */
static struct q2_text
got_text(const struct q2_finding *finding)
{
    struct q2_text text;
    if (q2_problem_is_about_refcounts(finding->problem))
        snprintf(text.text, sizeof text.text, "refcount %.40s", q2_format_count(finding->got).text);
    else if (finding->problem == Q2_PROBLEM_ORPHAN_L2_TABLE)
        snprintf(text.text, sizeof text.text, "maps %.40s",
                 q2_format_plural(finding->got, "cluster").text);
    else if (finding->problem == Q2_PROBLEM_ORPHAN_L1_TABLE)
        snprintf(text.text, sizeof text.text, "points at %.40s",
                 q2_format_plural(finding->got, "L2 table").text);
    else if (finding->problem == Q2_PROBLEM_WORK_LIMIT)
        snprintf(text.text, sizeof text.text, "stopped after %.40s",
                 q2_format_size(finding->got).text);
    else if (finding->problem == Q2_PROBLEM_COMPRESSED_BROKEN)
        snprintf(text.text, sizeof text.text, "decodes to %.40s",
                 q2_format_plural(finding->got, "byte").text);
    else if (finding->problem == Q2_PROBLEM_COMPRESSED_WINDOW)
        snprintf(text.text, sizeof text.text, "refers back by %.40s",
                 q2_format_plural(finding->got, "byte").text);
    else
        snprintf(text.text, sizeof text.text, "found %.40s", q2_format_value(finding->got).text);
    return text;
}

static void
append_values(const struct q2_finding *finding, char *line, size_t *used)
{
    bool counts = q2_problem_is_about_refcounts(finding->problem);
    if (finding->count > 1)
        q2_format_append(line, LINE_SIZE, used, "%s%s times", *used ? ", " : "",
                         q2_format_count(finding->count).text);
    if (finding->has & Q2_HAS_GOT)
        q2_format_append(line, LINE_SIZE, used, "%s%s", *used ? ": " : "", got_text(finding).text);
    if (finding->has & Q2_HAS_EXPECTED)
        q2_format_append(line, LINE_SIZE, used, "%s%s%s", *used ? ", " : "",
                         counts ? "" : "expected ",
                         counts ? q2_format_plural(finding->expected, "reference").text
                                : q2_format_value(finding->expected).text);
}

/* A lone owner that is the guest range of the line itself says nothing new. */
static bool
are_owners_known(const struct q2_finding *finding)
{
    enum q2_owner_kind kind = finding->owners[0].kind;
    return finding->has & Q2_HAS_GUEST && finding->owners[1].kind == Q2_OWNER_NONE &&
           (kind == Q2_OWNER_DATA || kind == Q2_OWNER_COMPRESSED);
}

static void
print_owners(const struct page *page, const struct q2_finding *finding)
{
    for (int i = 0; i < 2; i++) {
        const struct q2_owner *owner = &finding->owners[i];
        char text[LINE_SIZE];
        if (owner->kind == Q2_OWNER_NONE)
            continue;
        fprintf(page->out, "        %s %s", i ? "and by" : "used by",
                q2_report_owner(page->check, owner, text, sizeof text));
        if (owner->at)
            fprintf(page->out, ", entry at 0x%" PRIx64, owner->at);
        fputc('\n', page->out);
    }
}

static void
print_finding(const struct page *page, const struct q2_finding *finding)
{
    char line[LINE_SIZE] = "";
    size_t used = 0;
    if (finding->has & Q2_HAS_HOST)
        append_place(finding, line, &used);
    append_target(page, finding, line, &used);
    if (!(finding->has & Q2_HAS_HOST) && finding->has & (Q2_HAS_L1 | Q2_HAS_L2)) {
        q2_format_append(line, LINE_SIZE, &used, "%s", used ? ", " : "");
        append_place(finding, line, &used);
    }
    append_guest(page, finding, line, &used);
    if (finding->detail && *finding->detail)
        q2_format_append(line, LINE_SIZE, &used, "%s%s", used ? ", " : "", finding->detail);
    append_values(finding, line, &used);
    if (used) {
        fputs("    ", page->out);
        q2_format_wrap(page->out, 4, 8, line);
    }
    if (finding->has & Q2_HAS_OWNERS && !are_owners_known(finding))
        print_owners(page, finding);
}

/* ---- one problem ---- */

/* Print the block of `problem`, whose findings begin at *index, and move *index behind them. */
static void
print_problem(const struct page *page, enum q2_problem problem, size_t *index)
{
    const struct q2_catalogue_entry *entry = q2_catalogue(problem);
    struct q2_problem_count count = q2_check_problem_count(page->check, problem);
    size_t findings = q2_check_finding_count(page->check);
    fprintf(page->out, "\n%s%s%s %s", colour(page->style, severity_colours[entry->severity]),
            q2_severity_id(entry->severity), colour(page->style, "\033[m"), entry->id);
    if (count.count > 1)
        fprintf(page->out, " (%s times)", q2_format_count(count.count).text);
    fputs("\n  ", page->out);
    q2_format_wrap(page->out, 2, 2, entry->sentence);

    uint64_t listed = 0, lines = 0;
    for (; *index < findings; ++*index) {
        const struct q2_finding *finding = q2_check_finding(page->check, *index);
        if (finding->problem != problem)
            break;
        if (page->style->max_lines && lines == page->style->max_lines)
            continue;
        print_finding(page, finding);
        listed += finding->count;
        lines++;
    }
    if (count.count > listed)
        fprintf(page->out, "    ... and %s more\n", q2_format_count(count.count - listed).text);
}

void
q2_report_human(const struct q2_check *check, const char *filename,
                const struct q2_report_style *style, FILE *out)
{
    const struct page page = {check, style, out};
    size_t index = 0;
    q2_report_verdict(check, filename, style, out);
    print_image(&page);
    for (int severity = 0; severity < Q2_SEVERITY_COUNT; severity++)
        for (int i = 0; i < Q2_PROBLEM_COUNT; i++) {
            enum q2_problem problem = (enum q2_problem)i;
            if ((int)q2_catalogue(problem)->severity == severity &&
                q2_check_problem_count(check, problem).count)
                print_problem(&page, problem, &index);
        }
    q2_report_meaning(check, filename, out);
}
