/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* read, readv and aio_read: they differ in the options that they take and in whether they go into
 * one buffer or several. */

#include "core/base/cleanup.h"
#include "core/image/vmstate.h"
#include "core/tool/io.h"
#include "core/tool/io_vector.h"
#include "core/tool/rate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct request {
    struct io_report report;
    bool vm_state;
    bool dump;
    bool has_pattern;
    bool has_part; /* -s or -l */
    bool has_part_length;
    uint8_t pattern;
    uint64_t part_offset; /* of what the pattern is about, from the request's begin */
    uint64_t part_length;
};

static bool
set_option(struct request *request, int option)
{
    switch (option) {
    case 'b':
        return request->vm_state = true;
    case 'C':
        return request->report.terse = true;
    case 'q':
        return request->report.quiet = true;
    case 'v':
        return request->dump = true;
    case 'P':
        request->has_pattern = true;
        return io_pattern(optarg, &request->pattern);
    case 's':
        request->has_part = true;
        return io_number(optarg, &request->part_offset);
    case 'l':
        request->has_part = request->has_part_length = true;
        return io_number(optarg, &request->part_length);
    default: /* a, i and p mean nothing here */
        return option != '?';
    }
}

static bool
read_options(struct request *request, int argc, char **argv, const char *letters)
{
    int option;
    *request = (struct request){.report = {.verb = "read"}};
    io_options_begin();
    while ((option = io_option_next(argc, argv, letters)) != -1)
        if (!set_option(request, option))
            return false;
    return true;
}

/* What of the data the pattern is about. */
static bool
set_part(struct request *request, char **argv)
{
    uint64_t length = request->report.length;
    if (!request->has_pattern && request->has_part)
        return io_usage(argv);
    if (!request->has_part_length && request->part_offset <= length)
        request->part_length = length - request->part_offset;
    if (request->part_offset <= length && request->part_length <= length - request->part_offset)
        return true;
    printf("pattern verification range exceeds end of read data\n");
    return false;
}

static bool
is_pattern(const uint8_t *bytes, size_t length, uint8_t pattern)
{
    return length == 0 || (bytes[0] == pattern && memcmp(bytes, bytes + 1, length - 1) == 0);
}

static int
transfer(struct io *io, const struct request *request, const struct io_vector *vector,
         struct q2_error *err)
{
    uint64_t offset = request->report.offset;
    struct q2_image *image = q2_disk_image(io->disk);
    if (request->vm_state && !image)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED, "a raw image has no VM state");
    if (request->vm_state)
        return q2_vmstate_read(image, offset, vector->buffer, vector->length, err);
    if (vector->count == 0)
        return q2_disk_read(io->disk, offset, vector->buffer, 0, err);
    return q2_disk_readv(io->disk, offset, vector->parts, vector->count, err);
}

/* Returns whether it was read and is what the pattern says. */
static bool
do_read(struct io *io, struct request *request, const struct io_vector *vector)
{
    struct q2_error err = {0};
    request->report.begun = rate_now();
    int rc = transfer(io, request, vector, &err);
    struct io_report report = request->report;
    if (rc < 0)
        return io_failed(vector->plural ? "readv" : "read", &err);
    bool good = !request->has_pattern || is_pattern(vector->buffer + request->part_offset,
                                                    (size_t)request->part_length, request->pattern);
    if (!good)
        printf("Pattern verification failed at offset %" PRIu64 ", %" PRIu64 " bytes\n",
               report.offset + request->part_offset, request->part_length);
    if (request->dump && !report.quiet)
        io_dump(vector->buffer, report.offset, vector->length);
    io_report_print(&report);
    return good;
}

static bool
read_vector(struct io *io, int argc, char **argv, const char *letters)
{
    struct request request;
    struct io_vector vector = {.plural = strcmp(argv[0], "readv") == 0};
    if (!read_options(&request, argc, argv, letters))
        return false;
    bool one = strcmp(argv[0], "read") == 0 || strcmp(argv[0], "r") == 0;
    if (argc - optind < 2 || (one && argc - optind > 2))
        return io_usage(argv);
    bool good = io_number(argv[optind], &request.report.offset) &&
                io_vector_make(&vector, argv + optind + 1);
    request.report.length = vector.length;
    if (good && request.vm_state)
        good = io_sector_aligned(request.report.offset, request.report.length);
    good = good && set_part(&request, argv) && do_read(io, &request, &vector);
    io_vector_destroy(&vector);
    return good;
}

bool
io_read(struct io *io, int argc, char **argv)
{
    return read_vector(io, argc, argv, "abCl:pP:qs:v");
}

bool
io_readv(struct io *io, int argc, char **argv)
{
    return read_vector(io, argc, argv, "CP:qv");
}

bool
io_aio_read(struct io *io, int argc, char **argv)
{
    read_vector(io, argc, argv, "CP:iqv");
    return true;
}
