/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Damaged fields of the header and damaged header extensions. The first test flips bits one by one
 * and asks only that what is mended is right; the second knows what should come of it. */

#include "tests/unit/repair_header.h"
#include "core/io/overlay.h"
#include "repair/header_area.h"

#define V3                                                                                      \
    "cluster-size 4K\nsize 4M\nfeature-table\nwrite 0 64K random\nwrite 3M 20K 0x11\nsnapshot " \
    "a\nwrite 8K 8K 0x22\n"
#define V2        "version 2\ncluster-size 4K\nsize 4M\nwrite 0 64K random\nsnapshot a\nwrite 8K 8K 0x22\n"
#define SECTORS   "cluster-size 512\nsize 256K\nwrite 0 20K random\nwrite 200K 4K 0x33\n"
#define ZSTD      "cluster-size 4K\nsize 4M\ncompression zstd\nwrite-compressed 0 64K text\n"
#define EXTENDED  "cluster-size 16K\nextended-l2\nsize 8M\nwrite 0 100K random\nwrite 1M 3K 0x11\n"
#define ENCRYPTED "encryption luks\ncluster-size 16K\nsize 1M\nwrite 0 64K random\n"
#define BACKED                                                                               \
    "cluster-size 4K\nsize 1M\nfile \"base.raw\" 1M 0x42\nbacking \"base.raw\" format raw\n" \
    "write 0 8K 0x41\n"
#define PLAIN     "cluster-size 4K\nsize 1M\nwrite 0 8K 0x41\n"
#define SNAPSHOT  "cluster-size 4K\nsize 1M\nwrite 0 8K 0x41\nsnapshot monday\nwrite 0 4K 0x42\n"
#define DATA_FILE "cluster-size 4K\nsize 1M\ndata-file \"disk.raw\"\n"

/* ---- every bit ---- */

struct flips {
    unsigned total;
    unsigned damaged;   /* are refused, or not clean */
    unsigned recovered; /* of those, exactly as they were */
};

static void
flip(struct q2_file *file, unsigned bit)
{
    uint8_t byte;
    cr_assert_eq(q2_file_read(file, bit / 8, &byte, 1, NULL), 0);
    byte ^= (uint8_t)(1U << bit % 8);
    cr_assert_eq(q2_file_write(file, bit / 8, &byte, 1, NULL), 0);
}

static bool
is_damaged(struct q2_file *file, uint64_t want)
{
    uint64_t hash;
    struct q2_check *check = NULL;
    const struct q2_check_options options = {.threads = 1};
    if (!signature(file, &hash))
        return true;
    cr_assert_eq(q2_check_run(file, &options, &check, NULL), 0);
    bool clean = q2_check_exit(check) == Q2_EXIT_CLEAN;
    q2_check_free(check);
    return hash != want && !clean;
}

static struct flips
flip_all(const char *recipe, unsigned first, unsigned step)
{
    struct flips flips = {0};
    struct q2_file *file = build(recipe, "");
    uint8_t header[Q2_HEADER_KNOWN_LENGTH];
    uint64_t want;
    cr_assert(signature(file, &want));
    cr_assert_eq(q2_file_read(file, 0, header, sizeof header, NULL), 0);
    unsigned bits = q2_load_be32(header + 4) == 2 ? 72 * 8 : 112 * 8;
    for (unsigned bit = first; bit < bits; bit += step) {
        struct outcome out;
        flip(file, bit);
        mend_image(file, Q2_LEVEL_CERTAIN, &out);
        bool right = out.opens && out.hash == want;
        if (out.applied)
            cr_expect(right, "bit %u of %s: mended wrongly", bit, recipe);
        flips.total++;
        if (right ? out.applied : is_damaged(file, want)) {
            flips.damaged++;
            flips.recovered += right;
        }
        flip(file, bit);
    }
    q2_file_close(file);
    return flips;
}

/* Nothing may be wrong, and next to nothing may be left: where the size of the disk and that of the
 * L1 table contradict each other, both may be right. */
static void
expect_flips(const char *recipe, unsigned first, unsigned step)
{
    struct flips flips = flip_all(recipe, first, step);
    cr_expect_gt(flips.damaged, flips.total / 3, "%u of %u flips damage %s", flips.damaged,
                 flips.total, recipe);
    cr_expect_geq(flips.recovered * 100, flips.damaged * 90, "%u of %u recovered of %s",
                  flips.recovered, flips.damaged, recipe);
}

Test(repair_header, flips_of_version_3)
{
    expect_flips(V3, 0, 7);
}

Test(repair_header, flips_of_version_2)
{
    expect_flips(V2, 3, 7);
}

Test(repair_header, flips_with_small_clusters)
{
    expect_flips(SECTORS, 1, 11);
}

Test(repair_header, flips_with_zstd)
{
    expect_flips(ZSTD, 2, 11);
}

Test(repair_header, flips_with_extended_l2)
{
    expect_flips(EXTENDED, 3, 11);
}

Test(repair_header, flips_with_luks)
{
    expect_flips(ENCRYPTED, 4, 13);
}

Test(repair_header, flips_with_a_backing_file)
{
    expect_flips(BACKED, 5, 11);
}

/* ---- known damage ---- */

enum { NEVER = 9 };

static const struct damage {
    const char *name;
    const char *image;
    const char *damage;
    unsigned level; /* enum q2_repair_level from which on it is as it was; NEVER */
    enum q2_action_kind kind;
} damages[] = {
    {"magic", PLAIN, "header.magic = 0\n", Q2_LEVEL_CERTAIN, Q2_ACTION_MEND_HEADER},
    {"version", PLAIN, "header.version = 7\n", Q2_LEVEL_CERTAIN, Q2_ACTION_MEND_HEADER},
    {"version 2", PLAIN, "header.version = 2\n", Q2_LEVEL_CERTAIN, Q2_ACTION_MEND_HEADER},
    {"cluster_bits", V3, "header.cluster_bits = 16\n", Q2_LEVEL_CERTAIN, Q2_ACTION_MEND_HEADER},
    {"cluster_bits 0", V3, "header.cluster_bits = 0\n", Q2_LEVEL_CERTAIN, Q2_ACTION_MEND_HEADER},
    {"refcount_order", V3, "header.refcount_order = 77\n", Q2_LEVEL_CERTAIN, Q2_ACTION_MEND_HEADER},
    {"valid refcount_order", V3, "header.refcount_order = 3\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_MEND_HEADER},
    {"header_length", V3, "header.header_length = 0\n", Q2_LEVEL_CERTAIN, Q2_ACTION_MEND_HEADER},
    {"l1_table_offset", V3, "header.l1_table_offset = 0x123456789000\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_REBUILD_HEADER},
    {"l1_table_offset 0", V3, "header.l1_table_offset = 0\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_REBUILD_HEADER},
    {"l1_size", V3, "header.l1_size = 0xffffffff\n", Q2_LEVEL_CERTAIN, Q2_ACTION_MEND_HEADER},
    {"l1_size 0", V3, "header.l1_size = 0\n", Q2_LEVEL_CERTAIN, Q2_ACTION_MEND_HEADER},
    {"size", V3, "header.size |= 1 << 60\n", Q2_LEVEL_CERTAIN, Q2_ACTION_MEND_HEADER},
    {"refcount table too long", V3, "header.refcount_table_clusters = 9\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_MEND_HEADER},
    {"refcount table of any length", V3, "header.refcount_table_clusters = 0x17\n",
     Q2_LEVEL_CERTAIN, Q2_ACTION_MEND_HEADER},
    {"snapshots", SNAPSHOT, "header.nb_snapshots = 0\n", Q2_LEVEL_CERTAIN, Q2_ACTION_MEND_HEADER},
    {"more snapshots", SNAPSHOT, "header.nb_snapshots = 3\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_MEND_HEADER},
    {"snapshots lost", SNAPSHOT, "header.snapshots_offset = 0\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_REBUILD_HEADER},
    {"two fields", V3, "header.cluster_bits ^= 1\nheader.crypt_method = 0x100\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_MEND_HEADER},
    {"crypt_method", PLAIN, "header.crypt_method = 0x1000\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_MEND_HEADER},
    {"compression type", ZSTD, "header.compression_type = 0\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_MEND_HEADER},
    {"extended L2", EXTENDED, "header.incompatible_features = 0\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_MEND_HEADER},
    {"unknown feature", V3, "header.incompatible_features = 1 << 7\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_MEND_HEADER},
    {"unnamed feature", PLAIN, "header.incompatible_features = 1 << 7\n", Q2_LEVEL_LIKELY,
     Q2_ACTION_MEND_HEADER},
    {"named feature",
     "cluster-size 4K\nsize 1M\nextension 0x6803f857 \"\\x00\\x07orbit"
     "\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0"
     "\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\"\nwrite 0 8K 0x41\n",
     "header.incompatible_features = 1 << 7\n", NEVER, Q2_ACTION_MEND_HEADER},
    {"backing name moved", BACKED, "header.backing_file_offset = 4K - 4\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_MEND_HEADER},
    {"backing name long", BACKED, "header.backing_file_size = 5000\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_MEND_HEADER},
    {"backing name lost", BACKED, "header.backing_file_offset = 0\nheader.backing_file_size = 0\n",
     Q2_LEVEL_LIKELY, Q2_ACTION_MEND_EXTENSIONS},
    {"backing format", BACKED, "extension[0].data[1] = 0x07\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_MEND_EXTENSIONS},
    {"backing format garbage", BACKED, "extension[0].data = \"\\x01\\x02\\x03\"\n", Q2_LEVEL_LIKELY,
     Q2_ACTION_MEND_EXTENSIONS},
    {"extension past area", BACKED, "extension[0].length = 4K + 100\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_MEND_EXTENSIONS},
    {"feature table", V3, "extension[features].data[0] = 77\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_MEND_EXTENSIONS},
    {"end marker", V3, "extension[1].length = 0xfffff\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_MEND_EXTENSIONS},
    {"data file unused", DATA_FILE, "header.incompatible_features = 0\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_MEND_HEADER},
    {"raw data bit", PLAIN, "header.autoclear_features |= 2\n", Q2_LEVEL_CERTAIN,
     Q2_ACTION_MEND_HEADER},
};
enum { DAMAGE_COUNT = sizeof damages / sizeof damages[0] };

/* Below the level the action is listed, and not carried out. */
static void
expect_left(const struct damage *damage, struct q2_file *file)
{
    struct outcome out;
    uint64_t before = 0, after = 0;
    bool opens = signature(file, &before);
    mend_image(file, damage->level == Q2_LEVEL_LIKELY ? Q2_LEVEL_CERTAIN : Q2_LEVEL_GUESS, &out);
    cr_expect_not(out.applied, "%s: done at too low a level", damage->name);
    cr_expect_eq(signature(file, &after), opens);
    cr_expect_eq(before, after);
    if (damage->level != NEVER)
        cr_expect(out.actions[damage->kind], "%s: not offered", damage->name);
    else
        cr_expect(out.stopped, "%s: others may go on", damage->name);
}

Test(repair_header, known_damage)
{
    for (size_t i = 0; i < DAMAGE_COUNT; i++) {
        const struct damage *damage = &damages[i];
        struct q2_file *healthy = build(damage->image, "");
        struct q2_file *file = build(damage->image, damage->damage);
        struct outcome out;
        uint64_t want;
        cr_assert(signature(healthy, &want), "%s", damage->name);
        if (damage->level > Q2_LEVEL_CERTAIN)
            expect_left(damage, file);
        if (damage->level != NEVER) {
            mend_image(file, (enum q2_repair_level)damage->level, &out);
            cr_expect(out.opens && out.hash == want && out.clean, "%s: opens %d right %d clean %d",
                      damage->name, out.opens, out.hash == want, out.clean);
            cr_expect(out.actions[damage->kind], "%s: by another action", damage->name);
        }
        q2_file_close(healthy);
        q2_file_close(file);
    }
}

Test(repair_header, healthy_images_are_left_alone)
{
    static const char *const images[] = {V3,    V2,        SECTORS, ZSTD,     EXTENDED,
                                         PLAIN, ENCRYPTED, BACKED,  SNAPSHOT, DATA_FILE};
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++) {
        struct q2_file *file = build(images[i], "");
        struct outcome out;
        mend_image(file, Q2_LEVEL_GUESS, &out);
        cr_expect(!out.applied && !out.stopped && out.clean, "%s", images[i]);
        q2_file_close(file);
    }
}

/* ---- the area ---- */

/* What is unknown stays byte for byte, in its place, and the backing file's name with it. */
Test(repair_header, area_keeps_what_it_does_not_know)
{
    static const uint8_t data[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    struct q2_error err = {0};
    struct q2_scene *scene = NULL;
    struct q2_header_area area;
    struct q2_file *file = build("cluster-size 4K\nsize 1M\nextension 0x5a5a5a5a \"unknown\"\n"
                                 "feature-table\nfile \"base.raw\" 1M 0x42\n"
                                 "backing \"base.raw\" format raw\nwrite 0 8K 0x41\n",
                                 "");
    cr_assert_eq(q2_scene_open(file, &quiet, Q2_LEVEL_GUESS, 0, &scene, &err), 0);
    cr_assert(q2_plan_begin(&scene->plan, Q2_ACTION_MEND_EXTENSIONS, Q2_CERTAIN, 0, "a test"));
    cr_assert_eq(q2_header_area_read(scene, &area, &err), 0);
    cr_expect_eq(area.count, 3);
    cr_expect(area.ended);
    cr_expect_eq(q2_header_area_remove(&area, Q2_EXTENSION_FEATURES), 1);
    cr_assert_eq(q2_header_area_add(&area, 0x12345678, data, sizeof data, &err), 0);
    cr_assert_eq(q2_header_area_write(scene, &area, &err), 0);
    q2_header_area_destroy(&area);
    q2_plan_end(&scene->plan);
    cr_assert_eq(q2_scene_recheck(scene, &err), 0);
    cr_expect_eq(q2_check_exit(scene->check), Q2_EXIT_CLEAN);
    cr_expect_eq(scene->check->extensions.backing_file.length, 8);
    cr_expect_eq(memcmp(scene->check->extensions.backing_file.bytes, "base.raw", 8), 0);

    cr_assert_eq(q2_header_area_read(scene, &area, &err), 0);
    struct q2_header_part *unknown = q2_header_area_find(&area, 0x5a5a5a5a);
    struct q2_header_part *added = q2_header_area_find(&area, 0x12345678);
    cr_assert(unknown && added);
    cr_expect_eq(unknown->length, 7);
    cr_expect_eq(memcmp(unknown->data, "unknown", 7), 0);
    cr_expect_eq(memcmp(added->data, data, sizeof data), 0);
    cr_expect_null(q2_header_area_find(&area, Q2_EXTENSION_FEATURES));
    q2_header_area_destroy(&area);
    q2_scene_close(scene);
    q2_file_close(file);
}

/* What does not fit is refused, and nothing changes. */
Test(repair_header, area_has_an_end)
{
    struct q2_error err = {0};
    struct q2_scene *scene = NULL;
    struct q2_header_area area;
    struct q2_file *file = build(SECTORS, "");
    uint8_t *data = calloc(1, 400);
    cr_assert_eq(q2_scene_open(file, &quiet, Q2_LEVEL_GUESS, 0, &scene, &err), 0);
    cr_assert(q2_plan_begin(&scene->plan, Q2_ACTION_MEND_EXTENSIONS, Q2_CERTAIN, 0, "a test"));
    cr_assert_eq(q2_header_area_read(scene, &area, &err), 0);
    cr_assert_eq(q2_header_area_add(&area, 0x12345678, data, 400, &err), 0);
    cr_expect_eq(q2_header_area_write(scene, &area, &err), Q2_ERR_NOSPACE);
    cr_expect_not(scene->edited);
    q2_header_area_destroy(&area);
    q2_plan_end(&scene->plan);
    q2_scene_close(scene);
    q2_file_close(file);
    free(data);
}
