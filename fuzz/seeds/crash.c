/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Short sequences as the stress test makes them, some of which leave images that are then damaged
 * for a repair. */

#include "fuzz/seeds/programs.h"
#include "fuzz/seeds/scripts.h"

void
q2_make_seeds(void)
{
    for (uint64_t seed = 0; seed < 192; seed++)
        q2_seed_program(seed, 4 + (unsigned)(seed % 9), seed % 3 == 2 ? 1 + seed % 2 : 0);
    for (unsigned i = 0; i < Q2_SCRIPTS; i++)
        for (unsigned cut = 0; cut < 2; cut++)
            q2_seed_script(i, (uint8_t)(i + cut), (uint16_t)(41 * i + 17 * cut), i);
}
