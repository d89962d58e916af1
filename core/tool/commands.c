/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The table of commands. The build makes tool_commands.inc of the files cmd_*.c, one COMMAND(name)
 * for each, in alphabetical order. */

#include "core/tool/tool.h"

#define COMMAND(name) extern const struct tool_command tool_command_##name;
#include <tool_commands.inc>
#undef COMMAND

#define COMMAND(name) &tool_command_##name,
const struct tool_command *const tool_commands[] = {
#include <tool_commands.inc>
    NULL,
};
#undef COMMAND
