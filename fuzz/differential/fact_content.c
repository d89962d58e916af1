/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What is read: of the disk, and of each snapshot. */

#include "fuzz/differential/trial.h"
#include "fuzz/differential/worker.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Larger disks are not read. */
static const uint64_t disk_max = UINT64_C(64) << 20;

bool
same_bytes(const char *a, const char *b, uint64_t *ret_offset)
{
    enum { PIECE = 65536 };
    static uint8_t x[PIECE], y[PIECE];
    int in = open(a, O_RDONLY | O_CLOEXEC), other = open(b, O_RDONLY | O_CLOEXEC);
    if (in < 0 || other < 0) {
        perror(in < 0 ? a : b);
        exit(2);
    }
    bool same = true;
    for (uint64_t at = 0; same; at += PIECE) {
        ssize_t n = read(in, x, PIECE), m = read(other, y, PIECE);
        ssize_t both = n < m ? n : m;
        if (both <= 0)
            break;
        if (memcmp(x, y, (size_t)both) == 0)
            continue;
        same = false;
        size_t i = 0;
        while (x[i] == y[i])
            i++;
        *ret_offset = at + i;
    }
    close(in);
    close(other);
    return same;
}

void
compare_content(struct trial *trial, const char *fact, const char *image, const char *snapshot)
{
    char selection[80] = "";
    snprintf(selection, sizeof selection, "snapshot.id=%s", snapshot ? snapshot : "");
    const char *const theirs_argv[] = {"qemu-img", "convert",    "-f",
                                       "qcow2",    "-O",         "raw",
                                       image,      "theirs.raw", snapshot ? "-l" : NULL,
                                       selection,  NULL};
    const char *const ours_argv[] = {"convert", "-f",  "qcow2",    "-O",
                                     "raw",     image, "ours.raw", snapshot ? "-l" : NULL,
                                     selection, NULL};
    struct outcome ours, theirs;
    unlink("ours.raw");
    unlink("theirs.raw");
    run_own(ours_argv, NULL, &ours);
    run_program(theirs_argv, NULL, &theirs);
    if (trial_differ_ends(trial, fact, "end", &ours, &theirs)) {
        uint64_t offset;
        struct stat a, b;
        if (stat("ours.raw", &a) == 0 && stat("theirs.raw", &b) == 0) {
            bool today = snapshot && (uint64_t)b.st_size == trial->report.disk_size / 512 * 512;
            trial_differ_numbers(trial, fact, today ? "size-today" : "size", (uint64_t)a.st_size,
                                 (uint64_t)b.st_size);
        }
        if (!same_bytes("ours.raw", "theirs.raw", &offset)) {
            char text[32];
            snprintf(text, sizeof text, "%#" PRIx64, offset);
            trial_differ(trial, fact, "bytes", "same", text);
        }
    }
    outcome_destroy(&ours);
    outcome_destroy(&theirs);
}

void compare_disk(struct trial *trial);

void
compare_disk(struct trial *trial)
{
    if (trial->report.disk_size <= disk_max)
        compare_content(trial, "disk", trial->image, NULL);
}

void compare_snapshots(struct trial *trial);

void
compare_snapshots(struct trial *trial)
{
    if (trial->report.disk_size > disk_max)
        return;
    for (unsigned i = 0; i < trial->report.snapshots; i++)
        compare_content(trial, "snapshots", trial->image, trial->report.snapshot_ids[i]);
}
