/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Fault files: which operation fails, how, and what the base is left with. */

#include "core/io/fault.h"
#include "core/io/memory.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

enum { SIZE = 8192 };

struct setup {
    struct q2_file *base;
    struct q2_file *file;
};

static struct setup
setup_new(struct q2_fault_plan plan)
{
    struct setup setup = {0};
    uint8_t bytes[SIZE];
    memset(bytes, 'o', sizeof bytes);
    cr_assert_eq(q2_file_new_memory_from("disk.qcow2", bytes, SIZE, &setup.base, NULL), 0);
    cr_assert_eq(q2_file_new_fault(setup.base, &plan, &setup.file, NULL), 0);
    return setup;
}

static void
setup_free(struct setup *setup)
{
    q2_file_close(setup->file);
    q2_file_close(setup->base);
}

/* How many bytes of the base are `byte`. */
static size_t
count(const struct setup *setup, uint8_t byte)
{
    uint8_t bytes[SIZE];
    size_t found = 0;
    cr_assert_eq(q2_file_read_padded(setup->base, 0, bytes, SIZE, NULL), 0);
    for (size_t i = 0; i < SIZE; i++)
        found += bytes[i] == byte;
    return found;
}

static uint64_t
size_of(struct q2_file *file)
{
    uint64_t size = UINT64_MAX;
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    return size;
}

static int
read_at(const struct setup *setup, uint64_t offset, size_t length)
{
    uint8_t bytes[SIZE];
    return q2_file_read(setup->file, offset, bytes, length, NULL);
}

static int
write_at(const struct setup *setup, uint64_t offset, size_t length)
{
    uint8_t bytes[SIZE];
    memset(bytes, 'n', sizeof bytes);
    return q2_file_write(setup->file, offset, bytes, length, NULL);
}

Test(fault, none_counts_and_passes_all)
{
    struct setup setup = setup_new((struct q2_fault_plan){.ops = Q2_FAULT_ALL});
    uint64_t end, bytes;
    bool data;
    cr_assert_eq(write_at(&setup, 0, 10), 0);
    cr_assert_eq(read_at(&setup, 0, 10), 0);
    cr_assert_eq(q2_file_flush(setup.file, NULL), 0);
    cr_assert_eq(q2_file_punch(setup.file, 0, 5, NULL), 0);
    cr_assert_eq(q2_file_truncate(setup.file, 9000, NULL), 0);
    cr_assert_eq(q2_fault_matched(setup.file), 5);
    cr_assert_eq(count(&setup, 'n'), 5);
    cr_assert_eq(size_of(setup.base), 9000);

    cr_assert_eq(size_of(setup.file), 9000);
    cr_assert_eq(q2_file_extent(setup.file, 0, &data, &end, NULL), 0);
    cr_assert(data && end == 9000 - 9000 % 4096);
    cr_assert_eq(q2_file_allocated(setup.file, &bytes, NULL), 0);
    cr_assert_eq(bytes, SIZE);
    q2_file_prefetch(setup.file, 0, 10);
    cr_assert_eq(q2_fault_matched(setup.file), 5, "questions are not counted");
    cr_assert_str_eq(setup.file->name, "disk.qcow2");
    setup_free(&setup);
}

Test(fault, a_read_only_base_stays_so)
{
    struct q2_fault_plan plan = {.ops = Q2_FAULT_ALL};
    struct setup setup = setup_new(plan);
    setup.base->writable = false;
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    cr_assert_eq(q2_file_new_fault(setup.base, &plan, &file, NULL), 0);
    cr_assert_eq(q2_file_write(file, 0, "x", 1, NULL), Q2_ERR_READ_ONLY);
    setup_free(&setup);
}

Test(fault, eio_fails_each_kind_of_operation_and_does_nothing)
{
    struct setup setup =
        setup_new((struct q2_fault_plan){.kind = Q2_FAULT_EIO, .ops = Q2_FAULT_ALL});
    struct q2_error err = {0};
    cr_assert_eq(q2_file_write(setup.file, 512, "n", 1, &err), Q2_ERR_IO);
    cr_assert(strstr(err.message, "disk.qcow2: cannot write 1 bytes at offset 512"), "%s",
              err.message);
    cr_assert_eq(read_at(&setup, 0, 1), Q2_ERR_IO);
    cr_assert_eq(q2_file_flush(setup.file, NULL), Q2_ERR_IO);
    cr_assert_eq(q2_file_punch(setup.file, 0, 5, NULL), Q2_ERR_IO);
    cr_assert_eq(q2_file_truncate(setup.file, 5, NULL), Q2_ERR_IO);
    cr_assert_eq(q2_file_truncate(setup.file, 9000, NULL), Q2_ERR_IO);
    cr_assert_eq(count(&setup, 'o'), SIZE);
    cr_assert_eq(size_of(setup.base), SIZE);
    setup_free(&setup);
}

Test(fault, only_the_nth_fails_unless_permanent)
{
    for (int permanent = 0; permanent < 2; permanent++) {
        struct setup setup = setup_new((struct q2_fault_plan){
            .kind = Q2_FAULT_EIO, .ops = Q2_FAULT_WRITE, .nth = 3, .permanent = permanent});
        for (int i = 1; i <= 5; i++) {
            bool fails = permanent ? i >= 3 : i == 3;
            cr_assert_eq(read_at(&setup, 0, 1), 0, "reads neither count nor fail");
            cr_assert_eq(write_at(&setup, 0, 1), fails ? Q2_ERR_IO : 0, "write %d", i);
        }
        cr_assert_eq(q2_fault_matched(setup.file), 5);
        setup_free(&setup);
    }
}

Test(fault, a_sweep_ends)
{
    uint64_t nth = 1;
    for (;; nth++) {
        struct setup setup = setup_new(
            (struct q2_fault_plan){.kind = Q2_FAULT_EIO, .ops = Q2_FAULT_ALL, .nth = nth});
        int failed = 0;
        for (uint64_t i = 0; i < 4; i++)
            failed += write_at(&setup, i * 100, 10) != 0;
        failed += q2_file_flush(setup.file, NULL) != 0;
        bool done = nth > q2_fault_matched(setup.file);
        cr_assert_eq(failed, done ? 0 : 1);
        setup_free(&setup);
        if (done)
            break;
    }
    cr_assert_eq(nth, 6);
}

Test(fault, only_operations_that_touch_the_range_match)
{
    struct setup setup = setup_new((struct q2_fault_plan){
        .kind = Q2_FAULT_EIO, .ops = Q2_FAULT_ALL, .offset = 1000, .length = 100});
    cr_assert_eq(read_at(&setup, 0, 1000), 0);
    cr_assert_eq(read_at(&setup, 1100, 1000), 0);
    cr_assert_eq(read_at(&setup, 999, 2), Q2_ERR_IO);
    cr_assert_eq(write_at(&setup, 1099, 1), Q2_ERR_IO);
    cr_assert_eq(q2_file_punch(setup.file, 1050, 1, NULL), Q2_ERR_IO);
    cr_assert_eq(q2_file_flush(setup.file, NULL), 0, "a flush touches nothing");
    cr_assert_eq(q2_file_truncate(setup.file, 1100, NULL), 0, "cuts off what comes after");
    cr_assert_eq(q2_file_truncate(setup.file, 1100, NULL), 0, "touches nothing");
    cr_assert_eq(q2_file_truncate(setup.file, 1099, NULL), Q2_ERR_IO);
    cr_assert_eq(q2_fault_matched(setup.file), 4);
    setup_free(&setup);
}

Test(fault, no_space_hits_writes_and_growth_only)
{
    struct setup setup =
        setup_new((struct q2_fault_plan){.kind = Q2_FAULT_ENOSPC, .ops = Q2_FAULT_ALL});
    struct q2_error err = {0};
    cr_assert_eq(read_at(&setup, 0, 1), 0);
    cr_assert_eq(q2_file_flush(setup.file, NULL), 0);
    cr_assert_eq(q2_file_truncate(setup.file, 8000, NULL), 0);
    cr_assert_eq(q2_file_punch(setup.file, 0, 1, NULL), 0);
    cr_assert_eq(q2_fault_matched(setup.file), 0);
    cr_assert_eq(q2_file_truncate(setup.file, 8001, &err), Q2_ERR_NOSPACE);
    cr_assert(strstr(err.message, "1 bytes at offset 8000"), "%s", err.message);
    cr_assert_eq(write_at(&setup, 0, 1), Q2_ERR_NOSPACE);
    cr_assert_eq(size_of(setup.base), 8000);
    cr_assert_eq(count(&setup, 'n'), 0);
    setup_free(&setup);
}

Test(fault, short_reads_end_half_way)
{
    struct setup setup =
        setup_new((struct q2_fault_plan){.kind = Q2_FAULT_SHORT, .ops = Q2_FAULT_ALL, .nth = 2});
    uint8_t bytes[101];
    struct iovec iov = {bytes, sizeof bytes};
    size_t done = 0;
    cr_assert_eq(q2_file_preadv(setup.file, &iov, 1, 0, &done, NULL), 0);
    cr_assert_eq(done, 101);
    cr_assert_eq(q2_file_preadv(setup.file, &iov, 1, 0, &done, NULL), 0);
    cr_assert_eq(done, 50);
    cr_assert_eq(write_at(&setup, 0, 10), 0);
    cr_assert_eq(q2_fault_matched(setup.file), 2, "no write is short");
    setup_free(&setup);
}

Test(fault, short_reads_are_errors_not_zeros)
{
    struct setup setup =
        setup_new((struct q2_fault_plan){.kind = Q2_FAULT_SHORT, .ops = Q2_FAULT_READ});
    uint8_t bytes[100];
    cr_assert_eq(q2_file_read(setup.file, 0, bytes, 100, NULL), Q2_ERR_EOF);
    cr_assert_eq(q2_file_read_padded(setup.file, 0, bytes, 100, NULL), Q2_ERR_EOF);
    setup_free(&setup);
}

Test(fault, torn_writes_put_down_whole_sectors_of_the_first_half)
{
    static const struct {
        size_t length, torn;
    } cases[] = {{512, 0}, {1023, 0}, {1024, 512}, {4096, 2048}, {5000, 2048}, {SIZE, 4096}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct setup setup =
            setup_new((struct q2_fault_plan){.kind = Q2_FAULT_TORN, .ops = Q2_FAULT_ALL, .nth = 1});
        cr_assert_eq(write_at(&setup, 0, cases[i].length), Q2_ERR_IO);
        cr_assert_eq(count(&setup, 'n'), cases[i].torn, "length %zu", cases[i].length);
        cr_assert_eq(write_at(&setup, 0, 100), 0, "only the first");
        setup_free(&setup);
    }
}

Test(fault, torn_vectors)
{
    struct setup setup =
        setup_new((struct q2_fault_plan){.kind = Q2_FAULT_TORN, .ops = Q2_FAULT_WRITE});
    char a[500], b[1600];
    memset(a, 'a', sizeof a);
    memset(b, 'b', sizeof b);
    struct iovec iov[] = {{a, 500}, {NULL, 0}, {b, 1600}};
    cr_assert_eq(q2_file_pwritev(setup.file, iov, 3, 0, NULL), Q2_ERR_IO);
    cr_assert_eq(count(&setup, 'a'), 500);
    cr_assert_eq(count(&setup, 'b'), 1024 - 500);
    setup_free(&setup);
}

Test(fault, errors_of_the_base_come_through)
{
    struct q2_fault_plan bad = {.kind = Q2_FAULT_ENOSPC, .ops = Q2_FAULT_ALL};
    struct setup setup = setup_new(bad);
    struct q2_fault_plan torn = {.kind = Q2_FAULT_TORN, .ops = Q2_FAULT_ALL};
    Q2_AUTOCLOSE struct q2_file *outer = NULL;
    uint8_t bytes[2048] = {0};
    cr_assert_eq(q2_file_new_fault(setup.file, &torn, &outer, NULL), 0);
    cr_assert_eq(q2_file_write(outer, 0, bytes, sizeof bytes, NULL), Q2_ERR_NOSPACE);
    setup_free(&setup);
}

static void *
write_often(void *file)
{
    uintptr_t failed = 0;
    for (int i = 0; i < 1000; i++)
        failed += q2_file_write(file, 0, "x", 1, NULL) != 0;
    return (void *)failed;
}

Test(fault, threads_see_the_nth_once)
{
    struct setup setup =
        setup_new((struct q2_fault_plan){.kind = Q2_FAULT_EIO, .ops = Q2_FAULT_WRITE, .nth = 1234});
    pthread_t threads[4];
    uintptr_t total = 0;
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, write_often, setup.file), 0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        total += (uintptr_t)failed;
    }
    cr_assert_eq(total, 1);
    cr_assert_eq(q2_fault_matched(setup.file), 4000);
    setup_free(&setup);
}
