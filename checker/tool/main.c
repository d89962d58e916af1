/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* qcow2-check: says what is wrong with qcow2 images. */

#include "checker/console/say.h"
#include "checker/report.h"
#include "checker/tool/batch.h"
#include "checker/tool/catalogue_page.h"
#include "core/io/standard.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static int
run(const struct options *options)
{
    bool folder = false;
    for (int i = 0; i < options->name_count; i++)
        folder |= find_is_folder(options->names[i]);
    bool many = options->action == ACTION_CHECK && (options->name_count > 1 || folder);
    struct output output = {
        .out = stdout,
        .colour = say_may_colour(STDOUT_FILENO),
        .one_of_many = many,
        .silent_notes = options->quiet,
        .progress = options->progress || (!options->quiet && say_is_terminal(STDERR_FILENO)),
    };
    if (!many)
        return image_run(options, options->names[0], &output);

    struct find_list list;
    find_images(options->names, options->name_count, &list);
    int status = list.count ? batch_run(options, &list, &output) : Q2_EXIT_CLEAN;
    if (list.failed)
        status = Q2_EXIT_INCOMPLETE;
    find_list_free(&list);
    return status;
}

static int
act(const struct options *options)
{
    struct q2_report_style style = {.colour = say_may_colour(STDOUT_FILENO)};
    switch (options->action) {
    case ACTION_HELP:
        fputs(options_help, stdout);
        return Q2_EXIT_CLEAN;
    case ACTION_VERSION:
        puts("qcow2-check (qcow2kit) " QCOW2KIT_VERSION);
        return Q2_EXIT_CLEAN;
    case ACTION_LIST:
        catalogue_print_list(options->json, stdout);
        return Q2_EXIT_CLEAN;
    case ACTION_EXPLAIN:
        if (options->json)
            catalogue_print_json(options->problem, stdout);
        else
            q2_report_explain(options->problem, &style, stdout);
        return Q2_EXIT_CLEAN;
    default:
        return run(options);
    }
}

int
main(int argc, char **argv)
{
    struct options options;
    q2_standard_guard();
    signal(SIGPIPE, SIG_IGN); /* a reader that has gone is an error like a full disk */
    if (!options_parse(argc, argv, &options))
        return Q2_EXIT_INCOMPLETE;
    int status = act(&options);

    bool failed = ferror(stdout) != 0;
    errno = 0;
    if (fclose(stdout) != 0 || failed) {
        say_error(NULL, "the report could not be written%s%s", errno ? ": " : "",
                  errno ? strerror(errno) : "");
        status = Q2_EXIT_INCOMPLETE;
    }
    return status;
}
