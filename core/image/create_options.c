/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What an image can be made like. Everything that the format rules out is refused here, before
 * anything is touched, by a sentence that says what is allowed. */

#include "core/base/checked.h"
#include "core/codec/keys.h"
#include "core/codec/secret.h"
#include "core/image/area.h"
#include "core/image/layout.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const preallocations[] = {"off", "metadata", "falloc", "full"};
enum { PREALLOCATIONS = sizeof preallocations / sizeof preallocations[0] };

const char *
q2_preallocation_name(enum q2_preallocation preallocation)
{
    return (unsigned)preallocation < PREALLOCATIONS ? preallocations[preallocation] : "unknown";
}

bool
q2_preallocation_find(const char *name, enum q2_preallocation *ret_preallocation)
{
    for (unsigned i = 0; i < PREALLOCATIONS; i++)
        if (strcmp(name, preallocations[i]) == 0) {
            *ret_preallocation = (enum q2_preallocation)i;
            return true;
        }
    return false;
}

static bool
is_power_of_2(uint64_t value)
{
    return value && (value & (value - 1)) == 0;
}

/* ---- encryption ---- */

static bool
is_one_of(const char *name, const char *const *names)
{
    while (*names && strcmp(name, *names) != 0)
        names++;
    return *names != NULL;
}

/* QEMU can do more ciphers; these are the ones that can be read back. */
static const char *const ciphers[] = {"aes-128", "aes-192", "aes-256", NULL};
static const char *const modes[] = {"xts", "cbc", "ecb", "ctr", NULL};
static const char *const ivgens[] = {"plain64", "plain", "essiv", NULL};
static const char *const hashes[] = {"sha1",   "sha224", "sha256",    "sha384",
                                     "sha512", "md5",    "ripemd160", NULL};
static const char *const essiv_hashes[] = {"sha256", "md5", NULL};

static unsigned
cipher_bits(const struct q2_create_options *options)
{
    return options->cipher_name[4] == '1' ? (options->cipher_name[5] == '2' ? 128 : 192) : 256;
}

void
q2_create_luks(const struct q2_create_options *options, char mode[Q2_LUKS_MODE_SIZE],
               struct q2_luks_options *ret_luks)
{
    bool essiv = strcmp(options->ivgen_name, "essiv") == 0;
    bool xts = strcmp(options->cipher_mode, "xts") == 0;
    snprintf(mode, Q2_LUKS_MODE_SIZE, "%s-%s%s%s", options->cipher_mode, options->ivgen_name,
             essiv ? ":" : "", essiv ? options->ivgen_hash : "");
    *ret_luks = (struct q2_luks_options){
        .cipher_name = "aes",
        .cipher_mode = mode,
        .hash = options->hash,
        .key_bytes = cipher_bits(options) / 8 * (xts ? 2 : 1),
        .iter_time = options->iteration_ms,
        .iterations = options->iterations,
    };
}

uint64_t
q2_create_luks_length(const struct q2_create_options *options)
{
    if (options->crypt != Q2_CRYPT_LUKS)
        return 0;
    char mode[Q2_LUKS_MODE_SIZE];
    struct q2_luks_options luks;
    q2_create_luks(options, mode, &luks);
    uint64_t material = (uint64_t)luks.key_bytes * Q2_LUKS_STRIPES;
    /* Key material of each slot begins where that of the first may begin, or at a multiple. */
    uint64_t start = Q2_LUKS_MATERIAL_START;
    return start + Q2_LUKS_SLOTS * ((material + start - 1) / start * start);
}

static int
refuse_name(const char *option, const char *value, const char *allowed, struct q2_error *err)
{
    char printable[64];
    return q2_error_set(err, Q2_ERR_UNSUPPORTED, "%s \"%s\" is not supported: it can be %s", option,
                        q2_printable(printable, sizeof printable, value, strlen(value)), allowed);
}

static int
check_luks(const struct q2_create_options *options, struct q2_error *err)
{
    if (!is_one_of(options->cipher_name, ciphers))
        return refuse_name("encrypt.cipher-alg", options->cipher_name,
                           "aes-128, aes-192 or aes-256", err);
    if (!is_one_of(options->cipher_mode, modes))
        return refuse_name("encrypt.cipher-mode", options->cipher_mode, "xts, cbc, ecb or ctr",
                           err);
    if (!is_one_of(options->ivgen_name, ivgens))
        return refuse_name("encrypt.ivgen-alg", options->ivgen_name, "plain64, plain or essiv",
                           err);
    if (!is_one_of(options->hash, hashes))
        return refuse_name("encrypt.hash-alg", options->hash,
                           "sha1, sha224, sha256, sha384, sha512, ripemd160 or md5", err);
    if (strcmp(options->ivgen_name, "essiv") == 0) {
        /* The hash is the key of the cipher that makes vectors. */
        if (!is_one_of(options->ivgen_hash, essiv_hashes))
            return refuse_name("encrypt.ivgen-hash-alg", options->ivgen_hash, "sha256 or md5", err);
    }
    if (strcmp(options->cipher_mode, "xts") != 0 && cipher_bits(options) == 192)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "encrypt.cipher-alg aes-192 goes with encrypt.cipher-mode xts only: "
                            "its key material does not fill whole sectors");
    return 0;
}

static int
check_crypt(const struct q2_create_options *options, struct q2_error *err)
{
    if (options->crypt == Q2_CRYPT_NONE)
        return 0;
    if (options->crypt != Q2_CRYPT_AES && options->crypt != Q2_CRYPT_LUKS)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "encrypt.format %d is not supported: it can be aes (1) or luks (2)",
                            (int)options->crypt);
    if (!options->secret)
        return q2_error_set(err, Q2_ERR_PASSPHRASE,
                            "encrypt.format %s needs a pass phrase, encrypt.key-secret",
                            options->crypt == Q2_CRYPT_AES ? "aes" : "luks");
    if (options->version < 3 && options->preallocation != Q2_PREALLOCATION_OFF)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "preallocation %s needs compat v3 where the image is encrypted: "
                            "clusters of version 2 would not read as zeros",
                            q2_preallocation_name(options->preallocation));
    return options->crypt == Q2_CRYPT_LUKS ? check_luks(options, err) : 0;
}

/* ---- names ---- */

/* Text that the header can hold and that readers accept. */
static int
check_name(const char *option, const char *name, size_t most, struct q2_error *err)
{
    size_t length = strlen(name);
    if (length == 0 || length > most)
        return q2_error_set(err, Q2_ERR_RANGE, "%s has %zu bytes, but must have between 1 and %zu",
                            option, length, most);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return q2_error_set(err, Q2_ERR_RANGE, "%s must not have control characters: byte %zu",
                                option, i);
    return 0;
}

static int
check_names(const struct q2_create_options *options, struct q2_error *err)
{
    int rc = 0;
    if (options->backing_format && !options->backing_file)
        return q2_error_set(err, Q2_ERR_RANGE, "backing_fmt cannot be used without backing_file");
    if (options->backing_file)
        rc = check_name("backing_file", options->backing_file, Q2_MAX_NAME, err);
    if (rc == 0 && options->backing_format)
        rc = check_name("backing_fmt", options->backing_format, Q2_MAX_BACKING_FORMAT, err);
    if (rc == 0 && options->data_file)
        rc = check_name("data_file", options->data_file, Q2_MAX_NAME, err);
    if (rc < 0)
        return rc;

    /* The first cluster must have room for all that. Nothing is written but this buffer. */
    struct q2_header header;
    q2_create_header(options, &header);
    struct q2_area area = {.backing_file = (char *)(uintptr_t)options->backing_file,
                           .backing_format = (char *)(uintptr_t)options->backing_format,
                           .data_file = (char *)(uintptr_t)options->data_file,
                           .has_crypto = options->crypt == Q2_CRYPT_LUKS};
    uint8_t bytes[4096];
    return q2_area_encode(&header, &area, bytes,
                          (size_t)q2_min(options->cluster_size, sizeof bytes), err);
}

/* ---- numbers and features ---- */

static int
check_version(const struct q2_create_options *options, struct q2_error *err)
{
    const char *feature = NULL;
    if (options->version != 2 && options->version != 3)
        return q2_error_set(err, Q2_ERR_RANGE, "compat: version %u is neither 2 nor 3",
                            options->version);
    if (options->refcount_bits != 16)
        feature = "refcount_bits other than 16";
    else if (options->flags & Q2_CREATE_LAZY_REFCOUNTS)
        feature = "lazy_refcounts";
    else if (options->flags & Q2_CREATE_EXTENDED_L2)
        feature = "extended_l2";
    else if (options->compression != Q2_COMPRESSION_ZLIB)
        feature = "compression_type other than zlib";
    else if (options->data_file)
        feature = "data_file";
    if (options->version == 2 && feature)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "%s needs compat v3: version 2 of the format does not have it",
                            feature);
    return 0;
}

static int
check_numbers(const struct q2_create_options *options, struct q2_error *err)
{
    if (!is_power_of_2(options->cluster_size) ||
        options->cluster_size < UINT64_C(1) << Q2_MIN_CLUSTER_BITS ||
        options->cluster_size > UINT64_C(1) << Q2_MAX_CLUSTER_BITS)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "cluster_size %" PRIu64 " must be a power of two from 512 to 2097152",
                            options->cluster_size);
    if (!is_power_of_2(options->refcount_bits) || options->refcount_bits > 64)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "refcount_bits %u must be a power of two from 1 to 64",
                            options->refcount_bits);
    if ((unsigned)options->compression > Q2_COMPRESSION_ZSTD)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "compression_type %d must be zlib (0) or zstd (1)",
                            (int)options->compression);
    if ((unsigned)options->preallocation >= PREALLOCATIONS)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "preallocation %d must be off, metadata, falloc or full",
                            (int)options->preallocation);
    if ((options->flags & Q2_CREATE_EXTENDED_L2) &&
        options->cluster_size < UINT64_C(1) << Q2_MIN_EXTENDED_CLUSTER_BITS)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "extended_l2 needs a cluster_size of at least 16384, not %" PRIu64,
                            options->cluster_size);
    return 0;
}

static int
check_size(const struct q2_create_options *options, struct q2_error *err)
{
    struct q2_header header;
    struct q2_geometry geometry;
    q2_create_header(options, &header);
    q2_geometry_init(&geometry, &header, 0);
    uint64_t most = q2_l2_reach(&geometry) * (Q2_MAX_L1_BYTES / 8);
    if (options->size % 512)
        return q2_error_set(err, Q2_ERR_RANGE, "size %" PRIu64 " must be a multiple of 512",
                            options->size);
    if (options->size > most)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "size %" PRIu64 " is more than the %" PRIu64
                            " that can be had with cluster_size %" PRIu64 "%s",
                            options->size, most, options->cluster_size,
                            geometry.extended_l2 ? " and extended_l2" : "");
    return 0;
}

static int
check_combinations(const struct q2_create_options *options, struct q2_error *err)
{
    bool raw = options->flags & Q2_CREATE_RAW_DATA_FILE;
    if (raw && !options->data_file)
        return q2_error_set(err, Q2_ERR_RANGE, "data_file_raw needs data_file");
    if (raw && options->backing_file)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "backing_file and data_file_raw exclude each other: a raw data file "
                            "holds all of the disk");
    if (options->backing_file && options->preallocation != Q2_PREALLOCATION_OFF &&
        !(options->flags & Q2_CREATE_EXTENDED_L2))
        return q2_error_set(err, Q2_ERR_RANGE,
                            "preallocation %s would hide all of backing_file: it can be used with "
                            "one only if extended_l2 is on",
                            q2_preallocation_name(options->preallocation));
    return 0;
}

int
q2_create_validate(const struct q2_create_options *options, struct q2_error *err)
{
    struct q2_create_options resolved = q2_create_resolve(options);
    struct q2_layout layout;
    int rc = check_numbers(&resolved, err);
    if (rc == 0)
        rc = check_version(&resolved, err);
    if (rc == 0)
        rc = check_size(&resolved, err);
    if (rc == 0)
        rc = check_combinations(&resolved, err);
    if (rc == 0)
        rc = check_crypt(&resolved, err);
    if (rc == 0)
        rc = check_names(&resolved, err);
    if (rc == 0)
        rc = q2_layout_make(&resolved, q2_create_luks_length(&resolved), &layout, err);
    return rc;
}

/* ---- how much space that takes ---- */

/* The estimate that is common: L1 and L2 tables in whole clusters, refcounts for all of it. It
 * counts neither the refcounts of a LUKS header nor that a data file takes the data. */
int
q2_create_measure(const struct q2_create_options *options, uint64_t allocated,
                  uint64_t *ret_required, uint64_t *ret_fully_allocated, struct q2_error *err)
{
    struct q2_create_options resolved = q2_create_resolve(options), plain = resolved;
    plain.preallocation = Q2_PREALLOCATION_OFF; /* the space for it may be elsewhere */
    plain.secret = plain.secret ? plain.secret : &(const struct q2_secret){0};
    int rc = q2_create_validate(&plain, err);
    if (rc < 0)
        return rc;
    struct q2_header header;
    struct q2_geometry g;
    q2_create_header(&resolved, &header);
    q2_geometry_init(&g, &header, 0);

    uint64_t data = q2_units(resolved.size, g.cluster_bits);
    uint64_t l2 = q2_units(data, g.l2_bits), l1 = q2_units(l2, g.cluster_bits - 3), table, blocks;
    uint64_t meta = 1 + l1 + l2;
    q2_layout_refcounts(&g, meta + data, &table, &blocks);
    meta += table + blocks + q2_units(q2_create_luks_length(&resolved), g.cluster_bits);

    uint64_t taken = q2_min(q2_units(allocated, g.cluster_bits), data);
    if (resolved.preallocation == Q2_PREALLOCATION_FALLOC ||
        resolved.preallocation == Q2_PREALLOCATION_FULL)
        taken = data;
    *ret_required = (meta + taken) << g.cluster_bits;
    *ret_fully_allocated = (meta + data) << g.cluster_bits;
    return 0;
}
