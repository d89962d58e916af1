/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/codec/afsplit.h"

#include "core/base/endian.h"
#include "core/codec/cipher.h"
#include "core/codec/random.h"

#include <string.h>

/* Each piece of the block, as long as a digest, becomes the digest of its number and itself. */
static int
diffuse(const struct q2_hash *hash, uint8_t *block, size_t length, struct q2_error *err)
{
    uint8_t numbered[4 + Q2_HASH_MAX], digest[Q2_HASH_MAX];
    int r = 0;
    for (size_t at = 0, number = 0; at < length && r == 0; at += hash->length, number++) {
        size_t piece = length - at < hash->length ? length - at : hash->length;
        q2_store_be32(numbered, (uint32_t)number);
        memcpy(numbered + 4, block + at, piece);
        r = q2_hash_digest(hash, numbered, 4 + piece, digest, err);
        if (r == 0)
            memcpy(block + at, digest, piece);
    }
    q2_wipe(numbered, sizeof numbered);
    q2_wipe(digest, sizeof digest);
    return r;
}

/* What the last stripe is xored with: all the others, diffused one after another. */
static int
accumulate(const struct q2_hash *hash, const uint8_t *material, size_t length, uint32_t stripes,
           uint8_t *block, struct q2_error *err)
{
    memset(block, 0, length);
    for (uint32_t i = 0; i + 1 < stripes; i++) {
        for (size_t j = 0; j < length; j++)
            block[j] ^= material[i * length + j];
        int r = diffuse(hash, block, length, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int
q2_af_split(const struct q2_hash *hash, const uint8_t *key, size_t length, uint32_t stripes,
            uint8_t *material, struct q2_error *err)
{
    uint8_t block[Q2_CIPHER_MAX_KEY];
    size_t others = length * (stripes - 1);
    int r = q2_random_bytes(material, others, err);
    if (r == 0)
        r = accumulate(hash, material, length, stripes, block, err);
    for (size_t j = 0; r == 0 && j < length; j++)
        material[others + j] = block[j] ^ key[j];
    q2_wipe(block, sizeof block);
    return r;
}

int
q2_af_merge(const struct q2_hash *hash, const uint8_t *material, size_t length, uint32_t stripes,
            uint8_t *key, struct q2_error *err)
{
    uint8_t block[Q2_CIPHER_MAX_KEY];
    int r = accumulate(hash, material, length, stripes, block, err);
    for (size_t j = 0; r == 0 && j < length; j++)
        key[j] = material[length * (stripes - 1) + j] ^ block[j];
    q2_wipe(block, sizeof block);
    return r;
}
