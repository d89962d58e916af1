/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The lines that programs write to stderr. */

#ifndef Q2_FORMAT_MESSAGE_H
#define Q2_FORMAT_MESSAGE_H

#include <stdarg.h>
#include <stddef.h>

enum { Q2_MESSAGE_SIZE = 4200 }; /* a buffer that holds any message */

/* Make "PROGRAM: FIRST: message" and a newline, without control characters of a file's name;
 * `first` may be NULL. What is too long is cut. Returns the length of the line: written at once,
 * lines of several processes do not mix. */
size_t q2_message_line(char buffer[Q2_MESSAGE_SIZE], const char *program, const char *first,
                       const char *format, va_list args) __attribute__((format(printf, 4, 0)));

#endif
