/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Numbers as people read them, for the reports. Each function returns a small struct by value, so
 * that `.text` can be handed straight to printf. */

#ifndef Q2_CHECKER_FORMAT_H
#define Q2_CHECKER_FORMAT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct q2_text {
    char text[64];
};

/* A size, rounded: "64 KiB", "1.5 GiB", "512 bytes". */
struct q2_text q2_format_size(uint64_t bytes);

/* A half-open guest range, exact, both ends in one unit: "64K-128K". */
struct q2_text q2_format_range(uint64_t offset, uint64_t length);

/* A half-open host range: "0x50000-0x60000", or only its start where it has no length. */
struct q2_text q2_format_host(uint64_t offset, uint64_t length);

/* A count with separators: "1,048,576". */
struct q2_text q2_format_count(uint64_t count);

/* `count` of something: "1 leak", "12 leaks". `noun` takes an s. */
struct q2_text q2_format_plural(uint64_t count, const char *noun);

/* A value found in the image: small ones in decimal, others in hexadecimal. */
struct q2_text q2_format_value(uint64_t value);

/* `part` of `whole` as "12.34 %". */
struct q2_text q2_format_percent(uint64_t part, uint64_t whole);

/* Append to `buffer`, of which *used bytes are taken; what does not fit is cut off. The buffer is
 * always terminated and *used never passes its end. */
void q2_format_append(char *buffer, size_t size, size_t *used, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Write `text` in lines of at most 80 columns, each indented by `indent` spaces, the first by
 * `first` (what the caller has already written of that line). Ends with a newline. */
void q2_format_wrap(FILE *out, unsigned first, unsigned indent, const char *text);

/* A file name as an argument that a shell reads back as this name. Control characters come out
 * escaped. Returns `buffer`, always terminated; too long a name is cut. */
const char *q2_format_shell(char *buffer, size_t size, const char *name);

#endif
