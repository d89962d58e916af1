/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What an image has been, step by step, and whether what was left of it after a power cut or an
 * error is one of those, or a mixture byte by byte. */

#ifndef Q2_TESTS_STRESS_HISTORY_H
#define Q2_TESTS_STRESS_HISTORY_H

#include "tests/stress/stress.h"

struct version {
    struct state active;
    struct kept snapshots[MAX_SNAPSHOTS];
    unsigned snapshot_count;
    struct dirt bitmaps[MAX_BITMAPS];
    unsigned bitmap_count;
    struct q2_secret secret;
    unsigned keys;
    size_t records; /* that had been made when it was reached */
    bool durable;   /* a flush or a close had just succeeded */
};

struct history {
    struct version *versions;
    size_t count;
};

/* Add the model as it is. */
bool history_add(struct history *history, const struct run *run, size_t records, bool durable);
void history_destroy(struct history *history);

/* Make the model what it was. */
bool history_restore(const struct version *version, struct run *run);

/* Every byte of the disk is that of one of versions [first, last], and so is the disk's size.
 * Snapshots that all of them have are intact; `image` is closed and opened again for that, read
 * only, by `run_open`. */
bool history_check(struct run *run, const struct history *history, size_t first, size_t last);
/* The same for the disk of an image that is open. */
bool history_check_disk(struct run *run, const struct history *history, size_t first, size_t last);

#endif
