/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/format/message.h"
#include "core/tool/tool.h"

#include <stdio.h>
#include <string.h>

static void
say(const char *first, const char *format, va_list args)
{
    char line[Q2_MESSAGE_SIZE];
    fflush(stdout); /* so that a log has both in the order in which they were said */
    fwrite(line, 1, q2_message_line(line, "qcow2-img", first, format, args), stderr);
}

void
tool_say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(NULL, format, args);
    va_end(args);
}

int
tool_say_usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(NULL, format, args);
    va_end(args);
    fputs("Try 'qcow2-img --help' for more information\n", stderr);
    return TOOL_FAILED;
}

int
tool_fail(const char *what, const struct q2_error *err)
{
    const char *message = err->message[0] ? err->message : q2_error_text(err->code);
    /* Messages of files begin with the file's name themselves. */
    size_t length = what ? strlen(what) : 0;
    bool named = what && strncmp(message, what, length) == 0 && message[length] == ':';
    if (what && !named)
        tool_say("%s: %s", what, message);
    else
        tool_say("%s", message);
    return TOOL_FAILED;
}
