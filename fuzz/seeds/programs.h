/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Programs as seeds. */

#ifndef Q2_FUZZ_SEEDS_PROGRAMS_H
#define Q2_FUZZ_SEEDS_PROGRAMS_H

#include "fuzz/seeds/seed.h"
#include "fuzz/support/program.h"

/* Write the program that `seed` chooses, with `count` steps of which `damages` are damage. Each
 * operation is the last step of some. */
static inline void
q2_seed_program(uint64_t seed, unsigned count, unsigned damages)
{
    static struct q2_seed out;
    struct q2_program program = {.step_count = count - damages, .damage_count = damages};
    uint64_t random = seed * UINT64_C(0xD1342543DE82EF95);
    params_choose(&program.params, &random);
    params_shrink(&program.params);
    for (unsigned i = 0; i < program.step_count; i++)
        step_choose(&program.steps[i], &random);
    program.steps[program.step_count - 1].op = &ops[seed % op_count];
    for (unsigned i = 0; i < damages; i++)
        program.damages[i] = (struct q2_damage){
            .kind = (uint8_t)(next_random(&random) % Q2_PROGRAM_OPS),
            .place = (uint32_t)(next_random(&random) >> 40),
            .value = (uint32_t)next_random(&random),
        };
    program.quiet = seed % 4 == 3;
    program.flags = (uint8_t)next_random(&random);
    program.number = (uint16_t)next_random(&random);
    program.chance = (uint32_t)next_random(&random);
    uint8_t bytes[Q2_PROGRAM_MAX];
    q2_seed_bytes(&out, bytes, q2_program_encode(&program, bytes));
    q2_seed_write(&out, "%03llu-%s", (unsigned long long)seed,
                  damages ? "damaged" : ops[seed % op_count].name);
}

#endif
