/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Snapshot table entries: encoding, rules, and what makes bytes look like a table. */

#include "core/format/snapshot.h"

#include "core/base/endian.h"
#include "tests/unit/format_record.h"

#include <string.h>

enum { AT = 0x9000, FILE_SIZE = 0xa000, DISK = 4 << 20 };

static struct q2_geometry geometry;
static struct record record;

static void
start(void)
{
    geometry = make_geometry(12, FILE_SIZE, DISK); /* an L1 entry maps 2 MiB */
}

static struct q2_snapshot
sound(void)
{
    return (struct q2_snapshot){.at = AT,
                                .l1_table_offset = 0x5000,
                                .l1_size = 2,
                                .id_length = 1,
                                .name_length = 4,
                                .date_seconds = 1700000000,
                                .extra_length = 16,
                                .disk_size = DISK,
                                .has_disk_size = true};
}

static bool
validate(const struct q2_snapshot *snapshot, uint64_t now)
{
    struct q2_sink sink = record_sink(&record);
    return q2_snapshot_validate(&geometry, snapshot, now, &sink);
}

TestSuite(snapshot, .init = start);

Test(snapshot, round_trip)
{
    struct q2_snapshot snapshot = sound(), back;
    snapshot.l1_table_offset = UINT64_C(0x0102030405060708);
    snapshot.date_nanoseconds = 999999999;
    snapshot.vm_clock_nanoseconds = UINT64_C(0x1112131415161718);
    snapshot.vm_state_size = UINT64_C(0x100000001);
    uint8_t bytes[56];
    q2_snapshot_encode(&snapshot, bytes);
    q2_snapshot_decode(&geometry, bytes, AT, &back);
    cr_expect_eq(back.at, AT);
    cr_expect_eq(back.l1_table_offset, snapshot.l1_table_offset);
    cr_expect_eq(back.l1_size, 2);
    cr_expect_eq(back.id_length, 1);
    cr_expect_eq(back.name_length, 4);
    cr_expect_eq(back.date_nanoseconds, 999999999);
    cr_expect_eq(back.vm_clock_nanoseconds, snapshot.vm_clock_nanoseconds);
    cr_expect_eq(back.vm_state_size, snapshot.vm_state_size, "from the 64-bit field");
    cr_expect_eq(back.disk_size, DISK);
    cr_expect(back.has_disk_size);
    cr_expect_eq(q2_load_be32(bytes + 32), 0, "the 32-bit field cannot hold it");
    cr_expect_eq(q2_snapshot_length(bytes), 64, "56 + 5, padded");
}

Test(snapshot, shorter_extra_data)
{
    struct q2_snapshot snapshot = sound(), back;
    snapshot.vm_state_size = 77;
    uint8_t bytes[56];
    q2_snapshot_encode(&snapshot, bytes);
    q2_store_be64(bytes + 40, 88);
    q2_store_be64(bytes + 48, 99);
    static const struct {
        uint32_t extra;
        uint64_t vm_state;
        uint64_t disk;
    } lengths[] = {{0, 77, DISK}, {7, 77, DISK}, {8, 88, DISK}, {15, 88, DISK}, {16, 88, 99}};
    for (size_t i = 0; i < 5; i++) {
        q2_store_be32(bytes + 36, lengths[i].extra);
        q2_snapshot_decode(&geometry, bytes, AT, &back);
        cr_expect_eq(back.vm_state_size, lengths[i].vm_state, "extra %u", lengths[i].extra);
        cr_expect_eq(back.disk_size, lengths[i].disk, "extra %u", lengths[i].extra);
    }
}

Test(snapshot, length_of_the_largest)
{
    uint8_t bytes[40];
    memset(bytes, 0xff, sizeof bytes);
    cr_expect_eq(q2_snapshot_length(bytes),
                 (40 + UINT64_C(0xffffffff) + 2 * UINT64_C(0xffff) + 7) & ~UINT64_C(7));
    memset(bytes, 0, sizeof bytes);
    cr_expect_eq(q2_snapshot_length(bytes), 40);
}

/* ---- rules ---- */

Test(snapshot, a_sound_one)
{
    struct q2_snapshot snapshot = sound();
    cr_expect(validate(&snapshot, snapshot.date_seconds));
    expect_none(&record);
    snapshot.l1_size = 0;
    snapshot.l1_table_offset = 0;
    snapshot.disk_size = 0;
    cr_expect(validate(&snapshot, 0), "an empty disk needs no table");
    expect_none(&record);
}

Test(snapshot, l1_table)
{
    struct q2_snapshot snapshot = sound();
    snapshot.l1_table_offset = 0x5008;
    cr_expect(!validate(&snapshot, 0));
    expect_only(&record, Q2_PROBLEM_SNAPSHOT_L1_UNALIGNED, AT, 0x5008);
    snapshot.l1_table_offset = 0;
    cr_expect(!validate(&snapshot, 0));
    expect_only(&record, Q2_PROBLEM_SNAPSHOT_L1_UNALIGNED, AT, 0);
    snapshot.l1_table_offset = FILE_SIZE;
    cr_expect(!validate(&snapshot, 0));
    expect_only(&record, Q2_PROBLEM_SNAPSHOT_L1_PAST_END, AT, FILE_SIZE);
    snapshot.l1_table_offset = FILE_SIZE - 4096;
    snapshot.l1_size = 512;
    cr_expect(validate(&snapshot, 0), "up to the end");
    expect_none(&record);
    snapshot.l1_size = 513;
    cr_expect(!validate(&snapshot, 0));
    expect_only(&record, Q2_PROBLEM_SNAPSHOT_L1_PAST_END, AT, FILE_SIZE - 4096);
    snapshot.l1_size = (32 << 20) / 8 + 1;
    cr_expect(!validate(&snapshot, 0));
    expect_only(&record, Q2_PROBLEM_SNAPSHOT_L1_TOO_BIG, AT + 8, snapshot.l1_size);
    snapshot.l1_size = UINT32_MAX;
    snapshot.l1_table_offset = ~UINT64_C(0xfff);
    cr_expect(!validate(&snapshot, 0));
    expect_only(&record, Q2_PROBLEM_SNAPSHOT_L1_TOO_BIG, AT + 8, UINT32_MAX);
}

Test(snapshot, sizes)
{
    struct q2_snapshot snapshot = sound();
    snapshot.disk_size = DISK + 1;
    cr_expect(validate(&snapshot, 0), "what is there can be read");
    expect_only(&record, Q2_PROBLEM_SNAPSHOT_L1_TOO_SMALL, AT + 8, 2);
    cr_expect_eq(record.violations[0].expected, 3);
    snapshot.disk_size = UINT64_MAX;
    validate(&snapshot, 0);
    expect_only(&record, Q2_PROBLEM_SNAPSHOT_L1_TOO_SMALL, AT + 8, 2);

    snapshot = sound();
    snapshot.l1_size = 3;
    snapshot.vm_state_size = 2 << 20;
    validate(&snapshot, 0);
    expect_none(&record);
    snapshot.vm_state_size++;
    validate(&snapshot, 0);
    expect_only(&record, Q2_PROBLEM_SNAPSHOT_VM_STATE, AT + 40, snapshot.vm_state_size);
    geometry.version = 2;
    snapshot.extra_length = 0;
    validate(&snapshot, 0);
    expect_only(&record, Q2_PROBLEM_SNAPSHOT_VM_STATE, AT + 32, snapshot.vm_state_size);
}

Test(snapshot, extra_id_and_date)
{
    struct q2_snapshot snapshot = sound();
    snapshot.extra_length = 15;
    validate(&snapshot, 0);
    expect_only(&record, Q2_PROBLEM_SNAPSHOT_EXTRA_SHORT, AT + 36, 15);
    geometry.version = 2;
    validate(&snapshot, 0);
    expect_none(&record);
    snapshot.extra_length = 1024;
    validate(&snapshot, 0);
    expect_none(&record);
    snapshot.extra_length = 1025;
    validate(&snapshot, 0);
    expect_only(&record, Q2_PROBLEM_SNAPSHOT_EXTRA_BIG, AT + 36, 1025);

    snapshot = sound();
    snapshot.id_length = 0;
    validate(&snapshot, 0);
    expect_only(&record, Q2_PROBLEM_SNAPSHOT_ID_EMPTY, AT + 12, 0);

    snapshot = sound();
    snapshot.date_nanoseconds = 1000000000;
    validate(&snapshot, 0);
    expect_only(&record, Q2_PROBLEM_SNAPSHOT_DATE, AT + 20, 1000000000);
    snapshot.date_nanoseconds = 0;
    validate(&snapshot, snapshot.date_seconds - 86400);
    expect_none(&record);
    validate(&snapshot, snapshot.date_seconds - 86401);
    expect_only(&record, Q2_PROBLEM_SNAPSHOT_DATE, AT + 16, snapshot.date_seconds);
    cr_expect_str_eq(record.violations[0].detail, "2023-11-14 22:13:20 UTC");
}

/* ---- evidence ---- */

Test(snapshot, plausible)
{
    struct q2_snapshot snapshot = sound();
    uint8_t bytes[128] = {0};
    q2_snapshot_encode(&snapshot, bytes);
    memcpy(bytes + 56, "1name", 5);
    cr_expect(q2_snapshot_plausible(&geometry, bytes, sizeof bytes, AT));
    cr_expect(q2_snapshot_plausible(&geometry, bytes, 64, AT));
    cr_expect(!q2_snapshot_plausible(&geometry, bytes, 63, AT), "cut");
    cr_expect(!q2_snapshot_plausible(&geometry, bytes, 0, AT));

    bytes[57] = 0x1f;
    cr_expect(!q2_snapshot_plausible(&geometry, bytes, sizeof bytes, AT), "a control character");
    bytes[57] = 'n';
    static const unsigned wiped[] = {6, 11, 13}; /* L1 offset, L1 size, id length */
    for (size_t i = 0; i < 3; i++) {
        uint8_t old = bytes[wiped[i]];
        bytes[wiped[i]] = 0;
        cr_expect(!q2_snapshot_plausible(&geometry, bytes, sizeof bytes, AT), "byte %u", wiped[i]);
        bytes[wiped[i]] = old;
    }
    memset(bytes, 0, sizeof bytes);
    cr_expect(!q2_snapshot_plausible(&geometry, bytes, sizeof bytes, AT), "zeros");
    memset(bytes, 0xff, sizeof bytes);
    cr_expect(!q2_snapshot_plausible(&geometry, bytes, sizeof bytes, AT), "ones");
}
