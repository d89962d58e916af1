/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The report for programs, which repair/tool/JSON.md describes. */

#include "checker/report_parts.h"
#include "repair/json.h"
#include "repair/report.h"

static const char *const level_ids[] = {
    [Q2_LEVEL_LEAKS] = "leaks",
    [Q2_LEVEL_CERTAIN] = "certain",
    [Q2_LEVEL_LIKELY] = "likely",
    [Q2_LEVEL_GUESS] = "guess",
};

const char *
q2_repair_level_id(enum q2_repair_level level)
{
    return level_ids[level];
}

/* ---- counts ---- */

static void
write_counter(struct q2_json *json, const char *key, uint64_t value)
{
    if (value)
        q2_json_number(json, key, value);
}

static void
write_counts(struct q2_json *json, const struct q2_check *check)
{
    const struct q2_check_counts *counts = q2_check_counts(check);
    write_counter(json, "image-end-offset", counts->image_end_offset);
    write_counter(json, "total-clusters", counts->total_clusters);
    write_counter(json, "allocated-clusters", counts->allocated_clusters);
    write_counter(json, "fragmented-clusters", counts->fragmented_clusters);
    write_counter(json, "compressed-clusters", counts->compressed_clusters);
    q2_json_number(json, "check-errors", counts->check_errors);
    write_counter(json, "corruptions", counts->corruptions);
    write_counter(json, "leaks", counts->leaks);
}

static void
write_fixed(struct q2_json *json, const struct q2_repair_report *report)
{
    const struct q2_check *before = q2_repair_before(report->repair);
    if (!before || !report->checked)
        return;
    const struct q2_check_counts *old = q2_check_counts(before),
                                 *now = q2_check_counts(report->checked);
    if (old->corruptions > now->corruptions)
        q2_json_number(json, "corruptions-fixed", old->corruptions - now->corruptions);
    if (old->leaks > now->leaks)
        q2_json_number(json, "leaks-fixed", old->leaks - now->leaks);
}

/* The image in one of its states; `check` NULL: too damaged to be checked. */
static void
write_state(struct q2_json *json, const char *key, const struct q2_check *check)
{
    q2_json_begin(json, key, '{', false);
    enum q2_check_exit status = check ? q2_check_exit(check) : Q2_EXIT_INCOMPLETE;
    q2_json_text(json, "verdict", q2_exit_id(status));
    q2_json_number(json, "exit-status", (uint64_t)status);
    if (check) {
        write_counts(json, check);
        q2_json_begin(json, "problems", '[', false);
        for (int i = 0; i < Q2_PROBLEM_COUNT; i++) {
            enum q2_problem problem = (enum q2_problem)i;
            uint64_t count = q2_check_problem_count(check, problem).count;
            if (!count)
                continue;
            q2_json_begin(json, NULL, '{', true);
            q2_json_text(json, "id", q2_problem_id(problem));
            q2_json_text(json, "severity", q2_severity_id(q2_catalogue(problem)->severity));
            q2_json_number(json, "count", count);
            q2_json_end(json, '}');
        }
        q2_json_end(json, ']');
    }
    q2_json_end(json, '}');
}

/* ---- actions ---- */

static void
write_answers(struct q2_json *json, const struct q2_action *action)
{
    q2_json_begin(json, "answers", '[', false);
    for (uint64_t i = 0; i < action->answer_count; i++) {
        const struct q2_answer *answer = &action->answers[i];
        q2_json_begin(json, NULL, '{', true);
        q2_json_text(json, "id", q2_problem_id(answer->problem));
        q2_json_number(json, "host-offset", answer->offset);
        q2_json_number(json, "count", answer->count);
        q2_json_end(json, '}');
    }
    q2_json_end(json, ']');
}

static void
write_writes(struct q2_json *json, const struct q2_action *action)
{
    q2_json_begin(json, "writes", '[', false);
    for (uint64_t i = 0; i < action->written_count; i++) {
        const struct q2_written *written = &action->written[i];
        q2_json_begin(json, NULL, '{', true);
        q2_json_text(json, "kind", q2_owner_kind_id(written->kind));
        q2_json_number(json, "host-offset", written->offset);
        q2_json_number(json, "length", written->length);
        q2_json_end(json, '}');
    }
    q2_json_end(json, ']');
}

static void
write_map(struct q2_json *json, const struct q2_check *after, uint32_t map)
{
    if (map == 0) {
        q2_json_text(json, "map", "active");
        return;
    }
    const struct q2_snapshot_name *snapshot = after ? q2_check_snapshot(after, map - 1) : NULL;
    q2_json_begin(json, "map", '{', true);
    q2_json_number(json, "snapshot-index", map - 1);
    if (snapshot) {
        q2_json_text(json, "snapshot-id", snapshot->id);
        q2_json_text(json, "snapshot-name", snapshot->name);
    }
    q2_json_end(json, '}');
}

static void
write_changes(struct q2_json *json, const struct q2_action *action, const struct q2_check *after)
{
    q2_json_begin(json, "guest-changes", '[', false);
    for (uint64_t i = 0; i < action->change_count; i++) {
        const struct q2_change *change = &action->changes[i];
        q2_json_begin(json, NULL, '{', true);
        write_map(json, after, change->map);
        q2_json_number(json, "offset", change->offset);
        q2_json_number(json, "length", change->length);
        q2_json_text(json, "change", q2_change_id(change->kind));
        q2_json_end(json, '}');
    }
    q2_json_end(json, ']');
}

static void
write_actions(struct q2_json *json, const struct q2_repair_report *report)
{
    const struct q2_plan *plan = q2_repair_actions(report->repair);
    const struct q2_check *after = q2_repair_after(report->repair);
    q2_json_begin(json, "actions", '[', false);
    for (uint64_t i = 0; i < plan->count; i++) {
        const struct q2_action *action = &plan->actions[i];
        q2_json_begin(json, NULL, '{', false);
        q2_json_text(json, "id", q2_action_id(action->kind));
        q2_json_text(json, "confidence", q2_confidence_id(action->confidence));
        q2_json_bool(json, "applied", action->applied);
        if (action->dropped)
            q2_json_bool(json, "dropped", true);
        q2_json_number(json, "host-offset", action->key);
        q2_json_text(json, "sentence", q2_action_sentence(action->kind));
        q2_json_text(json, "evidence", action->evidence ? action->evidence : "");
        write_answers(json, action);
        write_writes(json, action);
        write_changes(json, action, after);
        q2_json_end(json, '}');
    }
    q2_json_end(json, ']');
}

static void
write_objections(struct q2_json *json, const struct q2_repair *repair)
{
    q2_json_begin(json, "objections", '[', false);
    for (size_t i = 0; q2_repair_objection(repair, i); i++)
        q2_json_text(json, NULL, q2_repair_objection(repair, i));
    q2_json_end(json, ']');
}

static void
write_left(struct q2_json *json, const struct q2_repair *repair)
{
    q2_json_begin(json, "left", '[', false);
    for (int i = 0; i < Q2_PROBLEM_COUNT; i++) {
        const char *why = q2_repair_left(repair, (enum q2_problem)i);
        if (!why)
            continue;
        q2_json_begin(json, NULL, '{', true);
        q2_json_text(json, "id", q2_problem_id((enum q2_problem)i));
        q2_json_text(json, "why", why);
        q2_json_end(json, '}');
    }
    q2_json_end(json, ']');
}

/* ---- the whole ---- */

/* All that a plan depends on, but for the image, so that it can be made again. */
static void
write_options(struct q2_json *json, const struct q2_repair_report *report)
{
    const struct q2_repair_options *options = report->options;
    q2_json_text(json, "level", q2_repair_level_id(options->level));
    q2_json_bool(json, "deep", options->deep);
    q2_json_bool(json, "discard", options->discard);
    q2_json_bool(json, "fixed-size", options->fixed_size);
    q2_json_number(json, "now", options->now);
}

int
q2_repair_report_json(const struct q2_repair_report *report, FILE *out, struct q2_error *err)
{
    struct q2_json json = {.out = out};
    struct q2_check *before = q2_repair_before(report->repair);
    struct q2_check *end = report->checked ? report->checked : before;
    char digest[65];
    int rc = q2_repair_digest(report->repair, digest, err);
    if (rc < 0)
        return rc;
    enum q2_check_exit status = q2_repair_exit(report);
    q2_json_begin(&json, NULL, '{', false);
    q2_json_text(&json, "filename", report->filename);
    q2_json_text(&json, "format", "qcow2");
    if (end)
        write_counts(&json, end);
    write_fixed(&json, report);
    q2_json_text(&json, "verdict", q2_exit_id(status));
    q2_json_number(&json, "exit-status", (uint64_t)status);
    q2_json_text(&json, "qcow2kit-version", QCOW2KIT_VERSION);
    q2_json_bool(&json, "dry-run", report->dry_run);
    q2_json_bool(&json, "needed", q2_repair_needed(report->repair));
    q2_json_bool(&json, "repaired", report->applied);
    if (report->applied && report->journal)
        q2_json_text(&json, "journal", report->journal);
    write_options(&json, report);
    q2_json_bool(&json, "checked-deep", q2_repair_is_deep(report->repair));
    q2_json_text(&json, "digest", digest);
    write_state(&json, "before", before);
    write_state(&json, "after", q2_repair_after(report->repair));
    write_objections(&json, report->repair);
    write_actions(&json, report);
    if (q2_repair_unsearched(report->repair))
        q2_json_text(&json, "unsearched", q2_repair_unsearched(report->repair));
    write_left(&json, report->repair);
    q2_json_end(&json, '}');
    fputc('\n', out);
    if (json.failed)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the report");
    if (ferror(out))
        return q2_error_set(err, Q2_ERR_IO, "the report cannot be written");
    return 0;
}
