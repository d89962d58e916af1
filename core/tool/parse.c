/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/tool/parse.h"

bool
parse_options(const struct parse *parse, struct tool_common *common, int argc, char **argv,
              int *ret_status)
{
    for (;;) {
        int option =
            tool_option_next(common, parse->command, argc, argv, parse->letters, parse->longs);
        if (option == TOOL_OPTION_END)
            return true;
        if (option >= 0 && parse->set && parse->set(parse->data, option))
            continue;
        *ret_status = option >= 0 ? TOOL_FAILED : tool_option_status(option);
        return false;
    }
}
