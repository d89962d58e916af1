/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The target of a conversion: made as the options say, or there already. */

#include "core/tool/convert.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static bool
refuse(const char *sentence)
{
    tool_say("%s", sentence);
    return false;
}

static bool
compression_allowed(const struct tool_target *target)
{
    if (target->options.preallocation != Q2_PREALLOCATION_OFF)
        return refuse("Compression and preallocation not supported at the same time");
    if (target->options.crypt != Q2_CRYPT_NONE)
        return refuse("Compression and encryption not supported at the same time");
    if (target->options.data_file)
        return refuse("Compression is not supported with an external data file");
    return true;
}

/* Whether what is asked for fits together, and can be had of the format. */
static bool
check_target(const struct convert *convert, const struct tool_target *target)
{
    bool raw = target->format == Q2_DISK_RAW;
    if (raw && convert->backing)
        return refuse("Backing file not supported for file format 'raw'");
    if (raw && convert->compress)
        return refuse("Compression not supported for this file format");
    if (convert->bitmaps && (raw || target->options.version == 2)) {
        tool_say("Format driver '%s' does not support bitmaps",
                 q2_disk_format_name(target->format));
        return false;
    }
    if (!target->options.backing_file && convert->backing_format)
        return refuse("Backing format cannot be used without backing file");
    if (target->options.backing_file && !target->options.backing_format)
        return refuse("Use of backing file requires explicit backing format");
    return !convert->compress || compression_allowed(target);
}

/* Whether a target that was just made reads as zeros where nothing was written: a device does not,
 * and the ciphertext of preallocated clusters is nothing that decrypts to zeros. */
static bool
is_made_of_zeros(const char *name, const struct tool_target *target)
{
    struct stat status;
    if (target->options.backing_file)
        return false;
    if (target->format == Q2_DISK_RAW)
        return stat(name, &status) == 0 && S_ISREG(status.st_mode);
    return target->options.preallocation == Q2_PREALLOCATION_OFF ||
           target->options.crypt == Q2_CRYPT_NONE;
}

static bool
make_target(struct convert *convert, struct tool_target *target)
{
    struct q2_error err = {0};
    char what[1200];
    if (tool_target_make(target, convert->target, &err) == 0)
        return true;
    snprintf(what, sizeof what, "%.1023s: error while converting %s", convert->target,
             q2_disk_format_name(target->format));
    tool_fail(what, &err);
    return false;
}

static bool
open_made(struct convert *convert, const struct tool_target *target, unsigned flags)
{
    struct q2_error err = {0};
    struct q2_image_options options = {.flags = flags,
                                       .format = target->format,
                                       .secret = target->options.secret};
    char what[1200];
    if (q2_disk_open(convert->target, &options, &convert->disk, &err) == 0)
        return true;
    snprintf(what, sizeof what, "Could not open '%.1023s'", convert->target);
    tool_fail(what, &err);
    return false;
}

static bool
make_and_open(struct convert *convert, unsigned flags)
{
    struct tool_target target = {0};
    if (convert->backing && !tool_pairs_set(&convert->pairs, "backing_file", convert->backing))
        return false;
    if (convert->backing_format &&
        !tool_pairs_set(&convert->pairs, "backing_fmt", convert->backing_format))
        return false;
    if (!tool_target_init(&target, convert->target, convert->target_format, &convert->pairs,
                          convert->common.secrets))
        return false;
    target.options.size = convert->total;
    target.has_size = true;
    convert->backing = target.options.backing_file;
    if (convert->backing && convert->source_count > 1)
        return refuse("Having a backing file for the target makes no sense when concatenating "
                      "multiple input images");
    if (!check_target(convert, &target) || !make_target(convert, &target))
        return false;
    convert->target_is_zero = is_made_of_zeros(convert->target, &target);
    return open_made(convert, &target, flags);
}

static bool
open_kept(struct convert *convert, unsigned flags)
{
    struct tool_open how = {
        .image_opts = convert->target_image_opts,
        .format = convert->target_format,
        .flags = flags,
    };
    struct tool_common common = convert->common;
    common.force_share = false;
    if (!how.image_opts && !how.format)
        how.format = "raw";
    if (!tool_open(&common, convert->target, &how, &convert->disk))
        return false;
    if (q2_disk_size(convert->disk) < convert->total)
        return refuse("output file is smaller than input file");
    struct q2_image *image = q2_disk_image(convert->disk);
    if (convert->compress && !image)
        return refuse("Compression not supported for this file format");
    if (convert->bitmaps && (!image || q2_image_header(image)->version < 3)) {
        tool_say("Format driver '%s' does not support bitmaps",
                 q2_disk_format_name(q2_disk_format(convert->disk)));
        return false;
    }
    return true;
}

bool
convert_open_target(struct convert *convert)
{
    const char *cache = convert->common.cache ? convert->common.cache : "unsafe";
    unsigned flags = Q2_IMAGE_WRITE | tool_cache_flags(cache);
    return convert->keep_target ? open_kept(convert, flags) : make_and_open(convert, flags);
}
