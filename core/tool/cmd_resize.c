/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Another size of the disk. Making it smaller loses data, so that it has to be said twice. */

#include "core/base/checked.h"
#include "core/image/resize.h"
#include "core/tool/parse.h"
#include "core/tool/raw.h"

#include <stdio.h>
#include <string.h>

static int run(int argc, char **argv);

const struct tool_command tool_command_resize = {
    .name = "resize",
    .usage = "[-f FORMAT | --image-opts] [-q] [--preallocation=MODE] [--shrink]\n"
             "FILE [+ | -]SIZE",
    .help = "change the size of a disk",
    .run = run,
};

enum { OPTION_PREALLOCATION = TOOL_OPTION_OWN, OPTION_SHRINK };

struct resize {
    struct tool_common common;
    enum q2_preallocation preallocation;
    bool shrink;
    char sign; /* '+', '-', 0 */
    uint64_t size;
};

static bool
parse_size(struct resize *resize, const char *text)
{
    if (*text == '+' || *text == '-')
        resize->sign = *text++;
    return tool_size_option("the size", text, 0, INT64_MAX, &resize->size);
}

/* What the disk shall have, bytes. */
static bool
settle_size(const struct resize *resize, uint64_t now, uint64_t *ret_size)
{
    uint64_t size = resize->size;
    if (resize->sign == '+' && (!q2_add(now, size, &size) || size > INT64_MAX)) {
        tool_say("the disk would be larger than any file can be");
        return false;
    }
    if (resize->sign == '-')
        size = now > size ? now - size : 0;
    if (size == 0) {
        tool_say("the new size must be above zero");
        return false;
    }
    if (size < now && !resize->shrink) {
        tool_say("making the disk smaller deletes all data beyond its new end; --shrink says that "
                 "this is meant");
        return false;
    }
    if (size < now && resize->preallocation) {
        tool_say("only what is added to a disk can be preallocated");
        return false;
    }
    *ret_size = size;
    return true;
}

static int
apply(const struct resize *resize, struct q2_disk *disk)
{
    struct q2_error err = {0};
    struct q2_image *image = q2_disk_image(disk);
    uint64_t size, from;
    if (!settle_size(resize, q2_disk_size(disk), &size))
        return TOOL_FAILED;
    if (!image && resize->preallocation == Q2_PREALLOCATION_METADATA) {
        tool_say("a raw image has no metadata to preallocate");
        return TOOL_FAILED;
    }
    if (image) {
        if (q2_image_resize(image, size, resize->preallocation, &err) < 0)
            return tool_fail(NULL, &err);
    } else if (q2_file_size(q2_disk_file(disk), &from, &err) < 0 ||
               raw_resize(q2_disk_file(disk), from, size, resize->preallocation, &err) < 0) {
        return tool_fail(NULL, &err);
    }
    return TOOL_OK;
}

static bool
set_option(void *data, int option)
{
    struct resize *resize = data;
    if (option == OPTION_SHRINK) {
        resize->shrink = true;
        return true;
    }
    if (q2_preallocation_find(optarg, &resize->preallocation))
        return true;
    tool_say("--preallocation: '%s' is none of off, metadata, falloc and full", optarg);
    return false;
}

static int
run_parsed(struct resize *resize, int argc, char **argv, const char *size)
{
    struct q2_disk *disk;
    unsigned flags = Q2_IMAGE_WRITE;
    if (argc - optind != 1 || !size)
        return tool_say_usage("a file name and a size are wanted");
    if (!parse_size(resize, size))
        return TOOL_FAILED;
    if (!resize->common.image_opts)
        flags |= Q2_IMAGE_NO_CRYPTO;
    if (!tool_open_one(&resize->common, argv[optind], flags, &disk))
        return TOOL_FAILED;
    int status = tool_close(disk, apply(resize, disk));
    if (status == TOOL_OK && !resize->common.quiet)
        puts("Image resized.");
    return status;
}

static int
run(int argc, char **argv)
{
    static const struct option longs[] = {TOOL_LONG_COMMON,
                                          {"preallocation", required_argument, NULL,
                                           OPTION_PREALLOCATION},
                                          {"shrink", no_argument, NULL, OPTION_SHRINK},
                                          TOOL_LONG_END};
    struct resize resize = {0};
    const struct parse parse = {&tool_command_resize, "f:q", longs, set_option, &resize};
    /* "-1G" is a size, not an option. */
    char *size = NULL;
    int status;
    if (argc > 2 && strcmp(argv[argc - 1], "--help") != 0 && strcmp(argv[argc - 1], "-h") != 0) {
        size = argv[--argc];
        argv[argc] = NULL;
    }
    if (parse_options(&parse, &resize.common, argc, argv, &status))
        status = run_parsed(&resize, argc, argv, size);
    tool_common_destroy(&resize.common);
    return status;
}
