/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A file that does not exist yet, in a folder of its own. */

#ifndef Q2_TESTS_PLACES_H
#define Q2_TESTS_PLACES_H

#include "core/io/posix.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct place {
    char dir[32];
    char path[64];
};

static struct place
place_new(void)
{
    struct place place = {.dir = "/tmp/q2_posix_XXXXXX"};
    cr_assert_not_null(mkdtemp(place.dir));
    snprintf(place.path, sizeof place.path, "%s/disk.qcow2", place.dir);
    return place;
}

static void
place_free(const struct place *place)
{
    cr_assert(unlink(place->path) == 0 || errno == ENOENT || rmdir(place->path) == 0);
    cr_assert_eq(rmdir(place->dir), 0);
}

static struct q2_file *
create(const struct place *place)
{
    struct q2_file *file = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_file_open(place->path, Q2_OPEN_CREATE, &file, &err), 0, "%s", err.message);
    return file;
}

static uint64_t
size_of(struct q2_file *file)
{
    uint64_t size = UINT64_MAX;
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    return size;
}

#endif
