/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/tool/say.h"

#include "core/format/problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_SIZE = 2048 };

/* Backslashes stay as they are: messages may have been made printable before. */
static void
make_printable(char *buffer, size_t size, const char *text)
{
    size_t used = 0;
    buffer[0] = '\0';
    while (*text && used + 2 < size) {
        size_t length = strcspn(text, "\\");
        q2_printable(buffer + used, size - used - 1, text, length);
        used += strlen(buffer + used);
        text += length;
        if (*text == '\\') {
            buffer[used++] = *text++;
            buffer[used] = '\0';
        }
    }
}

/* One write for each line, so that lines of several processes do not mix. */
static void
say(const char *first, const char *format, va_list args)
{
    char message[LINE_SIZE], printable[LINE_SIZE], line[2 * LINE_SIZE];
    int used = first ? snprintf(message, sizeof message, "%.1024s: ", first) : 0;
    vsnprintf(message + used, sizeof message - (size_t)used, format, args);
    make_printable(printable, sizeof printable, message);
    int length = snprintf(line, sizeof line, "qcow2-check: %s\n", printable);
    fwrite(line, 1, (size_t)length, stderr);
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
