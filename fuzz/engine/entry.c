/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A harness as libFuzzer and the engines that follow its interface call it. */

#include "fuzz/mutate/mutate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1, const uint8_t *data2,
                                 size_t size2, uint8_t *out, size_t max_size, unsigned seed);
/* libFuzzer's own; other engines have none. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size) __attribute__((weak));

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size <= q2_harness.max_length)
        q2_harness.run(data, size);
    return 0;
}

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct q2_fuzz_random random = {.state = seed};
    struct q2_fuzz_buffer buffer = {.bytes = data, .length = size, .capacity = max_size};
    q2_mutate(q2_harness.input, &buffer, &random, LLVMFuzzerMutate);
    return buffer.length;
}

size_t
LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1, const uint8_t *data2, size_t size2,
                          uint8_t *out, size_t max_size, unsigned seed)
{
    struct q2_fuzz_random random = {.state = seed};
    struct q2_fuzz_buffer buffer = {.bytes = out,
                                    .capacity = max_size,
                                    .other = data2,
                                    .other_length = size2};
    buffer.length = size1 < max_size ? size1 : max_size;
    for (size_t i = 0; i < buffer.length; i++)
        out[i] = data1[i];
    q2_mutate(q2_harness.input, &buffer, &random, NULL);
    return buffer.length;
}
