/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* COPIED flags: flipped wherever the active map has them, they come out as they were, and nothing
 * else changes. */

#include "tests/unit/repair_counts.h"

static const char *const images[] = {
    "cluster-size 512\nsize 256K\nwrite 0 128K random\n",
    "version 2\ncluster-size 512\nsize 256K\nwrite 0 128K random\n",
    "cluster-size 4K\nsize 4M\nwrite 0 64K random\nsnapshot s\nwrite 0 32K random\n",
    "cluster-size 64K\nsize 16M\nwrite 0 512K random\nzero 0 128K allocated\n",
    "cluster-size 16K\nextended-l2\nsize 4M\nwrite 0 256K random\n",
    "cluster-size 2M\nsize 16M\nwrite 0 4M random\n",
    "cluster-size 4K\nrefcount-bits 1\nsize 4M\nwrite 0 64K random\n",
};

static const char *const damages[] = {
    "l1[0] ^= 0x8000000000000000\n",
    "l2[0] ^= 0x8000000000000000\n",
    "l2[0] ^= 0x8000000000000000\nl2[1] ^= 0x8000000000000000\nl1[0] ^= 0x8000000000000000\n",
};

static void
expect_mended(const char *image, const char *damage)
{
    char text[400];
    snprintf(text, sizeof text, "%s%s", image, damage);
    struct q2_file *healthy = build_image(image), *file = build_image(text);
    struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
    struct content before = content_of(healthy), after = content_of(q2_repair_file(repair));
    cr_expect(q2_repair_needed(repair), "%s", text);
    cr_expect_eq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_CLEAN, "%s", text);
    cr_expect(before.size == after.size && memcmp(before.bytes, after.bytes, before.size) == 0,
              "%s is not as it was", text);
    cr_expect(is_settled(repair, false), "%s", text);
    cr_expect(!applies(repair, Q2_ACTION_MEND_REFCOUNTS));
    free(before.bytes);
    free(after.bytes);
    q2_repair_free(repair);
    q2_file_close(file);
    q2_file_close(healthy);
}

Test(repair_copied, flips)
{
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++)
        for (size_t d = 0; d < sizeof damages / sizeof damages[0]; d++)
            expect_mended(images[i], damages[d]);
}

/* The clusters of a data file are not counted, and each is one entry's alone. Its first is told
 * from none by the flag. */
Test(repair_copied, data_files)
{
    static const char *const disks[] = {
        "cluster-size 512\ndata-file data\nsize 256K\nwrite 0 128K random\n",
        "cluster-size 16K\nextended-l2\ndata-file data\nsize 4M\nwrite 0 256K random\n",
    };
    for (size_t i = 0; i < sizeof disks / sizeof disks[0]; i++) {
        expect_mended(disks[i], "l2[1] ^= 0x8000000000000000\n");
        expect_mended(disks[i], "l1[0] ^= 0x8000000000000000\nl2[9] ^= 0x8000000000000000\n");
    }
}

/* More faults than a check lists. */
Test(repair_copied, many)
{
    struct q2_file *file =
        build_image("cluster-size 512\nrefcount-bits 8\nsize 4M\nwrite 0 4M random\n"
                    "snapshot s\nwrite 0 4M random\nheader.nb_snapshots = 0\n"
                    "header.snapshots_offset = 0\n");
    /* Every refcount becomes 1, so that flags alone are wrong where they were clear. */
    struct q2_repair *repair = plan(file, Q2_LEVEL_CERTAIN, false);
    q2_repair_free(repair);
    q2_file_close(file);

    struct q2_file *flags = build_image("cluster-size 512\nsize 2M\nwrite 0 2M random\n");
    uint64_t size;
    cr_assert_eq(q2_file_size(flags, &size, NULL), 0);
    struct q2_check *check;
    cr_assert_eq(q2_check_run(flags, &(struct q2_check_options){.threads = 1}, &check, NULL), 0);
    const struct q2_map *map = &check->maps[0];
    struct content healthy = content_of(flags);
    uint64_t flipped = 0;
    for (uint64_t slot = 0; slot < map->l1_size; slot++) {
        uint8_t raw[8];
        cr_assert_eq(q2_file_read(flags, map->l1_offset + slot * 8, raw, 8, NULL), 0);
        uint64_t table = (uint64_t)raw[5] << 16 | (uint64_t)raw[6] << 8 | raw[7];
        for (uint64_t i = 0; table && i < 64; i++) {
            uint8_t byte;
            cr_assert_eq(q2_file_read(flags, table + i * 8, &byte, 1, NULL), 0);
            byte &= 0x7f;
            cr_assert_eq(q2_file_write(flags, table + i * 8, &byte, 1, NULL), 0);
            flipped++;
        }
    }
    q2_check_free(check);
    cr_assert_eq(flipped, 4096);
    repair = plan(flags, Q2_LEVEL_CERTAIN, false);
    struct content after = content_of(q2_repair_file(repair));
    cr_expect_eq(q2_check_exit(q2_repair_after(repair)), Q2_EXIT_CLEAN);
    cr_expect(after.size == healthy.size && memcmp(after.bytes, healthy.bytes, healthy.size) == 0);
    free(after.bytes);
    free(healthy.bytes);
    q2_repair_free(repair);
    q2_file_close(flags);
}

/* A damaged entry is none whose flag means anything, and what cannot be read stays as it is. */
Test(repair_copied, damaged_entries_are_left_alone)
{
    static const char text[] = "cluster-size 4K\nsize 4M\nwrite 0 64K random\n"
                               "l2[0] ^= 0x8000000000000000\nl2[1] |= 0x0700000000000000\n";
    struct q2_file *file = build_image(text);
    static const struct q2_scene_options options = {.threads = 1};
    struct q2_scene *scene = NULL;
    cr_assert_eq(q2_scene_open(file, &options, Q2_LEVEL_CERTAIN, 0, &scene, NULL), 0);
    cr_assert_eq(q2_fix_copied(scene, NULL), 0);
    struct content before = content_of(file), after = content_of(scene->file);
    uint64_t differ = 0;
    for (uint64_t i = 0; i < before.size; i++)
        differ += before.bytes[i] != after.bytes[i];
    cr_expect_eq(differ, 1);
    free(before.bytes);
    free(after.bytes);
    q2_scene_close(scene);
    q2_file_close(file);
}
