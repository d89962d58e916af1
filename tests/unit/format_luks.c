/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A sound LUKS header, laid out as QEMU lays it out, breaks no rule; each way to break one is
 * reported once, at the field that was changed. Where qemu-img is installed, its own headers are
 * held to the same rules. */

#include "core/base/cleanup.h"
#include "core/base/endian.h"
#include "core/format/luks.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HOST_OFFSET = 0x50000, MATERIAL_SECTORS = 504, PAYLOAD = 8 + 8 * MATERIAL_SECTORS };

struct record {
    size_t count;
    struct q2_violation violations[128];
};

static void
remember(void *data, const struct q2_violation *violation)
{
    struct record *record = data;
    cr_assert_lt(record->count, 128);
    record->violations[record->count++] = *violation;
}

static struct record
validate(const struct q2_luks_header *header, uint64_t length)
{
    struct record record = {0};
    struct q2_sink sink = {.report = remember, .data = &record};
    q2_luks_validate(header, HOST_OFFSET, length, &sink);
    return record;
}

static struct q2_luks_header
sound_header(void)
{
    struct q2_luks_header header = {.version = Q2_LUKS_VERSION,
                                    .cipher_name = "aes",
                                    .cipher_mode = "xts-plain64",
                                    .hash = "sha256",
                                    .payload = PAYLOAD,
                                    .key_bytes = 64,
                                    .iterations = 100000,
                                    .uuid = "6c8707cf-2e9f-4259-a1c6-9dad3d0928cb"};
    memcpy(header.magic, q2_luks_magic, sizeof header.magic);
    memset(header.digest, 0x11, sizeof header.digest);
    memset(header.salt, 0x22, sizeof header.salt);
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        header.slots[i] = (struct q2_luks_slot){.state = Q2_LUKS_SLOT_DISABLED,
                                                .material = 8 + i * MATERIAL_SECTORS,
                                                .stripes = Q2_LUKS_STRIPES};
    header.slots[0].state = Q2_LUKS_SLOT_ENABLED;
    header.slots[0].iterations = 200000;
    memset(header.slots[0].salt, 0x33, sizeof header.slots[0].salt);
    return header;
}

static uint64_t
slot_at(unsigned slot, enum q2_luks_slot_field field)
{
    return HOST_OFFSET + Q2_LUKS_AT_SLOTS + slot * Q2_LUKS_SLOT_LENGTH + field;
}

Test(format_luks, a_sound_header_breaks_no_rule)
{
    struct q2_luks_header header = sound_header();
    cr_assert_eq(validate(&header, PAYLOAD * 512).count, 0);
}

Test(format_luks, fields_are_where_the_format_has_them)
{
    struct q2_luks_header header = sound_header();
    uint8_t bytes[Q2_LUKS_HEADER_LENGTH];
    q2_luks_encode(&header, bytes);
    cr_assert_arr_eq(bytes, "LUKS\xba\xbe\0\1aes", 12);
    cr_assert_str_eq((char *)bytes + 40, "xts-plain64");
    cr_assert_str_eq((char *)bytes + 72, "sha256");
    cr_assert_eq(q2_load_be32(bytes + 104), PAYLOAD);
    cr_assert_eq(q2_load_be32(bytes + 108), 64);
    cr_assert(bytes[112] == 0x11 && bytes[131] == 0x11 && bytes[132] == 0x22 && bytes[163] == 0x22);
    cr_assert_eq(q2_load_be32(bytes + 164), 100000);
    cr_assert_arr_eq(bytes + 168, "6c8707cf", 8);
    cr_assert_eq(q2_load_be32(bytes + 208), 0x00ac71f3);
    cr_assert_eq(q2_load_be32(bytes + 212), 200000);
    cr_assert(bytes[216] == 0x33 && bytes[247] == 0x33);
    cr_assert_eq(q2_load_be32(bytes + 248), 8);
    cr_assert_eq(q2_load_be32(bytes + 252), 4000);
    cr_assert_eq(q2_load_be32(bytes + 544), 0xdead);
}

/* Any bytes survive, those behind a string's end included. */
Test(format_luks, decoding_and_encoding_are_inverse)
{
    uint8_t bytes[Q2_LUKS_HEADER_LENGTH + 1], again[Q2_LUKS_HEADER_LENGTH];
    struct q2_luks_header header;
    srand(1);
    for (int round = 0; round < 1000; round++) {
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)(rand() >> 7);
        cr_assert_eq(q2_luks_decode(bytes, sizeof bytes, &header, NULL), 0);
        q2_luks_encode(&header, again);
        cr_assert_arr_eq(again, bytes, sizeof again);
    }
}

Test(format_luks, short_input_is_refused)
{
    struct q2_luks_header header = sound_header(), before = header;
    struct q2_error err = {0};
    uint8_t bytes[Q2_LUKS_HEADER_LENGTH - 1] = {0};
    cr_assert_eq(q2_luks_decode(bytes, sizeof bytes, &header, &err), Q2_ERR_EOF);
    cr_assert_eq(memcmp(&header, &before, sizeof header), 0);
    cr_assert_str_eq(err.message, "591 bytes are too few for a LUKS header of 592");
}

/* ---- each rule ---- */

/* Change a 32-bit field of a sound header (or one byte, where `size` is 1) and expect one report
 * about it. */
static const struct broken {
    unsigned at, size;
    uint32_t value;
    enum q2_problem problem;
    unsigned field, length; /* what the report should point to */
    const char *detail;
} broken[] = {
    {5, 1, 0xbf, Q2_PROBLEM_LUKS_MAGIC, 0, 6, ""},
    {7, 1, 2, Q2_PROBLEM_LUKS_VERSION, 6, 2, ""},
    {10, 1, 'z', Q2_PROBLEM_LUKS_CIPHER, 8, 32, "cipher unknown: \"aez\""},
    {43, 1, 0, Q2_PROBLEM_LUKS_CIPHER, 40, 32, "cipher mode unknown: \"xts\""},
    {77, 1, '7', Q2_PROBLEM_LUKS_CIPHER, 72, 32, "hash unknown: \"sha257\""},
    {104, 4, 0, Q2_PROBLEM_LUKS_PAYLOAD_OFFSET, 104, 4, ""},
    {104, 4, PAYLOAD - 5, Q2_PROBLEM_LUKS_PAYLOAD_OFFSET, 104, 4, ""},
    {108, 4, 0, Q2_PROBLEM_LUKS_KEY_BYTES, 108, 4, ""},
    {108, 4, 16, Q2_PROBLEM_LUKS_KEY_BYTES, 108, 4, ""},
    {108, 4, 65, Q2_PROBLEM_LUKS_KEY_BYTES, 108, 4, ""},
    {108, 4, 0x40000040, Q2_PROBLEM_LUKS_KEY_BYTES, 108, 4, ""},
    {164, 4, 0, Q2_PROBLEM_LUKS_ITERATIONS, 164, 4, "of the master key's digest"},
    {212, 4, 0, Q2_PROBLEM_LUKS_ITERATIONS, 212, 4, "key slot 0"},
    {208, 4, 0xac71f2, Q2_PROBLEM_LUKS_SLOT_STATE, 208, 4, "key slot 0"},
    {544, 4, 0, Q2_PROBLEM_LUKS_SLOT_STATE, 544, 4, "key slot 7"},
    {208, 4, 0xdead, Q2_PROBLEM_LUKS_NO_ACTIVE_SLOT, 208, 384, ""},
    {252, 4, 4001, Q2_PROBLEM_LUKS_SLOT_STRIPES, 252, 4, "key slot 0"},
    {300, 4, UINT32_MAX, Q2_PROBLEM_LUKS_SLOT_STRIPES, 300, 4, "key slot 1"},
    {248, 4, 0, Q2_PROBLEM_LUKS_SLOT_RANGE, 248, 4, "key slot 0 begins inside the header"},
    {248, 4, 7, Q2_PROBLEM_LUKS_SLOT_RANGE, 248, 4, "key slot 0 begins inside the header"},
    {584, 4, 3541, Q2_PROBLEM_LUKS_SLOT_RANGE, 584, 4,
     "key slot 7 reaches beyond the header's length"},
    {584, 4, UINT32_MAX, Q2_PROBLEM_LUKS_SLOT_RANGE, 584, 4,
     "key slot 7 reaches beyond the header's length"},
    {296, 4, 8, Q2_PROBLEM_LUKS_SLOT_OVERLAP, 296, 4, "key slots 0 and 1"},
    {296, 4, 507, Q2_PROBLEM_LUKS_SLOT_OVERLAP, 296, 4, "key slots 0 and 1"},
};

static void
check_broken(const struct broken *rule, size_t number)
{
    struct q2_luks_header header = sound_header();
    uint8_t bytes[Q2_LUKS_HEADER_LENGTH];
    q2_luks_encode(&header, bytes);
    if (rule->size == 1)
        bytes[rule->at] = (uint8_t)rule->value;
    else
        q2_store_be32(bytes + rule->at, rule->value);
    cr_assert_eq(q2_luks_decode(bytes, sizeof bytes, &header, NULL), 0);

    struct record record = validate(&header, PAYLOAD * 512);
    cr_assert_eq(record.count, 1, "case %zu: %zu reports", number, record.count);
    const struct q2_violation *violation = &record.violations[0];
    cr_assert_eq(violation->problem, rule->problem, "case %zu", number);
    cr_assert_eq(violation->offset, HOST_OFFSET + rule->field, "case %zu", number);
    cr_assert_eq(violation->length, rule->length, "case %zu", number);
    cr_assert_str_eq(violation->detail, rule->detail, "case %zu", number);
    if (rule->size == 4 && rule->length == 4)
        cr_assert_eq(violation->got, rule->value, "case %zu", number);
}

Test(format_luks, each_broken_rule_is_reported_once)
{
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++)
        check_broken(&broken[i], i);
}

Test(format_luks, right_values_are_told_where_they_are_known)
{
    struct q2_luks_header header = sound_header();
    header.payload = 1;
    header.slots[3].stripes = 0;
    struct record record = validate(&header, PAYLOAD * 512);
    cr_assert_eq(record.count, 2);
    cr_assert(record.violations[0].has_expected && record.violations[1].has_expected);
    cr_assert_eq(record.violations[0].expected, Q2_LUKS_STRIPES);
    cr_assert_eq(record.violations[0].offset, slot_at(3, Q2_LUKS_SLOT_AT_STRIPES));
    cr_assert_eq(record.violations[1].expected, PAYLOAD);
}

Test(format_luks, names_without_end_are_shown_escaped)
{
    struct q2_luks_header header = sound_header();
    memset(header.hash, '\n', Q2_LUKS_NAME_LENGTH);
    struct record record = validate(&header, PAYLOAD * 512);
    cr_assert_eq(record.count, 1);
    cr_assert_eq(record.violations[0].problem, Q2_PROBLEM_LUKS_CIPHER);
    cr_assert(strstr(record.violations[0].detail, "hash not terminated: \"\\x0a\\x0a"));
    cr_assert_null(strchr(record.violations[0].detail, '\n'));
}

Test(format_luks, modes_and_keys_that_are_used)
{
    static const struct {
        const char *cipher, *mode;
        uint32_t key_bytes;
        size_t reports;
    } cases[] = {
        {"aes", "xts-plain64", 32, 0},
        {"aes", "cbc-essiv:sha256", 32, 0},
        {"aes", "cbc-essiv:sha256", 16, 0},
        {"aes", "cbc-plain", 24, 0},
        {"serpent", "xts-plain64", 64, 0},
        {"twofish", "cbc-plain64", 32, 0},
        {"cast5", "cbc-plain64", 16, 0},
        {"aes", "cbc-plain64:sha1", 16, 0},
        {"cast5", "cbc-plain64", 32, 1},
        {"aes", "cbc-plain64", 64, 1},
        {"aes", "xts-plain64", 33, 1},
        {"aes", "cbc-essiv", 32, 1},
        {"aes", "cbc-essiv:", 32, 1},
        {"aes", "cbc-essiv:sha25", 32, 1},
        {"aes", "cbc-", 32, 1},
        {"aes", "cbcc-plain", 32, 1},
        {"aes", "", 64, 1},
        {"", "xts-plain64", 64, 1},
        {"camellia", "cbc-plain64", 128, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct q2_luks_header header = sound_header();
        memset(header.cipher_name, 0, sizeof header.cipher_name);
        memset(header.cipher_mode, 0, sizeof header.cipher_mode);
        strcpy(header.cipher_name, cases[i].cipher);
        strcpy(header.cipher_mode, cases[i].mode);
        header.key_bytes = cases[i].key_bytes;
        cr_assert_eq(validate(&header, PAYLOAD * 512).count, cases[i].reports, "case %zu", i);
    }
}

Test(format_luks, a_header_area_that_is_cut_short)
{
    struct q2_luks_header header = sound_header();
    uint64_t last = (8 + 7 * MATERIAL_SECTORS) * 512 + 64 * Q2_LUKS_STRIPES;
    cr_assert_eq(validate(&header, last).count, 0);
    struct record record = validate(&header, last - 1);
    cr_assert_eq(record.count, 1);
    cr_assert_eq(record.violations[0].offset, slot_at(7, Q2_LUKS_SLOT_AT_MATERIAL));
    cr_assert_eq(validate(&header, 0).count, Q2_LUKS_SLOTS);
    cr_assert_eq(validate(&header, UINT64_MAX).count, 0);
}

Test(format_luks, random_bytes_after_the_magic)
{
    uint8_t bytes[Q2_LUKS_HEADER_LENGTH];
    struct q2_luks_header header;
    srand(2);
    for (int round = 0; round < 20000; round++) {
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)(rand() >> 7);
        memcpy(bytes, "LUKS\xba\xbe\0\1", 8);
        cr_assert_eq(q2_luks_decode(bytes, sizeof bytes, &header, NULL), 0);
        cr_assert_gt(validate(&header, (uint64_t)rand() << (rand() % 32)).count, 8);
    }
}

/* ---- what QEMU writes ---- */

/* Make an image with these options and validate the header that its extension points to. */
static void
check_qemu(const char *options)
{
    char path[] = "/tmp/qcow2kit-luks-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    close(fd);
    Q2_AUTOFREE char *command = NULL;
    cr_assert_geq(asprintf(&command,
                           "qemu-img create -q -f qcow2 --object secret,id=s,data=abc -o "
                           "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10%s %s 1M",
                           options, path),
                  0);
    int r = system(command);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0, "%s", path);
    uint8_t head[4096] = {0}, bytes[Q2_LUKS_HEADER_LENGTH];
    struct q2_luks_header header;
    ssize_t have = pread(fd, head, sizeof head, 0);
    /* The extension comes first, right behind the header. */
    uint8_t *extension = head + q2_load_be32(head + 100) % 1024;
    uint64_t offset = q2_load_be64(extension + 8), length = q2_load_be64(extension + 16);
    ssize_t got = pread(fd, bytes, sizeof bytes, (off_t)offset);
    close(fd);
    unlink(path);
    cr_assert_eq(r, 0);
    cr_assert_eq(have, sizeof head);
    cr_assert_eq(q2_load_be32(extension), 0x0537be77);
    cr_assert_eq(got, sizeof bytes);
    cr_assert_eq(q2_luks_decode(bytes, sizeof bytes, &header, NULL), 0);
    struct record record = validate(&header, length);
    cr_assert_eq(record.count, 0, "%s: %s %s", options, q2_problem_id(record.violations[0].problem),
                 record.violations[0].detail);
    cr_assert_eq((uint64_t)header.payload * 512, length);
}

Test(format_luks, headers_that_qemu_writes)
{
    if (system("qemu-img --version > /dev/null 2>&1") != 0)
        cr_skip_test("qemu-img is not installed");
    /* Each takes QEMU a second or two, as it times its hash first. */
    check_qemu("");
    check_qemu(",encrypt.cipher-alg=serpent-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,"
               "encrypt.ivgen-hash-alg=sha256,encrypt.hash-alg=sha1,cluster_size=512");
}
