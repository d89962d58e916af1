/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The LUKS header of an encrypted image: where it is, and its structure. Needs no key. */

#include "checker/scan.h"
#include "core/base/checked.h"
#include "core/format/luks.h"

/* Eight slots of 4000 stripes of a 64-byte key, rounded up, and then some. */
enum { MAX_HEADER_BYTES = 16 << 20 };

int
q2_pass_encryption(struct q2_check *check, struct q2_error *err)
{
    const struct q2_extensions *extensions = &check->extensions;
    uint64_t offset = extensions->crypto_offset, length = extensions->crypto_length;
    struct q2_sink sink = q2_findings_sink(&check->findings);
    if (!extensions->has_crypto)
        return 0;

    if (length < Q2_LUKS_HEADER_LENGTH || length > MAX_HEADER_BYTES) {
        q2_violate(&sink, Q2_PROBLEM_CRYPTO_HEADER_LENGTH, extensions->crypto_at + 8, 8, length,
                   NULL);
        length = q2_max(length, Q2_LUKS_HEADER_LENGTH);
        length = q2_min(length, MAX_HEADER_BYTES);
    }
    if (offset == 0 || (offset & (check->geometry.cluster_size - 1))) {
        q2_violate(&sink, Q2_PROBLEM_CRYPTO_HEADER_UNALIGNED, extensions->crypto_at, 8, offset,
                   NULL);
        check->unlocated = true;
        return 0;
    }
    /* As with every structure, its last cluster may be cut short. */
    if (!q2_range_inside(offset, length,
                         check->geometry.file_clusters << check->geometry.cluster_bits)) {
        q2_violate(&sink, Q2_PROBLEM_CRYPTO_HEADER_PAST_END, extensions->crypto_at, 8, offset,
                   NULL);
        check->unlocated = true;
        return 0;
    }
    struct q2_owner owner = {.kind = Q2_OWNER_LUKS_HEADER};
    int rc = q2_check_add_region(check, &owner, offset, length, err);
    if (rc < 0)
        return rc;

    uint8_t bytes[Q2_LUKS_HEADER_LENGTH];
    struct q2_luks_header header;
    if (q2_file_read_padded(check->file, offset, bytes, sizeof bytes, NULL) < 0) {
        q2_violate(&sink, Q2_PROBLEM_CRYPTO_HEADER_UNREADABLE, offset, sizeof bytes, sizeof bytes,
                   NULL);
        return 0;
    }
    rc = q2_luks_decode(bytes, sizeof bytes, &header, err);
    if (rc == 0)
        q2_luks_validate(&header, offset, extensions->crypto_length, &sink);
    return rc;
}
