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

/* Bits that change in the header, at the place. */
#define DAMAGE(place, bits) 192, (place) >> 8, (place)&255, bits
#define REFUSED(which)      (240 + (which))

/* Where the header has things, as core/format/luks.h says. */
enum { ITERATIONS = 164, SLOTS = 208, SLOT = 48, WORK = 4, MATERIAL = 40, STRIPES = 44 };

static const uint8_t programs[][9] = {
    {ENCRYPT, UNLOCK(1)},
    {ADD(1, 1), UNLOCK(1), REMOVE_SLOT(0, false), UNLOCK(0), REMOVE_SLOT(1, false), ENCRYPT},
    {ADD_ANY(1), ADD_ANY(1), ADD_ANY(2), REMOVE_PHRASE(1, false), REMOVE_PHRASE(3, false)},
    {ADD(2, 3), ADD(2, 3), REMOVE_SLOT(5, false), REMOVE_SLOT(5, true), REMOVE_PHRASE(0, false)},
    {ADD_ANY(1), ADD_ANY(2), ADD_ANY(3), ADD_ANY(1), ADD_ANY(2), ADD_ANY(3), ADD_ANY(1),
     ADD_ANY(2)},
    {REMOVE_PHRASE(0, true), UNLOCK(0), ADD_ANY(1), UNLOCK(1)},
};

static const uint8_t damaged[][18] = {
    {DAMAGE(0, 1), ADD_ANY(1), REMOVE_SLOT(0, true), UNLOCK(0)},
    {DAMAGE(6, 8), ADD_ANY(1)},
    {DAMAGE(8, 1), ADD_ANY(1), UNLOCK(0)},
    {DAMAGE(ITERATIONS, 0x40), ADD_ANY(1), UNLOCK(0), REMOVE_PHRASE(0, true)},
    {DAMAGE(132, 1), ADD_ANY(1), UNLOCK(0), REMOVE_PHRASE(0, true)},
    {DAMAGE(111, 8), ADD_ANY(1), UNLOCK(0)},
    {DAMAGE(SLOTS + WORK, 0x40), UNLOCK(0), ADD(1, 1), REMOVE_PHRASE(0, true)},
    {DAMAGE(SLOTS + STRIPES + 3, 1), UNLOCK(0), REMOVE_SLOT(0, true), ADD(1, 1)},
    {DAMAGE(SLOTS + SLOT + STRIPES + 3, 1), ADD(1, 1), ADD_ANY(2), REMOVE_SLOT(1, true)},
    {DAMAGE(SLOTS + SLOT + MATERIAL + 2, 3), ADD(1, 1), ADD(2, 2), REMOVE_SLOT(0, false)},
    {ADD(1, 1), DAMAGE(SLOTS + SLOT + MATERIAL, 1), REMOVE_PHRASE(1, false), UNLOCK(1)},
    {REFUSED(0), ADD_ANY(3), REFUSED(1), UNLOCK(3), REMOVE_PHRASE(3, false)},
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
    for (unsigned i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        q2_seed_number(&seed, 1, i % 3);
        q2_seed_number(&seed, 1, 1);
        q2_seed_number(&seed, 1, i % 3 ? 2 : 4);
        q2_seed_bytes(&seed, damaged[i], sizeof damaged[i]);
        q2_seed_write(&seed, "damaged-%u", i);
    }
}
