/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A disk that cannot read a sector takes another one for it once that is written. So a repair that
 * writes over a bad spot has mended it, which injected faults (core/io/fault.h) cannot say. */

#include "fuzz/support/medium.h"

#include "checker/check.h"
#include "core/base/checked.h"
#include "core/io/forward.h"
#include "core/io/iov.h"
#include "fuzz/fuzz.h"
#include "fuzz/support/image.h"

#include <inttypes.h>
#include <stdlib.h>

struct medium {
    struct q2_forward forward;
    uint64_t first; /* sector of the lowest bit */
    uint64_t bad;   /* a bit for each sector that cannot be read */
    bool heals;
};

static struct medium *
medium_of(struct q2_file *file)
{
    return (struct medium *)file;
}

/* The bits of the sectors from `first` to before `end`. */
static uint64_t
bits_of(const struct medium *medium, uint64_t first, uint64_t end)
{
    first = q2_max(first, medium->first) - medium->first;
    end = q2_min(q2_max(end, medium->first) - medium->first, Q2_FUZZ_MOST_BAD);
    if (first >= end)
        return 0;
    return UINT64_MAX >> (Q2_FUZZ_MOST_BAD - (end - first)) << first;
}

static int
medium_preadv(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
              size_t *ret_done, struct q2_error *err)
{
    struct medium *medium = medium_of(file);
    uint64_t end = offset + q2_iov_total(iov, iov_count);
    uint64_t bits =
        bits_of(medium, offset / Q2_FUZZ_SECTOR, (end + Q2_FUZZ_SECTOR - 1) / Q2_FUZZ_SECTOR);
    if (!(medium->bad & bits))
        return q2_file_preadv(medium->forward.base, iov, iov_count, offset, ret_done, err);
    if (medium->heals)
        medium->bad &= ~bits;
    return q2_error_set(err, Q2_ERR_IO,
                        "%s: cannot read %" PRIu64 " bytes at offset %" PRIu64 ": a bad sector",
                        file->name, end - offset, offset);
}

static int
medium_pwritev(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
               struct q2_error *err)
{
    struct medium *medium = medium_of(file);
    uint64_t end = offset + q2_iov_total(iov, iov_count), size;
    int rc = q2_file_pwritev(medium->forward.base, iov, iov_count, offset, err);
    if (rc == 0)
        rc = q2_file_size(medium->forward.base, &size, err);
    if (rc < 0)
        return rc;
    /* What is in the file system's cache need not be whole sectors: but to write a part of one, it
     * has to read the others, where there are any. */
    uint64_t first = (offset + Q2_FUZZ_SECTOR - 1) / Q2_FUZZ_SECTOR;
    uint64_t past = end / Q2_FUZZ_SECTOR + (end == size && end % Q2_FUZZ_SECTOR);
    medium->bad &= ~bits_of(medium, first, past);
    return 0;
}

/* The sectors behind the end of a file of `size` bytes. */
static uint64_t
behind(const struct medium *medium, uint64_t size)
{
    return bits_of(medium, (size + Q2_FUZZ_SECTOR - 1) / Q2_FUZZ_SECTOR, UINT64_MAX);
}

/* What is cut off is not read again, and what is added is new. */
static int
medium_truncate(struct q2_file *file, uint64_t size, struct q2_error *err)
{
    struct medium *medium = medium_of(file);
    int rc = q2_file_truncate(medium->forward.base, size, err);
    if (rc == 0)
        medium->bad &= ~behind(medium, size);
    return rc;
}

/* Without `punch`: what is written as zeros is written. */
static const struct q2_file_ops medium_ops = {
    .preadv = medium_preadv,
    .pwritev = medium_pwritev,
    .flush = q2_forward_flush,
    .truncate = medium_truncate,
    .size = q2_forward_size,
    .extent = q2_forward_extent,
    .allocated = q2_forward_allocated,
    .close = q2_forward_close,
};

void
q2_fuzz_limits(const struct q2_fuzz_options *options, struct q2_check_options *how)
{
    unsigned memory = options->chance >> Q2_FUZZ_MEMORY_SHIFT & 15;
    unsigned work = options->chance >> Q2_FUZZ_WORK_SHIFT & 31;
    how->max_memory = memory ? (uint64_t)Q2_FUZZ_LEAST_MEMORY << memory : how->max_memory;
    how->max_work = work ? (uint64_t)Q2_FUZZ_LEAST_WORK << work : how->max_work;
    how->max_details = options->chance >> Q2_FUZZ_DETAILS_SHIFT & 7;
}

struct q2_file *
q2_fuzz_input(const uint8_t *bytes, size_t length, const struct q2_fuzz_options *options)
{
    struct q2_file *file = q2_fuzz_file(bytes, length);
    struct q2_error err = {0};
    uint64_t more = ((uint64_t)(options->chance >> Q2_FUZZ_GROWN_SHIFT) + 1) << 20;
    if (options->flags & Q2_FUZZ_GROWN)
        Q2_REQUIRE(q2_file_truncate(file, length + more, &err) == 0, "%s", err.message);
    return file;
}

void
q2_fuzz_bad_spot(const struct q2_fuzz_options *options, uint64_t *ret_offset, uint64_t *ret_length)
{
    bool bad = options->flags & Q2_FUZZ_BAD_SPOT;
    *ret_offset = (uint64_t)options->number * Q2_FUZZ_SECTOR;
    *ret_length = bad ? (options->chance % Q2_FUZZ_MOST_BAD + 1) * Q2_FUZZ_SECTOR : 0;
}

struct q2_file *
q2_fuzz_medium(struct q2_file *file, const struct q2_fuzz_options *options)
{
    struct medium *medium = calloc(1, sizeof *medium);
    uint64_t offset, length, size;
    Q2_REQUIRE(medium && q2_file_size(file, &size, NULL) == 0 &&
                   q2_file_init(&medium->forward.file, &medium_ops, file->name, file->writable,
                                NULL) == 0,
               "no memory");
    q2_fuzz_bad_spot(options, &offset, &length);
    medium->forward.base = file;
    medium->first = offset / Q2_FUZZ_SECTOR;
    medium->heals = options->chance & Q2_FUZZ_HEALS;
    medium->bad = length ? UINT64_MAX >> (Q2_FUZZ_MOST_BAD - length / Q2_FUZZ_SECTOR) : 0;
    medium->bad &= ~behind(medium, size); /* what is added is new */
    return &medium->forward.file;
}
