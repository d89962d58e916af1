/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Names that images have for other files. */

#ifndef Q2_IO_PATH_H
#define Q2_IO_PATH_H

#include <stdbool.h>

/* Whether software would take a name for that of a protocol, such as "nbd:..." or "json:{...}". */
bool q2_path_has_protocol(const char *name);

/* The path of the file called `name` in the file at `path`: relative names are relative to its
 * folder. The caller frees it; NULL for lack of memory. */
char *q2_path_beside(const char *path, const char *name);

#endif
