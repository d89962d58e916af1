/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The LUKS header of an encrypted image: where it is, and its structure. Needs no key. */

#include "checker/scan.h"
#include "core/base/checked.h"
#include "core/format/luks.h"

/* Eight slots of 4000 stripes of a 64-byte key, rounded up, and then some. */
enum { MAX_HEADER_BYTES = 16 << 20 };

/* Whether a LUKS header can be looked at. What it may occupy is *ret_span; where its length is not
 * to be trusted, that is all that follows, and only its first part counts as its own. */
static bool
locate(struct q2_check *check, const struct q2_sink *sink, uint64_t *ret_span, bool *ret_trusted)
{
    const struct q2_extensions *extensions = &check->extensions;
    uint64_t offset = extensions->crypto_offset, length = extensions->crypto_length;
    /* As with every structure, its last cluster may be cut short. */
    uint64_t end = check->geometry.file_clusters << check->geometry.cluster_bits;
    uint64_t room = end > offset ? end - offset : 0;

    bool sane = length >= Q2_LUKS_HEADER_LENGTH && length <= MAX_HEADER_BYTES;
    if (!sane)
        q2_violate(sink, Q2_PROBLEM_CRYPTO_HEADER_LENGTH, extensions->crypto_at + 8, 8, length,
                   NULL);
    bool aligned = offset && (offset & (check->geometry.cluster_size - 1)) == 0;
    bool inside = room >= Q2_LUKS_HEADER_LENGTH && (!sane || length <= room);
    if (!aligned)
        q2_violate(sink, Q2_PROBLEM_CRYPTO_HEADER_UNALIGNED, extensions->crypto_at, 8, offset,
                   NULL);
    else if (!inside)
        q2_violate(sink, Q2_PROBLEM_CRYPTO_HEADER_PAST_END, extensions->crypto_at, 8, offset,
                   "%llu bytes", (unsigned long long)length);
    *ret_trusted = sane && inside;
    *ret_span = *ret_trusted ? length : q2_min(room, MAX_HEADER_BYTES);
    check->unlocated |= !aligned || !*ret_trusted;
    return aligned && room >= Q2_LUKS_HEADER_LENGTH;
}

int
q2_pass_encryption(struct q2_check *check, struct q2_error *err)
{
    struct q2_sink sink = q2_findings_sink(&check->findings);
    uint64_t offset = check->extensions.crypto_offset, span;
    bool trusted;
    if (!check->extensions.has_crypto || !locate(check, &sink, &span, &trusted))
        return 0;
    struct q2_owner owner = {.kind = Q2_OWNER_LUKS_HEADER};
    int rc =
        q2_check_add_region(check, &owner, offset, trusted ? span : Q2_LUKS_HEADER_LENGTH, err);
    if (rc < 0)
        return rc;

    uint8_t bytes[Q2_LUKS_HEADER_LENGTH];
    struct q2_luks_header header;
    if (q2_file_read_padded(check->file, offset, bytes, sizeof bytes, NULL) < 0) {
        q2_violate_text(&sink, Q2_PROBLEM_CRYPTO_HEADER_UNREADABLE, offset, sizeof bytes, NULL);
        return 0;
    }
    rc = q2_luks_decode(bytes, sizeof bytes, &header, err);
    if (rc == 0)
        q2_luks_validate(&header, offset, span, &sink);
    return rc;
}
