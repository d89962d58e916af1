/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* L1 and L2 entries: what is said of one is held against a second reading of the specification,
 * compressed descriptors come back as they were, runs hold no entry that breaks a rule, and strict
 * reading refuses just the entries that break one.
 *
 * Input: measures, flags, a guest offset, and entries. */

#include "core/base/checked.h"
#include "core/format/references.h"
#include "core/image/image.h"
#include "fuzz/support/format.h"

#include <stdlib.h>
#include <string.h>

enum { STRICT = 1 << 0, AS_L1 = 1 << 1, V2 = 1 << 2, EXTENDED = 1 << 3 };

static const enum q2_problem l1_problems[] = {
    Q2_PROBLEM_L1_ENTRY_RESERVED,
    Q2_PROBLEM_L1_ENTRY_UNALIGNED,
    Q2_PROBLEM_L1_ENTRY_PAST_END,
    Q2_PROBLEM_L1_ENTRY_COPIED_EMPTY,
};
static const enum q2_problem l2_problems[] = {
    Q2_PROBLEM_L2_ENTRY_RESERVED,        Q2_PROBLEM_L2_ENTRY_UNALIGNED,
    Q2_PROBLEM_L2_ENTRY_PAST_END,        Q2_PROBLEM_L2_ENTRY_COPIED_EMPTY,
    Q2_PROBLEM_L2_ENTRY_ZERO_V2,         Q2_PROBLEM_L2_ENTRY_ZERO_EXTENDED,
    Q2_PROBLEM_L2_SUBCLUSTER_CONFLICT,   Q2_PROBLEM_L2_SUBCLUSTER_NO_OFFSET,
    Q2_PROBLEM_L2_SUBCLUSTER_COMPRESSED, Q2_PROBLEM_L2_COMPRESSED_COPIED,
    Q2_PROBLEM_L2_COMPRESSED_RESERVED,   Q2_PROBLEM_L2_COMPRESSED_PAST_END,
    Q2_PROBLEM_L2_COMPRESSED_DATA_FILE,  Q2_PROBLEM_L2_DATA_FILE_OFFSET,
};
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* A cluster that an entry leads to: it begins at a multiple, in the file. */
static void
require_inside(const struct q2_geometry *geometry, uint64_t raw)
{
    uint64_t offset = raw & UINT64_C(0x00fffffffffffe00);
    Q2_REQUIRE(offset % geometry->cluster_size == 0 && offset < geometry->file_size,
               "entry 0x%llx leads nowhere", (unsigned long long)raw);
}

static void
try_compressed(const struct q2_geometry *geometry, uint64_t raw)
{
    struct q2_compressed_range range = q2_compressed_decode(geometry, raw);
    unsigned bits = 70 - geometry->cluster_bits;
    uint64_t offset = raw & ((UINT64_C(1) << bits) - 1);
    uint64_t more = (raw & ((UINT64_C(1) << 62) - 1)) >> bits;
    Q2_REQUIRE(range.offset == offset && range.length >= 1 &&
                   range.offset + range.length == (offset / 512 + 1 + more) * 512,
               "%llu bytes at %llu", (unsigned long long)range.length,
               (unsigned long long)range.offset);
    uint64_t again = q2_compressed_encode(geometry, range.offset, range.length);
    Q2_REQUIRE(again == (raw & ~Q2_ENTRY_COPIED), "0x%llx becomes 0x%llx", (unsigned long long)raw,
               (unsigned long long)again);
    /* A length that does not end with a sector is rounded up to one. */
    uint64_t shorter = range.length - (raw >> 9 & 511) % range.length;
    struct q2_compressed_range other =
        q2_compressed_decode(geometry, q2_compressed_encode(geometry, offset, shorter));
    Q2_REQUIRE(other.offset == offset && other.length >= shorter && other.length < shorter + 512,
               "%llu bytes become %llu", (unsigned long long)shorter,
               (unsigned long long)other.length);
}

static void
try_clusters(const struct q2_geometry *geometry, uint64_t raw)
{
    uint64_t first = 0, count = 0;
    if (!q2_entry_clusters(geometry, raw, &first, &count))
        return;
    Q2_REQUIRE(count >= 1 && q2_range_inside(first, count, geometry->file_clusters) &&
                   !geometry->data_file,
               "entry 0x%llx counts %llu clusters from %llu on", (unsigned long long)raw,
               (unsigned long long)count, (unsigned long long)first);
    Q2_REQUIRE((raw & Q2_ENTRY_COMPRESSED) || count == 1, "a standard cluster is %llu",
               (unsigned long long)count);
}

static void
try_entry(const struct q2_geometry *geometry, const struct q2_l2_entry *entry, uint64_t guest)
{
    struct q2_fuzz_rules l1, l2;
    q2_fuzz_rules_init(&l1);
    q2_fuzz_rules_init(&l2);
    if (q2_l1_entry_validate(geometry, entry->raw, 0, &l1.sink))
        require_inside(geometry, entry->raw);
    bool readable = q2_l2_entry_validate(geometry, entry, 0, guest, &l2.sink);
    bool packed = entry->raw >> 62 & 1;
    Q2_REQUIRE(packed == (q2_l2_kind(geometry, entry->raw) == Q2_CLUSTER_COMPRESSED), "the kind");
    if (readable && !packed && !geometry->data_file)
        require_inside(geometry, entry->raw);
    if (readable && packed) {
        struct q2_compressed_range range = q2_compressed_decode(geometry, entry->raw);
        Q2_REQUIRE(q2_range_inside(range.offset, range.length,
                                   geometry->file_clusters * geometry->cluster_size),
                   "entry 0x%llx leads nowhere", (unsigned long long)entry->raw);
    }
    if (entry->raw == 0 && entry->bitmap == 0)
        Q2_REQUIRE(l1.count == 0 && l2.count == 0, "an empty entry breaks %u rules", l2.count);
    if (packed)
        try_compressed(geometry, entry->raw);
    try_clusters(geometry, entry->raw);
}

/* No rule about single entries is broken in a run. */
static void
try_runs(const struct q2_geometry *geometry, const uint8_t *table, uint64_t entries)
{
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t empty = q2_empty_run(geometry, table, i, entries);
        uint64_t plain = q2_plain_run(geometry, table, i, entries);
        Q2_REQUIRE(empty <= entries - i && plain <= entries - i && !(empty && plain),
                   "runs of %llu and %llu entries", (unsigned long long)empty,
                   (unsigned long long)plain);
        for (uint64_t k = i; k < i + empty + plain; k++) {
            struct q2_l2_entry entry = q2_l2_load(geometry, table, k);
            struct q2_fuzz_rules rules;
            q2_fuzz_rules_init(&rules);
            q2_l2_entry_validate(geometry, &entry, 0, 0, &rules.sink);
            Q2_REQUIRE(rules.count == 0, "entry 0x%llx of a run breaks %u rules",
                       (unsigned long long)entry.raw, rules.count);
        }
        i += empty + plain;
    }
}

/* An image with this entry, read where it maps. */
static void
ask_strict(unsigned flags, const struct q2_l2_entry *entry)
{
    struct q2_fuzz_minimal minimal;
    struct q2_fuzz_rules rules;
    struct q2_error err = {0};
    struct q2_image *image = NULL;
    uint8_t byte;
    q2_fuzz_minimal_init(&minimal, flags & V2 ? 2 : 3, flags & EXTENDED);
    q2_fuzz_rules_init(&rules);
    uint8_t *at = q2_fuzz_minimal_cluster(&minimal, Q2_FUZZ_MINIMAL_L1);
    if (flags & AS_L1) {
        q2_l1_entry_validate(&minimal.geometry, entry->raw, 0, &rules.sink);
    } else {
        at = q2_fuzz_minimal_cluster(&minimal, Q2_FUZZ_MINIMAL_L2);
        q2_l2_entry_validate(&minimal.geometry, entry, 0, 0, &rules.sink);
        if (minimal.geometry.extended_l2)
            q2_store_be64(at + 8, entry->bitmap);
    }
    q2_store_be64(at, entry->raw);
    int rc = q2_fuzz_minimal_open(q2_fuzz_minimal_file(&minimal), 0, &image, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
    rc = q2_image_read(image, 0, &byte, 1, &err);
    if (flags & AS_L1)
        q2_fuzz_rules_agree(&rules, l1_problems, COUNT(l1_problems), rc, &err);
    else
        q2_fuzz_rules_agree(&rules, l2_problems, COUNT(l2_problems), rc, &err);
    q2_image_close(image, NULL);
}

static void
run(const uint8_t *input, size_t length)
{
    struct q2_fuzz_cursor cursor = {input, length};
    struct q2_geometry geometry;
    q2_fuzz_geometry(&cursor, &geometry);
    unsigned flags = q2_fuzz_u8(&cursor);
    uint64_t guest = q2_fuzz_u64(&cursor) & ~(geometry.cluster_size - 1);
    uint64_t entries = cursor.left / geometry.l2_entry_size;
    const uint8_t *table = cursor.at;
    for (uint64_t i = 0; i < entries; i++) {
        struct q2_l2_entry entry = q2_l2_load(&geometry, table, i);
        try_entry(&geometry, &entry, guest);
        if (i == 0 && (flags & STRICT))
            ask_strict(flags, &entry);
    }
    if (entries > 0)
        try_runs(&geometry, table, entries);
}

const struct q2_harness q2_harness = {"entries", Q2_FUZZ_BYTES, 1024, run};
