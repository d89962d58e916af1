/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#ifndef Q2_TOOL_HOLES_H
#define Q2_TOOL_HOLES_H

#include "core/image/disk.h"

/* Cut an extent of `disk` where a hole of the file below begins or ends, and say of holes that they
 * are zero, as QEMU does: in images that are preallocated, and in raw files. */
void tool_look_for_holes(struct q2_disk *disk, struct q2_extent *extent);

#endif
