/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* SHA-256 for the undo journal: one digest that grows with the file, and many small ones. */

#include "repair/journal_parts.h"

#include <openssl/evp.h>
#include <string.h>

static int
failed(struct q2_error *err)
{
    return q2_error_set(err, Q2_ERR_NOMEM, "the digest of the undo journal failed");
}

int
q2_journal_hash_init(struct q2_journal_hash *hash, struct q2_error *err)
{
    *hash = (struct q2_journal_hash){.md = EVP_MD_fetch(NULL, "SHA256", NULL),
                                     .whole = EVP_MD_CTX_new(),
                                     .mark = EVP_MD_CTX_new()};
    if (hash->md && hash->whole && hash->mark &&
        EVP_DigestInit_ex2(hash->whole, hash->md, NULL) == 1)
        return 0;
    return failed(err);
}

void
q2_journal_hash_destroy(struct q2_journal_hash *hash)
{
    EVP_MD_CTX_free(hash->whole);
    EVP_MD_CTX_free(hash->mark);
    EVP_MD_free(hash->md);
    memset(hash, 0, sizeof *hash);
}

int
q2_journal_hash_add(struct q2_journal_hash *hash, const void *bytes, size_t length,
                    struct q2_error *err)
{
    return EVP_DigestUpdate(hash->whole, bytes, length) == 1 ? 0 : failed(err);
}

int
q2_journal_hash_end(struct q2_journal_hash *hash, uint8_t ret_digest[Q2_JOURNAL_DIGEST_LENGTH],
                    struct q2_error *err)
{
    return EVP_DigestFinal_ex(hash->whole, ret_digest, NULL) == 1 ? 0 : failed(err);
}

int
q2_journal_hash_mark(struct q2_journal_hash *hash, const void *bytes, size_t length,
                     uint8_t ret_mark[Q2_JOURNAL_MARK_LENGTH], struct q2_error *err)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    if (EVP_DigestInit_ex2(hash->mark, hash->md, NULL) != 1 ||
        EVP_DigestUpdate(hash->mark, bytes, length) != 1 ||
        EVP_DigestFinal_ex(hash->mark, digest, NULL) != 1)
        return failed(err);
    memcpy(ret_mark, digest, Q2_JOURNAL_MARK_LENGTH);
    return 0;
}
