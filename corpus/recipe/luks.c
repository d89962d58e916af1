/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The LUKS header of an encrypted image: right in structure, but its keys are made up, so that no
 * pass phrase opens it. */

#include "core/format/luks.h"

#include "core/base/checked.h"
#include "corpus/recipe/build.h"

#include <stdio.h>
#include <string.h>

enum {
    KEY_BYTES = 64, /* of AES-256 in XTS mode, which takes two keys */
    ALIGN = 4096,
    SEED = 71,
    ITERATIONS = 100000,
};

/* Different bytes for each field. */
static void
make_up(void *to, size_t length, unsigned which)
{
    const struct recipe_pattern pattern = {.kind = PATTERN_RANDOM, .seed = SEED + which};
    recipe_pattern_fill(&pattern, 0, to, length);
}

/* Bytes of one key slot's key material, aligned. */
static uint64_t
material_bytes(void)
{
    uint64_t bytes = (uint64_t)KEY_BYTES * Q2_LUKS_STRIPES;
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static void
describe(struct q2_luks_header *header)
{
    *header = (struct q2_luks_header){
        .version = Q2_LUKS_VERSION,
        .key_bytes = KEY_BYTES,
        .iterations = ITERATIONS,
    };
    memcpy(header->magic, q2_luks_magic, sizeof header->magic);
    snprintf(header->cipher_name, sizeof header->cipher_name, "aes");
    snprintf(header->cipher_mode, sizeof header->cipher_mode, "xts-plain64");
    snprintf(header->hash, sizeof header->hash, "sha256");
    snprintf(header->uuid, sizeof header->uuid, "00010203-0405-4607-8809-0a0b0c0d0e0f");
    make_up(header->digest, sizeof header->digest, 0);
    make_up(header->salt, sizeof header->salt, 1);
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++) {
        uint64_t at = Q2_LUKS_MATERIAL_START + i * material_bytes();
        header->slots[i] = (struct q2_luks_slot){
            .state = i ? Q2_LUKS_SLOT_DISABLED : Q2_LUKS_SLOT_ENABLED,
            .material = (uint32_t)(at >> Q2_LUKS_SECTOR_BITS),
            .stripes = Q2_LUKS_STRIPES,
        };
    }
    header->slots[0].iterations = 2 * ITERATIONS;
    make_up(header->slots[0].salt, sizeof header->slots[0].salt, 2);
    header->payload = (uint32_t)((Q2_LUKS_MATERIAL_START + Q2_LUKS_SLOTS * material_bytes()) >>
                                 Q2_LUKS_SECTOR_BITS);
}

int
recipe_make_luks(struct recipe_build *build)
{
    struct q2_luks_header header;
    uint8_t bytes[Q2_LUKS_HEADER_LENGTH];
    describe(&header);
    q2_luks_encode(&header, bytes);
    build->luks_length = (uint64_t)header.payload << Q2_LUKS_SECTOR_BITS;
    uint64_t clusters = q2_units(build->luks_length, build->geometry.cluster_bits);
    int rc = recipe_allocate(build, clusters, &build->luks);
    rc = rc ? rc : q2_file_write(build->image, build->luks, bytes, sizeof bytes, build->err);
    /* Only the slot in use has key material. */
    const struct recipe_pattern material = {.kind = PATTERN_RANDOM, .seed = SEED + 3};
    return rc ? rc
              : recipe_fill_file(build->image, build->luks + Q2_LUKS_MATERIAL_START,
                                 (uint64_t)KEY_BYTES * Q2_LUKS_STRIPES, &material, build->err);
}
