/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Whether memory holds nothing but zeros: asked of all data that is copied, so it is done at the
 * speed of memory, and data that is not zero mostly says so in its first bytes. */

#ifndef Q2_BASE_ZEROS_H
#define Q2_BASE_ZEROS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* At any alignment and of any length. */
static inline bool
q2_is_zero(const void *memory, size_t length)
{
    typedef uint64_t q2_lane __attribute__((vector_size(32), aligned(1), may_alias));
    const unsigned char *bytes = memory;
    for (; length % 128; length--, bytes++)
        if (*bytes)
            return false;
    for (; length; length -= 128, bytes += 128) {
        const q2_lane *lanes = (const q2_lane *)bytes;
        q2_lane any = (lanes[0] | lanes[1]) | (lanes[2] | lanes[3]);
        if (any[0] | any[1] | any[2] | any[3])
            return false;
    }
    return true;
}

#endif
