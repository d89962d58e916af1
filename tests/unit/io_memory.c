/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Memory files: at the far ends of 2^63, against a plain array through thousands of random
 * operations, and from several threads. */

#include "core/base/checked.h"
#include "core/io/memory.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 4096 };

static struct q2_file *
new_memory(void)
{
    struct q2_file *file = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_file_new_memory("memory", &file, &err), 0, "%s", err.message);
    return file;
}

static uint64_t
size_of(struct q2_file *file)
{
    uint64_t size = UINT64_MAX;
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    return size;
}

static uint64_t
allocated(struct q2_file *file)
{
    uint64_t bytes = UINT64_MAX;
    cr_assert_eq(q2_file_allocated(file, &bytes, NULL), 0);
    return bytes;
}

static void
expect_extent(struct q2_file *file, uint64_t offset, bool expected_data, uint64_t expected_end)
{
    bool data = !expected_data;
    uint64_t end = 0;
    cr_assert_eq(q2_file_extent(file, offset, &data, &end, NULL), 0);
    cr_assert_eq(data, expected_data, "at %lu", (unsigned long)offset);
    cr_assert_eq(end, expected_end, "at %lu: %lu", (unsigned long)offset, (unsigned long)end);
}

Test(memory, starts_empty_and_writable)
{
    Q2_AUTOCLOSE struct q2_file *file = new_memory();
    uint8_t byte = 0xee;
    struct q2_error err = {0};
    cr_assert(file->writable);
    cr_assert_str_eq(file->name, "memory");
    cr_assert_eq(size_of(file), 0);
    cr_assert_eq(q2_file_read(file, 0, &byte, 1, &err), Q2_ERR_EOF);
    cr_assert_eq(q2_file_read_padded(file, 0, &byte, 1, &err), 0);
    cr_assert_eq(byte, 0);
    cr_assert_eq(q2_file_flush(file, NULL), 0);
    cr_assert_eq(allocated(file), 0);
}

Test(memory, from_copies_its_bytes)
{
    char text[] = "qcow2";
    Q2_AUTOCLOSE struct q2_file *file = NULL, *none = NULL;
    cr_assert_eq(q2_file_new_memory_from("from", text, 5, &file, NULL), 0);
    text[0] = 'x';
    char back[5];
    cr_assert_eq(size_of(file), 5);
    cr_assert_eq(q2_file_read(file, 0, back, 5, NULL), 0);
    cr_assert_arr_eq(back, "qcow2", 5);
    cr_assert_eq(q2_file_new_memory_from("none", NULL, 0, &none, NULL), 0);
    cr_assert_eq(size_of(none), 0);
}

Test(memory, vectors_scatter_and_gather)
{
    Q2_AUTOCLOSE struct q2_file *file = new_memory();
    char a[3] = "abc", b[4] = "defg", rest[16];
    struct iovec out[] = {{a, 3}, {NULL, 0}, {b, 4}};
    cr_assert_eq(q2_file_pwritev(file, out, 3, BLOCK - 2, NULL), 0);
    cr_assert_eq(size_of(file), BLOCK + 5);
    char first, second[2];
    struct iovec in[] = {{&first, 1}, {second, 2}, {rest, 16}};
    size_t done = 0;
    cr_assert_eq(q2_file_preadv(file, in, 3, BLOCK - 2, &done, NULL), 0);
    cr_assert_eq(done, 7, "short at the end of the file");
    cr_assert_eq(first, 'a');
    cr_assert_arr_eq(second, "bc", 2);
    cr_assert_arr_eq(rest, "defg", 4);
}

Test(memory, the_last_byte_of_the_largest_file)
{
    Q2_AUTOCLOSE struct q2_file *file = new_memory();
    uint8_t byte = 0x5a, back[2] = {0};
    cr_assert_eq(q2_file_write(file, Q2_FILE_SIZE_MAX - 1, &byte, 1, NULL), 0);
    cr_assert_eq(size_of(file), Q2_FILE_SIZE_MAX);
    cr_assert_eq(q2_file_write(file, 0, &byte, 1, NULL), 0);
    cr_assert_eq(allocated(file), 2 * BLOCK);
    cr_assert_eq(q2_file_read(file, Q2_FILE_SIZE_MAX - 2, back, 2, NULL), 0);
    cr_assert_eq(back[0], 0);
    cr_assert_eq(back[1], 0x5a);
    expect_extent(file, 0, true, BLOCK);
    expect_extent(file, BLOCK, false, Q2_FILE_SIZE_MAX - BLOCK + 1);
    expect_extent(file, Q2_FILE_SIZE_MAX - 1, true, Q2_FILE_SIZE_MAX);

    cr_assert_eq(q2_file_truncate(file, Q2_FILE_SIZE_MAX - 1, NULL), 0);
    cr_assert_eq(q2_file_truncate(file, Q2_FILE_SIZE_MAX, NULL), 0);
    cr_assert_eq(q2_file_read(file, Q2_FILE_SIZE_MAX - 1, back, 1, NULL), 0);
    cr_assert_eq(back[0], 0, "what was cut off does not come back");
    cr_assert_eq(q2_file_punch(file, 0, Q2_FILE_SIZE_MAX, NULL), 0);
    cr_assert_eq(allocated(file), 0);
    expect_extent(file, 0, false, Q2_FILE_SIZE_MAX);
}

Test(memory, size_alone_takes_no_memory)
{
    Q2_AUTOCLOSE struct q2_file *file = new_memory();
    cr_assert_eq(q2_file_truncate(file, Q2_FILE_SIZE_MAX, NULL), 0);
    cr_assert_eq(size_of(file), Q2_FILE_SIZE_MAX);
    cr_assert_eq(allocated(file), 0);
    expect_extent(file, 12345, false, Q2_FILE_SIZE_MAX);
    cr_assert_eq(q2_file_truncate(file, 0, NULL), 0);
    cr_assert_eq(size_of(file), 0);
}

Test(memory, blocks_far_apart_at_every_scale)
{
    Q2_AUTOCLOSE struct q2_file *file = new_memory();
    for (int bit = 0; bit < 63; bit++) {
        uint8_t byte = (uint8_t)(bit + 1);
        cr_assert_eq(q2_file_write(file, UINT64_C(1) << bit, &byte, 1, NULL), 0);
    }
    for (int bit = 0; bit < 63; bit++) {
        uint8_t byte = 0;
        cr_assert_eq(q2_file_read(file, UINT64_C(1) << bit, &byte, 1, NULL), 0);
        cr_assert_eq(byte, bit + 1);
    }
    cr_assert_eq(allocated(file), 52 * BLOCK); /* bits 0 to 11 share one */
    expect_extent(file, 0, true, 3 * BLOCK);   /* and bits 12 and 13 are in the next two */
    for (int bit = 14; bit < 63; bit++) {
        expect_extent(file, (UINT64_C(1) << bit) - 1, false, UINT64_C(1) << bit);
        if (bit < 62)
            expect_extent(file, UINT64_C(1) << bit, true, (UINT64_C(1) << bit) + BLOCK);
    }
    cr_assert_eq(q2_file_punch(file, 1 << 20, UINT64_C(1) << 61, NULL), 0);
    cr_assert_eq(allocated(file), 10 * BLOCK, "bits 0 to 19, and 62");
}

Test(memory, punching_gives_whole_blocks_back)
{
    Q2_AUTOCLOSE struct q2_file *file = new_memory();
    uint8_t bytes[3 * BLOCK], back[3 * BLOCK];
    memset(bytes, 0x77, sizeof bytes);
    cr_assert_eq(q2_file_write(file, 0, bytes, sizeof bytes - 10, NULL), 0);
    cr_assert_eq(q2_file_punch(file, 100, 2 * BLOCK, NULL), 0);
    cr_assert_eq(allocated(file), 2 * BLOCK);
    memset(bytes + 100, 0, 2 * BLOCK);
    cr_assert_eq(q2_file_read(file, 0, back, sizeof back - 10, NULL), 0);
    cr_assert_arr_eq(back, bytes, sizeof back - 10);

    cr_assert_eq(q2_file_punch(file, 2 * BLOCK, Q2_FILE_SIZE_MAX - 2 * BLOCK, NULL), 0);
    cr_assert_eq(allocated(file), BLOCK, "the last block is not whole but all that there is");
    cr_assert_eq(size_of(file), 3 * BLOCK - 10, "the size stays");
    cr_assert_eq(q2_file_punch(file, 3 * BLOCK, BLOCK, NULL), 0);
    cr_assert_eq(size_of(file), 3 * BLOCK - 10);
}

/* ---- random operations against a plain array ---- */

enum { MODEL_MAX = 20 * BLOCK, ROUNDS = 6000 };

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

/* Offsets around block boundaries half of the time: that is where mistakes live. */
static uint32_t
random_offset(uint32_t *state, uint32_t below)
{
    uint32_t offset = next_random(state, below);
    if (next_random(state, 2))
        offset = offset / BLOCK * BLOCK + next_random(state, 3);
    return offset ? (offset - next_random(state, 2)) % below : 0;
}

static void
random_write(struct q2_file *file, struct model *model, uint32_t *state)
{
    uint32_t offset = random_offset(state, MODEL_MAX);
    uint32_t length = next_random(state, next_random(state, 2) ? 64 : 3 * BLOCK) + 1;
    length = length < MODEL_MAX - offset ? length : MODEL_MAX - offset;
    if (offset > model->size)
        memset(model->bytes + model->size, 0, offset - model->size);
    memset(model->bytes + offset, (int)(next_random(state, 255) + 1), length);
    model->size = q2_max(model->size, offset + length);
    cr_assert_eq(q2_file_write(file, offset, model->bytes + offset, length, NULL), 0);
}

static void
random_punch(struct q2_file *file, struct model *model, uint32_t *state)
{
    uint32_t offset = random_offset(state, MODEL_MAX);
    uint32_t length = next_random(state, 5 * BLOCK) + 1;
    if (offset < model->size)
        memset(model->bytes + offset, 0, q2_min(length, model->size - offset));
    cr_assert_eq(q2_file_punch(file, offset, length, NULL), 0);
}

static void
random_truncate(struct q2_file *file, struct model *model, uint32_t *state)
{
    uint64_t size = random_offset(state, MODEL_MAX);
    if (size > model->size)
        memset(model->bytes + model->size, 0, size - model->size);
    model->size = size;
    cr_assert_eq(q2_file_truncate(file, size, NULL), 0);
}

static void
expect_same(struct q2_file *file, const struct model *model)
{
    static uint8_t back[MODEL_MAX];
    cr_assert_eq(size_of(file), model->size);
    cr_assert_eq(q2_file_read(file, 0, back, model->size, NULL), 0);
    cr_assert(memcmp(back, model->bytes, model->size) == 0);
}

/* Extents tile the file, and holes are zeros. */
static void
expect_extents(struct q2_file *file, const struct model *model)
{
    uint64_t end;
    for (uint64_t at = 0; at < model->size; at = end) {
        bool data;
        cr_assert_eq(q2_file_extent(file, at, &data, &end, NULL), 0);
        cr_assert(end > at && end <= model->size);
        for (uint64_t i = at; !data && i < end; i++)
            cr_assert_eq(model->bytes[i], 0, "hole at %lu", (unsigned long)i);
    }
}

Test(memory, behaves_like_an_array)
{
    static struct model model;
    for (uint32_t seed = 1; seed <= 3; seed++) {
        Q2_AUTOCLOSE struct q2_file *file = new_memory();
        uint32_t state = seed * 2654435761U;
        model.size = 0;
        for (int round = 0; round < ROUNDS; round++) {
            uint32_t what = next_random(&state, 20);
            if (what < 13)
                random_write(file, &model, &state);
            else if (what < 18)
                random_punch(file, &model, &state);
            else
                random_truncate(file, &model, &state);
            if (round % 50 == 0) {
                expect_same(file, &model);
                expect_extents(file, &model);
            }
        }
        expect_same(file, &model);
    }
}

/* ---- threads ---- */

enum { THREADS = 4, LANE = 5 * BLOCK / 2, TURNS = 300 };

struct lane {
    struct q2_file *file;
    int number;
    int failures;
};

/* Each thread owns a lane of the file, whose edges share blocks with the neighbours'; all of them
 * look at all of the file and ask about it meanwhile. */
static void *
run_lane(void *data)
{
    struct lane *lane = data;
    uint64_t start = (uint64_t)lane->number * LANE, end;
    uint8_t bytes[LANE], back[LANE], all[THREADS * LANE];
    bool is_data;
    for (int turn = 0; turn < TURNS; turn++) {
        memset(bytes, turn % 251 + 1, sizeof bytes);
        lane->failures += q2_file_write(lane->file, start, bytes, LANE, NULL) != 0;
        if (turn % 3 == 0) {
            lane->failures += q2_file_punch(lane->file, start + 100, LANE - 200, NULL) != 0;
            memset(bytes + 100, 0, LANE - 200);
        }
        lane->failures += q2_file_read(lane->file, start, back, LANE, NULL) != 0;
        lane->failures += memcmp(back, bytes, LANE) != 0;
        lane->failures += q2_file_read_padded(lane->file, 0, all, sizeof all, NULL) != 0;
        lane->failures += q2_file_extent(lane->file, start, &is_data, &end, NULL) != 0;
        lane->failures += q2_file_allocated(lane->file, &end, NULL) != 0;
    }
    return NULL;
}

Test(memory, threads_keep_to_their_lanes)
{
    Q2_AUTOCLOSE struct q2_file *file = new_memory();
    pthread_t threads[THREADS];
    struct lane lanes[THREADS];
    for (int i = 0; i < THREADS; i++) {
        lanes[i] = (struct lane){.file = file, .number = i};
        cr_assert_eq(pthread_create(&threads[i], NULL, run_lane, &lanes[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        cr_assert_eq(lanes[i].failures, 0, "thread %d", i);
    }
    cr_assert_eq(size_of(file), THREADS * LANE);
}
