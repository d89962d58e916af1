/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* write, writev, aio_write, discard and flush. */

#include "core/base/checked.h"
#include "core/image/vmstate.h"
#include "core/tool/io.h"
#include "core/tool/io_vector.h"
#include "core/tool/rate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATTERN = 0xcd };

struct request {
    struct io_report report;
    bool vm_state;
    bool compress;
    bool durable;  /* -f */
    bool no_write; /* -n: zeros must not be written as data */
    bool unmap;
    bool zero;
    bool has_pattern;
    uint8_t pattern;
    const char *source; /* -s: a file whose bytes are the pattern */
};

static bool
set_option(struct request *request, int option)
{
    switch (option) {
    case 'b':
        return request->vm_state = true;
    case 'c':
        return request->compress = true;
    case 'C':
        return request->report.terse = true;
    case 'f':
        return request->durable = true;
    case 'n':
        return request->no_write = true;
    case 'q':
        return request->report.quiet = true;
    case 's':
        request->source = optarg;
        return true;
    case 'u':
        return request->unmap = true;
    case 'z':
        return request->zero = true;
    case 'P':
        request->has_pattern = true;
        return io_pattern(optarg, &request->pattern);
    default: /* i and p mean nothing here */
        return option != '?';
    }
}

/* What contradicts itself in a line; NULL: nothing. */
static const char *
contradiction(const struct request *request)
{
    if (request->vm_state && request->zero)
        return "-b and -z cannot be specified at the same time";
    if (request->durable && (request->vm_state || request->compress))
        return "-f and -b or -c cannot be specified at the same time";
    if (request->no_write && !request->zero)
        return "-n requires -z to be specified";
    if (request->unmap && !request->zero)
        return "-u requires -z to be specified";
    if (request->zero + request->has_pattern + (request->source != NULL) > 1)
        return "Only one of -z, -P, and -s can be specified at the same time";
    return NULL;
}

static bool
read_options(struct request *request, int argc, char **argv, const char *letters)
{
    int option;
    *request = (struct request){.report = {.verb = "wrote"}, .pattern = PATTERN};
    io_options_begin();
    while ((option = io_option_next(argc, argv, letters)) != -1)
        if (!set_option(request, option))
            return false;
    const char *wrong = contradiction(request);
    if (wrong)
        puts(wrong);
    return !wrong;
}

/* ---- what to write ---- */

/* Repeat the file's bytes over the buffer. */
static bool
fill_from_file(const struct io_vector *vector, const char *name)
{
    FILE *file = fopen(name, "rb");
    if (!file) {
        tool_say("%s: %s", name, strerror(errno));
        return false;
    }
    size_t have = fread(vector->buffer, 1, vector->length, file);
    bool failed = ferror(file) != 0;
    fclose(file);
    if (failed || (have == 0 && vector->length)) {
        tool_say("%s: %s", name, failed ? "cannot be read" : "file is empty");
        return false;
    }
    for (size_t at = have; at < vector->length; at++)
        vector->buffer[at] = vector->buffer[at - have];
    return true;
}

static bool
fill(const struct io_vector *vector, const struct request *request)
{
    if (request->source)
        return fill_from_file(vector, request->source);
    memset(vector->buffer, request->pattern, vector->length);
    return true;
}

/* ---- writing it ---- */

static int
write_compressed(struct q2_image *image, const struct request *request,
                 const struct io_vector *vector, struct q2_error *err)
{
    if (!image)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED, "a raw image has no compressed clusters");
    uint64_t cluster = q2_image_geometry(image)->cluster_size;
    int rc = 0;
    for (size_t at = 0, part; rc == 0 && at < vector->length; at += part) {
        part = (size_t)q2_min(cluster, vector->length - at);
        rc = q2_image_write_compressed(image, request->report.offset + at, vector->buffer + at,
                                       part, err);
    }
    return rc;
}

/* Parts of clusters can only be zeroed by writing. */
static bool
is_whole(const struct q2_image *image, uint64_t offset, uint64_t length)
{
    const struct q2_geometry *geometry = q2_image_geometry(image);
    uint64_t unit = geometry->extended_l2 ? geometry->cluster_size / 32 : geometry->cluster_size;
    uint64_t end = offset + length;
    return offset % unit == 0 && (end % unit == 0 || end == q2_image_size(image));
}

static int
write_zeros(struct io *io, const struct request *request, struct q2_error *err)
{
    const struct q2_image *image = q2_disk_image(io->disk);
    uint64_t offset = request->report.offset, length = request->report.length;
    if (request->no_write && image && !is_whole(image, offset, length))
        return q2_error_set(err, Q2_ERR_UNSUPPORTED, "Operation not supported");
    return q2_disk_zero(io->disk, offset, length, request->unmap ? Q2_ZERO_UNMAP : 0, err);
}

static int
transfer(struct io *io, const struct request *request, const struct io_vector *vector,
         struct q2_error *err)
{
    uint64_t offset = request->report.offset;
    struct q2_image *image = q2_disk_image(io->disk);
    int rc;
    if (request->vm_state && !image)
        rc = q2_error_set(err, Q2_ERR_UNSUPPORTED, "a raw image has no VM state");
    else if (request->vm_state)
        rc = q2_vmstate_write(image, offset, vector->buffer, vector->length, err);
    else if (request->zero)
        rc = write_zeros(io, request, err);
    else if (request->compress)
        rc = write_compressed(image, request, vector, err);
    else
        rc = q2_disk_writev(io->disk, offset, vector->parts, vector->count, err);
    return rc == 0 && request->durable ? q2_disk_flush(io->disk, err) : rc;
}

static bool
do_write(struct io *io, struct request *request, const struct io_vector *vector)
{
    struct q2_error err = {0};
    bool sectors = request->vm_state || request->compress;
    if (sectors && !io_sector_aligned(request->report.offset, request->report.length))
        return false;
    if (!fill(vector, request))
        return false;
    request->report.begun = rate_now();
    if (transfer(io, request, vector, &err) < 0)
        return io_failed(vector->plural ? "writev" : "write", &err);
    io_report_print(&request->report);
    return true;
}

static bool
write_vector(struct io *io, int argc, char **argv, const char *letters)
{
    struct request request;
    struct io_vector vector = {.plural = strcmp(argv[0], "writev") == 0};
    if (!read_options(&request, argc, argv, letters))
        return false;
    bool one = strcmp(argv[0], "write") == 0;
    if (argc - optind < 2 || (one && argc - optind > 2))
        return io_usage(argv);
    if (request.zero && argc - optind > 2) {
        puts("-z supports only a single length parameter");
        return false;
    }
    bool good = io_number(argv[optind], &request.report.offset) &&
                io_vector_make(&vector, argv + optind + 1);
    request.report.length = vector.length;
    good = good && do_write(io, &request, &vector);
    io_vector_destroy(&vector);
    return good;
}

bool
io_write(struct io *io, int argc, char **argv)
{
    return write_vector(io, argc, argv, "bcCfnpP:qs:uz");
}

bool
io_writev(struct io *io, int argc, char **argv)
{
    return write_vector(io, argc, argv, "CfP:q");
}

bool
io_aio_write(struct io *io, int argc, char **argv)
{
    write_vector(io, argc, argv, "CfiP:quz");
    return true;
}

/* ---- others that change the disk ---- */

bool
io_discard(struct io *io, int argc, char **argv)
{
    struct q2_error err = {0};
    struct io_report report = {.verb = "discard"};
    int option;
    io_options_begin();
    while ((option = io_option_next(argc, argv, "Cq")) != -1) {
        report.terse |= option == 'C';
        report.quiet |= option == 'q';
        if (option == '?')
            return false;
    }
    if (argc - optind != 2)
        return io_usage(argv);
    if (!io_number(argv[optind], &report.offset) || !io_length(argv[optind + 1], &report.length))
        return false;
    report.begun = rate_now();
    if (q2_disk_discard(io->disk, report.offset, report.length, &err) < 0)
        return io_failed("discard", &err);
    io_report_print(&report);
    return true;
}

bool
io_flush(struct io *io, int argc, char **argv)
{
    struct q2_error err = {0};
    (void)argc;
    (void)argv;
    return q2_disk_flush(io->disk, &err) == 0 || io_failed("flush", &err);
}
