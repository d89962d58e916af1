/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Persistent dirty bitmaps: actions on one of them, in the order in which they are given. */

#include "core/image/bitmaps.h"
#include "core/io/file.h"
#include "core/tool/parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);

const struct tool_command tool_command_bitmap = {
    .name = "bitmap",
    .usage = "(--add | --remove | --clear | --enable | --disable | --merge SOURCE)...\n"
             "[-f FORMAT | --image-opts] [-g GRANULARITY] [-b FILE [-F FORMAT]] FILE BITMAP",
    .help = "add, remove, clear, switch or merge dirty bitmaps",
    .run = run,
};

enum action {
    ACTION_ADD = TOOL_OPTION_OWN,
    ACTION_REMOVE,
    ACTION_CLEAR,
    ACTION_ENABLE,
    ACTION_DISABLE,
    ACTION_MERGE,
};

struct step {
    int action;
    const char *source; /* of a merge */
};

struct bitmap {
    struct tool_common common;
    struct step *steps;
    size_t count;
    uint64_t granularity; /* bytes; 0: not given */
    const char *source_file;
    const char *source_format;
    const char *name;
    struct q2_image *image;
    struct q2_image *source; /* of merges; perhaps the image itself */
};

static const char *
action_name(int action)
{
    static const char *const names[] = {"add", "remove", "clear", "enable", "disable", "merge"};
    return names[action - ACTION_ADD];
}

static bool
has_action(const struct bitmap *bitmap, int action)
{
    for (size_t i = 0; i < bitmap->count; i++)
        if (bitmap->steps[i].action == action)
            return true;
    return false;
}

/* ---- acting ---- */

static int
act_on(struct bitmap *bitmap, const struct step *step, unsigned index, struct q2_error *err)
{
    unsigned source;
    switch (step->action) {
    case ACTION_REMOVE:
        return q2_bitmap_remove(bitmap->image, index, err);
    case ACTION_CLEAR:
        return q2_bitmap_clear(bitmap->image, index, err);
    case ACTION_ENABLE:
        return q2_bitmap_set_enabled(bitmap->image, index, true, err);
    case ACTION_DISABLE:
        return q2_bitmap_set_enabled(bitmap->image, index, false, err);
    default:
        break;
    }
    int rc = q2_bitmap_find(bitmap->source, step->source, &source, err);
    return rc < 0 ? rc : q2_bitmap_merge(bitmap->image, index, bitmap->source, source, err);
}

static int
act(struct bitmap *bitmap)
{
    struct q2_error err = {0};
    for (size_t i = 0; i < bitmap->count; i++) {
        const struct step *step = &bitmap->steps[i];
        unsigned index;
        int rc;
        if (step->action == ACTION_ADD) {
            rc = q2_bitmap_add(bitmap->image, bitmap->name, bitmap->granularity, true, &err);
        } else {
            rc = q2_bitmap_find(bitmap->image, bitmap->name, &index, &err);
            rc = rc < 0 ? rc : act_on(bitmap, step, index, &err);
        }
        if (rc < 0) {
            char what[32];
            snprintf(what, sizeof what, "%s of the bitmap", action_name(step->action));
            return tool_fail_doing(q2_image_file(bitmap->image)->name, what, bitmap->name, &err);
        }
    }
    return TOOL_OK;
}

/* Merges take bitmaps of another image where -b names one. */
static int
act_with_source(struct bitmap *bitmap)
{
    struct q2_disk *disk;
    const struct tool_open how = {
        .format = bitmap->source_format,
        .flags = Q2_IMAGE_NO_CRYPTO | Q2_IMAGE_NO_BACKING | Q2_IMAGE_NO_DATA_FILE,
    };
    bitmap->source = bitmap->image;
    if (!bitmap->source_file)
        return act(bitmap);
    if (!tool_open(&bitmap->common, bitmap->source_file, &how, &disk))
        return TOOL_FAILED;
    bitmap->source = tool_need_image(disk, bitmap->source_file, "bitmap");
    return tool_close(disk, bitmap->source ? act(bitmap) : TOOL_FAILED);
}

/* ---- the command line ---- */

static bool
set_option(void *data, int option)
{
    struct bitmap *bitmap = data;
    switch (option) {
    case 'b':
        bitmap->source_file = optarg;
        return true;
    case 'F':
        bitmap->source_format = optarg;
        return true;
    case 'g':
        return tool_size_option("-g", optarg, 1, UINT64_C(1) << 31, &bitmap->granularity);
    default:
        break;
    }
    struct step *steps = reallocarray(bitmap->steps, bitmap->count + 1, sizeof *steps);
    if (!steps) {
        tool_say("out of memory");
        return false;
    }
    bitmap->steps = steps;
    steps[bitmap->count++] = (struct step){option, optarg};
    return true;
}

static bool
options_fit(const struct bitmap *bitmap)
{
    if (bitmap->count == 0)
        tool_say_usage("an action is missing, such as --add");
    else if (bitmap->granularity && !has_action(bitmap, ACTION_ADD))
        tool_say_usage("-g goes with --add only");
    else if (bitmap->source_file && !has_action(bitmap, ACTION_MERGE))
        tool_say_usage("-b goes with --merge only");
    else if (bitmap->source_format && !bitmap->source_file)
        tool_say_usage("-F goes with -b only");
    else
        return true;
    return false;
}

static int
run_parsed(struct bitmap *bitmap, int argc, char **argv)
{
    struct q2_disk *disk;
    int status = TOOL_FAILED;
    if (argc - optind != 2)
        return tool_say_usage("a file name and the name of a bitmap are wanted");
    if (!options_fit(bitmap))
        return TOOL_FAILED;
    bitmap->name = argv[optind + 1];
    unsigned flags = Q2_IMAGE_WRITE | Q2_IMAGE_NO_CRYPTO | Q2_IMAGE_NO_BACKING;
    if (!tool_open_one(&bitmap->common, argv[optind], flags, &disk))
        return TOOL_FAILED;
    bitmap->image = tool_need_image(disk, argv[optind], "bitmap");
    if (bitmap->image)
        status = act_with_source(bitmap);
    return tool_close(disk, status);
}

static int
run(int argc, char **argv)
{
    static const struct option longs[] = {TOOL_LONG_COMMON,
                                          {"add", no_argument, NULL, ACTION_ADD},
                                          {"remove", no_argument, NULL, ACTION_REMOVE},
                                          {"clear", no_argument, NULL, ACTION_CLEAR},
                                          {"enable", no_argument, NULL, ACTION_ENABLE},
                                          {"disable", no_argument, NULL, ACTION_DISABLE},
                                          {"merge", required_argument, NULL, ACTION_MERGE},
                                          {"granularity", required_argument, NULL, 'g'},
                                          {"source-file", required_argument, NULL, 'b'},
                                          {"source-format", required_argument, NULL, 'F'},
                                          TOOL_LONG_END};
    struct bitmap bitmap = {0};
    const struct parse parse = {&tool_command_bitmap, "b:f:F:g:", longs, set_option, &bitmap};
    int status;
    if (parse_options(&parse, &bitmap.common, argc, argv, &status))
        status = run_parsed(&bitmap, argc, argv);
    free(bitmap.steps);
    tool_common_destroy(&bitmap.common);
    return status;
}
