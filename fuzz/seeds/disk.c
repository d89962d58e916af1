/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Each kind of disk, and each step on it, at its beginning and at its end. */

#include "fuzz/seeds/seed.h"

/* As harness/disk.c has them. */
enum { KINDS = 9, STEPS = 9, LENGTH = 10000 };

static void
add_step(struct q2_seed *seed, unsigned op, unsigned offset, unsigned length, unsigned fill)
{
    q2_seed_number(seed, 1, op);
    q2_seed_number(seed, 2, offset);
    q2_seed_number(seed, 2, length);
    q2_seed_number(seed, 1, fill);
}

void
q2_make_seeds(void)
{
    static struct q2_seed seed;
    for (unsigned kind = 0; kind < KINDS; kind++)
        for (unsigned turn = 0; turn < (kind < 5 ? 3 : 1); turn++) {
            q2_seed_number(&seed, 1, kind);
            q2_seed_number(&seed, 2, LENGTH + turn * 512);
            for (unsigned op = 0; op < STEPS && kind < 5; op++) {
                add_step(&seed, op, turn * 700, 3000 + 99 * op, op * 3 + turn);
                add_step(&seed, (op + 2 * turn) % STEPS, LENGTH - 500 * op, 400, turn);
            }
            q2_seed_write(&seed, "%u-%u", kind, turn);
        }
}
