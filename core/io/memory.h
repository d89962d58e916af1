/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A file in memory, sparse: only blocks that were written take space, so that an image of exabytes
 * can be tested. */

#ifndef Q2_IO_MEMORY_H
#define Q2_IO_MEMORY_H

#include "core/io/file.h"

/* Make an empty, writable file. `name` is for messages. */
int q2_file_new_memory(const char *name, struct q2_file **ret_file, struct q2_error *err);

/* Make a file with a copy of `length` bytes at `bytes` as its content. */
int q2_file_new_memory_from(const char *name, const void *bytes, size_t length,
                            struct q2_file **ret_file, struct q2_error *err);

#endif
