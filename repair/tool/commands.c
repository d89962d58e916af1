/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the commands share, and the smallest of them. */

#include "repair/tool/commands.h"

#include "checker/console/say.h"
#include "checker/format.h"
#include "checker/report_parts.h"
#include "repair/json.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

bool
command_shows_progress(const struct options *options)
{
    return options->progress || (!options->quiet && say_is_terminal(STDERR_FILENO));
}

int
command_fail(const struct options *options, const char *name, const struct q2_error *err,
             const char *hint)
{
    char message[Q2_ERROR_MESSAGE_SIZE + 256];
    enum q2_check_exit status =
        err->code == Q2_ERR_NOT_QCOW2 ? Q2_EXIT_NOT_SUPPORTED : Q2_EXIT_INCOMPLETE;
    const char *text = err->message[0] ? err->message : q2_error_text(err->code);
    snprintf(message, sizeof message, "%s%s%s", say_behind_name(name, text), hint ? "; " : "",
             hint ? hint : "");
    say_error(name, "%s", message);
    if (!options->json || options->quiet)
        return (int)status;
    struct q2_json json = {.out = stdout};
    q2_json_begin(&json, NULL, '{', false);
    q2_json_text(&json, "filename", name);
    q2_json_text(&json, "verdict", q2_exit_id(status));
    q2_json_number(&json, "exit-status", (uint64_t)status);
    q2_json_text(&json, "qcow2kit-version", QCOW2KIT_VERSION);
    q2_json_text(&json, "error", message);
    q2_json_end(&json, '}');
    putchar('\n');
    return (int)status;
}

int
command_refuse_image(const struct options *options, const char *image, struct q2_error *err)
{
    struct stat st, other;
    if (!options->journal || stat(options->journal, &st) < 0 || stat(image, &other) < 0 ||
        st.st_dev != other.st_dev || st.st_ino != other.st_ino)
        return 0;
    return q2_error_set(err, Q2_ERR_OPEN, "%s: is the image itself, and no journal of it",
                        options->journal);
}

int
command_explain(const struct options *options)
{
    (void)options;
    for (int i = 0; i < Q2_ACTION_COUNT; i++) {
        printf("%s\n    ", q2_action_id((enum q2_action_kind)i));
        q2_format_wrap(stdout, 4, 4, q2_action_sentence((enum q2_action_kind)i));
    }
    return Q2_EXIT_CLEAN;
}
