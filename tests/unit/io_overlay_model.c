/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Overlays against a plain array through thousands of random operations, and from several threads.
 * After each batch the content, the holes and the list of edits must all tell the same. */

#include "core/base/checked.h"
#include "core/io/memory.h"
#include "core/io/overlay.h"
#include "tests/unit/overlays.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---- random operations ---- */

enum { MODEL_MAX = BASE_SIZE + 10 * BLOCK, ROUNDS = 5000 };

struct model {
    uint8_t bytes[MODEL_MAX];
    uint64_t size;
};

static uint32_t
next_random(uint32_t *state, uint32_t below)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state % below;
}

static void
model_resize(struct model *model, uint64_t size)
{
    if (size > model->size)
        memset(model->bytes + model->size, 0, size - model->size);
    model->size = size;
}

static void
random_operation(struct q2_file *overlay, struct model *model, uint32_t *state)
{
    uint32_t what = next_random(state, 20), offset = next_random(state, MODEL_MAX);
    uint32_t length = next_random(state, next_random(state, 2) ? 16 : 4 * BLOCK) + 1;
    if (next_random(state, 2))
        offset = offset / BLOCK * BLOCK;
    length = length < MODEL_MAX - offset ? length : MODEL_MAX - offset;
    if (what < 13) {
        model_resize(model, q2_max(model->size, offset + length));
        memset(model->bytes + offset, (int)next_random(state, 256), length);
        cr_assert_eq(q2_file_write(overlay, offset, model->bytes + offset, length, NULL), 0);
    } else if (what < 18) {
        if (offset < model->size)
            memset(model->bytes + offset, 0, q2_min(length, model->size - offset));
        cr_assert_eq(q2_file_punch(overlay, offset, length, NULL), 0);
    } else {
        model_resize(model, offset);
        cr_assert_eq(q2_file_truncate(overlay, offset, NULL), 0);
    }
}

static int
apply_to_copy(const struct q2_edit *edit, void *copy)
{
    if (!edit->bytes)
        return q2_file_punch(copy, edit->offset, edit->length, NULL);
    return q2_file_write(copy, edit->offset, edit->bytes, edit->length, NULL);
}

static void
expect_same(struct q2_file *file, const struct model *model)
{
    static uint8_t back[MODEL_MAX];
    cr_assert_eq(size_of(file), model->size);
    cr_assert_eq(q2_file_read(file, 0, back, model->size, NULL), 0);
    cr_assert(memcmp(back, model->bytes, model->size) == 0);
}

static void
expect_edits_tell_all(const struct setup *setup, const struct model *model)
{
    Q2_AUTOCLOSE struct q2_file *copy = NULL;
    cr_assert_eq(q2_file_new_memory_from("copy", setup->bytes, BASE_SIZE, &copy, NULL), 0);
    cr_assert_eq(q2_file_truncate(copy, model->size, NULL), 0);
    cr_assert_eq(q2_overlay_visit(setup->overlay, apply_to_copy, copy), 0);
    expect_same(copy, model);
}

static void
expect_holes_are_zeros(struct q2_file *overlay, const struct model *model)
{
    uint64_t end;
    for (uint64_t at = 0; at < model->size; at = end) {
        bool data;
        cr_assert_eq(q2_file_extent(overlay, at, &data, &end, NULL), 0);
        cr_assert(end > at && end <= model->size);
        for (uint64_t i = at; !data && i < end; i++)
            cr_assert_eq(model->bytes[i], 0, "hole at %lu", (unsigned long)i);
    }
}

Test(overlay_model, behaves_like_an_array)
{
    static struct model model;
    for (uint32_t seed = 1; seed <= 4; seed++) {
        struct setup setup = setup_new();
        setup_overlay(&setup, 16 << 20);
        uint32_t state = seed * 2654435761U;
        memcpy(model.bytes, setup.bytes, BASE_SIZE);
        model.size = BASE_SIZE;
        for (int round = 0; round < ROUNDS; round++) {
            random_operation(setup.overlay, &model, &state);
            if (round % 25 == 0) {
                expect_same(setup.overlay, &model);
                expect_edits_tell_all(&setup, &model);
                expect_holes_are_zeros(setup.overlay, &model);
            }
            if (round % 500 == 499) {
                q2_overlay_reset(setup.overlay);
                memcpy(model.bytes, setup.bytes, BASE_SIZE);
                model.size = BASE_SIZE;
            }
        }
        setup_free(&setup);
    }
}

/* ---- threads ---- */

enum { THREADS = 4, LANE = 1000, TURNS = 300 };

struct lane {
    struct q2_file *overlay;
    int number;
    int failures;
};

static int
count_bytes(const struct q2_edit *edit, void *data)
{
    *(uint64_t *)data += edit->length;
    return 0;
}

/* Each thread owns a lane whose edges share blocks with the neighbours', and looks at the rest. */
static void *
run_lane(void *data)
{
    struct lane *lane = data;
    uint64_t start = (uint64_t)lane->number * LANE, edited = 0, end;
    uint8_t bytes[LANE], back[LANE], all[BASE_SIZE];
    bool is_data;
    for (int turn = 0; turn < TURNS; turn++) {
        memset(bytes, turn % 251 + 1, sizeof bytes);
        lane->failures += q2_file_write(lane->overlay, start, bytes, LANE, NULL) != 0;
        if (turn % 3 == 0) {
            lane->failures += q2_file_punch(lane->overlay, start + 10, LANE - 20, NULL) != 0;
            memset(bytes + 10, 0, LANE - 20);
        }
        lane->failures += q2_file_read(lane->overlay, start, back, LANE, NULL) != 0;
        lane->failures += memcmp(back, bytes, LANE) != 0;
        lane->failures += q2_file_read(lane->overlay, 0, all, BASE_SIZE, NULL) != 0;
        lane->failures += q2_file_extent(lane->overlay, start, &is_data, &end, NULL) != 0;
        if (turn % 50 == 0)
            lane->failures += q2_overlay_visit(lane->overlay, count_bytes, &edited) != 0;
    }
    lane->failures += edited < LANE;
    return NULL;
}

Test(overlay_model, threads_keep_to_their_lanes)
{
    struct setup setup = setup_new();
    setup_overlay(&setup, 1 << 20);
    pthread_t threads[THREADS];
    struct lane lanes[THREADS];
    for (int i = 0; i < THREADS; i++) {
        lanes[i] = (struct lane){.overlay = setup.overlay, .number = i};
        cr_assert_eq(pthread_create(&threads[i], NULL, run_lane, &lanes[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        cr_assert_eq(lanes[i].failures, 0, "thread %d", i);
    }
    uint64_t edited = 0;
    cr_assert_eq(q2_overlay_visit(setup.overlay, count_bytes, &edited), 0);
    cr_assert_eq(edited, THREADS * LANE);
    setup_free(&setup);
}
