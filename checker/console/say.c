/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/console/say.h"

#include "core/format/message.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *say_program = "qcow2-check";

static void
say(const char *first, const char *format, va_list args)
{
    char line[Q2_MESSAGE_SIZE];
    fwrite(line, 1, q2_message_line(line, say_program, first, format, args), stderr);
}

void
say_error(const char *file, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(file, format, args);
    va_end(args);
}

void
say_note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("note", format, args);
    va_end(args);
}

const char *
say_behind_name(const char *name, const char *message)
{
    size_t length = strlen(name);
    bool named = strncmp(message, name, length) == 0 && strncmp(message + length, ": ", 2) == 0;
    return named ? message + length + 2 : message;
}

bool
say_is_terminal(int fd)
{
    const char *term = getenv("TERM");
    return isatty(fd) && (!term || strcmp(term, "dumb") != 0);
}

bool
say_may_colour(int fd)
{
    const char *no_colour = getenv("NO_COLOR");
    return say_is_terminal(fd) && !(no_colour && *no_colour);
}
