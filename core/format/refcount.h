/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Refcount table entries and refcounts of 1 to 64 bits ("Host cluster management"). */

#ifndef Q2_FORMAT_REFCOUNT_H
#define Q2_FORMAT_REFCOUNT_H

#include "core/format/header.h"

#define Q2_REFCOUNT_TABLE_RESERVED UINT64_C(0x1ff)

/* Refcount `index` of a refcount block whose refcounts are 2^order bits wide. */
uint64_t q2_refcount_get(const uint8_t *block, unsigned order, uint64_t index);

/* `value` must not exceed q2_refcount_max(order). */
void q2_refcount_set(uint8_t *block, unsigned order, uint64_t index, uint64_t value);

static inline uint64_t
q2_refcount_max(unsigned order)
{
    return UINT64_MAX >> (64 - (1U << order));
}

/* Hold entry `raw` of the refcount table, found at host offset `at`, against the rules. Returns
 * whether it leads to a refcount block that can be read. */
bool q2_refcount_entry_validate(const struct q2_geometry *geometry, uint64_t raw, uint64_t at,
                                const struct q2_sink *sink);

#endif
