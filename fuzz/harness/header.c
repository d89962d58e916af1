/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The first cluster: header, extensions, backing file name. Known fields come back byte for byte
 * from any bytes; what is accepted keeps every extension, unknown ones included, when it is written
 * anew, and what we have written stays as it is to the byte. Strict open accepts what the rules
 * accept, and nothing else.
 *
 * Input: flags, sectors that the file has beyond the bytes, and the bytes. */

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/image/area.h"
#include "core/image/image.h"
#include "fuzz/support/format.h"
#include "fuzz/support/image.h"

#include <stdlib.h>
#include <string.h>

enum {
    STRICT = 1 << 0,
    MAX_LENGTH = 4096 + 3,
    ROOM = 8192, /* no first cluster from an input takes more when it is written */
};

/* ---- the header alone ---- */

static void
try_fields(const struct q2_header *header, const uint8_t *bytes, size_t length)
{
    uint8_t out[Q2_HEADER_KNOWN_LENGTH];
    memset(out, 0xee, sizeof out);
    size_t encoded = q2_header_encode(header, out);
    Q2_REQUIRE(encoded == 72 || encoded == 104 || encoded == 112, "%zu bytes", encoded);
    size_t known = encoded == 112 ? 105 : encoded;
    Q2_REQUIRE(length < known || memcmp(out, bytes, known) == 0, "the fields become other bytes");
    struct q2_header again;
    q2_header_decode(out, encoded, &again);
    Q2_REQUIRE(memcmp(&again, header, sizeof again) == 0, "the bytes become other fields");
}

/* ---- with what follows it ---- */

/* An extension as this harness finds it: the next of any type, or of one type. */
struct found {
    const uint8_t *at;
    uint32_t type;
    size_t length;
};

static bool
next_extension(const uint8_t *bytes, size_t end, size_t *at, struct found *ret_found)
{
    if (*at > end || end - *at < 8)
        return false;
    *ret_found =
        (struct found){bytes + *at + 8, q2_load_be32(bytes + *at), q2_load_be32(bytes + *at + 4)};
    if (ret_found->type == 0 || ret_found->length > end - *at - 8)
        return false;
    *at += 8 + ((ret_found->length + 7) & ~(size_t)7);
    return true;
}

static bool
is_known(uint32_t type)
{
    return type == 0xe2792aca || type == 0x44415441 || type == 0x6803f857 || type == 0x0537be77 ||
           type == 0x23852875;
}

static size_t
area_end(const struct q2_header *header, size_t length)
{
    uint64_t end = q2_min(length, UINT64_C(1) << header->cluster_bits);
    return (size_t)(header->backing_file_offset ? q2_min(end, header->backing_file_offset) : end);
}

/* Every extension of `a` is in `b`; unknown ones in the same order. */
static void
require_extensions(const struct q2_header *a, const uint8_t *a_bytes, size_t a_length,
                   const struct q2_header *b, const uint8_t *b_bytes, size_t b_length)
{
    size_t at = a->header_length, end = area_end(a, a_length);
    size_t unknown_at = b->header_length, b_end = area_end(b, b_length);
    struct found x, y = {0};
    while (next_extension(a_bytes, end, &at, &x)) {
        bool there = false;
        if (is_known(x.type)) {
            for (size_t i = b->header_length; !there && next_extension(b_bytes, b_end, &i, &y);)
                there = y.type == x.type;
        } else {
            while (!there && next_extension(b_bytes, b_end, &unknown_at, &y))
                there = !is_known(y.type);
        }
        /* For feature names there need not be room, as nothing depends on them, and a table
         * without any becomes ours. */
        if (x.type == 0x6803f857 && (!there || x.length == 0))
            continue;
        Q2_REQUIRE(there && y.type == x.type && y.length == x.length &&
                       memcmp(y.at, x.at, x.length) == 0,
                   "extension 0x%08x of %zu bytes is lost", x.type, x.length);
    }
}

/* All fields stay, but where the name is. A name ends at a NUL for all who read it, and a name of
 * no bytes is none. */
static void
require_same(const struct q2_header *header, const uint8_t *bytes, size_t length,
             const struct q2_header *again)
{
    struct q2_header x = *header, y = *again;
    x.backing_file_size = 0;
    if (x.backing_file_offset &&
        q2_range_inside(x.backing_file_offset, header->backing_file_size, length))
        x.backing_file_size = (uint32_t)strnlen((const char *)bytes + x.backing_file_offset,
                                                header->backing_file_size);
    x.backing_file_offset = y.backing_file_offset = 0;
    x.header_length = y.header_length = 0;
    Q2_REQUIRE(memcmp(&x, &y, sizeof x) == 0, "fields change");
}

/* Decode the area, write it anew, and do so once more. */
static void
try_area(const struct q2_header *header, unsigned usable, const uint8_t *bytes, size_t length)
{
    struct q2_area area = {0}, again = {0};
    struct q2_error err = {0};
    struct q2_header first = *header, second;
    size_t cluster = (size_t)q2_min(UINT64_C(1) << header->cluster_bits, ROOM);
    if (q2_area_decode(header, usable, bytes, length, "input", &area, &err) < 0) {
        Q2_REQUIRE(err.message[0], "refused without a word");
        return;
    }
    uint8_t one[ROOM], two[ROOM];
    int rc = q2_area_encode(&first, &area, one, cluster, &err);
    Q2_REQUIRE(rc == 0 || rc == Q2_ERR_NOSPACE, "%s", err.message);
    if (rc == 0) {
        q2_header_decode(one, cluster, &second);
        Q2_REQUIRE(memcmp(&first, &second, sizeof first) == 0, "the header is another one");
        require_same(header, bytes, length, &second);
        require_extensions(header, bytes, length, &second, one, cluster);
        rc = q2_area_decode(&second, Q2_USABLE_ALL, one, cluster, "again", &again, &err);
        Q2_REQUIRE(rc == 0, "what we write we refuse: %s", err.message);
        rc = q2_area_encode(&second, &again, two, cluster, &err);
        Q2_REQUIRE(rc == 0 && memcmp(one, two, cluster) == 0, "written twice, it differs");
        const char *name = area.backing_file, *other = again.backing_file;
        Q2_REQUIRE(!other == !(name && *name) && (!other || strcmp(name, other) == 0), "the name");
    }
    q2_area_destroy(&area);
    q2_area_destroy(&again);
}

/* ---- strict open ---- */

static const struct {
    enum q2_problem first, last;
} ours = {Q2_PROBLEM_HEADER_MAGIC, Q2_PROBLEM_EXTENSION_DATA_FILE_UNUSED};

static void
ask_strict(const struct q2_header *header, const struct q2_fuzz_rules *rules, const uint8_t *bytes,
           size_t length, uint64_t file_size)
{
    enum q2_problem problems[Q2_PROBLEM_COUNT];
    size_t count = 0;
    for (enum q2_problem i = ours.first; i <= ours.last; i++)
        problems[count++] = i;
    struct q2_error err = {0};
    struct q2_image *image = NULL;
    struct q2_file *file = q2_fuzz_file(bytes, length);
    Q2_REQUIRE(q2_file_truncate(file, file_size, NULL) == 0, "no truncate");
    int rc = q2_fuzz_minimal_open(file, 0, &image, &err);
    bool magic = length >= 4 && header->magic == Q2_MAGIC;
    Q2_REQUIRE((rc == Q2_ERR_NOT_QCOW2) == !magic, "the magic is 0x%08x: %s", header->magic,
               err.message);
    if (magic)
        q2_fuzz_rules_agree(rules, problems, count, rc, &err);
    q2_image_close(image, NULL);
}

static void
run(const uint8_t *input, size_t length)
{
    struct q2_fuzz_cursor cursor = {input, length};
    struct q2_header header;
    struct q2_extensions extensions;
    struct q2_fuzz_rules rules;
    unsigned flags = q2_fuzz_u8(&cursor);
    uint64_t file_size = q2_fuzz_u16(&cursor) * UINT64_C(512) + cursor.left;
    length = cursor.left;
    /* Strict open reads as much of the file as the largest cluster has; so does this. */
    size_t read = (size_t)q2_min(file_size, flags & STRICT ? ROOM : length);
    uint8_t *bytes = calloc(1, read + 1);
    Q2_REQUIRE(bytes, "no memory");
    if (length > 0)
        memcpy(bytes, cursor.at, length);

    q2_header_decode(bytes, read, &header);
    try_fields(&header, bytes, read);
    q2_fuzz_rules_init(&rules);
    unsigned usable = q2_header_validate(&header, file_size, &rules.sink);
    Q2_REQUIRE(!(usable & Q2_USABLE_L1) || (usable & Q2_USABLE_GEOMETRY), "0x%x", usable);
    unsigned breaking = rules.breaking;
    q2_extensions_decode(&header, usable, bytes, read, &rules.sink, &extensions);
    q2_header_plausible(&header, file_size);
    if (!breaking && (header.version == 2 || header.version == 3) && (usable & Q2_USABLE_GEOMETRY))
        try_area(&header, usable, bytes, read);
    if (flags & STRICT)
        ask_strict(&header, &rules, bytes, length, file_size);
    free(bytes);
}

const struct q2_harness q2_harness = {"header", Q2_FUZZ_BYTES, MAX_LENGTH, run};
