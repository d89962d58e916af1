/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The wrappers over a file that is made for it: one that says what was asked of it and reads short,
 * grows or fails on cue. */

#include "core/base/checked.h"
#include "core/io/file.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* A file whose byte at offset i is i + 1 (mod 256). */
struct stub {
    struct q2_file file;
    uint64_t size;
    uint64_t readable; /* reads end here, whatever the size says */
    uint64_t grow_to;  /* the size that the next question for it brings about, once; 0: none */
    size_t at_most;    /* bytes per read; 0: no limit */
    uint64_t size_asked;
    uint64_t written; /* bytes */
    uint64_t last_offset;
    int flushed;
    int prefetched;
    int size_result;
    bool wrote_nonzero;
    bool bad_extent;
};

static int
stub_preadv(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
            size_t *ret_done, struct q2_error *err)
{
    struct stub *stub = (struct stub *)file;
    uint64_t limit = q2_min(stub->size, stub->readable);
    size_t done = 0;
    (void)err;
    for (int i = 0; i < iov_count; i++) {
        for (size_t j = 0; j < iov[i].iov_len; j++) {
            if (offset + done >= limit || (stub->at_most && done == stub->at_most))
                break;
            ((uint8_t *)iov[i].iov_base)[j] = (uint8_t)(offset + done + 1);
            done++;
        }
    }
    *ret_done = done;
    return 0;
}

static int
stub_pwritev(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
             struct q2_error *err)
{
    struct stub *stub = (struct stub *)file;
    (void)err;
    stub->last_offset = offset;
    stub->written += q2_iov_total(iov, iov_count);
    for (int i = 0; i < iov_count; i++) {
        for (size_t j = 0; j < iov[i].iov_len; j++)
            stub->wrote_nonzero |= ((const uint8_t *)iov[i].iov_base)[j] != 0;
    }
    return 0;
}

static int
stub_flush(struct q2_file *file, struct q2_error *err)
{
    (void)err;
    ((struct stub *)file)->flushed++;
    return 0;
}

static int
stub_truncate(struct q2_file *file, uint64_t size, struct q2_error *err)
{
    (void)err;
    ((struct stub *)file)->size = size;
    return 0;
}

static int
stub_size(struct q2_file *file, uint64_t *ret_size, struct q2_error *err)
{
    struct stub *stub = (struct stub *)file;
    if (stub->size_result)
        return q2_error_set(err, stub->size_result, "%s: no size", file->name);
    if (stub->grow_to)
        stub->size = stub->readable = stub->grow_to;
    stub->grow_to = 0;
    stub->size_asked++;
    *ret_size = stub->size;
    return 0;
}

static int
stub_extent(struct q2_file *file, uint64_t offset, bool *ret_data, uint64_t *ret_end,
            struct q2_error *err)
{
    struct stub *stub = (struct stub *)file;
    (void)err;
    *ret_data = false;
    *ret_end = stub->bad_extent ? offset : offset + 1;
    return 0;
}

static void
stub_prefetch(struct q2_file *file, uint64_t offset, uint64_t length)
{
    (void)offset;
    (void)length;
    ((struct stub *)file)->prefetched++;
}

static void
stub_close(struct q2_file *file)
{
    q2_file_fini(file);
}

static const struct q2_file_ops least_ops = {
    .preadv = stub_preadv,
    .pwritev = stub_pwritev,
    .flush = stub_flush,
    .truncate = stub_truncate,
    .size = stub_size,
    .close = stub_close,
};

static struct stub
stub_new(const struct q2_file_ops *ops, uint64_t size, bool writable)
{
    struct stub stub = {.size = size, .readable = UINT64_MAX};
    cr_assert_eq(q2_file_init(&stub.file, ops, "disk.qcow2", writable, NULL), 0);
    return stub;
}

Test(file, init_copies_the_name)
{
    char name[] = "disk";
    struct q2_file file;
    cr_assert_eq(q2_file_init(&file, &least_ops, name, true, NULL), 0);
    name[0] = 'x';
    cr_assert_str_eq(file.name, "disk");
    q2_file_fini(&file);
    cr_assert_null(file.name);
    q2_file_close(NULL);
}

Test(file, read_is_exact_or_names_what_is_missing)
{
    struct stub stub = stub_new(&least_ops, 100, false);
    struct q2_error err = {0};
    uint8_t bytes[8];
    cr_assert_eq(q2_file_read(&stub.file, 92, bytes, 8, &err), 0);
    cr_assert_eq(bytes[0], 93);
    cr_assert_eq(bytes[7], 100);
    cr_assert_eq(q2_file_read(&stub.file, 93, bytes, 8, &err), Q2_ERR_EOF);
    cr_assert(strstr(err.message, "disk.qcow2") && strstr(err.message, "8 bytes at offset 93") &&
                  strstr(err.message, "only 7"),
              "%s", err.message);
    cr_assert_eq(q2_file_read(&stub.file, 100, bytes, 0, &err), 0);
    q2_file_close(&stub.file);
}

Test(file, ranges_end_at_the_largest_file_size)
{
    struct stub stub = stub_new(&least_ops, UINT64_MAX, true);
    stub.at_most = 1;
    struct q2_error err = {0};
    uint8_t byte = 7;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    size_t done = 42;
    cr_assert_eq(q2_file_preadv(&stub.file, &iov, 1, Q2_FILE_SIZE_MAX - 1, &done, &err), 0);
    cr_assert_eq(done, 1);
    done = 42;
    cr_assert_eq(q2_file_preadv(&stub.file, &iov, 1, Q2_FILE_SIZE_MAX, &done, &err), Q2_ERR_RANGE);
    cr_assert(strstr(err.message, "1 bytes at offset 9223372036854775807"), "%s", err.message);
    cr_assert_eq(q2_file_preadv(&stub.file, &iov, 1, UINT64_MAX, &done, &err), Q2_ERR_RANGE);
    cr_assert_eq(done, 42, "untouched on failure");

    cr_assert_eq(q2_file_write(&stub.file, Q2_FILE_SIZE_MAX - 1, &byte, 1, &err), 0);
    cr_assert_eq(q2_file_write(&stub.file, Q2_FILE_SIZE_MAX, &byte, 1, &err), Q2_ERR_RANGE);
    cr_assert_eq(q2_file_punch(&stub.file, 1, Q2_FILE_SIZE_MAX, &err), Q2_ERR_RANGE);
    cr_assert_eq(q2_file_punch(&stub.file, UINT64_MAX, 2, &err), Q2_ERR_RANGE);
    cr_assert_eq(q2_file_truncate(&stub.file, Q2_FILE_SIZE_MAX, &err), 0);
    cr_assert_eq(q2_file_truncate(&stub.file, Q2_FILE_SIZE_MAX + 1, &err), Q2_ERR_RANGE);
    cr_assert(strstr(err.message, "9223372036854775808"), "%s", err.message);
    cr_assert_eq(stub.size, Q2_FILE_SIZE_MAX);
    cr_assert_eq(stub.written, 1);
    q2_file_close(&stub.file);
}

Test(file, lengths_that_overflow_together_are_refused)
{
    struct stub stub = stub_new(&least_ops, 100, true);
    uint8_t byte = 0;
    struct iovec iov[3] = {
        {.iov_base = &byte, .iov_len = SIZE_MAX},
        {.iov_base = &byte, .iov_len = 1},
        {.iov_base = &byte, .iov_len = 1},
    };
    size_t done;
    cr_assert_eq(q2_file_preadv(&stub.file, iov, 3, 0, &done, NULL), Q2_ERR_RANGE);
    cr_assert_eq(q2_file_pwritev(&stub.file, iov, 3, 0, NULL), Q2_ERR_RANGE);
    cr_assert_eq(stub.written, 0);
    q2_file_close(&stub.file);
}

Test(file, nothing_changes_what_is_open_for_reading)
{
    struct stub stub = stub_new(&least_ops, 100, false);
    struct q2_error err = {0};
    cr_assert_eq(q2_file_write(&stub.file, 8, "x", 1, &err), Q2_ERR_READ_ONLY);
    cr_assert(strstr(err.message, "disk.qcow2") && strstr(err.message, "1 bytes at offset 8"), "%s",
              err.message);
    cr_assert_eq(q2_file_write(&stub.file, 8, "x", 0, &err), Q2_ERR_READ_ONLY);
    cr_assert_eq(q2_file_truncate(&stub.file, 77, &err), Q2_ERR_READ_ONLY);
    cr_assert(strstr(err.message, "77"), "%s", err.message);
    cr_assert_eq(q2_file_punch(&stub.file, 0, 1, &err), Q2_ERR_READ_ONLY);
    cr_assert_eq(q2_file_flush(&stub.file, &err), 0, "there is nothing to make durable");
    cr_assert_eq(stub.flushed, 0);
    cr_assert_eq(stub.written, 0);
    cr_assert_eq(stub.size, 100);
    q2_file_close(&stub.file);
}

Test(file, empty_ranges_reach_no_operation)
{
    struct stub stub = stub_new(&least_ops, 100, true);
    size_t done = 42;
    cr_assert_eq(q2_file_preadv(&stub.file, NULL, 0, 5, &done, NULL), 0);
    cr_assert_eq(done, 0);
    cr_assert_eq(q2_file_write(&stub.file, 500, NULL, 0, NULL), 0);
    cr_assert_eq(q2_file_punch(&stub.file, 500, 0, NULL), 0);
    cr_assert_eq(stub.size, 100);
    cr_assert_eq(stub.last_offset, 0);
    q2_file_close(&stub.file);
}

Test(file, padding_only_past_the_end)
{
    struct stub stub = stub_new(&least_ops, 100, false);
    uint8_t bytes[10];
    memset(bytes, 0xee, sizeof bytes);
    cr_assert_eq(q2_file_read_padded(&stub.file, 96, bytes, 10, NULL), 0);
    static const uint8_t expected[10] = {97, 98, 99, 100};
    cr_assert_arr_eq(bytes, expected, 10);
    cr_assert_eq(stub.size_asked, 1);

    memset(bytes, 0xee, sizeof bytes);
    cr_assert_eq(q2_file_read_padded(&stub.file, 1000, bytes, 10, NULL), 0);
    static const uint8_t zeros[10];
    cr_assert_arr_eq(bytes, zeros, 10);
    cr_assert_eq(q2_file_read_padded(&stub.file, 0, bytes, 10, NULL), 0);
    cr_assert_eq(bytes[9], 10);
    cr_assert_eq(stub.size_asked, 2, "a full read asks for no size");
    q2_file_close(&stub.file);
}

Test(file, bytes_that_exist_never_become_zeros)
{
    struct stub stub = stub_new(&least_ops, 100, false);
    stub.readable = 50;
    struct q2_error err = {0};
    uint8_t bytes[20];
    cr_assert_eq(q2_file_read_padded(&stub.file, 40, bytes, 20, &err), Q2_ERR_EOF);
    cr_assert(strstr(err.message, "20 bytes at offset 40") && strstr(err.message, "50 of 100"),
              "%s", err.message);

    stub.readable = 100;
    stub.at_most = 3;
    cr_assert_eq(q2_file_read_padded(&stub.file, 40, bytes, 20, &err), 0, "short, but it goes on");
    for (uint8_t i = 0; i < 20; i++)
        cr_assert_eq(bytes[i], 41 + i);

    stub.size_result = Q2_ERR_IO;
    cr_assert_eq(q2_file_read_padded(&stub.file, 40, bytes, 20, &err), Q2_ERR_IO);
    q2_file_close(&stub.file);
}

Test(file, a_file_that_grows_while_read_is_no_error)
{
    struct stub stub = stub_new(&least_ops, 100, false);
    stub.grow_to = 110;
    uint8_t bytes[20];
    cr_assert_eq(q2_file_read_padded(&stub.file, 100, bytes, 20, NULL), 0);
    cr_assert_eq(bytes[0], 101);
    cr_assert_eq(bytes[9], 110);
    cr_assert_eq(bytes[10], 0);
    q2_file_close(&stub.file);
}

Test(file, what_is_missing_has_a_default)
{
    struct stub stub = stub_new(&least_ops, 100, true);
    struct q2_error err = {0};
    bool data = false;
    uint64_t end = 42, bytes = 0;
    cr_assert_eq(q2_file_extent(&stub.file, 10, &data, &end, &err), 0);
    cr_assert(data);
    cr_assert_eq(end, 100);
    end = 42;
    cr_assert_eq(q2_file_extent(&stub.file, 100, &data, &end, &err), Q2_ERR_RANGE);
    cr_assert(strstr(err.message, "offset 100"), "%s", err.message);
    cr_assert_eq(end, 42, "untouched on failure");
    cr_assert_eq(q2_file_allocated(&stub.file, &bytes, NULL), 0);
    cr_assert_eq(bytes, 100);
    q2_file_prefetch(&stub.file, 0, 100);
    stub.size_result = Q2_ERR_IO;
    cr_assert_eq(q2_file_extent(&stub.file, 0, &data, &end, NULL), Q2_ERR_IO);
    cr_assert_eq(q2_file_punch(&stub.file, 0, 1, NULL), Q2_ERR_IO);
    q2_file_close(&stub.file);
}

Test(file, punching_without_holes_writes_zeros_inside_the_file)
{
    struct stub stub = stub_new(&least_ops, 200000, true);
    cr_assert_eq(q2_file_punch(&stub.file, 1000, 1 << 20, NULL), 0);
    cr_assert_eq(stub.written, 199000, "not past the end");
    cr_assert_not(stub.wrote_nonzero);
    cr_assert_eq(stub.last_offset, 1000 + 3 * 65536);
    cr_assert_eq(q2_file_punch(&stub.file, 200000, 10, NULL), 0);
    cr_assert_eq(stub.written, 199000);
    q2_file_close(&stub.file);
}

Test(file, an_extent_without_a_byte_is_an_error)
{
    struct q2_file_ops ops = least_ops;
    ops.extent = stub_extent;
    ops.prefetch = stub_prefetch;
    struct stub stub = stub_new(&ops, 100, true);
    bool data = true;
    uint64_t end;
    cr_assert_eq(q2_file_extent(&stub.file, 5, &data, &end, NULL), 0);
    cr_assert_not(data);
    cr_assert_eq(end, 6);
    stub.bad_extent = true;
    data = true;
    cr_assert_eq(q2_file_extent(&stub.file, 5, &data, &end, NULL), Q2_ERR_RANGE);
    cr_assert(data, "untouched on failure");

    q2_file_prefetch(&stub.file, 0, 0);
    q2_file_prefetch(&stub.file, UINT64_MAX, 2);
    cr_assert_eq(stub.prefetched, 0, "a hint that means nothing goes nowhere");
    q2_file_prefetch(&stub.file, 0, 1);
    cr_assert_eq(stub.prefetched, 1);
    q2_file_close(&stub.file);
}
