/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Short sequences as the stress test makes them, some of which leave images that are then damaged
 * for a repair. */

#include "fuzz/seeds/programs.h"
#include "fuzz/seeds/scripts.h"

#include <string.h>

void
q2_make_seeds(void)
{
    for (uint64_t seed = 0; seed < 192; seed++)
        q2_seed_program(seed, 4 + (unsigned)(seed % 9), seed % 3 == 2 ? 1 + seed % 2 : 0);
    for (unsigned i = 0; i < Q2_SCRIPTS; i++)
        for (unsigned what = 0; what < 4; what++)
            q2_seed_script(i, (uint8_t)(i + 2 * what), (uint16_t)((5 * i + 7 * what) % 37), 0);
    /* What is stored in the end, and tables that others lead to: wherever something fails. */
    static const char *const swept[] = {"table-snapshot", "bitmaps", "bitmaps-remove", "key-add",
                                        "blocks"};
    for (unsigned i = 0; i < Q2_SCRIPTS; i++)
        for (unsigned k = 0; k < sizeof swept / sizeof *swept; k++)
            for (unsigned nth = 0; nth < 24 && strcmp(q2_scripts[i].name, swept[k]) == 0; nth++)
                q2_seed_script(i, (uint8_t)(nth % 8), (uint16_t)nth, 1);
}
