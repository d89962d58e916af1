/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Overlays: what is read is base plus edits, the base never changes, and the edits that are visited
 * are all that it takes to make a copy of the base the same. */

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/io/fault.h"
#include "core/io/memory.h"
#include "core/io/overlay.h"
#include "tests/unit/overlays.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---- collecting what is visited ---- */

struct seen {
    struct q2_edit edits[64];
    uint8_t first_bytes[64];
    size_t count;
    uint64_t end; /* of the last one */
    uint64_t bytes;
    int stop_after;
};

static int
collect(const struct q2_edit *edit, void *data)
{
    struct seen *seen = data;
    cr_assert_geq(edit->offset, seen->end, "ascending, never overlapping");
    cr_assert_gt(edit->length, 0);
    cr_assert(!edit->bytes || edit->length <= Q2_EDIT_LENGTH_MAX);
    if (seen->count < 64) {
        seen->edits[seen->count] = *edit;
        seen->first_bytes[seen->count] = edit->bytes ? edit->bytes[0] : 0;
    }
    seen->count++;
    seen->end = edit->offset + edit->length;
    seen->bytes += edit->length;
    return seen->stop_after && seen->count == (size_t)seen->stop_after ? Q2_ERR_STOPPED : 1;
}

static struct seen
visit_all(struct q2_file *overlay)
{
    struct seen seen = {0};
    cr_assert_eq(q2_overlay_visit(overlay, collect, &seen), 0);
    return seen;
}

static void
expect_edit(const struct seen *seen, size_t index, uint64_t offset, uint64_t length, bool punched)
{
    const struct q2_edit *edit = &seen->edits[index];
    cr_assert_lt(index, seen->count);
    cr_assert(edit->offset == offset && edit->length == length && !edit->bytes == punched,
              "edit %zu is [%lu, +%lu)%s", index, (unsigned long)edit->offset,
              (unsigned long)edit->length, edit->bytes ? "" : " punched");
}

/* ---- reading and writing ---- */

Test(overlay, reads_the_base_until_written)
{
    struct setup setup = setup_new();
    setup_overlay(&setup, 1 << 20);
    uint8_t back[BASE_SIZE];
    cr_assert_eq(size_of(setup.overlay), BASE_SIZE);
    cr_assert_str_eq(setup.overlay->name, "base");
    cr_assert(setup.overlay->writable);
    cr_assert_eq(q2_file_read(setup.overlay, 0, back, BASE_SIZE, NULL), 0);
    cr_assert_arr_eq(back, setup.bytes, BASE_SIZE);
    cr_assert_eq(visit_all(setup.overlay).count, 0);
    cr_assert_eq(setup.budget.used, 0);
    setup_free(&setup);
}

Test(overlay, writes_need_no_writable_base)
{
    struct setup setup = setup_new();
    setup.base->writable = false;
    setup_overlay(&setup, 1 << 20);
    uint8_t back[4];
    cr_assert_eq(q2_file_write(setup.overlay, 10, "ab", 2, NULL), 0);
    cr_assert_eq(q2_file_flush(setup.overlay, NULL), 0);
    cr_assert_eq(q2_file_read(setup.overlay, 9, back, 4, NULL), 0);
    cr_assert_eq(back[0], setup.bytes[9]);
    cr_assert_arr_eq(back + 1, "ab", 2);
    cr_assert_eq(back[3], setup.bytes[12]);
    setup_free(&setup);
}

Test(overlay, edits_are_exact_to_the_byte_and_merged)
{
    struct setup setup = setup_new();
    setup_overlay(&setup, 1 << 20);
    struct q2_file *overlay = setup.overlay;
    uint8_t big[2 * BLOCK];
    memset(big, 0x99, sizeof big);
    cr_assert_eq(q2_file_write(overlay, 4000, big, sizeof big, NULL), 0);
    cr_assert_eq(q2_file_write(overlay, 100, "b", 1, NULL), 0);
    cr_assert_eq(q2_file_write(overlay, 99, "a", 1, NULL), 0);
    cr_assert_eq(q2_file_write(overlay, 102, "c", 1, NULL), 0);
    cr_assert_eq(q2_file_write(overlay, 4000 + sizeof big, "d", 1, NULL), 0);
    struct seen seen = visit_all(overlay);
    cr_assert_eq(seen.count, 3);
    expect_edit(&seen, 0, 99, 2, false);
    expect_edit(&seen, 1, 102, 1, false);
    expect_edit(&seen, 2, 4000, sizeof big + 1, false);
    cr_assert_eq(seen.first_bytes[0], 'a');
    cr_assert_eq(seen.first_bytes[1], 'c');
    setup_free(&setup);
}

Test(overlay, an_edit_that_changes_nothing_is_still_one)
{
    struct setup setup = setup_new();
    setup_overlay(&setup, 1 << 20);
    cr_assert_eq(q2_file_write(setup.overlay, 5, setup.bytes + 5, 3, NULL), 0);
    struct seen seen = visit_all(setup.overlay);
    cr_assert_eq(seen.count, 1);
    expect_edit(&seen, 0, 5, 3, false);
    setup_free(&setup);
}

Test(overlay, long_runs_come_in_pieces_that_touch)
{
    struct setup setup = setup_new();
    setup_overlay(&setup, 16 << 20);
    size_t length = 2 * Q2_EDIT_LENGTH_MAX + 1000;
    uint8_t *bytes = malloc(length);
    memset(bytes, 0x31, length);
    cr_assert_eq(q2_file_write(setup.overlay, 333, bytes, length, NULL), 0);
    struct seen seen = visit_all(setup.overlay);
    cr_assert_eq(seen.count, 3);
    expect_edit(&seen, 0, 333, Q2_EDIT_LENGTH_MAX, false);
    expect_edit(&seen, 1, 333 + Q2_EDIT_LENGTH_MAX, Q2_EDIT_LENGTH_MAX, false);
    expect_edit(&seen, 2, 333 + 2 * Q2_EDIT_LENGTH_MAX, 1000, false);
    free(bytes);
    setup_free(&setup);
}

Test(overlay, a_visitor_can_stop)
{
    struct setup setup = setup_new();
    setup_overlay(&setup, 1 << 20);
    for (uint64_t offset = 0; offset < 100; offset += 10)
        cr_assert_eq(q2_file_write(setup.overlay, offset, "x", 1, NULL), 0);
    struct seen seen = {.stop_after = 3};
    cr_assert_eq(q2_overlay_visit(setup.overlay, collect, &seen), Q2_ERR_STOPPED);
    cr_assert_eq(seen.count, 3);
    setup_free(&setup);
}

static int
read_and_write_while_visited(const struct q2_edit *edit, void *data)
{
    struct q2_file *overlay = data;
    uint8_t byte = 0;
    cr_assert_eq(q2_file_read(overlay, edit->offset, &byte, 1, NULL), 0);
    cr_assert_eq(byte, edit->bytes[0]);
    return edit->offset < 50 ? q2_file_write(overlay, edit->offset + 10, "y", 1, NULL) : 0;
}

Test(overlay, a_visitor_may_use_the_overlay)
{
    struct setup setup = setup_new();
    setup_overlay(&setup, 1 << 20);
    cr_assert_eq(q2_file_write(setup.overlay, 0, "x", 1, NULL), 0);
    cr_assert_eq(q2_overlay_visit(setup.overlay, read_and_write_while_visited, setup.overlay), 0);
    cr_assert_eq(visit_all(setup.overlay).count, 6);
    setup_free(&setup);
}

/* ---- sizes ---- */

Test(overlay, past_the_base_there_are_zeros)
{
    struct setup setup = setup_new();
    setup_overlay(&setup, 1 << 20);
    uint8_t back[300], zeros[300] = {0};
    cr_assert_eq(q2_file_truncate(setup.overlay, BASE_SIZE + 1000, NULL), 0);
    cr_assert_eq(q2_file_read(setup.overlay, BASE_SIZE - 100, back, 300, NULL), 0);
    cr_assert_arr_eq(back, setup.bytes + BASE_SIZE - 100, 100);
    cr_assert_arr_eq(back + 100, zeros, 200);
    cr_assert_eq(q2_file_write(setup.overlay, BASE_SIZE + 2000, "z", 1, NULL), 0);
    cr_assert_eq(size_of(setup.overlay), BASE_SIZE + 2001);
    cr_assert_eq(q2_file_read(setup.overlay, BASE_SIZE + 1900, back, 101, NULL), 0);
    cr_assert_arr_eq(back, zeros, 100);
    cr_assert_eq(back[100], 'z');
    struct seen seen = visit_all(setup.overlay);
    cr_assert_eq(seen.count, 1, "the size says the rest");
    expect_edit(&seen, 0, BASE_SIZE + 2000, 1, false);
    setup_free(&setup);
}

Test(overlay, what_was_cut_off_does_not_come_back)
{
    struct setup setup = setup_new();
    setup_overlay(&setup, 1 << 20);
    uint8_t back[BASE_SIZE], expected[BASE_SIZE] = {0};
    memcpy(expected, setup.bytes, 700);
    cr_assert_eq(q2_file_write(setup.overlay, 800, "edit", 4, NULL), 0);
    cr_assert_eq(q2_file_truncate(setup.overlay, 700, NULL), 0);
    cr_assert_eq(q2_file_read(setup.overlay, 600, back, 200, NULL), Q2_ERR_EOF);
    cr_assert_eq(visit_all(setup.overlay).count, 0);
    cr_assert_eq(q2_file_truncate(setup.overlay, BASE_SIZE, NULL), 0);
    cr_assert_eq(q2_file_read(setup.overlay, 0, back, BASE_SIZE, NULL), 0);
    cr_assert_arr_eq(back, expected, BASE_SIZE);
    /* A copy of the base that is truncated to the same size must learn of the zeros by edits. */
    struct seen seen = visit_all(setup.overlay);
    cr_assert_eq(seen.edits[0].offset, 700);
    cr_assert_eq(seen.end, BASE_SIZE);
    cr_assert_eq(seen.bytes, BASE_SIZE - 700);
    setup_free(&setup);
}

Test(overlay, edits_past_the_base_do_not_come_back_either)
{
    struct setup setup = setup_new();
    setup_overlay(&setup, 1 << 20);
    uint8_t back[200], zeros[200] = {0};
    cr_assert_eq(q2_file_write(setup.overlay, BASE_SIZE + 100, "stale", 5, NULL), 0);
    cr_assert_eq(q2_file_truncate(setup.overlay, BASE_SIZE + 50, NULL), 0);
    cr_assert_eq(q2_file_truncate(setup.overlay, BASE_SIZE + 200, NULL), 0);
    cr_assert_eq(q2_file_read(setup.overlay, BASE_SIZE, back, 200, NULL), 0);
    cr_assert_arr_eq(back, zeros, 200);
    cr_assert_eq(visit_all(setup.overlay).count, 0);
    setup_free(&setup);
}

Test(overlay, cutting_inside_a_zero_range)
{
    struct setup setup = setup_new();
    setup_overlay(&setup, 1 << 20);
    uint8_t back[BASE_SIZE];
    cr_assert_eq(q2_file_truncate(setup.overlay, Q2_FILE_SIZE_MAX, NULL), 0);
    cr_assert_eq(q2_file_punch(setup.overlay, 0, Q2_FILE_SIZE_MAX, NULL), 0);
    cr_assert_lt(setup.budget.used, 20000, "zeros are marked, not stored");
    cr_assert_eq(q2_file_truncate(setup.overlay, 3 * BLOCK + 5, NULL), 0);
    struct seen seen = visit_all(setup.overlay);
    cr_assert_eq(seen.count, 1);
    expect_edit(&seen, 0, 0, 3 * BLOCK + 5, true);
    cr_assert_eq(q2_file_read(setup.overlay, 0, back, 3 * BLOCK + 5, NULL), 0);
    for (size_t i = 0; i < 3 * BLOCK + 5; i++)
        cr_assert_eq(back[i], 0);
    setup_free(&setup);
}

Test(overlay, reset_forgets_all)
{
    struct setup setup = setup_new();
    setup_overlay(&setup, 1 << 20);
    uint8_t back[BASE_SIZE];
    cr_assert_eq(q2_file_truncate(setup.overlay, 10, NULL), 0);
    cr_assert_eq(q2_file_write(setup.overlay, 5000, "x", 1, NULL), 0);
    q2_overlay_reset(setup.overlay);
    cr_assert_eq(size_of(setup.overlay), BASE_SIZE);
    cr_assert_eq(setup.budget.used, 0);
    cr_assert_eq(visit_all(setup.overlay).count, 0);
    cr_assert_eq(q2_file_read(setup.overlay, 0, back, BASE_SIZE, NULL), 0);
    cr_assert_arr_eq(back, setup.bytes, BASE_SIZE);
    setup_free(&setup);
}

/* ---- holes ---- */

static void
expect_extent(struct q2_file *file, uint64_t offset, bool expected_data, uint64_t expected_end)
{
    bool data = !expected_data;
    uint64_t end = 0;
    cr_assert_eq(q2_file_extent(file, offset, &data, &end, NULL), 0);
    cr_assert_eq(data, expected_data, "at %lu", (unsigned long)offset);
    cr_assert_eq(end, expected_end, "at %lu: %lu", (unsigned long)offset, (unsigned long)end);
}

Test(overlay, punching_is_an_edit_of_its_own_kind)
{
    struct setup setup = setup_new();
    setup_overlay(&setup, 1 << 20);
    uint8_t back[BASE_SIZE];
    cr_assert_eq(q2_file_write(setup.overlay, 3 * BLOCK, "gone", 4, NULL), 0);
    cr_assert_eq(q2_file_punch(setup.overlay, 2 * BLOCK - 1, 3 * BLOCK + 2, NULL), 0);
    struct seen seen = visit_all(setup.overlay);
    cr_assert_eq(seen.count, 3, "the edges are written, whole blocks punched");
    expect_edit(&seen, 0, 2 * BLOCK - 1, 1, false);
    expect_edit(&seen, 1, 2 * BLOCK, 3 * BLOCK, true);
    expect_edit(&seen, 2, 5 * BLOCK, 1, false);
    memset(setup.bytes + 2 * BLOCK - 1, 0, 3 * BLOCK + 2);
    cr_assert_eq(q2_file_read(setup.overlay, 0, back, BASE_SIZE, NULL), 0);
    cr_assert_arr_eq(back, setup.bytes, BASE_SIZE);
    expect_extent(setup.overlay, 2 * BLOCK, false, 5 * BLOCK);
    expect_extent(setup.overlay, 5 * BLOCK, true, 6 * BLOCK);
    expect_extent(setup.overlay, 6 * BLOCK, true, BASE_SIZE);

    cr_assert_eq(q2_file_write(setup.overlay, 4 * BLOCK + 1, "x", 1, NULL), 0);
    cr_assert_eq(q2_file_read(setup.overlay, 4 * BLOCK, back, 3, NULL), 0);
    cr_assert_arr_eq(back, "\0x", 3, "around a write into a hole there are zeros");
    for (size_t i = 2 * BLOCK - 1; i < 5 * BLOCK + 1; i++)
        setup.bytes[i] = (uint8_t)(i % 255 + 1);
    setup_free(&setup);
}

Test(overlay, extents_fall_through_to_the_base)
{
    struct q2_budget budget;
    q2_budget_init(&budget, 1 << 20);
    Q2_AUTOCLOSE struct q2_file *base = NULL;
    cr_assert_eq(q2_file_new_memory("base", &base, NULL), 0);
    cr_assert_eq(q2_file_write(base, 8192, "x", 1, NULL), 0);
    cr_assert_eq(q2_file_truncate(base, 1 << 20, NULL), 0);
    Q2_AUTOCLOSE struct q2_file *overlay = NULL;
    cr_assert_eq(q2_file_new_overlay(base, &budget, &overlay, NULL), 0);
    cr_assert_eq(q2_file_truncate(overlay, 2 << 20, NULL), 0);
    cr_assert_eq(q2_file_write(overlay, 65536, "y", 1, NULL), 0);
    expect_extent(overlay, 0, false, 8192);
    expect_extent(overlay, 8200, true, 12288);
    expect_extent(overlay, 12288, false, 65536);
    expect_extent(overlay, 65536, true, 65536 + BLOCK);
    expect_extent(overlay, 65536 + BLOCK, false, 1 << 20);
    expect_extent(overlay, 1 << 20, false, 2 << 20);
    uint64_t bytes = 0;
    cr_assert_eq(q2_file_allocated(overlay, &bytes, NULL), 0);
    cr_assert_eq(bytes, 4096, "edits take no space where the base is");
    q2_file_prefetch(overlay, 0, 4096);
}

/* ---- a base that fails, a budget that ends ---- */

Test(overlay, what_is_rewritten_is_readable_on_a_broken_base)
{
    struct setup setup = setup_new();
    struct q2_fault_plan plan = {.kind = Q2_FAULT_EIO,
                                 .ops = Q2_FAULT_READ,
                                 .offset = 1024,
                                 .length = 1024};
    Q2_AUTOCLOSE struct q2_file *bad = NULL, *overlay = NULL;
    q2_budget_init(&setup.budget, 1 << 20);
    cr_assert_eq(q2_file_new_fault(setup.base, &plan, &bad, NULL), 0);
    cr_assert_eq(q2_file_new_overlay(bad, &setup.budget, &overlay, NULL), 0);
    uint8_t bytes[1024], back[4096];
    memset(bytes, 0x42, sizeof bytes);
    cr_assert_eq(q2_file_read(overlay, 0, back, 4096, NULL), Q2_ERR_IO);
    cr_assert_eq(q2_file_write(overlay, 1024, bytes, 512, NULL), 0);
    cr_assert_eq(q2_file_read(overlay, 0, back, 4096, NULL), Q2_ERR_IO);
    cr_assert_eq(q2_file_punch(overlay, 1536, 512, NULL), 0);
    cr_assert_eq(q2_file_read(overlay, 0, back, 4096, NULL), 0);
    cr_assert_arr_eq(back, setup.bytes, 1024);
    cr_assert_arr_eq(back + 1024, bytes, 512);
    cr_assert_eq(back[1536], 0);
    cr_assert_arr_eq(back + 2048, setup.bytes + 2048, 2048);
    q2_file_close(Q2_STEAL(overlay));
    setup_free(&setup);
}

/* Fail at every allocation in turn: the overlay stays what a short write would have made of it. */
Test(overlay, running_out_of_budget_anywhere)
{
    int failures = 0;
    for (uint64_t limit = 0; limit < 20000; limit += 97) {
        struct setup setup = setup_new();
        setup_overlay(&setup, limit);
        uint8_t bytes[5 * BLOCK], back[BASE_SIZE + 10000];
        struct q2_error err = {0};
        memset(bytes, 0xbb, sizeof bytes);
        cr_assert_eq(q2_file_truncate(setup.overlay, 5000, NULL), 0);
        int rc = q2_file_write(setup.overlay, BASE_SIZE + 5000, bytes, sizeof bytes, &err);
        failures += rc < 0;
        cr_assert(rc == 0 || (rc == Q2_ERR_BUDGET && strstr(err.message, "base")), "%s",
                  err.message);
        uint64_t size = size_of(setup.overlay);
        cr_assert(rc == 0 ? size == BASE_SIZE + 5000 + sizeof bytes
                          : size >= 5000 && size < BASE_SIZE + 5000 + sizeof bytes);
        cr_assert_eq(q2_file_read(setup.overlay, 0, back, size, NULL), 0);
        cr_assert_arr_eq(back, setup.bytes, 5000);
        for (uint64_t i = 5000; i < size; i++)
            cr_assert_eq(back[i], i < BASE_SIZE + 5000 ? 0 : 0xbb, "%lu", (unsigned long)i);
        if (size < BASE_SIZE + 5000)
            cr_assert_eq(visit_all(setup.overlay).count, 0, "nothing past the end is an edit");
        setup_free(&setup);
    }
    cr_assert_gt(failures, 10);
}

Test(overlay, a_cut_that_fails_changes_nothing)
{
    int failures = 0;
    for (uint64_t limit = 0; limit < 5000; limit += 50) {
        struct setup setup = setup_new();
        setup_overlay(&setup, limit);
        uint8_t back[BASE_SIZE] = {0};
        cr_assert_eq(q2_file_truncate(setup.overlay, UINT64_C(1) << 40, NULL), 0);
        if (q2_file_punch(setup.overlay, 0, UINT64_C(1) << 40, NULL) == 0) {
            uint64_t before = visit_all(setup.overlay).edits[0].length;
            int rc = q2_file_truncate(setup.overlay, 3 * BLOCK, NULL);
            failures += rc < 0;
            cr_assert_eq(size_of(setup.overlay), rc < 0 ? UINT64_C(1) << 40 : 3 * BLOCK);
            cr_assert_eq(visit_all(setup.overlay).edits[0].length, rc < 0 ? before : 3 * BLOCK);
            cr_assert_eq(q2_file_read_padded(setup.overlay, 0, back, BASE_SIZE, NULL), 0);
            for (size_t i = 0; i < BASE_SIZE; i++)
                cr_assert_eq(back[i], 0);
        }
        setup_free(&setup);
    }
    cr_assert_gt(failures, 10);
}

static int
no_size(struct q2_file *file, uint64_t *ret_size, struct q2_error *err)
{
    (void)ret_size;
    return q2_error_set(err, Q2_ERR_IO, "%s: no size", file->name);
}

Test(overlay, a_base_without_a_size_is_refused)
{
    char name[] = "broken";
    struct q2_file_ops ops = {.size = no_size};
    struct q2_file broken = {.ops = &ops, .name = name}, *overlay = &broken;
    struct q2_budget budget;
    q2_budget_init(&budget, 0);
    cr_assert_eq(q2_file_new_overlay(&broken, &budget, &overlay, NULL), Q2_ERR_IO);
    cr_assert_eq(overlay, &broken, "untouched on failure");
}
