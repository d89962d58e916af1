/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* One image, used by many threads. Some own stripes of the first half of the disk, so narrow that
 * neighbours share clusters and sectors; one owns the second half, where it discards and compresses
 * whole clusters; one takes and deletes snapshots and flushes; one reads and looks at
 * the map. What a thread owns reads as it left it, at any time and in the end. */

#include "checker/check.h"
#include "core/codec/secret.h"
#include "core/image/create.h"
#include "core/image/snapshots.h"
#include "core/io/fault.h"
#include "core/io/memory.h"
#include "tests/threads/threads.h"

#include <string.h>

enum { DISK = 512 << 10, STRIPE = 700, STRIPERS = 5, ROUNDS = 120 };

struct shared {
    struct q2_image *image;
    uint8_t model[DISK]; /* each byte is touched by its owner alone */
    bool snapshots, compression;
    uint64_t cluster_size;
};

static uint32_t
next(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

static void
fine(int rc, const struct q2_error *err)
{
    if (rc < 0)
        fprintf(stderr, "%s\n", err->message);
    MUST(rc == 0);
}

static void
read_back(struct shared *shared, uint64_t offset, uint64_t length)
{
    static _Thread_local uint8_t bytes[DISK];
    struct q2_error err = {0};
    fine(q2_image_read(shared->image, offset, bytes, length, &err), &err);
    MUST(memcmp(bytes, shared->model + offset, length) == 0);
}

/* Write or zero a part of what the caller owns. */
static void
change(struct shared *shared, uint64_t offset, uint64_t length, uint32_t *random)
{
    struct q2_error err = {0};
    uint8_t *model = shared->model + offset;
    unsigned how = next(random) % 4;
    if (how < 2) {
        memset(model, (int)next(random), length);
        fine(q2_image_write(shared->image, offset, model, length, &err), &err);
    } else {
        memset(model, 0, length);
        fine(q2_image_zero(shared->image, offset, length, how == 2 ? Q2_ZERO_UNMAP : 0, &err),
             &err);
    }
}

/* ---- the threads ---- */

static void
stripes(struct shared *shared, unsigned thread)
{
    uint32_t random = thread;
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t count = DISK / 2 / (STRIPE * STRIPERS);
        uint64_t at = (next(&random) % count * STRIPERS + thread) * STRIPE;
        uint64_t skip = next(&random) % STRIPE, length = next(&random) % (STRIPE - skip) + 1;
        change(shared, at + skip, length, &random);
        read_back(shared, at, STRIPE);
    }
}

static void
clusters(struct shared *shared)
{
    uint32_t random = 99;
    struct q2_error err = {0};
    uint64_t unit = shared->cluster_size, count = DISK / 2 / unit;
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t first = next(&random) % count,
                 length = (next(&random) % (count - first) + 1) * unit;
        uint64_t at = DISK / 2 + first * unit;
        unsigned how = next(&random) % 3;
        if (how == 0) {
            memset(shared->model + at, 0, length);
            fine(q2_image_discard(shared->image, at, length, &err), &err);
        } else if (how == 1 && shared->compression) {
            memset(shared->model + at, (int)next(&random), unit);
            fine(q2_image_write_compressed(shared->image, at, shared->model + at, unit, &err),
                 &err);
        } else {
            change(shared, at, next(&random) % length + 1, &random);
        }
        read_back(shared, at, length);
    }
}

static void
whole_image(struct shared *shared)
{
    struct q2_error err = {0};
    for (unsigned round = 0; round < ROUNDS / 4; round++) {
        struct q2_snapshot_options options = {.name = "s", .date_seconds = 1};
        if (shared->snapshots)
            fine(q2_snapshot_create(shared->image, &options, &err), &err);
        fine(q2_image_flush(shared->image, &err), &err);
        if (shared->snapshots && round % 2)
            fine(q2_snapshot_delete(shared->image, 0, &err), &err);
    }
    while (q2_snapshot_count(shared->image) > 1)
        fine(q2_snapshot_delete(shared->image, 1, &err), &err);
}

static void
look(struct shared *shared)
{
    static uint8_t bytes[DISK];
    struct q2_error err = {0};
    for (unsigned round = 0; round < ROUNDS / 4; round++) {
        struct q2_extent extent;
        for (uint64_t at = 0; at < DISK; at += extent.length)
            fine(q2_image_map(shared->image, at, DISK - at, &extent, &err), &err);
        fine(q2_image_read(shared->image, 0, bytes, DISK, &err), &err);
    }
}

static void
work(void *data, unsigned thread)
{
    struct shared *shared = data;
    if (thread < STRIPERS)
        stripes(shared, thread);
    else if (thread == STRIPERS)
        clusters(shared);
    else if (thread == STRIPERS + 1)
        whole_image(shared);
    else
        look(shared);
}

/* ---- the images ---- */

static struct q2_image *
open_over(struct q2_file *base, const struct q2_image_options *options)
{
    struct q2_error err = {0};
    struct q2_file *file = NULL;
    struct q2_image *image = NULL;
    MUST(q2_file_new_fault(base, &(struct q2_fault_plan){0}, &file, NULL) == 0);
    fine(q2_image_open_file(file, options, &image, &err), &err);
    return image;
}

static void
check_file(struct q2_file *file)
{
    struct q2_error err = {0};
    struct q2_check *check = NULL;
    fine(q2_check_run(file, &(struct q2_check_options){.deep = true}, &check, &err), &err);
    MUST(q2_check_exit(check) == Q2_EXIT_CLEAN);
    q2_check_free(check);
}

static void
try_image(const struct q2_create_options *create, uint64_t cache)
{
    static struct shared shared;
    struct q2_error err = {0};
    struct q2_file *file = NULL;
    struct q2_image_options options = {.flags = Q2_IMAGE_WRITE,
                                       .format = Q2_DISK_QCOW2,
                                       .secret = create->secret,
                                       .l2_cache_bytes = cache,
                                       .refcount_cache_bytes = cache};
    MUST(q2_file_new_memory("image", &file, NULL) == 0);
    fine(q2_image_format(file, NULL, create, &err), &err);
    shared = (struct shared){.image = open_over(file, &options),
                             .snapshots = true,
                             .compression = create->crypt == Q2_CRYPT_NONE,
                             .cluster_size = create->cluster_size};
    threads_run(work, &shared);
    read_back(&shared, 0, DISK);
    fine(q2_image_close(shared.image, &err), &err);
    check_file(file);
    shared.image = open_over(file, &options);
    read_back(&shared, 0, DISK);
    fine(q2_image_close(shared.image, &err), &err);
    q2_file_close(file);
}

int
main(void)
{
    static char phrase[] = "phrase";
    struct q2_secret secret = {.bytes = (uint8_t *)phrase, .length = sizeof phrase - 1};
    try_image(&(struct q2_create_options){.size = DISK, .cluster_size = 512}, 1024);
    try_image(&(struct q2_create_options){.size = DISK, .cluster_size = 4096}, 0);
    try_image(&(struct q2_create_options){.size = DISK,
                                          .cluster_size = 65536,
                                          .flags = Q2_CREATE_LAZY_REFCOUNTS},
              0);
    try_image(&(struct q2_create_options){.size = DISK,
                                          .cluster_size = 16384,
                                          .flags = Q2_CREATE_EXTENDED_L2},
              512);
    try_image(&(struct q2_create_options){.size = DISK,
                                          .cluster_size = 1024,
                                          .crypt = Q2_CRYPT_AES,
                                          .secret = &secret},
              0);
    return 0;
}
