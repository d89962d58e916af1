/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Choices from bytes. */

#include "core/base/endian.h"
#include "fuzz/fuzz.h"

#include <string.h>

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
