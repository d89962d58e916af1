/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The LUKS header: what locates it, and its fields. */

#include "core/format/luks.h"
#include "tests/unit/repair_header.h"

#define IMAGE "encryption luks\ncluster-size 16K\nsize 1M\nwrite 0 64K random\n"

enum { NEVER = 9 };

static const struct damage {
    const char *name;
    const char *damage;
    unsigned level; /* enum q2_repair_level from which on it is as it was; NEVER */
} damages[] = {
    {"extension gone", "extension[0].type = 0\nextension[0].length = 0\n", Q2_LEVEL_CERTAIN},
    {"extension unknown", "extension[0].type = 0x12345678\n", Q2_LEVEL_CERTAIN},
    {"extension length", "extension[0].length = 8\n", Q2_LEVEL_CERTAIN},
    {"offset", "crypto.offset = 0x1234567890000\n", Q2_LEVEL_CERTAIN},
    {"offset of data", "crypto.offset = map(0).offset\n", Q2_LEVEL_CERTAIN},
    {"offset unaligned", "crypto.offset += 512\n", Q2_LEVEL_CERTAIN},
    {"length", "crypto.length = 1 << 40\n", Q2_LEVEL_CERTAIN},
    {"length short", "crypto.length = 1\n", Q2_LEVEL_CERTAIN},
    {"magic", "luks.magic = \"\\0\\0\\0\\0\\0\\0\"\n", Q2_LEVEL_CERTAIN},
    {"version", "luks.version = 0x1234\n", Q2_LEVEL_CERTAIN},
    {"cipher", "luks.cipher_name[1] = 0xff\n", Q2_LEVEL_CERTAIN},
    {"mode", "luks.cipher_mode[3] = 0\n", Q2_LEVEL_CERTAIN},
    {"hash", "luks.hash[2] = 0x20\n", Q2_LEVEL_CERTAIN},
    {"key bytes", "luks.key_bytes = 0xffff\n", Q2_LEVEL_CERTAIN},
    {"payload", "luks.payload = 8\n", Q2_LEVEL_CERTAIN},
    {"state", "luks.slot[3].state ^= 0x10000\n", Q2_LEVEL_CERTAIN},
    {"material", "luks.slot[2].material = 1\n", Q2_LEVEL_CERTAIN},
    {"two slots", "luks.slot[2].material = 1\nluks.slot[5].material = 1M\n", Q2_LEVEL_CERTAIN},
    {"stripes", "luks.slot[7].stripes = 0\n", Q2_LEVEL_CERTAIN},
    {"stripes and version", "luks.slot[7].stripes = 0\nluks.version = 3\n", Q2_LEVEL_CERTAIN},
    /* Keys follow from these. */
    {"iterations", "luks.iterations = 0\n", NEVER},
    {"iterations of a slot", "luks.slot[0].iterations = 0\n", NEVER},
    {"no slot", "luks.slot[0].state = 0xdead\n", NEVER},
};

static void
read_header(struct q2_file *file, const struct q2_check *check, uint8_t *bytes)
{
    cr_assert_eq(q2_file_read(file, check->extensions.crypto_offset, bytes, Q2_LUKS_HEADER_LENGTH,
                              NULL),
                 0);
}

/* Mend and compare with the healthy header. */
static void
expect_mended(const struct damage *damage)
{
    struct q2_error err = {0};
    struct q2_file *healthy = build(IMAGE, ""), *file = build(IMAGE, damage->damage);
    struct q2_scene *before = NULL, *scene = NULL;
    uint8_t want[Q2_LUKS_HEADER_LENGTH], got[Q2_LUKS_HEADER_LENGTH];
    cr_assert_eq(q2_scene_open(healthy, &quiet, Q2_LEVEL_CERTAIN, 0, &before, &err), 0);
    cr_assert_eq(q2_scene_open(file, &quiet, Q2_LEVEL_CERTAIN, 0, &scene, &err), 0);
    cr_assert_eq(q2_fix_header(scene, &err), 0, "%s", err.message);
    cr_assert_eq(q2_scene_recheck(scene, &err), 0);
    cr_expect_not(scene->stop, "%s: the header's fix stops", damage->name);
    cr_assert_eq(q2_fix_crypto(scene, &err), 0, "%s", err.message);
    cr_assert_eq(q2_scene_recheck(scene, &err), 0);
    cr_expect_eq(q2_check_exit(scene->check), Q2_EXIT_CLEAN, "%s: not clean", damage->name);
    cr_assert(scene->check->extensions.has_crypto, "%s: no extension", damage->name);
    cr_expect_eq(scene->check->extensions.crypto_offset, before->check->extensions.crypto_offset);
    cr_expect_eq(scene->check->extensions.crypto_length, before->check->extensions.crypto_length,
                 "%s: length %llu", damage->name,
                 (unsigned long long)scene->check->extensions.crypto_length);
    read_header(before->file, before->check, want);
    read_header(scene->file, scene->check, got);
    cr_expect_eq(memcmp(want, got, sizeof want), 0, "%s: another header", damage->name);
    q2_scene_close(before);
    q2_scene_close(scene);
    q2_file_close(healthy);
    q2_file_close(file);
}

Test(repair_crypto, known_damage)
{
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        if (damages[i].level != NEVER) {
            expect_mended(&damages[i]);
            continue;
        }
        struct outcome out;
        struct q2_file *file = build(IMAGE, damages[i].damage);
        mend_image(file, Q2_LEVEL_GUESS, &out);
        cr_expect_not(out.applied, "%s: keys are invented", damages[i].name);
        q2_file_close(file);
    }
}

/* No flip of the header's own bits is mended into something else. */
Test(repair_crypto, flips)
{
    struct q2_error err = {0};
    struct q2_file *file = build(IMAGE, "");
    struct q2_check *check = NULL;
    uint8_t want[Q2_LUKS_HEADER_LENGTH], got[Q2_LUKS_HEADER_LENGTH];
    unsigned mended = 0;
    const struct q2_check_options options = {.threads = 1};
    cr_assert_eq(q2_check_run(file, &options, &check, &err), 0);
    uint64_t offset = check->extensions.crypto_offset;
    read_header(file, check, want);
    q2_check_free(check);
    for (unsigned bit = 0; bit < Q2_LUKS_HEADER_LENGTH * 8; bit += 5) {
        struct q2_scene *scene = NULL;
        uint8_t byte = want[bit / 8] ^ (uint8_t)(1U << bit % 8);
        cr_assert_eq(q2_file_write(file, offset + bit / 8, &byte, 1, NULL), 0);
        cr_assert_eq(q2_scene_open(file, &quiet, Q2_LEVEL_CERTAIN, 0, &scene, &err), 0);
        cr_assert_eq(q2_fix_crypto(scene, &err), 0);
        if (scene->edited) {
            read_header(scene->file, scene->check, got);
            cr_expect_eq(memcmp(want, got, sizeof want), 0, "bit %u", bit);
            mended++;
        }
        q2_scene_close(scene);
        cr_assert_eq(q2_file_write(file, offset + bit / 8, &want[bit / 8], 1, NULL), 0);
    }
    cr_expect_gt(mended, 150, "%u mended", mended);
    q2_file_close(file);
}
