/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What goes to stderr: one line for each message, never a control character of a file's name. */

#ifndef Q2_CHECKER_CONSOLE_SAY_H
#define Q2_CHECKER_CONSOLE_SAY_H

#include <stdbool.h>

/* The name of the program, which messages begin with; to be set first of all. */
extern const char *say_program;

/* "PROGRAM: FILE: message"; `file` may be NULL. */
void say_error(const char *file, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "PROGRAM: note: message". */
void say_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Messages of files begin with the file's name, which say_error prints itself: what is behind it.
 */
const char *say_behind_name(const char *name, const char *message);

/* Whether colours and cursor movements go well with what is at this descriptor. */
bool say_is_terminal(int fd);
bool say_may_colour(int fd);

#endif
