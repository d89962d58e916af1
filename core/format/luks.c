/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The rules of a LUKS1 header are those by which readers open it: what QEMU and cryptsetup refuse
 * is a violation, what they let pass is none. Losing this header loses all guest data, and most of
 * its fields can be known from the others, so each report names exactly one field. */

#include "core/format/luks.h"

#include "core/base/checked.h"
#include "core/base/endian.h"

#include <string.h>

const uint8_t q2_luks_magic[Q2_LUKS_MAGIC_LENGTH] = {'L', 'U', 'K', 'S', 0xba, 0xbe};

/* ---- bytes to struct and back ---- */

static void
decode_text(char *text, const uint8_t *bytes, size_t length)
{
    memcpy(text, bytes, length);
    text[length] = 0;
}

static void
decode_slot(const uint8_t *bytes, struct q2_luks_slot *slot)
{
    slot->state = q2_load_be32(bytes + Q2_LUKS_SLOT_AT_STATE);
    slot->iterations = q2_load_be32(bytes + Q2_LUKS_SLOT_AT_ITERATIONS);
    memcpy(slot->salt, bytes + Q2_LUKS_SLOT_AT_SALT, sizeof slot->salt);
    slot->material = q2_load_be32(bytes + Q2_LUKS_SLOT_AT_MATERIAL);
    slot->stripes = q2_load_be32(bytes + Q2_LUKS_SLOT_AT_STRIPES);
}

static void
encode_slot(const struct q2_luks_slot *slot, uint8_t *bytes)
{
    q2_store_be32(bytes + Q2_LUKS_SLOT_AT_STATE, slot->state);
    q2_store_be32(bytes + Q2_LUKS_SLOT_AT_ITERATIONS, slot->iterations);
    memcpy(bytes + Q2_LUKS_SLOT_AT_SALT, slot->salt, sizeof slot->salt);
    q2_store_be32(bytes + Q2_LUKS_SLOT_AT_MATERIAL, slot->material);
    q2_store_be32(bytes + Q2_LUKS_SLOT_AT_STRIPES, slot->stripes);
}

int
q2_luks_decode(const uint8_t *bytes, size_t length, struct q2_luks_header *ret_header,
               struct q2_error *err)
{
    if (length < Q2_LUKS_HEADER_LENGTH)
        return q2_error_set(err, Q2_ERR_EOF, "%zu bytes are too few for a LUKS header of %d",
                            length, Q2_LUKS_HEADER_LENGTH);
    struct q2_luks_header *header = ret_header;
    memcpy(header->magic, bytes + Q2_LUKS_AT_MAGIC, sizeof header->magic);
    header->version = q2_load_be16(bytes + Q2_LUKS_AT_VERSION);
    decode_text(header->cipher_name, bytes + Q2_LUKS_AT_CIPHER_NAME, Q2_LUKS_NAME_LENGTH);
    decode_text(header->cipher_mode, bytes + Q2_LUKS_AT_CIPHER_MODE, Q2_LUKS_NAME_LENGTH);
    decode_text(header->hash, bytes + Q2_LUKS_AT_HASH, Q2_LUKS_NAME_LENGTH);
    header->payload = q2_load_be32(bytes + Q2_LUKS_AT_PAYLOAD);
    header->key_bytes = q2_load_be32(bytes + Q2_LUKS_AT_KEY_BYTES);
    memcpy(header->digest, bytes + Q2_LUKS_AT_DIGEST, sizeof header->digest);
    memcpy(header->salt, bytes + Q2_LUKS_AT_SALT, sizeof header->salt);
    header->iterations = q2_load_be32(bytes + Q2_LUKS_AT_ITERATIONS);
    decode_text(header->uuid, bytes + Q2_LUKS_AT_UUID, Q2_LUKS_UUID_LENGTH);
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        decode_slot(bytes + Q2_LUKS_AT_SLOTS + i * Q2_LUKS_SLOT_LENGTH, &header->slots[i]);
    return 0;
}

void
q2_luks_encode(const struct q2_luks_header *header, uint8_t bytes[Q2_LUKS_HEADER_LENGTH])
{
    memcpy(bytes + Q2_LUKS_AT_MAGIC, header->magic, sizeof header->magic);
    q2_store_be16(bytes + Q2_LUKS_AT_VERSION, header->version);
    memcpy(bytes + Q2_LUKS_AT_CIPHER_NAME, header->cipher_name, Q2_LUKS_NAME_LENGTH);
    memcpy(bytes + Q2_LUKS_AT_CIPHER_MODE, header->cipher_mode, Q2_LUKS_NAME_LENGTH);
    memcpy(bytes + Q2_LUKS_AT_HASH, header->hash, Q2_LUKS_NAME_LENGTH);
    q2_store_be32(bytes + Q2_LUKS_AT_PAYLOAD, header->payload);
    q2_store_be32(bytes + Q2_LUKS_AT_KEY_BYTES, header->key_bytes);
    memcpy(bytes + Q2_LUKS_AT_DIGEST, header->digest, sizeof header->digest);
    memcpy(bytes + Q2_LUKS_AT_SALT, header->salt, sizeof header->salt);
    q2_store_be32(bytes + Q2_LUKS_AT_ITERATIONS, header->iterations);
    memcpy(bytes + Q2_LUKS_AT_UUID, header->uuid, Q2_LUKS_UUID_LENGTH);
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        encode_slot(&header->slots[i], bytes + Q2_LUKS_AT_SLOTS + i * Q2_LUKS_SLOT_LENGTH);
}

/* ---- rules ---- */

/* What the rules look at, and what they find out for each other. */
struct check {
    const struct q2_luks_header *header;
    uint64_t host_offset;
    uint64_t header_length;
    const struct q2_sink *sink;
    uint64_t material_length;   /* bytes of a slot's key material; 0 if the key's are unknown */
    bool inside[Q2_LUKS_SLOTS]; /* whether the slot's key material lies where it may */
};

static uint64_t
slot_at(const struct check *check, unsigned slot, enum q2_luks_slot_field field)
{
    return check->host_offset + Q2_LUKS_AT_SLOTS + slot * Q2_LUKS_SLOT_LENGTH + field;
}

static bool
check_identity(const struct check *check)
{
    const struct q2_luks_header *header = check->header;
    if (memcmp(header->magic, q2_luks_magic, sizeof q2_luks_magic) != 0) {
        /* As numbers, the magic and the version after it are one 64-bit word. */
        uint8_t got[8] = {0}, expected[8] = {0};
        memcpy(got + 2, header->magic, sizeof header->magic);
        memcpy(expected + 2, q2_luks_magic, sizeof q2_luks_magic);
        q2_violate_expected(check->sink, Q2_PROBLEM_LUKS_MAGIC, check->host_offset,
                            sizeof header->magic, q2_load_be64(got), q2_load_be64(expected), NULL);
        return false;
    }
    if (header->version != Q2_LUKS_VERSION) {
        q2_violate_expected(check->sink, Q2_PROBLEM_LUKS_VERSION,
                            check->host_offset + Q2_LUKS_AT_VERSION, 2, header->version,
                            Q2_LUKS_VERSION, NULL);
        return false;
    }
    return true;
}

/* ---- cipher, mode and hash ---- */

/* Lengths of a cipher's keys in bytes: a bit for each 8. */
enum {
    KEY_16 = 1 << 2,
    KEY_24 = 1 << 3,
    KEY_32 = 1 << 4,
    KEY_ANY = KEY_16 | KEY_24 | KEY_32,
};

/* The names that QEMU knows, the superset of what it writes. */
static const struct cipher {
    const char *name;
    unsigned keys;
} ciphers[] = {
    {"aes", KEY_ANY},  {"serpent", KEY_ANY}, {"twofish", KEY_ANY},
    {"cast5", KEY_16}, {"sm4", KEY_16},
};

static const char *const modes[] = {"xts", "cbc", "ecb", "ctr", NULL};
static const char *const iv_generators[] = {"plain64", "plain", "essiv", NULL};
static const char *const hashes[] = {"sha256", "sha1",      "sha512", "sha384", "sha224",
                                     "md5",    "ripemd160", "sm3",    NULL};

static bool
is_one_of(const char *const *names, const char *text, size_t length)
{
    for (; *names; names++)
        if (strlen(*names) == length && memcmp(*names, text, length) == 0)
            return true;
    return false;
}

static const struct cipher *
find_cipher(const char *name)
{
    for (size_t i = 0; i < sizeof ciphers / sizeof ciphers[0]; i++)
        if (strcmp(ciphers[i].name, name) == 0)
            return &ciphers[i];
    return NULL;
}

/* A mode is spelled MODE-GENERATOR or MODE-GENERATOR:HASH; ESSIV needs the hash. */
static bool
mode_is_known(const char *text)
{
    size_t mode = strcspn(text, "-");
    if (!text[mode] || !is_one_of(modes, text, mode))
        return false;
    const char *generator = text + mode + 1;
    size_t length = strcspn(generator, ":");
    if (!is_one_of(iv_generators, generator, length))
        return false;
    if (generator[length])
        return is_one_of(hashes, generator + length + 1, strlen(generator + length + 1));
    return !(length == 5 && memcmp(generator, "essiv", 5) == 0);
}

static void
report_name(const struct check *check, enum q2_luks_field field, const char *what, const char *text)
{
    char printable[Q2_DETAIL_SIZE / 2];
    size_t length = strlen(text);
    const char *how = length < Q2_LUKS_NAME_LENGTH ? "unknown" : "not terminated";
    q2_violate_text(check->sink, Q2_PROBLEM_LUKS_CIPHER, check->host_offset + field,
                    Q2_LUKS_NAME_LENGTH, "%s %s: \"%s\"", what, how,
                    q2_printable(printable, sizeof printable, text, length));
}

/* A name that fills its field is longer than any known one, so these rules cover its missing NUL.
 */
static void
check_names(const struct check *check)
{
    const struct q2_luks_header *header = check->header;
    if (!find_cipher(header->cipher_name))
        report_name(check, Q2_LUKS_AT_CIPHER_NAME, "cipher", header->cipher_name);
    if (!mode_is_known(header->cipher_mode))
        report_name(check, Q2_LUKS_AT_CIPHER_MODE, "cipher mode", header->cipher_mode);
    if (!is_one_of(hashes, header->hash, strlen(header->hash)))
        report_name(check, Q2_LUKS_AT_HASH, "hash", header->hash);
}

static bool
key_fits(uint32_t key_bytes, unsigned keys)
{
    return key_bytes % 8 == 0 && key_bytes <= 32 && (keys >> key_bytes / 8 & 1);
}

/* XTS uses two keys. Where the names do not tell, any length that is ever used will do. */
static void
check_key_bytes(struct check *check)
{
    const struct q2_luks_header *header = check->header;
    const struct cipher *cipher = find_cipher(header->cipher_name);
    bool mode_known = mode_is_known(header->cipher_mode);
    bool xts = mode_known && memcmp(header->cipher_mode, "xts-", 4) == 0;
    unsigned keys = cipher ? cipher->keys : KEY_ANY;
    uint32_t bytes = header->key_bytes;
    bool pair_fits = bytes % 2 == 0 && key_fits(bytes / 2, keys);
    if (((xts || !mode_known) && pair_fits) || (!xts && key_fits(bytes, keys)))
        check->material_length = (uint64_t)bytes * Q2_LUKS_STRIPES;
    else
        q2_violate(check->sink, Q2_PROBLEM_LUKS_KEY_BYTES,
                   check->host_offset + Q2_LUKS_AT_KEY_BYTES, 4, bytes, NULL);
}

/* ---- key slots ---- */

static void
check_iterations(const struct check *check)
{
    if (check->header->iterations == 0)
        q2_violate(check->sink, Q2_PROBLEM_LUKS_ITERATIONS,
                   check->host_offset + Q2_LUKS_AT_ITERATIONS, 4, 0, "of the master key's digest");
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++) {
        const struct q2_luks_slot *slot = &check->header->slots[i];
        if (slot->state == Q2_LUKS_SLOT_ENABLED && slot->iterations == 0)
            q2_violate(check->sink, Q2_PROBLEM_LUKS_ITERATIONS,
                       slot_at(check, i, Q2_LUKS_SLOT_AT_ITERATIONS), 4, 0, "key slot %u", i);
    }
}

/* Where a slot's state is damaged, whether any is enabled cannot be said. */
static void
check_states(const struct check *check)
{
    unsigned disabled = 0;
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++) {
        uint32_t state = check->header->slots[i].state;
        if (state == Q2_LUKS_SLOT_DISABLED)
            disabled++;
        else if (state != Q2_LUKS_SLOT_ENABLED)
            q2_violate(check->sink, Q2_PROBLEM_LUKS_SLOT_STATE,
                       slot_at(check, i, Q2_LUKS_SLOT_AT_STATE), 4, state, "key slot %u", i);
    }
    if (disabled == Q2_LUKS_SLOTS)
        q2_violate_text(check->sink, Q2_PROBLEM_LUKS_NO_ACTIVE_SLOT,
                        check->host_offset + Q2_LUKS_AT_SLOTS, Q2_LUKS_SLOTS * Q2_LUKS_SLOT_LENGTH,
                        NULL);
}

/* First byte of the slot's key material. */
static uint64_t
material_start(const struct check *check, unsigned slot)
{
    return (uint64_t)check->header->slots[slot].material << Q2_LUKS_SECTOR_BITS;
}

/* Disabled slots are held to the rules as well: their areas stay reserved, and readers refuse a
 * header for them too. */
static void
check_material(struct check *check)
{
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++) {
        const struct q2_luks_slot *slot = &check->header->slots[i];
        if (slot->stripes != Q2_LUKS_STRIPES)
            q2_violate_expected(check->sink, Q2_PROBLEM_LUKS_SLOT_STRIPES,
                                slot_at(check, i, Q2_LUKS_SLOT_AT_STRIPES), 4, slot->stripes,
                                Q2_LUKS_STRIPES, "key slot %u", i);
        uint64_t start = material_start(check, i);
        bool early = start < Q2_LUKS_MATERIAL_START;
        check->inside[i] =
            !early && q2_range_inside(start, check->material_length, check->header_length);
        if (!check->inside[i])
            q2_violate(check->sink, Q2_PROBLEM_LUKS_SLOT_RANGE,
                       slot_at(check, i, Q2_LUKS_SLOT_AT_MATERIAL), 4, slot->material,
                       "key slot %u %s", i,
                       early ? "begins inside the header" : "reaches beyond the header's length");
    }
}

static void
check_overlaps(const struct check *check)
{
    for (unsigned i = 1; i < Q2_LUKS_SLOTS; i++)
        for (unsigned j = 0; j < i; j++)
            if (check->inside[i] && check->inside[j] &&
                q2_ranges_overlap(material_start(check, i), check->material_length,
                                  material_start(check, j), check->material_length))
                q2_violate(check->sink, Q2_PROBLEM_LUKS_SLOT_OVERLAP,
                           slot_at(check, i, Q2_LUKS_SLOT_AT_MATERIAL), 4,
                           check->header->slots[i].material, "key slots %u and %u", j, i);
}

/* qcow2 itself says where guest data is, but the field should be right "as normal". QEMU makes it
 * and the header's length the same; a larger one would only be more padding. */
static void
check_payload(const struct check *check)
{
    uint64_t end = Q2_LUKS_MATERIAL_START;
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        if (check->inside[i])
            end = q2_max(end, material_start(check, i) + check->material_length);
    if ((uint64_t)check->header->payload << Q2_LUKS_SECTOR_BITS < end)
        q2_violate_expected(check->sink, Q2_PROBLEM_LUKS_PAYLOAD_OFFSET,
                            check->host_offset + Q2_LUKS_AT_PAYLOAD, 4, check->header->payload,
                            q2_units(q2_max(end, check->header_length), Q2_LUKS_SECTOR_BITS), NULL);
}

void
q2_luks_validate(const struct q2_luks_header *header, uint64_t host_offset, uint64_t header_length,
                 const struct q2_sink *sink)
{
    struct check check = {header, host_offset, header_length, sink, 0, {false}};
    if (!check_identity(&check))
        return;
    check_names(&check);
    check_key_bytes(&check);
    check_iterations(&check);
    check_states(&check);
    check_material(&check);
    check_overlaps(&check);
    check_payload(&check);
}
