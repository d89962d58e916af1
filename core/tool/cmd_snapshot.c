/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Internal snapshots: list, take, go back to, delete. */

#include "core/image/snapshots.h"
#include "core/tool/parse.h"
#include "core/tool/snapshot_list.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static int run(int argc, char **argv);

const struct tool_command tool_command_snapshot = {
    .name = "snapshot",
    .usage = "[-f FORMAT | --image-opts] [-q] [-U]\n"
             "[-l | -c NAME | -a SNAPSHOT | -d SNAPSHOT] FILE",
    .help = "list, take, apply or delete internal snapshots",
    .run = run,
};

struct snapshot {
    struct tool_common common;
    int action; /* 'l', 'c', 'a', 'd'; 0: none was named */
    const char *argument;
};

static int
take(struct q2_image *image, const char *name, struct q2_error *err)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    const struct q2_snapshot_options options = {
        .name = name,
        .date_seconds = (uint32_t)now.tv_sec,
        .date_nanoseconds = (uint32_t)now.tv_nsec,
    };
    return q2_snapshot_create(image, &options, err);
}

static int
act(const struct snapshot *snapshot, struct q2_image *image, struct q2_error *err)
{
    unsigned index;
    if (snapshot->action == 'c')
        return take(image, snapshot->argument, err);
    int rc = q2_snapshot_find(image, snapshot->argument, &index, err);
    if (rc < 0)
        return rc;
    return snapshot->action == 'a' ? q2_snapshot_goto(image, index, err)
                                   : q2_snapshot_delete(image, index, err);
}

static int
change(const struct snapshot *snapshot, const char *name)
{
    struct q2_error err = {0};
    struct q2_disk *disk;
    int status = TOOL_FAILED;
    if (!tool_open_one(&snapshot->common, name, Q2_IMAGE_WRITE | Q2_IMAGE_NO_CRYPTO, &disk))
        return TOOL_FAILED;
    struct q2_image *image = tool_need_image(disk, name, "snapshot");
    if (image)
        status = act(snapshot, image, &err) < 0 ? tool_fail(NULL, &err) : TOOL_OK;
    return tool_close(disk, status);
}

static int
list(const struct snapshot *snapshot, const char *name)
{
    struct q2_disk *disk;
    unsigned flags = Q2_IMAGE_NO_CRYPTO | Q2_IMAGE_NO_BACKING | Q2_IMAGE_NO_DATA_FILE;
    if (!tool_open_one(&snapshot->common, name, flags, &disk))
        return TOOL_FAILED;
    if (q2_disk_image(disk))
        snapshot_list_print(q2_disk_image(disk));
    return tool_close(disk, TOOL_OK);
}

static bool
set_option(void *data, int option)
{
    struct snapshot *snapshot = data;
    if (snapshot->action) {
        tool_say_usage("only one of -l, -c, -a and -d");
        return false;
    }
    snapshot->action = option;
    snapshot->argument = optarg;
    return true;
}

static int
run_parsed(const struct snapshot *snapshot, int argc, char **argv)
{
    if (argc - optind != 1)
        return tool_say_usage("one file name is wanted");
    if (snapshot->action == 0 || snapshot->action == 'l')
        return list(snapshot, argv[optind]);
    if (snapshot->common.force_share) {
        tool_say("-U is for looking only: an image that others use cannot be written to");
        return TOOL_FAILED;
    }
    return change(snapshot, argv[optind]);
}

static int
run(int argc, char **argv)
{
    static const struct option longs[] = {TOOL_LONG_COMMON, TOOL_LONG_FORCE_SHARE, TOOL_LONG_END};
    struct snapshot snapshot = {0};
    const struct parse parse = {&tool_command_snapshot, "f:la:c:d:qU", longs, set_option,
                                &snapshot};
    int status;
    if (parse_options(&parse, &snapshot.common, argc, argv, &status))
        status = run_parsed(&snapshot, argc, argv);
    tool_common_destroy(&snapshot.common);
    return status;
}
