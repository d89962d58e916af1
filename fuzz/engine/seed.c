/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A generator of seeds as a program: seeds-NAME FOLDER. */

#include "fuzz/seeds/seed.h"

#include <errno.h>
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
q2_seed(const void *bytes, size_t length, const char *name, ...)
{
    char file_name[256], *path;
    va_list args;
    va_start(args, name);
    vsnprintf(file_name, sizeof file_name, name, args);
    va_end(args);
    if (asprintf(&path, "%s/%s", folder, file_name) < 0)
        complain(file_name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, length, file) != length || fclose(file) != 0)
        complain(path);
    free(path);
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
