/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/format/refcount.h"

#include "core/base/endian.h"

/* Refcounts narrower than a byte fill it from the least significant bit. */
static unsigned
narrow_shift(unsigned order, uint64_t index)
{
    unsigned per_byte_bits = 3 - order;
    return (unsigned)(index & ((1U << per_byte_bits) - 1)) << order;
}

uint64_t
q2_refcount_get(const uint8_t *block, unsigned order, uint64_t index)
{
    switch (order) {
    case 3:
        return block[index];
    case 4:
        return q2_load_be16(block + index * 2);
    case 5:
        return q2_load_be32(block + index * 4);
    case 6:
        return q2_load_be64(block + index * 8);
    default:
        return (uint64_t)block[index >> (3 - order)] >> narrow_shift(order, index) &
               q2_refcount_max(order);
    }
}

void
q2_refcount_set(uint8_t *block, unsigned order, uint64_t index, uint64_t value)
{
    switch (order) {
    case 3:
        block[index] = (uint8_t)value;
        return;
    case 4:
        q2_store_be16(block + index * 2, (uint16_t)value);
        return;
    case 5:
        q2_store_be32(block + index * 4, (uint32_t)value);
        return;
    case 6:
        q2_store_be64(block + index * 8, value);
        return;
    default: {
        unsigned shift = narrow_shift(order, index);
        uint8_t *byte = &block[index >> (3 - order)];
        *byte = (uint8_t)((*byte & ~(q2_refcount_max(order) << shift)) | value << shift);
    }
    }
}

bool
q2_refcount_entry_validate(const struct q2_geometry *geometry, uint64_t raw, uint64_t at,
                           const struct q2_sink *sink)
{
    uint64_t offset = raw & ~Q2_REFCOUNT_TABLE_RESERVED;
    if (raw & Q2_REFCOUNT_TABLE_RESERVED)
        q2_violate_expected(sink, Q2_PROBLEM_REFCOUNT_TABLE_RESERVED, at, 8, raw, offset, NULL);
    if (offset & (geometry->cluster_size - 1)) {
        q2_violate(sink, Q2_PROBLEM_REFCOUNT_BLOCK_UNALIGNED, at, 8, raw, NULL);
        return false;
    }
    if (offset >= geometry->file_size) {
        q2_violate(sink, Q2_PROBLEM_REFCOUNT_BLOCK_PAST_END, at, 8, raw, NULL);
        return false;
    }
    return offset != 0;
}
