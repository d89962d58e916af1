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

/* Messages of files begin with the file's name themselves: what is behind it. */
static const char *
without_name(const char *message, const char *name)
{
    size_t length = strlen(name);
    bool named = strncmp(message, name, length) == 0 && message[length] == ':';
    return named ? message + length + 1 + strspn(message + length + 1, " ") : message;
}

static const char *
text_of(const struct q2_error *err)
{
    return err->message[0] ? err->message : q2_error_text(err->code);
}

int
tool_fail(const char *what, const struct q2_error *err)
{
    if (what)
        tool_say("%s: %s", what, without_name(text_of(err), what));
    else
        tool_say("%s", text_of(err));
    return TOOL_FAILED;
}

int
tool_fail_doing(const char *name, const char *what, const char *object, const struct q2_error *err)
{
    tool_say("%s: %s '%s': %s", name, what, object, without_name(text_of(err), name));
    return TOOL_FAILED;
}
