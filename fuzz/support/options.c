/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Options at the end of an image. */

#include "core/base/endian.h"
#include "fuzz/fuzz.h"

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
