/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "fuzz/support/format.h"

#include "checker/catalogue.h"
#include "core/base/endian.h"
#include "core/image/image.h"
#include "fuzz/support/image.h"

#include <stdlib.h>
#include <string.h>

enum { CACHE = 4 << 10 }; /* bytes: the image is small, and a larger one takes longer to make */

/* ---- measures ---- */

void
q2_fuzz_header(struct q2_fuzz_cursor *cursor, struct q2_header *ret_header, uint64_t *ret_file_size)
{
    enum { V2 = 1, EXTENDED = 2, DATA_FILE = 4, ENCRYPTED = 8 };
    uint8_t flags = q2_fuzz_u8(cursor);
    *ret_header = (struct q2_header){
        .magic = Q2_MAGIC,
        .version = flags & V2 ? 2 : 3,
        .cluster_bits = Q2_MIN_CLUSTER_BITS +
                        q2_fuzz_u8(cursor) % (Q2_MAX_CLUSTER_BITS - Q2_MIN_CLUSTER_BITS + 1),
        .refcount_order = flags & V2 ? 4 : flags >> 4 & 7,
        .header_length = flags & V2 ? Q2_HEADER_V2_LENGTH : Q2_HEADER_KNOWN_LENGTH,
        .crypt_method = flags & ENCRYPTED ? Q2_CRYPT_AES : Q2_CRYPT_NONE,
    };
    if (ret_header->refcount_order > Q2_MAX_REFCOUNT_ORDER)
        ret_header->refcount_order = 4;
    if (!(flags & V2) && (flags & EXTENDED) &&
        ret_header->cluster_bits >= Q2_MIN_EXTENDED_CLUSTER_BITS)
        ret_header->incompatible_features |= Q2_INCOMPATIBLE_EXTENDED_L2;
    if (!(flags & V2) && (flags & DATA_FILE))
        ret_header->incompatible_features |= Q2_INCOMPATIBLE_DATA_FILE;
    ret_header->size = q2_fuzz_u64(cursor);
    *ret_file_size = q2_fuzz_u64(cursor) & Q2_FILE_SIZE_MAX;
}

void
q2_fuzz_geometry(struct q2_fuzz_cursor *cursor, struct q2_geometry *ret_geometry)
{
    struct q2_header header;
    uint64_t file_size;
    q2_fuzz_header(cursor, &header, &file_size);
    q2_geometry_init(ret_geometry, &header, file_size);
}

/* ---- broken rules ---- */

/* Strict reading has rules of its own for the first two; the third is how old software made images.
 */
static bool
breaks(enum q2_problem problem)
{
    enum q2_severity severity = q2_catalogue(problem)->severity;
    return problem != Q2_PROBLEM_HEADER_DIRTY && problem != Q2_PROBLEM_HEADER_CORRUPT &&
           problem != Q2_PROBLEM_SNAPSHOT_EXTRA_SHORT &&
           (severity == Q2_SEVERITY_CORRUPTION || severity == Q2_SEVERITY_ERROR);
}

static void
report(void *data, const struct q2_violation *violation)
{
    struct q2_fuzz_rules *rules = data;
    Q2_REQUIRE(violation->problem < Q2_PROBLEM_COUNT, "problem %d", (int)violation->problem);
    size_t length = strnlen(violation->detail, sizeof violation->detail);
    Q2_REQUIRE(length < sizeof violation->detail, "the detail of %s does not end",
               q2_problem_id(violation->problem));
    for (size_t i = 0; i < length; i++)
        Q2_REQUIRE((unsigned char)violation->detail[i] >= 0x20 && violation->detail[i] != 0x7f,
                   "the detail of %s has the byte 0x%02x", q2_problem_id(violation->problem),
                   (unsigned char)violation->detail[i]);
    rules->count++;
    rules->breaking += breaks(violation->problem);
    rules->broken[violation->problem] = true;
}

void
q2_fuzz_rules_init(struct q2_fuzz_rules *rules)
{
    memset(rules, 0, sizeof *rules);
    rules->sink = (struct q2_sink){.report = report, .data = rules};
}

/* Messages of strict reading begin with "NAME: PROBLEM at offset". */
static bool
is_because(const struct q2_error *err, enum q2_problem problem)
{
    const char *id = q2_problem_id(problem), *at = strstr(err->message, id);
    return at && strncmp(at + strlen(id), " at offset ", 11) == 0 && at > err->message &&
           at[-1] == ' ';
}

void
q2_fuzz_rules_agree(const struct q2_fuzz_rules *rules, const enum q2_problem *problems,
                    size_t count, int rc, const struct q2_error *err)
{
    Q2_REQUIRE(rc < 0 || !rules->breaking, "strict reading accepts what breaks %u rules",
               rules->breaking);
    for (size_t i = 0; rc < 0 && i < count; i++)
        Q2_REQUIRE(!is_because(err, problems[i]) || rules->broken[problems[i]],
                   "strict reading refuses what the rules accept: %s", err->message);
}

/* ---- a minimal image ---- */

void
q2_fuzz_minimal_init(struct q2_fuzz_minimal *minimal, unsigned version, bool extended)
{
    extended = extended && version >= 3;
    unsigned bits = extended ? Q2_MIN_EXTENDED_CLUSTER_BITS : Q2_MIN_CLUSTER_BITS;
    minimal->header = (struct q2_header){
        .magic = Q2_MAGIC,
        .version = version,
        .cluster_bits = bits,
        .size = UINT64_C(16) << bits,
        .l1_size = 1,
        .l1_table_offset = (uint64_t)Q2_FUZZ_MINIMAL_L1 << bits,
        .refcount_table_offset = (uint64_t)Q2_FUZZ_MINIMAL_REFCOUNT_TABLE << bits,
        .refcount_table_clusters = 1,
        .incompatible_features = extended ? Q2_INCOMPATIBLE_EXTENDED_L2 : 0,
        .refcount_order = 4,
        .header_length = version < 3 ? Q2_HEADER_V2_LENGTH : Q2_HEADER_KNOWN_LENGTH,
    };
    q2_geometry_init(&minimal->geometry, &minimal->header,
                     (uint64_t)Q2_FUZZ_MINIMAL_CLUSTERS << bits);
    memset(minimal->bytes, 0, sizeof minimal->bytes);
    q2_store_be64(q2_fuzz_minimal_cluster(minimal, Q2_FUZZ_MINIMAL_REFCOUNT_TABLE),
                  (uint64_t)Q2_FUZZ_MINIMAL_REFCOUNT_BLOCK << bits);
    uint8_t *block = q2_fuzz_minimal_cluster(minimal, Q2_FUZZ_MINIMAL_REFCOUNT_BLOCK);
    for (size_t i = 0; i < Q2_FUZZ_MINIMAL_CLUSTERS; i++)
        q2_store_be16(block + 2 * i, 1);
    q2_store_be64(q2_fuzz_minimal_cluster(minimal, Q2_FUZZ_MINIMAL_L1),
                  UINT64_C(1) << 63 | (uint64_t)Q2_FUZZ_MINIMAL_L2 << bits);
}

void
q2_fuzz_minimal_extension(struct q2_fuzz_minimal *minimal, size_t *at, uint32_t type,
                          const void *data, size_t length)
{
    if (*at == 0)
        *at = minimal->header.header_length;
    q2_store_be32(minimal->bytes + *at, type);
    q2_store_be32(minimal->bytes + *at + 4, (uint32_t)length);
    memcpy(minimal->bytes + *at + 8, data, length);
    *at += 8 + ((length + 7) & ~(size_t)7);
}

struct q2_file *
q2_fuzz_minimal_file(struct q2_fuzz_minimal *minimal)
{
    const struct q2_geometry *geometry = &minimal->geometry;
    q2_header_encode(&minimal->header, minimal->bytes);
    if (geometry->cluster_size == Q2_FUZZ_MINIMAL_PART)
        return q2_fuzz_file(minimal->bytes, sizeof minimal->bytes);
    struct q2_file *file = q2_fuzz_file(NULL, 0);
    int rc = q2_file_truncate(file, geometry->file_size, NULL);
    for (unsigned i = 0; rc == 0 && i < Q2_FUZZ_MINIMAL_FREE; i++)
        rc = q2_file_write(file, (uint64_t)i << geometry->cluster_bits,
                           q2_fuzz_minimal_cluster(minimal, i), Q2_FUZZ_MINIMAL_PART, NULL);
    Q2_REQUIRE(rc == 0, "no file");
    return file;
}

int
q2_fuzz_minimal_open(struct q2_file *file, unsigned flags, struct q2_image **ret_image,
                     struct q2_error *err)
{
    const struct q2_image_options options = {
        .flags = flags | Q2_IMAGE_NO_BACKING | Q2_IMAGE_NO_CRYPTO | Q2_IMAGE_NO_DATA_FILE,
        .format = Q2_DISK_QCOW2,
        .l2_cache_bytes = CACHE,
        .refcount_cache_bytes = CACHE,
    };
    *ret_image = NULL;
    int rc = q2_image_open_file(file, &options, ret_image, err);
    Q2_REQUIRE(rc == 0 || err->message[0], "refused with %d and no word", rc);
    return rc;
}
