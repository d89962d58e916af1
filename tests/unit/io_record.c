/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Recorders: what they remember, and what a power cut would have left according to them. */

#include "core/io/fault.h"
#include "core/io/memory.h"
#include "core/io/record.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

struct setup {
    struct q2_file *base;
    struct q2_file *file;
};

static struct setup
setup_new(void)
{
    struct setup setup = {0};
    cr_assert_eq(q2_file_new_memory_from("disk.qcow2", "originals", 9, &setup.base, NULL), 0);
    cr_assert_eq(q2_file_new_record(setup.base, &setup.file, NULL), 0);
    return setup;
}

static void
setup_free(struct setup *setup)
{
    q2_file_close(setup->file);
    q2_file_close(setup->base);
}

/* The content of a file of less than 64 bytes as a string, zeros as dots. */
static const char *
content(struct q2_file *file)
{
    static char text[64];
    uint64_t size = 0;
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    cr_assert_lt(size, sizeof text);
    cr_assert_eq(q2_file_read(file, 0, text, size, NULL), 0);
    for (uint64_t i = 0; i < size; i++)
        text[i] = text[i] ? text[i] : '.';
    text[size] = '\0';
    return text;
}

/* What is left after `count` records, of those after the last flush only the ones in `kept`. */
static const char *
replayed(const struct q2_file *file, size_t count, bool (*keep)(size_t, void *), void *kept)
{
    Q2_AUTOCLOSE struct q2_file *target = NULL;
    cr_assert_eq(q2_file_new_memory_from("copy", "originals", 9, &target, NULL), 0);
    cr_assert_eq(q2_record_replay(file, count, keep, kept, target, NULL), 0);
    return content(target);
}

static bool
keep_in_set(size_t index, void *set)
{
    return *(unsigned *)set >> index & 1;
}

/* A story with two barriers, used by several tests. */
static void
tell(struct q2_file *file)
{
    cr_assert_eq(q2_file_write(file, 0, "ABC", 3, NULL), 0); /* 0 */
    cr_assert_eq(q2_file_truncate(file, 5, NULL), 0);        /* 1 */
    cr_assert_eq(q2_file_flush(file, NULL), 0);              /* 2 */
    cr_assert_eq(q2_file_write(file, 6, "XY", 2, NULL), 0);  /* 3 */
    cr_assert_eq(q2_file_punch(file, 1, 1, NULL), 0);        /* 4 */
    cr_assert_eq(q2_file_write(file, 0, "Q", 1, NULL), 0);   /* 5 */
    cr_assert_eq(q2_file_flush(file, NULL), 0);              /* 6 */
}

Test(record, remembers_changes_in_order)
{
    struct setup setup = setup_new();
    tell(setup.file);
    cr_assert_str_eq(content(setup.base), "Q.Cgi.XY");
    static const struct q2_record expected[] = {
        {.kind = Q2_RECORD_WRITE, .offset = 0, .length = 3},
        {.kind = Q2_RECORD_TRUNCATE, .offset = 5},
        {.kind = Q2_RECORD_FLUSH},
        {.kind = Q2_RECORD_WRITE, .offset = 6, .length = 2},
        {.kind = Q2_RECORD_PUNCH, .offset = 1, .length = 1},
        {.kind = Q2_RECORD_WRITE, .offset = 0, .length = 1},
        {.kind = Q2_RECORD_FLUSH},
    };
    cr_assert_eq(q2_record_count(setup.file), 7);
    for (size_t i = 0; i < 7; i++) {
        const struct q2_record *record = q2_record_at(setup.file, i);
        cr_assert_eq(record->kind, expected[i].kind, "record %zu", i);
        cr_assert_eq(record->offset, expected[i].offset, "record %zu", i);
        cr_assert_eq(record->length, expected[i].length, "record %zu", i);
        cr_assert_eq(record->bytes != NULL, record->kind == Q2_RECORD_WRITE, "record %zu", i);
    }
    cr_assert_arr_eq(q2_record_at(setup.file, 0)->bytes, "ABC", 3);
    setup_free(&setup);
}

Test(record, questions_go_through_and_are_not_recorded)
{
    struct setup setup = setup_new();
    uint8_t bytes[9];
    uint64_t number = 0;
    bool data = false;
    cr_assert_eq(q2_file_read(setup.file, 0, bytes, 9, NULL), 0);
    cr_assert_arr_eq(bytes, "originals", 9);
    cr_assert_eq(q2_file_size(setup.file, &number, NULL), 0);
    cr_assert_eq(number, 9);
    cr_assert_eq(q2_file_extent(setup.file, 3, &data, &number, NULL), 0);
    cr_assert(data && number == 9);
    cr_assert_eq(q2_file_allocated(setup.file, &number, NULL), 0);
    cr_assert_eq(number, 4096);
    q2_file_prefetch(setup.file, 0, 9);
    cr_assert_eq(q2_record_count(setup.file), 0);
    cr_assert(setup.file->writable);
    cr_assert_str_eq(setup.file->name, "disk.qcow2");
    setup_free(&setup);
}

Test(record, vectors_are_gathered_and_copied)
{
    struct setup setup = setup_new();
    char a[] = "ab", b[] = "cde";
    struct iovec iov[] = {{a, 2}, {NULL, 0}, {b, 3}};
    cr_assert_eq(q2_file_pwritev(setup.file, iov, 3, 1, NULL), 0);
    memset(a, 'x', 2);
    const struct q2_record *record = q2_record_at(setup.file, 0);
    cr_assert_eq(record->length, 5);
    cr_assert_arr_eq(record->bytes, "abcde", 5);
    cr_assert_str_eq(content(setup.base), "oabcdeals");
    setup_free(&setup);
}

Test(record, what_failed_did_not_happen)
{
    struct setup setup = setup_new();
    struct q2_fault_plan plan = {.kind = Q2_FAULT_EIO, .ops = Q2_FAULT_ALL, .nth = 2};
    Q2_AUTOCLOSE struct q2_file *bad = NULL, *file = NULL;
    cr_assert_eq(q2_file_new_fault(setup.base, &plan, &bad, NULL), 0);
    cr_assert_eq(q2_file_new_record(bad, &file, NULL), 0);
    cr_assert_eq(q2_file_write(file, 0, "A", 1, NULL), 0);
    cr_assert_eq(q2_file_write(file, 1, "B", 1, NULL), Q2_ERR_IO);
    cr_assert_eq(q2_file_write(file, 2, "C", 1, NULL), 0);
    cr_assert_eq(q2_record_count(file), 2);
    cr_assert_eq(q2_record_at(file, 1)->offset, 2);
    setup_free(&setup);
}

Test(record, a_torn_write_above_is_recorded_as_far_as_it_went)
{
    struct setup setup = setup_new();
    struct q2_fault_plan plan = {.kind = Q2_FAULT_TORN, .ops = Q2_FAULT_ALL, .nth = 1};
    Q2_AUTOCLOSE struct q2_file *torn = NULL;
    uint8_t bytes[2048] = {1};
    cr_assert_eq(q2_file_new_fault(setup.file, &plan, &torn, NULL), 0);
    cr_assert_eq(q2_file_write(torn, 0, bytes, sizeof bytes, NULL), Q2_ERR_IO);
    cr_assert_eq(q2_record_count(setup.file), 1);
    cr_assert_eq(q2_record_at(setup.file, 0)->length, 1024);
    setup_free(&setup);
}

Test(record, every_prefix_replays)
{
    static const char *const expected[] = {
        "originals", "ABCginals", "ABCgi", "ABCgi", "ABCgi.XY", "A.Cgi.XY", "Q.Cgi.XY", "Q.Cgi.XY",
    };
    struct setup setup = setup_new();
    tell(setup.file);
    for (size_t count = 0; count <= 7; count++)
        cr_assert_str_eq(replayed(setup.file, count, NULL, NULL), expected[count], "prefix %zu",
                         count);
    setup_free(&setup);
}

Test(record, what_was_flushed_is_kept_the_rest_as_told)
{
    struct setup setup = setup_new();
    tell(setup.file);
    unsigned none = 0, fourth = 1 << 4, third_and_fifth = 1 << 3 | 1 << 5;
    cr_assert_str_eq(replayed(setup.file, 2, keep_in_set, &none), "originals");
    cr_assert_str_eq(replayed(setup.file, 3, keep_in_set, &none), "ABCgi");
    cr_assert_str_eq(replayed(setup.file, 6, keep_in_set, &none), "ABCgi");
    cr_assert_str_eq(replayed(setup.file, 6, keep_in_set, &fourth), "A.Cgi");
    cr_assert_str_eq(replayed(setup.file, 6, keep_in_set, &third_and_fifth), "QBCgi.XY");
    cr_assert_str_eq(replayed(setup.file, 7, keep_in_set, &none), "Q.Cgi.XY");
    setup_free(&setup);
}

Test(record, replaying_more_than_there_is_or_onto_a_bad_target)
{
    struct setup setup = setup_new();
    struct q2_error err = {0};
    tell(setup.file);
    Q2_AUTOCLOSE struct q2_file *target = NULL, *bad = NULL;
    struct q2_fault_plan plan = {.kind = Q2_FAULT_EIO, .ops = Q2_FAULT_TRUNCATE};
    cr_assert_eq(q2_file_new_memory("copy", &target, NULL), 0);
    cr_assert_eq(q2_record_replay(setup.file, 8, NULL, NULL, target, &err), Q2_ERR_RANGE);
    cr_assert(strstr(err.message, "8 of 7"), "%s", err.message);
    cr_assert_eq(q2_file_new_fault(target, &plan, &bad, NULL), 0);
    cr_assert_eq(q2_record_replay(setup.file, 7, NULL, NULL, bad, &err), Q2_ERR_IO);
    setup_free(&setup);
}

Test(record, records_stay_where_they_are)
{
    struct setup setup = setup_new();
    cr_assert_eq(q2_file_write(setup.file, 0, "first", 5, NULL), 0);
    const struct q2_record *first = q2_record_at(setup.file, 0);
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(q2_file_write(setup.file, 20, "x", 1, NULL), 0);
    cr_assert_eq(q2_record_count(setup.file), 1001);
    cr_assert_eq(q2_record_at(setup.file, 0), first);
    cr_assert_arr_eq(first->bytes, "first", 5);
    setup_free(&setup);
}

/* ---- threads ---- */

enum { THREADS = 4, TURNS = 500 };

struct writer {
    struct q2_file *file;
    char letter;
};

static void *
write_own_letter(void *data)
{
    const struct writer *writer = data;
    for (int i = 0; i < TURNS; i++)
        q2_file_write(writer->file, 0, &writer->letter, 1, NULL);
    return NULL;
}

Test(record, the_order_of_the_list_is_the_order_of_the_file)
{
    struct setup setup = setup_new();
    struct writer writers[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        writers[i] = (struct writer){.file = setup.file, .letter = (char)('a' + i)};
        cr_assert_eq(pthread_create(&threads[i], NULL, write_own_letter, &writers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(q2_record_count(setup.file), THREADS * TURNS);
    char last = content(setup.base)[0];
    cr_assert_eq(replayed(setup.file, THREADS * TURNS, NULL, NULL)[0], last);
    setup_free(&setup);
}
