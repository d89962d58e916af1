/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Choices from bytes, and the way to fail. */

#include "fuzz/fuzz.h"

#include "core/base/endian.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
q2_fuzz_die(const char *file, int line, const char *what, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "%s: %s:%d: %s does not hold: %s\n", q2_harness.name, file, line, what, text);
    abort();
}

const uint8_t *
q2_fuzz_take(struct q2_fuzz_cursor *cursor, size_t length, size_t *ret_length)
{
    const uint8_t *at = cursor->at;
    size_t taken = length < cursor->left ? length : cursor->left;
    if (taken > 0)
        cursor->at += taken;
    cursor->left -= taken;
    *ret_length = taken;
    return at;
}

/* A big-endian number of `width` bytes. */
static uint64_t
number(struct q2_fuzz_cursor *cursor, size_t width)
{
    uint8_t bytes[8] = {0};
    size_t length;
    const uint8_t *at = q2_fuzz_take(cursor, width, &length);
    if (length > 0)
        memcpy(bytes + 8 - width, at, length);
    return q2_load_be64(bytes);
}

uint8_t
q2_fuzz_u8(struct q2_fuzz_cursor *cursor)
{
    return (uint8_t)number(cursor, 1);
}

uint16_t
q2_fuzz_u16(struct q2_fuzz_cursor *cursor)
{
    return (uint16_t)number(cursor, 2);
}

uint32_t
q2_fuzz_u32(struct q2_fuzz_cursor *cursor)
{
    return (uint32_t)number(cursor, 4);
}

uint64_t
q2_fuzz_u64(struct q2_fuzz_cursor *cursor)
{
    return number(cursor, 8);
}

uint64_t
q2_fuzz_below(struct q2_fuzz_cursor *cursor, uint64_t limit)
{
    size_t width = 1;
    while (width < 8 && (limit - 1) >> (8 * width) != 0)
        width++;
    return number(cursor, width) % limit;
}

size_t
q2_fuzz_split(const uint8_t *input, size_t length, struct q2_fuzz_options *ret_options)
{
    *ret_options = (struct q2_fuzz_options){0};
    if (length < Q2_FUZZ_OPTIONS_LENGTH ||
        q2_load_be64(input + length - Q2_FUZZ_OPTIONS_LENGTH) != Q2_FUZZ_OPTIONS_MAGIC)
        return length;
    const uint8_t *at = input + length - 8;
    *ret_options = (struct q2_fuzz_options){
        .level = at[0],
        .flags = at[1],
        .number = q2_load_be16(at + 2),
        .chance = q2_load_be32(at + 4),
    };
    return length - Q2_FUZZ_OPTIONS_LENGTH;
}
