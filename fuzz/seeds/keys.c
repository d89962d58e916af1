/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Each cipher and hash, and the ways in which key slots come and go. */

#include "fuzz/seeds/seed.h"

/* Steps as harness/keys.c reads them: number + 6 * (phrase + 4 * slot). */
#define STEP(number, phrase, slot)   ((number) + 6 * ((phrase) + 4 * (slot)))
#define ADD(phrase, slot)            STEP(0, phrase, slot)
#define ADD_ANY(phrase)              STEP(1, phrase, 0)
#define REMOVE_SLOT(slot, force)     STEP(2, !(force), slot)
#define REMOVE_PHRASE(phrase, force) STEP(3, phrase, !(force))
#define UNLOCK(phrase)               STEP(4, phrase, 0)
#define ENCRYPT                      STEP(5, 0, 1)

static const uint8_t programs[][9] = {
    {ENCRYPT, UNLOCK(1)},
    {ADD(1, 1), UNLOCK(1), REMOVE_SLOT(0, false), UNLOCK(0), REMOVE_SLOT(1, false), ENCRYPT},
    {ADD_ANY(1), ADD_ANY(1), ADD_ANY(2), REMOVE_PHRASE(1, false), REMOVE_PHRASE(3, false)},
    {ADD(2, 3), ADD(2, 3), REMOVE_SLOT(5, false), REMOVE_SLOT(5, true), REMOVE_PHRASE(0, false)},
    {ADD_ANY(1), ADD_ANY(2), ADD_ANY(3), ADD_ANY(1), ADD_ANY(2), ADD_ANY(3), ADD_ANY(1),
     ADD_ANY(2)},
    {REMOVE_PHRASE(0, true), UNLOCK(0), ADD_ANY(1), UNLOCK(1)},
};

void
q2_make_seeds(void)
{
    static struct q2_seed seed;
    for (unsigned mode = 0; mode < 6; mode++)
        for (unsigned hash = 0; hash < 4; hash++) {
            unsigned program = (mode * 4 + hash) % (sizeof programs / sizeof *programs);
            q2_seed_number(&seed, 1, mode);
            q2_seed_number(&seed, 1, hash);
            q2_seed_number(&seed, 1, hash == 0 ? 0 : mode == 0 ? 4 * hash % 12 : 1 + hash);
            q2_seed_bytes(&seed, programs[program], sizeof programs[program]);
            q2_seed_write(&seed, "%u-%u", mode, hash);
        }
}
