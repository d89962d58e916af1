/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* bench-cache: what the metadata cache spares and what it holds, without a clock.
 *
 * Two passes of small random reads go all over an image that is allocated everywhere, so that each
 * of them reads data once; every other read of the file was for metadata. The file counts, and the
 * memory of the process is the kernel's word. */

#include "core/image/image.h"
#include "core/io/fault.h"
#include "core/io/posix.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

/* One read in each stretch: shorter than what the smallest slice of an L2 table maps, so that a
 * pass needs all of the tables. */
enum { STRETCH = 4 << 20, READ_BYTES = 512 };

struct pass {
    uint64_t reads;    /* of the guest */
    uint64_t metadata; /* reads of the file beyond these */
};

static const char help[] =
    "usage: bench-cache IMAGE [BYTES]\n"
    "\n"
    "Read all over IMAGE twice with an L2 cache of BYTES (what covers the image, up to 32 MiB) "
    "and\n"
    "print the reads of each pass, the reads of metadata that they took, the memory that the\n"
    "caches may hold and the peak of the resident memory, both in bytes.\n";

static int
run_pass(struct q2_image *image, const struct q2_file *counter, struct pass *ret_pass,
         struct q2_error *err)
{
    uint8_t buffer[READ_BYTES];
    uint64_t count = q2_image_size(image) / STRETCH, before = q2_fault_matched(counter);
    /* An odd multiplier visits all of 2^n stretches once, in an order without locality. */
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = i * UINT64_C(0x9e3779b1) % count * STRETCH;
        int rc = q2_image_read(image, offset, buffer, sizeof buffer, err);
        if (rc < 0)
            return rc;
    }
    ret_pass->reads = count;
    ret_pass->metadata = q2_fault_matched(counter) - before - count;
    return 0;
}

static void
report(const struct q2_image *image, const struct pass *first, const struct pass *second)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", first->reads,
           first->metadata, second->metadata, q2_image_cache_bytes(image),
           (uint64_t)usage.ru_maxrss * 1024);
}

static int
measure(struct q2_file *base, uint64_t cache_bytes, struct q2_error *err)
{
    struct q2_fault_plan plan = {.kind = Q2_FAULT_NONE, .ops = Q2_FAULT_READ};
    struct q2_image_options options = {.l2_cache_bytes = cache_bytes};
    struct q2_file *counter;
    struct q2_image *image;
    struct pass first, second;
    int rc = q2_file_new_fault(base, &plan, &counter, err);
    if (rc == 0)
        rc = q2_image_open_file(counter, &options, &image, err);
    if (rc < 0)
        return rc;
    uint64_t count = q2_image_size(image) / STRETCH;
    if (count == 0 || (count & (count - 1)) != 0)
        rc = q2_error_set(err, Q2_ERR_RANGE, "the size of the disk is no power of two of 4 MiB");
    if (rc == 0)
        rc = run_pass(image, counter, &first, err);
    if (rc == 0)
        rc = run_pass(image, counter, &second, err);
    if (rc == 0)
        report(image, &first, &second);
    q2_image_close(image, NULL);
    return rc;
}

int
main(int argc, char **argv)
{
    struct q2_error err = {0};
    struct q2_file *base;
    char *end = NULL;
    uint64_t cache_bytes = argc == 3 ? strtoull(argv[2], &end, 10) : 0;
    if (argc < 2 || argc > 3 || (end && *end)) {
        fputs(help, stderr);
        return 1;
    }
    int rc = q2_file_open(argv[1], 0, &base, &err);
    if (rc == 0) {
        rc = measure(base, cache_bytes, &err);
        q2_file_close(base);
    }
    if (rc < 0)
        fprintf(stderr, "bench-cache: %s\n", err.message);
    return rc < 0;
}
