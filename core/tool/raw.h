/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The size of raw files. */

#ifndef Q2_TOOL_RAW_H
#define Q2_TOOL_RAW_H

#include "core/image/create.h"
#include "core/io/file.h"

/* Give a raw file, which has `from` bytes, `to` bytes. What is added is preallocated as asked for.
 * A block device keeps its size, which must suffice. */
int raw_resize(struct q2_file *file, uint64_t from, uint64_t to,
               enum q2_preallocation preallocation, struct q2_error *err);

#endif
