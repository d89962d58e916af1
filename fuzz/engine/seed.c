/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A generator of seeds as a program: seeds-NAME FOLDER. */

#include "fuzz/seeds/seed.h"

#include "core/base/endian.h"
#include "core/format/header.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* For what generators share with harnesses, which fails in the name of one. */
const struct q2_harness q2_harness = {.name = "seeds"};

static const char *folder;

static void
complain(const char *name)
{
    fprintf(stderr, "seeds: %s: %s\n", name, strerror(errno));
    exit(1);
}

void
q2_seed_bytes(struct q2_seed *seed, const void *bytes, size_t length)
{
    Q2_REQUIRE(length <= sizeof seed->bytes - seed->length, "%zu more bytes are too many", length);
    memcpy(seed->bytes + seed->length, bytes, length);
    seed->length += length;
}

void
q2_seed_number(struct q2_seed *seed, unsigned width, uint64_t number)
{
    uint8_t bytes[8];
    q2_store_be64(bytes, number);
    q2_seed_bytes(seed, bytes + 8 - width, width);
}

void
q2_seed_measures(struct q2_seed *seed, unsigned flags, unsigned cluster_bits, uint64_t disk_size,
                 uint64_t file_size)
{
    q2_seed_number(seed, 1, flags);
    q2_seed_number(seed, 1, cluster_bits - Q2_MIN_CLUSTER_BITS);
    q2_seed_number(seed, 8, disk_size);
    q2_seed_number(seed, 8, file_size);
}

void
q2_seed_write(struct q2_seed *seed, const char *name, ...)
{
    char file_name[256], *path;
    va_list args;
    va_start(args, name);
    vsnprintf(file_name, sizeof file_name, name, args);
    va_end(args);
    if (asprintf(&path, "%s/%s", folder, file_name) < 0)
        complain(file_name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(seed->bytes, 1, seed->length, file) != seed->length || fclose(file) != 0)
        complain(path);
    free(path);
    memset(seed, 0, sizeof *seed);
}

int
main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    folder = argv[1];
    if (mkdir(folder, 0777) < 0 && errno != EEXIST)
        complain(folder);
    q2_make_seeds();
    return 0;
}
