/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Damage by the hundred thousand. */

#ifndef Q2_BENCH_DAMAGE_H
#define Q2_BENCH_DAMAGE_H

#include "core/base/error.h"

#include <stdbool.h>

enum {
    DAMAGE_LEAKS = 1000000,  /* L2 entries that are set to zero */
    DAMAGE_CORRUPT = 100000, /* L2 entries that are made wrong */
};

/* Damage the healthy, fully allocated image at `path`: all in one stretch of the guest's disk, or
 * scattered over all of it. The same image always gets the same damage. */
int damage_image(const char *path, bool scattered, struct q2_error *err);

#endif
