/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What `info` says of a disk, as JSON; what it prints for people is made of that. */

#ifndef Q2_TOOL_DESCRIBE_H
#define Q2_TOOL_DESCRIBE_H

#include "core/tool/tool.h"

/* Make the object for one disk; the caller puts it. *ret_object NULL: no memory. */
int describe_disk(struct q2_disk *disk, struct json_object **ret_object, struct q2_error *err);

#endif
