/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Bitmaps under repair: what is sound stays, bit by bit; what is not goes and is named; and what
 * leads to bitmaps is mended where a sound directory or table says how. */

#include "core/base/zeros.h"
#include "repair/fix.h"
#include "repair/repair.h"
#include "tests/unit/bitmap_images.h"

#define IMAGE                                                     \
    "cluster-size 4K\nsize 16M\nwrite 0 128K random\n"            \
    "bitmap one granularity 64K dirty 0 1M\n"                     \
    "bitmap two granularity 64K auto dirty 4M 1M dirty 12M 64K\n" \
    "bitmap three granularity 64K dirty 8M 64K\n"                 \
    "snapshot s\nwrite 64K 64K 0x11\n"

static const struct {
    const char *name, *dirty;
} bitmaps[] = {{"one", "0+1024"}, {"two", "4096+1024 12288+64"}, {"three", "8192+64"}};
enum { BITMAPS = sizeof bitmaps / sizeof bitmaps[0] };

/* ---- scenes ---- */

static const struct q2_scene_options scene_options = {.threads = 1};

static struct q2_scene *
scene_of(struct q2_file *image)
{
    struct q2_scene *scene = NULL;
    OK(q2_scene_open(image, &scene_options, Q2_LEVEL_CERTAIN, 0, &scene, &err));
    return scene;
}

static void
fix(struct q2_scene *scene)
{
    OK(q2_fix_bitmap_directory(scene, &err));
    OK(q2_scene_recheck(scene, &err));
    OK(q2_fix_bitmaps(scene, &err));
    OK(q2_scene_recheck(scene, &err));
    cr_assert_eq(scene->plan.failed, 0);
}

/* What was done, as "remove-bitmap remove-bitmaps". */
static const char *
done_by(const struct q2_plan *plan)
{
    static char text[400];
    size_t length = 0;
    text[0] = '\0';
    for (uint64_t i = 0; i < plan->count; i++)
        if (plan->actions[i].applied)
            length += (size_t)snprintf(text + length, sizeof text - length, "%s%s",
                                       length ? " " : "", q2_action_id(plan->actions[i].kind));
    return text;
}

static bool
evidence_has(const struct q2_plan *plan, const char *text)
{
    for (uint64_t i = 0; i < plan->count; i++)
        if (strstr(plan->actions[i].evidence, text))
            return true;
    return false;
}

static bool
answers(const struct q2_plan *plan, const char *id)
{
    for (uint64_t i = 0; i < plan->count; i++)
        for (uint64_t j = 0; j < plan->actions[i].answer_count; j++)
            if (strcmp(q2_problem_id(plan->actions[i].answers[j].problem), id) == 0)
                return true;
    return false;
}

/* Faults of bitmaps, beyond remarks. */
static uint64_t
faults(const struct q2_check *check)
{
    uint64_t count = 0;
    for (int p = 0; p < Q2_PROBLEM_COUNT; p++) {
        const struct q2_catalogue_entry *entry = q2_catalogue((enum q2_problem)p);
        if (strstr(entry->id, "bitmap") && entry->severity != Q2_SEVERITY_NOTE &&
            entry->repair != Q2_REPAIR_MANUAL)
            count += q2_check_problem_count(check, (enum q2_problem)p).count;
    }
    return count;
}

/* The bitmaps that a strict reader finds, with the bits that they always had. */
static const char *
left_in(struct q2_file *file)
{
    static char text[200];
    size_t length = 0;
    text[0] = '\0';
    Q2_AUTOCLOSE struct q2_file *copy = copy_of(file);
    struct q2_image *image = open_image(copy, 0);
    for (unsigned i = 0; i < q2_bitmap_count(image); i++) {
        struct q2_bitmap_info info = {0};
        OK(q2_bitmap_info(image, i, &info, &err));
        length += (size_t)snprintf(text + length, sizeof text - length, "%s%s", length ? " " : "",
                                   info.name);
        for (unsigned j = 0; j < BITMAPS; j++)
            if (!info.in_use && strcmp(info.name, bitmaps[j].name) == 0)
                cr_expect_str_eq(dirty_of(image, info.name), bitmaps[j].dirty, "%s", info.name);
    }
    close_image(image);
    return text;
}

/* ---- each fault ---- */

static const struct fault_row {
    const char *damage;  /* lines of a recipe */
    const char *problem; /* that it provokes; NULL: none */
    const char *done, *left;
    const char *evidence; /* part of it; NULL: any */
} rows[] = {
    {"", NULL, "", "one two three", NULL},
    {"bitmap[1].flags |= 1", "bitmap-in-use", "", "one two three", NULL},
    {"bitmap[1].flags |= 0x40", "bitmap-flags", "remove-bitmap", "one three", "'two'"},
    {"bitmap[0].type = 2", "bitmap-type", "remove-bitmap", "two three", "bitmap-type"},
    {"bitmap[2].granularity_bits = 7", "bitmap-granularity", "remove-bitmap", "one two", NULL},
    {"bitmap[1].table_size = 2", "bitmap-table-size", "remove-bitmap", "one three", NULL},
    {"bitmap[1].table_size = 0", "bitmap-table-size", "remove-bitmap", "one three", NULL},
    {"bitmap[1].table[0] |= 2", "bitmap-entry-reserved", "remove-bitmap", "one three", NULL},
    {"bitmap[1].table[0] |= 1 << 50", "bitmap-entry-past-end", "remove-bitmap", "one three", NULL},
    {"bitmap[1].table[0] |= 1 << 9", "bitmap-entry-unaligned", "remove-bitmap", "one three", NULL},
    {"bitmap[1].table_offset = 0", "bitmap-table-unaligned", "remove-bitmap", "one three", NULL},
    {"bitmap[1].name = \"one\"", "bitmap-name-duplicate", "remove-bitmap remove-bitmap", "three",
     NULL},
    {"bitmap[1].table_offset = bitmap[0].table_offset", "overlap-bitmaps",
     "remove-bitmap remove-bitmap", "three", "shares"},
    {"bitmap[1].table[0].offset = bitmap[2].table[0].offset", "overlap-bitmaps",
     "remove-bitmap remove-bitmap", "one", "'three'"},
    {"bitmap[1].table_offset = bitmap[2].table[0].offset", "overlap-bitmaps",
     "remove-bitmap remove-bitmap", "one", "'two'"},
    {"bitmap[0].type = 2\nbitmap[1].type = 2\nbitmap[2].type = 3", "bitmap-type",
     "remove-bitmap remove-bitmap remove-bitmap remove-bitmaps", "", "no bitmap is left"},
    {"bitmap[0].type = 2\nbitmap[2].type = 3", "bitmap-type", "remove-bitmap remove-bitmap", "two",
     NULL},
    {"byte[offset(bitmap[1].name) + 3] = \"junk\"", "bitmap-padding", "mend-bitmap",
     "one two three", "pads"},
    {"byte[offset(bitmap[1].name) + 3] = \"junk\"\nbitmap[0].type = 4", "bitmap-padding",
     "remove-bitmap mend-bitmap", "two three", NULL},
    /* Numbers that a sound directory contradicts. */
    {"bitmaps.nb_bitmaps = 2", "bitmap-directory-size", "mend-bitmap", "one two three", "number"},
    {"bitmaps.nb_bitmaps = 7", "bitmap-directory-size", "mend-bitmap", "one two three", NULL},
    {"bitmaps.nb_bitmaps = 0", "extension-bitmaps-fields", "mend-bitmap", "one two three", NULL},
    {"bitmaps.nb_bitmaps = 0xffff0003", "extension-bitmaps-fields", "mend-bitmap", "one two three",
     NULL},
    {"bitmaps.reserved = 8", "extension-bitmaps-fields", "mend-bitmap", "one two three", NULL},
    {"bitmaps.directory_size = 64", "bitmap-directory-size", "mend-bitmap", "one two three", NULL},
    {"bitmaps.directory_size = 0x61", "bitmap-directory-size", "mend-bitmap", "one two three",
     NULL},
    {"bitmaps.directory_size |= 1 << 60", "bitmap-directory-size", "mend-bitmap", "one two three",
     NULL},
    {"bitmaps.directory_offset |= 1 << 40", "bitmap-directory-past-end", "mend-bitmap",
     "one two three", NULL},
    {"bitmaps.directory_offset |= 1 << 3", "bitmap-directory-unaligned", "mend-bitmap",
     "one two three", NULL},
    {"bitmaps.directory_offset = 0", "bitmap-directory-unaligned", "remove-bitmaps", "", "broken"},
    {"bitmaps.directory_offset |= 1 << 40\nbitmaps.nb_bitmaps = 2", "bitmap-directory-past-end",
     "remove-bitmaps", "", "broken"},
    {"bitmaps.directory_size = 80\nbitmaps.nb_bitmaps = 4", "bitmap-directory-size",
     "remove-bitmaps", "", NULL},
    {"extension[0].length = 32", "extension-bitmaps-length", "mend-extensions", "one two three",
     NULL},
    {"extension[0].length = 16", "extension-bitmaps-length", "mend-extensions", "one two three",
     NULL},
    {"bitmaps.nb_bitmaps = 9\nextension[0].length = 32", "extension-bitmaps-length",
     "remove-bitmaps", "", "wrong length"},
    {"extension[0].type = 0x23852865", "extension-bitmaps-missing", "mend-extensions",
     "one two three", "one bit away"},
    {"extension[0].type = 0x23852866", "extension-bitmaps-missing", "mend-features", "", "vouch"},
    {"header.autoclear_features = 0", "extension-bitmaps-stale", "remove-bitmaps", "",
     "'one', 'two', 'three'"},
    {"header.autoclear_features = 0\nbitmaps.nb_bitmaps = 2", "extension-bitmaps-stale",
     "remove-bitmaps", "", "'two'"},
    /* Tables one bit away. */
    {"bitmap[1].table_offset |= 1 << 50", "bitmap-table-past-end", "mend-bitmap", "one two three",
     "'two'"},
    {"bitmap[1].table_offset |= 1 << 9", "bitmap-table-unaligned", "mend-bitmap", "one two three",
     NULL},
    {"bitmap[1].table_offset |= 1 << 50\nbitmap[1].table[0].offset = bitmap[0].table[0].offset",
     "bitmap-table-past-end", "remove-bitmap", "one three", NULL},
    {"bitmap[1].table_offset |= 1 << 50\nbitmap[1].flags = 8", "bitmap-table-past-end",
     "remove-bitmap", "one three", NULL},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

static struct q2_file *
damaged(const struct fault_row *row)
{
    char text[1024];
    snprintf(text, sizeof text, IMAGE "%s\n", row->damage);
    return build_image(text);
}

Test(repair_bitmaps, mends_or_removes_what_is_broken_and_nothing_else)
{
    for (unsigned i = 0; i < ROWS; i++) {
        const struct fault_row *row = &rows[i];
        Q2_AUTOCLOSE struct q2_file *image = damaged(row);
        struct q2_scene *scene = scene_of(image);
        enum q2_problem problem = Q2_PROBLEM_COUNT;
        if (row->problem) {
            cr_assert(q2_problem_find(row->problem, &problem));
            cr_expect(q2_scene_count(scene, problem), "%s: no %s", row->damage, row->problem);
        }
        fix(scene);
        cr_expect_str_eq(done_by(&scene->plan), row->done, "%s: %s", row->damage,
                         done_by(&scene->plan));
        cr_expect_str_eq(left_in(scene->file), row->left, "%s: %s", row->damage,
                         left_in(scene->file));
        cr_expect_eq(faults(scene->check), 0, "%s", row->damage);
        cr_expect(!row->evidence || evidence_has(&scene->plan, row->evidence), "%s", row->damage);
        cr_expect(!row->done[0] || answers(&scene->plan, row->problem), "%s", row->damage);
        cr_expect_eq(scene->check->snapshot_count, 1);
        q2_scene_close(scene);
    }
}

/* The second run finds nothing to do. */
Test(repair_bitmaps, does_it_once)
{
    for (unsigned i = 0; i < ROWS; i++) {
        Q2_AUTOCLOSE struct q2_file *image = damaged(&rows[i]);
        struct q2_scene *scene = scene_of(image);
        fix(scene);
        Q2_AUTOCLOSE struct q2_file *mended = copy_of(scene->file);
        struct q2_scene *again = scene_of(mended);
        fix(again);
        cr_expect_eq(again->plan.count, 0, "%s: %s", rows[i].damage, done_by(&again->plan));
        cr_expect_eq(again->check, again->before);
        q2_scene_close(again);
        q2_scene_close(scene);
    }
}

/* What a removed bitmap leaves behind in the directory is nothing that could come back. */
Test(repair_bitmaps, leaves_no_entry_behind)
{
    Q2_AUTOCLOSE struct q2_file *image = build_image(IMAGE "bitmap[1].type = 2\n");
    struct q2_scene *scene = scene_of(image);
    uint8_t entry[32] = {0};
    uint64_t at = scene->check->extensions.bitmap_directory_offset + 64;
    OK(q2_file_read(scene->file, at, entry, sizeof entry, &err));
    cr_assert(!q2_is_zero(entry, sizeof entry));
    fix(scene);
    OK(q2_file_read(scene->file, at, entry, sizeof entry, &err));
    cr_expect(q2_is_zero(entry, sizeof entry));
    q2_scene_close(scene);
}

/* An entry behind the directory whose table is free is one of a bitmap that was removed. */
Test(repair_bitmaps, does_not_bring_back_what_was_removed)
{
    Q2_AUTOCLOSE struct q2_file *image =
        build_image(IMAGE "bitmaps.directory_size = 64\n"
                          "refcount(bitmap[2].table_offset) = 0\n");
    struct q2_scene *scene = scene_of(image);
    fix(scene);
    cr_expect_str_eq(done_by(&scene->plan), "mend-bitmap");
    cr_expect_str_eq(left_in(scene->file), "one two");
    q2_scene_close(scene);
}

/* A length that is too long takes in what follows: that must not go with the bitmaps. */
Test(repair_bitmaps, gives_back_what_a_wrong_length_swallowed)
{
    for (unsigned sound = 0; sound < 2; sound++) {
        char text[1024];
        snprintf(text, sizeof text, "extension 0x12345678 \"something\"\n" IMAGE "%s%s",
                 "extension[0].length = 48\n", sound ? "" : "bitmaps.directory_offset = 0\n");
        Q2_AUTOCLOSE struct q2_file *image = build_image(text);
        struct q2_scene *scene = scene_of(image);
        cr_assert_eq(q2_scene_count(scene, Q2_PROBLEM_EXTENSION_BITMAPS_LENGTH), 1);
        cr_assert_eq(q2_scene_count(scene, Q2_PROBLEM_EXTENSION_UNKNOWN), 0);
        fix(scene);
        cr_expect_str_eq(done_by(&scene->plan), sound ? "mend-extensions" : "remove-bitmaps");
        cr_expect_eq(q2_scene_count(scene, Q2_PROBLEM_EXTENSION_UNKNOWN), 1);
        cr_expect_str_eq(left_in(scene->file), sound ? "one two three" : "");
        q2_scene_close(scene);
    }
}

/* Without leave, everything is told and nothing done. */
Test(repair_bitmaps, leaves_all_as_it_is_where_it_may_do_nothing)
{
    for (unsigned i = 0; i < ROWS; i++) {
        Q2_AUTOCLOSE struct q2_file *image = damaged(&rows[i]);
        struct q2_scene *scene = scene_of(image);
        scene->plan.level = Q2_LEVEL_LEAKS;
        fix(scene);
        cr_expect_eq(scene->check, scene->before, "%s", rows[i].damage);
        cr_expect_not(scene->edited);
        cr_expect_eq(scene->plan.count > 0, rows[i].done[0] != '\0', "%s", rows[i].damage);
        q2_scene_close(scene);
    }
}

/* ---- with all the rest ---- */

/* The proof agrees, and what comes out is clean but for what nobody can explain. */
Test(repair_bitmaps, is_proven)
{
    for (unsigned i = 0; i < ROWS; i++) {
        const struct q2_repair_options options = {.level = Q2_LEVEL_CERTAIN, .threads = 1};
        Q2_AUTOCLOSE struct q2_file *image = damaged(&rows[i]);
        struct q2_repair *repair = NULL;
        OK(q2_repair_plan(image, &options, &repair, &err));
        cr_expect_null(q2_repair_objection(repair, 0), "%s: %s", rows[i].damage,
                       q2_repair_objection(repair, 0));
        cr_expect_eq(faults(q2_repair_after(repair)), 0, "%s", rows[i].damage);
        cr_expect_str_eq(left_in(q2_repair_file(repair)), rows[i].left, "%s", rows[i].damage);
        if (strcmp(rows[i].left, "one two three") == 0)
            cr_expect_eq(check_exit(q2_repair_file(repair)), Q2_EXIT_CLEAN, "%s", rows[i].damage);
        q2_repair_free(repair);
    }
}

/* A bitmap whose bits another program may have written over is not to be relied on, even where the
 * guest's cluster has found its own place again. */
Test(repair_bitmaps, removes_what_shared_its_clusters)
{
    const struct q2_repair_options options = {.level = Q2_LEVEL_CERTAIN, .threads = 1};
    Q2_AUTOCLOSE struct q2_file *image =
        build_image(IMAGE "l2[0][3].offset = bitmap[1].table[0].offset\n");
    struct q2_repair *repair = NULL;
    OK(q2_repair_plan(image, &options, &repair, &err));
    cr_expect_str_eq(left_in(q2_repair_file(repair)), "one three");
    cr_expect(evidence_has(q2_repair_actions(repair), "did before this repair"));
    q2_repair_free(repair);
}

/* What cannot be read is not relied on. */
Test(repair_bitmaps, removes_what_cannot_be_read)
{
    static const struct {
        uint64_t at; /* of the bad spot, bytes */
        const char *done, *left;
    } spots[] = {{0x28000, "remove-bitmap", "one three"}, {0x3e000, "remove-bitmaps", ""}};
    for (unsigned i = 0; i < 2; i++) {
        const struct q2_fault_plan bad = {.kind = Q2_FAULT_EIO,
                                          .ops = Q2_FAULT_READ,
                                          .offset = spots[i].at,
                                          .length = 512};
        Q2_AUTOCLOSE struct q2_file *plain = build_image(IMAGE);
        struct q2_file *image = NULL;
        OK(q2_file_new_fault(plain, &bad, &image, &err));
        struct q2_scene *scene = scene_of(image);
        fix(scene);
        cr_expect_str_eq(done_by(&scene->plan), spots[i].done, "%s", done_by(&scene->plan));
        cr_expect_eq(faults(scene->check), 0);
        q2_scene_close(scene);
        q2_file_close(image);
    }
}
