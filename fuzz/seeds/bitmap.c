/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Directory entries, sound, and broken in one way each. */

#include "core/format/bitmap.h"
#include "fuzz/seeds/seed.h"

#include <string.h>

enum { TABLE = 6 * 512 };

static const struct {
    const char *name;
    uint64_t raw;
    struct q2_bitmap bitmap;
} kinds[] = {
    {"sound", 0, {0, TABLE, 1, 2, 1, 9, 4, 0}},
    {"ones", 1, {0, TABLE, 1, 0, 1, 10, 4, 0}},
    {"bits", 5 * 512, {0, TABLE, 1, 0, 1, 9, 4, 0}},
    {"reserved", UINT64_C(0x0100000000000002), {0, TABLE, 1, 0, 1, 9, 4, 0}},
    {"past-end", 1 << 30, {0, TABLE, 1, 0, 1, 9, 4, 0}},
    {"in-use", 0, {0, TABLE, 3, 1, 1, 9, 4, 0}},
    {"extra", 0, {0, TABLE, 1, 4, 1, 9, 4, 8}},
    {"flags", 0, {0, TABLE, 1, UINT32_MAX, 1, 9, 4, 0}},
    {"type", 0, {0, TABLE, 1, 0, 2, 9, 4, 0}},
    {"granularity", 0, {0, TABLE, 1, 0, 1, 32, 4, 0}},
    {"table-size", 0, {0, TABLE, UINT32_MAX, 0, 1, 31, 4, 0}},
    {"unaligned", 0, {0, TABLE + 8, 1, 0, 1, 9, 4, 0}},
    {"table-past-end", 0, {0, 1 << 20, 1, 0, 1, 9, 4, 0}},
    {"name", 0, {0, TABLE, 1, 0, 1, 9, 1024, 0}},
    {"no-name", 0, {0, TABLE, 1, 0, 1, 9, 0, 0}},
};

void
q2_make_seeds(void)
{
    static struct q2_seed seed;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        uint8_t bytes[1200] = {0};
        q2_bitmap_encode(&kinds[i].bitmap, bytes);
        memset(bytes + 24 + kinds[i].bitmap.extra_length, 'n', kinds[i].bitmap.name_length);
        /* Strict reading has measures of its own; it is asked once. */
        for (unsigned bits = 9; bits <= 21; bits += 6) {
            q2_seed_measures(&seed, 64, bits, 8192, UINT64_C(16) << bits);
            q2_seed_number(&seed, 1, bits == 9);
            q2_seed_number(&seed, 8, kinds[i].raw);
            q2_seed_bytes(&seed, bytes, (size_t)q2_bitmap_length(&kinds[i].bitmap));
            q2_seed_write(&seed, "%s-%u", kinds[i].name, bits);
        }
    }
}
