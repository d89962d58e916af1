/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/format/message.h"

#include "core/format/problem.h"

#include <stdio.h>
#include <string.h>

enum { TEXT_SIZE = 2048 };

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

size_t
q2_message_line(char buffer[Q2_MESSAGE_SIZE], const char *program, const char *first,
                const char *format, va_list args)
{
    char message[TEXT_SIZE], printable[TEXT_SIZE];
    int used = first ? snprintf(message, sizeof message, "%.1024s: ", first) : 0;
    vsnprintf(message + used, sizeof message - (size_t)used, format, args);
    make_printable(printable, sizeof printable, message);
    int length = snprintf(buffer, Q2_MESSAGE_SIZE, "%.64s: %s\n", program, printable);
    return (size_t)length;
}
