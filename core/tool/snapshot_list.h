/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The table of an image's snapshots, which two commands print. */

#ifndef Q2_TOOL_SNAPSHOT_LIST_H
#define Q2_TOOL_SNAPSHOT_LIST_H

#include "core/image/snapshots.h"

/* Prints nothing where there are none. */
void snapshot_list_print(const struct q2_image *image);

#endif
