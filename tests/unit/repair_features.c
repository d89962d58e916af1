/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Feature bits: each goes when what it says is not true any more, and not before. */

#include "tests/unit/repair_counts.h"

#define SOUND "cluster-size 4K\nsize 1M\nwrite 0 64K random\n"

static const struct {
    const char *lines;
    uint64_t incompatible, autoclear; /* that the result has */
} cases[] = {
    {SOUND "header.incompatible_features |= 1\n", 0, 0},
    {SOUND "header.incompatible_features |= 2\n", 0, 0},
    {SOUND "header.incompatible_features |= 3\n", 0, 0},
    {SOUND "header.incompatible_features |= 3\nrefcount(0) = 0\n", 0, 0},
    {SOUND "header.autoclear_features |= 2\n", 0, 0},
    {SOUND "header.autoclear_features |= 2\nheader.incompatible_features |= 2\n", 0, 0},
    /* Unknown bits that clear themselves: with the first write, and not by themselves. */
    {SOUND "header.autoclear_features |= 0x80\n", 0, 0x80},
    {SOUND "header.autoclear_features |= 0x80\nrefcount(0) = 0\n", 0, 0},
    {SOUND "bitmap b dirty 0 4K\nheader.autoclear_features |= 0x80\nrefcount(0) = 0\n", 0, 1},
    /* Damage that no repair explains: a cluster that two guest ranges have, and nothing else. */
    {SOUND "header.incompatible_features |= 2\nl2[0].compressed = 1\n", 2, 0},
};

static uint64_t
field(struct q2_file *file, uint64_t offset)
{
    uint8_t bytes[8];
    uint64_t value = 0;
    cr_assert_eq(q2_file_read(file, offset, bytes, 8, NULL), 0);
    for (unsigned i = 0; i < 8; i++)
        value = value << 8 | bytes[i];
    return value;
}

Test(repair_features, bits)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct q2_file *file = build_image(cases[i].lines);
        struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
        bool clean = q2_check_exit(q2_repair_after(repair)) == Q2_EXIT_CLEAN;
        uint64_t expected = clean ? 0 : cases[i].incompatible;
        cr_expect_eq(field(q2_repair_file(repair), 72), expected, "%s", cases[i].lines);
        cr_expect_eq(field(q2_repair_file(repair), 88), cases[i].autoclear, "%s", cases[i].lines);
        cr_expect(clean || cases[i].incompatible, "%s is not clean", cases[i].lines);
        q2_repair_free(repair);
        q2_file_close(file);
    }
}

/* The corrupt bit stays for as long as anything is corrupt, the dirty bit for as long as refcounts
 * may be wrong; the fix by itself. */
Test(repair_features, bits_stay_while_they_are_true)
{
    static const struct {
        const char *lines;
        uint64_t left;
    } damaged[] = {
        {SOUND "header.incompatible_features |= 3\nl2[0].offset = 1T\n", 2},
        {SOUND "header.incompatible_features |= 3\nrefcount(0) = 0\n", 3},
        {SOUND "header.incompatible_features |= 3\nheader.l1_table_offset = 1T\n", 3},
        {SOUND "leak 1\nheader.incompatible_features |= 3\n", 0},
    };
    static const struct q2_scene_options options = {.threads = 1};
    for (size_t i = 0; i < sizeof damaged / sizeof damaged[0]; i++) {
        struct q2_file *file = build_image(damaged[i].lines);
        struct q2_scene *scene = NULL;
        cr_assert_eq(q2_scene_open(file, &options, Q2_LEVEL_CERTAIN, 0, &scene, NULL), 0);
        cr_assert_eq(q2_fix_features(scene, NULL), 0);
        cr_expect_eq(field(scene->file, 72), damaged[i].left, "%s: %x", damaged[i].lines,
                     (unsigned)field(scene->file, 72));
        q2_scene_close(scene);
        q2_file_close(file);
    }
}

/* A data file that the image names may be what it has lost. */
Test(repair_features, raw_data_bit_with_a_name)
{
    struct q2_file *file =
        build_image("extension 0x44415441 \"data.raw\"\n" SOUND "header.autoclear_features |= 2\n");
    static const struct q2_scene_options options = {.threads = 1};
    struct q2_scene *scene = NULL;
    cr_assert_eq(q2_scene_open(file, &options, Q2_LEVEL_LIKELY, 0, &scene, NULL), 0);
    cr_assert_eq(q2_fix_features(scene, NULL), 0);
    cr_expect_eq(field(scene->file, 88), 2);
    cr_assert_eq(scene->plan.count, 1);
    cr_expect(!scene->plan.actions[0].applied);
    q2_scene_close(scene);
    q2_file_close(file);
}

Test(repair_features, version_2_has_none)
{
    struct q2_file *file = build_image("version 2\ncluster-size 4K\nsize 1M\nwrite 0 64K random\n"
                                       "u64[72] = 3\n");
    static const struct q2_scene_options options = {.threads = 1};
    struct q2_scene *scene = NULL;
    cr_assert_eq(q2_scene_open(file, &options, Q2_LEVEL_GUESS, 0, &scene, NULL), 0);
    cr_assert_eq(q2_fix_features(scene, NULL), 0);
    cr_expect_eq(scene->plan.count, 0);
    cr_expect(!scene->edited);
    q2_scene_close(scene);
    q2_file_close(file);
}
