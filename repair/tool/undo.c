/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Taking a repair back: the image becomes what it was, byte for byte. */

#include "checker/console/say.h"
#include "core/io/posix.h"
#include "repair/journal.h"
#include "repair/json.h"
#include "repair/tool/commands.h"
#include "repair/tool/journals.h"
#include "repair/tool/shut.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct undo {
    const struct options *options;
    const char *image_name;
    struct q2_file *image;
    struct q2_file *journal;
};

static void
format_time(uint64_t seconds, char *buffer, size_t size)
{
    time_t when = (time_t)seconds;
    struct tm parts;
    if (seconds > INT32_MAX || !gmtime_r(&when, &parts) ||
        !strftime(buffer, size, "%Y-%m-%d %H:%M:%S UTC", &parts))
        snprintf(buffer, size, "an unknown time");
}

static void
report(const struct undo *undo, const struct q2_journal_info *info)
{
    char when[64];
    if (undo->options->quiet)
        return;
    if (undo->options->json) {
        struct q2_json json = {.out = stdout};
        q2_json_begin(&json, NULL, '{', false);
        q2_json_text(&json, "filename", undo->image_name);
        q2_json_text(&json, "journal", undo->options->journal);
        q2_json_bool(&json, "undone", true);
        q2_json_number(&json, "made-at", info->made_at);
        q2_json_number(&json, "records", info->records);
        q2_json_number(&json, "bytes", info->bytes);
        q2_json_end(&json, '}');
        putchar('\n');
        return;
    }
    format_time(info->made_at, when, sizeof when);
    printf("%s: is again what it was before the repair of %s\n", undo->image_name,
           info->made_at ? when : "an unknown time");
}

/* Where the image is not what the journal knows. */
static const char *
hint_for(enum q2_journal_state state)
{
    if (state != Q2_JOURNAL_APPLYING)
        return "--force undoes it nevertheless";
    return "if it was put back from a copy since, remove the journal; --force undoes the repair "
           "nevertheless, and would spoil such an image";
}

static int
undo_inside(void *data)
{
    struct undo *undo = data;
    struct q2_journal_info info = {.state = Q2_JOURNAL_INCOMPLETE};
    struct q2_error err = {0};
    const char *hint = NULL;
    int rc = q2_journal_read(undo->journal, &info, &err);
    /* One that is undone already, too: the image may have been repaired again, or be another. */
    if (rc == 0) {
        shut_hold();
        rc = q2_journal_undo(undo->journal, undo->image, undo->options->force, &err);
        shut_release();
        if (rc == Q2_ERR_FORMAT && info.state != Q2_JOURNAL_INCOMPLETE && !undo->options->force)
            hint = hint_for(info.state);
    }
    if (rc < 0)
        return command_fail(undo->options, undo->image_name, &err, hint);
    report(undo, &info);
    return Q2_EXIT_CLEAN;
}

int
command_undo(const struct options *options)
{
    struct undo undo = {.options = options, .image_name = options->image};
    struct q2_error err = {0};
    char *guessed = NULL;
    if (!undo.image_name)
        undo.image_name = guessed = journals_image(options->journal);
    if (!undo.image_name) {
        say_error(options->journal,
                  "does not say by its name which image it is for; name that too");
        return Q2_EXIT_INCOMPLETE;
    }
    int status;
    if (command_refuse_image(options, undo.image_name, &err) < 0 ||
        q2_file_open(undo.image_name, Q2_OPEN_WRITE, &undo.image, &err) < 0 ||
        q2_file_open(options->journal, Q2_OPEN_WRITE, &undo.journal, &err) < 0)
        status = command_fail(options, undo.image_name, &err, NULL);
    else
        status = shut_in(true, options->quiet, undo_inside, &undo);
    q2_file_close(undo.journal);
    q2_file_close(undo.image);
    free(guessed);
    shut_raise();
    return status;
}
