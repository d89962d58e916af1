/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* qcow2-img convert: copy disks into a new image. The work is the copying engine's (copy.h). */

#include "core/base/flow.h"
#include "core/tool/convert.h"
#include "core/tool/copy.h"
#include "core/tool/load.h"
#include "core/tool/parse.h"

#include <stdlib.h>

static int run(int argc, char **argv);

const struct tool_command tool_command_convert = {
    .name = "convert",
    .usage = "[-f FORMAT | --image-opts] [-O FORMAT] [-o OPTIONS] [-c] [-n] [-l SNAPSHOT]\n"
             "[-B BACKING_FILE [-F FORMAT]] [-S SIZE] [-m THREADS] [-W] [-C] [-r RATE]\n"
             "[-t CACHE] [-T CACHE] [-U] [-p] [-q] [--target-is-zero] [--target-image-opts]\n"
             "[--salvage] [--bitmaps [--skip-broken-bitmaps]] SOURCE... TARGET",
    .help = "copy disks into a new image, changing format, options or compression",
    .run = run,
};

enum {
    OPTION_TARGET_IMAGE_OPTS = TOOL_OPTION_OWN,
    OPTION_TARGET_IS_ZERO,
    OPTION_SALVAGE,
    OPTION_BITMAPS,
    OPTION_SKIP_BROKEN,
};

enum { THREADS_MAX = 16 };

static const char letters[] = "hf:O:B:CcF:o:l:S:pt:T:qnm:WUr:";
static const struct option longs[] = {
    TOOL_LONG_COMMON,
    TOOL_LONG_FORCE_SHARE,
    {"source-image-opts", no_argument, NULL, TOOL_OPTION_IMAGE_OPTS},
    {"target-image-opts", no_argument, NULL, OPTION_TARGET_IMAGE_OPTS},
    {"target-is-zero", no_argument, NULL, OPTION_TARGET_IS_ZERO},
    {"salvage", no_argument, NULL, OPTION_SALVAGE},
    {"bitmaps", no_argument, NULL, OPTION_BITMAPS},
    {"skip-broken-bitmaps", no_argument, NULL, OPTION_SKIP_BROKEN},
    TOOL_LONG_END,
};

static bool
read_sparse(struct convert *convert)
{
    if (!tool_size_option("-S", optarg, 0, UINT64_MAX, &convert->sparse))
        return false;
    convert->has_sparse = true;
    if (convert->sparse % 512 == 0 && convert->sparse <= COPY_PIECE_MAX)
        return true;
    tool_say("-S: '%s' is no multiple of 512 up to %d; 0 stands for a target without holes", optarg,
             COPY_PIECE_MAX);
    return false;
}

static bool
set_value(struct convert *convert, int option)
{
    switch (option) {
    case 'O':
        convert->target_format = optarg;
        return true;
    case 'B':
        convert->backing = optarg;
        return true;
    case 'F':
        convert->backing_format = optarg;
        return true;
    case 'o':
        return tool_pairs_add(&convert->pairs, optarg, NULL);
    case 'l':
        convert->snapshot = optarg;
        return true;
    case 'S':
        return read_sparse(convert);
    case 'm':
        return tool_number_option("-m", optarg, 1, THREADS_MAX, &convert->threads);
    case 'r':
        return tool_size_option("-r", optarg, 0, UINT64_MAX, &convert->rate);
    default:
        return false;
    }
}

static bool
set_option(void *data, int option)
{
    struct convert *convert = data;
    switch (option) {
    case 'C':
        return convert->offload = true;
    case 'c':
        return convert->compress = true;
    case 'n':
        return convert->keep_target = true;
    case 'W':
        return convert->out_of_order = true;
    case OPTION_TARGET_IMAGE_OPTS:
        return convert->target_image_opts = true;
    case OPTION_TARGET_IS_ZERO:
        return convert->target_is_zero = true;
    case OPTION_SALVAGE:
        return convert->salvage = true;
    case OPTION_BITMAPS:
        return convert->bitmaps = true;
    case OPTION_SKIP_BROKEN:
        return convert->skip_broken_bitmaps = true;
    default:
        return set_value(convert, option);
    }
}

/* What contradicts itself on the command line; NULL: nothing. */
static const char *
contradiction(const struct convert *convert)
{
    if (convert->skip_broken_bitmaps && !convert->bitmaps)
        return "Use of --skip-broken-bitmaps requires --bitmaps";
    if (convert->offload && convert->compress)
        return "Cannot enable copy offloading when -c is used";
    if (convert->offload && convert->has_sparse)
        return "Cannot enable copy offloading when -S is used";
    if (convert->target_image_opts && convert->target_format)
        return "--target-image-opts and -O are mutually exclusive";
    if (convert->target_image_opts && !convert->keep_target)
        return "--target-image-opts requires use of -n flag";
    if (convert->target_is_zero && !convert->keep_target)
        return "--target-is-zero requires use of -n flag";
    if (convert->target_is_zero && convert->backing)
        return "--target-is-zero and -B say different things about the target";
    if (convert->keep_target && convert->pairs.count)
        return "-o has no effect when skipping image creation";
    if (convert->source_count > 1 && convert->snapshot)
        return "No support for concatenating multiple snapshot";
    if (convert->source_count > 1 && convert->backing)
        return "Having a backing file for the target makes no sense when concatenating multiple "
               "input images";
    return NULL;
}

static bool
open_sources(struct convert *convert)
{
    convert->sources = calloc(convert->source_count, sizeof(struct q2_disk *));
    if (!convert->sources) {
        tool_say("out of memory");
        return false;
    }
    for (unsigned i = 0; i < convert->source_count; i++) {
        unsigned flags = tool_cache_flags(convert->common.source_cache);
        if (!tool_open_one(&convert->common, convert->source_names[i], flags, &convert->sources[i]))
            return false;
        if (convert->snapshot && !load_snapshot(convert->sources[i], convert->snapshot))
            return false;
        uint64_t size = (q2_disk_size(convert->sources[i]) + 511) / 512 * 512;
        if (size > (uint64_t)INT64_MAX - convert->total) {
            tool_say("the images are too large to be put together");
            return false;
        }
        convert->total += size;
    }
    return true;
}

static unsigned
copy_flags(const struct convert *convert)
{
    unsigned flags = 0;
    /* Only for a qcow2 image does the order say where data goes. */
    if (!convert->out_of_order && q2_disk_image(convert->disk))
        flags |= COPY_ORDERED;
    if (convert->compress)
        flags |= COPY_COMPRESS;
    if (convert->salvage)
        flags |= COPY_SALVAGE;
    if (convert->common.quiet)
        flags |= COPY_QUIET;
    if (convert->target_is_zero)
        flags |= COPY_TARGET_IS_ZERO;
    if (convert->backing)
        flags |= COPY_OWN;
    return flags;
}

static bool
copy_data(struct convert *convert)
{
    struct q2_error err = {0};
    struct tool_progress progress;
    struct q2_disk *backing = q2_disk_backing(convert->disk);
    struct copy copy = {
        .sources = calloc(convert->source_count, sizeof(struct copy_source)),
        .source_count = convert->source_count,
        .target = convert->disk,
        .threads = convert->threads ? (unsigned)convert->threads : q2_flow_threads(),
        .flags = copy_flags(convert),
        .sparse = convert->has_sparse ? convert->sparse : COPY_SPARSE_DEFAULT,
        .backing_size = backing ? q2_disk_size(backing) : UINT64_MAX,
        .rate = convert->rate,
        .progress = &progress,
    };
    if (!copy.sources) {
        tool_say("out of memory");
        return false;
    }
    for (unsigned i = 0; i < convert->source_count; i++)
        copy.sources[i] = (struct copy_source){.disk = convert->sources[i],
                                               .length = q2_disk_size(convert->sources[i])};
    tool_progress_init(&progress, convert->common.progress && !convert->common.quiet);
    int rc = copy_run(&copy, &err);
    tool_progress_end(&progress, rc == 0);
    free(copy.sources);
    if (rc < 0)
        tool_fail(NULL, &err);
    return rc == 0;
}

static int
convert_all(struct convert *convert)
{
    bool good = open_sources(convert) && convert_bitmaps_allowed(convert) &&
                convert_open_target(convert) && copy_data(convert) &&
                (!convert->bitmaps || convert_copy_bitmaps(convert));
    int status = tool_close(convert->disk, good ? TOOL_OK : TOOL_FAILED);
    for (unsigned i = 0; convert->sources && i < convert->source_count; i++)
        status = tool_close(convert->sources[i], status);
    free(convert->sources);
    return status;
}

static int
run_parsed(struct convert *convert, int count, char **names)
{
    enum q2_disk_format format;
    if (tool_pairs_help(&convert->pairs)) {
        const char *name = convert->target_format ? convert->target_format : "raw";
        if (!tool_format_find(name, &format))
            return TOOL_FAILED;
        tool_target_help(format);
        return TOOL_OK;
    }
    if (count < 2)
        return tool_say_usage("Must specify image file name");
    convert->source_names = names;
    convert->source_count = (unsigned)count - 1;
    convert->target = names[count - 1];
    const char *wrong = contradiction(convert);
    if (wrong) {
        tool_say("%s", wrong);
        return TOOL_FAILED;
    }
    return convert_all(convert);
}

static int
run(int argc, char **argv)
{
    struct convert convert = {0};
    const struct parse parse = {&tool_command_convert, letters, longs, set_option, &convert};
    int status;
    if (parse_options(&parse, &convert.common, argc, argv, &status))
        status = run_parsed(&convert, argc - optind, argv + optind);
    tool_pairs_destroy(&convert.pairs);
    tool_common_destroy(&convert.common);
    return status;
}
