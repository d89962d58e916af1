/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A new image, perhaps on top of a backing file, whose size it then has. */

#include "core/io/path.h"
#include "core/tool/parse.h"
#include "core/tool/target_options.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);

const struct tool_command tool_command_create = {
    .name = "create",
    .usage = "[-f FORMAT] [-q] [-o OPTIONS] [-b BACKING -F FORMAT] [-u] FILE [SIZE]",
    .help = "make an image",
    .run = run,
};

struct create {
    struct tool_common common;
    struct tool_pairs pairs; /* -o */
    enum q2_disk_format format;
    const char *backing;        /* -b */
    const char *backing_format; /* -F */
    bool unsafe;                /* -u: do not look at the backing file */
    const char *name;
    const char *size; /* NULL: not given */
};

/* -b and -F are options as well, which must not be given twice. */
static bool
fold(struct create *create, const char *key, const char *value)
{
    if (!value)
        return true;
    if (create->format == Q2_DISK_RAW) {
        tool_say("%s: a raw image has no backing file", create->name);
        return false;
    }
    return tool_pairs_set(&create->pairs, key, value);
}

static bool
set_size(struct create *create, uint64_t size)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, size);
    return tool_pairs_set(&create->pairs, "size", text);
}

/* Open the backing file: whether that works, and how large it is. */
static bool
look_at_backing(struct create *create, const char *backing, const char *format, uint64_t *ret_size)
{
    struct q2_disk *disk = NULL;
    struct tool_open how = {.format = format, .flags = Q2_IMAGE_NO_CRYPTO};
    char *path = q2_path_beside(create->name, backing);
    if (!path)
        tool_say("out of memory");
    bool opened = path && tool_open(&create->common, path, &how, &disk);
    free(path);
    if (!opened) {
        tool_say("%s: the backing file '%s' is of no use; -u does not look at it", create->name,
                 backing);
        return false;
    }
    const char *found = q2_disk_format_name(q2_disk_format(disk));
    *ret_size = q2_disk_size(disk);
    q2_disk_close(disk, NULL);
    if (!format)
        tool_say("%s: the format of the backing file is missing: -F FORMAT; it looks like %s",
                 create->name, found);
    return format;
}

static bool
settle_backing(struct create *create)
{
    const char *backing = tool_pairs_get(&create->pairs, "backing_file");
    const char *format = tool_pairs_get(&create->pairs, "backing_fmt");
    uint64_t size;
    if (!backing && format)
        tool_say("%s: a backing format without a backing file", create->name);
    if (backing && !*backing)
        tool_say("%s: the name of the backing file is empty", create->name);
    if (backing && strcmp(backing, create->name) == 0)
        tool_say("%s: an image cannot be its own backing file", create->name);
    if ((!backing && format) || (backing && (!*backing || strcmp(backing, create->name) == 0)))
        return false;
    if (!backing || create->unsafe)
        return true;
    if (!look_at_backing(create, backing, format, &size))
        return false;
    return tool_pairs_get(&create->pairs, "size") || set_size(create, size);
}

static bool
settle_size(struct create *create)
{
    uint64_t size;
    if (!create->size)
        return true;
    if (tool_pairs_get(&create->pairs, "size")) {
        tool_say("%s: the size is given twice", create->name);
        return false;
    }
    return tool_size_option("size", create->size, 0, INT64_MAX, &size) && set_size(create, size);
}

static int
make(struct create *create)
{
    struct tool_target target;
    struct q2_error err = {0};
    if (!tool_create_keys_check(create->name, create->format, &create->pairs))
        return TOOL_FAILED;
    if (!fold(create, "backing_file", create->backing) ||
        !fold(create, "backing_fmt", create->backing_format) || !settle_size(create) ||
        !settle_backing(create))
        return TOOL_FAILED;
    if (!tool_pairs_get(&create->pairs, "size")) {
        tool_say("%s: a size is missing", create->name);
        return TOOL_FAILED;
    }
    if (!create->common.quiet)
        tool_create_tell(create->name, create->format, &create->pairs);
    if (!tool_target_init(&target, create->name, q2_disk_format_name(create->format),
                          &create->pairs, create->common.secrets))
        return TOOL_FAILED;
    if (tool_target_make(&target, create->name, &err) < 0)
        return tool_fail(create->name, &err);
    return TOOL_OK;
}

static bool
set_option(void *data, int option)
{
    struct create *create = data;
    if (option == 'o')
        return tool_pairs_add(&create->pairs, optarg, NULL);
    if (option == 'b')
        create->backing = optarg;
    else if (option == 'F')
        create->backing_format = optarg;
    else
        create->unsafe = true; /* -u */
    return true;
}

static int
run_parsed(struct create *create, int argc, char **argv)
{
    create->format = Q2_DISK_RAW;
    if (create->common.format)
        q2_disk_format_find(create->common.format, &create->format);
    if (tool_pairs_help(&create->pairs)) {
        tool_target_help(create->format);
        return TOOL_OK;
    }
    if (create->common.image_opts)
        return tool_say_usage("--image-opts does not make images");
    if (optind >= argc)
        return tool_say_usage("no file name is given");
    if (!*argv[optind])
        return tool_say_usage("the file name is empty");
    if (argc - optind > 2)
        return tool_say_usage("one argument too many: '%s'", argv[optind + 2]);
    create->name = argv[optind];
    create->size = argv[optind + 1];
    return make(create);
}

static int
run(int argc, char **argv)
{
    static const struct option longs[] = {TOOL_LONG_COMMON, TOOL_LONG_END};
    struct create create = {0};
    const struct parse parse = {&tool_command_create, "f:qb:F:uo:", longs, set_option, &create};
    int status;
    if (parse_options(&parse, &create.common, argc, argv, &status))
        status = run_parsed(&create, argc, argv);
    tool_pairs_destroy(&create.pairs);
    tool_common_destroy(&create.common);
    return status;
}
