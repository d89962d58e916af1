/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A sound header for each spelling of cipher, mode and hash. */

#include "core/format/luks.h"
#include "fuzz/seeds/seed.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *cipher, *mode, *hash;
    uint32_t key_bytes;
} kinds[] = {
    {"aes", "xts-plain64", "sha256", 64},     {"aes", "cbc-essiv:sha256", "sha256", 32},
    {"aes", "cbc-plain", "sha1", 16},         {"aes", "ecb-plain", "sha512", 24},
    {"aes", "ctr-plain64", "sha384", 32},     {"serpent", "xts-plain64", "ripemd160", 64},
    {"twofish", "cbc-plain64", "sha224", 32}, {"cast5", "cbc-plain64", "md5", 16},
    {"sm4", "xts-plain64", "sm3", 32},
};

void
q2_make_seeds(void)
{
    static struct q2_seed seed;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct q2_luks_header header = {
            .version = Q2_LUKS_VERSION,
            .payload = 4096,
            .key_bytes = kinds[i].key_bytes,
            .iterations = 1000,
        };
        memcpy(header.magic, q2_luks_magic, sizeof header.magic);
        snprintf(header.cipher_name, sizeof header.cipher_name, "%s", kinds[i].cipher);
        snprintf(header.cipher_mode, sizeof header.cipher_mode, "%s", kinds[i].mode);
        snprintf(header.hash, sizeof header.hash, "%s", kinds[i].hash);
        snprintf(header.uuid, sizeof header.uuid, "00000000-0000-0000-0000-000000000000");
        for (unsigned k = 0; k < Q2_LUKS_SLOTS; k++)
            header.slots[k] = (struct q2_luks_slot){
                .state = k < 2 ? Q2_LUKS_SLOT_ENABLED : Q2_LUKS_SLOT_DISABLED,
                .iterations = 1000,
                .material = 8 + k * 504,
                .stripes = Q2_LUKS_STRIPES,
            };
        uint8_t bytes[Q2_LUKS_HEADER_LENGTH];
        q2_luks_encode(&header, bytes);
        q2_seed_number(&seed, 1, i % 2);
        q2_seed_number(&seed, 4, 4096);
        q2_seed_bytes(&seed, bytes, sizeof bytes);
        q2_seed_write(&seed, "%s-%s", kinds[i].cipher, kinds[i].mode);
    }
}
