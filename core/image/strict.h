/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* How the image uses the rules of core/format: the first one that is broken becomes an error. */

#ifndef Q2_IMAGE_STRICT_H
#define Q2_IMAGE_STRICT_H

#include "core/base/error.h"
#include "core/format/problem.h"

struct q2_strict {
    struct q2_sink sink; /* pass this to a validator */
    bool broken;
    struct q2_violation first;
    const char *file_name;
};

/* Prepare; `strict` must stay where it is. What is merely noteworthy or suspicious, and the dirty
 * and corrupt bits (which open has its own rules for), do not count as broken. */
void q2_strict_init(struct q2_strict *strict, const char *file_name);

/* 0, or an error that names the problem, its place and the value: Q2_ERR_FORMAT, or
 * Q2_ERR_UNSUPPORTED for unknown features. */
int q2_strict_result(const struct q2_strict *strict, struct q2_error *err);

#endif
