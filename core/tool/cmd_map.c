/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What is where: the extents of a disk through its backing chain, neighbours that are alike as one
 * as far as QEMU takes them for alike. */

#include "core/io/file.h"
#include "core/tool/holes.h"
#include "core/tool/parse.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int run(int argc, char **argv);

const struct tool_command tool_command_map = {
    .name = "map",
    .usage = "[-f FORMAT | --image-opts] [--output=human|json] [-U]\n"
             "[--start-offset=OFFSET] [--max-length=LENGTH] FILE",
    .help = "list which parts of a disk are where",
    .run = run,
};

struct map {
    struct tool_common common;
    uint64_t start;   /* bytes */
    uint64_t length;  /* at most, bytes */
    const char *name; /* for messages */
};

static bool
is_like(const struct q2_extent *one, const struct q2_extent *next)
{
    return one->length && one->present == next->present && one->zero == next->zero &&
           one->data == next->data && one->depth == next->depth &&
           one->has_host == next->has_host && one->file == next->file &&
           (!one->has_host || one->host + one->length == next->host);
}

static const char *
boolean(bool value)
{
    return value ? "true" : "false";
}

static void
print_json(const struct q2_extent *extent, bool first)
{
    printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %u, \"present\": %s, "
           "\"zero\": %s, \"data\": %s",
           first ? "[" : ",\n", extent->offset, extent->length, extent->depth,
           boolean(extent->present), boolean(extent->zero), boolean(extent->data));
    if (extent->has_host)
        printf(", \"offset\": %" PRIu64, extent->host);
    putchar('}');
}

/* Only data that can be found as it is has a place. */
static bool
print_human(const struct map *map, const struct q2_extent *extent)
{
    if (!extent->data || extent->zero)
        return true;
    if (!extent->has_host) {
        tool_say("%s: the disk has compressed or encrypted clusters, such as at 0x%" PRIx64
                 ", which have no place in a file; --output=json lists them too",
                 map->name, extent->offset);
        return false;
    }
    printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", extent->offset, extent->length,
           extent->host, extent->file->name);
    return true;
}

static bool
print(const struct map *map, const struct q2_extent *extent, bool first)
{
    if (!map->common.json)
        return print_human(map, extent);
    print_json(extent, first);
    return true;
}

/* ---- all of it ---- */

static int
print_all(const struct map *map, struct q2_disk *disk)
{
    struct q2_error err = {0};
    struct q2_extent now = {.offset = map->start};
    bool first = true;
    uint64_t end = q2_disk_size(disk);
    if (map->start < end && map->length < end - map->start)
        end = map->start + map->length;
    if (!map->common.json)
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    while (now.offset + now.length < end) {
        struct q2_extent next;
        uint64_t offset = now.offset + now.length;
        if (q2_disk_map(disk, offset, end - offset, &next, &err) < 0)
            return tool_fail(NULL, &err);
        tool_look_for_holes(disk, &next);
        if (is_like(&now, &next)) {
            now.length += next.length;
            continue;
        }
        if (now.length && !print(map, &now, first))
            return TOOL_FAILED;
        first = first && !now.length;
        now = next;
    }
    if (!print(map, &now, first))
        return TOOL_FAILED;
    fputs(map->common.json ? "]\n" : "", stdout);
    return TOOL_OK;
}

static bool
set_option(void *data, int option)
{
    struct map *map = data;
    if (option == 's')
        return tool_size_option("--start-offset", optarg, 0, INT64_MAX, &map->start);
    return tool_size_option("--max-length", optarg, 0, INT64_MAX, &map->length);
}

static int
run_parsed(struct map *map, int argc, char **argv)
{
    struct q2_disk *disk;
    if (argc - optind != 1)
        return tool_say_usage("one file name is wanted");
    map->name = argv[optind];
    if (!tool_open_one(&map->common, argv[optind], Q2_IMAGE_NO_CRYPTO, &disk))
        return TOOL_FAILED;
    return tool_close(disk, print_all(map, disk));
}

static int
run(int argc, char **argv)
{
    static const struct option longs[] = {TOOL_LONG_COMMON,
                                          TOOL_LONG_OUTPUT,
                                          TOOL_LONG_FORCE_SHARE,
                                          {"format", required_argument, NULL, 'f'},
                                          {"start-offset", required_argument, NULL, 's'},
                                          {"max-length", required_argument, NULL, 'l'},
                                          TOOL_LONG_END};
    struct map map = {.length = INT64_MAX};
    const struct parse parse = {&tool_command_map, "f:s:l:U", longs, set_option, &map};
    int status;
    if (parse_options(&parse, &map.common, argc, argv, &status))
        status = run_parsed(&map, argc, argv);
    tool_common_destroy(&map.common);
    return status;
}
