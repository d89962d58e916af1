/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The checker behind the face of `qemu-img check`. What is wrong is told as qcow2-check tells it;
 * a sound image, the sums and the exit status are as `qemu-img` has them. */

#include "checker/check.h"
#include "checker/report.h"
#include "core/io/posix.h"
#include "core/tool/open.h"
#include "core/tool/parse.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int run(int argc, char **argv);

const struct tool_command tool_command_check = {
    .name = "check",
    .usage = "[-f FORMAT | --image-opts] [--output=human|json] [-q] [-T CACHE] [-U] FILE",
    .help = "say what is wrong with an image; qcow2-check says more",
    .run = run,
};

/* ---- for people ---- */

static void
print_counts(const struct q2_check_counts *counts)
{
    if (!(counts->corruptions | counts->leaks | counts->check_errors))
        puts("No errors were found on the image.");
    if (counts->corruptions)
        printf("\n%" PRIu64 " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               counts->corruptions);
    if (counts->leaks)
        printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n",
               counts->leaks);
    if (counts->check_errors)
        printf("\n%" PRIu64 " internal errors have occurred during the check.\n",
               counts->check_errors);
    if (counts->total_clusters && counts->allocated_clusters)
        printf("%" PRIu64 "/%" PRIu64 " = %0.2f%% allocated, %0.2f%% fragmented, "
               "%0.2f%% compressed clusters\n",
               counts->allocated_clusters, counts->total_clusters,
               (double)counts->allocated_clusters * 100.0 / (double)counts->total_clusters,
               (double)counts->fragmented_clusters * 100.0 / (double)counts->allocated_clusters,
               (double)counts->compressed_clusters * 100.0 / (double)counts->allocated_clusters);
    if (counts->image_end_offset)
        printf("Image end offset: %" PRIu64 "\n", counts->image_end_offset);
}

static int
report(const struct tool_common *common, const char *name, const struct q2_check *check)
{
    enum { MAX_LINES = 10 };
    struct q2_error err = {0};
    const struct q2_report_style style = {.max_lines = MAX_LINES};
    if (common->json) {
        if (q2_report_json(check, name, true, stdout, &err) < 0)
            return tool_fail(name, &err);
        return (int)q2_check_exit(check);
    }
    if (!common->quiet) {
        if (q2_check_exit(check) != Q2_EXIT_CLEAN)
            q2_report_human(check, name, &style, stdout);
        print_counts(q2_check_counts(check));
    }
    return (int)q2_check_exit(check);
}

/* ---- checking ---- */

static int
check_file(const struct tool_common *common, const char *name, struct q2_file *file)
{
    struct q2_error err = {0};
    struct q2_check *check;
    const struct q2_check_options options = {.now = (uint64_t)time(NULL)};
    if (q2_check_run(file, &options, &check, &err) < 0) {
        tool_fail(NULL, &err);
        return err.code == Q2_ERR_NOT_QCOW2 ? Q2_EXIT_NOT_SUPPORTED : Q2_EXIT_INCOMPLETE;
    }
    int status = report(common, name, check);
    q2_check_free(check);
    return status;
}

static bool
refuse_repair(void *data, int option)
{
    (void)data;
    (void)option;
    tool_say("check never writes to an image; qcow2-repair repairs one");
    return false;
}

static int
run_parsed(const struct tool_common *common, int argc, char **argv)
{
    struct q2_error err = {0};
    struct q2_file *file;
    char *path;
    enum q2_disk_format format;
    if (argc - optind != 1)
        return tool_say_usage("one file name is wanted");
    if (!tool_open_path(common, argv[optind], &path, &format))
        return TOOL_FAILED;
    int status = Q2_EXIT_INCOMPLETE;
    if (format == Q2_DISK_RAW) {
        tool_say("a raw image has nothing to check");
        status = Q2_EXIT_NOT_SUPPORTED;
    } else if (q2_file_open(path, common->force_share ? Q2_OPEN_FORCE_SHARE : 0, &file, &err) < 0) {
        tool_fail(NULL, &err);
    } else {
        status = check_file(common, path, file);
        q2_file_close(file);
    }
    free(path);
    return status;
}

static int
run(int argc, char **argv)
{
    static const struct option longs[] = {TOOL_LONG_COMMON,
                                          TOOL_LONG_OUTPUT,
                                          TOOL_LONG_FORCE_SHARE,
                                          {"format", required_argument, NULL, 'f'},
                                          {"repair", required_argument, NULL, 'r'},
                                          TOOL_LONG_END};
    struct tool_common common = {0};
    const struct parse parse = {&tool_command_check, "f:r:T:qU", longs, refuse_repair, NULL};
    int status;
    if (parse_options(&parse, &common, argc, argv, &status))
        status = run_parsed(&common, argc, argv);
    tool_common_destroy(&common);
    return status;
}
