/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* --owner: what uses a cluster of the file. */

#ifndef Q2_CHECKER_TOOL_OWNER_H
#define Q2_CHECKER_TOOL_OWNER_H

#include "checker/check.h"
#include "checker/tool/options.h"

#include <stdio.h>

/* Write the owners of the cluster at the offset that the options name. */
int owner_report(const struct options *options, const char *name, struct q2_check *check,
                 struct q2_file *file, FILE *out, struct q2_error *err);

#endif
