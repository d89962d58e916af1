/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The report for people, who are under stress: what was found, what will be done about it and why,
 * what the guest sees of it, what else could be done, and how to take it back. */

#include "repair/report.h"

#include "checker/format.h"
#include "checker/report_parts.h"

#include <inttypes.h>
#include <string.h>

enum { LINE_SIZE = 1024, PARTS_LISTED = 4 };

struct page {
    const struct q2_repair_report *report;
    const struct q2_report_style *style;
    const struct q2_plan *plan;
    FILE *out;
};

/* Why an action is in the report. */
enum part {
    PART_APPLIED,
    PART_WITHHELD, /* beyond the level */
    PART_DROPPED,  /* by the proof */
};

static enum part
part_of(const struct q2_action *action)
{
    return action->applied ? PART_APPLIED : action->dropped ? PART_DROPPED : PART_WITHHELD;
}

static const char *
bold(const struct page *page, const char *sequence)
{
    return page->style->colour ? sequence : "";
}

static uint64_t
count_part(const struct page *page, enum part part)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < page->plan->count; i++)
        count += part_of(&page->plan->actions[i]) == part;
    return count;
}

/* "certain", but that of one level only where it is not to be taken for another. */
static bool
is_in(const struct q2_action *action, enum part part, int confidence)
{
    return part_of(action) == part && (confidence < 0 || (int)action->confidence == confidence);
}

/* ---- one action ---- */

static void
print_labelled(const struct page *page, const char *label, const char *text)
{
    unsigned first = (unsigned)fprintf(page->out, "    %s ", label);
    q2_format_wrap(page->out, first, 6, text);
}

static void
print_answers(const struct page *page, const struct q2_action *action)
{
    char line[LINE_SIZE] = "";
    size_t used = 0;
    uint64_t counts[Q2_PROBLEM_COUNT] = {0};
    for (uint64_t i = 0; i < action->answer_count; i++)
        counts[action->answers[i].problem] += action->answers[i].count;
    for (int i = 0; i < Q2_PROBLEM_COUNT; i++) {
        if (!counts[i])
            continue;
        q2_format_append(line, sizeof line, &used, "%s%s", used ? ", " : "",
                         q2_problem_id((enum q2_problem)i));
        if (counts[i] > 1)
            q2_format_append(line, sizeof line, &used, " (%s times)",
                             q2_format_count(counts[i]).text);
    }
    if (used)
        print_labelled(page, "answers:", line);
}

static const char *const structure_names[Q2_OWNER_COUNT] = {
    [Q2_OWNER_NONE] = "free space",
    [Q2_OWNER_HEADER] = "image header",
    [Q2_OWNER_L1_TABLE] = "L1 table",
    [Q2_OWNER_L2_TABLE] = "L2 table",
    [Q2_OWNER_DATA] = "guest data",
    [Q2_OWNER_COMPRESSED] = "compressed guest data",
    [Q2_OWNER_REFCOUNT_TABLE] = "refcount table",
    [Q2_OWNER_REFCOUNT_BLOCK] = "refcount block",
    [Q2_OWNER_SNAPSHOT_TABLE] = "snapshot table",
    [Q2_OWNER_BITMAP_DIRECTORY] = "bitmap directory",
    [Q2_OWNER_BITMAP_TABLE] = "bitmap table",
    [Q2_OWNER_BITMAP_DATA] = "bitmap data",
    [Q2_OWNER_LUKS_HEADER] = "LUKS header",
};

static void
print_writes(const struct page *page, const struct q2_action *action)
{
    char line[LINE_SIZE] = "";
    size_t used = 0;
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < action->written_count; i++) {
        const struct q2_written *written = &action->written[i];
        bytes += written->length;
        if (i >= PARTS_LISTED)
            continue;
        q2_format_append(line, sizeof line, &used, "%s%s %s", used ? ", " : "",
                         structure_names[written->kind],
                         q2_format_host(written->offset, written->length).text);
    }
    if (action->written_count > PARTS_LISTED)
        q2_format_append(line, sizeof line, &used, " and %s more places, %s in all",
                         q2_format_count(action->written_count - PARTS_LISTED).text,
                         q2_format_size(bytes).text);
    if (used)
        print_labelled(page, "writes:", line);
}

static const char *const change_words[Q2_CHANGE_COUNT] = {
    [Q2_CHANGE_RECOVERED] = "can be read again",
    [Q2_CHANGE_REPLACED] = "reads its own data again instead of other bytes",
    [Q2_CHANGE_LOST] = "reads as zeros: its data is gone",
};

static void
append_map(const struct page *page, uint32_t map, char *line, size_t *used)
{
    const struct q2_snapshot_name *snapshot =
        map ? q2_check_snapshot(q2_repair_after(page->report->repair), map - 1) : NULL;
    if (map == 0)
        q2_format_append(line, LINE_SIZE, used, " (active)");
    else if (snapshot)
        q2_format_append(line, LINE_SIZE, used, " (snapshot '%.40s')",
                         *snapshot->name ? snapshot->name : snapshot->id);
    else
        q2_format_append(line, LINE_SIZE, used, " (snapshot #%" PRIu32 ")", map);
}

/* The changes of one kind as a line. */
static void
print_changes(const struct page *page, const struct q2_action *action, enum q2_change_kind kind)
{
    char line[LINE_SIZE] = "";
    size_t used = 0;
    uint64_t listed = 0, count = 0, bytes = 0;
    for (uint64_t i = 0; i < action->change_count; i++) {
        const struct q2_change *change = &action->changes[i];
        if (change->kind != kind)
            continue;
        count++;
        bytes += change->length;
        if (listed == PARTS_LISTED)
            continue;
        q2_format_append(line, sizeof line, &used, "%s%s", used ? ", " : "",
                         q2_format_range(change->offset, change->length).text);
        append_map(page, change->map, line, &used);
        listed++;
    }
    if (!count)
        return;
    if (count > listed)
        q2_format_append(line, sizeof line, &used, " and %s more ranges, %s in all,",
                         q2_format_count(count - listed).text, q2_format_size(bytes).text);
    q2_format_append(line, sizeof line, &used, " %s", change_words[kind]);
    print_labelled(page, "guest:", line);
}

static void
print_action(const struct page *page, const struct q2_action *action)
{
    fprintf(page->out, "\n  %s%s%s, %s\n    ", bold(page, "\033[1m"), q2_action_id(action->kind),
            bold(page, "\033[m"), q2_confidence_id(action->confidence));
    q2_format_wrap(page->out, 4, 4, q2_action_sentence(action->kind));
    if (action->evidence && *action->evidence)
        print_labelled(page, "because:", action->evidence);
    print_answers(page, action);
    print_writes(page, action);
    for (int kind = 0; kind < Q2_CHANGE_COUNT; kind++)
        print_changes(page, action, (enum q2_change_kind)kind);
}

/* Thousands of entries that are mended alike are told by the first few of them. */
static void
print_actions(const struct page *page, enum part part, int confidence)
{
    uint64_t counts[Q2_ACTION_COUNT] = {0};
    uint64_t most = page->style->max_lines ? page->style->max_lines : UINT64_MAX;
    for (uint64_t i = 0; i < page->plan->count; i++) {
        const struct q2_action *action = &page->plan->actions[i];
        if (is_in(action, part, confidence) && counts[action->kind]++ < most)
            print_action(page, action);
    }
    for (int i = 0; i < Q2_ACTION_COUNT; i++)
        if (counts[i] > most)
            fprintf(page->out, "\n  ... and %s more times %s\n",
                    q2_format_count(counts[i] - most).text, q2_action_id((enum q2_action_kind)i));
}

/* ---- what it comes to ---- */

static void
print_problems(const struct page *page, const struct q2_check *check)
{
    char line[4096] = "";
    size_t used = 0;
    for (int i = 0; i < Q2_PROBLEM_COUNT; i++) {
        enum q2_problem problem = (enum q2_problem)i;
        uint64_t count = q2_check_problem_count(check, problem).count;
        if (count == 0)
            continue;
        q2_format_append(line, sizeof line, &used, "%s%s", used ? ", " : "",
                         q2_problem_id(problem));
        if (count > 1)
            q2_format_append(line, sizeof line, &used, " (%s times)", q2_format_count(count).text);
    }
    if (!used)
        return;
    fputs("  ", page->out);
    q2_format_wrap(page->out, 2, 2, line);
}

/* The bytes of all changes of a kind; where actions overlap, they count twice. */
static uint64_t
changed_bytes(const struct page *page, enum q2_change_kind kind)
{
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < page->plan->count; i++) {
        const struct q2_action *action = &page->plan->actions[i];
        for (uint64_t j = 0; action->applied && j < action->change_count; j++)
            if (action->changes[j].kind == kind)
                bytes += action->changes[j].length;
    }
    return bytes;
}

static void
print_guest(const struct page *page)
{
    char line[LINE_SIZE] = "";
    size_t used = 0;
    for (int kind = 0; kind < Q2_CHANGE_COUNT; kind++) {
        uint64_t bytes = changed_bytes(page, (enum q2_change_kind)kind);
        if (bytes)
            q2_format_append(line, sizeof line, &used, "%s%s %s", used ? "; " : "",
                             q2_format_size(bytes).text, change_words[kind]);
    }
    if (!used)
        q2_format_append(line, sizeof line, &used,
                         "every byte that can be read today reads the same");
    else
        q2_format_append(line, sizeof line, &used,
                         "; everything else that can be read today reads the same");
    fputs("\nFor the guest: ", page->out);
    q2_format_wrap(page->out, 15, 2, line);
}

/* ---- what is left out ---- */

static void
print_withheld(const struct page *page)
{
    static const char *const options[Q2_CONFIDENCE_COUNT] = {[Q2_CERTAIN] = "without --leaks",
                                                             [Q2_LIKELY] = "with --likely",
                                                             [Q2_GUESS] = "with --guess"};
    for (int confidence = 0; confidence < Q2_CONFIDENCE_COUNT; confidence++) {
        uint64_t count = 0;
        for (uint64_t i = 0; i < page->plan->count; i++)
            count += is_in(&page->plan->actions[i], PART_WITHHELD, confidence);
        if (!count)
            continue;
        bool waits = confidence == Q2_CERTAIN && page->report->options->level != Q2_LEVEL_LEAKS;
        fprintf(page->out, "\n%sLeft out%s, but done %s: %s\n", bold(page, "\033[1m"),
                bold(page, "\033[m"),
                waits ? "once the damage that it depends on is mended" : options[confidence],
                q2_format_plural(count, "action").text);
        print_actions(page, PART_WITHHELD, confidence);
    }
}

static void
print_dropped(const struct page *page)
{
    uint64_t count = count_part(page, PART_DROPPED);
    const struct q2_repair *repair = page->report->repair;
    if (count) {
        fprintf(page->out, "\n%sNot done%s, because the outcome could not be proven: %s\n",
                bold(page, "\033[1m"), bold(page, "\033[m"),
                q2_format_plural(count, "action").text);
        print_actions(page, PART_DROPPED, -1);
    }
    for (size_t i = 0; q2_repair_objection(repair, i); i++) {
        fputs("  objection: ", page->out);
        q2_format_wrap(page->out, 13, 4, q2_repair_objection(repair, i));
    }
}

static void
print_left(const struct page *page)
{
    bool any = false;
    for (int i = 0; i < Q2_PROBLEM_COUNT; i++) {
        enum q2_problem problem = (enum q2_problem)i;
        const char *why = q2_repair_left(page->report->repair, problem);
        char line[LINE_SIZE] = "";
        size_t used = 0;
        if (!why)
            continue;
        if (!any)
            fprintf(page->out, "\n%sLeft as it is%s:\n", bold(page, "\033[1m"),
                    bold(page, "\033[m"));
        any = true;
        q2_format_append(line, sizeof line, &used, "%s: %s", q2_problem_id(problem), why);
        fputs("  ", page->out);
        q2_format_wrap(page->out, 2, 4, line);
    }
}

static void
print_unsearched(const struct page *page)
{
    const char *why = q2_repair_unsearched(page->report->repair);
    if (!why)
        return;
    fprintf(page->out, "\n%sNot looked into%s: ", bold(page, "\033[1m"), bold(page, "\033[m"));
    q2_format_wrap(page->out, 17, 4, why);
}

static void
print_state(const struct page *page, const char *words, const struct q2_check *check)
{
    fputs(words, page->out);
    q2_report_verdict(check, page->report->filename, page->style, page->out);
}

void
q2_repair_report_plan(const struct q2_repair_report *report, const struct q2_report_style *style,
                      FILE *out)
{
    const struct page page = {report, style, q2_repair_actions(report->repair), out};
    const struct q2_check *before = q2_repair_before(report->repair);
    uint64_t applied = count_part(&page, PART_APPLIED);
    if (before) {
        print_state(&page, "", before);
        print_problems(&page, before);
    } else {
        char name[LINE_SIZE];
        fprintf(out, "%s: the header is damaged beyond recognition\n",
                q2_printable(name, sizeof name, report->filename, strlen(report->filename)));
    }
    if (applied) {
        fprintf(out, "\n%sTo be done%s: %s\n", bold(&page, "\033[1m"), bold(&page, "\033[m"),
                q2_format_plural(applied, "action").text);
        print_actions(&page, PART_APPLIED, -1);
        print_guest(&page);
    }
    print_withheld(&page);
    print_dropped(&page);
    print_unsearched(&page);
    print_left(&page);
    if (applied)
        print_state(&page, "\nTried on a copy in memory, and checked:\n  ",
                    q2_repair_after(report->repair));
    else if (before && q2_check_exit(before) != Q2_EXIT_CLEAN)
        fputs("\nNothing is done at this level.\n", out);
}

/* ---- the end ---- */

static void
print_undo(const struct page *page)
{
    char journal[LINE_SIZE], image[LINE_SIZE], given[LINE_SIZE];
    const struct q2_repair_report *report = page->report;
    static const char suffix[] = ".qcow2kit-undo";
    size_t length = strlen(report->filename);
    bool beside = strncmp(report->journal, report->filename, length) == 0 &&
                  strncmp(report->journal + length, suffix, sizeof suffix - 1) == 0;
    q2_format_shell(journal, sizeof journal, report->journal);
    q2_format_shell(image, sizeof image, report->filename);
    q2_printable(given, sizeof given, report->journal, strlen(report->journal));
    fprintf(page->out,
            "\nThe bytes as they were are in %s. To take the repair back:\n"
            "  qcow2-repair --undo %s%s%s\n"
            "That works until something else writes to the image. Remove the file once the\n"
            "guest runs well.\n",
            given, journal, beside ? "" : " ", beside ? "" : image);
}

void
q2_repair_report_outcome(const struct q2_repair_report *report, const struct q2_report_style *style,
                         FILE *out)
{
    const struct page page = {report, style, q2_repair_actions(report->repair), out};
    char name[LINE_SIZE];
    q2_format_shell(name, sizeof name, report->filename);
    if (report->applied && report->checked) {
        fputs("\nWritten, and checked again:\n  ", out);
        q2_report_verdict(report->checked, report->filename, style, out);
        if (report->journal)
            print_undo(&page);
    } else if (report->dry_run && q2_repair_needed(report->repair)) {
        fputs("\nNothing was written: this was a dry run.\n", out);
    }
    enum q2_check_exit left =
        report->dry_run ? q2_check_exit(q2_repair_after(report->repair)) : q2_repair_exit(report);
    if (left == Q2_EXIT_CLEAN)
        return;
    fprintf(out, "\nNext:\n  qcow2-check %s%s\n      says what is left, and what it means\n",
            q2_repair_is_deep(report->repair) ? "--deep " : "", name);
    if (left != Q2_EXIT_LEAKS)
        fprintf(
            out,
            "  qcow2-repair --salvage=OUT %s\n      copies everything that can be read to a new "
            "image\n",
            name);
}

enum q2_check_exit
q2_repair_exit(const struct q2_repair_report *report)
{
    const struct q2_check *check =
        report->checked ? report->checked : q2_repair_before(report->repair);
    return check ? q2_check_exit(check) : Q2_EXIT_CORRUPT;
}
