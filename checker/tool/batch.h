/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Many images: a process for each, several at a time. */

#ifndef Q2_CHECKER_TOOL_BATCH_H
#define Q2_CHECKER_TOOL_BATCH_H

#include "checker/tool/find.h"
#include "checker/tool/image.h"

/* Check all images of the list and print a summary. Reports come in the order of the list. Returns
 * the worst exit status: 1, 2, 3, then 63, then 0. */
int batch_run(const struct options *options, const struct find_list *list,
              const struct output *output);

#endif
