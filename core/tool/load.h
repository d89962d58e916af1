/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* -l: read a snapshot instead of the active state. */

#ifndef Q2_TOOL_LOAD_H
#define Q2_TOOL_LOAD_H

#include "core/tool/tool.h"

/* `text` is an id or a name, or a list of snapshot.id= and snapshot.name=. Says what is wrong. */
bool load_snapshot(struct q2_disk *disk, const char *text);

#endif
