/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What goes to stderr: one line for each message, never a control character of a file's name. */

#ifndef Q2_CHECKER_TOOL_SAY_H
#define Q2_CHECKER_TOOL_SAY_H

#include <stdbool.h>

/* "qcow2-check: FILE: message"; `file` may be NULL. */
void say_error(const char *file, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "qcow2-check: note: message". */
void say_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Whether colours and cursor movements go well with what is at this descriptor. */
bool say_is_terminal(int fd);
bool say_may_colour(int fd);

#endif
