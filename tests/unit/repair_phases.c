/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The order in which a repair is written: what nothing referred to first, then refcounts, then
 * tables, and the first cluster last. */

#include "repair/phases.h"
#include "tests/unit/repair_disks.h"

/* Host clusters: header, refcount table, refcount block, L1 table, L2 table, 16 of data, a leak. */
#define PLAIN "cluster-size 4K\nsize 1M\nwrite 0 64K random\nleak 1 random\n"
enum { CLUSTER = 4096, END = 22 };

static void
expect_phases(const char *image, uint64_t new_block, const enum q2_apply_phase *wanted,
              uint64_t count)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(image);
    struct q2_scene *scene = scene_on(file, Q2_LEVEL_CERTAIN, false);
    struct q2_phases *phases = NULL;
    struct q2_error err = {0};
    if (new_block) {
        uint8_t block[CLUSTER];
        cr_assert_eq(q2_file_read(file, 2 * CLUSTER, block, sizeof block, NULL), 0);
        cr_assert_eq(q2_scene_write(scene, Q2_OWNER_REFCOUNT_BLOCK, new_block * CLUSTER, block,
                                    sizeof block, NULL),
                     0);
        cr_assert_eq(q2_scene_write64(scene, Q2_OWNER_REFCOUNT_TABLE, CLUSTER, new_block * CLUSTER,
                                      NULL),
                     0);
        cr_assert_eq(q2_scene_recheck(scene, NULL), 0);
    }
    cr_assert_eq(q2_phases_new(scene, &phases, &err), 0, "%s", err.message);
    for (uint64_t i = 0; i < count * 8; i++) {
        uint64_t end = 0, offset = i * CLUSTER / 8 + 5;
        cr_expect_eq(q2_phases_of(phases, offset, &end), wanted[i / 8], "cluster %d", (int)(i / 8));
        cr_expect_eq(end, (i / 8 + 1) * CLUSTER, "ends at %d", (int)end);
    }
    q2_phases_free(phases);
    q2_scene_close(scene);
}

#define SOME_DATA                                                                            \
    Q2_PHASE_TABLES, Q2_PHASE_TABLES, Q2_PHASE_TABLES, Q2_PHASE_TABLES, Q2_PHASE_TABLES,     \
        Q2_PHASE_TABLES, Q2_PHASE_TABLES, Q2_PHASE_TABLES, Q2_PHASE_TABLES, Q2_PHASE_TABLES, \
        Q2_PHASE_TABLES, Q2_PHASE_TABLES, Q2_PHASE_TABLES, Q2_PHASE_TABLES, Q2_PHASE_TABLES, \
        Q2_PHASE_TABLES

Test(repair_phases, of_an_image_as_it_is)
{
    static const enum q2_apply_phase wanted[] = {
        Q2_PHASE_HEADER,                     /* */
        Q2_PHASE_REFCOUNTS,                  /* their table */
        Q2_PHASE_REFCOUNTS, Q2_PHASE_TABLES, /* L1 */
        Q2_PHASE_TABLES,                     /* L2 */
        SOME_DATA,          Q2_PHASE_NEW,    /* leaked */
        Q2_PHASE_NEW,                        /* behind the end */
    };
    expect_phases(PLAIN, 0, wanted, END + 1);
}

/* A new refcount block goes where nothing is, so it comes before what leads to it. The old one was
 * referred to, but is none any more. */
Test(repair_phases, of_a_new_refcount_block)
{
    static const enum q2_apply_phase wanted[] = {
        Q2_PHASE_HEADER, Q2_PHASE_REFCOUNTS, Q2_PHASE_TABLES, Q2_PHASE_TABLES, Q2_PHASE_TABLES,
        SOME_DATA,       Q2_PHASE_NEW,       Q2_PHASE_NEW,    Q2_PHASE_NEW,
    };
    expect_phases(PLAIN, END, wanted, END + 2);
}

/* Where a damaged table was not known to refer to anything, all of the file could be in use. */
Test(repair_phases, without_a_header)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(PLAIN);
    Q2_AUTOCLOSE struct q2_file *broken = build_image(PLAIN "zero-fill 0 512\n");
    struct content healthy = content_of(file);
    struct q2_scene *scene = scene_on(broken, Q2_LEVEL_CERTAIN, false);
    struct q2_phases *phases = NULL;
    uint64_t end;
    cr_assert_null(scene->before);
    cr_assert_eq(q2_scene_write(scene, Q2_OWNER_HEADER, 0, healthy.bytes, 512, NULL), 0);
    cr_assert_eq(q2_scene_recheck(scene, NULL), 0);
    cr_assert_eq(q2_phases_new(scene, &phases, NULL), 0);
    for (uint64_t i = 0; i < END + 2; i++)
        cr_expect_eq(q2_phases_of(phases, i * CLUSTER, &end),
                     i == 0             ? Q2_PHASE_HEADER
                     : i == 1 || i == 2 ? Q2_PHASE_REFCOUNTS
                                        : Q2_PHASE_TABLES,
                     "cluster %d", (int)i);
    q2_phases_free(phases);
    q2_scene_close(scene);
    free(healthy.bytes);
}

Test(repair_phases, free_takes_nothing)
{
    q2_phases_free(NULL);
}
