/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Random numbers, bytes as they come, and the choice between the mutators. */

#include "fuzz/mutate/mutate.h"

#include <string.h>

uint64_t
q2_fuzz_random(struct q2_fuzz_random *random)
{
    uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t
q2_fuzz_random_below(struct q2_fuzz_random *random, uint64_t limit)
{
    return q2_fuzz_random(random) % limit;
}

bool
q2_fuzz_random_once_in(struct q2_fuzz_random *random, uint64_t times)
{
    return q2_fuzz_random_below(random, times) == 0;
}

/* Move the bytes from `at` on by `length`, or as far as there is room; returns how far. */
static size_t
make_room(struct q2_fuzz_buffer *buffer, size_t at, size_t length)
{
    if (length > buffer->capacity - buffer->length)
        length = buffer->capacity - buffer->length;
    memmove(buffer->bytes + at + length, buffer->bytes + at, buffer->length - at);
    buffer->length += length;
    return length;
}

static void
insert_bytes(struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random)
{
    size_t at = q2_fuzz_random_below(random, buffer->length + 1);
    size_t length = make_room(buffer, at, 1 + q2_fuzz_random_below(random, 16));
    if (buffer->other_length > 0 && q2_fuzz_random_once_in(random, 2)) {
        size_t from = q2_fuzz_random_below(random, buffer->other_length);
        size_t left = buffer->other_length - from;
        memcpy(buffer->bytes + at, buffer->other + from, length < left ? length : left);
        return;
    }
    for (size_t i = 0; i < length; i++)
        buffer->bytes[at + i] = (uint8_t)q2_fuzz_random(random);
}

static void
remove_bytes(struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random)
{
    size_t at = q2_fuzz_random_below(random, buffer->length);
    size_t length = 1 + q2_fuzz_random_below(random, 16);
    if (length > buffer->length - at)
        length = buffer->length - at;
    memmove(buffer->bytes + at, buffer->bytes + at + length, buffer->length - at - length);
    buffer->length -= length;
}

/* A value at the edge of something, over 1, 2, 4 or 8 bytes. */
static void
set_edge(struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random)
{
    static const uint64_t edges[] = {0,      1,      0x7f,       0x80,      0xff,
                                     0x7fff, 0xffff, 0x7fffffff, UINT64_MAX};
    size_t width = (size_t)1 << q2_fuzz_random_below(random, 4);
    if (width > buffer->length)
        return;
    size_t at = q2_fuzz_random_below(random, buffer->length - width + 1);
    uint64_t value = edges[q2_fuzz_random_below(random, sizeof edges / sizeof *edges)];
    for (size_t i = 0; i < width; i++)
        buffer->bytes[at + width - 1 - i] = (uint8_t)(value >> (8 * i));
}

void
q2_mutate_bytes(struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random)
{
    if (buffer->length == 0) {
        insert_bytes(buffer, random);
        return;
    }
    size_t at = q2_fuzz_random_below(random, buffer->length);
    switch (q2_fuzz_random_below(random, 6)) {
    case 0:
        buffer->bytes[at] ^= (uint8_t)(1U << q2_fuzz_random_below(random, 8));
        break;
    case 1:
        buffer->bytes[at] = (uint8_t)q2_fuzz_random(random);
        break;
    case 2:
        buffer->bytes[at] = (uint8_t)(buffer->bytes[at] + 1 - 2 * q2_fuzz_random_below(random, 2));
        break;
    case 3:
        set_edge(buffer, random);
        break;
    case 4:
        insert_bytes(buffer, random);
        break;
    default:
        remove_bytes(buffer, random);
        break;
    }
}

void
q2_mutate(enum q2_fuzz_input kind, struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random,
          q2_engine_mutate *engine)
{
    if (kind == Q2_FUZZ_IMAGE)
        q2_mutate_image(buffer, random, engine);
    else if (kind == Q2_FUZZ_PROGRAM && !q2_fuzz_random_once_in(random, 4))
        q2_mutate_program(buffer, random);
    else if (engine)
        buffer->length = engine(buffer->bytes, buffer->length, buffer->capacity);
    else
        q2_mutate_bytes(buffer, random);
}
