/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* length, info, alloc, map and sleep: what only looks. */

#include "core/base/checked.h"
#include "core/image/vmstate.h"
#include "core/tool/io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

bool
io_size(struct io *io, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts(io_size_text((double)q2_disk_size(io->disk)).text);
    return true;
}

static const char *
true_or_false(uint64_t value)
{
    return value ? "true" : "false";
}

static void
print_features(const struct q2_image *image)
{
    const struct q2_header *header = q2_image_header(image);
    puts("Format specific information:");
    printf("    compat: %s\n", header->version < 3 ? "0.10" : "1.1");
    printf("    compression type: %s\n",
           header->compression_type == Q2_COMPRESSION_ZSTD ? "zstd" : "zlib");
    if (header->version >= 3)
        printf("    lazy refcounts: %s\n",
               true_or_false(header->compatible_features & Q2_COMPATIBLE_LAZY_REFCOUNTS));
    printf("    refcount bits: %u\n", 1u << header->refcount_order);
    if (header->version < 3)
        return;
    printf("    corrupt: %s\n",
           true_or_false(header->incompatible_features & Q2_INCOMPATIBLE_CORRUPT));
    printf("    extended l2: %s\n",
           true_or_false(header->incompatible_features & Q2_INCOMPATIBLE_EXTENDED_L2));
}

bool
io_info(struct io *io, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    const struct q2_image *image = q2_disk_image(io->disk);
    uint64_t cluster = image ? q2_image_geometry(image)->cluster_size : 0;
    printf("format name: %s\n", q2_disk_format_name(q2_disk_format(io->disk)));
    printf("cluster size: %s\n", io_size_text((double)cluster).text);
    printf("vm state offset: %s\n", io_size_text(image ? (double)q2_vmstate_start(image) : 0).text);
    if (image)
        print_features(image);
    return true;
}

/* What this image has itself of the stretch at `offset`; a raw one has everything. */
static int
own_extent(struct io *io, uint64_t offset, uint64_t end, struct q2_extent *ret_extent,
           struct q2_error *err)
{
    struct q2_image *image = q2_disk_image(io->disk);
    if (image)
        return q2_image_map_own(image, offset, end - offset, ret_extent, err);
    *ret_extent = (struct q2_extent){.offset = offset, .length = end - offset, .present = true};
    return 0;
}

bool
io_alloc(struct io *io, int argc, char **argv)
{
    struct q2_error err = {0};
    uint64_t offset, count = 512, sum = 0, size = q2_disk_size(io->disk);
    if (!io_number(argv[1], &offset) || (argc > 2 && !io_number(argv[2], &count)))
        return false;
    count = offset < size ? q2_min(count, size - offset) : 0;
    for (uint64_t at = offset; at < offset + count;) {
        struct q2_extent extent;
        if (own_extent(io, at, offset + count, &extent, &err) < 0)
            return io_failed("alloc", &err);
        sum += extent.present ? extent.length : 0;
        at += extent.length;
    }
    printf("%" PRIu64 "/%" PRIu64 " bytes allocated at offset %s\n", sum, count,
           io_size_text((double)offset).text);
    return true;
}

static void
print_run(uint64_t begin, uint64_t end, bool present)
{
    printf("%s (0x%" PRIx64 ") bytes %s allocated at offset %s (0x%" PRIx64 ")\n",
           io_size_text((double)(end - begin)).text, end - begin, present ? "   " : "not",
           io_size_text((double)begin).text, begin);
}

bool
io_map(struct io *io, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct q2_error err = {0};
    uint64_t begin = 0, at = 0, size = q2_disk_size(io->disk);
    bool present = false;
    while (at < size) {
        struct q2_extent extent;
        if (own_extent(io, at, size, &extent, &err) < 0)
            return io_failed("map", &err);
        if (at > begin && extent.present != present) {
            print_run(begin, at, present);
            begin = at;
        }
        present = extent.present;
        at += extent.length;
    }
    if (at > begin)
        print_run(begin, at, present);
    return true;
}

bool
io_sleep(struct io *io, int argc, char **argv)
{
    (void)io;
    (void)argc;
    char *end;
    errno = 0;
    unsigned long milliseconds = strtoul(argv[1], &end, 0);
    if (errno || *end || end == argv[1]) {
        printf("%s is not a valid number\n", argv[1]);
        return false;
    }
    struct timespec pause = {.tv_sec = (time_t)(milliseconds / 1000),
                             .tv_nsec = (long)(milliseconds % 1000) * 1000000};
    while (nanosleep(&pause, &pause) != 0 && errno == EINTR)
        ;
    return true;
}
