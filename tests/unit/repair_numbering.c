/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Lost L2 tables whose data is numbered: all L1 entries are lost, and the tables lie in the file in
 * an order that says nothing. */

#include "repair/fix.h"
#include "tests/unit/repair_disks.h"

/* Tables of 32 KiB each, made in the order of slots 20, 3, 9, 0, 14. */
#define MIXED                                                                   \
    "size 1M\ncluster-size 512\nwrite 640K 32K random 1\nwrite 96K 24K random " \
    "2\nwrite 288K 16K random 3\nwrite 0 20K random 4\nwrite 448K 32K random 5\n"
#define CLUSTERS  2048
#define PER_TABLE 64

struct numbers {
    unsigned at;     /* in a cluster, bytes */
    bool little;     /* byte order */
    uint32_t step;   /* per cluster */
    uint32_t origin; /* what the first cluster of the disk has */
    unsigned skip;   /* only every so many clusters have one */
};

static uint64_t
l1_of(struct q2_file *file)
{
    return word_at(file, 40);
}

static void
write_numbers(struct q2_file *file, const struct numbers *numbers)
{
    for (uint64_t slot = 0; slot < CLUSTERS / PER_TABLE; slot++) {
        uint64_t table = q2_entry_offset(word_at(file, l1_of(file) + slot * 8));
        for (uint64_t i = 0; table && i < PER_TABLE; i++) {
            uint64_t cluster = slot * PER_TABLE + i;
            uint64_t data = q2_entry_offset(word_at(file, table + i * 8));
            uint32_t value = numbers->origin + (uint32_t)cluster * numbers->step;
            uint8_t bytes[4];
            q2_store_be32(bytes, numbers->little ? __builtin_bswap32(value) : value);
            if (data && cluster % numbers->skip == 0)
                cr_assert_eq(q2_file_write(file, data + numbers->at, bytes, 4, NULL), 0);
        }
    }
}

static void
lose_l1(struct q2_file *file)
{
    const uint8_t zeros[CLUSTERS / PER_TABLE * 8] = {0};
    cr_assert_eq(q2_file_write(file, l1_of(file), zeros, sizeof zeros, NULL), 0);
}

/* Slots that have their table again; the others must be empty, unless `wrong` counts them. */
static unsigned
right_slots(struct q2_file *healthy, struct q2_file *mended, unsigned *wrong)
{
    unsigned right = 0;
    for (uint64_t slot = 0; slot < CLUSTERS / PER_TABLE; slot++) {
        uint64_t want = q2_entry_offset(word_at(healthy, l1_of(healthy) + slot * 8));
        uint64_t got = q2_entry_offset(word_at(mended, l1_of(mended) + slot * 8));
        right += want && got == want;
        *wrong += got && got != want;
    }
    return right;
}

static unsigned
recover(enum q2_repair_level level, const struct numbers *numbers, unsigned *wrong)
{
    Q2_AUTOCLOSE struct q2_file *healthy = build_image(MIXED);
    Q2_AUTOCLOSE struct q2_file *file = build_image(MIXED);
    if (numbers)
        write_numbers(file, numbers);
    lose_l1(file);
    struct q2_scene *scene = scene_on(file, level, false);
    run_fix(scene, q2_fix_tables);
    *wrong = 0;
    unsigned right = right_slots(healthy, scene->file, wrong);
    q2_scene_close(scene);
    return right;
}

Test(repair_numbering, numbers_tell_slots)
{
    static const struct numbers all[] = {
        {.at = 8, .step = 1, .skip = 1},                    /* by block */
        {.at = 40, .little = true, .step = 8, .skip = 1},   /* by sector of a file system */
        {.at = 508, .step = 512, .skip = 3},                /* in bytes; in some clusters only */
        {.at = 4, .step = 2, .origin = 0U - 10, .skip = 1}, /* of a partition */
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        unsigned wrong;
        cr_expect_eq(recover(Q2_LEVEL_LIKELY, &all[i], &wrong), 5, "case %d", (int)i);
        cr_expect_eq(wrong, 0, "case %d", (int)i);
        cr_expect_eq(recover(Q2_LEVEL_CERTAIN, &all[i], &wrong), 0, "never certain");
    }
}

/* Without numbers, and with those that repeat in each table, nothing is likely. */
Test(repair_numbering, nothing_is_read_into_data)
{
    static const struct numbers repeated = {.at = 8, .step = 1U << 26, .skip = 1};
    unsigned wrong;
    cr_expect_eq(recover(Q2_LEVEL_LIKELY, NULL, &wrong), 0);
    cr_expect_eq(wrong, 0);
    cr_expect_eq(recover(Q2_LEVEL_LIKELY, &repeated, &wrong), 0);
    cr_expect_eq(wrong, 0);
}

/* One table, with others in place: these say from where on the numbers count. */
Test(repair_numbering, tables_in_place_say_where_numbers_begin)
{
    const struct numbers numbers = {.at = 16, .step = 8, .origin = 1000000, .skip = 1};
    Q2_AUTOCLOSE struct q2_file *healthy = build_image(MIXED);
    Q2_AUTOCLOSE struct q2_file *file = build_image(MIXED);
    const uint8_t zeros[8] = {0};
    unsigned wrong = 0;
    write_numbers(file, &numbers);
    cr_assert_eq(q2_file_write(file, l1_of(file) + 3 * sizeof zeros, zeros, sizeof zeros, NULL), 0);
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_LIKELY, false);
    run_fix(scene, q2_fix_tables);
    cr_expect_eq(right_slots(healthy, scene->file, &wrong), 5);
    cr_expect_eq(wrong, 0);
    q2_scene_close(scene);
}
