/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* An image is made under another name and renamed when it is complete, so that one which exists can
 * be trusted. */

#include "tests/bench/images.h"

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/io/posix.h"
#include "tests/bench/child.h"
#include "tests/bench/damage.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { COPY_BYTES = 1 << 20 };

static const struct recipe {
    const char *name;
    const char *options; /* for qemu-img create, or NULL: a copy of `base`, and then ... */
    const char *size;
    enum image base;
    unsigned from, to; /* ... snapshots with these numbers are added, or ... */
    bool damaged;
} recipes[IMAGE_COUNT] = {
    [IMAGE_LARGE] = {.name = "1tib-64k", .options = "preallocation=metadata", .size = "1T"},
    [IMAGE_SMALL_CLUSTERS] = {.name = "64gib-4k",
                              .options = "preallocation=metadata,cluster_size=4k",
                              .size = "64G"},
    [IMAGE_SNAPSHOT_1] = {.name = "snapshots-1", .base = IMAGE_LARGE, .from = 1, .to = 1},
    [IMAGE_SNAPSHOTS_5] = {.name = "snapshots-5", .base = IMAGE_SNAPSHOT_1, .from = 2, .to = 5},
    [IMAGE_SNAPSHOTS_20] = {.name = "snapshots-20", .base = IMAGE_SNAPSHOTS_5, .from = 6, .to = 20},
    [IMAGE_DAMAGED] = {.name = "damaged", .base = IMAGE_LARGE, .damaged = true},
    [IMAGE_DAMAGED_SCATTERED] = {.name = "damaged-scattered", .base = IMAGE_LARGE, .damaged = true},
};

static bool
succeeds(const char *const *argv)
{
    struct child_cost cost;
    return child_run(argv, true, &cost) && cost.status == 0;
}

static bool
said(int rc, const struct q2_error *err)
{
    if (rc < 0)
        fprintf(stderr, "bench-check: %s\n", err->message);
    return rc < 0;
}

/* ---- copies that keep the holes ---- */

static int
copy_data(struct q2_file *from, struct q2_file *to, uint64_t offset, uint64_t end,
          struct q2_error *err)
{
    Q2_AUTOFREE uint8_t *buffer = malloc(COPY_BYTES);
    if (!buffer)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory to copy an image");
    for (uint64_t length; offset < end; offset += length) {
        length = q2_min(end - offset, COPY_BYTES);
        int rc = q2_file_read(from, offset, buffer, length, err);
        if (rc == 0)
            rc = q2_file_write(to, offset, buffer, length, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int
copy(const char *from_path, const char *to_path, struct q2_error *err)
{
    Q2_AUTOCLOSE struct q2_file *from = NULL;
    Q2_AUTOCLOSE struct q2_file *to = NULL;
    uint64_t size;
    int rc = q2_file_open(from_path, 0, &from, err);
    if (rc == 0)
        rc = q2_file_open(to_path, Q2_OPEN_CREATE, &to, err);
    if (rc == 0)
        rc = q2_file_size(from, &size, err);
    if (rc == 0)
        rc = q2_file_truncate(to, size, err);
    for (uint64_t at = 0, end = 0; rc == 0 && at < size; at = end) {
        bool data;
        rc = q2_file_extent(from, at, &data, &end, err);
        if (rc == 0 && data)
            rc = copy_data(from, to, at, end, err);
    }
    return rc;
}

/* ---- making ---- */

static bool
add_snapshots(const char *peer, const char *path, unsigned from, unsigned to)
{
    for (unsigned number = from; number && number <= to; number++) {
        char name[32];
        snprintf(name, sizeof name, "snapshot-%u", number);
        if (!succeeds((const char *const[]){peer, "snapshot", "-c", name, path, NULL}))
            return false;
    }
    return true;
}

static bool
make(struct images *images, enum image image, const char *path)
{
    const struct recipe *recipe = &recipes[image];
    if (recipe->options)
        return succeeds((const char *const[]){images->peer, "create", "-q", "-f", "qcow2", "-o",
                                              recipe->options, path, recipe->size, NULL});
    struct q2_error err = {0};
    const char *base = image_path(images, recipe->base);
    if (!base || said(copy(base, path, &err), &err))
        return false;
    if (recipe->damaged)
        return !said(damage_image(path, image == IMAGE_DAMAGED_SCATTERED, &err), &err);
    return add_snapshots(images->peer, path, recipe->from, recipe->to);
}

const char *
image_path(struct images *images, enum image image)
{
    char *path = images->paths[image], part[IMAGE_PATH_SIZE];
    snprintf(path, IMAGE_PATH_SIZE, "%s/%s.qcow2", images->folder, recipes[image].name);
    if (access(path, R_OK) == 0)
        return path;
    fprintf(stderr, "bench-check: making %s\n", path);
    snprintf(part, sizeof part, "%s/%s.part", images->folder, recipes[image].name);
    unlink(part);
    if (!make(images, image, part)) {
        unlink(part);
        return NULL;
    }
    if (rename(part, path) < 0) {
        perror(path);
        return NULL;
    }
    return path;
}
