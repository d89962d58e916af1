/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the program can be asked for. Each says on stderr what goes wrong and returns an exit
 * status. */

#ifndef Q2_REPAIR_TOOL_COMMANDS_H
#define Q2_REPAIR_TOOL_COMMANDS_H

#include "checker/check.h"
#include "repair/tool/options.h"

int command_repair(const struct options *options);
int command_undo(const struct options *options);
int command_salvage(const struct options *options);
int command_explain(const struct options *options);

/* Say what went wrong with `name`, with JSON on the output too; `hint` follows it, NULL for none.
 * Returns the exit status. */
int command_fail(const struct options *options, const char *name, const struct q2_error *err,
                 const char *hint);

/* Refuse a journal that is the image: opening both would find the image in use. */
int command_refuse_image(const struct options *options, const char *image, struct q2_error *err);

/* Whether progress is to be shown. */
bool command_shows_progress(const struct options *options);

#endif
