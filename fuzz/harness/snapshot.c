/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Entries of the snapshot table: what was decoded is encoded and decoded to the same, an entry that
 * says all it can comes back byte for byte, and strict open agrees with the rules about a table of
 * one entry, which it would write back as it was.
 *
 * Input: measures, flags, and the entry. */

#include "core/format/snapshot.h"

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/image/internal.h"
#include "core/image/snapshot_table.h"
#include "fuzz/support/format.h"

#include <stdlib.h>
#include <string.h>

enum { STRICT = 1 << 0, V2 = 1 << 1, VM_STATE_AT = 32, FULL = 56 };

static const enum q2_problem problems[] = {
    Q2_PROBLEM_SNAPSHOT_EXTRA_SHORT,  Q2_PROBLEM_SNAPSHOT_EXTRA_BIG,
    Q2_PROBLEM_SNAPSHOT_ID_EMPTY,     Q2_PROBLEM_SNAPSHOT_DATE,
    Q2_PROBLEM_SNAPSHOT_L1_UNALIGNED, Q2_PROBLEM_SNAPSHOT_L1_TOO_BIG,
    Q2_PROBLEM_SNAPSHOT_L1_TOO_SMALL, Q2_PROBLEM_SNAPSHOT_L1_PAST_END,
    Q2_PROBLEM_SNAPSHOT_VM_STATE,
};

static bool
is_same(const struct q2_snapshot *a, const struct q2_snapshot *b)
{
    return a->at == b->at && a->l1_table_offset == b->l1_table_offset && a->l1_size == b->l1_size &&
           a->id_length == b->id_length && a->name_length == b->name_length &&
           a->date_seconds == b->date_seconds && a->date_nanoseconds == b->date_nanoseconds &&
           a->vm_clock_nanoseconds == b->vm_clock_nanoseconds &&
           a->extra_length == b->extra_length && a->vm_state_size == b->vm_state_size &&
           a->disk_size == b->disk_size && a->has_disk_size == b->has_disk_size;
}

static void
try_fields(const struct q2_geometry *geometry, const uint8_t *bytes,
           const struct q2_snapshot *snapshot)
{
    uint8_t out[FULL];
    struct q2_snapshot again, expected = *snapshot;
    memset(out, 0xee, sizeof out);
    q2_snapshot_encode(snapshot, out);
    q2_snapshot_decode(geometry, out, snapshot->at, &again);
    expected.extra_length = Q2_SNAPSHOT_EXTRA_LENGTH;
    expected.has_disk_size = true;
    Q2_REQUIRE(is_same(&again, &expected), "the bytes become other fields");
    if (snapshot->extra_length != Q2_SNAPSHOT_EXTRA_LENGTH)
        return;
    /* The narrow field counts for nothing beside the wide one. */
    Q2_REQUIRE(memcmp(out, bytes, VM_STATE_AT) == 0 &&
                   memcmp(out + VM_STATE_AT + 4, bytes + VM_STATE_AT + 4, FULL - VM_STATE_AT - 4) ==
                       0,
               "the fields become other bytes");
}

static void
try_rules(const struct q2_geometry *geometry, const struct q2_snapshot *snapshot)
{
    struct q2_fuzz_rules rules;
    q2_fuzz_rules_init(&rules);
    uint64_t table = (uint64_t)snapshot->l1_size * 8;
    bool readable = q2_snapshot_validate(geometry, snapshot, 1 << 30, &rules.sink);
    Q2_REQUIRE(!readable || table == 0 ||
                   (table <= 32 << 20 && snapshot->l1_table_offset % geometry->cluster_size == 0 &&
                    q2_range_inside(snapshot->l1_table_offset, table, geometry->file_size)),
               "the L1 table at 0x%llx cannot be read",
               (unsigned long long)snapshot->l1_table_offset);
    Q2_REQUIRE(readable || rules.breaking, "not readable, but no rule says so");
}

/* Strict open keeps what it has read: written, the table is what it was, but for the narrow field,
 * and for padding. */
static void
require_kept(const struct q2_image *image, const uint8_t *bytes, const struct q2_snapshot *fixed)
{
    uint64_t length = q2_snapshots_length(image->snapshots);
    uint8_t *out = malloc(length);
    Q2_REQUIRE(out, "no memory");
    memset(out, 0xee, length);
    q2_snapshots_encode(image->snapshots, out);
    uint64_t said = (uint64_t)Q2_SNAPSHOT_FIXED_LENGTH + fixed->extra_length + fixed->id_length +
                    fixed->name_length;
    size_t rest = VM_STATE_AT + 4;
    Q2_REQUIRE(length == (said + 7) / 8 * 8 && memcmp(out, bytes, VM_STATE_AT) == 0 &&
                   memcmp(out + rest, bytes + rest, said - rest) == 0,
               "the table becomes another one");
    Q2_REQUIRE(fixed->extra_length >= 8 || memcmp(out, bytes, rest) == 0, "the VM state is lost");
    free(out);
}

static void
ask_strict(unsigned flags, const uint8_t *bytes, size_t length)
{
    struct q2_fuzz_minimal minimal;
    struct q2_fuzz_rules rules;
    struct q2_error err = {0};
    struct q2_image *image = NULL;
    struct q2_snapshot snapshot;
    uint8_t start[FULL] = {0};
    q2_fuzz_minimal_init(&minimal, flags & V2 ? 2 : 3, false);
    q2_fuzz_rules_init(&rules);
    uint8_t *table = q2_fuzz_minimal_cluster(&minimal, Q2_FUZZ_MINIMAL_FREE);
    size_t room = sizeof minimal.bytes - (size_t)(table - minimal.bytes);
    memcpy(table, bytes, length < room ? length : room);
    memcpy(start, table, sizeof start);
    minimal.header.nb_snapshots = 1;
    minimal.header.snapshots_offset = (uint64_t)(table - minimal.bytes);
    q2_snapshot_decode(&minimal.geometry, start, 0, &snapshot);
    q2_snapshot_validate(&minimal.geometry, &snapshot, 0, &rules.sink);
    uint64_t said = (uint64_t)Q2_SNAPSHOT_FIXED_LENGTH + snapshot.extra_length +
                    snapshot.id_length + snapshot.name_length;
    int rc = q2_fuzz_minimal_open(q2_fuzz_minimal_file(&minimal), 0, &image, &err);
    q2_fuzz_rules_agree(&rules, problems, sizeof problems / sizeof problems[0], rc, &err);
    Q2_REQUIRE((rc == 0) == (rules.breaking == 0 && said <= room), "%s", err.message);
    if (rc == 0)
        require_kept(image, table, &snapshot);
    q2_image_close(image, NULL);
}

static void
run(const uint8_t *input, size_t length)
{
    struct q2_fuzz_cursor cursor = {input, length};
    struct q2_geometry geometry;
    struct q2_snapshot snapshot;
    q2_fuzz_geometry(&cursor, &geometry);
    unsigned flags = q2_fuzz_u8(&cursor);
    uint64_t at = (uint64_t)q2_fuzz_u16(&cursor) * 8;
    length = cursor.left;
    if (length < Q2_SNAPSHOT_FIXED_LENGTH)
        return;
    /* No more than the decoder is promised. */
    uint64_t extra = q2_load_be32(cursor.at + 36);
    size_t start = Q2_SNAPSHOT_FIXED_LENGTH + (size_t)q2_min(extra, Q2_SNAPSHOT_EXTRA_LENGTH);
    uint8_t *bytes = malloc(start > length ? start : length);
    Q2_REQUIRE(bytes, "no memory");
    memset(bytes, 0, start);
    memcpy(bytes, cursor.at, start < length ? start : length);
    uint64_t said = (40 + extra + q2_load_be16(bytes + 12) + q2_load_be16(bytes + 14) + 7) / 8 * 8;
    Q2_REQUIRE(q2_snapshot_length(bytes) == said, "%llu bytes", (unsigned long long)said);
    q2_snapshot_decode(&geometry, bytes, at, &snapshot);
    try_fields(&geometry, bytes, &snapshot);
    try_rules(&geometry, &snapshot);

    memcpy(bytes, cursor.at, length);
    bool plausible = q2_snapshot_plausible(&geometry, bytes, length, at);
    Q2_REQUIRE(!plausible || said <= length, "an entry of %llu bytes", (unsigned long long)said);
    if (flags & STRICT)
        ask_strict(flags, bytes, length);
    free(bytes);
}

const struct q2_harness q2_harness = {"snapshot", Q2_FUZZ_BYTES, 2048, run};
