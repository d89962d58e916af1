/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* New areas, and pass phrases that come and go. All that can fail happens before the first byte of
 * an area changes. */

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/codec/afsplit.h"
#include "core/codec/area.h"
#include "core/codec/random.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* Key material begins at multiples of this many sectors, as the header takes as many. */
enum { ALIGN_SECTORS = Q2_LUKS_MATERIAL_START >> Q2_LUKS_SECTOR_BITS };

/* ---- how many iterations ---- */

/* The share of a second that `iter_time` ms are, with the minimum that the specification of LUKS
 * asks for. What would take too long to open again is refused. */
static int
choose_iterations(const struct q2_luks_area *area, const struct q2_luks_options *options,
                  const struct q2_pbkdf2 *job, size_t key_length, unsigned divisor,
                  uint32_t *ret_iterations, struct q2_error *err)
{
    uint64_t count = options->iterations;
    if (!count) {
        uint64_t rate = 0;
        int r = q2_hash_pbkdf2_rate(&area->hash, job, key_length, &rate, err);
        if (r < 0)
            return r;
        uint64_t iter_time = options->iter_time ? options->iter_time : Q2_LUKS_ITER_TIME;
        if (!q2_mul(rate, iter_time, &count))
            count = UINT64_MAX;
        count = q2_max(count / 1000 / divisor, Q2_LUKS_MIN_ITERATIONS);
    }
    uint64_t pieces = (key_length + area->hash.length - 1) / area->hash.length;
    if (count > INT_MAX || count * pieces > Q2_LUKS_WORK_LIMIT / 2)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "%" PRIu64 " iterations of PBKDF2 are too many to open the image again",
                            count);
    *ret_iterations = (uint32_t)count;
    return 0;
}

/* ---- filling a slot ---- */

/* Split and encrypt the master key. */
static int
make_material(const struct q2_luks_area *area, const struct q2_luks_slot_info *info,
              const uint8_t *slot_key, const uint8_t *key, uint8_t *material, struct q2_error *err)
{
    struct q2_cipher *cipher = NULL;
    memset(material, 0, info->material_length);
    int r = q2_luks_area_cipher(area, slot_key, &cipher, err);
    if (r == 0)
        r = q2_af_split(&area->hash, key, area->header.key_bytes, info->stripes, material, err);
    if (r == 0)
        r = q2_cipher_encrypt(cipher, 0, material, info->material_length, err);
    q2_cipher_free(cipher);
    return r;
}

/* Whether a slot's material can be written without harm: to itself, the header, or another slot. */
static int
check_place(const struct q2_luks_area *area, unsigned slot, struct q2_error *err)
{
    struct q2_luks_slot_info info = q2_luks_area_slot(area, slot);
    if (!info.usable || info.stripes != Q2_LUKS_STRIPES)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "LUKS header: the key material of slot %u, %" PRIu64
                            " bytes at %" PRIu64 " in %" PRIu32 " stripes, cannot be written",
                            slot, info.material_length, info.material_offset, info.stripes);
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++) {
        struct q2_luks_slot_info other = q2_luks_area_slot(area, i);
        if (i != slot && other.active && other.usable &&
            q2_ranges_overlap(info.material_offset, info.material_length, other.material_offset,
                              other.material_length))
            return q2_error_set(err, Q2_ERR_FORMAT,
                                "LUKS header: the key material of slots %u and %u overlaps", slot,
                                i);
    }
    return 0;
}

/* Change the header in `area` and the material in `bytes`, but not the header in `bytes`. */
static int
fill_slot(struct q2_luks_area *area, uint8_t *bytes, unsigned slot, const uint8_t *key,
          const void *passphrase, size_t length, const struct q2_luks_options *options,
          struct q2_error *err)
{
    struct q2_luks_slot_info info = q2_luks_area_slot(area, slot);
    struct q2_luks_slot filled = area->header.slots[slot];
    filled.state = Q2_LUKS_SLOT_ENABLED;
    struct q2_pbkdf2 job = {passphrase, length, filled.salt, sizeof filled.salt, 0};
    uint8_t slot_key[Q2_CIPHER_MAX_KEY];
    size_t key_bytes = area->header.key_bytes;
    Q2_AUTOFREE uint8_t *material = malloc(info.material_length);
    if (!material)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for %" PRIu64 " bytes of key material",
                            info.material_length);
    int r = q2_random_bytes(filled.salt, sizeof filled.salt, err);
    if (r == 0)
        r = choose_iterations(area, options, &job, key_bytes, 1, &filled.iterations, err);
    job.iterations = filled.iterations;
    if (r == 0)
        r = q2_hash_pbkdf2(&area->hash, &job, slot_key, key_bytes, err);
    if (r == 0)
        r = make_material(area, &info, slot_key, key, material, err);
    q2_wipe(slot_key, sizeof slot_key);
    if (r < 0) {
        q2_wipe(material, info.material_length);
        return r;
    }
    memcpy(bytes + info.material_offset, material, info.material_length);
    area->header.slots[slot] = filled;
    return 0;
}

/* ---- new areas ---- */

static int
set_name(char *field, const char *name, const char *fallback, struct q2_error *err)
{
    name = name ? name : fallback;
    size_t length = strlen(name);
    if (length >= Q2_LUKS_NAME_LENGTH)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "the name \"%.40s\" does not fit a LUKS header", name);
    memcpy(field, name, length + 1);
    return 0;
}

/* A version 4 UUID (RFC 4122, section 4.4). */
static int
make_uuid(char *text, struct q2_error *err)
{
    uint8_t u[16];
    int r = q2_random_bytes(u, sizeof u, err);
    if (r < 0)
        return r;
    u[6] = (u[6] & 0x0f) | 0x40;
    u[8] = (u[8] & 0x3f) | 0x80;
    snprintf(text, Q2_LUKS_UUID_LENGTH,
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
             u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
             u[15]);
    return 0;
}

/* Everything but the digest and what the pass phrase makes. */
static int
init_header(struct q2_luks_header *header, const struct q2_luks_options *options,
            struct q2_error *err)
{
    memcpy(header->magic, q2_luks_magic, sizeof header->magic);
    header->version = Q2_LUKS_VERSION;
    int r = set_name(header->cipher_name, options->cipher_name, "aes", err);
    if (r == 0)
        r = set_name(header->cipher_mode, options->cipher_mode, "xts-plain64", err);
    if (r == 0)
        r = set_name(header->hash, options->hash, "sha256", err);
    if (r < 0)
        return r;
    bool xts = strncmp(header->cipher_mode, "xts-", 4) == 0;
    header->key_bytes = options->key_bytes ? options->key_bytes : xts ? 64 : 32;
    header->iterations = 1; /* until they are measured */
    uint64_t material = (uint64_t)header->key_bytes * Q2_LUKS_STRIPES;
    if (material % Q2_CIPHER_SECTOR)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "key material of a key of %" PRIu32
                            " bytes would not fill whole sectors, which QEMU cannot read",
                            header->key_bytes);
    uint64_t sectors = q2_units(material >> Q2_LUKS_SECTOR_BITS, 3) * ALIGN_SECTORS;
    if (header->key_bytes > Q2_CIPHER_MAX_KEY)
        sectors = 0; /* the key's length is refused in a moment */
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        header->slots[i] =
            (struct q2_luks_slot){.state = Q2_LUKS_SLOT_DISABLED,
                                  .material = (uint32_t)(ALIGN_SECTORS + i * sectors),
                                  .stripes = Q2_LUKS_STRIPES};
    header->payload = (uint32_t)(ALIGN_SECTORS + Q2_LUKS_SLOTS * sectors);
    r = q2_random_bytes(header->salt, sizeof header->salt, err);
    return r < 0 ? r : make_uuid(header->uuid, err);
}

/* A master key and its digest. As does cryptsetup, spend an eighth of the time on that. */
static int
make_key(struct q2_luks_area *area, const struct q2_luks_options *options, struct q2_luks_key *key,
         struct q2_error *err)
{
    struct q2_luks_header *header = &area->header;
    key->length = header->key_bytes;
    int r = q2_random_bytes(key->bytes, key->length, err);
    struct q2_pbkdf2 job = {key->bytes, key->length, header->salt, sizeof header->salt, 0};
    if (r == 0)
        r = choose_iterations(area, options, &job, Q2_LUKS_DIGEST_LENGTH, 8, &header->iterations,
                              err);
    if (r == 0)
        r = q2_luks_area_digest(area, key->bytes, header->digest, err);
    return r;
}

int
q2_luks_format(const struct q2_luks_options *options, const void *passphrase, size_t length,
               uint8_t **ret_area, size_t *ret_area_length, struct q2_luks_key *ret_key,
               struct q2_error *err)
{
    struct q2_luks_header header = {.version = 0};
    struct q2_luks_area area;
    struct q2_luks_key key = {.length = 0};
    int r = init_header(&header, options, err);
    if (r < 0)
        return r;
    size_t area_length = (size_t)header.payload << Q2_LUKS_SECTOR_BITS;
    Q2_AUTOFREE uint8_t *bytes = calloc(1, area_length);
    if (!bytes)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a LUKS header of %zu bytes",
                            area_length);
    q2_luks_encode(&header, bytes);
    r = q2_luks_area_open(bytes, area_length, &area, err);
    if (r == Q2_ERR_FORMAT)
        return q2_error_set(err, Q2_ERR_RANGE, "%s has no keys of %" PRIu32 " bytes in mode %s",
                            header.cipher_name, header.key_bytes, header.cipher_mode);
    if (r < 0)
        return r;
    r = make_key(&area, options, &key, err);
    if (r == 0)
        r = fill_slot(&area, bytes, 0, key.bytes, passphrase, length, options, err);
    q2_luks_area_close(&area);
    if (r == 0) {
        q2_luks_encode(&area.header, bytes);
        *ret_area = Q2_STEAL(bytes);
        *ret_area_length = area_length;
        *ret_key = key;
    }
    q2_luks_key_wipe(&key);
    return r;
}

/* ---- changes ---- */

static int
check_slot_number(int slot, struct q2_error *err)
{
    if (slot < 0 || slot >= Q2_LUKS_SLOTS)
        return q2_error_set(err, Q2_ERR_RANGE, "there is no key slot %d: they are 0 to %d", slot,
                            Q2_LUKS_SLOTS - 1);
    return 0;
}

/* The slots in use, a bit for each. */
static unsigned
active_slots(const struct q2_luks_area *area)
{
    unsigned active = 0;
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        if (area->header.slots[i].state == Q2_LUKS_SLOT_ENABLED)
            active |= 1u << i;
    return active;
}

static int
choose_slot(const struct q2_luks_area *area, int wanted, unsigned *ret_slot, struct q2_error *err)
{
    unsigned active = active_slots(area);
    if (wanted == Q2_LUKS_ANY_SLOT) {
        wanted = __builtin_ctz(~active);
        if (wanted >= Q2_LUKS_SLOTS)
            return q2_error_set(err, Q2_ERR_NOSPACE, "all %d key slots are in use", Q2_LUKS_SLOTS);
    }
    int r = check_slot_number(wanted, err);
    if (r < 0)
        return r;
    if (active >> wanted & 1)
        return q2_error_set(err, Q2_ERR_EXISTS, "key slot %d is in use", wanted);
    *ret_slot = (unsigned)wanted;
    return check_place(area, *ret_slot, err);
}

/* That the key is the area's, unless its digest asks for too much. */
static int
check_key(const struct q2_luks_area *area, const struct q2_luks_key *key, struct q2_error *err)
{
    if (key->length != area->header.key_bytes)
        return q2_error_set(err, Q2_ERR_PASSPHRASE,
                            "LUKS header: its master key has %" PRIu32 " bytes, not %zu",
                            area->header.key_bytes, key->length);
    uint64_t work = q2_luks_area_work(area, 0);
    if (work > Q2_LUKS_WORK_LIMIT)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "LUKS header: its digest takes %" PRIu64
                            " computations of the hash, more than %" PRIu64,
                            work, Q2_LUKS_WORK_LIMIT);
    return q2_luks_area_verify(area, key->bytes, err);
}

int
q2_luks_add_key(uint8_t *area, size_t area_length, const struct q2_luks_key *key,
                const void *passphrase, size_t length, int slot,
                const struct q2_luks_options *options, unsigned *ret_slot, struct q2_error *err)
{
    const struct q2_luks_options defaults = {.iterations = 0};
    struct q2_luks_area opened;
    int r = q2_luks_area_open(area, area_length, &opened, err);
    if (r < 0)
        return r;
    unsigned chosen = 0;
    r = choose_slot(&opened, slot, &chosen, err);
    if (r == 0)
        r = check_key(&opened, key, err);
    if (r == 0)
        r = fill_slot(&opened, area, chosen, key->bytes, passphrase, length,
                      options ? options : &defaults, err);
    if (r == 0) {
        q2_luks_encode(&opened.header, area);
        *ret_slot = chosen;
    }
    q2_luks_area_close(&opened);
    return r;
}

/* Free the slots that have a bit in `slots`. */
static int
remove_slots(struct q2_luks_area *area, uint8_t *bytes, unsigned slots, bool force,
             struct q2_error *err)
{
    if (!force && (active_slots(area) & ~slots) == 0)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "no key slot would be left, and nothing could decrypt the image again");
    Q2_AUTOFREE uint8_t *noise = malloc(area->length);
    if (!noise)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for %" PRIu64 " bytes of key material",
                            area->length);
    int r = q2_random_bytes(noise, area->length, err);
    struct q2_luks_header left = area->header;
    for (unsigned i = 0; i < Q2_LUKS_SLOTS && r == 0; i++)
        if (slots >> i & 1) {
            struct q2_luks_slot *slot = &left.slots[i];
            *slot = (struct q2_luks_slot){.state = Q2_LUKS_SLOT_DISABLED,
                                          .material = slot->material,
                                          .stripes = slot->stripes};
            r = check_place(area, i, err);
        }
    if (r < 0)
        return r;
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        if (slots >> i & 1) {
            struct q2_luks_slot_info info = q2_luks_area_slot(area, i);
            memcpy(bytes + info.material_offset, noise + info.material_offset,
                   info.material_length);
        }
    q2_luks_encode(&left, bytes);
    return 0;
}

int
q2_luks_remove_slot(uint8_t *area, size_t area_length, unsigned slot, bool force,
                    struct q2_error *err)
{
    struct q2_luks_area opened;
    int r = check_slot_number(slot < INT_MAX ? (int)slot : INT_MAX, err);
    if (r == 0)
        r = q2_luks_area_open(area, area_length, &opened, err);
    if (r < 0)
        return r;
    if (!force && !(active_slots(&opened) >> slot & 1))
        r = q2_error_set(err, Q2_ERR_NOT_FOUND, "key slot %u is not in use", slot);
    else
        r = remove_slots(&opened, area, 1u << slot, force, err);
    q2_luks_area_close(&opened);
    return r;
}

int
q2_luks_remove_passphrase(uint8_t *area, size_t area_length, const void *passphrase, size_t length,
                          bool force, uint64_t work_limit, unsigned *ret_slots,
                          struct q2_error *err)
{
    struct q2_luks_area opened;
    struct q2_luks_key key;
    unsigned found = 0;
    int r = q2_luks_area_open(area, area_length, &opened, err);
    if (r < 0)
        return r;
    r = q2_luks_area_search(&opened, area, passphrase, length, work_limit, true, &key, &found, err);
    q2_luks_key_wipe(&key);
    if (r == 0)
        r = remove_slots(&opened, area, found, force, err);
    q2_luks_area_close(&opened);
    if (r == 0)
        *ret_slots = found;
    return r;
}
