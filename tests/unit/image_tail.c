/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Reading the last cluster of an image, which the end of the file cuts short: what is missing reads
 * as zeros, also while the file grows, but not where something else has cut it. */

#include "core/io/forward.h"
#include "tests/unit/image_states.h"

enum { CLUSTER = 4096, WRITTEN = 512 };

static const char recipe[] = "cluster-size 4K\nsize 64K\n";

/* A file that is written to through the image as soon as a read has come to its end. */
struct growing {
    struct q2_forward forward;
    struct q2_image *image;
    bool armed;
    bool grew;
};

static int
growing_preadv(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
               size_t *ret_done, struct q2_error *err)
{
    struct growing *growing = (struct growing *)file;
    int rc = q2_file_preadv(growing->forward.base, iov, iov_count, offset, ret_done, err);
    if (rc == 0 && growing->armed && *ret_done < q2_iov_total(iov, iov_count)) {
        uint8_t byte = 0x22;
        growing->armed = false;
        growing->grew = true;
        rc = q2_image_write(growing->image, 2 * CLUSTER, &byte, 1, err);
    }
    return rc;
}

static void
growing_close(struct q2_file *file)
{
    q2_file_fini(file);
}

static const struct q2_file_ops growing_ops = {.preadv = growing_preadv,
                                               .pwritev = q2_forward_pwritev,
                                               .flush = q2_forward_flush,
                                               .truncate = q2_forward_truncate,
                                               .size = q2_forward_size,
                                               .close = growing_close};

/* An image whose last cluster has WRITTEN bytes in the file. */
static void
write_tail(struct q2_image *image, struct q2_file *file)
{
    uint8_t bytes[WRITTEN];
    uint64_t size;
    struct q2_error err = {0};
    memset(bytes, 0x11, sizeof bytes);
    MUST(q2_image_write(image, 0, bytes, sizeof bytes, &err), err);
    MUST(q2_file_size(file, &size, &err), err);
    cr_assert_eq(size % CLUSTER, WRITTEN, "the last cluster is whole: the test shows nothing");
}

static void
expect_tail(const uint8_t *bytes)
{
    for (unsigned i = 0; i < CLUSTER; i++)
        cr_assert_eq(bytes[i], i < WRITTEN ? 0x11 : 0, "byte %u is 0x%x", i, bytes[i]);
}

Test(tail, others_write_behind_the_end_that_a_read_finds)
{
    struct q2_error err = {0};
    uint8_t bytes[CLUSTER];
    Q2_AUTOCLOSE struct q2_file *base = build_image(recipe);
    struct growing growing = {.forward.base = base};
    struct q2_image_options options = {.flags = Q2_IMAGE_WRITE, .format = Q2_DISK_QCOW2};
    MUST(q2_file_init(&growing.forward.file, &growing_ops, "image", true, &err), err);
    MUST(q2_image_open_file(&growing.forward.file, &options, &growing.image, &err), err);
    write_tail(growing.image, base);
    growing.armed = true;
    MUST(q2_image_read(growing.image, 0, bytes, CLUSTER, &err), err);
    cr_assert(growing.grew);
    expect_tail(bytes);
    MUST(q2_image_read(growing.image, 0, bytes, CLUSTER, &err), err);
    expect_tail(bytes);
    MUST(q2_image_close(growing.image, &err), err);
}

Test(tail, bytes_that_were_there_do_not_become_zeros)
{
    struct q2_error err = {0};
    uint8_t bytes[CLUSTER];
    uint64_t size;
    Q2_AUTOCLOSE struct q2_file *file = build_image(recipe);
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    write_tail(opened.image, file);
    MUST(q2_file_size(file, &size, &err), err);
    MUST(q2_file_truncate(file, size - 1, &err), err);
    cr_assert_eq(q2_image_read(opened.image, 0, bytes, CLUSTER, &err), Q2_ERR_EOF);
    cr_assert(strstr(err.message, "something else has cut it"), "%s", err.message);
    MUST(q2_file_truncate(file, size, &err), err);
    must_close(&opened);
}
