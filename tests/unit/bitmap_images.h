/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Images with bitmaps, in memory, for the tests of bitmaps. */

#ifndef Q2_TESTS_BITMAP_IMAGES_H
#define Q2_TESTS_BITMAP_IMAGES_H

#include "checker/check.h"
#include "core/image/bitmaps.h"
#include "core/io/fault.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "tests/unit/images.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Calls that must succeed say why if they do not. */
#define OK(call)                                                                   \
    do {                                                                           \
        struct q2_error err = {0};                                                 \
        cr_assert_eq((call), 0, "%s: %s (line %d)", #call, err.message, __LINE__); \
    } while (0)
#define FAILS(code, call)                                                                  \
    do {                                                                                   \
        struct q2_error err = {0};                                                         \
        int fails_rc = (call);                                                             \
        cr_assert_eq(fails_rc, code, "%s: %d, %s (line %d)", #call, fails_rc, err.message, \
                     __LINE__);                                                            \
    } while (0)

/* A file that the image may own while `base` stays. */
static inline struct q2_file *
borrowed(struct q2_file *base)
{
    struct q2_file *file = NULL;
    OK(q2_file_new_fault(base, &(struct q2_fault_plan){0}, &file, &err));
    return file;
}

static inline struct q2_image *
open_image(struct q2_file *base, unsigned flags)
{
    struct q2_image *image = NULL;
    struct q2_image_options options = {.flags = flags, .format = Q2_DISK_QCOW2};
    OK(q2_image_open_file(borrowed(base), &options, &image, &err));
    return image;
}

static inline void
close_image(struct q2_image *image)
{
    OK(q2_image_close(image, &err));
}

static inline struct q2_file *
copy_of(struct q2_file *file)
{
    uint64_t size = 0;
    struct q2_file *copy = NULL;
    OK(q2_file_size(file, &size, &err));
    uint8_t *bytes = malloc(size + 1);
    OK(q2_file_read(file, 0, bytes, size, &err));
    OK(q2_file_new_memory_from("copy", bytes, size, &copy, &err));
    free(bytes);
    return copy;
}

/* What qcow2-check would answer. */
static inline enum q2_check_exit
check_exit(struct q2_file *file)
{
    struct q2_check *check = NULL;
    OK(q2_check_run(file, &(struct q2_check_options){.threads = 1}, &check, &err));
    enum q2_check_exit status = q2_check_exit(check);
    q2_check_free(check);
    return status;
}

static inline unsigned
index_of(struct q2_image *image, const char *name)
{
    unsigned index = 0;
    OK(q2_bitmap_find(image, name, &index, &err));
    return index;
}

static inline struct q2_bitmap_info
info_of(struct q2_image *image, const char *name)
{
    struct q2_bitmap_info info = {0};
    OK(q2_bitmap_info(image, index_of(image, name), &info, &err));
    return info;
}

/* The dirty ranges as text: "0+64 1024+16", in KiB. */
static inline const char *
dirty_of(struct q2_image *image, const char *name)
{
    static char text[1024];
    unsigned index = index_of(image, name);
    size_t length = 0;
    text[0] = '\0';
    for (uint64_t at = 0, end = 0; at < q2_image_size(image); at = end) {
        bool dirty = false;
        OK(q2_bitmap_extent(image, index, at, &dirty, &end, &err));
        cr_assert_gt(end, at);
        if (dirty)
            length +=
                (size_t)snprintf(text + length, sizeof text - length, "%s%g+%g", length ? " " : "",
                                 (double)at / 1024, (double)(end - at) / 1024);
        cr_assert_lt(length, sizeof text);
    }
    return text;
}

static inline void
write_bytes(struct q2_image *image, uint64_t offset, size_t length, int byte)
{
    void *bytes = malloc(length);
    memset(bytes, byte, length);
    OK(q2_image_write(image, offset, bytes, length, &err));
    free(bytes);
}

#endif
