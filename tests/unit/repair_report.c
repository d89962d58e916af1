/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The reports on a plan, and the file that a plan is read back from. There is no image: the plan is
 * made by hand. */

#include "repair/plan_file.h"
#include "repair/report.h"
#include "tests/unit/fake_check.h"

#include <json-c/json.h>
#include <stdlib.h>

/* ---- a repair without an image ---- */

struct q2_repair {
    struct q2_plan plan;
    struct q2_check before, after;
    bool unreadable; /* before */
    bool deep;
    const char *objection;
    const char *digest;
};

const struct q2_plan *
q2_repair_actions(const struct q2_repair *repair)
{
    return &repair->plan;
}

struct q2_check *
q2_repair_before(const struct q2_repair *repair)
{
    return repair->unreadable ? NULL : (struct q2_check *)&repair->before;
}

struct q2_check *
q2_repair_after(const struct q2_repair *repair)
{
    return (struct q2_check *)&repair->after;
}

bool
q2_repair_needed(const struct q2_repair *repair)
{
    return q2_plan_does_anything(&repair->plan);
}

const char *
q2_repair_objection(const struct q2_repair *repair, size_t index)
{
    return index == 0 ? repair->objection : NULL;
}

const char *
q2_repair_unsearched(const struct q2_repair *repair)
{
    (void)repair;
    return NULL;
}

bool
q2_repair_is_deep(const struct q2_repair *repair)
{
    return repair->deep;
}

int
q2_repair_digest(const struct q2_repair *repair, char ret_digest[65],
                 __attribute__((unused)) struct q2_error *err)
{
    memcpy(ret_digest, repair->digest, 65);
    return 0;
}

#define DIGEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static struct q2_budget budget;
static struct q2_repair repair;
static struct q2_repair_options options;
static struct q2_repair_report report;

static void
set_up(void)
{
    q2_budget_init(&budget, 1 << 20);
    repair = (struct q2_repair){.digest = DIGEST};
    options = (struct q2_repair_options){.level = Q2_LEVEL_CERTAIN, .now = 1700000000};
    report = (struct q2_repair_report){.repair = &repair,
                                       .options = &options,
                                       .filename = "vm.qcow2",
                                       .dry_run = true};
    q2_plan_init(&repair.plan, &budget, Q2_LEVEL_CERTAIN);
}

static void
tear_down(void)
{
    q2_plan_destroy(&repair.plan);
    cr_expect_eq(budget.used, 0);
}

TestSuite(report, .init = set_up, .fini = tear_down);

/* A damaged entry and what is done about it. */
static void
add_mend(uint64_t offset, enum q2_confidence confidence)
{
    struct q2_plan *plan = &repair.plan;
    add_past_end(&repair.before, 65536, 1);
    q2_plan_begin(plan, Q2_ACTION_MEND_L2_ENTRY, confidence, offset, "one bit of %s is flipped",
                  "it");
    q2_plan_answer(plan, Q2_PROBLEM_L2_ENTRY_PAST_END, offset, 1);
    q2_plan_written(plan, Q2_OWNER_L2_TABLE, offset, 8);
    q2_plan_change(plan, Q2_CHANGE_RECOVERED, 0, 65536, 65536);
    q2_plan_end(plan);
}

/* ---- for people ---- */

static const struct q2_report_style plain = {.max_lines = 3};

static char *
human(void)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    q2_repair_report_plan(&report, &plain, out);
    q2_repair_report_outcome(&report, &plain, out);
    fclose(out);
    for (const char *line = text, *end; *line; line = end + (*end != '\0')) {
        end = strchrnul(line, '\n');
        cr_expect_leq(end - line, 80, "too long a line: %.*s", (int)(end - line), line);
    }
    return text;
}

Test(report, of_a_sound_image_is_short)
{
    char *text = human();
    cr_expect_str_eq(text, "vm.qcow2: no errors found\n");
    free(text);
}

Test(report, says_what_is_done_and_why)
{
    add_mend(0x50008, Q2_CERTAIN);
    char *text = human();
    EXPECT_IN(text, "vm.qcow2: damaged: 1 corruption\n  l2-entry-past-end\n");
    EXPECT_IN(text, "To be done: 1 action\n");
    EXPECT_IN(text, "  mend-l2-entry, certain\n");
    EXPECT_IN(text, "    because: one bit of it is flipped\n");
    EXPECT_IN(text, "    answers: l2-entry-past-end\n");
    EXPECT_IN(text, "    writes: L2 table 0x50008-0x50010\n");
    EXPECT_IN(text, "    guest: 64K-128K (active) can be read again\n");
    EXPECT_IN(text, "For the guest: 64 KiB can be read again;");
    EXPECT_IN(text, "Tried on a copy in memory, and checked:\n  vm.qcow2: no errors found\n");
    EXPECT_IN(text, "Nothing was written: this was a dry run.\n");
    EXPECT_NOT_IN(text, "Next:");
    EXPECT_NOT_IN(text, "\033");
    free(text);
}

Test(report, says_what_is_left_out_and_how_to_have_it)
{
    add_mend(0x50008, Q2_LIKELY);
    add_mend(0x50010, Q2_GUESS);
    char *text = human();
    EXPECT_NOT_IN(text, "To be done");
    EXPECT_IN(text, "Left out, but done with --likely: 1 action\n");
    EXPECT_IN(text, "Left out, but done with --guess: 1 action\n");
    EXPECT_IN(text, "Nothing is done at this level.");
    EXPECT_NOT_IN(text, "this was a dry run");
    free(text);

    repair.plan.actions[0].confidence = Q2_CERTAIN;
    text = human();
    EXPECT_IN(text, "Left out, but done once the damage that it depends on is mended: 1 action\n");
    free(text);

    options.level = Q2_LEVEL_LEAKS;
    text = human();
    EXPECT_IN(text, "Left out, but done without --leaks: 1 action\n");
    free(text);
}

Test(report, says_what_could_not_be_proven)
{
    add_mend(0x50008, Q2_CERTAIN);
    repair.plan.actions[0].applied = false;
    repair.plan.actions[0].dropped = true;
    repair.objection = "something would be worse";
    char *text = human();
    EXPECT_IN(text, "Not done, because the outcome could not be proven: 1 action\n");
    EXPECT_IN(text, "  objection: something would be worse\n");
    free(text);
}

Test(report, lists_the_first_of_many)
{
    enum { MANY = 8 };
    for (uint64_t i = 0; i < MANY; i++)
        add_mend(0x50008 + 16 * i, Q2_CERTAIN);
    char *text = human();
    EXPECT_IN(text, "To be done: 8 actions\n");
    EXPECT_IN(text, "... and 5 more times mend-l2-entry\n");
    EXPECT_IN(text, "writes: L2 table 0x50028-0x50030\n");
    EXPECT_NOT_IN(text, "0x50038");
    free(text);
}

Test(report, names_whose_data_is_gone)
{
    struct q2_plan *plan = &repair.plan;
    repair.after.snapshots = 1;
    q2_plan_begin(plan, Q2_ACTION_CLEAR_L2_ENTRY, Q2_CERTAIN, 0x50008, "nothing is there");
    for (uint64_t i = 0; i < 6; i++)
        q2_plan_change(plan, Q2_CHANGE_LOST, 1, 131072 * i, 65536);
    q2_plan_change(plan, Q2_CHANGE_REPLACED, 7, 0, 65536);
    q2_plan_end(plan);
    char *text = human();
    EXPECT_IN(text, "guest: 0-64K (snapshot 'before'), 128K-192K");
    EXPECT_IN(text, "and 2 more ranges, 384\n");
    EXPECT_IN(text, "(snapshot #7) reads its own data again instead of other");
    free(text);
}

Test(report, of_an_image_without_a_header)
{
    repair.unreadable = true;
    char *text = human();
    EXPECT_IN(text, "vm.qcow2: the header is damaged beyond recognition\n");
    cr_expect_eq(q2_repair_exit(&report), Q2_EXIT_CORRUPT);
    free(text);
}

/* Whoever is sent to the check finds there what the repair has found. */
Test(report, names_the_check_that_sees_as_much)
{
    report.dry_run = false;
    repair.before.exit = Q2_EXIT_CORRUPT;
    for (int deep = 0; deep < 2; deep++) {
        repair.deep = deep;
        char *text = human();
        EXPECT_IN(text, deep ? "\n  qcow2-check --deep vm.qcow2\n" : "\n  qcow2-check vm.qcow2\n");
        free(text);
    }
}

Test(report, ends_with_how_to_take_it_back)
{
    struct q2_check sound = {.snapshots = 0};
    add_mend(0x50008, Q2_CERTAIN);
    report.dry_run = false;
    report.applied = true;
    report.checked = &sound;
    report.journal = "vm.qcow2.qcow2kit-undo.1";
    char *text = human();
    EXPECT_IN(text, "Written, and checked again:\n  vm.qcow2: no errors found\n");
    EXPECT_IN(text, "\n  qcow2-repair --undo vm.qcow2.qcow2kit-undo.1\n");
    cr_expect_eq(q2_repair_exit(&report), Q2_EXIT_CLEAN);
    free(text);

    report.journal = "else where";
    text = human();
    EXPECT_IN(text, "\n  qcow2-repair --undo 'else where' vm.qcow2\n");
    free(text);
}

/* ---- for programs, and back ---- */

static char *
json(void)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    cr_assert_eq(q2_repair_report_json(&report, out, NULL), 0);
    fclose(out);
    return text;
}

static struct json_object *
at(struct json_object *object, const char *path)
{
    struct json_object *value = NULL;
    cr_assert_eq(json_pointer_get(object, path, &value), 0, "no %s", path);
    return value;
}

Test(report, as_json)
{
    struct q2_check sound = {.snapshots = 0};
    add_mend(0x50008, Q2_CERTAIN);
    repair.objection = "a \"quoted\" one\n";
    report.applied = true;
    report.checked = &sound;
    report.journal = "j\x1b";
    char *text = json();
    struct json_object *object = json_tokener_parse(text);
    cr_assert_not_null(object, "not JSON: %s", text);
    cr_expect_str_eq(json_object_get_string(at(object, "/verdict")), "clean");
    cr_expect_eq(json_object_get_int(at(object, "/corruptions-fixed")), 1);
    cr_expect_str_eq(json_object_get_string(at(object, "/before/verdict")), "corrupt");
    cr_expect_str_eq(json_object_get_string(at(object, "/before/problems/0/id")),
                     "l2-entry-past-end");
    cr_expect_str_eq(json_object_get_string(at(object, "/objections/0")), repair.objection);
    cr_expect_str_eq(json_object_get_string(at(object, "/journal")), "j\x1b");
    cr_expect_str_eq(json_object_get_string(at(object, "/actions/0/writes/0/kind")), "l2-table");
    cr_expect_str_eq(json_object_get_string(at(object, "/actions/0/guest-changes/0/change")),
                     "recovered");
    cr_expect_str_eq(json_object_get_string(at(object, "/actions/0/guest-changes/0/map")),
                     "active");
    json_object_put(object);
    free(text);
}

static int
match(const char *text, struct q2_error *err)
{
    struct q2_plan_file *file = NULL;
    struct q2_repair_options read = {.threads = 7};
    int rc = q2_plan_file_parse("plan", text, strlen(text), &file, err);
    cr_assert_eq(rc, 0, "%s", err->message);
    q2_plan_file_options(file, &read);
    cr_expect_eq(read.level, options.level);
    cr_expect_eq(read.now, options.now);
    cr_expect_eq(read.deep, options.deep);
    cr_expect_eq(read.discard, options.discard);
    cr_expect_eq(read.threads, 7);
    rc = q2_plan_file_match(file, &repair, err);
    q2_plan_file_free(file);
    return rc;
}

Test(report, is_a_plan_that_matches_what_it_was_made_from)
{
    struct q2_error err = {0};
    q2_plan_begin(&repair.plan, Q2_ACTION_MEND_SNAPSHOT, Q2_CERTAIN, UINT64_MAX,
                  "the name is \"\xc3\xa9\\x1b\"");
    q2_plan_end(&repair.plan);
    add_mend(0x50008, Q2_GUESS);
    options = (struct q2_repair_options){.level = Q2_LEVEL_LIKELY,
                                         .deep = true,
                                         .discard = true,
                                         .now = UINT64_MAX};
    char *text = json();
    cr_expect_eq(match(text, &err), 0, "%s", err.message);

    repair.plan.actions[1].key++;
    cr_expect_eq(match(text, &err), Q2_ERR_FORMAT);
    cr_expect(strstr(err.message, "action 2 would be mend-l2-entry at offset 0x50009"));
    repair.plan.actions[1].key--;

    add_mend(0x50010, Q2_GUESS);
    cr_expect_eq(match(text, &err), Q2_ERR_FORMAT);
    cr_expect(strstr(err.message, "it has 2 actions, not 3"), "%s", err.message);
    free(text);

    text = json();
    cr_expect_eq(match(text, &err), 0, "%s", err.message);
    repair.digest = "f" DIGEST;
    cr_expect_eq(match(text, &err), Q2_ERR_FORMAT);
    free(text);
}

Test(report, of_levels_has_ids_that_lead_back)
{
    for (int i = Q2_LEVEL_LEAKS; i <= Q2_LEVEL_GUESS; i++) {
        enum q2_repair_level level = Q2_LEVEL_LEAKS;
        cr_expect(q2_repair_level_find(q2_repair_level_id((enum q2_repair_level)i), &level));
        cr_expect_eq(level, (enum q2_repair_level)i);
    }
    enum q2_repair_level level = Q2_LEVEL_GUESS;
    cr_expect_not(q2_repair_level_find("", &level));
    cr_expect_eq(level, Q2_LEVEL_GUESS);
}
