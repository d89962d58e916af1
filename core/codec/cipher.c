/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* From the names in a header to a key schedule. A context of libcrypto is for one thread at a time,
 * and making one costs more than a sector: a cipher keeps those that were made and hands them out,
 * so there are at most as many as threads ever ran at once. */

#include "core/codec/cipher.h"

#include "core/codec/hash.h"
#include "core/codec/modes.h"
#include "core/codec/random.h"
#include "core/format/problem.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct q2_cipher {
    q2_mode_run *run;
    enum q2_vectors vectors;
    EVP_CIPHER *aes, *essiv_aes; /* ECB; the second NULL without ESSIV */
    bool xts;
    uint8_t key[Q2_CIPHER_MAX_KEY];
    size_t key_bytes; /* of one key: half of what XTS is given */
    uint8_t essiv_key[Q2_HASH_MAX];
    pthread_mutex_t lock; /* of the list */
    struct q2_lane *idle;
};

/* ---- lanes ---- */

static void
lane_free(struct q2_lane *lane)
{
    if (!lane)
        return;
    EVP_CIPHER_CTX_free(lane->encrypt);
    EVP_CIPHER_CTX_free(lane->decrypt);
    EVP_CIPHER_CTX_free(lane->tweak);
    EVP_CIPHER_CTX_free(lane->essiv);
    q2_wipe(lane, sizeof *lane);
    free(lane);
}

/* NULL: no memory. */
static EVP_CIPHER_CTX *
context_new(const EVP_CIPHER *aes, const uint8_t *key, bool encrypt)
{
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    if (context && EVP_CipherInit_ex2(context, aes, key, NULL, encrypt, NULL) == 1 &&
        EVP_CIPHER_CTX_set_padding(context, 0) == 1)
        return context;
    EVP_CIPHER_CTX_free(context);
    return NULL;
}

static struct q2_lane *
lane_new(const struct q2_cipher *cipher)
{
    struct q2_lane *lane = calloc(1, sizeof *lane);
    if (!lane)
        return NULL;
    lane->vectors = cipher->vectors;
    lane->encrypt = context_new(cipher->aes, cipher->key, true);
    lane->decrypt = context_new(cipher->aes, cipher->key, false);
    bool complete = lane->encrypt && lane->decrypt;
    if (complete && cipher->xts) {
        lane->tweak = context_new(cipher->aes, cipher->key + cipher->key_bytes, true);
        complete = lane->tweak != NULL;
    }
    if (complete && cipher->essiv_aes) {
        lane->essiv = context_new(cipher->essiv_aes, cipher->essiv_key, true);
        complete = lane->essiv != NULL;
    }
    if (complete)
        return lane;
    lane_free(lane);
    return NULL;
}

static struct q2_lane *
take_lane(struct q2_cipher *cipher)
{
    pthread_mutex_lock(&cipher->lock);
    struct q2_lane *lane = cipher->idle;
    if (lane)
        cipher->idle = lane->next;
    pthread_mutex_unlock(&cipher->lock);
    return lane ? lane : lane_new(cipher);
}

static void
return_lane(struct q2_cipher *cipher, struct q2_lane *lane)
{
    pthread_mutex_lock(&cipher->lock);
    lane->next = cipher->idle;
    cipher->idle = lane;
    pthread_mutex_unlock(&cipher->lock);
}

/* ---- names ---- */

static int
unsupported(struct q2_error *err, const char *what, const char *name)
{
    char printable[80];
    return q2_error_set(err, Q2_ERR_UNSUPPORTED, "%s \"%s\" is not supported", what,
                        q2_printable(printable, sizeof printable, name, strlen(name)));
}

static const struct mode {
    const char *name;
    q2_mode_run *run;
} modes[] = {
    {"xts", q2_mode_xts},
    {"cbc", q2_mode_cbc},
    {"ecb", q2_mode_ecb},
    {"ctr", q2_mode_ctr},
};

/* AES with keys of `bytes`; NULL if there is none. */
static EVP_CIPHER *
fetch_aes(size_t bytes)
{
    const char *name = bytes == 16   ? "AES-128-ECB"
                       : bytes == 24 ? "AES-192-ECB"
                       : bytes == 32 ? "AES-256-ECB"
                                     : NULL;
    return name ? EVP_CIPHER_fetch(NULL, name, NULL) : NULL;
}

/* The second key is the first one's digest, and as long as that is. */
static int
set_essiv(struct q2_cipher *cipher, const char *hash_name, const uint8_t *key, size_t key_bytes,
          struct q2_error *err)
{
    struct q2_hash hash;
    int r = q2_hash_open(hash_name, &hash, err);
    if (r < 0)
        return r;
    cipher->vectors = Q2_VECTORS_ESSIV;
    cipher->essiv_aes = fetch_aes(hash.length);
    if (cipher->essiv_aes)
        r = q2_hash_digest(&hash, key, key_bytes, cipher->essiv_key, err);
    else
        r = q2_error_set(err, Q2_ERR_UNSUPPORTED,
                         "ESSIV with %s needs AES with a key of %zu bytes, which there is not",
                         hash_name, hash.length);
    q2_hash_close(&hash);
    return r;
}

/* What follows the dash: plain, plain64 or essiv:HASH. A hash after the others means nothing. */
static int
set_vectors(struct q2_cipher *cipher, const char *mode, const uint8_t *key, size_t key_bytes,
            struct q2_error *err)
{
    const char *generator = mode + strcspn(mode, "-") + 1;
    size_t length = strcspn(generator, ":");
    if (length == 5 && memcmp(generator, "essiv", 5) == 0 && generator[length])
        return set_essiv(cipher, generator + length + 1, key, key_bytes, err);
    if (length == 5 && memcmp(generator, "plain", 5) == 0)
        cipher->vectors = Q2_VECTORS_PLAIN;
    else if (length == 7 && memcmp(generator, "plain64", 7) == 0)
        cipher->vectors = Q2_VECTORS_PLAIN64;
    else
        return unsupported(err, "cipher mode", mode);
    return 0;
}

static int
set_mode(struct q2_cipher *cipher, const char *mode, struct q2_error *err)
{
    size_t length = strcspn(mode, "-");
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (strlen(modes[i].name) == length && memcmp(modes[i].name, mode, length) == 0)
            cipher->run = modes[i].run;
    if (!cipher->run || !mode[length])
        return unsupported(err, "cipher mode", mode);
    return 0;
}

static int
set_key(struct q2_cipher *cipher, const char *mode, const uint8_t *key, size_t key_bytes,
        struct q2_error *err)
{
    cipher->xts = cipher->run == q2_mode_xts;
    cipher->key_bytes = cipher->xts ? key_bytes / 2 : key_bytes;
    cipher->aes = cipher->xts && key_bytes % 2 ? NULL : fetch_aes(cipher->key_bytes);
    if (!cipher->aes)
        return q2_error_set(err, Q2_ERR_RANGE, "AES in mode %s has no keys of %zu bytes", mode,
                            key_bytes);
    memcpy(cipher->key, key, key_bytes);
    return 0;
}

/* ---- the object ---- */

int
q2_cipher_new(const char *name, const char *mode, const uint8_t *key, size_t key_bytes,
              struct q2_cipher **ret_cipher, struct q2_error *err)
{
    if (strcmp(name, "aes") != 0)
        return unsupported(err, "cipher", name);
    struct q2_cipher *cipher = calloc(1, sizeof *cipher);
    if (!cipher)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a cipher");
    pthread_mutex_init(&cipher->lock, NULL);
    int r = set_mode(cipher, mode, err);
    if (r == 0)
        r = set_key(cipher, mode, key, key_bytes, err);
    /* Only now is the length, which may come from a header, known to be that of a key. */
    if (r == 0)
        r = set_vectors(cipher, mode, key, key_bytes, err);
    /* The first lane now, so that a libcrypto that refuses says so before there is data. */
    if (r == 0 && !(cipher->idle = lane_new(cipher)))
        r = q2_error_set(err, Q2_ERR_NOMEM, "no memory for a key schedule");
    if (r < 0) {
        q2_cipher_free(cipher);
        return r;
    }
    *ret_cipher = cipher;
    return 0;
}

int
q2_cipher_new_aes(const void *passphrase, size_t length, struct q2_cipher **ret_cipher,
                  struct q2_error *err)
{
    uint8_t key[16] = {0};
    if (length)
        memcpy(key, passphrase, length < sizeof key ? length : sizeof key);
    int r = q2_cipher_new("aes", "cbc-plain64", key, sizeof key, ret_cipher, err);
    q2_wipe(key, sizeof key);
    return r;
}

void
q2_cipher_free(struct q2_cipher *cipher)
{
    if (!cipher)
        return;
    while (cipher->idle) {
        struct q2_lane *lane = cipher->idle;
        cipher->idle = lane->next;
        lane_free(lane);
    }
    EVP_CIPHER_free(cipher->aes);
    EVP_CIPHER_free(cipher->essiv_aes);
    pthread_mutex_destroy(&cipher->lock);
    q2_wipe(cipher, sizeof *cipher);
    free(cipher);
}

static int
run(struct q2_cipher *cipher, bool encrypt, uint64_t first_sector, uint8_t *bytes, size_t length,
    struct q2_error *err)
{
    if (length % Q2_CIPHER_SECTOR)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "%zu bytes to %s at sector %llu are no whole number of sectors", length,
                            encrypt ? "encrypt" : "decrypt", (unsigned long long)first_sector);
    struct q2_lane *lane = take_lane(cipher);
    bool done = lane != NULL;
    for (size_t sectors = length >> Q2_CIPHER_SECTOR_BITS; done && sectors;) {
        size_t batch = sectors < Q2_BATCH ? sectors : Q2_BATCH;
        done = cipher->run(lane, encrypt, first_sector, bytes, batch);
        bytes += batch << Q2_CIPHER_SECTOR_BITS;
        first_sector += batch;
        sectors -= batch;
    }
    if (lane)
        return_lane(cipher, lane);
    return done ? 0 : q2_error_set(err, Q2_ERR_NOMEM, "no memory for a key schedule");
}

int
q2_cipher_encrypt(struct q2_cipher *cipher, uint64_t first_sector, void *bytes, size_t length,
                  struct q2_error *err)
{
    return run(cipher, true, first_sector, bytes, length, err);
}

int
q2_cipher_decrypt(struct q2_cipher *cipher, uint64_t first_sector, void *bytes, size_t length,
                  struct q2_error *err)
{
    return run(cipher, false, first_sector, bytes, length, err);
}
