/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* An HMAC of 32 bytes is two compressions, once the states after the padded key are known; the rest
 * of each block (end marker and length) is the same every time. */

/* The functions that work on a state are deprecated in favour of those that allocate one. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "core/codec/pbkdf2_sha256.h"

#include "core/base/endian.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <string.h>

enum {
    BLOCK = 64,
    WORDS = 8,
    HMAC_BITS = (BLOCK + Q2_SHA256_LENGTH) * 8, /* what each of the two hashes covers */
};

/* The state after one block of the key, of at most BLOCK bytes, with each byte changed by `pad`. */
static void
keyed_state(const uint8_t *key, size_t length, uint8_t pad, SHA256_CTX *ret_state)
{
    uint8_t block[BLOCK];
    memset(block, pad, sizeof block);
    for (size_t i = 0; i < length; i++)
        block[i] ^= key[i];
    SHA256_Init(ret_state);
    SHA256_Transform(ret_state, block);
    OPENSSL_cleanse(block, sizeof block);
}

/* One more block on top of `start`: the digest goes back to where the message was. */
static inline void
compress(const SHA256_CTX *start, SHA256_CTX *scratch, uint8_t block[BLOCK])
{
    memcpy(scratch->h, start->h, sizeof start->h);
    SHA256_Transform(scratch, block);
    for (size_t i = 0; i < WORDS; i++)
        q2_store_be32(block + i * 4, scratch->h[i]);
}

void
q2_pbkdf2_sha256_block(const void *passphrase, size_t length, uint32_t iterations,
                       const uint8_t first[Q2_SHA256_LENGTH], uint8_t block[Q2_SHA256_LENGTH])
{
    uint8_t digest[Q2_SHA256_LENGTH], message[BLOCK] = {0};
    const uint8_t *key = passphrase;
    SHA256_CTX inner, outer, scratch;
    if (length > BLOCK) {
        key = SHA256(passphrase, length, digest);
        length = sizeof digest;
    }
    keyed_state(key, length, 0x36, &inner);
    keyed_state(key, length, 0x5c, &outer);
    scratch = inner;

    memcpy(message, first, Q2_SHA256_LENGTH);
    message[Q2_SHA256_LENGTH] = 0x80;
    q2_store_be16(message + BLOCK - 2, HMAC_BITS);
    memcpy(block, first, Q2_SHA256_LENGTH);
    for (uint32_t i = 1; i < iterations; i++) {
        compress(&inner, &scratch, message);
        compress(&outer, &scratch, message);
        for (size_t j = 0; j < Q2_SHA256_LENGTH; j++)
            block[j] ^= message[j];
    }
    OPENSSL_cleanse(digest, sizeof digest);
    OPENSSL_cleanse(message, sizeof message);
    OPENSSL_cleanse(&inner, sizeof inner);
    OPENSSL_cleanse(&outer, sizeof outer);
    OPENSSL_cleanse(&scratch, sizeof scratch);
}
