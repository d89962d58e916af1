/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Files to interrupt a repair on: a scratch copy of an image that costs nothing, and a pair of
 * image and journal whose changes are remembered in their common order. */

#ifndef Q2_TESTS_REPAIR_SWEEP_FILES_H
#define Q2_TESTS_REPAIR_SWEEP_FILES_H

#include "core/base/budget.h"
#include "core/io/record.h"

enum sweep_side { SWEEP_IMAGE, SWEEP_JOURNAL, SWEEP_SIDES };

/* An image as it was, and an empty journal, both to be written to. */
struct sweep_disk {
    struct q2_budget budget;
    struct q2_file *files[SWEEP_SIDES];
};

void sweep_disk_init(struct sweep_disk *disk, struct q2_file *base);
void sweep_disk_destroy(struct sweep_disk *disk);

/* Whether two files have the same bytes and the same length; holes are zeros. */
bool sweep_same(struct q2_file *a, struct q2_file *b);

/* A disk whose changes are remembered. */
struct sweep_history {
    struct q2_file *base;
    struct sweep_disk disk;
    struct q2_file *records[SWEEP_SIDES];
    struct q2_file *files[SWEEP_SIDES]; /* to write to */
    uint8_t *order;                     /* whose each change was, enum sweep_side */
    size_t count, capacity;
    uint64_t chance; /* of SWEEP_LOSE_SOME, another number other losses */
};

void sweep_history_init(struct sweep_history *history, struct q2_file *base);
void sweep_history_destroy(struct sweep_history *history);

/* What of the changes that no barrier followed a power cut lets come through. */
enum sweep_loss { SWEEP_KILL, SWEEP_LOSE_ALL, SWEEP_LOSE_SOME, SWEEP_LOSSES };

/* Make of a fresh disk what is there after the first `count` changes. */
void sweep_replay(const struct sweep_history *history, size_t count, enum sweep_loss loss,
                  struct sweep_disk *ret_disk);

#endif
