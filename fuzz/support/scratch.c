/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "fuzz/support/scratch.h"

#include "fuzz/fuzz.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_OPEN = 16 };

static char *folder;

const char *
q2_fuzz_scratch(void)
{
    char name[64];
    if (folder)
        return folder;
    snprintf(name, sizeof name, "%s/fuzz-%s-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", q2_harness.name);
    folder = mkdtemp(name) ? realpath(name, NULL) : NULL;
    Q2_REQUIRE(folder, "%s cannot be made", name);
    return folder;
}

static int
remove_one(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status;
    (void)type;
    (void)where;
    return remove(path);
}

void
q2_fuzz_scratch_remove(void)
{
    if (!folder)
        return;
    int rc = nftw(folder, remove_one, MOST_OPEN, FTW_DEPTH | FTW_PHYS);
    Q2_REQUIRE(rc == 0, "%s cannot be removed", folder);
    free(folder);
    folder = NULL;
}
