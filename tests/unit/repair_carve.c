/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What carving finds among lost clusters, and what it says of it. */

#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "repair/carve.h"
#include "repair/l1_find.h"
#include "tests/unit/images.h"

#include <criterion/criterion.h>
#include <string.h>

struct found {
    struct q2_file *file;
    struct q2_scene *scene;
    struct q2_survey *survey;
    struct q2_slots *slots;
    struct q2_carving *carving;
};

static const struct q2_scene_options one_thread = {.threads = 1};

static struct found
carve(const char *text)
{
    struct found found = {0};
    struct q2_error err = {0};
    found.file = build_image(text);
    cr_assert_eq(q2_scene_open(found.file, &one_thread, Q2_LEVEL_CERTAIN, 0, &found.scene, &err), 0,
                 "%s", err.message);
    cr_assert_eq(q2_survey_take(found.scene, false, &found.survey, &err), 0, "%s", err.message);
    cr_assert_eq(q2_slots_load(found.survey, &found.slots, &err), 0, "%s", err.message);
    cr_assert_eq(q2_carve(found.slots, &found.carving, &err), 0, "%s", err.message);
    return found;
}

static void
done(struct found *found)
{
    q2_carving_free(found->carving);
    q2_slots_free(found->slots);
    q2_survey_free(found->survey);
    cr_expect_eq(atomic_load(&found->scene->budget.used), 0, "memory is given back");
    q2_scene_close(found->scene);
    q2_file_close(found->file);
}

#define DISK                                                                     \
    "size 1M\ncluster-size 512\nwrite 0 96K random 1\nwrite 512K 64K random 2\n" \
    "write 900K 1K random 3\n"

Test(repair_carve, nothing_in_a_healthy_image)
{
    struct found found = carve(DISK);
    cr_expect_eq(found.carving->count, 0);
    done(&found);
}

Test(repair_carve, a_lost_table)
{
    struct found found = carve(DISK "l1[1] = 0\n");
    cr_assert_eq(found.carving->count, 1);
    const struct q2_carved *table = &found.carving->tables[0];
    cr_expect(q2_carved_is_l2(found.carving, table));
    cr_expect_eq(table->facts.look.mapped, 64);
    cr_expect_eq(table->facts.room, 64);
    cr_expect_eq(table->facts.own_copied, 64);
    cr_expect_eq(table->facts.head, 64);
    cr_expect_eq(table->facts.tail, 64);
    cr_expect(table->facts.ascending);
    cr_expect_eq(table->home, Q2_NO_SLOT);
    cr_expect_eq(q2_carved_at(found.carving, table->offset), table);
    cr_expect_null(q2_carved_at(found.carving, table->offset + 512));
    done(&found);
}

/* A table that shares data with a snapshot's belongs into the same slot. */
Test(repair_carve, a_table_that_shares_data)
{
    struct found found = carve(DISK "snapshot a\nwrite 40K 512 random 4\nl1[1] = 0\n");
    cr_assert_eq(found.carving->count, 1);
    cr_expect(q2_carved_is_l2(found.carving, &found.carving->tables[0]));
    cr_expect_eq(found.carving->tables[0].facts.shared, 63);
    cr_expect_eq(found.carving->tables[0].home, 1);
    done(&found);
}

/* One whose data is in use elsewhere in the disk is a leftover. */
Test(repair_carve, a_stale_table)
{
    struct found found = carve(DISK "l2[2][7] = l2[1][0]\nl1[1] = 0\n");
    cr_assert_eq(found.carving->count, 1);
    cr_expect(found.carving->tables[0].stale);
    cr_expect(!q2_carved_is_l2(found.carving, &found.carving->tables[0]));
    done(&found);
}

/* Refcounts have no room for it, so that its data was given up. */
Test(repair_carve, a_table_of_freed_data)
{
    struct found found =
        carve(DISK "refcount(l2[1][5].offset) = 0\nrefcount(l2[1][6].offset) = 0\nl1[1] = 0\n");
    cr_assert_eq(found.carving->count, 1);
    cr_expect_eq(found.carving->tables[0].facts.room, 62);
    cr_expect(!q2_carved_is_l2(found.carving, &found.carving->tables[0]));
    done(&found);
}

Test(repair_carve, a_lost_l1_table)
{
    struct found found = carve(DISK "snapshot a\nwrite 0 96K random 5\nheader.nb_snapshots = 0\n");
    unsigned l1 = 0, l2 = 0;
    uint64_t offset = 0, near;
    struct q2_l1_look look;
    for (uint64_t i = 0; i < found.carving->count; i++) {
        const struct q2_carved *table = &found.carving->tables[i];
        l1 += table->is_l1;
        l2 += q2_carved_is_l2(found.carving, table);
        if (table->is_l1)
            offset = table->offset;
        else
            cr_expect_eq(table->leads, 1);
    }
    cr_assert_eq(l1, 1);
    cr_expect_eq(l2, 3);
    q2_l1_look(found.carving, offset, 32, &look);
    cr_expect(q2_l1_credible(&look));
    cr_expect_eq(look.lost, 3);
    cr_expect_eq(look.astray, 0);
    cr_expect(q2_l1_is_lost(found.carving, offset, 32));
    cr_expect(!q2_l1_is_lost(found.carving, found.scene->check->header.l1_table_offset, 32));
    q2_l1_near(found.carving, offset ^ UINT64_C(1) << 30, 32, &near);
    cr_expect_eq(near, offset);
    q2_l1_near(found.carving, offset ^ UINT64_C(5) << 30, 32, &near);
    cr_expect_eq(near, 0);
    done(&found);
}

/* Noise is no table, however much of it there is. */
Test(repair_carve, leaked_noise)
{
    struct found found = carve(DISK "leak 200 random 6\nleak 20 text\nleak 20 0x00\n");
    cr_expect_eq(found.carving->count, 0);
    done(&found);
}
