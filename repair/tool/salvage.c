/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Copying what can be read to a new image. */

#include "repair/salvage.h"

#include "checker/console/progress.h"
#include "checker/console/say.h"
#include "checker/format.h"
#include "checker/report_parts.h"
#include "core/codec/secret.h"
#include "core/io/posix.h"
#include "repair/json.h"
#include "repair/tool/commands.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Asked to end, a salvage writes down where it is first. */
static volatile sig_atomic_t stopped;

static void
note_signal(int signal)
{
    stopped = signal;
}

static bool
is_stopped(void *data)
{
    (void)data;
    return stopped != 0;
}

static void
show_progress(void *data, const struct q2_salvage_progress *now)
{
    struct q2_progress plain = {now->phase, now->done, now->total};
    progress_show(data, &plain);
}

/* ---- the report ---- */

static enum q2_check_exit
status_of(const struct q2_salvage_result *result)
{
    bool whole = !result->bytes[Q2_SALVAGE_GUESS] && !result->bytes[Q2_SALVAGE_LOST] &&
                 !result->maps_lost && !result->backing_missing;
    return whole ? Q2_EXIT_CLEAN : Q2_EXIT_CORRUPT;
}

static void
report_json(const struct options *options, const struct q2_salvage_result *result, const char *map)
{
    struct q2_json json = {.out = stdout};
    q2_json_begin(&json, NULL, '{', false);
    q2_json_text(&json, "filename", options->image);
    q2_json_text(&json, "output", options->salvage);
    q2_json_text(&json, "map-file", map);
    q2_json_number(&json, "exit-status", (uint64_t)status_of(result));
    q2_json_text(&json, "qcow2kit-version", QCOW2KIT_VERSION);
    q2_json_bool(&json, "resumed", result->resumed);
    q2_json_number(&json, "maps", result->maps);
    q2_json_number(&json, "maps-lost", result->maps_lost);
    q2_json_bool(&json, "backing-missing", result->backing_missing);
    q2_json_begin(&json, "bytes", '{', true);
    for (int i = 0; i < Q2_SALVAGE_STATE_COUNT; i++)
        q2_json_number(&json, q2_salvage_state_id((enum q2_salvage_state)i), result->bytes[i]);
    q2_json_end(&json, '}');
    q2_json_end(&json, '}');
    putchar('\n');
}

static void
report_human(const struct options *options, const struct q2_salvage_result *result, const char *map)
{
    char name[1024];
    q2_printable(name, sizeof name, options->salvage, strlen(options->salvage));
    printf("%s: %s\n", name,
           status_of(result) == Q2_EXIT_CLEAN ? "everything could be read"
                                              : "holds what could be read");
    for (int i = 0; i < Q2_SALVAGE_STATE_COUNT; i++)
        if (result->bytes[i])
            printf("  %-8s %s\n", q2_salvage_state_id((enum q2_salvage_state)i),
                   q2_format_size(result->bytes[i]).text);
    if (result->maps > 1)
        printf("  %s with it\n", q2_format_plural(result->maps - 1, "snapshot").text);
    if (result->maps_lost)
        printf("  %s of which nothing could be written\n",
               q2_format_plural(result->maps_lost, "snapshot").text);
    if (result->backing_missing)
        puts(
            options->chain || options->backing_file
                ? "  The backing file is missing, and with it what only that held."
                : "  What only the backing file holds is not in it; --backing-file=FILE says where "
                  "that\n  is, or --chain takes the image's word for it.");
    q2_printable(name, sizeof name, map, strlen(map));
    printf("  %s says which guest ranges these are.\n", name);
}

/* ---- the road ---- */

static int
read_secret(const struct options *options, struct q2_secret *secret, struct q2_error *err)
{
    return options->passphrase ? q2_secret_read(options->passphrase, Q2_SECRET_RAW, secret, err)
                               : 0;
}

static int
salvage(const struct options *options, struct q2_file *image, const struct q2_secret *secret,
        struct q2_salvage_result *result, struct q2_error *err)
{
    struct progress progress;
    struct q2_salvage_options how = {
        .format = options->salvage_qcow2 ? Q2_DISK_QCOW2 : Q2_DISK_RAW,
        .keep_backing = options->keep_backing,
        .overwrite = options->force,
        .restart = options->restart,
        .map_file = options->map,
        .data_file = options->data_file,
        .backing_file = options->backing_file,
        .given_names_only = !options->chain,
        .secret = options->passphrase ? secret : NULL,
        .max_memory = options->max_memory,
        .threads = options->threads,
        .now = (uint64_t)time(NULL),
        .stop = is_stopped,
        .progress = command_shows_progress(options) ? show_progress : NULL,
        .progress_data = &progress,
    };
    struct sigaction action = {.sa_handler = note_signal, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    progress_init(&progress, options->progress);
    int rc = q2_salvage_run(image, options->salvage, &how, result, err);
    progress_end(&progress);
    return rc;
}

static const char *
hint_for(const struct q2_error *err)
{
    switch (err->code) {
    case Q2_ERR_NOT_FOUND:
        return "--data-file=FILE, or --chain to take the image's word for it";
    case Q2_ERR_STOPPED:
        return "the same command goes on from there";
    case Q2_ERR_EXISTS:
        return "--force writes over it";
    case Q2_ERR_PASSPHRASE:
        return "--passphrase-file=FILE";
    case Q2_ERR_BUDGET:
        return "--max-memory allows more";
    default:
        return NULL;
    }
}

int
command_salvage(const struct options *options)
{
    struct q2_error err = {0};
    struct q2_secret secret = {0};
    struct q2_salvage_result result = {0};
    struct q2_file *image = NULL;
    char map[4096];
    int rc = read_secret(options, &secret, &err);
    if (rc == 0)
        rc = q2_file_open(options->image, 0, &image, &err);
    if (rc == 0)
        rc = salvage(options, image, &secret, &result, &err);
    q2_file_close(image);
    q2_secret_destroy(&secret);
    if (rc < 0) {
        int status = command_fail(options, options->image, &err, hint_for(&err));
        fflush(stdout);
        if (stopped)
            raise(stopped);
        return status;
    }
    if (options->map)
        snprintf(map, sizeof map, "%s", options->map);
    else
        snprintf(map, sizeof map, "%s.map.json", options->salvage);
    if (!options->quiet && options->json)
        report_json(options, &result, map);
    else if (!options->quiet)
        report_human(options, &result, map);
    return (int)status_of(&result);
}
