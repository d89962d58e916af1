/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* For a command that opens the file itself. */

#ifndef Q2_TOOL_OPEN_H
#define Q2_TOOL_OPEN_H

#include "core/tool/tool.h"

/* The path of the file that the command line calls `name`, which the caller frees, and the format
 * that was named (Q2_DISK_PROBE: none). Says what is wrong. */
bool tool_open_path(const struct tool_common *common, const char *name, char **ret_path,
                    enum q2_disk_format *ret_format);

#endif
