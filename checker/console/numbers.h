/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Numbers of a command line. */

#ifndef Q2_CHECKER_CONSOLE_NUMBERS_H
#define Q2_CHECKER_CONSOLE_NUMBERS_H

#include <stdbool.h>
#include <stdint.h>

/* A number with an optional suffix K, M, G, T, P or E (or KiB ...), decimal or 0x hexadecimal. */
bool numbers_parse_size(const char *text, uint64_t *ret_size);

/* The value of `option`, from `min` to `max`; says on stderr if it is none. */
bool numbers_parse(const char *option, const char *text, uint64_t min, uint64_t max,
                   uint64_t *ret_value);

/* The same for a number of threads or of jobs. */
bool numbers_parse_jobs(const char *option, const char *text, unsigned *ret_value);

#endif
