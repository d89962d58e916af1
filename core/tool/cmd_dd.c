/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* qcow2-img dd: copy a part of a disk into a new image, with operands as those of dd(1). As with
 * `qemu-img dd`, count= says where to stop in the input, skipped blocks included. */

#include "core/base/checked.h"
#include "core/base/flow.h"
#include "core/tool/copy.h"
#include "core/tool/parse.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

struct dd {
    struct tool_common common;
    const char *format; /* -O */
    const char *input;
    const char *output;
    uint64_t block; /* bytes */
    uint64_t count; /* blocks */
    uint64_t skip;  /* blocks */
    bool has_count;
};

static int run(int argc, char **argv);

const struct tool_command tool_command_dd = {
    .name = "dd",
    .usage = "[-f FORMAT | --image-opts] [-O FORMAT] [-U] [bs=SIZE] [count=BLOCKS]\n"
             "[skip=BLOCKS] if=INPUT of=OUTPUT",
    .help = "copy a part of a disk into a new image",
    .run = run,
};

static bool
set_option(void *data, int option)
{
    struct dd *dd = data;
    (void)option; /* -O is the only one */
    dd->format = optarg;
    return true;
}

static bool
set_operand(struct dd *dd, const char *operand)
{
    const char *value = strchr(operand, '=');
    size_t length = value ? (size_t)(value - operand) : 0;
    value = value ? value + 1 : "";
    if (length == 2 && strncmp(operand, "if", 2) == 0) {
        dd->input = value;
    } else if (length == 2 && strncmp(operand, "of", 2) == 0) {
        dd->output = value;
    } else if (length == 2 && strncmp(operand, "bs", 2) == 0) {
        return tool_size_option("bs", value, 1, INT_MAX, &dd->block);
    } else if (length == 4 && strncmp(operand, "skip", 4) == 0) {
        return tool_size_option("skip", value, 0, INT64_MAX, &dd->skip);
    } else if (length == 5 && strncmp(operand, "count", 5) == 0) {
        dd->has_count = true;
        return tool_size_option("count", value, 0, INT64_MAX, &dd->count);
    } else {
        tool_say("unrecognized operand '%s'", operand);
        return false;
    }
    return true;
}

/* The part of the input to copy. */
static void
find_part(const struct dd *dd, struct copy_source *part)
{
    uint64_t size = q2_disk_size(part->disk), limit, from;
    if (dd->has_count && q2_mul(dd->count, dd->block, &limit))
        size = q2_min(size, limit);
    if (!q2_mul(dd->skip, dd->block, &from) || from > size) {
        tool_say("%s: cannot skip to specified offset", dd->input);
        from = size;
    }
    part->from = from;
    part->length = size - from;
}

static bool
make_output(const struct dd *dd, uint64_t length, struct q2_disk **ret_disk)
{
    struct q2_error err = {0};
    struct tool_pairs none = {0};
    struct tool_target target = {0};
    if (!tool_target_init(&target, dd->output, dd->format, &none, dd->common.secrets))
        return false;
    target.options.size = (length + 511) / 512 * 512;
    target.has_size = true;
    struct q2_image_options options = {.flags = Q2_IMAGE_WRITE, .format = target.format};
    int rc = tool_target_make(&target, dd->output, &err);
    if (rc == 0)
        rc = q2_disk_open(dd->output, &options, ret_disk, &err);
    if (rc < 0)
        tool_fail(dd->output, &err);
    return rc == 0;
}

static int
copy_part(const struct dd *dd, struct copy_source *part)
{
    struct q2_error err = {0};
    struct tool_progress progress;
    struct q2_disk *output = NULL;
    find_part(dd, part);
    if (!make_output(dd, part->length, &output))
        return TOOL_FAILED;
    tool_progress_init(&progress, false);
    struct copy copy = {
        .sources = part,
        .source_count = 1,
        .target = output,
        .threads = q2_flow_threads(),
        .flags = COPY_TARGET_IS_ZERO | COPY_ORDERED,
        .sparse = COPY_SPARSE_DEFAULT,
        .backing_size = UINT64_MAX,
        .progress = &progress,
    };
    int status = copy_run(&copy, &err) < 0 ? tool_fail(NULL, &err) : TOOL_OK;
    return tool_close(output, status);
}

static int
run_parsed(struct dd *dd, char **operands)
{
    struct copy_source part = {0};
    for (; *operands; operands++)
        if (!set_operand(dd, *operands))
            return TOOL_FAILED;
    if (!dd->input || !dd->output) {
        tool_say("Must specify both input and output files");
        return TOOL_FAILED;
    }
    if (!tool_open_one(&dd->common, dd->input, 0, &part.disk))
        return TOOL_FAILED;
    return tool_close(part.disk, copy_part(dd, &part));
}

static int
run(int argc, char **argv)
{
    static const struct option longs[] = {TOOL_LONG_COMMON, TOOL_LONG_FORCE_SHARE, TOOL_LONG_END};
    struct dd dd = {.block = 512};
    const struct parse parse = {&tool_command_dd, "f:O:U", longs, set_option, &dd};
    int status;
    if (parse_options(&parse, &dd.common, argc, argv, &status))
        status = run_parsed(&dd, argv + optind);
    tool_common_destroy(&dd.common);
    return status;
}
