/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Threads that share a cipher get what one thread alone gets, in both directions at once. */

#include "core/codec/cipher.h"
#include "tests/threads/threads.h"

#include <string.h>

enum { LENGTH = 65536, ROUNDS = 50 };

struct shared {
    struct q2_cipher *cipher;
    uint8_t plain[LENGTH], expected[THREADS][LENGTH]; /* each thread has sectors of its own */
};

static uint64_t
first_sector(unsigned thread)
{
    return (uint64_t)thread * 1000;
}

static void
exchange(void *data, unsigned thread)
{
    struct shared *shared = data;
    uint8_t *bytes = malloc(LENGTH);
    MUST(bytes);
    for (unsigned round = 0; round < ROUNDS; round++) {
        memcpy(bytes, shared->plain, LENGTH);
        MUST(q2_cipher_encrypt(shared->cipher, first_sector(thread), bytes, LENGTH, NULL) == 0);
        MUST(memcmp(bytes, shared->expected[thread], LENGTH) == 0);
        MUST(q2_cipher_decrypt(shared->cipher, first_sector(thread), bytes, LENGTH, NULL) == 0);
        MUST(memcmp(bytes, shared->plain, LENGTH) == 0);
    }
    free(bytes);
}

int
main(void)
{
    static const char *const modes[] = {"xts-plain64", "cbc-essiv:sha256", "ctr-plain64"};
    static const size_t key_bytes[] = {64, 32, 16};
    static struct shared shared;
    uint8_t key[Q2_CIPHER_MAX_KEY];
    for (unsigned i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)(i * 3);
    for (unsigned i = 0; i < LENGTH; i++)
        shared.plain[i] = (uint8_t)(i * 2654435761u >> 24);
    for (unsigned m = 0; m < 3; m++) {
        struct q2_cipher *alone;
        MUST(q2_cipher_new("aes", modes[m], key, key_bytes[m], &alone, NULL) == 0);
        MUST(q2_cipher_new("aes", modes[m], key, key_bytes[m], &shared.cipher, NULL) == 0);
        for (unsigned i = 0; i < THREADS; i++) {
            memcpy(shared.expected[i], shared.plain, LENGTH);
            MUST(q2_cipher_encrypt(alone, first_sector(i), shared.expected[i], LENGTH, NULL) == 0);
        }
        threads_run(exchange, &shared);
        q2_cipher_free(alone);
        q2_cipher_free(shared.cipher);
    }
    return 0;
}
