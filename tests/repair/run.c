/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Plans the repair of case folders (tests/cases/run.c says what is in them) at two levels, and
 * holds what comes out against the file repair.txt of the folder:
 *
 *   level certain                        or guess
 *   + action confidence offset           done; "-": beyond the level; "!": the proof dropped it
 *       answers problem count, writes structure range, guest range of map becomes what
 *   objection sentence
 *   left problem: why
 *   state before -> state after
 *
 * or "the same", where a guess adds nothing. `repair-run FOLDER...` shows where that differs;
 * `repair-run --bless FOLDER...` writes it down. Whatever is in the file, a repair has to be
 * complete in one go: planned again on its own outcome, it has nothing left to do. `repair-run
 * --shard I/N FOLDER...` takes each Nth folder from the Ith on. */

#include "checker/report_parts.h"
#include "core/base/cleanup.h"
#include "repair/report.h"
#include "tests/cases/folder.h"
#include "tests/repair/built.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINES_OF_A_KIND = 12, PARTS = 3 };

static const char golden_name[] = "repair.txt";

/* ---- a plan as text ---- */

static void
write_state(const struct q2_check *check, FILE *out)
{
    if (!check) {
        fputs("unreadable", out);
        return;
    }
    const struct q2_check_counts *counts = q2_check_counts(check);
    fputs(q2_exit_id(q2_check_exit(check)), out);
    if (counts->corruptions)
        fprintf(out, " corruptions %" PRIu64, counts->corruptions);
    if (counts->leaks)
        fprintf(out, " leaks %" PRIu64, counts->leaks);
    if (counts->check_errors)
        fprintf(out, " check-errors %" PRIu64, counts->check_errors);
}

static void
write_more(uint64_t count, const char *what, FILE *out)
{
    if (count > PARTS)
        fprintf(out, "      and %" PRIu64 " more %s\n", count - PARTS, what);
}

static void
write_action(const struct q2_action *action, FILE *out)
{
    fprintf(out, "%c %s %s 0x%" PRIx64 "\n",
            action->applied   ? '+'
            : action->dropped ? '!'
                              : '-',
            q2_action_id(action->kind), q2_confidence_id(action->confidence), action->key);
    for (uint64_t i = 0; i < action->answer_count && i < PARTS; i++)
        fprintf(out, "      answers %s %" PRIu64 "\n", q2_problem_id(action->answers[i].problem),
                action->answers[i].count);
    write_more(action->answer_count, "answers", out);
    for (uint64_t i = 0; i < action->written_count && i < PARTS; i++)
        fprintf(out, "      writes %s 0x%" PRIx64 "+0x%" PRIx64 "\n",
                q2_owner_kind_id(action->written[i].kind), action->written[i].offset,
                action->written[i].length);
    write_more(action->written_count, "writes", out);
    for (uint64_t i = 0; i < action->change_count && i < PARTS; i++)
        fprintf(out, "      guest 0x%" PRIx64 "+0x%" PRIx64 " of map %" PRIu32 " %s\n",
                action->changes[i].offset, action->changes[i].length, action->changes[i].map,
                q2_change_id(action->changes[i].kind));
    write_more(action->change_count, "guest ranges", out);
}

static void
write_plan(const struct q2_repair *repair, FILE *out)
{
    const struct q2_plan *plan = q2_repair_actions(repair);
    uint64_t counts[Q2_ACTION_COUNT] = {0};
    for (uint64_t i = 0; i < plan->count; i++)
        if (counts[plan->actions[i].kind]++ < LINES_OF_A_KIND)
            write_action(&plan->actions[i], out);
    for (int i = 0; i < Q2_ACTION_COUNT; i++)
        if (counts[i] > LINES_OF_A_KIND)
            fprintf(out, "... %" PRIu64 " more of %s\n", counts[i] - LINES_OF_A_KIND,
                    q2_action_id((enum q2_action_kind)i));
    for (size_t i = 0; q2_repair_objection(repair, i); i++)
        fprintf(out, "objection %s\n", q2_repair_objection(repair, i));
    for (int i = 0; i < Q2_PROBLEM_COUNT; i++) {
        const char *why = q2_repair_left(repair, (enum q2_problem)i);
        if (why)
            fprintf(out, "left %s: %s\n", q2_problem_id((enum q2_problem)i), why);
    }
    write_state(q2_repair_before(repair), out);
    fputs(" -> ", out);
    write_state(q2_repair_after(repair), out);
    fputs("\n", out);
}

/* What is left to do on the outcome, which is to be nothing. */
static bool
is_complete(const char *folder, const struct q2_repair *repair,
            const struct q2_repair_options *options)
{
    struct q2_repair *again = NULL;
    struct q2_error err = {0};
    /* Where a limit ended the search, what was done leaves more room for the next. */
    if (!q2_repair_needed(repair) || q2_repair_unsearched(repair))
        return true;
    if (q2_repair_plan(q2_repair_file(repair), options, &again, &err) < 0) {
        printf("%s: not to be planned again at level %s: %s\n", folder,
               q2_repair_level_id(options->level), err.message);
        return false;
    }
    bool complete = !q2_repair_needed(again);
    if (!complete) {
        printf("%s: a second repair at level %s would do:\n", folder,
               q2_repair_level_id(options->level));
        write_plan(again, stdout);
    }
    q2_repair_free(again);
    return complete;
}

/* ---- a folder ---- */

/* What is planned at one level, and what makes it. */
struct level {
    struct q2_repair_options options;
    struct q2_repair *repair; /* NULL: it cannot be planned */
    char *text;
};

static void
plan_level(const char *folder, struct q2_file *image, const struct folder_options *setup,
           enum q2_repair_level number, struct level *ret_level)
{
    struct q2_error err = {0};
    size_t length = 0;
    struct level level = {.options = {.level = number,
                                      .deep = setup->check.deep,
                                      .max_memory = setup->check.max_memory,
                                      .threads = setup->check.threads,
                                      .now = setup->check.now}};
    FILE *out = open_memstream(&level.text, &length);
    if (!out)
        folder_die(folder, "no memory");
    if (q2_repair_plan(image, &level.options, &level.repair, &err) < 0)
        fprintf(out, "error %s\n", err.message);
    else
        write_plan(level.repair, out);
    if (fclose(out) != 0)
        folder_die(folder, "no memory");
    *ret_level = level;
}

/* The plans for a folder's image; the caller frees them. */
static char *
plan_folder(const char *folder, bool *ret_complete)
{
    char *text = NULL;
    struct q2_error err = {0};
    struct level certain, guess;
    struct folder_options setup = {.check = {.now = 0}};
    folder_options(folder, &setup);
    Q2_AUTOCLOSE struct q2_file *image = built_image(folder);
    Q2_AUTOCLOSE struct q2_file *faulty = NULL;
    if (setup.fault.kind && q2_file_new_fault(image, &setup.fault, &faulty, &err) < 0)
        folder_die(folder, err.message);
    struct q2_file *file = faulty ? faulty : image;
    plan_level(folder, file, &setup, Q2_LEVEL_CERTAIN, &certain);
    plan_level(folder, file, &setup, Q2_LEVEL_GUESS, &guess);
    bool same = strcmp(certain.text, guess.text) == 0;
    if (asprintf(&text, "level certain\n%s\nlevel guess\n%s", certain.text,
                 same ? "the same\n" : guess.text) < 0)
        folder_die(folder, "no memory");
    /* What a guess finds nothing to do with is complete at any level. */
    *ret_complete =
        (!guess.repair || is_complete(folder, guess.repair, &guess.options)) &&
        (same || !certain.repair || is_complete(folder, certain.repair, &certain.options));
    q2_repair_free(certain.repair);
    q2_repair_free(guess.repair);
    free(certain.text);
    free(guess.text);
    return text;
}

/* Show what differs, by way of files, which only a failure needs. */
static void
show_difference(const char *folder, const char *text)
{
    char name[] = "/tmp/qcow2kit-repair-XXXXXX", command[2 * PATH_MAX];
    int fd = mkstemp(name);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (!file)
        return;
    fputs(text, file);
    fclose(file);
    snprintf(command, sizeof command, "diff -u --label expected --label actual '%s/%s' %s", folder,
             golden_name, name);
    fflush(stdout);
    if (system(command) < 0)
        printf("%s", text);
    remove(name);
}

static bool
run_folder(const char *folder, bool bless)
{
    bool complete = false;
    Q2_AUTOFREE char *expected = folder_read(folder, golden_name, NULL);
    if (!expected && !bless) {
        printf("%s: FAILED: it has no %s\n", folder, golden_name);
        return false;
    }
    Q2_AUTOFREE char *text = plan_folder(folder, &complete);
    bool same = expected && strcmp(expected, text) == 0;
    if (bless && !same) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", folder, golden_name);
        FILE *file = fopen(path, "w");
        if (!file || fputs(text, file) < 0 || fclose(file) != 0)
            folder_die(path, "cannot be written");
        same = true;
    } else if (!same) {
        show_difference(folder, text);
    }
    printf("%s: %s\n", folder, same && complete ? "ok" : "FAILED");
    return same && complete;
}

int
main(int argc, char **argv)
{
    int first = 1, shard = 0, shards = 1, failed = 0;
    bool bless = argc > first && strcmp(argv[first], "--bless") == 0;
    first += bless;
    if (argc > first + 1 && strcmp(argv[first], "--shard") == 0) {
        if (sscanf(argv[first + 1], "%d/%d", &shard, &shards) != 2 || shards < 1)
            folder_die("--shard", "wants I/N");
        first += 2;
    }
    for (int i = first + shard; i < argc; i += shards)
        failed += !run_folder(argv[i], bless);
    return failed ? 1 : 0;
}
