/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Short sequences as the stress test makes them. */

#include "fuzz/seeds/programs.h"
#include "fuzz/seeds/scripts.h"

void
q2_make_seeds(void)
{
    for (uint64_t seed = 0; seed < 192; seed++)
        q2_seed_program(seed, 4 + (unsigned)(seed % 13), 0);
    for (unsigned i = 0; i < Q2_SCRIPTS; i++)
        q2_seed_script(i, 0, 0, 0);
}
