/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Data to compress, and streams in allocations of their exact size, so that a sanitizer sees any
 * step beyond. */

#ifndef Q2_TESTS_STREAMS_H
#define Q2_TESTS_STREAMS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static inline uint32_t
next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static inline uint8_t *
random_bytes(size_t length, uint32_t seed)
{
    uint8_t *bytes = malloc(length ? length : 1);
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(next_random(&seed) >> 11);
    return bytes;
}

/* Data with matches of many lengths at many distances, and some noise. */
static inline uint8_t *
mixed_bytes(size_t length, uint32_t seed)
{
    uint8_t *bytes = malloc(length);
    for (size_t at = 0; at < length;) {
        size_t run = 1 + next_random(&seed) % 40;
        size_t back = 1 + next_random(&seed) % 40000;
        bool copy = back <= at && next_random(&seed) % 4;
        for (; run && at < length; run--, at++)
            bytes[at] =
                copy ? bytes[at - back] : (uint8_t)("qcow2 images\0\xff"[next_random(&seed) % 14]);
    }
    return bytes;
}

struct stream {
    uint8_t *bytes;
    size_t length;
};

static inline void
stream_free(struct stream *stream)
{
    free(stream->bytes);
}

#define AUTOSTREAM __attribute__((cleanup(stream_free))) struct stream

/* `length` bytes of `from` in an allocation of their own. */
static inline struct stream
stream_copy(const struct stream *from, size_t length)
{
    struct stream copy = {malloc(length ? length : 1), length};
    memcpy(copy.bytes, from->bytes, length);
    return copy;
}

static inline struct stream
stream_append(const struct stream *from, const void *bytes, size_t length)
{
    struct stream sum = {malloc(from->length + length), from->length + length};
    memcpy(sum.bytes, from->bytes, from->length);
    memcpy(sum.bytes + from->length, bytes, length);
    return sum;
}

#endif
