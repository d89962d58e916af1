/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Bitmaps after power cuts and I/O errors: at every instant a bitmap is marked in use, or it knows
 * of all that differs from the time it was started. */

#include "tests/unit/bitmap_images.h"

#include "core/image/resize.h"
#include "core/io/record.h"

enum { DISK = 1 << 20, SECTOR = 512 };

/* `kept` and `cleared` are enabled and begin with the image; `idle` records nothing. */
static const char recipe[] = "cluster-size 512\nsize 1M\nwrite 0 100K 0x11\n"
                             "bitmap kept granularity 512 auto dirty 512K 3K\n"
                             "bitmap cleared granularity 4K auto dirty 0 1M\n"
                             "bitmap idle granularity 512 dirty 64K 64K\n"
                             "bitmap gone granularity 64K auto dirty 0 128K\n";

/* ---- what is done ---- */

/* Errors are what the tests are about; each step goes on with what the last one left. */
static void
scenario(struct q2_file *file)
{
    struct q2_image *image = NULL;
    unsigned index = 0;
    struct q2_image_options options = {.flags = Q2_IMAGE_WRITE, .format = Q2_DISK_QCOW2};
    if (q2_image_open_file(file, &options, &image, NULL) < 0)
        return;
    q2_image_write(image, 40 << 10, "one", 3, NULL);
    q2_image_write(image, 200 << 10, "two", 3, NULL);
    q2_bitmap_add(image, "added", 512, true, NULL);
    if (q2_bitmap_find(image, "gone", &index, NULL) == 0)
        q2_bitmap_remove(image, index, NULL);
    if (q2_bitmap_find(image, "idle", &index, NULL) == 0)
        q2_bitmap_set_enabled(image, index, true, NULL);
    q2_image_write(image, 300 << 10, "three", 5, NULL);
    q2_image_flush(image, NULL);
    q2_image_discard(image, 20 << 10, 8 << 10, NULL);
    q2_image_invalidate(image, NULL);
    q2_image_write(image, 700 << 10, "four", 4, NULL);
    q2_image_close(image, NULL);
}

/* ---- what must hold ---- */

static uint8_t *
content_of(struct q2_file *file)
{
    struct q2_image *image = open_image(file, 0);
    uint8_t *bytes = malloc(DISK);
    OK(q2_image_read(image, 0, bytes, DISK, &err));
    close_image(image);
    return bytes;
}

/* Each sector that differs from `before` is dirty; so is [from, from + length), in KiB. */
static void
assert_covers(struct q2_image *image, const char *name, const uint8_t *now, const uint8_t *before,
              uint64_t from, uint64_t length, const char *when)
{
    unsigned index = 0;
    struct q2_bitmap_info info = {0};
    if (q2_bitmap_find(image, name, &index, NULL) < 0)
        return;
    OK(q2_bitmap_info(image, index, &info, &err));
    if (info.in_use || !info.enabled)
        return;
    for (uint64_t at = 0, end = 0; at < DISK; at = end) {
        bool dirty = false;
        OK(q2_bitmap_extent(image, index, at, &dirty, &end, &err));
        if (dirty)
            continue;
        cr_assert(end <= from << 10 || at >= (from + length) << 10, "%s: %s forgot %zu", when, name,
                  (size_t)at);
        cr_assert_eq(memcmp(now + at, before + at, end - at), 0, "%s: %s misses %zu to %zu", when,
                     name, (size_t)at, (size_t)end);
    }
}

/* Clusters that were written or counted and are led to by nothing yet, or no longer. */
static bool
harmless(enum q2_problem problem)
{
    enum q2_severity severity = q2_catalogue(problem)->severity;
    return problem == Q2_PROBLEM_ORPHAN_L2_TABLE || problem == Q2_PROBLEM_REFCOUNT_BEYOND_END ||
           severity == Q2_SEVERITY_LEAK || severity == Q2_SEVERITY_NOTE;
}

static void
assert_harmless(struct q2_file *file, const char *when)
{
    struct q2_check *check = NULL;
    OK(q2_check_run(file, &(struct q2_check_options){.threads = 1}, &check, &err));
    for (size_t i = 0; i < q2_check_finding_count(check); i++)
        cr_assert(harmless(q2_check_finding(check, i)->problem), "%s: %s", when,
                  q2_problem_id(q2_check_finding(check, i)->problem));
    q2_check_free(check);
}

static void
assert_sound(struct q2_file *file, const uint8_t *before, const char *when)
{
    assert_harmless(file, when);
    uint8_t *now = content_of(file);
    struct q2_image *image = open_image(file, 0);
    assert_covers(image, "kept", now, before, 512, 3, when);
    assert_covers(image, "cleared", now, before, 0, 1024, when);
    assert_covers(image, "gone", now, before, 0, 128, when);
    close_image(image);
    free(now);
}

/* ---- power cuts ---- */

static bool
keep_none(size_t index, void *data)
{
    (void)index;
    (void)data;
    return false;
}

static bool
keep_odd(size_t index, void *data)
{
    (void)data;
    return index & 1;
}

static bool
keep_even(size_t index, void *data)
{
    (void)data;
    return !(index & 1);
}

Test(bitmaps_crash, leaves_each_bitmap_true_or_in_use)
{
    static bool (*const keeps[])(size_t, void *) = {NULL, keep_none, keep_odd, keep_even};
    Q2_AUTOCLOSE struct q2_file *base = build_image(recipe);
    Q2_AUTOCLOSE struct q2_file *original = copy_of(base);
    uint8_t *before = content_of(original);
    Q2_AUTOCLOSE struct q2_file *record = NULL;
    OK(q2_file_new_record(base, &record, &err));
    scenario(borrowed(record));
    cr_assert_gt(q2_record_count(record), 20);
    for (size_t count = 0; count <= q2_record_count(record); count++)
        for (unsigned keep = 0; keep < 4; keep++) {
            char when[64];
            snprintf(when, sizeof when, "cut after %zu, kept %u", count, keep);
            Q2_AUTOCLOSE struct q2_file *left = copy_of(original);
            OK(q2_record_replay(record, count, keeps[keep], NULL, left, &err));
            assert_sound(left, before, when);
        }
    /* In the end everything went well, and nothing is in use or leaked. */
    cr_assert_eq(check_exit(base), Q2_EXIT_CLEAN);
    struct q2_image *image = open_image(base, 0);
    cr_assert_eq(q2_bitmap_count(image), 4);
    cr_assert_str_eq(dirty_of(image, "added"), "20+8 300+0.5 700+0.5");
    cr_assert_str_eq(dirty_of(image, "idle"), "20+8 64+64 300+0.5 700+0.5");
    cr_assert_str_eq(dirty_of(image, "kept"), "20+8 40+0.5 200+0.5 300+0.5 512+3 700+0.5");
    close_image(image);
    free(before);
}

/* ---- I/O errors ---- */

static void
sweep(enum q2_fault_kind kind, bool permanent)
{
    Q2_AUTOCLOSE struct q2_file *original = build_image(recipe);
    uint8_t *before = content_of(original);
    for (uint64_t nth = 1, matched = nth; matched >= nth; nth++) {
        char when[64];
        struct q2_file *fault = NULL;
        struct q2_fault_plan plan = {.kind = kind,
                                     .ops = Q2_FAULT_ALL,
                                     .nth = nth,
                                     .permanent = permanent};
        Q2_AUTOCLOSE struct q2_file *base = copy_of(original);
        OK(q2_file_new_fault(base, &plan, &fault, &err));
        scenario(borrowed(fault));
        matched = q2_fault_matched(fault);
        q2_file_close(fault);
        snprintf(when, sizeof when, "fault %d at operation %zu", kind, (size_t)nth);
        assert_sound(base, before, when);
    }
    free(before);
}

Test(bitmaps_crash, no_error_makes_a_bitmap_lie)
{
    sweep(Q2_FAULT_EIO, false);
    sweep(Q2_FAULT_TORN, true);
}

Test(bitmaps_crash, no_lack_of_space_makes_a_bitmap_lie)
{
    sweep(Q2_FAULT_ENOSPC, false);
    sweep(Q2_FAULT_ENOSPC, true);
}

/* ---- storing and resizing that fail ---- */

static int
add_and_close(struct q2_file *file)
{
    struct q2_image *image = NULL;
    struct q2_image_options options = {.flags = Q2_IMAGE_WRITE, .format = Q2_DISK_QCOW2};
    if (q2_image_open_file(file, &options, &image, NULL) < 0)
        return 0;
    q2_bitmap_add(image, "b", 512, true, NULL);
    q2_image_write(image, 0, "one", 3, NULL);
    return q2_image_close(image, NULL);
}

Test(bitmaps_crash, what_could_not_be_stored_is_freed_again)
{
    unsigned freed = 0;
    Q2_AUTOCLOSE struct q2_file *original =
        build_image("cluster-size 512\nsize 1M\nwrite 0 4K 1\n");
    for (uint64_t nth = 1, matched = nth; matched >= nth; nth++) {
        struct q2_file *fault = NULL;
        struct q2_fault_plan plan = {.kind = Q2_FAULT_EIO, .ops = Q2_FAULT_WRITE, .nth = nth};
        Q2_AUTOCLOSE struct q2_file *base = copy_of(original);
        OK(q2_file_new_fault(base, &plan, &fault, &err));
        int rc = add_and_close(borrowed(fault));
        matched = q2_fault_matched(fault);
        q2_file_close(fault);
        freed += rc < 0 && check_exit(base) == Q2_EXIT_CLEAN;
    }
    cr_assert_geq(freed, 3, "%u", freed); /* writing bits, table and directory failed */
}

/* Grow, or shrink, with an error at each operation in turn: whatever size the disk has then, its
 * bitmaps have it too or are in use. Opening and checking are strict about that. */
static void
resize_sweep(uint64_t size)
{
    Q2_AUTOCLOSE struct q2_file *original = build_image(recipe);
    for (uint64_t nth = 1, matched = nth; matched >= nth; nth++) {
        char when[64];
        struct q2_image *image = NULL;
        struct q2_file *fault = NULL;
        struct q2_fault_plan plan = {.kind = Q2_FAULT_EIO, .ops = Q2_FAULT_ALL, .nth = nth};
        struct q2_image_options options = {.flags = Q2_IMAGE_WRITE, .format = Q2_DISK_QCOW2};
        Q2_AUTOCLOSE struct q2_file *base = copy_of(original);
        OK(q2_file_new_fault(base, &plan, &fault, &err));
        if (q2_image_open_file(borrowed(fault), &options, &image, NULL) == 0) {
            q2_image_resize(image, size, Q2_PREALLOCATION_OFF, NULL);
            q2_image_close(image, NULL);
        }
        matched = q2_fault_matched(fault);
        q2_file_close(fault);
        snprintf(when, sizeof when, "error at operation %zu", (size_t)nth);
        assert_harmless(base, when);
        close_image(open_image(base, Q2_IMAGE_WRITE));
    }
}

Test(bitmaps_crash, no_error_leaves_bitmaps_of_another_size_than_the_disk)
{
    resize_sweep(4 << 20);
    resize_sweep(256 << 10);
}
