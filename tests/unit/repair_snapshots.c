/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Snapshot tables: the header's fields that lead there, and the fields of entries. Only those are
 * damaged, so a repair is right if and only if header and table come out as they were. */

#include "core/base/cleanup.h"
#include "core/base/endian.h"
#include "core/format/snapshot.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "repair/fix.h"
#include "tests/unit/images.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AT_COUNT = 60, AT_OFFSET = 64, HEADER = 112 };

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

/* ---- repairs ---- */

struct outcome {
    unsigned right, left, wrong;
};

static bool
is_same(struct q2_file *file, const struct image *image, uint64_t at, uint64_t length)
{
    uint8_t bytes[4096];
    cr_assert_leq(length, sizeof bytes);
    cr_assert_eq(q2_file_read(file, at, bytes, length, NULL), 0);
    return memcmp(bytes, image->bytes + at, length) == 0;
}

static uint64_t
table_length(const struct image *image)
{
    uint64_t at = image->check->header.snapshots_offset, end = at;
    for (uint64_t i = 0; i < image->check->snapshot_count; i++)
        end += q2_snapshot_length(image->bytes + end);
    return end - at;
}

/* Repair the damaged image: are header and table as they were, or as the damage left them? */
static void
repair(struct image *image, enum q2_repair_level level, struct outcome *outcome)
{
    static const struct q2_scene_options options = {.threads = 1};
    struct q2_scene *scene = NULL;
    struct q2_error err = {0};
    uint64_t at = image->check->header.snapshots_offset, length = table_length(image);
    cr_assert_eq(q2_scene_open(image->file, &options, level, 0, &scene, &err), 0, "%s",
                 err.message);
    cr_assert_eq(q2_fix_snapshots(scene, &err), 0, "%s", err.message);
    cr_assert_eq(scene->plan.failed, 0);
    for (uint64_t i = 0; getenv("Q2_PLAN") && i < scene->plan.count; i++)
        fprintf(stderr, "    %s %s %s: %s\n", q2_action_id(scene->plan.actions[i].kind),
                q2_confidence_id(scene->plan.actions[i].confidence),
                scene->plan.actions[i].applied ? "applied" : "-", scene->plan.actions[i].evidence);
    if (is_same(scene->file, image, 0, HEADER) && is_same(scene->file, image, at, length))
        outcome->right++;
    else if (!q2_plan_does_anything(&scene->plan))
        outcome->left++;
    else
        outcome->wrong++;
    q2_scene_close(scene);
}

static void
show(const char *what, const struct outcome *outcome)
{
    if (getenv("Q2_SHOW"))
        fprintf(stderr, "%s: %u right, %u left, %u wrong\n", what, outcome->right, outcome->left,
                outcome->wrong);
}

/* Flip each bit of `length` bytes at `at`, one at a time. */
static struct outcome
sweep(struct image *image, const char *what, uint64_t at, unsigned length)
{
    struct outcome outcome = {0};
    for (unsigned bit = 0; bit < length * 8; bit++) {
        uint8_t byte = image->bytes[at + bit / 8] ^ (uint8_t)(1U << bit % 8);
        cr_assert_eq(q2_file_write(image->file, at + bit / 8, &byte, 1, NULL), 0);
        struct outcome before = outcome;
        repair(image, Q2_LEVEL_CERTAIN, &outcome);
        if (getenv("Q2_SHOW") && outcome.right == before.right)
            fprintf(stderr, "  %s: bit %u of byte %u: %s\n", what, bit % 8, bit / 8,
                    outcome.wrong > before.wrong ? "wrong" : "left");
        heal(image);
    }
    show(what, &outcome);
    return outcome;
}

#define IMAGE                                                                                \
    "size 256K\ncluster-size 512\n"                                                          \
    "write 0 144K random 1\nsnapshot one\nwrite 16K 32K random 2\nwrite 160K 32K random 3\n" \
    "snapshot two\nwrite 80K 1K random 4\nsnapshot three\nwrite 224K 1K random 5\n"

Test(repair_snapshots, flipped_bit_of_the_count)
{
    struct image image = open_image(IMAGE);
    struct outcome outcome = sweep(&image, "nb_snapshots", AT_COUNT, 4);
    cr_expect_eq(outcome.wrong, 0);
    cr_expect_eq(outcome.left, 0);
    close_image(&image);
}

Test(repair_snapshots, flipped_bit_of_the_offset)
{
    struct image image = open_image(IMAGE);
    struct outcome outcome = sweep(&image, "snapshots_offset", AT_OFFSET, 8);
    cr_expect_eq(outcome.wrong, 0);
    cr_expect_eq(outcome.left, 0);
    close_image(&image);
}

Test(repair_snapshots, other_counts)
{
    struct image image = open_image(IMAGE);
    const uint32_t counts[] = {0, 1, 2, 4, 100, 70000, UINT32_C(0xdeadbeef)};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        uint8_t bytes[4];
        struct outcome outcome = {0};
        q2_store_be32(bytes, counts[i]);
        cr_assert_eq(q2_file_write(image.file, AT_COUNT, bytes, 4, NULL), 0);
        repair(&image, Q2_LEVEL_CERTAIN, &outcome);
        cr_expect_eq(outcome.right, 1, "%u snapshots", counts[i]);
        heal(&image);
    }
    close_image(&image);
}

/* Nothing leads to the table any more, and nothing says that anything should. */
Test(repair_snapshots, lost_altogether)
{
    struct image image = open_image(IMAGE);
    const uint8_t zeros[12] = {0};
    struct outcome certain = {0}, likely = {0};
    cr_assert_eq(q2_file_write(image.file, AT_COUNT, zeros, sizeof zeros, NULL), 0);
    repair(&image, Q2_LEVEL_CERTAIN, &certain);
    repair(&image, Q2_LEVEL_LIKELY, &likely);
    cr_expect_eq(certain.left, 1);
    cr_expect_eq(likely.right, 1);
    close_image(&image);
}

Test(repair_snapshots, flipped_bits_of_entries)
{
    static const struct {
        const char *name;
        unsigned at, length;
    } fields[] = {{"l1_table_offset", 0, 8}, {"l1_size", 8, 4},     {"id_size", 12, 2},
                  {"name_size", 14, 2},      {"extra_size", 36, 4}, {"disk_size", 48, 8}};
    struct image image = open_image(IMAGE);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        for (uint32_t m = 1; m < image.check->map_count; m++) {
            struct outcome outcome =
                sweep(&image, fields[i].name, image.check->maps[m].entry_at + fields[i].at,
                      fields[i].length);
            cr_expect_eq(outcome.wrong, 0, "%s of entry %u", fields[i].name, m - 1);
        }
    close_image(&image);
}

/* ---- tables that are destroyed ---- */

/* Whether a repair brings the image back as a whole: it is clean, and has `count` snapshots. */
static void
rebuild(struct image *image, enum q2_repair_level level, bool expected, const char *what)
{
    static const struct q2_scene_options options = {.threads = 1};
    struct q2_scene *scene = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_scene_open(image->file, &options, level, 0, &scene, &err), 0, "%s",
                 err.message);
    cr_assert_eq(q2_fix_snapshots(scene, &err), 0, "%s", err.message);
    cr_assert_eq(q2_scene_recheck(scene, &err), 0, "%s", err.message);
    bool clean = q2_check_exit(scene->check) == Q2_EXIT_CLEAN;
    cr_expect_eq(clean, expected, "%s", what);
    cr_expect_eq(expected, q2_plan_does_anything(&scene->plan), "%s", what);
    cr_expect_eq(scene->keep_all, !expected, "%s: evidence is kept", what);
    for (uint64_t m = 1; expected && m < image->check->map_count; m++) {
        bool found = false;
        for (uint64_t i = 1; i < scene->check->map_count; i++)
            found |= scene->check->maps[i].l1_offset == image->check->maps[m].l1_offset &&
                     scene->check->maps[i].l1_size == image->check->maps[m].l1_size;
        cr_expect(found, "%s: the L1 table of snapshot %d", what, (int)m);
    }
    q2_scene_close(scene);
}

static void
overwrite(struct image *image, uint64_t at, uint64_t length, unsigned seed)
{
    uint8_t bytes[4096];
    cr_assert_leq(length, sizeof bytes);
    for (uint64_t i = 0; i < length; i++)
        bytes[i] = seed ? (uint8_t)((i * seed * 2654435761U) >> 11) : 0;
    cr_assert_eq(q2_file_write(image->file, at, bytes, length, NULL), 0);
}

Test(repair_snapshots, destroyed_table)
{
    struct image image = open_image(IMAGE);
    uint64_t at = image.check->header.snapshots_offset, length = table_length(&image);
    overwrite(&image, at, length, 0);
    rebuild(&image, Q2_LEVEL_CERTAIN, true, "zeros");
    heal(&image);
    overwrite(&image, at, length, 7);
    rebuild(&image, Q2_LEVEL_CERTAIN, true, "garbage");
    heal(&image);
    close_image(&image);
}

/* What refcounts do not agree with is not done without being asked for, and nothing is freed. */
Test(repair_snapshots, destroyed_table_and_other_counts)
{
    struct image image = open_image(IMAGE);
    uint64_t at = image.check->header.snapshots_offset, length = table_length(&image);
    const uint8_t more[4] = {0, 0, 0, 4};
    overwrite(&image, at, length, 0);
    cr_assert_eq(q2_file_write(image.file, AT_COUNT, more, sizeof more, NULL), 0);
    rebuild(&image, Q2_LEVEL_CERTAIN, false, "another number of snapshots");
    rebuild(&image, Q2_LEVEL_LIKELY, true, "another number of snapshots");
    close_image(&image);
}

/* Entries that can be read stay as they are, wherever they are in the table. */
Test(repair_snapshots, destroyed_entries)
{
    struct image image = open_image(IMAGE);
    for (uint32_t m = 1; m < image.check->map_count; m++) {
        uint64_t at = image.check->maps[m].entry_at;
        uint64_t length = q2_snapshot_length(image.bytes + at);
        static const struct q2_scene_options options = {.threads = 1};
        struct q2_scene *scene = NULL;
        overwrite(&image, at, length, 0);
        rebuild(&image, Q2_LEVEL_CERTAIN, true, "one entry");
        cr_assert_eq(q2_scene_open(image.file, &options, Q2_LEVEL_CERTAIN, 0, &scene, NULL), 0);
        cr_assert_eq(q2_fix_snapshots(scene, NULL), 0);
        cr_assert_eq(q2_scene_recheck(scene, NULL), 0);
        for (uint32_t k = 1; k < image.check->map_count; k++) {
            bool named = false;
            for (uint64_t i = 0; i < scene->check->snapshot_count; i++)
                named |= strcmp(scene->check->snapshots[i].name,
                                image.check->snapshots[k - 1].name) == 0;
            cr_expect_eq(named, k != m, "entry %u, destroyed %u", k, m);
        }
        q2_scene_close(scene);
        heal(&image);
    }
    close_image(&image);
}

/* An entry that leads anywhere but to its L1 table comes out as it was: its name can be read. */
Test(repair_snapshots, random_fields)
{
    static const uint64_t offsets[] = {0, 0x200, UINT64_C(0x123456789a0000), 7};
    struct image image = open_image(IMAGE);
    for (uint32_t m = 1; m < image.check->map_count; m++) {
        uint64_t at = image.check->maps[m].entry_at;
        for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
            uint8_t bytes[8];
            struct outcome outcome = {0};
            q2_store_be64(bytes, offsets[i]);
            cr_assert_eq(q2_file_write(image.file, at, bytes, 8, NULL), 0);
            repair(&image, Q2_LEVEL_CERTAIN, &outcome);
            cr_expect_eq(outcome.right, 1, "entry %u leads to 0x%" PRIx64, m, offsets[i]);
            heal(&image);
        }
        const uint8_t size[4] = {0x2b, 0x57, 0xfa, 0x40};
        struct outcome outcome = {0};
        cr_assert_eq(q2_file_write(image.file, at + 8, size, 4, NULL), 0);
        repair(&image, Q2_LEVEL_CERTAIN, &outcome);
        cr_expect_eq(outcome.right, 1, "entry %u has too many L1 entries", m);
        heal(&image);
    }
    close_image(&image);
}

/* The size of the VM state is written twice. */
Test(repair_snapshots, vm_state_size)
{
    struct image image = open_image(IMAGE);
    uint64_t at = image.check->maps[2].entry_at;
    struct outcome outcome = {0};
    const uint8_t byte = 0x80;
    cr_assert_eq(q2_file_write(image.file, at + 45, &byte, 1, NULL), 0);
    repair(&image, Q2_LEVEL_CERTAIN, &outcome);
    cr_expect_eq(outcome.right, 1);
    close_image(&image);
}
