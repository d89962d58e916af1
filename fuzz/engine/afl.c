/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The mutators as AFL++ loads them: AFL_CUSTOM_MUTATOR_LIBRARY names this library, and
 * Q2_FUZZ_INPUT says what the inputs are, "bytes", "image" (which it is without) or "program". The
 * functions are those that AFL++ looks for; it calls them from one thread. */

#include "fuzz/mutate/mutate.h"

#include <stdlib.h>
#include <string.h>

struct mutator {
    struct q2_fuzz_random random;
    enum q2_fuzz_input input;
    uint8_t *bytes;
    size_t capacity;
};

void *afl_custom_init(void *afl, unsigned seed);
size_t afl_custom_fuzz(void *data, uint8_t *bytes, size_t length, uint8_t **ret_bytes,
                       uint8_t *other, size_t other_length, size_t max_length);
void afl_custom_deinit(void *data);

void *
afl_custom_init(void *afl, unsigned seed)
{
    (void)afl;
    const char *input = getenv("Q2_FUZZ_INPUT");
    struct mutator *mutator = calloc(1, sizeof *mutator);
    if (!mutator)
        return NULL;
    mutator->random.state = seed;
    mutator->input = Q2_FUZZ_IMAGE;
    if (input && strcmp(input, "bytes") == 0)
        mutator->input = Q2_FUZZ_BYTES;
    else if (input && strcmp(input, "program") == 0)
        mutator->input = Q2_FUZZ_PROGRAM;
    return mutator;
}

size_t
afl_custom_fuzz(void *data, uint8_t *bytes, size_t length, uint8_t **ret_bytes, uint8_t *other,
                size_t other_length, size_t max_length)
{
    struct mutator *mutator = data;
    if (max_length > mutator->capacity) {
        free(mutator->bytes);
        mutator->bytes = malloc(max_length);
        mutator->capacity = mutator->bytes ? max_length : 0;
    }
    if (!mutator->bytes || length > max_length) {
        *ret_bytes = bytes;
        return length;
    }
    memcpy(mutator->bytes, bytes, length);
    struct q2_fuzz_buffer buffer = {
        .bytes = mutator->bytes,
        .length = length,
        .capacity = max_length,
        .other = other,
        .other_length = other ? other_length : 0,
    };
    q2_mutate(mutator->input, &buffer, &mutator->random, NULL);
    *ret_bytes = mutator->bytes;
    return buffer.length;
}

void
afl_custom_deinit(void *data)
{
    struct mutator *mutator = data;
    free(mutator->bytes);
    free(mutator);
}
