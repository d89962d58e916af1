/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What tells a plan, and the image that it is for, from others: the sizes, and for each run of
 * edited bytes where it is and what it holds before and after. Of what becomes a hole, only where
 * it is: it may be of any length. */

#include "repair/digest.h"

#include "core/base/checked.h"
#include "core/base/endian.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

struct digest {
    EVP_MD_CTX *context;
    struct q2_file *base;
    uint64_t base_size;
    uint8_t *buffer; /* Q2_EDIT_LENGTH_MAX bytes */
    struct q2_error *err;
};

static int
add(struct digest *digest, const void *bytes, size_t length)
{
    if (EVP_DigestUpdate(digest->context, bytes, length) == 1)
        return 0;
    return q2_error_set(digest->err, Q2_ERR_NOMEM, "the digest of the plan failed");
}

static int
add_number(struct digest *digest, uint64_t number)
{
    uint8_t bytes[8];
    q2_store_be64(bytes, number);
    return add(digest, bytes, sizeof bytes);
}

static int
add_edit(const struct q2_edit *edit, void *data)
{
    struct digest *digest = data;
    int rc = add_number(digest, edit->offset);
    if (rc == 0)
        rc = add_number(digest, edit->length);
    if (rc < 0 || !edit->bytes)
        return rc;
    rc = add(digest, edit->bytes, edit->length);
    uint64_t old = edit->offset < digest->base_size
                       ? q2_min(edit->length, digest->base_size - edit->offset)
                       : 0;
    if (rc < 0 || old == 0)
        return rc;
    rc = q2_file_read(digest->base, edit->offset, digest->buffer, old, digest->err);
    return rc < 0 ? rc : add(digest, digest->buffer, old);
}

static int
run(struct digest *digest, struct q2_file *overlay, uint8_t *ret_bytes)
{
    uint64_t size;
    if (EVP_DigestInit_ex(digest->context, EVP_sha256(), NULL) != 1)
        return q2_error_set(digest->err, Q2_ERR_NOMEM, "no SHA-256 for the digest of the plan");
    int rc = q2_file_size(overlay, &size, digest->err);
    if (rc == 0)
        rc = add_number(digest, digest->base_size);
    if (rc == 0)
        rc = add_number(digest, size);
    if (rc == 0)
        rc = q2_overlay_visit(overlay, add_edit, digest);
    if (rc == 0 && EVP_DigestFinal_ex(digest->context, ret_bytes, NULL) != 1)
        rc = q2_error_set(digest->err, Q2_ERR_NOMEM, "the digest of the plan failed");
    return rc;
}

int
q2_digest_edits(struct q2_file *base, struct q2_file *overlay, char ret_digest[65],
                struct q2_error *err)
{
    struct q2_error local = {0};
    uint8_t bytes[EVP_MAX_MD_SIZE];
    struct digest digest = {.context = EVP_MD_CTX_new(),
                            .base = base,
                            .buffer = malloc(Q2_EDIT_LENGTH_MAX),
                            .err = err ? err : &local};
    int rc = digest.context && digest.buffer
                 ? q2_file_size(base, &digest.base_size, digest.err)
                 : q2_error_set(err, Q2_ERR_NOMEM, "no memory for the digest of the plan");
    if (rc == 0)
        rc = run(&digest, overlay, bytes);
    EVP_MD_CTX_free(digest.context);
    free(digest.buffer);
    for (size_t i = 0; rc == 0 && i < 32; i++)
        snprintf(ret_digest + 2 * i, 3, "%02x", bytes[i]);
    return rc;
}
