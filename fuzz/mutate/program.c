/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Mutations of programs: whole steps come, go and change places, and within a step the numbers that
 * it has are changed, each in its way. */

#include "fuzz/mutate/mutate.h"
#include "fuzz/support/program_layout.h"

#include <string.h>

enum { HEAD = Q2_PROGRAM_HEAD, STEP = Q2_PROGRAM_STEP };

static size_t
count_steps(size_t length)
{
    return length > HEAD ? (length - HEAD) / STEP : 0;
}

static uint8_t *
step_at(const struct q2_fuzz_buffer *buffer, size_t index)
{
    return buffer->bytes + HEAD + index * STEP;
}

/* How many more steps there is room for. */
static size_t
room(const struct q2_fuzz_buffer *buffer)
{
    size_t most = count_steps(buffer->capacity), count = count_steps(buffer->length);
    most = most < Q2_PROGRAM_MAX_STEPS ? most : Q2_PROGRAM_MAX_STEPS;
    return count < most ? most - count : 0;
}

/* Let there be `count` steps at `index`, whose bytes are not decided. */
static uint8_t *
open_gap(struct q2_fuzz_buffer *buffer, size_t index, size_t count)
{
    uint8_t *at = step_at(buffer, index);
    memmove(at + count * STEP, at, (count_steps(buffer->length) - index) * STEP);
    buffer->length += count * STEP;
    return at;
}

static void
remove_steps(struct q2_fuzz_buffer *buffer, size_t index, size_t count)
{
    uint8_t *at = step_at(buffer, index);
    size_t after = count_steps(buffer->length) - index - count;
    memmove(at, at + count * STEP, after * STEP);
    buffer->length -= count * STEP;
}

static void
choose_step(uint8_t *step, struct q2_fuzz_random *random)
{
    for (unsigned i = 0; i < STEP; i++)
        step[i] = (uint8_t)q2_fuzz_random(random);
    /* Short extents, aligned places, and no more damage than harnesses without use for it bear. */
    if (step[0] >= Q2_PROGRAM_DAMAGE && !q2_fuzz_random_once_in(random, 4))
        step[0] &= (uint8_t)~Q2_PROGRAM_DAMAGE;
    if (q2_fuzz_random_once_in(random, 3))
        step[Q2_PROGRAM_EXTENT] = 0;
    if (q2_fuzz_random_once_in(random, 3))
        step[Q2_PROGRAM_PLACE] = 0;
}

static void
insert_step(struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random)
{
    if (room(buffer) > 0)
        choose_step(open_gap(buffer, q2_fuzz_random_below(random, count_steps(buffer->length) + 1),
                             1),
                    random);
}

/* Steps of the other input, or of this one, once more. */
static void
splice(struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random)
{
    uint8_t steps[Q2_PROGRAM_MAX_STEPS * STEP];
    bool foreign = buffer->other && count_steps(buffer->other_length) > 0 &&
                   !q2_fuzz_random_once_in(random, 4);
    const uint8_t *from = foreign ? buffer->other : buffer->bytes;
    size_t there = count_steps(foreign ? buffer->other_length : buffer->length);
    size_t most = room(buffer);
    if (there == 0 || most == 0)
        return;
    size_t first = q2_fuzz_random_below(random, there);
    size_t count = 1 + q2_fuzz_random_below(random, there - first);
    count = count < most ? count : most;
    memcpy(steps, from + HEAD + first * STEP, count * STEP);
    size_t at = q2_fuzz_random_below(random, count_steps(buffer->length) + 1);
    memcpy(open_gap(buffer, at, count), steps, count * STEP);
}

static void
drop(struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random)
{
    size_t count = count_steps(buffer->length), first = q2_fuzz_random_below(random, count);
    size_t most = count - first < 4 ? count - first : 4;
    remove_steps(buffer, first, 1 + q2_fuzz_random_below(random, most));
}

static void
swap(struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random)
{
    size_t count = count_steps(buffer->length);
    uint8_t *a = step_at(buffer, q2_fuzz_random_below(random, count));
    uint8_t *b = step_at(buffer, q2_fuzz_random_below(random, count));
    uint8_t kept[STEP];
    memcpy(kept, a, STEP);
    memmove(a, b, STEP);
    memcpy(b, kept, STEP);
}

/* Another operation, a neighbouring place, the place or extent of another step: what meets what an
 * earlier step did. */
static void
change_step(struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random)
{
    size_t count = count_steps(buffer->length);
    uint8_t *step = step_at(buffer, q2_fuzz_random_below(random, count));
    const uint8_t *other = step_at(buffer, q2_fuzz_random_below(random, count));
    switch (q2_fuzz_random_below(random, 6)) {
    case 0:
        step[0] = (uint8_t)(q2_fuzz_random(random) % Q2_PROGRAM_DAMAGE);
        break;
    case 1:
        memmove(step + Q2_PROGRAM_PLACE, other + Q2_PROGRAM_PLACE, 3);
        break;
    case 2:
        memmove(step + Q2_PROGRAM_EXTENT, other + Q2_PROGRAM_EXTENT, 3);
        break;
    case 3:
        step[Q2_PROGRAM_PLACE + 1] =
            (uint8_t)(step[Q2_PROGRAM_PLACE + 1] + q2_fuzz_random_below(random, 17) - 8);
        break;
    case 4:
        step[Q2_PROGRAM_FILL] = (uint8_t)q2_fuzz_random(random);
        break;
    default:
        step[q2_fuzz_random_below(random, STEP)] ^=
            (uint8_t)(1U << q2_fuzz_random_below(random, 8));
        break;
    }
}

static void
change_head(struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random)
{
    uint8_t *at = buffer->bytes + q2_fuzz_random_below(random, HEAD);
    if (buffer->other_length >= HEAD && q2_fuzz_random_once_in(random, 3))
        *at = buffer->other[at - buffer->bytes];
    else if (q2_fuzz_random_once_in(random, 2))
        *at ^= (uint8_t)(1U << q2_fuzz_random_below(random, 8));
    else
        *at = (uint8_t)q2_fuzz_random(random);
}

void
q2_mutate_program(struct q2_fuzz_buffer *buffer, struct q2_fuzz_random *random)
{
    if (buffer->capacity < HEAD) {
        q2_mutate_bytes(buffer, random);
        return;
    }
    if (buffer->length < HEAD)
        memset(buffer->bytes + buffer->length, 0, HEAD - buffer->length);
    size_t count = count_steps(buffer->length);
    count = count < Q2_PROGRAM_MAX_STEPS ? count : Q2_PROGRAM_MAX_STEPS;
    buffer->length = HEAD + count * STEP;
    unsigned what = (unsigned)q2_fuzz_random_below(random, 12);
    if (what < 2)
        change_head(buffer, random);
    else if (what < 4 || count == 0)
        insert_step(buffer, random);
    else if (what < 6)
        splice(buffer, random);
    else if (what < 7)
        drop(buffer, random);
    else if (what < 8)
        swap(buffer, random);
    else
        change_step(buffer, random);
}
