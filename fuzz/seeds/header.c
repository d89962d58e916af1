/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Headers of both versions with every extension, a backing file name, and what is not known. */

#include "core/base/endian.h"
#include "core/format/extension.h"
#include "fuzz/seeds/seed.h"

#include <string.h>

enum { V2 = 1, BACKING = 2, UNKNOWN = 4, BITMAPS = 8, CRYPTO = 16, DATA_FILE = 32, FEATURES = 64 };

static const unsigned kinds[] = {
    0,
    V2,
    BACKING,
    V2 | BACKING,
    UNKNOWN,
    V2 | UNKNOWN,
    BITMAPS,
    CRYPTO,
    DATA_FILE,
    FEATURES,
    BACKING | UNKNOWN | BITMAPS | FEATURES,
    DATA_FILE | BITMAPS | UNKNOWN | FEATURES,
};

static void
put(uint8_t **at, uint32_t type, const void *data, size_t length)
{
    q2_store_be32(*at, type);
    q2_store_be32(*at + 4, (uint32_t)length);
    memcpy(*at + 8, data, length);
    *at += 8 + ((length + 7) & ~(size_t)7);
}

static void
put_numbers(uint8_t **at, uint32_t type, const uint64_t *numbers, size_t count)
{
    uint8_t data[24];
    for (size_t i = 0; i < count; i++)
        q2_store_be64(data + 8 * i, numbers[i]);
    put(at, type, data, 8 * count);
}

static size_t
make(uint8_t *bytes, unsigned kind)
{
    static const char feature[48] = "\0\0dirty bit";
    bool data_file = kind & DATA_FILE;
    struct q2_header header = {
        .magic = Q2_MAGIC,
        .version = kind & V2 ? 2 : 3,
        .cluster_bits = 9,
        .size = 1 << 15,
        .crypt_method = kind & CRYPTO ? Q2_CRYPT_LUKS : 0,
        .l1_size = 1,
        .l1_table_offset = 512,
        .refcount_table_offset = 1024,
        .refcount_table_clusters = 1,
        .incompatible_features = data_file ? Q2_INCOMPATIBLE_DATA_FILE : 0,
        .autoclear_features = kind & BITMAPS ? Q2_AUTOCLEAR_BITMAPS : 0,
        .refcount_order = 4,
        .header_length = kind & V2        ? Q2_HEADER_V2_LENGTH
                         : kind & UNKNOWN ? Q2_HEADER_V3_LENGTH
                                          : Q2_HEADER_KNOWN_LENGTH,
    };
    uint8_t *at = bytes + header.header_length;
    if (kind & BITMAPS)
        put_numbers(&at, Q2_EXTENSION_BITMAPS, (const uint64_t[]){UINT64_C(1) << 32, 32, 1536}, 3);
    if (kind & BACKING)
        put(&at, Q2_EXTENSION_BACKING_FORMAT, "qcow2", 5);
    if (data_file)
        put(&at, Q2_EXTENSION_DATA_FILE, "data.raw", 8);
    if (kind & CRYPTO)
        put_numbers(&at, Q2_EXTENSION_CRYPTO, (const uint64_t[]){1536, 512}, 2);
    if (kind & FEATURES)
        put(&at, Q2_EXTENSION_FEATURES, feature, sizeof feature);
    if (kind & UNKNOWN) {
        put(&at, 0x12345678, "unknown", 7);
        put(&at, 0x12345679, "", 0);
    }
    put(&at, Q2_EXTENSION_END, "", 0);
    if (kind & BACKING) {
        header.backing_file_offset = (uint64_t)(at - bytes);
        header.backing_file_size = 4;
        memcpy(at, "base", 4);
    }
    q2_header_encode(&header, bytes);
    return 512;
}

void
q2_make_seeds(void)
{
    static struct q2_seed seed;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        for (unsigned strict = 0; strict < 2; strict++) {
            uint8_t bytes[512] = {0};
            size_t length = make(bytes, kinds[i]);
            q2_seed_number(&seed, 1, strict);
            q2_seed_number(&seed, 2, 7);
            q2_seed_bytes(&seed, bytes, length);
            q2_seed_write(&seed, "%u%s", kinds[i], strict ? "-strict" : "");
        }
}
