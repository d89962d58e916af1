/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/codec/random.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdint.h>

/* What libcrypto takes at once is an int. */
enum { STEP = 1 << 20 };

int
q2_random_bytes(void *bytes, size_t length, struct q2_error *err)
{
    uint8_t *at = bytes;
    while (length) {
        size_t step = length < STEP ? length : STEP;
        if (RAND_priv_bytes(at, (int)step) != 1)
            return q2_error_set(err, Q2_ERR_IO, "the system has no random bytes");
        at += step;
        length -= step;
    }
    return 0;
}

void
q2_wipe(void *bytes, size_t length)
{
    OPENSSL_cleanse(bytes, length);
}
