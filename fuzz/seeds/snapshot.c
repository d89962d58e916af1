/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Entries with each length of extra data, sound, and broken in one way each. */

#include "core/format/snapshot.h"
#include "core/base/endian.h"
#include "fuzz/seeds/seed.h"

#include <string.h>

static const uint32_t extras[] = {0, 8, 16, 24, 1024, 1025};

static const struct {
    const char *name;
    struct q2_snapshot snapshot;
} kinds[] = {
    {"sound", {.l1_table_offset = 1536, .l1_size = 1, .disk_size = 8192}},
    {"vm-state", {.l1_table_offset = 1536, .l1_size = 4, .disk_size = 8192, .vm_state_size = 999}},
    {"unaligned", {.l1_table_offset = 1537, .l1_size = 1, .disk_size = 8192}},
    {"past-end", {.l1_table_offset = 1 << 20, .l1_size = 1, .disk_size = 8192}},
    {"too-big", {.l1_table_offset = 1536, .l1_size = UINT32_MAX, .disk_size = 8192}},
    {"too-small", {.l1_table_offset = 1536, .l1_size = 1, .disk_size = UINT64_MAX}},
    {"date", {.l1_table_offset = 1536, .l1_size = 1, .date_nanoseconds = UINT32_MAX}},
};

void
q2_make_seeds(void)
{
    static struct q2_seed seed;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        for (size_t k = 0; k < sizeof extras / sizeof extras[0]; k++) {
            uint8_t bytes[1200] = {0};
            struct q2_snapshot snapshot = kinds[i].snapshot;
            snapshot.id_length = 1;
            snapshot.name_length = 4;
            q2_snapshot_encode(&snapshot, bytes);
            q2_store_be32(bytes + 36, extras[k]);
            memcpy(bytes + 40 + extras[k], "1name", 5);
            /* Strict reading has measures of its own; it is asked once. */
            for (unsigned bits = 9; bits <= 21; bits += 6) {
                q2_seed_measures(&seed, 64 | (k == 0), bits, 8192, UINT64_C(16) << bits);
                q2_seed_number(&seed, 1, (bits == 9 ? 1 : 0) | (k == 0 ? 2 : 0));
                q2_seed_number(&seed, 2, 384);
                q2_seed_bytes(&seed, bytes, 45 + extras[k]);
                q2_seed_write(&seed, "%s-%u-%u", kinds[i].name, extras[k], bits);
            }
        }
}
