/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The LUKS1 partition header that an encrypted image carries ("Full disk encryption header
 * pointer" in the specification; the layout is that of the LUKS1 On-Disk Format Specification,
 * figures 1 and 2). It is followed by the key material: for each of 8 key slots the image's master
 * key, split into stripes and encrypted with a pass phrase.
 *
 * Sectors have 512 bytes and are counted from the start of the header, not of the image. */

#ifndef Q2_FORMAT_LUKS_H
#define Q2_FORMAT_LUKS_H

#include "core/base/error.h"
#include "core/format/problem.h"

#include <stddef.h>
#include <stdint.h>

enum {
    Q2_LUKS_HEADER_LENGTH = 592, /* bytes */
    Q2_LUKS_SECTOR_BITS = 9,
    Q2_LUKS_MAGIC_LENGTH = 6,
    Q2_LUKS_VERSION = 1,
    Q2_LUKS_NAME_LENGTH = 32, /* of the cipher's, the mode's and the hash's, with their NUL */
    Q2_LUKS_UUID_LENGTH = 40,
    Q2_LUKS_DIGEST_LENGTH = 20,
    Q2_LUKS_SALT_LENGTH = 32,
    Q2_LUKS_SLOTS = 8,
    Q2_LUKS_SLOT_LENGTH = 48, /* bytes */
    Q2_LUKS_STRIPES = 4000,
    Q2_LUKS_SLOT_ENABLED = 0x00ac71f3,
    Q2_LUKS_SLOT_DISABLED = 0x0000dead,
    /* Where key material may begin. The first specification allowed the sector after the header;
     * LUKS_ALIGN_KEYSLOTS came with the first implementation, and QEMU insists on it. */
    Q2_LUKS_MATERIAL_START = 4096,
};

/* Where fields are, in bytes from the start of the header. */
enum q2_luks_field {
    Q2_LUKS_AT_MAGIC = 0,
    Q2_LUKS_AT_VERSION = 6,
    Q2_LUKS_AT_CIPHER_NAME = 8,
    Q2_LUKS_AT_CIPHER_MODE = 40,
    Q2_LUKS_AT_HASH = 72,
    Q2_LUKS_AT_PAYLOAD = 104,
    Q2_LUKS_AT_KEY_BYTES = 108,
    Q2_LUKS_AT_DIGEST = 112,
    Q2_LUKS_AT_SALT = 132,
    Q2_LUKS_AT_ITERATIONS = 164,
    Q2_LUKS_AT_UUID = 168,
    Q2_LUKS_AT_SLOTS = 208,
};

/* The same from the start of a key slot's description. */
enum q2_luks_slot_field {
    Q2_LUKS_SLOT_AT_STATE = 0,
    Q2_LUKS_SLOT_AT_ITERATIONS = 4,
    Q2_LUKS_SLOT_AT_SALT = 8,
    Q2_LUKS_SLOT_AT_MATERIAL = 40,
    Q2_LUKS_SLOT_AT_STRIPES = 44,
};

extern const uint8_t q2_luks_magic[Q2_LUKS_MAGIC_LENGTH];

struct q2_luks_slot {
    uint32_t state; /* Q2_LUKS_SLOT_ENABLED or Q2_LUKS_SLOT_DISABLED */
    uint32_t iterations;
    uint8_t salt[Q2_LUKS_SALT_LENGTH];
    uint32_t material; /* where its key material begins, sectors */
    uint32_t stripes;
};

/* Strings are the header's bytes, whatever follows their NUL included, and one NUL more: one that
 * is as long as its field was not terminated. */
struct q2_luks_header {
    uint8_t magic[Q2_LUKS_MAGIC_LENGTH];
    uint16_t version;
    char cipher_name[Q2_LUKS_NAME_LENGTH + 1];
    char cipher_mode[Q2_LUKS_NAME_LENGTH + 1];
    char hash[Q2_LUKS_NAME_LENGTH + 1];
    uint32_t payload; /* where encrypted data would begin on a partition, sectors */
    uint32_t key_bytes;
    uint8_t digest[Q2_LUKS_DIGEST_LENGTH]; /* of the master key */
    uint8_t salt[Q2_LUKS_SALT_LENGTH];     /* of the digest */
    uint32_t iterations;                   /* of the digest */
    char uuid[Q2_LUKS_UUID_LENGTH + 1];
    struct q2_luks_slot slots[Q2_LUKS_SLOTS];
};

/* Decode the first Q2_LUKS_HEADER_LENGTH of `length` bytes, whatever they say. Q2_ERR_EOF where
 * there are fewer. */
int q2_luks_decode(const uint8_t *bytes, size_t length, struct q2_luks_header *ret_header,
                   struct q2_error *err);

/* The reverse, byte for byte. */
void q2_luks_encode(const struct q2_luks_header *header, uint8_t bytes[Q2_LUKS_HEADER_LENGTH]);

/* Hold a header found at `host_offset` in the file against the rules. `header_length` is the length
 * of header and key material that the image records, in bytes. What follows from a broken rule is
 * not reported again: nothing else of what is no LUKS1 header, no overlaps of key material that
 * lies outside. */
void q2_luks_validate(const struct q2_luks_header *header, uint64_t host_offset,
                      uint64_t header_length, const struct q2_sink *sink);

#endif
