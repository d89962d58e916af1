/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* L1 tables and lost L2 tables: each image is damaged in its L1 tables alone, so that a repair is
 * right if and only if they come out as they were. At the default level nothing may ever come out
 * as a third thing. */

#include "core/base/cleanup.h"
#include "core/format/entry.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "repair/fix.h"
#include "tests/unit/images.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- images ---- */

struct image {
    struct q2_file *file;
    struct q2_check *check; /* of the healthy image */
    uint8_t *bytes;         /* of the healthy image */
    uint64_t size;
};

static struct image
open_image(const char *text)
{
    struct image image = {0};
    struct q2_error err = {0};
    image.file = build_image(text);
    cr_assert_eq(q2_file_size(image.file, &image.size, &err), 0);
    image.bytes = malloc(image.size);
    cr_assert_eq(q2_file_read(image.file, 0, image.bytes, image.size, &err), 0);
    cr_assert_eq(q2_check_run(image.file, &(struct q2_check_options){.threads = 1}, &image.check,
                              &err),
                 0, "%s", err.message);
    cr_assert_eq(q2_check_exit(image.check), Q2_EXIT_CLEAN);
    return image;
}

static void
close_image(struct image *image)
{
    q2_check_free(image->check);
    q2_file_close(image->file);
    free(image->bytes);
}

static void
heal(struct image *image)
{
    cr_assert_eq(q2_file_truncate(image->file, image->size, NULL), 0);
    cr_assert_eq(q2_file_write(image->file, 0, image->bytes, image->size, NULL), 0);
}

static uint64_t
entry_at(const struct image *image, uint32_t map, uint64_t slot)
{
    return image->check->maps[map].l1_offset + slot * 8;
}

static uint64_t
entry(const struct image *image, uint32_t map, uint64_t slot)
{
    return q2_load_be64(image->bytes + entry_at(image, map, slot));
}

static void
set_entry(struct image *image, uint32_t map, uint64_t slot, uint64_t raw)
{
    uint8_t bytes[8];
    q2_store_be64(bytes, raw);
    cr_assert_eq(q2_file_write(image->file, entry_at(image, map, slot), bytes, 8, NULL), 0);
}

/* ---- repairs ---- */

struct outcome {
    unsigned right; /* slots as they were before the damage */
    unsigned left;  /* as the damage left them, or cleared */
    unsigned wrong;
};

static const struct q2_scene_options one_thread = {.threads = 1};

/* Repair at `level` and hold the entries of all L1 tables against those of the healthy image. */
static struct outcome
repair(struct image *image, enum q2_repair_level level)
{
    struct outcome outcome = {0};
    struct q2_scene *scene = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_scene_open(image->file, &one_thread, level, 0, &scene, &err), 0, "%s",
                 err.message);
    cr_assert_eq(q2_fix_tables(scene, &err), 0, "%s", err.message);
    cr_assert_eq(scene->plan.failed, 0);
    for (uint32_t m = 0; m < image->check->map_count; m++)
        for (uint64_t s = 0; s < image->check->maps[m].l1_size; s++) {
            uint8_t now[8], damaged[8];
            uint64_t at = entry_at(image, m, s), was = q2_entry_offset(entry(image, m, s));
            cr_assert_eq(q2_file_read(scene->file, at, now, 8, NULL), 0);
            cr_assert_eq(q2_file_read(image->file, at, damaged, 8, NULL), 0);
            uint64_t raw = q2_load_be64(now);
            if ((raw & ~Q2_ENTRY_COPIED) == was)
                outcome.right++;
            else if (memcmp(now, damaged, 8) == 0 || raw == 0)
                outcome.left++;
            else
                outcome.wrong++;
        }
    for (uint64_t i = 0; getenv("Q2_PLAN") && i < scene->plan.count; i++)
        fprintf(stderr, "    %lx %s %s %s: %s\n", (unsigned long)scene->plan.actions[i].key,
                q2_action_id(scene->plan.actions[i].kind),
                q2_confidence_id(scene->plan.actions[i].confidence),
                scene->plan.actions[i].applied ? "applied" : "-", scene->plan.actions[i].evidence);
    q2_scene_close(scene);
    return outcome;
}

static uint64_t
slots_of(const struct image *image)
{
    uint64_t count = 0;
    for (uint32_t m = 0; m < image->check->map_count; m++)
        count += image->check->maps[m].l1_size;
    return count;
}

/* Damage one entry after the other in the way of `damage`, turn by turn, and repair each. */
static struct outcome
sweep(struct image *image, enum q2_repair_level level, unsigned turns,
      uint64_t (*damage)(uint64_t raw, unsigned turn))
{
    struct outcome total = {0};
    for (uint32_t m = 0; m < image->check->map_count; m++)
        for (uint64_t s = 0; s < image->check->maps[m].l1_size; s++)
            for (unsigned turn = 0; turn < turns; turn++) {
                uint64_t raw = entry(image, m, s), damaged = damage(raw, turn);
                if (raw == 0 || ((raw ^ damaged) & ~Q2_ENTRY_COPIED) == 0)
                    continue;
                set_entry(image, m, s, damaged);
                struct outcome outcome = repair(image, level);
                if (getenv("Q2_SHOW") && (outcome.left || outcome.wrong))
                    fprintf(stderr, "map %u (L1 %lx) slot %lu turn %u (%lx): left %u wrong %u\n", m,
                            image->check->maps[m].l1_offset, (unsigned long)s, turn, raw,
                            outcome.left, outcome.wrong);
                total.right += outcome.left == 0 && outcome.wrong == 0;
                total.left += outcome.left > 0 && outcome.wrong == 0;
                total.wrong += outcome.wrong > 0;
                heal(image);
            }
    return total;
}

static uint64_t
zero(uint64_t raw, unsigned turn)
{
    (void)raw;
    (void)turn;
    return 0;
}

static uint64_t
flip(uint64_t raw, unsigned turn)
{
    return raw ^ UINT64_C(1) << turn;
}

/* ---- the images ---- */

#define DENSE                       \
    "size 240K\ncluster-size 512\n" \
    "write 0 240K random 1\n"

#define SPARSE                                                               \
    "size 1M\ncluster-size 512\n"                                            \
    "write 0 48K random 1\nwrite 80K 32K random 2\nwrite 320K 1K random 3\n" \
    "write 528K 80K random 4\nwrite 960K 64K random 5\n"

#define SCATTERED                                                              \
    "size 1M\ncluster-size 512\n"                                              \
    "write 496K 4K random 1\nwrite 80K 512 random 2\nwrite 800K 4K random 3\n" \
    "write 192K 1K random 4\nwrite 0 8K random 5\nwrite 640K 6K random 6\n"

#define SNAPSHOTS                                                                            \
    "size 256K\ncluster-size 512\n"                                                          \
    "write 0 144K random 1\nsnapshot one\nwrite 16K 32K random 2\nwrite 160K 32K random 3\n" \
    "snapshot two\nwrite 80K 1K random 4\nwrite 224K 1K random 5\n"

static void
show(const char *what, struct outcome outcome)
{
    cr_log_info("%s: %u right, %u left, %u wrong", what, outcome.right, outcome.left,
                outcome.wrong);
    if (getenv("Q2_SHOW"))
        fprintf(stderr, "%s: %u right, %u left, %u wrong\n", what, outcome.right, outcome.left,
                outcome.wrong);
}

Test(repair_tables, zeroed_entry_of_a_dense_disk)
{
    struct image image = open_image(DENSE);
    struct outcome outcome = sweep(&image, Q2_LEVEL_CERTAIN, 1, zero);
    show("dense, zeroed", outcome);
    cr_expect_eq(outcome.wrong, 0);
    cr_expect_eq(outcome.left, 0);
    close_image(&image);
}

Test(repair_tables, zeroed_entry_of_a_sparse_disk)
{
    struct image image = open_image(SPARSE);
    struct outcome outcome = sweep(&image, Q2_LEVEL_CERTAIN, 1, zero);
    show("sparse, zeroed", outcome);
    cr_expect_eq(outcome.wrong, 0);
    close_image(&image);
}

Test(repair_tables, zeroed_entry_of_a_scattered_disk)
{
    struct image image = open_image(SCATTERED);
    struct outcome outcome = sweep(&image, Q2_LEVEL_CERTAIN, 1, zero);
    show("scattered, zeroed", outcome);
    cr_expect_eq(outcome.wrong, 0);
    close_image(&image);
}

Test(repair_tables, zeroed_entry_with_snapshots)
{
    struct image image = open_image(SNAPSHOTS);
    struct outcome outcome = sweep(&image, Q2_LEVEL_CERTAIN, 1, zero);
    show("snapshots, zeroed", outcome);
    cr_expect_eq(outcome.wrong, 0);
    close_image(&image);
}

Test(repair_tables, flipped_bit_of_a_dense_disk)
{
    struct image image = open_image(DENSE);
    struct outcome outcome = sweep(&image, Q2_LEVEL_CERTAIN, 64, flip);
    show("dense, flipped", outcome);
    cr_expect_eq(outcome.wrong, 0);
    close_image(&image);
}

Test(repair_tables, flipped_bit_of_a_scattered_disk)
{
    struct image image = open_image(SCATTERED);
    struct outcome outcome = sweep(&image, Q2_LEVEL_CERTAIN, 64, flip);
    show("scattered, flipped", outcome);
    cr_expect_eq(outcome.wrong, 0);
    close_image(&image);
}

Test(repair_tables, flipped_bit_with_snapshots)
{
    struct image image = open_image(SNAPSHOTS);
    struct outcome outcome = sweep(&image, Q2_LEVEL_CERTAIN, 64, flip);
    show("snapshots, flipped", outcome);
    cr_expect_eq(outcome.wrong, 0);
    cr_expect_eq(outcome.left, 0);
    close_image(&image);
}

/* ---- whole tables ---- */

static struct outcome
wipe(const char *recipe, enum q2_repair_level level, uint32_t map, bool random)
{
    struct image image = open_image(recipe);
    uint64_t seed = 1;
    for (uint64_t s = 0; s < image.check->maps[map].l1_size; s++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        set_entry(&image, map, s, random ? seed ^ seed >> 29 : 0);
    }
    struct outcome outcome = repair(&image, level);
    cr_expect_eq(outcome.right + outcome.left + outcome.wrong, slots_of(&image));
    close_image(&image);
    return outcome;
}

static void
wipe_all(const char *name, const char *recipe, uint32_t maps)
{
    for (uint32_t map = 0; map < maps; map++)
        for (int random = 0; random < 2; random++)
            for (int level = Q2_LEVEL_CERTAIN; level <= Q2_LEVEL_GUESS; level++) {
                char what[80];
                struct outcome outcome =
                    wipe(recipe, (enum q2_repair_level)level, map, random != 0);
                snprintf(what, sizeof what, "%s, L1 of map %u %s, level %d", name, map,
                         random ? "random" : "zeroed", level);
                show(what, outcome);
                if (level == Q2_LEVEL_CERTAIN)
                    cr_expect_eq(outcome.wrong, 0, "%s", what);
            }
}

Test(repair_tables, whole_tables)
{
    wipe_all("dense", DENSE, 1);
    wipe_all("sparse", SPARSE, 1);
    wipe_all("scattered", SCATTERED, 1);
    wipe_all("snapshots", SNAPSHOTS, 3);
}

/* The header leads elsewhere: a flipped bit, where there is nothing, or something else. */
Test(repair_tables, flipped_bit_of_the_l1_offset)
{
    enum { AT_L1_OFFSET = 40 };
    struct image image = open_image(SNAPSHOTS);
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t healthy = image.check->header.l1_table_offset;
        uint8_t bytes[8];
        struct q2_scene *scene = NULL;
        struct q2_error err = {0};
        q2_store_be64(bytes, healthy ^ UINT64_C(1) << bit);
        cr_assert_eq(q2_file_write(image.file, AT_L1_OFFSET, bytes, 8, NULL), 0);
        cr_assert_eq(q2_scene_open(image.file, &one_thread, Q2_LEVEL_CERTAIN, 0, &scene, &err), 0,
                     "%s", err.message);
        cr_assert_eq(q2_fix_tables(scene, &err), 0, "%s", err.message);
        cr_assert_eq(q2_file_read(scene->file, AT_L1_OFFSET, bytes, 8, NULL), 0);
        cr_expect_eq(q2_load_be64(bytes), healthy, "bit %u", bit);
        q2_scene_close(scene);
        heal(&image);
    }
    close_image(&image);
}

/* ---- what is no damage ---- */

/* A crash while the disk was set back to a snapshot leaves tables behind that are not to come back,
 * though their slots are empty. */
Test(repair_tables, set_back_to_a_snapshot)
{
    struct image image = open_image(SNAPSHOTS);
    for (uint32_t map = 1; map < 3; map++) {
        for (uint64_t s = 0; s < image.check->maps[0].l1_size; s++)
            set_entry(&image, 0, s, entry(&image, map, s) & ~Q2_ENTRY_COPIED);
        struct q2_scene *scene = NULL;
        struct q2_error err = {0};
        cr_assert_eq(q2_scene_open(image.file, &one_thread, Q2_LEVEL_CERTAIN, 0, &scene, &err), 0,
                     "%s", err.message);
        cr_assert_eq(q2_fix_tables(scene, &err), 0, "%s", err.message);
        for (uint64_t i = 0; getenv("Q2_PLAN") && i < scene->plan.count; i++)
            fprintf(stderr, "    %lx %s %s %s: %s\n", (unsigned long)scene->plan.actions[i].key,
                    q2_action_id(scene->plan.actions[i].kind),
                    q2_confidence_id(scene->plan.actions[i].confidence),
                    scene->plan.actions[i].applied ? "applied" : "-",
                    scene->plan.actions[i].evidence);
        cr_expect(!q2_plan_does_anything(&scene->plan), "snapshot %u", map - 1);
        q2_scene_close(scene);
        heal(&image);
    }
    close_image(&image);
}

/* What may yet be put back must not be freed meanwhile. */
Test(repair_tables, keeps_what_it_cannot_place)
{
    struct image image = open_image(SCATTERED);
    set_entry(&image, 0, 2, 0);
    struct q2_scene *scene = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_scene_open(image.file, &one_thread, Q2_LEVEL_CERTAIN, 0, &scene, &err), 0, "%s",
                 err.message);
    cr_assert_eq(q2_fix_tables(scene, &err), 0, "%s", err.message);
    cr_expect(scene->keep_all);
    cr_expect(scene->plan.count == 1 && !scene->plan.actions[0].applied);
    q2_scene_close(scene);
    close_image(&image);
}

/* Leaked clusters that hold nothing like a table are none of this. */
Test(repair_tables, leaves_leaks_alone)
{
    struct image image = {0};
    struct q2_error err = {0};
    image.file = build_image(SPARSE "leak 40 random 9\n");
    struct q2_scene *scene = NULL;
    cr_assert_eq(q2_scene_open(image.file, &one_thread, Q2_LEVEL_GUESS, 0, &scene, &err), 0, "%s",
                 err.message);
    cr_assert_eq(q2_fix_tables(scene, &err), 0, "%s", err.message);
    cr_expect_eq(scene->plan.count, 0);
    cr_expect(!scene->keep_all);
    q2_scene_close(scene);
    q2_file_close(image.file);
}
