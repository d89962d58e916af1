/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Mutations of programs. */

#include "fuzz/mutate/mutate.h"

void
q2_mutate_program(struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random)
{
    q2_mutate_bytes(buffer, random);
}
