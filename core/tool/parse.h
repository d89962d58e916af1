/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The loop over a command's options. */

#ifndef Q2_TOOL_PARSE_H
#define Q2_TOOL_PARSE_H

#include "core/tool/tool.h"

struct parse {
    const struct tool_command *command;
    const char *letters; /* as tool_option_next has them */
    const struct option *longs;
    /* Take an option that is the command's own, with its argument in `optarg`; false after a
     * message. */
    bool (*set)(void *data, int option);
    void *data;
};

/* Read all options. True: go on with the arguments from optind; otherwise *ret_status is the exit
 * status. */
bool parse_options(const struct parse *parse, struct tool_common *common, int argc, char **argv,
                   int *ret_status);

#endif
