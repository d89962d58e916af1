/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Everything that needs to be opened is opened first; then the process shuts itself in; only then
 * does it look at a byte of the image. */

#include "checker/tool/image.h"

#include "checker/companion.h"
#include "checker/console/progress.h"
#include "checker/console/sandbox.h"
#include "checker/console/say.h"
#include "checker/format.h"
#include "checker/report_parts.h"
#include "checker/tool/owner.h"
#include "core/io/posix.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>
#include <time.h>

enum { DEFAULT_LINES = 10 };

/* ---- failing ---- */

static void
write_failure(const char *name, const struct output *output, enum q2_check_exit status,
              const char *message)
{
    struct json_object *object = json_object_new_object();
    if (!object)
        return;
    json_object_object_add(object, "filename", q2_report_name_object(name));
    json_object_object_add(object, "verdict", json_object_new_string(q2_exit_id(status)));
    json_object_object_add(object, "exit-status", json_object_new_uint64(status));
    json_object_object_add(object, "qcow2kit-version", json_object_new_string(QCOW2KIT_VERSION));
    json_object_object_add(object, "error", q2_report_name_object(message));
    fprintf(output->out, "%s\n",
            json_object_to_json_string_ext(object,
                                           JSON_C_TO_STRING_NOSLASHESCAPE |
                                               (output->one_of_many ? 0
                                                                    : JSON_C_TO_STRING_PRETTY)));
    json_object_put(object);
}

void
image_fail(const struct options *options, const char *name, const struct output *output,
           enum q2_check_exit status, const char *message)
{
    message = say_behind_name(name, message);
    say_error(name, "%s", message);
    if (options->json && !options->quiet)
        write_failure(name, output, status, message);
}

static int
fail(const struct options *options, const char *name, const struct output *output,
     const struct q2_error *err)
{
    char message[Q2_ERROR_MESSAGE_SIZE + 80];
    enum q2_check_exit status =
        err->code == Q2_ERR_NOT_QCOW2 ? Q2_EXIT_NOT_SUPPORTED : Q2_EXIT_INCOMPLETE;
    const char *hint = err->code == Q2_ERR_LOCKED   ? "; --force-share checks it nevertheless"
                       : err->code == Q2_ERR_BUDGET ? "; --max-memory allows more"
                                                    : "";
    snprintf(message, sizeof message, "%s%s",
             err->message[0] ? err->message : q2_error_text(err->code), hint);
    image_fail(options, name, output, status, message);
    return (int)status;
}

/* ---- reporting ---- */

static bool
has_problem(const struct q2_check *check)
{
    for (int i = 0; i < Q2_PROBLEM_COUNT; i++)
        if (q2_check_problem_count(check, (enum q2_problem)i).count)
            return true;
    return false;
}

/* "No errors" is said of what was looked at. */
static void
tell_what_is_unread(const struct options *options, const char *name, const struct output *output,
                    const struct q2_check *check)
{
    char quoted[1024];
    const struct q2_header *header = q2_check_header(check);
    q2_format_shell(quoted, sizeof quoted, name);
    if (!options->deep)
        fprintf(output->out,
                "  Only metadata was read; qcow2-check --deep %s reads guest data too.\n", quoted);
    if (!options->chain &&
        (header->backing_file_offset || header->incompatible_features & Q2_INCOMPATIBLE_DATA_FILE))
        fprintf(output->out, "  It uses other files; qcow2-check --chain %s looks at them too.\n",
                quoted);
}

static void
report_human(const struct options *options, const char *name, const struct output *output,
             const struct q2_check *check)
{
    struct q2_report_style style = {.colour = output->colour,
                                    .max_lines = options->limit ? options->limit : DEFAULT_LINES};
    if (output->one_of_many && q2_check_exit(check) == Q2_EXIT_CLEAN) {
        q2_report_verdict(check, name, &style, output->out);
        return;
    }
    q2_report_human(check, name, &style, output->out);
    if (output->one_of_many)
        fputc('\n', output->out);
    else if (!has_problem(check))
        tell_what_is_unread(options, name, output, check);
}

static int
report(const struct options *options, const char *name, const struct output *output,
       const struct q2_check *check, struct q2_error *err)
{
    if (options->quiet)
        return 0;
    if (options->json)
        return q2_report_json(check, name, !output->one_of_many, output->out, err);
    report_human(options, name, output, check);
    return 0;
}

/* ---- the road of one image ---- */

struct opened {
    struct q2_file *file;
    struct q2_companions *companions;
    struct q2_check *check;
};

static void
close_all(struct opened *opened)
{
    q2_check_free(opened->check);
    q2_companions_free(opened->companions);
    q2_file_close(opened->file);
}

static int
open_all(const struct options *options, const char *name, struct opened *opened,
         struct q2_error *err)
{
    unsigned flags = options->force_share ? Q2_OPEN_FORCE_SHARE : 0;
    int rc = q2_file_open(name, flags, &opened->file, err);
    if (rc == 0 && options->chain)
        rc = q2_companions_open(opened->file, name, options->force_share, &opened->companions, err);
    return rc;
}

static int
check_opened(const struct options *options, const struct output *output, struct opened *opened,
             struct q2_error *err)
{
    struct progress progress;
    struct q2_check_options how = {
        .deep = options->deep,
        .max_memory = options->max_memory,
        .threads = options->threads,
        .max_details = options->json || options->limit > 1000 ? options->limit : 0,
        .now = (uint64_t)time(NULL),
        .companions = opened->companions,
        .progress = output->progress ? progress_show : NULL,
        .progress_data = &progress,
    };
    progress_init(&progress, options->progress);
    sandbox_enter_or_say(false, output->silent_notes);
    int rc = q2_check_run(opened->file, &how, &opened->check, err);
    progress_end(&progress);
    return rc;
}

int
image_run(const struct options *options, const char *name, const struct output *output)
{
    __attribute__((cleanup(close_all))) struct opened opened = {NULL, NULL, NULL};
    struct q2_error err = {0};
    if (open_all(options, name, &opened, &err) < 0 ||
        check_opened(options, output, &opened, &err) < 0)
        return fail(options, name, output, &err);
    if (options->action == ACTION_OWNER) {
        if (owner_report(options, name, opened.check, opened.file, output->out, &err) < 0)
            return fail(options, name, output, &err);
        return Q2_EXIT_CLEAN;
    }
    if (report(options, name, output, opened.check, &err) < 0) {
        say_error(name, "%s", err.message);
        return Q2_EXIT_INCOMPLETE;
    }
    return (int)q2_check_exit(opened.check);
}
