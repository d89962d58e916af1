/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/format/snapshot.h"

#include "core/base/checked.h"
#include "core/base/endian.h"

#include <string.h>
#include <time.h>

/* Byte offsets inside an entry. */
enum {
    AT_L1_OFFSET = 0,
    AT_L1_SIZE = 8,
    AT_ID_LENGTH = 12,
    AT_NAME_LENGTH = 14,
    AT_SECONDS = 16,
    AT_NANOSECONDS = 20,
    AT_VM_CLOCK = 24,
    AT_VM_STATE_32 = 32,
    AT_EXTRA_LENGTH = 36,
    AT_VM_STATE_64 = 40,
    AT_DISK_SIZE = 48,
};

uint64_t
q2_snapshot_length(const uint8_t *bytes)
{
    uint64_t length = (uint64_t)Q2_SNAPSHOT_FIXED_LENGTH + q2_load_be32(bytes + AT_EXTRA_LENGTH) +
                      q2_load_be16(bytes + AT_ID_LENGTH) + q2_load_be16(bytes + AT_NAME_LENGTH);
    return (length + 7) & ~UINT64_C(7);
}

void
q2_snapshot_decode(const struct q2_geometry *geometry, const uint8_t *bytes, uint64_t at,
                   struct q2_snapshot *ret_snapshot)
{
    *ret_snapshot = (struct q2_snapshot){
        .at = at,
        .l1_table_offset = q2_load_be64(bytes + AT_L1_OFFSET),
        .l1_size = q2_load_be32(bytes + AT_L1_SIZE),
        .id_length = q2_load_be16(bytes + AT_ID_LENGTH),
        .name_length = q2_load_be16(bytes + AT_NAME_LENGTH),
        .date_seconds = q2_load_be32(bytes + AT_SECONDS),
        .date_nanoseconds = q2_load_be32(bytes + AT_NANOSECONDS),
        .vm_clock_nanoseconds = q2_load_be64(bytes + AT_VM_CLOCK),
        .extra_length = q2_load_be32(bytes + AT_EXTRA_LENGTH),
        .vm_state_size = q2_load_be32(bytes + AT_VM_STATE_32),
        .disk_size = geometry->disk_size,
    };
    if (ret_snapshot->extra_length >= 8)
        ret_snapshot->vm_state_size = q2_load_be64(bytes + AT_VM_STATE_64);
    if (ret_snapshot->extra_length >= 16) {
        ret_snapshot->disk_size = q2_load_be64(bytes + AT_DISK_SIZE);
        ret_snapshot->has_disk_size = true;
    }
}

void
q2_snapshot_encode(const struct q2_snapshot *snapshot, uint8_t *bytes)
{
    q2_store_be64(bytes + AT_L1_OFFSET, snapshot->l1_table_offset);
    q2_store_be32(bytes + AT_L1_SIZE, snapshot->l1_size);
    q2_store_be16(bytes + AT_ID_LENGTH, snapshot->id_length);
    q2_store_be16(bytes + AT_NAME_LENGTH, snapshot->name_length);
    q2_store_be32(bytes + AT_SECONDS, snapshot->date_seconds);
    q2_store_be32(bytes + AT_NANOSECONDS, snapshot->date_nanoseconds);
    q2_store_be64(bytes + AT_VM_CLOCK, snapshot->vm_clock_nanoseconds);
    bool fits = snapshot->vm_state_size <= UINT32_MAX;
    q2_store_be32(bytes + AT_VM_STATE_32, fits ? (uint32_t)snapshot->vm_state_size : 0);
    q2_store_be32(bytes + AT_EXTRA_LENGTH, Q2_SNAPSHOT_EXTRA_LENGTH);
    q2_store_be64(bytes + AT_VM_STATE_64, snapshot->vm_state_size);
    q2_store_be64(bytes + AT_DISK_SIZE, snapshot->disk_size);
}

/* ---- rules ---- */

static bool
validate_l1(const struct q2_geometry *geometry, const struct q2_snapshot *snapshot,
            const struct q2_sink *sink)
{
    uint64_t bytes = (uint64_t)snapshot->l1_size * 8, at = snapshot->at;
    if (bytes > Q2_MAX_L1_BYTES) {
        q2_violate(sink, Q2_PROBLEM_SNAPSHOT_L1_TOO_BIG, at + AT_L1_SIZE, 4, snapshot->l1_size,
                   NULL);
        return false;
    }
    if ((snapshot->l1_table_offset & (geometry->cluster_size - 1)) ||
        (bytes && !snapshot->l1_table_offset)) {
        q2_violate(sink, Q2_PROBLEM_SNAPSHOT_L1_UNALIGNED, at + AT_L1_OFFSET, 8,
                   snapshot->l1_table_offset, NULL);
        return false;
    }
    if (bytes && !q2_range_inside(snapshot->l1_table_offset, bytes, geometry->file_size)) {
        q2_violate(sink, Q2_PROBLEM_SNAPSHOT_L1_PAST_END, at + AT_L1_OFFSET, 8,
                   snapshot->l1_table_offset, "l1_size %u", snapshot->l1_size);
        return false;
    }
    return true;
}

static void
validate_sizes(const struct q2_geometry *geometry, const struct q2_snapshot *snapshot,
               const struct q2_sink *sink)
{
    uint64_t needed = q2_l1_entries_for(geometry, snapshot->disk_size);
    bool wide = snapshot->extra_length >= 8;
    if (snapshot->l1_size < needed) {
        q2_violate_expected(sink, Q2_PROBLEM_SNAPSHOT_L1_TOO_SMALL, snapshot->at + AT_L1_SIZE, 4,
                            snapshot->l1_size, needed, NULL);
        return;
    }
    /* VM state is stored behind the disk: in the entries of the L1 table that are left over. */
    uint64_t reach = (snapshot->l1_size - needed) * q2_l2_reach(geometry);
    if (snapshot->vm_state_size > reach)
        q2_violate(sink, Q2_PROBLEM_SNAPSHOT_VM_STATE,
                   snapshot->at + (wide ? AT_VM_STATE_64 : AT_VM_STATE_32), wide ? 8 : 4,
                   snapshot->vm_state_size, "%llu bytes are mapped behind the disk",
                   (unsigned long long)reach);
}

static void
validate_date(const struct q2_snapshot *snapshot, uint64_t now, const struct q2_sink *sink)
{
    enum { A_DAY = 86400 };
    time_t seconds = snapshot->date_seconds;
    struct tm tm;
    char text[32] = "";
    if (snapshot->date_nanoseconds >= 1000000000)
        q2_violate(sink, Q2_PROBLEM_SNAPSHOT_DATE, snapshot->at + AT_NANOSECONDS, 4,
                   snapshot->date_nanoseconds, "%u nanoseconds", snapshot->date_nanoseconds);
    else if (now && snapshot->date_seconds > now + A_DAY && gmtime_r(&seconds, &tm) &&
             strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &tm))
        q2_violate(sink, Q2_PROBLEM_SNAPSHOT_DATE, snapshot->at + AT_SECONDS, 4,
                   snapshot->date_seconds, "%s", text);
}

bool
q2_snapshot_validate(const struct q2_geometry *geometry, const struct q2_snapshot *snapshot,
                     uint64_t now, const struct q2_sink *sink)
{
    uint64_t at = snapshot->at;
    if (geometry->version >= 3 && snapshot->extra_length < Q2_SNAPSHOT_EXTRA_LENGTH)
        q2_violate_expected(sink, Q2_PROBLEM_SNAPSHOT_EXTRA_SHORT, at + AT_EXTRA_LENGTH, 4,
                            snapshot->extra_length, Q2_SNAPSHOT_EXTRA_LENGTH, NULL);
    if (snapshot->extra_length > Q2_SNAPSHOT_MAX_EXTRA)
        q2_violate(sink, Q2_PROBLEM_SNAPSHOT_EXTRA_BIG, at + AT_EXTRA_LENGTH, 4,
                   snapshot->extra_length, NULL);
    if (snapshot->id_length == 0)
        q2_violate(sink, Q2_PROBLEM_SNAPSHOT_ID_EMPTY, at + AT_ID_LENGTH, 2, 0, NULL);
    validate_date(snapshot, now, sink);
    bool readable = validate_l1(geometry, snapshot, sink);
    if (readable)
        validate_sizes(geometry, snapshot, sink);
    return readable;
}

/* ---- evidence ---- */

static void
count(void *data, const struct q2_violation *violation)
{
    (void)violation;
    ++*(unsigned *)data;
}

bool
q2_snapshot_plausible(const struct q2_geometry *geometry, const uint8_t *bytes, size_t length,
                      uint64_t at)
{
    if (length < Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH)
        return false;
    struct q2_snapshot snapshot;
    q2_snapshot_decode(geometry, bytes, at, &snapshot);
    if (q2_snapshot_length(bytes) > length || snapshot.l1_size == 0 || snapshot.id_length == 0 ||
        snapshot.l1_table_offset == 0)
        return false;

    unsigned broken = 0;
    q2_snapshot_validate(geometry, &snapshot, 0,
                         &(struct q2_sink){.report = count, .data = &broken, .wordless = true});
    if (broken)
        return false;
    const uint8_t *text = bytes + Q2_SNAPSHOT_FIXED_LENGTH + snapshot.extra_length;
    for (unsigned i = 0; i < (unsigned)snapshot.id_length + snapshot.name_length; i++)
        if (text[i] < 0x20 || text[i] == 0x7f)
            return false;
    return true;
}
