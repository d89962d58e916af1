/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* From a pass phrase to the master key. A slot's material is decrypted with a key that PBKDF2 makes
 * of the pass phrase and the slot's salt, its stripes are merged, and the digest tells whether what
 * comes out is the master key. Nothing else does: a wrong pass phrase and damaged material look the
 * same. */

#include "core/codec/keys.h"

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/codec/afsplit.h"
#include "core/codec/area.h"
#include "core/codec/random.h"

#include <inttypes.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <string.h>

void
q2_luks_key_wipe(struct q2_luks_key *key)
{
    if (key)
        q2_wipe(key, sizeof *key);
}

/* ---- the area ---- */

int
q2_luks_area_cipher(const struct q2_luks_area *area, const uint8_t *key,
                    struct q2_cipher **ret_cipher, struct q2_error *err)
{
    const struct q2_luks_header *header = &area->header;
    int r = q2_cipher_new(header->cipher_name, header->cipher_mode, key, header->key_bytes,
                          ret_cipher, err);
    if (r == Q2_ERR_RANGE)
        r = q2_error_set(err, Q2_ERR_FORMAT, "LUKS header: no key of %s has %" PRIu32 " bytes",
                         header->cipher_name, header->key_bytes);
    return r;
}

static int
check_header(const struct q2_luks_area *area, struct q2_error *err)
{
    const struct q2_luks_header *header = &area->header;
    if (memcmp(header->magic, q2_luks_magic, sizeof q2_luks_magic) != 0)
        return q2_error_set(err, Q2_ERR_FORMAT, "LUKS header: it does not begin with the magic");
    if (header->version != Q2_LUKS_VERSION)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED, "LUKS header: version %u is not supported",
                            header->version);
    if (header->iterations == 0)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "LUKS header: 0 iterations for the master key's digest");
    const uint8_t nothing[Q2_CIPHER_MAX_KEY] = {0};
    struct q2_cipher *cipher = NULL;
    int r = q2_luks_area_cipher(area, nothing, &cipher, err);
    q2_cipher_free(cipher);
    return r;
}

int
q2_luks_area_open(const uint8_t *bytes, size_t length, struct q2_luks_area *ret_area,
                  struct q2_error *err)
{
    struct q2_luks_area area = {.length = length};
    int r = q2_luks_decode(bytes, length, &area.header, err);
    if (r == 0)
        r = check_header(&area, err);
    if (r == 0)
        r = q2_hash_open(area.header.hash, &area.hash, err);
    if (r < 0)
        return r;
    *ret_area = area;
    return 0;
}

void
q2_luks_area_close(struct q2_luks_area *area)
{
    q2_hash_close(&area->hash);
}

struct q2_luks_slot_info
q2_luks_area_slot(const struct q2_luks_area *area, unsigned slot)
{
    const struct q2_luks_slot *from = &area->header.slots[slot];
    uint64_t sectors =
        q2_units((uint64_t)area->header.key_bytes * from->stripes, Q2_LUKS_SECTOR_BITS);
    struct q2_luks_slot_info info = {
        .active = from->state == Q2_LUKS_SLOT_ENABLED,
        .iterations = from->iterations,
        .stripes = from->stripes,
        .material_offset = (uint64_t)from->material << Q2_LUKS_SECTOR_BITS,
        .material_length = sectors << Q2_LUKS_SECTOR_BITS,
    };
    info.usable = from->stripes > 0 && info.material_offset >= Q2_LUKS_HEADER_LENGTH &&
                  q2_range_inside(info.material_offset, info.material_length, area->length);
    return info;
}

uint64_t
q2_luks_area_work(const struct q2_luks_area *area, uint32_t iterations)
{
    uint64_t key_pieces = (area->header.key_bytes + area->hash.length - 1) / area->hash.length;
    uint64_t digest_pieces = (Q2_LUKS_DIGEST_LENGTH + area->hash.length - 1) / area->hash.length;
    return iterations * key_pieces + area->header.iterations * digest_pieces;
}

int
q2_luks_area_digest(const struct q2_luks_area *area, const uint8_t *key,
                    uint8_t digest[Q2_LUKS_DIGEST_LENGTH], struct q2_error *err)
{
    const struct q2_luks_header *header = &area->header;
    struct q2_pbkdf2 job = {key, header->key_bytes, header->salt, sizeof header->salt,
                            header->iterations};
    return q2_hash_pbkdf2(&area->hash, &job, digest, Q2_LUKS_DIGEST_LENGTH, err);
}

int
q2_luks_area_verify(const struct q2_luks_area *area, const uint8_t *key, struct q2_error *err)
{
    uint8_t digest[Q2_LUKS_DIGEST_LENGTH];
    int r = q2_luks_area_digest(area, key, digest, err);
    if (r == 0 && CRYPTO_memcmp(digest, area->header.digest, sizeof digest) != 0)
        r = q2_error_set(err, Q2_ERR_PASSPHRASE, "LUKS header: its digest is of another key");
    return r;
}

/* ---- trying a pass phrase ---- */

/* Decrypt a copy of the slot's material and merge it. */
static int
merge_slot(const struct q2_luks_area *area, const uint8_t *bytes,
           const struct q2_luks_slot_info *info, const uint8_t *slot_key, uint8_t *key,
           struct q2_error *err)
{
    uint8_t *material = malloc(info->material_length);
    if (!material)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for %" PRIu64 " bytes of key material",
                            info->material_length);
    memcpy(material, bytes + info->material_offset, info->material_length);
    struct q2_cipher *cipher = NULL;
    int r = q2_luks_area_cipher(area, slot_key, &cipher, err);
    if (r == 0)
        r = q2_cipher_decrypt(cipher, 0, material, info->material_length, err);
    if (r == 0)
        r = q2_af_merge(&area->hash, material, area->header.key_bytes, info->stripes, key, err);
    q2_cipher_free(cipher);
    q2_wipe(material, info->material_length);
    free(material);
    return r;
}

/* Q2_ERR_PASSPHRASE if it does not open this slot. */
static int
try_slot(const struct q2_luks_area *area, const uint8_t *bytes, unsigned slot,
         const void *passphrase, size_t length, struct q2_luks_key *ret_key, struct q2_error *err)
{
    struct q2_luks_slot_info info = q2_luks_area_slot(area, slot);
    const uint8_t *salt = area->header.slots[slot].salt;
    struct q2_pbkdf2 job = {passphrase, length, salt, Q2_LUKS_SALT_LENGTH, info.iterations};
    uint8_t slot_key[Q2_CIPHER_MAX_KEY];
    struct q2_luks_key key = {.length = area->header.key_bytes};
    int r = q2_hash_pbkdf2(&area->hash, &job, slot_key, key.length, err);
    if (r == 0)
        r = merge_slot(area, bytes, &info, slot_key, key.bytes, err);
    if (r == 0)
        r = q2_luks_area_verify(area, key.bytes, err);
    if (r == 0)
        *ret_key = key;
    q2_luks_key_wipe(&key);
    q2_wipe(slot_key, sizeof slot_key);
    return r;
}

/* How a search went for the slots in use. */
struct tally {
    unsigned active, unusable, costly;
    uint64_t most_work;
};

static int
explain(const struct tally *tally, uint64_t work_limit, struct q2_error *err)
{
    if (tally->active == 0)
        return q2_error_set(err, Q2_ERR_FORMAT, "LUKS header: no key slot is in use");
    if (tally->costly)
        return q2_error_set(
            err, Q2_ERR_RANGE,
            "LUKS header: of %u key slots in use, %u were not tried: one would take "
            "%" PRIu64 " computations of the hash, and the limit is %" PRIu64
            " for all; the pass phrase opens no other",
            tally->active, tally->costly, tally->most_work, work_limit);
    if (tally->unusable == tally->active)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "LUKS header: the fields of all %u key slots in use are damaged",
                            tally->active);
    return q2_error_set(err, Q2_ERR_PASSPHRASE,
                        "the pass phrase opens none of the %u key slots in use", tally->active);
}

int
q2_luks_area_search(const struct q2_luks_area *area, const uint8_t *bytes, const void *passphrase,
                    size_t length, uint64_t work_limit, bool all, struct q2_luks_key *ret_key,
                    unsigned *ret_slots, struct q2_error *err)
{
    uint64_t left = work_limit = work_limit ? work_limit : Q2_LUKS_WORK_LIMIT;
    struct tally tally = {0};
    struct q2_luks_key key = {.length = 0};
    struct q2_error why;
    unsigned found = 0;
    for (unsigned i = 0; i < Q2_LUKS_SLOTS && (all || !found); i++) {
        struct q2_luks_slot_info info = q2_luks_area_slot(area, i);
        if (!info.active)
            continue;
        tally.active++;
        uint64_t work = q2_luks_area_work(area, info.iterations);
        if (!info.usable || info.iterations == 0) {
            tally.unusable++;
        } else if (work > left || info.iterations > INT_MAX || area->header.iterations > INT_MAX) {
            tally.costly++;
            tally.most_work = q2_max(tally.most_work, work);
        } else {
            left -= work;
            int r = try_slot(area, bytes, i, passphrase, length, &key, &why);
            if (r < 0 && r != Q2_ERR_PASSPHRASE) {
                q2_luks_key_wipe(&key);
                return q2_error_set(err, r, "%s", why.message);
            }
            found |= (unsigned)(r == 0) << i;
        }
    }
    if (!found)
        return explain(&tally, work_limit, err);
    *ret_key = key;
    *ret_slots = found;
    q2_luks_key_wipe(&key);
    return 0;
}

/* ---- what others see ---- */

int
q2_luks_unlock(const uint8_t *area, size_t area_length, const void *passphrase, size_t length,
               uint64_t work_limit, struct q2_luks_key *ret_key, unsigned *ret_slot,
               struct q2_error *err)
{
    struct q2_luks_area opened;
    int r = q2_luks_area_open(area, area_length, &opened, err);
    if (r < 0)
        return r;
    unsigned found = 0;
    r = q2_luks_area_search(&opened, area, passphrase, length, work_limit, false, ret_key, &found,
                            err);
    q2_luks_area_close(&opened);
    if (r == 0)
        *ret_slot = (unsigned)__builtin_ctz(found);
    return r;
}

int
q2_luks_cipher(const uint8_t *area, size_t area_length, const struct q2_luks_key *key,
               struct q2_cipher **ret_cipher, struct q2_error *err)
{
    struct q2_luks_area opened = {.length = area_length};
    int r = q2_luks_decode(area, area_length, &opened.header, err);
    if (r < 0)
        return r;
    if (key->length != opened.header.key_bytes)
        return q2_error_set(err, Q2_ERR_PASSPHRASE,
                            "LUKS header: its master key has %" PRIu32 " bytes, not %zu",
                            opened.header.key_bytes, key->length);
    return q2_luks_area_cipher(&opened, key->bytes, ret_cipher, err);
}

int
q2_luks_slots(const uint8_t *area, size_t area_length,
              struct q2_luks_slot_info ret_slots[Q2_LUKS_SLOTS], struct q2_error *err)
{
    struct q2_luks_area opened = {.length = area_length};
    int r = q2_luks_decode(area, area_length, &opened.header, err);
    for (unsigned i = 0; r == 0 && i < Q2_LUKS_SLOTS; i++)
        ret_slots[i] = q2_luks_area_slot(&opened, i);
    return r;
}
