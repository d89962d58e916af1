/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Refcount blocks of every width against the same kept as bits, and entries of the refcount table
 * against the specification and strict opening for writing.
 *
 * Input: measures, flags, an entry of the table, and refcounts to set: index and value. */

#include "core/format/refcount.h"

#include "core/base/endian.h"
#include "core/image/image.h"
#include "fuzz/support/format.h"

#include <string.h>

enum { STRICT = 1 << 0, BLOCK = 128, STEPS_MAX = 64 };

static const enum q2_problem problems[] = {
    Q2_PROBLEM_REFCOUNT_TABLE_RESERVED,
    Q2_PROBLEM_REFCOUNT_BLOCK_UNALIGNED,
    Q2_PROBLEM_REFCOUNT_BLOCK_PAST_END,
};

/* "Refcount blocks": wider ones are big-endian, those below a byte begin with the lowest bits. */
static uint64_t
get(const uint8_t *block, unsigned order, uint64_t index)
{
    unsigned bits = 1U << order;
    uint64_t value = 0;
    if (bits < 8)
        return (unsigned)block[index * bits / 8] >> index * bits % 8 & ((1U << bits) - 1);
    for (unsigned i = 0; i < bits / 8; i++)
        value = value << 8 | block[index * bits / 8 + i];
    return value;
}

static void
try_block(struct q2_fuzz_cursor *cursor, unsigned order)
{
    uint8_t block[BLOCK], before[BLOCK];
    uint64_t entries = (BLOCK * 8) >> order;
    size_t length;
    memset(block, 0, sizeof block);
    const uint8_t *fill = q2_fuzz_take(cursor, 32, &length);
    if (length > 0)
        memcpy(block, fill, length);
    for (unsigned step = 0; step < STEPS_MAX && cursor->left > 0; step++) {
        uint64_t index = q2_fuzz_u16(cursor) % entries;
        uint64_t value = q2_fuzz_u64(cursor) & q2_refcount_max(order);
        memcpy(before, block, sizeof block);
        q2_refcount_set(block, order, index, value);
        Q2_REQUIRE(q2_refcount_get(block, order, index) == value, "%llu is lost",
                   (unsigned long long)value);
        uint64_t near = order < 3 ? 8 : 1;
        for (uint64_t i = index > near ? index - near : 0; i < entries && i <= index + near; i++) {
            uint64_t now = get(block, order, i);
            Q2_REQUIRE(now == (i == index ? value : get(before, order, i)) &&
                           now == q2_refcount_get(block, order, i),
                       "refcount %llu becomes %llu when %llu is set", (unsigned long long)i,
                       (unsigned long long)now, (unsigned long long)index);
        }
        /* And so do the bytes further away. */
        uint64_t at = (index << order) / 8, end = at + (order > 3 ? 1U << (order - 3) : 1);
        Q2_REQUIRE(memcmp(block, before, at) == 0 &&
                       memcmp(block + end, before + end, BLOCK - end) == 0,
                   "more changes than refcount %llu", (unsigned long long)index);
    }
}

static void
try_entry(const struct q2_geometry *geometry, uint64_t raw)
{
    struct q2_fuzz_rules rules;
    q2_fuzz_rules_init(&rules);
    bool leads = q2_refcount_entry_validate(geometry, raw, 0, &rules.sink);
    uint64_t offset = raw & ~UINT64_C(511);
    bool sound = raw % 512 == 0 && offset % geometry->cluster_size == 0 &&
                 (offset == 0 || offset < geometry->file_size);
    /* No file: not even its first byte is inside. */
    if (geometry->file_size > 0)
        Q2_REQUIRE(sound == (rules.count == 0), "entry 0x%llx breaks %u rules",
                   (unsigned long long)raw, rules.count);
    Q2_REQUIRE(!leads ||
                   (offset && offset < geometry->file_size && offset % geometry->cluster_size == 0),
               "entry 0x%llx leads nowhere", (unsigned long long)raw);
}

/* An image whose second entry is this one. */
static void
ask_strict(uint64_t raw)
{
    struct q2_fuzz_minimal minimal;
    struct q2_fuzz_rules rules;
    struct q2_error err = {0};
    struct q2_image *image = NULL;
    q2_fuzz_minimal_init(&minimal, 3, false);
    q2_fuzz_rules_init(&rules);
    if (raw)
        q2_refcount_entry_validate(&minimal.geometry, raw, 0, &rules.sink);
    q2_store_be64(q2_fuzz_minimal_cluster(&minimal, Q2_FUZZ_MINIMAL_REFCOUNT_TABLE) + 8, raw);
    int rc = q2_fuzz_minimal_open(q2_fuzz_minimal_file(&minimal), Q2_IMAGE_WRITE, &image, &err);
    q2_fuzz_rules_agree(&rules, problems, sizeof problems / sizeof problems[0], rc, &err);
    q2_image_close(image, NULL);
}

static void
run(const uint8_t *input, size_t length)
{
    struct q2_fuzz_cursor cursor = {input, length};
    struct q2_geometry geometry;
    q2_fuzz_geometry(&cursor, &geometry);
    unsigned flags = q2_fuzz_u8(&cursor);
    uint64_t raw = q2_fuzz_u64(&cursor);
    try_entry(&geometry, raw);
    try_block(&cursor, geometry.refcount_order);
    if (flags & STRICT)
        ask_strict(raw);
}

const struct q2_harness q2_harness = {"refcount", Q2_FUZZ_BYTES, 1024, run};
