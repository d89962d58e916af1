/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Blocks of every width, and entries of the table, sound and broken. */

#include "fuzz/seeds/seed.h"

static const uint64_t entries[] = {
    0, 0x1000, 0xc00, 0x200, 0x101, 1, UINT64_C(0x00fffffffffffe00), UINT64_C(0x8000000000000000),
};

void
q2_make_seeds(void)
{
    static struct q2_seed seed;
    for (unsigned order = 0; order <= 6; order++)
        for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
            q2_seed_measures(&seed, order << 4, i % 2 ? 9 : 12, 1 << 20, 1 << 16);
            q2_seed_number(&seed, 1, i % 3 == 0);
            q2_seed_number(&seed, 8, entries[i]);
            for (unsigned k = 0; k < 4; k++)
                q2_seed_number(&seed, 8, 0x0123456789abcdef * k);
            for (unsigned k = 0; k < 8; k++) {
                q2_seed_number(&seed, 2, k * 7);
                q2_seed_number(&seed, 8, UINT64_MAX >> k);
            }
            q2_seed_write(&seed, "order-%u-%zu", order, i);
        }
}
