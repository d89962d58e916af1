/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The first cluster as a whole: what goes in comes out, and what nobody knows stays as it was. */

#include "core/image/area.h"

#include "core/base/endian.h"
#include "core/image/internal.h"
#include "tests/unit/format_record.h"
#include "tests/unit/images.h"

#include <criterion/criterion.h>
#include <string.h>

enum { CLUSTER = 4096 };

static uint8_t bytes[CLUSTER];
static struct q2_header header;
static struct q2_error err;

static void
start(void)
{
    memset(bytes, 0xee, sizeof bytes);
    header = (struct q2_header){.magic = Q2_MAGIC,
                                .version = 3,
                                .cluster_bits = 12,
                                .refcount_order = 4,
                                .header_length = Q2_HEADER_KNOWN_LENGTH};
}

TestSuite(area, .init = start);

static void
encode(const struct q2_area *area)
{
    cr_assert_eq(q2_area_encode(&header, area, bytes, sizeof bytes, &err), 0, "%s", err.message);
}

static struct q2_area
decode(void)
{
    struct q2_area area;
    struct q2_header found;
    q2_header_decode(bytes, sizeof bytes, &found);
    cr_assert_eq(found.header_length, header.header_length);
    cr_assert_eq(q2_area_decode(&found, Q2_USABLE_ALL, bytes, sizeof bytes, "image", &area, &err),
                 0, "%s", err.message);
    return area;
}

Test(area, round_trip)
{
    const struct q2_area area = {.backing_file = (char *)"base.raw",
                                 .backing_format = (char *)"raw",
                                 .data_file = (char *)"data",
                                 .has_crypto = true,
                                 .crypto_offset = 0x30000,
                                 .crypto_length = 0x1234,
                                 .has_bitmaps = true,
                                 .nb_bitmaps = 7,
                                 .bitmap_directory_size = 0x88,
                                 .bitmap_directory_offset = 0x40000};
    header.crypt_method = Q2_CRYPT_LUKS;
    header.incompatible_features = Q2_INCOMPATIBLE_DATA_FILE;
    header.autoclear_features = Q2_AUTOCLEAR_BITMAPS;
    encode(&area);
    struct q2_area found = decode();
    cr_assert_str_eq(found.backing_file, "base.raw");
    cr_assert_str_eq(found.backing_format, "raw");
    cr_assert_str_eq(found.data_file, "data");
    cr_assert(found.has_crypto && found.has_bitmaps && !found.has_features);
    cr_assert_eq(found.crypto_offset, 0x30000);
    cr_assert_eq(found.crypto_length, 0x1234);
    cr_assert_eq(found.nb_bitmaps, 7);
    cr_assert_eq(found.bitmap_directory_size, 0x88);
    cr_assert_eq(found.bitmap_directory_offset, 0x40000);
    cr_assert_null(found.tail);
    cr_assert_null(found.unknown);
    q2_area_destroy(&found);
    cr_assert_null(found.backing_file);
}

Test(area, nothing_but_the_header)
{
    header.backing_file_offset = 99; /* stale: encoding says where things are */
    header.backing_file_size = 9;
    encode(&(struct q2_area){0});
    cr_assert_eq(header.backing_file_offset, 0);
    cr_assert_eq(header.backing_file_size, 0);
    for (size_t i = Q2_HEADER_KNOWN_LENGTH; i < sizeof bytes; i++)
        cr_assert_eq(bytes[i], 0, "byte %zu", i);
    struct q2_area found = decode();
    cr_assert_null(found.backing_file);
    cr_assert_null(found.backing_format);
    cr_assert_null(found.data_file);
    q2_area_destroy(&found);
}

Test(area, backing_name_is_behind_the_end_marker)
{
    encode(&(struct q2_area){.backing_file = (char *)"b", .backing_format = (char *)"qcow2"});
    /* header, extension with 5 bytes of text, end marker */
    cr_assert_eq(header.backing_file_offset, 112 + 16 + 8);
    cr_assert_eq(header.backing_file_size, 1);
    cr_assert_eq(bytes[header.backing_file_offset], 'b');
    cr_assert_eq(q2_load_be32(bytes + 112), Q2_EXTENSION_BACKING_FORMAT);
    cr_assert_eq(q2_load_be32(bytes + 116), 5);
    cr_assert_eq(q2_load_be32(bytes + 128), Q2_EXTENSION_END);
}

Test(area, names_of_features)
{
    encode(&(struct q2_area){.has_features = true});
    struct q2_area found = decode();
    cr_assert(found.has_features);
    cr_assert_eq(found.features_length, 8 * Q2_FEATURE_ENTRY_LENGTH);

    struct record record;
    struct q2_sink sink = record_sink(&record);
    struct q2_extensions extensions;
    q2_extensions_decode(&header, Q2_USABLE_ALL, bytes, sizeof bytes, &sink, &extensions);
    struct q2_text name;
    cr_assert(q2_feature_name(&extensions, 0, 4, &name));
    cr_assert_eq(memcmp(name.bytes, "extended L2 entries", name.length), 0);
    cr_assert(q2_feature_name(&extensions, 1, 0, &name));
    cr_assert_eq(memcmp(name.bytes, "lazy refcounts", name.length), 0);
    cr_assert(q2_feature_name(&extensions, 2, 1, &name));
    cr_assert_eq(memcmp(name.bytes, "raw external data", name.length), 0);
    q2_area_destroy(&found);
}

/* Somebody else's table is not replaced by ours. */
Test(area, keeps_a_feature_table)
{
    uint8_t table[2 * Q2_FEATURE_ENTRY_LENGTH] = {0, 40, 'n', 'e', 'w'};
    struct q2_area area = {.has_features = true,
                           .features = table,
                           .features_length = sizeof table};
    encode(&area);
    struct q2_area found = decode();
    cr_assert_eq(found.features_length, sizeof table);
    cr_assert_eq(memcmp(found.features, table, sizeof table), 0);
    q2_area_destroy(&found);
}

Test(area, version_2_has_no_feature_table_and_no_tail)
{
    uint8_t tail[] = {1, 2, 3};
    header.version = 2;
    encode(&(struct q2_area){.has_features = true,
                             .tail = tail,
                             .tail_length = sizeof tail,
                             .backing_file = (char *)"b"});
    cr_assert_eq(header.header_length, Q2_HEADER_V2_LENGTH);
    cr_assert_eq(header.backing_file_offset, Q2_HEADER_V2_LENGTH + 8);
    struct q2_area found = decode();
    cr_assert(!found.has_features);
    cr_assert_str_eq(found.backing_file, "b");
    q2_area_destroy(&found);
}

/* Fields of a newer version and extensions of unknown types come through byte for byte. */
Test(area, keeps_what_is_unknown)
{
    memset(bytes, 0, sizeof bytes);
    header.header_length = 128;
    q2_header_encode(&header, bytes);
    for (unsigned i = 105; i < 128; i++)
        bytes[i] = (uint8_t)i;
    uint8_t *at = bytes + 128;
    static const uint8_t first[] = {0xca, 0xfe, 0, 1, 0, 0, 0, 3, 'a', 'b', 'c', 9, 9, 9, 9, 9};
    static const uint8_t second[] = {0xca, 0xfe, 0, 2, 0, 0, 0, 0};
    memcpy(at, first, sizeof first);
    at += sizeof first;
    q2_store_be32(at, Q2_EXTENSION_BACKING_FORMAT);
    q2_store_be32(at + 4, 3);
    memcpy(at + 8, "raw", 3);
    at += 16;
    memcpy(at, second, sizeof second);

    struct q2_area area = decode();
    cr_assert_eq(area.tail_length, 128 - 105);
    cr_assert_eq(area.unknown_length, sizeof first + sizeof second);
    area.backing_file = strdup("somewhere/else");
    encode(&area);
    cr_assert_eq(header.header_length, 128);
    for (unsigned i = 105; i < 128; i++)
        cr_assert_eq(bytes[i], i, "byte %u", i);
    struct q2_area again = decode();
    cr_assert_str_eq(again.backing_file, "somewhere/else");
    cr_assert_str_eq(again.backing_format, "raw");
    cr_assert_eq(again.unknown_length, area.unknown_length);
    cr_assert_eq(memcmp(again.unknown, first, sizeof first), 0);
    cr_assert_eq(memcmp(again.unknown + sizeof first, second, sizeof second), 0);
    q2_area_destroy(&area);
    q2_area_destroy(&again);
}

/* The area may end inside the padding of the last extension. */
Test(area, padding_may_be_cut_off)
{
    memset(bytes, 0, sizeof bytes);
    header.backing_file_offset = 112 + 11;
    header.backing_file_size = 1;
    q2_header_encode(&header, bytes);
    q2_store_be32(bytes + 112, 0xcafe0001);
    q2_store_be32(bytes + 116, 3);
    memcpy(bytes + 120, "abcX", 4);
    struct q2_area area;
    int rc = q2_area_decode(&header, Q2_USABLE_ALL, bytes, sizeof bytes, "image", &area, &err);
    if (rc == 0) { /* whether that is allowed is the validator's to say */
        cr_assert_eq(area.unknown_length, 16);
        cr_assert_eq(memcmp(area.unknown + 8, "abc\0\0\0\0\0", 8), 0);
        q2_area_destroy(&area);
    } else {
        cr_assert_eq(rc, Q2_ERR_FORMAT);
    }
}

Test(area, refuses_what_breaks_a_rule)
{
    memset(bytes, 0, sizeof bytes);
    q2_header_encode(&header, bytes);
    q2_store_be32(bytes + 112, 0xcafe0001);
    q2_store_be32(bytes + 116, CLUSTER); /* more than there is */
    struct q2_area area = {.nb_bitmaps = 4711};
    int rc = q2_area_decode(&header, Q2_USABLE_ALL, bytes, sizeof bytes, "image", &area, &err);
    cr_assert_eq(rc, Q2_ERR_FORMAT);
    cr_assert_eq(area.nb_bitmaps, 4711, "the output was touched");
    cr_assert(strstr(err.message, "image"), "%s", err.message);
}

Test(area, no_room)
{
    char name[1024];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    struct q2_header before = header;
    struct q2_area area = {.backing_file = name};
    int rc = q2_area_encode(&header, &area, bytes, 1024, &err);
    cr_assert_eq(rc, Q2_ERR_NOSPACE);
    cr_assert_eq(memcmp(&before, &header, sizeof header), 0);
    cr_assert_eq(bytes[0], 0xee, "something was written");
    /* It fits to the byte: header, end marker, name. */
    name[1024 - 112 - 8] = 0;
    cr_assert_eq(q2_area_encode(&header, &area, bytes, 1024, &err), 0, "%s", err.message);
    cr_assert_eq(bytes[1023], 'n');
    cr_assert_eq(bytes[1024], 0xee, "the next cluster was touched");
}

/* Names of features help people; that they do not fit is no reason to refuse. */
Test(area, feature_table_gives_way)
{
    struct q2_area area = {.has_features = true};
    cr_assert_eq(q2_area_encode(&header, &area, bytes, 512, &err), 0, "%s", err.message);
    cr_assert_eq(q2_load_be32(bytes + 112), Q2_EXTENSION_FEATURES);
    area.backing_file = (char *)"b"; /* one byte more than there is room for */
    cr_assert_eq(q2_area_encode(&header, &area, bytes, 512, &err), 0, "%s", err.message);
    cr_assert_eq(q2_load_be32(bytes + 112), Q2_EXTENSION_END);
    cr_assert_eq(bytes[120], 'b');
}

Test(area, copy_is_independent)
{
    struct q2_area area = {.backing_file = strdup("b"),
                           .backing_format = strdup("raw"),
                           .data_file = strdup("d"),
                           .tail = calloc(1, 3),
                           .tail_length = 3,
                           .unknown = calloc(1, 8),
                           .unknown_length = 8,
                           .has_bitmaps = true,
                           .nb_bitmaps = 3};
    struct q2_area copy;
    cr_assert_eq(q2_area_copy(&area, &copy, &err), 0);
    q2_area_destroy(&area);
    cr_assert_str_eq(copy.backing_file, "b");
    cr_assert_str_eq(copy.backing_format, "raw");
    cr_assert_str_eq(copy.data_file, "d");
    cr_assert_eq(copy.tail_length, 3);
    cr_assert_eq(copy.unknown[7], 0);
    cr_assert_eq(copy.nb_bitmaps, 3);
    q2_area_destroy(&copy);
    q2_area_destroy(NULL);
}

/* Open begins with few bytes, and goes on where the cluster does. */
Test(area, is_read_to_the_end_of_a_large_cluster)
{
    static uint8_t cluster[1 << 16], unknown[20000];
    struct q2_file *file = build_image("size 1M\n");
    struct q2_image *image = NULL;
    memset(unknown, 0x5a, sizeof unknown);
    q2_store_be32(unknown, 0x12345678);
    q2_store_be32(unknown + 4, sizeof unknown - 8);
    const struct q2_area area = {.unknown = unknown, .unknown_length = sizeof unknown};
    cr_assert_eq(q2_file_read(file, 0, cluster, sizeof cluster, &err), 0, "%s", err.message);
    q2_header_decode(cluster, sizeof cluster, &header);
    cr_assert_eq(q2_area_encode(&header, &area, cluster, sizeof cluster, &err), 0);
    cr_assert_eq(q2_file_write(file, 0, cluster, sizeof cluster, &err), 0);
    cr_assert_eq(q2_image_open_file(file, NULL, &image, &err), 0, "%s", err.message);
    cr_assert_eq(image->area.unknown_length, sizeof unknown);
    cr_assert_arr_eq(image->area.unknown, unknown, sizeof unknown);
    q2_image_close(image, NULL);
}
