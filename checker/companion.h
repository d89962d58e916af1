/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The other files of an image: its chain of backing files and its external data file. Opening them
 * is a step of its own, taken only when asked for and before a program shuts itself in; judging
 * them is a pass of the check. */

#ifndef Q2_CHECKER_COMPANION_H
#define Q2_CHECKER_COMPANION_H

#include "core/io/file.h"

enum { Q2_MAX_CHAIN = 200 };

struct q2_companions;

/* Open what `image` (found at `path`) names, and what that names in turn. Relative names are
 * relative to the folder of the file that names them; protocol and JSON names are not followed.
 * What cannot be opened is remembered as such and becomes a finding. Fails only for lack of memory.
 */
int q2_companions_open(struct q2_file *image, const char *path, bool force_share,
                       struct q2_companions **ret_companions, struct q2_error *err);
void q2_companions_free(struct q2_companions *companions);

#endif
