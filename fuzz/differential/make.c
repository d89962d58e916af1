/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Images of numbers, and making them simpler. */

#include "fuzz/differential/make.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHANGES_MAX = 4,
    MODEL_PERCENT = 30, /* of the images, what the stress model makes */
};

void
made_init(struct made *made, const struct bases *bases, uint64_t seed)
{
    struct q2_fuzz_random random = {.state = seed};
    q2_fuzz_random(&random);
    *made = (struct made){
        .base = &bases->bases[q2_fuzz_random_below(&random, bases->count)],
        .bytes = malloc(IMAGE_MAX),
    };
    if (q2_fuzz_random_below(&random, 100) < MODEL_PERCENT && base_from_model(seed, &made->own))
        made->base = &made->own;
    const struct base *other = &bases->bases[q2_fuzz_random_below(&random, bases->count)];
    if (!made->bytes)
        abort();
    made->length = made->base->length;
    memcpy(made->bytes, made->base->bytes, made->length);
    struct q2_fuzz_buffer buffer = {
        .bytes = made->bytes,
        .length = made->length,
        .capacity = IMAGE_MAX,
        .other = other->bytes,
        .other_length = other->length,
    };
    for (uint64_t n = q2_fuzz_random_below(&random, CHANGES_MAX + 1); n > 0; n--)
        q2_mutate(Q2_FUZZ_IMAGE, &buffer, &random, NULL);
    /* Choices for harnesses are no part of an image. */
    struct q2_fuzz_options options;
    made->length = q2_fuzz_split(made->bytes, buffer.length, &options);
}

void
made_destroy(struct made *made)
{
    free(made->bytes);
    base_destroy(&made->own);
}

static void
write_file(const char *name, const uint8_t *bytes, size_t length)
{
    FILE *out = fopen(name, "wb");
    if (!out || fwrite(bytes, 1, length, out) != length || fclose(out) != 0) {
        perror(name);
        exit(2);
    }
}

/* Names are those in recipes: none leads out of the folder. */
void
made_write(const struct made *made, const char *name)
{
    write_file(name, made->bytes, made->length);
    for (unsigned i = 0; i < made->base->companion_count; i++) {
        const struct companion *companion = &made->base->companions[i];
        if (!strchr(companion->name, '/'))
            write_file(companion->name, companion->bytes, companion->length);
    }
}

/* ---- where it is not its base ---- */

static bool
differs(const struct made *made, size_t at)
{
    return made->bytes[at] != (at < made->base->length ? made->base->bytes[at] : 0);
}

/* The first run of bytes that differ from `at` on, in pieces of at most 8 bytes that do not cross a
 * multiple of 8: a word of the metadata is changed as a whole. False: there is none. */
static bool
next_run(const struct made *made, size_t at, size_t *ret_begin, size_t *ret_end)
{
    while (at < made->length && !differs(made, at))
        at++;
    *ret_begin = at;
    while (at < made->length && differs(made, at) && (at == *ret_begin || at % 8 != 0))
        at++;
    *ret_end = at;
    return at > *ret_begin;
}

void
made_print(const struct made *made)
{
    printf("---- recipe (from %s)\n%s", made->base->name, made->base->script);
    if (made->length != made->base->length)
        printf("truncate %zu\n", made->length);
    for (size_t begin, end = 0; next_run(made, end, &begin, &end);) {
        printf("byte[%#zx] = \"", begin);
        for (size_t i = begin; i < end; i++)
            printf("\\x%02x", made->bytes[i]);
        printf("\"\n");
    }
    printf("----\n");
}

/* Try the image with [begin, end) as the base has it, or zeros behind that. */
static bool
restore(struct made *made, size_t begin, size_t end,
        bool (*fails)(const struct made *made, void *data), void *data)
{
    size_t length = end - begin;
    uint8_t *kept = malloc(length);
    if (!kept)
        abort();
    memcpy(kept, made->bytes + begin, length);
    memset(made->bytes + begin, 0, length);
    if (begin < made->base->length) {
        size_t left = made->base->length - begin;
        memcpy(made->bytes + begin, made->base->bytes + begin, length < left ? length : left);
    }
    bool same = memcmp(kept, made->bytes + begin, length) == 0;
    bool still = same || fails(made, data);
    if (!still)
        memcpy(made->bytes + begin, kept, length);
    free(kept);
    return still && !same;
}

/* The length, and what was behind it. */
static void
shrink_length(struct made *made, bool (*fails)(const struct made *made, void *data), void *data)
{
    size_t length = made->length;
    if (length == made->base->length)
        return;
    made->length = made->base->length;
    if (length < made->length)
        memcpy(made->bytes + length, made->base->bytes + length, made->length - length);
    if (!fails(made, data))
        made->length = length;
}

void
made_shrink(struct made *made, bool (*fails)(const struct made *made, void *data), void *data)
{
    shrink_length(made, fails, data);
    for (size_t piece = made->length / 2; piece >= 64; piece /= 2)
        for (size_t begin = 0; begin < made->length; begin += piece)
            restore(made, begin, begin + piece < made->length ? begin + piece : made->length, fails,
                    data);
    for (size_t begin, end = 0; next_run(made, end, &begin, &end);)
        restore(made, begin, end, fails, data);
}
