/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Every bit of L2 entries is flipped, one after the other; then gaps are made. What a repair makes
 * of it is read strictly, and held against the disk as it was: it is the same, or the image is
 * refused, or nothing that could be seen said that anything was wrong. */

#include "core/base/cleanup.h"
#include "core/base/endian.h"
#include "core/image/image.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "repair/repair.h"
#include "tests/unit/images.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ENTRIES = 4096, DISK_SIZE = 1 << 20 };

struct entry {
    char name[40];
    uint64_t offset;
};

struct subject {
    uint8_t *bytes; /* the healthy image */
    uint64_t size;
    uint8_t *disk; /* what the guest sees */
    uint64_t disk_size;
    struct entry entries[MAX_ENTRIES];
    size_t count;
};

/* ---- images ---- */

static uint8_t *
read_all(struct q2_file *file, uint64_t *ret_size)
{
    cr_assert_eq(q2_file_size(file, ret_size, NULL), 0);
    uint8_t *bytes = calloc(1, *ret_size + 1);
    cr_assert(bytes);
    cr_assert_eq(q2_file_read(file, 0, bytes, *ret_size, NULL), 0);
    return bytes;
}

static struct q2_file *
memory_of(const uint8_t *bytes, uint64_t size)
{
    struct q2_file *file;
    cr_assert_eq(q2_file_new_memory_from("image", bytes, size, &file, NULL), 0);
    return file;
}

/* What a strict reader sees of the disk; NULL if it refuses the image or cannot read all of it. */
static uint8_t *
disk_of(struct q2_file *file, uint64_t *ret_size)
{
    const struct q2_image_options options = {.flags = Q2_IMAGE_NO_BACKING};
    struct q2_image *image;
    if (q2_image_open_file(file, &options, &image, NULL) < 0)
        return NULL;
    *ret_size = q2_image_size(image);
    uint8_t *disk = calloc(1, *ret_size);
    if (q2_image_read(image, 0, disk, *ret_size, NULL) < 0) {
        free(disk);
        disk = NULL;
    }
    q2_image_close(image, NULL);
    return disk;
}

static void
keep_entry(void *data, const struct q2_recipe_field *field)
{
    struct subject *subject = data;
    if (strncmp(field->name, "l2[", 3) || strchr(field->name, '.') || field->length != 8 ||
        field->is_text || subject->count == MAX_ENTRIES)
        return;
    struct entry *entry = &subject->entries[subject->count++];
    snprintf(entry->name, sizeof entry->name, "%s", field->name);
    entry->offset = field->offset;
}

static struct subject *
subject_of(const char *text)
{
    struct subject *subject = calloc(1, sizeof *subject);
    cr_assert(subject);
    struct q2_file *image = build_listed(text, keep_entry, subject);
    subject->bytes = read_all(image, &subject->size);
    subject->disk = disk_of(image, &subject->disk_size);
    cr_assert(subject->disk);
    cr_assert(subject->count);
    return subject;
}

static void
subject_free(struct subject *subject)
{
    free(subject->bytes);
    free(subject->disk);
    free(subject);
}

/* ---- repairs ---- */

enum outcome {
    SAME,    /* the disk is as it was before the damage */
    REFUSED, /* a strict reader does not take the result, or not all of it */
    OTHER,   /* it reads, but not the same */
};

struct result {
    enum outcome outcome;
    bool clean;     /* the check of the repaired image finds nothing */
    uint64_t named; /* guest bytes whose content the plan says to change */
    bool lost;      /* some of these are said to be lost */
};

static void
sum_up(const struct q2_repair *repair, struct result *result)
{
    const struct q2_plan *plan = q2_repair_actions(repair);
    for (uint64_t i = 0; i < plan->count; i++)
        for (uint64_t j = 0; plan->actions[i].applied && j < plan->actions[i].change_count; j++) {
            result->named += plan->actions[i].changes[j].length;
            result->lost |= plan->actions[i].changes[j].kind == Q2_CHANGE_LOST;
        }
}

static struct result
repair_damaged(const struct subject *subject, const uint8_t *bytes, uint64_t size,
               enum q2_repair_level level)
{
    const struct q2_repair_options options = {.level = level, .threads = 1};
    struct result result = {.outcome = REFUSED};
    struct q2_repair *repair;
    struct q2_error err = {0};
    struct q2_file *file = memory_of(bytes, size);
    cr_assert_eq(q2_repair_plan(file, &options, &repair, &err), 0, "%s", err.message);
    uint64_t mended_size, disk_size;
    uint8_t *mended = read_all(q2_repair_file(repair), &mended_size);
    uint8_t *disk = disk_of(memory_of(mended, mended_size), &disk_size);
    if (disk)
        result.outcome =
            disk_size == subject->disk_size && memcmp(disk, subject->disk, disk_size) == 0 ? SAME
                                                                                           : OTHER;
    result.clean = q2_check_exit(q2_repair_after(repair)) == Q2_EXIT_CLEAN;
    sum_up(repair, &result);
    free(disk);
    free(mended);
    q2_repair_free(repair);
    q2_file_close(file);
    return result;
}

/* ---- flipped bits ---- */

struct tally {
    unsigned tried, same, refused, clean;
};

/* Whether the damaged image reads otherwise than it should while a check finds nothing at all. */
static bool
is_invisible(const uint8_t *bytes, uint64_t size)
{
    struct q2_check *check;
    struct q2_file *file = memory_of(bytes, size);
    cr_assert_eq(q2_check_run(file, &(struct q2_check_options){.deep = true, .threads = 1}, &check,
                              NULL),
                 0);
    bool clean = q2_check_exit(check) == Q2_EXIT_CLEAN;
    q2_check_free(check);
    q2_file_close(file);
    return clean;
}

static void
flip(struct subject *subject, const struct entry *entry, unsigned bit, struct tally *tally)
{
    uint8_t *byte = &subject->bytes[entry->offset + 7 - bit / 8];
    *byte ^= (uint8_t)(1U << bit % 8);
    if (!is_invisible(subject->bytes, subject->size)) {
        struct result result =
            repair_damaged(subject, subject->bytes, subject->size, Q2_LEVEL_CERTAIN);
        cr_expect_neq(result.outcome, OTHER, "%s bit %u reads something else", entry->name, bit);
        tally->tried++;
        tally->same += result.outcome == SAME;
        tally->refused += result.outcome == REFUSED;
        tally->clean += result.clean;
        if (result.outcome != SAME || !result.clean)
            fprintf(stderr, "%s bit %u: outcome %d clean %d\n", entry->name, bit, result.outcome,
                    result.clean);
    }
    *byte ^= (uint8_t)(1U << bit % 8);
}

static void
flip_all(const char *text, unsigned percent)
{
    struct subject *subject = subject_of(text);
    struct tally tally = {0};
    size_t step = subject->count / 3 + 1;
    /* Every second bit of each, those in between of its neighbour, unless all are asked for. */
    unsigned every = getenv("QCOW2KIT_TEST_ALL") ? 1 : 2;
    for (size_t i = 0; i < subject->count; i += step)
        for (unsigned bit = (unsigned)(i / step) % every; bit < 64; bit += every)
            flip(subject, &subject->entries[i], bit, &tally);
    fprintf(stderr, "%u tried, %u same, %u refused, %u clean\n", tally.tried, tally.same,
            tally.refused, tally.clean);
    cr_expect(tally.same * 100 >= tally.tried * percent, "%u of %u recovered", tally.same,
              tally.tried);
    subject_free(subject);
}

Test(repair_entries, flips_in_a_plain_image)
{
    flip_all("size 1M\ncluster-size 4K\nwrite 0 300K random\nwrite 512K 100K random 2\n", 100);
}

Test(repair_entries, flips_in_a_large_cluster_image)
{
    flip_all("size 4M\nwrite 0 1M random\nwrite 2M 300K random 2\n", 100);
}

Test(repair_entries, flips_in_a_version_2_image)
{
    flip_all("version 2\nsize 1M\ncluster-size 512\nwrite 0 100K random\n", 100);
}

Test(repair_entries, flips_under_a_snapshot)
{
    flip_all("size 1M\ncluster-size 4K\nwrite 0 200K random\nsnapshot a\nwrite 40K 80K random 2\n",
             100);
}

Test(repair_entries, flips_among_compressed_clusters)
{
    flip_all("size 1M\ncluster-size 4K\nwrite-compressed 0 200K text\nwrite 300K 40K random\n",
             100);
}

Test(repair_entries, flips_among_subclusters)
{
    flip_all("extended-l2\ncluster-size 16K\nsize 1M\nwrite 0 200K random\n"
             "subclusters 256K alloc=0x0000ffff zero=0xff000000 pattern 0x22\n",
             90);
}
