/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* How large the file of a new image would be: for a disk of some size, or for a copy of one. */

#include "core/image/bitmaps.h"
#include "core/tool/holes.h"
#include "core/tool/load.h"
#include "core/tool/parse.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

static int run(int argc, char **argv);

const struct tool_command tool_command_measure = {
    .name = "measure",
    .usage = "[--output=human|json] [-O FORMAT] [-o OPTIONS]\n"
             "(--size SIZE | [-f FORMAT | --image-opts] [-l SNAPSHOT] [-U] FILE)",
    .help = "say how much space an image would need",
    .run = run,
};

enum { OPTION_SIZE = TOOL_OPTION_OWN };

struct measure {
    struct tool_common common;
    struct tool_pairs pairs;   /* -o */
    const char *target_format; /* -O */
    const char *snapshot;      /* -l */
    bool has_size;
    uint64_t size;
};

struct result {
    uint64_t required, fully_allocated;
    bool has_bitmaps;
    uint64_t bitmaps;
};

static uint64_t
round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

/* ---- looking at a disk ---- */

/* Bytes of clusters, of the new image, that hold data. */
static int
count_data(struct q2_disk *disk, uint64_t cluster_size, uint64_t *ret_bytes, struct q2_error *err)
{
    uint64_t size = q2_disk_size(disk), bytes = 0, length;
    for (uint64_t offset = 0; offset < size; offset += length) {
        struct q2_extent extent;
        int rc = q2_disk_map(disk, offset, size - offset, &extent, err);
        if (rc < 0)
            return rc;
        tool_look_for_holes(disk, &extent);
        length = extent.length;
        if (extent.zero || !extent.data)
            continue;
        /* What begins inside a cluster takes all of it, and so does what ends there. */
        length = round_up(offset + length, cluster_size) - offset;
        bytes += offset % cluster_size + length;
    }
    *ret_bytes = bytes;
    return 0;
}

/* Bytes that copies of the image's bitmaps take: tables, bits, and the directory. */
static int
measure_bitmaps(struct q2_image *image, uint64_t cluster_size, uint64_t *ret_bytes,
                struct q2_error *err)
{
    enum { ENTRY_FIXED = 24, ENTRY_ALIGN = 8, TABLE_ENTRY = 8 };
    uint64_t bytes = 0, directory = 0, size = q2_image_size(image);
    for (unsigned i = 0; i < q2_bitmap_count(image); i++) {
        struct q2_bitmap_info info;
        int rc = q2_bitmap_info(image, i, &info, err);
        if (rc < 0)
            return rc;
        if (info.in_use)
            continue;
        uint64_t bits = (size + info.granularity - 1) / info.granularity;
        uint64_t clusters = round_up((bits + 7) / 8, cluster_size) / cluster_size;
        bytes += clusters * cluster_size + round_up(clusters * TABLE_ENTRY, cluster_size);
        directory += round_up(ENTRY_FIXED + strlen(info.name), ENTRY_ALIGN);
    }
    *ret_bytes = bytes + round_up(directory, cluster_size);
    return 0;
}

/* ---- measuring ---- */

/* How much of a copy its backing file would have is not known. */
static bool
has_all_allocated(const struct q2_create_options *options, const struct q2_disk *disk)
{
    return (disk && options->backing_file) || options->preallocation == Q2_PREALLOCATION_FALLOC ||
           options->preallocation == Q2_PREALLOCATION_FULL;
}

/* `disk` is NULL with --size. */
static int
measure_target(const struct tool_target *target, struct q2_disk *disk, struct result *result,
               struct q2_error *err)
{
    const struct q2_create_options *options = &target->options;
    const uint64_t cluster_size = options->cluster_size ? options->cluster_size : 65536;
    uint64_t allocated = 0;
    int rc = 0;
    if (target->format == Q2_DISK_RAW) {
        result->required = result->fully_allocated = options->size;
        return 0;
    }
    if (has_all_allocated(options, disk))
        allocated = round_up(options->size, cluster_size);
    else if (disk)
        rc = count_data(disk, cluster_size, &allocated, err);
    if (rc == 0 && disk && q2_disk_image(disk) && options->version >= 3) {
        result->has_bitmaps = true;
        rc = measure_bitmaps(q2_disk_image(disk), cluster_size, &result->bitmaps, err);
    }
    return rc < 0 ? rc
                  : q2_create_measure(options, allocated, &result->required,
                                      &result->fully_allocated, err);
}

static int
print(const struct measure *measure, const struct result *result)
{
    if (measure->common.json) {
        struct json_object *object = json_object_new_object();
        if (result->has_bitmaps)
            tool_json_number(&object, "bitmaps", result->bitmaps);
        tool_json_number(&object, "required", result->required);
        tool_json_number(&object, "fully-allocated", result->fully_allocated);
        return tool_json_print(object);
    }
    printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n", result->required,
           result->fully_allocated);
    if (result->has_bitmaps)
        printf("bitmaps size: %" PRIu64 "\n", result->bitmaps);
    return TOOL_OK;
}

static int
measure_disk(struct measure *measure, struct q2_disk *disk)
{
    struct q2_error err = {0};
    struct tool_target target;
    struct result result = {0};
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, disk ? q2_disk_size(disk) : measure->size);
    if (!tool_pairs_set(&measure->pairs, "size", text) ||
        !tool_target_init(&target, "the new image", measure->target_format, &measure->pairs,
                          measure->common.secrets))
        return TOOL_FAILED;
    if (measure_target(&target, disk, &result, &err) < 0)
        return tool_fail(NULL, &err);
    return print(measure, &result);
}

/* ---- the command line ---- */

static bool
set_option(void *data, int option)
{
    struct measure *measure = data;
    enum q2_disk_format format;
    switch (option) {
    case 'o':
        return tool_pairs_add(&measure->pairs, optarg, NULL);
    case 'O':
        measure->target_format = optarg;
        return tool_format_find(optarg, &format);
    case 'l':
        measure->snapshot = optarg;
        return true;
    default:
        measure->has_size = true;
        return tool_size_option("--size", optarg, 0, INT64_MAX, &measure->size);
    }
}

static int
run_parsed(struct measure *measure, int argc, char **argv)
{
    struct q2_disk *disk;
    int names = argc - optind;
    if (tool_pairs_help(&measure->pairs)) {
        enum q2_disk_format format = Q2_DISK_RAW;
        if (measure->target_format)
            q2_disk_format_find(measure->target_format, &format);
        tool_target_help(format);
        return TOOL_OK;
    }
    if (measure->has_size ? names != 0 : names != 1)
        return tool_say_usage("either --size or one file name is wanted");
    if (measure->has_size && (measure->snapshot || measure->common.format))
        return tool_say_usage("-f and -l are about a file, --size is without one");
    if (measure->has_size)
        return measure_disk(measure, NULL);
    if (!tool_open_one(&measure->common, argv[optind], Q2_IMAGE_NO_CRYPTO, &disk))
        return TOOL_FAILED;
    int status = TOOL_FAILED;
    if (!measure->snapshot || load_snapshot(disk, measure->snapshot))
        status = measure_disk(measure, disk);
    return tool_close(disk, status);
}

static int
run(int argc, char **argv)
{
    static const struct option longs[] = {TOOL_LONG_COMMON,
                                          TOOL_LONG_OUTPUT,
                                          TOOL_LONG_FORCE_SHARE,
                                          {"size", required_argument, NULL, OPTION_SIZE},
                                          TOOL_LONG_END};
    struct measure measure = {0};
    const struct parse parse = {&tool_command_measure, "f:l:o:O:U", longs, set_option, &measure};
    int status;
    if (parse_options(&parse, &measure.common, argc, argv, &status))
        status = run_parsed(&measure, argc, argv);
    tool_pairs_destroy(&measure.pairs);
    tool_common_destroy(&measure.common);
    return status;
}
