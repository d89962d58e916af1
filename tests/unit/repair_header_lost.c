/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Images whose beginning is gone: a sector, the first cluster, more than that. What is left has to
 * tell what the header was, and nothing may be done that it does not tell. */

#include "repair/header_scan.h"
#include "tests/unit/repair_header.h"

#define SNAPSHOTS                                                                              \
    "size 64M\nwrite 0 1M random\nsnapshot a\nwrite 64K 128K 0x22\nsnapshot b\nwrite 60M 64K " \
    "0x33\n"

struct loss {
    const char *name;
    const char *image;
    uint64_t length;               /* bytes that are gone */
    enum q2_repair_level level;    /* at which it comes back; a guess may have another size */
    enum q2_confidence confidence; /* of the action */
    bool same;                     /* exactly as it was */
};

static void
overwrite(struct q2_file *file, uint64_t length, bool garbage)
{
    uint8_t *bytes = calloc(1, length);
    unsigned state = 12345;
    for (uint64_t i = 0; i < length && garbage; i++)
        bytes[i] = (uint8_t)((state = state * 1103515245 + 12345) >> 16);
    cr_assert_eq(q2_file_write(file, 0, bytes, length, NULL), 0);
    free(bytes);
}

/* ---- images with a partition table ---- */

static void
store_le64(uint8_t *to, uint64_t value)
{
    for (unsigned i = 0; i < 8; i++)
        to[i] = (uint8_t)(value >> i * 8);
}

/* The first two sectors of a disk with a GPT, as text for a recipe. */
static char *
gpt_text(uint64_t disk_size)
{
    uint8_t sectors[1024] = {0};
    char *text = malloc(sizeof sectors * 4 + 1);
    sectors[446 + 4] = 0xee;
    sectors[446 + 8] = 1;
    sectors[510] = 0x55;
    sectors[511] = 0xaa;
    memcpy(sectors + 512, "EFI PART", 8);
    store_le64(sectors + 512 + 24, 1);
    store_le64(sectors + 512 + 32, disk_size / 512 - 1);
    store_le64(sectors + 512 + 48, disk_size / 512 - 34);
    for (size_t i = 0; i < sizeof sectors; i++)
        snprintf(text + i * 4, 5, "\\x%02x", sectors[i]);
    return text;
}

static char *
partitioned(const char *before, uint64_t disk_size, const char *after)
{
    char *sectors = gpt_text(disk_size), *image = NULL;
    int length = asprintf(&image, "%ssize %llu\nwrite 0 1K \"%s\"\n%s", before,
                          (unsigned long long)disk_size, sectors, after);
    cr_assert_geq(length, 0);
    free(sectors);
    return image;
}

/* ---- what comes back ---- */

static void
expect_back(const struct loss *loss)
{
    for (unsigned garbage = 0; garbage <= 1; garbage++) {
        struct q2_file *file = build(loss->image, "");
        struct outcome out;
        uint64_t want, hash;
        cr_assert(signature(file, &want), "%s", loss->name);
        overwrite(file, loss->length, garbage);
        if (loss->level > Q2_LEVEL_CERTAIN) {
            mend_image(file, Q2_LEVEL_CERTAIN, &out);
            cr_expect_not(out.applied, "%s: at too low a level", loss->name);
            cr_expect(out.stopped, "%s: others may go on", loss->name);
            cr_expect_not(signature(file, &hash), "%s", loss->name);
        }
        mend_image(file, loss->level, &out);
        cr_expect(out.opens, "%s: does not open", loss->name);
        cr_expect_eq(out.hash == want, loss->same, "%s: right %d", loss->name, out.hash == want);
        cr_expect_eq(out.actions[Q2_ACTION_REBUILD_HEADER], (unsigned)loss->confidence + 1,
                     "%s: confidence %u", loss->name, out.actions[Q2_ACTION_REBUILD_HEADER]);
        q2_file_close(file);
    }
}

Test(repair_header_lost, first_cluster)
{
    static const struct loss losses[] = {
        {"snapshots", SNAPSHOTS, 64 << 10, Q2_LEVEL_LIKELY, Q2_LIKELY, true},
        {"a sector", SNAPSHOTS, 512, Q2_LEVEL_LIKELY, Q2_LIKELY, true},
        {"version 2", "version 2\nsize 16M\nwrite 0 1M random\nsnapshot s\nwrite 0 64K 0x11\n", 512,
         Q2_LEVEL_LIKELY, Q2_LIKELY, true},
        {"small clusters",
         "cluster-size 512\nsize 1M\nwrite 0 100K random\nsnapshot s\nwrite 10K 10K 0x33\n", 512,
         Q2_LEVEL_LIKELY, Q2_LIKELY, true},
        {"refcounts of 64 bits",
         "refcount-bits 64\ncluster-size 4K\nsize 4M\nwrite 0 1M random\nsnapshot s\nwrite 0 64K "
         "0x11\n",
         4096, Q2_LEVEL_LIKELY, Q2_LIKELY, true},
        {"refcounts of 2 bits",
         "refcount-bits 2\ncluster-size 4K\nsize 4M\nwrite 0 1M random\nsnapshot s\nwrite 0 64K "
         "0x11\n",
         4096, Q2_LEVEL_LIKELY, Q2_LIKELY, true},
        {"zstd",
         "compression zstd\ncluster-size 16K\nsize 8M\nwrite-compressed 0 512K text\nsnapshot s\n",
         512, Q2_LEVEL_LIKELY, Q2_LIKELY, true},
        {"extended L2",
         "extended-l2\ncluster-size 16K\nsize 8M\nwrite 0 100K random\nsnapshot s\nwrite 2K 4K "
         "0x11\n",
         16 << 10, Q2_LEVEL_LIKELY, Q2_LIKELY, true},
        {"LUKS",
         "encryption luks\ncluster-size 16K\nsize 1M\nwrite 0 64K random\nsnapshot s\nwrite 0 16K "
         "random\n",
         512, Q2_LEVEL_LIKELY, Q2_LIKELY, true},
        /* Nothing tells the size: that which the tables map. */
        {"size unknown", "size 16M\nwrite 0 1M random\n", 512, Q2_LEVEL_GUESS, Q2_GUESS, false},
        {"nothing written", "size 16M\n", 512, Q2_LEVEL_GUESS, Q2_GUESS, false},
        {"as large as the table", "cluster-size 4K\nsize 2M\nwrite 0 1M random\n", 4096,
         Q2_LEVEL_GUESS, Q2_GUESS, true},
    };
    for (size_t i = 0; i < sizeof losses / sizeof losses[0]; i++)
        expect_back(&losses[i]);
}

/* Where the guest says how large its disk is, and nothing of it could be in a backing file, nothing
 * else can have been in the header. */
Test(repair_header_lost, partition_table)
{
    char *full = partitioned("cluster-size 4K\n", 3 << 20, "preallocate\nwrite 1M 64K random\n");
    char *sparse = partitioned("", 48 << 20, "write 40M 1M random\n");
    char *packed = partitioned("compression zstd\n", 8 << 20, "write-compressed 1M 1M text\n");
    expect_back(&(struct loss){"full", full, 4096, Q2_LEVEL_CERTAIN, Q2_CERTAIN, true});
    expect_back(&(struct loss){"sparse", sparse, 512, Q2_LEVEL_LIKELY, Q2_LIKELY, true});
    expect_back(&(struct loss){"packed", packed, 512, Q2_LEVEL_LIKELY, Q2_LIKELY, true});
    free(full);
    free(sparse);
    free(packed);
}

/* More than the header is gone. Whatever comes of it is a guess, and nothing is done below. */
Test(repair_header_lost, first_mib)
{
    static const char *const images[] = {
        SNAPSHOTS,
        "size 4G\nwrite 0 1M random\nwrite 1G 1M random\nwrite 3G 2M random\n",
        "cluster-size 4K\nsize 16M\nwrite 0 2M random\nwrite 8M 1M 0x11\n",
    };
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++) {
        struct q2_file *file = build(images[i], "");
        struct outcome out;
        overwrite(file, 1 << 20, i % 2);
        mend_image(file, Q2_LEVEL_LIKELY, &out);
        cr_expect_not(out.applied, "%s", images[i]);
        cr_expect(out.stopped, "%s", images[i]);
        mend_image(file, Q2_LEVEL_GUESS, &out);
        cr_expect(out.applied, "%s", images[i]);
        q2_file_close(file);
    }
}

/* What is no image does not become one. */
Test(repair_header_lost, other_files)
{
    struct q2_file *file = NULL;
    struct outcome out;
    cr_assert_eq(q2_file_new_memory("other", &file, NULL), 0);
    for (unsigned turn = 0; turn < 3; turn++) {
        cr_assert_eq(q2_file_truncate(file, 3 << 20, NULL), 0);
        if (turn)
            overwrite(file, 2 << 20, turn == 1);
        mend_image(file, Q2_LEVEL_GUESS, &out);
        cr_expect_not(out.applied, "turn %u", turn);
        cr_expect_not(out.opens, "turn %u", turn);
        cr_assert_eq(q2_file_truncate(file, turn ? 100 : 0, NULL), 0);
        mend_image(file, Q2_LEVEL_GUESS, &out);
        cr_expect_not(out.applied, "turn %u", turn);
    }
    q2_file_close(file);
}

/* ---- the scan ---- */

Test(repair_header_lost, scan_finds_tables)
{
    struct q2_error err = {0};
    struct q2_scene *scene = NULL;
    struct q2_sightings sightings;
    struct q2_file *file = build(SNAPSHOTS, "");
    cr_assert_eq(q2_scene_open(file, &quiet, Q2_LEVEL_GUESS, 0, &scene, &err), 0);
    cr_assert_eq(q2_header_scan(scene, &sightings, &err), 0);
    const struct q2_check *check = scene->check;
    for (uint64_t i = 0; i < check->map_count; i++)
        cr_expect(q2_sightings_at(&sightings, check->maps[i].l1_offset, 16) & Q2_PLACE_TABLE);
    cr_expect(q2_sightings_at(&sightings, check->header.refcount_table_offset, 16));
    cr_expect_eq(sightings.snapshot_count, 1);
    cr_expect_eq(sightings.snapshots[0], check->header.snapshots_offset);
    cr_expect_gt(sightings.strides[0][16], 10);
    cr_expect_eq(sightings.disk_size, 0);
    /* Guest data is none. */
    cr_expect_leq(sightings.count, 12);
    q2_sightings_destroy(&sightings);
    q2_scene_close(scene);
    q2_file_close(file);
}
