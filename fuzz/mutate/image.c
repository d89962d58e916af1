/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Mutations of images. */

#include "fuzz/mutate/mutate.h"

void
q2_mutate_image(struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random,
                q2_engine_mutate *engine)
{
    if (engine && q2_fuzz_random_once_in(random, 2))
        buffer->length = engine(buffer->bytes, buffer->length, buffer->capacity);
    else
        q2_mutate_bytes(buffer, random);
}
