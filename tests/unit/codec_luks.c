/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Key slots: what we format obeys the rules and opens with its pass phrases and nothing else; slots
 * come and go without harm to others; a header may claim what it wants. */

#include "core/base/cleanup.h"
#include "core/base/endian.h"
#include "core/codec/keys.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ITERATIONS = 20 };

struct area {
    uint8_t *bytes;
    size_t length;
    struct q2_luks_key key;
};

static const struct q2_luks_options quick = {.iterations = ITERATIONS};

static struct area
area_with(const struct q2_luks_options *options, const char *passphrase)
{
    struct area area = {NULL, 0, {0, {0}}};
    struct q2_error err = {0};
    cr_assert_eq(q2_luks_format(options, passphrase, strlen(passphrase), &area.bytes, &area.length,
                                &area.key, &err),
                 0, "%s", err.message);
    return area;
}

static struct area
area_new(void)
{
    return area_with(&quick, "abc");
}

static struct q2_luks_header
header_of(const struct area *area)
{
    struct q2_luks_header header;
    cr_assert_eq(q2_luks_decode(area->bytes, area->length, &header, NULL), 0);
    return header;
}

/* The slot that the pass phrase opens, or the error. The key has to be the right one. */
static int
unlock(const struct area *area, const char *passphrase)
{
    struct q2_luks_key key = {.length = 12345};
    unsigned slot = 99;
    struct q2_error err = {0};
    int r = q2_luks_unlock(area->bytes, area->length, passphrase, strlen(passphrase), 0, &key,
                           &slot, &err);
    if (r < 0) {
        cr_assert(key.length == 12345 && slot == 99 && err.code == (enum q2_error_code)r);
        return r;
    }
    cr_assert_eq(key.length, area->key.length);
    cr_assert_arr_eq(key.bytes, area->key.bytes, key.length);
    return (int)slot;
}

static unsigned
add(struct area *area, const char *passphrase, int slot)
{
    struct q2_error err = {0};
    unsigned chosen = 99;
    cr_assert_eq(q2_luks_add_key(area->bytes, area->length, &area->key, passphrase,
                                 strlen(passphrase), slot, &quick, &chosen, &err),
                 0, "%s", err.message);
    return chosen;
}

static void
fail_on(void *data, const struct q2_violation *violation)
{
    (void)data;
    cr_assert(false, "%s %s", q2_problem_id(violation->problem), violation->detail);
}

static void
obeys_the_rules(const struct area *area)
{
    struct q2_luks_header header = header_of(area);
    struct q2_sink sink = {.report = fail_on};
    q2_luks_validate(&header, 0, area->length, &sink);
}

/* ---- new areas ---- */

Test(codec_luks, defaults_are_those_of_qemu)
{
    struct area area = area_new();
    struct q2_luks_header header = header_of(&area);
    obeys_the_rules(&area);
    cr_assert_str_eq(header.cipher_name, "aes");
    cr_assert_str_eq(header.cipher_mode, "xts-plain64");
    cr_assert_str_eq(header.hash, "sha256");
    cr_assert_eq(header.key_bytes, 64);
    cr_assert_eq(area.key.length, 64);
    cr_assert_eq(area.length, 2068480);
    cr_assert_eq(header.payload, 2068480 / 512);
    cr_assert_eq(header.iterations, ITERATIONS);
    cr_assert(strlen(header.uuid) == 36 && header.uuid[14] == '4');
    struct q2_luks_slot_info slots[Q2_LUKS_SLOTS];
    cr_assert_eq(q2_luks_slots(area.bytes, area.length, slots, NULL), 0);
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++) {
        cr_assert_eq(slots[i].active, i == 0);
        cr_assert_eq(slots[i].iterations, i == 0 ? ITERATIONS : 0);
        cr_assert_eq(slots[i].stripes, 4000);
        cr_assert_eq(slots[i].material_offset, 4096 + i * 258048);
        cr_assert_eq(slots[i].material_length, 256000);
        cr_assert(slots[i].usable);
    }
    cr_assert_eq(unlock(&area, "abc"), 0);
    free(area.bytes);
}

Test(codec_luks, two_areas_share_no_secret)
{
    struct area a = area_new(), b = area_new();
    struct q2_luks_header x = header_of(&a), y = header_of(&b);
    cr_assert_neq(memcmp(a.key.bytes, b.key.bytes, 64), 0);
    cr_assert_neq(memcmp(a.key.bytes, a.key.bytes + 32, 32), 0);
    cr_assert_neq(memcmp(x.salt, y.salt, sizeof x.salt), 0);
    cr_assert_neq(memcmp(x.slots[0].salt, y.slots[0].salt, sizeof x.salt), 0);
    cr_assert_neq(memcmp(x.slots[0].salt, x.salt, sizeof x.salt), 0);
    cr_assert_str_neq(x.uuid, y.uuid);
    free(a.bytes);
    free(b.bytes);
}

static const struct q2_luks_options kinds[] = {
    {.cipher_mode = "xts-plain64", .key_bytes = 32, .iterations = 3},
    {.cipher_mode = "xts-plain64", .key_bytes = 48, .iterations = 3},
    {.cipher_mode = "xts-plain", .hash = "sha1", .iterations = 3},
    {.cipher_mode = "cbc-essiv:sha256", .hash = "sha1", .iterations = 3},
    {.cipher_mode = "cbc-plain64", .key_bytes = 16, .hash = "sha512", .iterations = 3},
    {.cipher_mode = "cbc-plain", .hash = "ripemd160", .iterations = 3},
    {.cipher_mode = "ecb-plain64", .hash = "md5", .iterations = 3},
    {.cipher_mode = "ctr-plain64", .hash = "sha384", .iterations = 3},
    {.cipher_mode = "xts-plain64", .hash = "sha224", .iterations = 1},
};

Test(codec_luks, all_kinds_open)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct area area = area_with(&kinds[i], "pass phrase");
        obeys_the_rules(&area);
        cr_assert_eq(unlock(&area, "pass phrase"), 0);
        cr_assert_eq(unlock(&area, "pass phrasf"), Q2_ERR_PASSPHRASE);
        cr_assert_eq(add(&area, "other", 7), 7);
        cr_assert_eq(unlock(&area, "other"), 7);
        obeys_the_rules(&area);
        free(area.bytes);
    }
}

static const struct impossible {
    struct q2_luks_options options;
    int code;
    const char *message;
} impossible[] = {
    {{.cipher_name = "serpent"}, Q2_ERR_UNSUPPORTED, "cipher \"serpent\" is not supported"},
    {{.cipher_mode = "lrw-plain"},
     Q2_ERR_UNSUPPORTED,
     "cipher mode \"lrw-plain\" is not supported"},
    {{.hash = "sha9"}, Q2_ERR_UNSUPPORTED, "hash \"sha9\" is not supported"},
    {{.hash = "a name that is as long as the field"},
     Q2_ERR_UNSUPPORTED,
     "the name \"a name that is as long as the field\" does not fit a LUKS header"},
    {{.key_bytes = 16}, Q2_ERR_RANGE, "aes has no keys of 16 bytes in mode xts-plain64"},
    {{.key_bytes = 0xfffffff0},
     Q2_ERR_RANGE,
     "aes has no keys of 4294967280 bytes in mode xts-plain64"},
    {{.cipher_mode = "cbc-plain64", .key_bytes = 24},
     Q2_ERR_UNSUPPORTED,
     "key material of a key of 24 bytes would not fill whole sectors, which QEMU cannot read"},
    {{.iterations = 0xffffffff},
     Q2_ERR_RANGE,
     "4294967295 iterations of PBKDF2 are too many to open the image again"},
    {{.iter_time = 0xffffffff}, Q2_ERR_RANGE, NULL},
};

Test(codec_luks, what_cannot_be_made)
{
    for (size_t i = 0; i < sizeof impossible / sizeof impossible[0]; i++) {
        struct area area = {NULL, 0, {0, {0}}};
        struct q2_error err = {0};
        cr_assert_eq(q2_luks_format(&impossible[i].options, "abc", 3, &area.bytes, &area.length,
                                    &area.key, &err),
                     impossible[i].code, "%s", err.message);
        if (impossible[i].message)
            cr_assert_str_eq(err.message, impossible[i].message);
        cr_assert(!area.bytes && !area.length && !area.key.length);
    }
}

/* The measurement is rough on a busy machine, but 200 ms are neither 1000 iterations nor minutes,
 * and an eighth of them goes to the digest. */
Test(codec_luks, iterations_are_measured)
{
    const struct q2_luks_options options = {.iter_time = 200};
    struct area area = area_with(&options, "abc");
    struct q2_luks_header header = header_of(&area);
    cr_assert_gt(header.slots[0].iterations, Q2_LUKS_MIN_ITERATIONS);
    cr_assert_geq(header.iterations, Q2_LUKS_MIN_ITERATIONS);
    cr_assert_lt(header.iterations, header.slots[0].iterations * 2);
    cr_assert_eq(unlock(&area, "abc"), 0);
    free(area.bytes);

    const struct q2_luks_options shortest = {.iter_time = 1, .hash = "sha512"};
    area = area_with(&shortest, "abc");
    header = header_of(&area);
    cr_assert_eq(header.iterations, Q2_LUKS_MIN_ITERATIONS);
    free(area.bytes);
}

/* ---- pass phrases ---- */

Test(codec_luks, wrong_pass_phrases)
{
    struct area area = area_new();
    struct q2_error err = {0};
    struct q2_luks_key key;
    unsigned slot;
    cr_assert_eq(unlock(&area, ""), Q2_ERR_PASSPHRASE);
    cr_assert_eq(unlock(&area, "ab"), Q2_ERR_PASSPHRASE);
    cr_assert_eq(unlock(&area, "abc\n"), Q2_ERR_PASSPHRASE);
    add(&area, "def", Q2_LUKS_ANY_SLOT);
    cr_assert_eq(q2_luks_unlock(area.bytes, area.length, "x", 1, 0, &key, &slot, &err),
                 Q2_ERR_PASSPHRASE);
    cr_assert_str_eq(err.message, "the pass phrase opens none of the 2 key slots in use");
    free(area.bytes);
}

Test(codec_luks, an_empty_pass_phrase_is_one)
{
    struct area area = area_with(&quick, "");
    struct q2_luks_key key;
    unsigned slot;
    cr_assert_eq(unlock(&area, ""), 0);
    cr_assert_eq(q2_luks_unlock(area.bytes, area.length, NULL, 0, 0, &key, &slot, NULL), 0);
    cr_assert_eq(unlock(&area, "a"), Q2_ERR_PASSPHRASE);
    free(area.bytes);
}

Test(codec_luks, a_slot_for_each_pass_phrase)
{
    static const char *const more[] = {"one", "two", "three", "four", "five", "six", "seven"};
    struct area area = area_new();
    for (unsigned i = 0; i < 7; i++)
        cr_assert_eq(add(&area, more[i], Q2_LUKS_ANY_SLOT), i + 1);
    obeys_the_rules(&area);
    for (int i = 0; i < 7; i++)
        cr_assert_eq(unlock(&area, more[i]), i + 1);
    cr_assert_eq(unlock(&area, "abc"), 0);

    unsigned slot = 99;
    struct q2_error err = {0};
    cr_assert_eq(q2_luks_add_key(area.bytes, area.length, &area.key, "x", 1, Q2_LUKS_ANY_SLOT,
                                 &quick, &slot, &err),
                 Q2_ERR_NOSPACE);
    cr_assert_str_eq(err.message, "all 8 key slots are in use");
    cr_assert_eq(slot, 99);
    free(area.bytes);
}

/* Whatever is refused leaves every byte as it was. */
Test(codec_luks, additions_that_are_refused)
{
    struct area area = area_new();
    Q2_AUTOFREE uint8_t *before = malloc(area.length);
    memcpy(before, area.bytes, area.length);
    struct q2_luks_key other = area.key, shorter = area.key;
    other.bytes[63] ^= 1;
    shorter.length = 32;
    const struct q2_luks_options endless = {.iterations = UINT32_MAX};
    unsigned slot = 99;
    cr_assert_eq(q2_luks_add_key(area.bytes, area.length, &other, "x", 1, -1, &quick, &slot, NULL),
                 Q2_ERR_PASSPHRASE);
    cr_assert_eq(q2_luks_add_key(area.bytes, area.length, &shorter, "x", 1, -1, &quick, &slot,
                                 NULL),
                 Q2_ERR_PASSPHRASE);
    cr_assert_eq(q2_luks_add_key(area.bytes, area.length, &area.key, "x", 1, -1, &endless, &slot,
                                 NULL),
                 Q2_ERR_RANGE);
    cr_assert_eq(q2_luks_add_key(area.bytes, area.length, &area.key, "x", 1, 0, &quick, &slot,
                                 NULL),
                 Q2_ERR_EXISTS);
    cr_assert_eq(q2_luks_add_key(area.bytes, area.length, &area.key, "x", 1, 8, &quick, &slot,
                                 NULL),
                 Q2_ERR_RANGE);
    cr_assert_eq(q2_luks_add_key(area.bytes, area.length, &area.key, "x", 1, -2, &quick, &slot,
                                 NULL),
                 Q2_ERR_RANGE);
    cr_assert_eq(slot, 99);
    cr_assert_eq(memcmp(before, area.bytes, area.length), 0);
    free(area.bytes);
}

/* ---- removal ---- */

Test(codec_luks, a_removed_slot_is_gone)
{
    struct area area = area_new();
    add(&area, "def", 3);
    Q2_AUTOFREE uint8_t *before = malloc(area.length);
    memcpy(before, area.bytes, area.length);
    cr_assert_eq(q2_luks_remove_slot(area.bytes, area.length, 0, false, NULL), 0);
    cr_assert_eq(unlock(&area, "abc"), Q2_ERR_PASSPHRASE);
    cr_assert_eq(unlock(&area, "def"), 3);
    obeys_the_rules(&area);

    /* Nothing of the material is left: with the old header it opens nothing any more, and no long
     * run of bytes is as it was. */
    for (size_t at = 4096; at < 4096 + 256000; at += 32)
        cr_assert_neq(memcmp(area.bytes + at, before + at, 32), 0);
    cr_assert_eq(memcmp(area.bytes + 4096 + 256000, before + 4096 + 256000,
                        area.length - 4096 - 256000),
                 0);
    memcpy(area.bytes, before, Q2_LUKS_HEADER_LENGTH);
    cr_assert_eq(unlock(&area, "abc"), Q2_ERR_PASSPHRASE);
    cr_assert_eq(unlock(&area, "def"), 3);
    free(area.bytes);
}

Test(codec_luks, the_last_slot_stays)
{
    struct area area = area_new();
    struct q2_error err = {0};
    Q2_AUTOFREE uint8_t *before = malloc(area.length);
    memcpy(before, area.bytes, area.length);
    cr_assert_eq(q2_luks_remove_slot(area.bytes, area.length, 0, false, &err), Q2_ERR_RANGE);
    cr_assert_str_eq(err.message,
                     "no key slot would be left, and nothing could decrypt the image again");
    cr_assert_eq(q2_luks_remove_slot(area.bytes, area.length, 1, false, &err), Q2_ERR_NOT_FOUND);
    cr_assert_eq(q2_luks_remove_slot(area.bytes, area.length, 8, true, &err), Q2_ERR_RANGE);
    cr_assert_eq(q2_luks_remove_slot(area.bytes, area.length, UINT32_MAX, true, &err),
                 Q2_ERR_RANGE);
    cr_assert_eq(memcmp(before, area.bytes, area.length), 0);
    cr_assert_eq(q2_luks_remove_slot(area.bytes, area.length, 0, true, NULL), 0);
    cr_assert_eq(unlock(&area, "abc"), Q2_ERR_FORMAT);
    /* With the key in hand, nothing is lost yet. */
    cr_assert_eq(add(&area, "again", -1), 0);
    cr_assert_eq(unlock(&area, "again"), 0);
    free(area.bytes);
}

Test(codec_luks, removal_by_pass_phrase)
{
    struct area area = area_new();
    unsigned slots = 0;
    add(&area, "abc", 5);
    cr_assert_eq(q2_luks_remove_passphrase(area.bytes, area.length, "abc", 3, false, 0, &slots,
                                           NULL),
                 Q2_ERR_RANGE);
    add(&area, "def", 2);
    cr_assert_eq(q2_luks_remove_passphrase(area.bytes, area.length, "x", 1, false, 0, &slots, NULL),
                 Q2_ERR_PASSPHRASE);
    cr_assert_eq(slots, 0);
    cr_assert_eq(q2_luks_remove_passphrase(area.bytes, area.length, "abc", 3, false, 0, &slots,
                                           NULL),
                 0);
    cr_assert_eq(slots, 1 << 5 | 1 << 0);
    cr_assert_eq(unlock(&area, "abc"), Q2_ERR_PASSPHRASE);
    cr_assert_eq(unlock(&area, "def"), 2);
    cr_assert_eq(q2_luks_remove_passphrase(area.bytes, area.length, "def", 3, true, 0, &slots,
                                           NULL),
                 0);
    cr_assert_eq(slots, 1 << 2);
    free(area.bytes);
}

/* ---- hostile headers ---- */

/* Change a 32-bit field of an area whose slot 0 opens with "abc". */
static const struct hostile {
    unsigned at;
    uint32_t value;
    int expected; /* of unlocking */
} hostile[] = {
    {0, 0x4c554b54, Q2_ERR_FORMAT},       /* magic */
    {4, 0xbabe0002, Q2_ERR_UNSUPPORTED},  /* version */
    {8, 0x61657a00, Q2_ERR_UNSUPPORTED},  /* cipher */
    {40, 0x7874732e, Q2_ERR_UNSUPPORTED}, /* mode */
    {72, 0x73686139, Q2_ERR_UNSUPPORTED}, /* hash */
    {104, 0, 0},                          /* payload: not needed */
    {108, 0, Q2_ERR_FORMAT},              /* key_bytes */
    {108, 63, Q2_ERR_FORMAT},
    {108, 128, Q2_ERR_FORMAT},
    {108, UINT32_MAX, Q2_ERR_FORMAT},
    {108, 32, Q2_ERR_PASSPHRASE},
    {164, 0, Q2_ERR_FORMAT}, /* iterations of the digest */
    {164, 1, Q2_ERR_PASSPHRASE},
    {164, UINT32_MAX, Q2_ERR_RANGE},
    {208, 0, Q2_ERR_FORMAT}, /* slot 0: state */
    {208, 0xdead, Q2_ERR_FORMAT},
    {212, 0, Q2_ERR_FORMAT}, /* iterations */
    {212, 1, Q2_ERR_PASSPHRASE},
    {212, UINT32_MAX, Q2_ERR_RANGE},
    {212, 0x7fffffff, Q2_ERR_RANGE},
    {216, 0, Q2_ERR_PASSPHRASE}, /* salt */
    {248, 0, Q2_ERR_FORMAT},     /* material */
    {248, 1, Q2_ERR_FORMAT},
    {248, 9, Q2_ERR_PASSPHRASE},
    {248, UINT32_MAX, Q2_ERR_FORMAT},
    {248, 4040 - 500 + 1, Q2_ERR_FORMAT},
    {252, 0, Q2_ERR_FORMAT}, /* stripes */
    {252, 1, Q2_ERR_PASSPHRASE},
    {252, 3999, Q2_ERR_PASSPHRASE},
    {252, UINT32_MAX, Q2_ERR_FORMAT},
};

Test(codec_luks, claims_of_hostile_headers)
{
    struct area area = area_new();
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        uint32_t sound = q2_load_be32(area.bytes + hostile[i].at);
        q2_store_be32(area.bytes + hostile[i].at, hostile[i].value);
        clock_t start = clock();
        cr_assert_eq(unlock(&area, "abc"), hostile[i].expected, "at %u: 0x%x", hostile[i].at,
                     hostile[i].value);
        cr_assert_lt(clock() - start, 20 * CLOCKS_PER_SEC);
        struct q2_luks_slot_info slots[Q2_LUKS_SLOTS];
        cr_assert_eq(q2_luks_slots(area.bytes, area.length, slots, NULL), 0);
        q2_store_be32(area.bytes + hostile[i].at, sound);
    }
    cr_assert_eq(unlock(&area, "abc"), 0);
    free(area.bytes);
}

/* One bad slot does not lock out the others. */
Test(codec_luks, damaged_slots_are_passed_over)
{
    struct area area = area_new();
    add(&area, "def", 1);
    q2_store_be32(area.bytes + 212, UINT32_MAX);
    cr_assert_eq(unlock(&area, "def"), 1);
    cr_assert_eq(unlock(&area, "abc"), Q2_ERR_RANGE);
    q2_store_be32(area.bytes + 212, 0);
    cr_assert_eq(unlock(&area, "def"), 1);
    cr_assert_eq(unlock(&area, "abc"), Q2_ERR_PASSPHRASE);
    free(area.bytes);
}

/* A try costs two digests per iteration of a key of 64 bytes, and one per iteration of the digest.
 */
Test(codec_luks, the_work_limit_is_for_all_slots)
{
    struct area area = area_new();
    struct q2_luks_key key;
    struct q2_error err = {0};
    unsigned slot;
    add(&area, "def", 1);
    cr_assert_eq(q2_luks_unlock(area.bytes, area.length, "abc", 3, 3 * ITERATIONS, &key, &slot,
                                NULL),
                 0);
    cr_assert_eq(q2_luks_unlock(area.bytes, area.length, "abc", 3, 3 * ITERATIONS - 1, &key, &slot,
                                NULL),
                 Q2_ERR_RANGE);
    cr_assert_eq(q2_luks_unlock(area.bytes, area.length, "def", 3, 6 * ITERATIONS, &key, &slot,
                                NULL),
                 0);
    cr_assert_eq(q2_luks_unlock(area.bytes, area.length, "def", 3, 6 * ITERATIONS - 1, &key, &slot,
                                &err),
                 Q2_ERR_RANGE);
    cr_assert_str_eq(
        err.message,
        "LUKS header: of 2 key slots in use, 1 were not tried: one would take 60 "
        "computations of the hash, and the limit is 119 for all; the pass phrase opens "
        "no other");
    free(area.bytes);
}

Test(codec_luks, short_areas)
{
    struct area area = area_new();
    for (size_t length = 0; length < 4096 + 256000; length += length < 592 ? 37 : 9999) {
        Q2_AUTOFREE uint8_t *cut = malloc(length + 1);
        memcpy(cut + 1, area.bytes, length);
        struct q2_luks_key key;
        unsigned slot;
        cr_assert_eq(q2_luks_unlock(cut + 1, length, "abc", 3, 0, &key, &slot, NULL),
                     length < 592 ? Q2_ERR_EOF : Q2_ERR_FORMAT);
        cr_assert_lt(q2_luks_add_key(cut + 1, length, &area.key, "abc", 3, 7, &quick, &slot, NULL),
                     0);
        cr_assert_lt(q2_luks_remove_slot(cut + 1, length, 0, true, NULL), 0);
    }
    area.length = 4096 + 256000;
    cr_assert_eq(unlock(&area, "abc"), 0);
    free(area.bytes);
}

/* Writing where another slot's material is would destroy that slot. */
Test(codec_luks, nothing_is_written_over_other_slots)
{
    struct area area = area_new();
    unsigned slot;
    q2_store_be32(area.bytes + 248 + 48, 8 + 499);
    cr_assert_eq(q2_luks_add_key(area.bytes, area.length, &area.key, "x", 1, 1, &quick, &slot,
                                 NULL),
                 Q2_ERR_FORMAT);
    cr_assert_eq(q2_luks_remove_slot(area.bytes, area.length, 1, true, NULL), Q2_ERR_FORMAT);
    cr_assert_eq(unlock(&area, "abc"), 0);
    q2_store_be32(area.bytes + 248 + 48, 8 + 500);
    q2_store_be32(area.bytes + 252 + 48, 3999);
    cr_assert_eq(q2_luks_add_key(area.bytes, area.length, &area.key, "x", 1, 1, &quick, &slot,
                                 NULL),
                 Q2_ERR_FORMAT);
    q2_store_be32(area.bytes + 252 + 48, 4000);
    cr_assert_eq(q2_luks_add_key(area.bytes, area.length, &area.key, "x", 1, 1, &quick, &slot,
                                 NULL),
                 0);
    cr_assert_eq(unlock(&area, "abc"), 0);
    cr_assert_eq(unlock(&area, "x"), 1);
    free(area.bytes);
}

/* ---- the cipher ---- */

Test(codec_luks, the_cipher_is_that_of_the_header)
{
    const struct q2_luks_options options = {.cipher_mode = "cbc-essiv:sha256", .iterations = 1};
    struct area area = area_with(&options, "abc");
    uint8_t a[512] = "text", b[512] = "text";
    struct q2_cipher *by_header = NULL, *by_name = NULL;
    cr_assert_eq(q2_luks_cipher(area.bytes, area.length, &area.key, &by_header, NULL), 0);
    cr_assert_eq(q2_cipher_new("aes", "cbc-essiv:sha256", area.key.bytes, 32, &by_name, NULL), 0);
    cr_assert_eq(q2_cipher_encrypt(by_header, 77, a, sizeof a, NULL), 0);
    cr_assert_eq(q2_cipher_encrypt(by_name, 77, b, sizeof b, NULL), 0);
    cr_assert_arr_eq(a, b, sizeof a);
    q2_cipher_free(by_header);
    q2_cipher_free(by_name);
    area.key.length = 64;
    cr_assert_eq(q2_luks_cipher(area.bytes, area.length, &area.key, &by_header, NULL),
                 Q2_ERR_PASSPHRASE);
    q2_luks_key_wipe(&area.key);
    cr_assert_eq(area.key.length, 0);
    q2_luks_key_wipe(NULL);
    free(area.bytes);
}
