/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* XTS (IEEE 1619), CBC and CTR (NIST SP 800-38A) in terms of single blocks. All blocks of a batch
 * go to libcrypto in one call, so that its pipelined code has something to do; where CBC chains
 * blocks, it is the sectors that are independent of each other. */

#include "core/codec/modes.h"

#include "core/base/endian.h"

#include <string.h>

enum { SECTOR_BLOCKS = Q2_CIPHER_SECTOR / Q2_BLOCK };

static bool
run_blocks(EVP_CIPHER_CTX *context, uint8_t *bytes, size_t length)
{
    int done = 0;
    return EVP_CipherUpdate(context, bytes, &done, bytes, (int)length) == 1 && done == (int)length;
}

typedef uint64_t block __attribute__((vector_size(Q2_BLOCK)));

/* Whole blocks; `length` is in bytes. */
static inline void
xor_bytes(uint8_t *to, const uint8_t *with, size_t length)
{
    for (size_t i = 0; i < length; i += Q2_BLOCK) {
        block a, b;
        memcpy(&a, to + i, sizeof a);
        memcpy(&b, with + i, sizeof b);
        a ^= b;
        memcpy(to + i, &a, sizeof a);
    }
}

static bool
make_vectors(struct q2_lane *lane, uint64_t first_sector, size_t sectors)
{
    memset(lane->iv, 0, sizeof lane->iv);
    for (size_t i = 0; i < sectors; i++) {
        uint64_t number = first_sector + i;
        if (lane->vectors == Q2_VECTORS_PLAIN)
            number &= UINT32_MAX;
        number = htole64(number);
        memcpy(lane->iv[i], &number, sizeof number);
    }
    return lane->vectors != Q2_VECTORS_ESSIV ||
           run_blocks(lane->essiv, lane->iv[0], sectors * Q2_BLOCK);
}

/* ---- XTS ---- */

/* Xor a sector with the tweaks of its blocks, and remember them: each is the one before times
 * alpha, in GF(2^128). */
static void
apply_tweaks(const uint8_t iv[Q2_BLOCK], uint8_t *sector, uint8_t *stream)
{
    uint64_t low, high;
    memcpy(&low, iv, 8);
    memcpy(&high, iv + 8, 8);
    low = le64toh(low);
    high = le64toh(high);
    for (size_t i = 0; i < Q2_CIPHER_SECTOR; i += Q2_BLOCK) {
        block tweak = {htole64(low), htole64(high)}, data;
        memcpy(&data, sector + i, sizeof data);
        data ^= tweak;
        memcpy(sector + i, &data, sizeof data);
        memcpy(stream + i, &tweak, sizeof tweak);
        uint64_t carry = high >> 63;
        high = high << 1 | low >> 63;
        low = low << 1 ^ (-carry & 0x87);
    }
}

bool
q2_mode_xts(struct q2_lane *lane, bool encrypt, uint64_t first_sector, uint8_t *bytes,
            size_t sectors)
{
    size_t length = sectors * Q2_CIPHER_SECTOR;
    if (!make_vectors(lane, first_sector, sectors) ||
        !run_blocks(lane->tweak, lane->iv[0], sectors * Q2_BLOCK))
        return false;
    for (size_t i = 0; i < length; i += Q2_CIPHER_SECTOR)
        apply_tweaks(lane->iv[i / Q2_CIPHER_SECTOR], bytes + i, lane->stream + i);
    if (!run_blocks(encrypt ? lane->encrypt : lane->decrypt, bytes, length))
        return false;
    xor_bytes(bytes, lane->stream, length);
    return true;
}

/* ---- CBC ---- */

/* Block after block, that of all sectors at once. lane->iv is the chain. */
static bool
cbc_encrypt(struct q2_lane *lane, uint8_t *bytes, size_t sectors)
{
    for (size_t at = 0; at < Q2_CIPHER_SECTOR; at += Q2_BLOCK) {
        for (size_t i = 0; i < sectors; i++)
            xor_bytes(lane->iv[i], bytes + i * Q2_CIPHER_SECTOR + at, Q2_BLOCK);
        if (!run_blocks(lane->encrypt, lane->iv[0], sectors * Q2_BLOCK))
            return false;
        for (size_t i = 0; i < sectors; i++)
            memcpy(bytes + i * Q2_CIPHER_SECTOR + at, lane->iv[i], Q2_BLOCK);
    }
    return true;
}

static bool
cbc_decrypt(struct q2_lane *lane, uint8_t *bytes, size_t sectors)
{
    memcpy(lane->stream, bytes, sectors * Q2_CIPHER_SECTOR);
    if (!run_blocks(lane->decrypt, bytes, sectors * Q2_CIPHER_SECTOR))
        return false;
    for (size_t i = 0; i < sectors; i++) {
        uint8_t *sector = bytes + i * Q2_CIPHER_SECTOR;
        xor_bytes(sector, lane->iv[i], Q2_BLOCK);
        xor_bytes(sector + Q2_BLOCK, lane->stream + i * Q2_CIPHER_SECTOR,
                  Q2_CIPHER_SECTOR - Q2_BLOCK);
    }
    return true;
}

bool
q2_mode_cbc(struct q2_lane *lane, bool encrypt, uint64_t first_sector, uint8_t *bytes,
            size_t sectors)
{
    return make_vectors(lane, first_sector, sectors) &&
           (encrypt ? cbc_encrypt : cbc_decrypt)(lane, bytes, sectors);
}

/* ---- the others ---- */

/* Has no use for vectors, whatever the mode's name says about them. */
bool
q2_mode_ecb(struct q2_lane *lane, bool encrypt, uint64_t first_sector, uint8_t *bytes,
            size_t sectors)
{
    (void)first_sector;
    return run_blocks(encrypt ? lane->encrypt : lane->decrypt, bytes, sectors * Q2_CIPHER_SECTOR);
}

/* The counter is the whole block, big-endian, and starts at the vector. */
bool
q2_mode_ctr(struct q2_lane *lane, bool encrypt, uint64_t first_sector, uint8_t *bytes,
            size_t sectors)
{
    (void)encrypt;
    if (!make_vectors(lane, first_sector, sectors))
        return false;
    for (size_t i = 0; i < sectors * SECTOR_BLOCKS; i++) {
        const uint8_t *iv = lane->iv[i / SECTOR_BLOCKS];
        uint64_t low = q2_load_be64(iv + 8), sum = low + i % SECTOR_BLOCKS;
        q2_store_be64(lane->stream + i * Q2_BLOCK, q2_load_be64(iv) + (sum < low));
        q2_store_be64(lane->stream + i * Q2_BLOCK + 8, sum);
    }
    if (!run_blocks(lane->encrypt, lane->stream, sectors * Q2_CIPHER_SECTOR))
        return false;
    xor_bytes(bytes, lane->stream, sectors * Q2_CIPHER_SECTOR);
    return true;
}
