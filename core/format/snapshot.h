/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Entries of the snapshot table ("Snapshots" in the specification). */

#ifndef Q2_FORMAT_SNAPSHOT_H
#define Q2_FORMAT_SNAPSHOT_H

#include "core/format/header.h"

enum {
    Q2_SNAPSHOT_FIXED_LENGTH = 40, /* bytes of an entry before its extra data */
    Q2_SNAPSHOT_EXTRA_LENGTH = 16, /* bytes of extra data that are defined */
    Q2_SNAPSHOT_MAX_EXTRA = 1024,  /* bytes of extra data that QEMU reads */
};

struct q2_snapshot {
    uint64_t at; /* of the entry in the file, bytes */
    uint64_t l1_table_offset;
    uint32_t l1_size; /* entries */
    uint16_t id_length;
    uint16_t name_length;
    uint32_t date_seconds; /* since the Epoch */
    uint32_t date_nanoseconds;
    uint64_t vm_clock_nanoseconds;
    uint32_t extra_length;  /* bytes */
    uint64_t vm_state_size; /* bytes; from the extra data where that has it */
    uint64_t disk_size;     /* bytes; that of the image where the entry does not say */
    bool has_disk_size;
};

/* Length of the whole entry with its padding, in bytes. `bytes` holds at least
 * Q2_SNAPSHOT_FIXED_LENGTH. */
uint64_t q2_snapshot_length(const uint8_t *bytes);

/* Decode an entry found at host offset `at`. `bytes` holds the fixed part and at least the defined
 * extra data that it claims (at most Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH bytes). */
void q2_snapshot_decode(const struct q2_geometry *geometry, const uint8_t *bytes, uint64_t at,
                        struct q2_snapshot *ret_snapshot);

/* Encode the fixed part and 16 bytes of extra data. */
void q2_snapshot_encode(const struct q2_snapshot *snapshot, uint8_t *bytes);

/* Hold an entry against the rules. `now` is the time in seconds since the Epoch, 0 for unknown.
 * Returns whether its L1 table can be read: aligned, not too large, inside the file. */
bool q2_snapshot_validate(const struct q2_geometry *geometry, const struct q2_snapshot *snapshot,
                          uint64_t now, const struct q2_sink *sink);

/* Whether `bytes` (of `length` bytes, from host offset `at`) look like a snapshot table: at least
 * one entry that obeys the rules and has a printable id. Evidence, for tables that nothing counts.
 */
bool q2_snapshot_plausible(const struct q2_geometry *geometry, const uint8_t *bytes, size_t length,
                           uint64_t at);

#endif
