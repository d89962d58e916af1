/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What an image is. Only metadata is read: without a pass phrase, and no other file unless the
 * backing chain is asked for. */

#include "core/format/problem.h"
#include "core/tool/describe.h"
#include "core/tool/parse.h"
#include "core/tool/snapshot_list.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

static int run(int argc, char **argv);

const struct tool_command tool_command_info = {
    .name = "info",
    .usage = "[-f FORMAT | --image-opts] [--output=human|json] [--backing-chain] [-U] FILE",
    .help = "say what an image is",
    .run = run,
};

enum { OPTION_CHAIN = TOOL_OPTION_OWN };

struct info {
    struct tool_common common;
    bool chain;
};

/* ---- for people ---- */

static const char *
text_of(struct json_object *object, const char *key)
{
    struct json_object *value;
    return json_object_object_get_ex(object, key, &value) ? json_object_get_string(value) : NULL;
}

static uint64_t
number_of(struct json_object *object, const char *key)
{
    struct json_object *value;
    return json_object_object_get_ex(object, key, &value) ? json_object_get_uint64(value) : 0;
}

static void
print_text(const char *format, const char *text)
{
    char printable[4 * 1024];
    printf(format, q2_printable(printable, sizeof printable, text, strlen(text)));
}

/* Objects are "key: value", with blanks for the dashes of keys, lists "[i]: value"; what has parts
 * of its own begins a line of them. */
static void print_tree(struct json_object *value, unsigned depth);

static void
print_branch(struct json_object *value, unsigned depth)
{
    if (json_object_is_type(value, json_type_object) ||
        json_object_is_type(value, json_type_array)) {
        putchar('\n');
        print_tree(value, depth + 1);
    } else {
        print_text(" %s\n", json_object_get_string(value));
    }
}

static void
print_tree(struct json_object *value, unsigned depth)
{
    if (json_object_is_type(value, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(value); i++) {
            printf("%*s[%zu]:", (int)(4 * depth), "", i);
            print_branch(json_object_array_get_idx(value, i), depth);
        }
        return;
    }
    json_object_object_foreach(value, key, member)
    {
        printf("%*s", (int)(4 * depth), "");
        for (const char *c = key; *c; c++)
            putchar(*c == '-' ? ' ' : *c);
        putchar(':');
        print_branch(member, depth);
    }
}

static void
print_backing(struct json_object *object)
{
    const char *name = text_of(object, "backing-filename");
    const char *path = text_of(object, "full-backing-filename");
    const char *format = text_of(object, "backing-filename-format");
    if (!name)
        return;
    print_text("backing file: %s", name);
    if (path && strcmp(path, name) != 0)
        print_text(" (actual path: %s)", path);
    putchar('\n');
    if (format)
        print_text("backing file format: %s\n", format);
}

static void
print_human(struct q2_disk *disk, struct json_object *object)
{
    struct json_object *specific, *data;
    uint64_t size = number_of(object, "virtual-size");
    print_text("image: %s\n", text_of(object, "filename"));
    printf("file format: %s\n", text_of(object, "format"));
    printf("virtual size: %s (%" PRIu64 " bytes)\n", tool_size_text(size).text, size);
    printf("disk size: %s\n", tool_size_text(number_of(object, "actual-size")).text);
    if (text_of(object, "encrypted"))
        puts("encrypted: yes");
    if (number_of(object, "cluster-size"))
        printf("cluster_size: %" PRIu64 "\n", number_of(object, "cluster-size"));
    if (strcmp(text_of(object, "dirty-flag"), "true") == 0)
        puts("cleanly shut down: no");
    print_backing(object);
    if (q2_disk_image(disk))
        snapshot_list_print(q2_disk_image(disk));
    if (json_object_object_get_ex(object, "format-specific", &specific) &&
        json_object_object_get_ex(specific, "data", &data)) {
        puts("Format specific information:");
        print_tree(data, 1);
    }
}

/* ---- the disks ---- */

static int
describe(const struct info *info, struct q2_disk *disk, bool first, struct json_object **array)
{
    struct q2_error err = {0};
    struct json_object *object;
    if (describe_disk(disk, &object, &err) < 0)
        return tool_fail(NULL, &err);
    if (info->common.json && info->chain) {
        tool_json_append(array, object);
        return TOOL_OK;
    }
    if (info->common.json)
        return tool_json_print(object);
    if (!object) {
        tool_say("out of memory");
        return TOOL_FAILED;
    }
    if (!first)
        putchar('\n');
    print_human(disk, object);
    json_object_put(object);
    return TOOL_OK;
}

static int
describe_all(const struct info *info, struct q2_disk *disk)
{
    struct json_object *array = info->common.json && info->chain ? json_object_new_array() : NULL;
    bool is_array = array;
    int status = TOOL_OK;
    for (struct q2_disk *one = disk; one && status == TOOL_OK; one = q2_disk_backing(one))
        status = describe(info, one, one == disk, &array);
    if (is_array && status == TOOL_OK)
        return tool_json_print(array);
    json_object_put(array);
    return status;
}

static bool
set_option(void *data, int option)
{
    struct info *info = data;
    (void)option; /* there is only one */
    info->chain = true;
    return true;
}

static int
run_parsed(const struct info *info, int argc, char **argv)
{
    struct q2_disk *disk;
    unsigned flags = Q2_IMAGE_NO_CRYPTO | Q2_IMAGE_NO_DATA_FILE;
    if (argc - optind != 1)
        return tool_say_usage("one file name is wanted");
    if (!info->chain)
        flags |= Q2_IMAGE_NO_BACKING;
    if (!tool_open_one(&info->common, argv[optind], flags, &disk))
        return TOOL_FAILED;
    return tool_close(disk, describe_all(info, disk));
}

static int
run(int argc, char **argv)
{
    static const struct option longs[] = {TOOL_LONG_COMMON,
                                          TOOL_LONG_OUTPUT,
                                          TOOL_LONG_FORCE_SHARE,
                                          {"format", required_argument, NULL, 'f'},
                                          {"backing-chain", no_argument, NULL, OPTION_CHAIN},
                                          TOOL_LONG_END};
    struct info info = {0};
    const struct parse parse = {&tool_command_info, "f:U", longs, set_option, &info};
    int status;
    if (parse_options(&parse, &info.common, argc, argv, &status))
        status = run_parsed(&info, argc, argv);
    tool_common_destroy(&info.common);
    return status;
}
