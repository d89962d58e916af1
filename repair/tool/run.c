/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A repair, from the image's name to the last check of it. The image is locked for writing before
 * it is looked at, so that no virtual machine can start on it while the plan is made. What an
 * interrupted repair has left is put back first. */

#include "checker/console/progress.h"
#include "checker/console/say.h"
#include "core/io/posix.h"
#include "repair/apply.h"
#include "repair/journal.h"
#include "repair/plan_file.h"
#include "repair/report.h"
#include "repair/tool/commands.h"
#include "repair/tool/journals.h"
#include "repair/tool/shut.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DEFAULT_LINES = 10 };

/* What the process inside tells the one outside. */
struct told {
    bool
        finished[JOURNALS_MAX + 1]; /* journals of interrupted repairs, rolled back or never used */
    bool keep;                      /* the new journal */
};

struct run {
    const struct options *options;
    bool device;
    struct q2_file *image;
    struct journals found;
    struct q2_file *plan;
    struct q2_file *journal;
    char *journal_name;
    struct q2_error journal_error; /* why there is none */
    struct told *told;
};

static int
fail(const struct run *run, const struct q2_error *err, const char *hint)
{
    return command_fail(run->options, run->options->image, err, hint);
}

/* ---- an interrupted repair ---- */

/* A journal tells nothing about which file its image is. One that was named could be that of
 * another copy of it, half written, which needs it: then it must not be used up here. */
static int
refuse_copy(const struct run *run, size_t index, struct q2_error *err)
{
    const char *name = run->found.names[index];
    bool undone = false;
    if (!run->options->journal || strcmp(name, run->options->journal) != 0)
        return 0;
    int rc = q2_journal_is_undone(run->found.files[index], run->image, &undone, err);
    if (rc == 0 && undone)
        rc = q2_error_set(err, Q2_ERR_EXISTS,
                          "%s: nothing of the repair that %s undoes is in this image: if there is "
                          "no other that it is for, remove it",
                          run->options->image, name);
    return rc;
}

static int
roll_back(struct run *run, size_t index, struct q2_error *err)
{
    bool done = false;
    const char *name = run->found.names[index];
    if (run->options->dry_run)
        return q2_error_set(err, Q2_ERR_CORRUPT,
                            "%s: a repair was interrupted and is half written; qcow2-repair "
                            "without --dry-run puts the image back first",
                            run->options->image);
    int rc = refuse_copy(run, index, err);
    if (rc == 0)
        rc = q2_apply_resume(run->image, run->found.files[index], &done, err);
    if (rc < 0)
        return rc;
    run->told->finished[index] = true;
    if (done)
        say_note("%s: a repair had been interrupted; by %s the image has been put back to what it "
                 "was before",
                 run->options->image, name);
    return 0;
}

/* A journal that cannot be read may be no journal at all. */
static int
look_at_journal(struct run *run, size_t index, struct q2_error *err)
{
    struct q2_journal_info info;
    uint64_t size = 0;
    struct q2_file *file = run->found.files[index];
    int rc = q2_file_size(file, &size, err);
    if (rc < 0)
        return rc;
    if (size == 0) {
        run->told->finished[index] = !run->options->dry_run;
        return 0;
    }
    rc = q2_journal_read(file, &info, err);
    if (rc == Q2_ERR_FORMAT) {
        say_note("%s; it is left alone", err->message);
        return 0;
    }
    if (rc < 0)
        return rc;
    if (info.state == Q2_JOURNAL_APPLYING)
        return roll_back(run, index, err);
    run->told->finished[index] = info.state == Q2_JOURNAL_INCOMPLETE && !run->options->dry_run;
    return 0;
}

static int
resume_inside(void *data)
{
    struct run *run = data;
    struct q2_error err = {0};
    char hint[Q2_ERROR_MESSAGE_SIZE];
    int rc = 0;
    shut_hold();
    for (size_t i = 0; i < run->found.count && rc == 0; i++) {
        rc = look_at_journal(run, i, &err);
        snprintf(hint, sizeof hint,
                 "a repair of it was interrupted; if it was put back from a copy since, remove %s",
                 run->found.names[i]);
    }
    if (rc < 0)
        return fail(run, &err, rc == Q2_ERR_FORMAT ? hint : NULL);
    shut_release();
    return Q2_EXIT_CLEAN;
}

/* ---- the repair ---- */

static int
read_plan(struct run *run, struct q2_plan_file **ret_plan, struct q2_error *err)
{
    uint64_t size;
    int rc = q2_file_size(run->plan, &size, err);
    if (rc < 0)
        return rc;
    if (size > Q2_PLAN_FILE_MAX)
        return q2_error_set(err, Q2_ERR_RANGE, "%s: %" PRIu64 " bytes are more than a plan has",
                            run->plan->name, size);
    char *text = malloc((size_t)size + 1);
    if (!text)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory to read it", run->plan->name);
    rc = size ? q2_file_read(run->plan, 0, text, (size_t)size, err) : 0;
    if (rc == 0)
        rc = q2_plan_file_parse(run->plan->name, text, (size_t)size, ret_plan, err);
    free(text);
    return rc;
}

static int
make_plan(struct run *run, struct q2_repair_options *how, struct q2_repair **ret_repair,
          struct q2_error *err)
{
    struct q2_plan_file *wanted = NULL;
    struct progress progress;
    if (run->plan) {
        int rc = read_plan(run, &wanted, err);
        if (rc < 0)
            return rc;
        q2_plan_file_options(wanted, how);
    }
    progress_init(&progress, run->options->progress);
    how->progress = command_shows_progress(run->options) ? progress_show : NULL;
    how->progress_data = &progress;
    int rc = q2_repair_plan(run->image, how, ret_repair, err);
    progress_end(&progress);
    how->progress = NULL; /* which ends here */
    if (rc == 0 && wanted)
        rc = q2_plan_file_match(wanted, *ret_repair, err);
    q2_plan_file_free(wanted);
    return rc;
}

/* Write it, and check what is then on the disk. */
static int
carry_out(struct run *run, struct q2_repair_report *report, struct q2_error *err)
{
    const struct q2_repair_options *how = report->options;
    struct q2_check_options check = {.deep = q2_repair_is_deep(report->repair),
                                     .max_memory = how->max_memory,
                                     .threads = how->threads,
                                     .now = how->now};
    if (!run->journal) {
        *err = run->journal_error;
        return err->code;
    }
    bool needed = true;
    run->told->keep = true;
    shut_hold();
    int rc = q2_repair_apply(report->repair, run->image, run->journal, &needed, err);
    run->told->keep = needed;
    shut_release();
    if (rc < 0)
        return rc;
    report->applied = true;
    return q2_check_run(run->image, &check, &report->checked, err);
}

static uint64_t
lines_of(const struct options *options)
{
    return options->limit ? options->limit : DEFAULT_LINES;
}

static int
print_end(struct run *run, struct q2_repair_report *report, struct q2_error *err)
{
    struct q2_report_style style = {.colour = say_may_colour(STDOUT_FILENO),
                                    .max_lines = lines_of(run->options)};
    if (run->options->json)
        return q2_repair_report_json(report, stdout, err);
    q2_repair_report_outcome(report, &style, stdout);
    return 0;
}

/* The check of the file has to say what that of the copy said. */
static bool
is_as_promised(const struct q2_repair_report *report)
{
    return !report->checked ||
           q2_check_exit(report->checked) == q2_check_exit(q2_repair_after(report->repair));
}

static int
repair(struct run *run, struct q2_repair_report *report, struct q2_error *err)
{
    struct q2_report_style style = {.colour = say_may_colour(STDOUT_FILENO),
                                    .max_lines = lines_of(run->options)};
    int rc = 0;
    if (!run->options->quiet && !run->options->json) {
        q2_repair_report_plan(report, &style, stdout);
        fflush(stdout);
    }
    if (!run->options->dry_run && q2_repair_needed(report->repair))
        rc = carry_out(run, report, err);
    if (rc == 0 && !is_as_promised(report))
        rc = q2_error_set(err, Q2_ERR_CORRUPT,
                          "%s: the image is not what the repair should have made of it; is "
                          "something else writing to it?",
                          run->options->image);
    if (rc == 0 && !run->options->quiet)
        rc = print_end(run, report, err);
    return rc;
}

static const char *
hint_for(const struct run *run, const struct q2_repair_report *report, const struct q2_error *err)
{
    if (report->applied)
        return "the repair is written, and --undo takes it back";
    if (err->code == Q2_ERR_BUDGET)
        return "--max-memory allows more";
    if (report->repair && !run->journal && !run->options->dry_run)
        return "nothing was written; --journal=FILE keeps what undoes the repair elsewhere";
    if (report->repair && run->told->keep)
        return "run qcow2-repair again, which puts the image back";
    if (report->repair && err->code == Q2_ERR_NOSPACE)
        return "--journal=FILE keeps what undoes the repair elsewhere";
    return NULL;
}

static int
repair_inside(void *data)
{
    struct run *run = data;
    const struct options *options = run->options;
    struct q2_error err = {0};
    struct q2_repair *made = NULL;
    struct q2_repair_options how = {
        .level = options->level,
        .discard = options->discard,
        .deep = options->deep,
        .fixed_size = run->device,
        .max_memory = options->max_memory,
        .threads = options->threads,
        .now = (uint64_t)time(NULL),
    };
    int rc = make_plan(run, &how, &made, &err);
    struct q2_repair_report report = {
        .repair = made,
        .options = &how,
        .filename = options->image,
        .journal = run->journal_name,
        .dry_run = options->dry_run,
    };
    if (rc == 0)
        rc = repair(run, &report, &err);
    int status =
        rc < 0 ? fail(run, &err, hint_for(run, &report, &err)) : (int)q2_repair_exit(&report);
    q2_check_free(report.checked);
    q2_repair_free(made);
    return status;
}

/* ---- outside ---- */

static int
open_image(struct run *run, struct q2_error *err)
{
    const struct options *options = run->options;
    struct stat st;
    run->device = stat(options->image, &st) == 0 && S_ISBLK(st.st_mode);
    if (run->device && !options->dry_run && !options->journal)
        return q2_error_set(err, Q2_ERR_OPEN,
                            "%s: beside a device, what undoes the repair would not outlive the "
                            "next boot: --journal=FILE says where to keep it",
                            options->image);
    int rc = q2_file_open(options->image, options->dry_run ? 0 : Q2_OPEN_WRITE, &run->image, err);
    if (rc == 0 && options->plan)
        rc = q2_file_open(options->plan, Q2_OPEN_FORCE_SHARE, &run->plan, err);
    return rc;
}

/* Put back what an interrupted repair has left, and remove journals that are of no more use. */
static int
resume(struct run *run)
{
    struct q2_error err = {0};
    if (command_refuse_image(run->options, run->options->image, &err) < 0 ||
        journals_find(run->options->image, run->options->journal, !run->options->dry_run,
                      &run->found, &err) < 0)
        return fail(run, &err, NULL);
    if (run->found.count == 0)
        return Q2_EXIT_CLEAN;
    int status = shut_in(!run->options->dry_run, run->options->quiet, resume_inside, run);
    for (size_t i = 0; i < run->found.count; i++)
        if (run->told->finished[i])
            journals_remove(run->found.names[i]);
    journals_close(&run->found);
    return status;
}

static void
create_journal(struct run *run)
{
    if (!run->options->dry_run)
        journals_create(run->options->image, run->options->journal, &run->journal_name,
                        &run->journal, &run->journal_error);
}

static void
close_all(struct run *run)
{
    if (run->journal && !run->told->keep)
        journals_remove(run->journal_name);
    q2_file_close(run->journal);
    q2_file_close(run->plan);
    q2_file_close(run->image);
    free(run->journal_name);
}

int
command_repair(const struct options *options)
{
    struct run run = {.options = options, .told = shut_share(sizeof *run.told)};
    struct q2_error err = {0};
    if (!run.told) {
        q2_error_set(&err, Q2_ERR_NOMEM, "no memory");
        return fail(&run, &err, NULL);
    }
    int status = open_image(&run, &err) < 0 ? fail(&run, &err, NULL) : resume(&run);
    if (status == Q2_EXIT_CLEAN) {
        create_journal(&run);
        status = shut_in(!options->dry_run, options->quiet, repair_inside, &run);
    }
    close_all(&run);
    shut_raise();
    return status;
}
