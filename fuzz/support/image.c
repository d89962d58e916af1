/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Images in memory. */

#include "fuzz/support/image.h"

#include "checker/check.h"
#include "core/io/fault.h"
#include "core/io/memory.h"
#include "fuzz/fuzz.h"

#include <string.h>

enum {
    PIECE = 4096,
    CACHE = 16 << 10, /* bytes; inputs are small, and larger ones take longer to make */
};

struct q2_file *
q2_fuzz_file(const uint8_t *bytes, size_t length)
{
    struct q2_error err = {0};
    struct q2_file *file = NULL;
    int rc = q2_file_new_memory_from("input", bytes, length, &file, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
    return file;
}

struct q2_file *
q2_fuzz_copy(struct q2_file *file)
{
    struct q2_error err = {0};
    struct q2_file *copy = NULL;
    uint64_t size = 0;
    int rc = q2_file_new_memory("copy", &copy, &err);
    Q2_REQUIRE(rc == 0 && q2_file_size(file, &size, &err) == 0 &&
                   q2_file_truncate(copy, size, &err) == 0,
               "%s", err.message);
    uint8_t piece[PIECE];
    for (uint64_t at = 0, end; at < size; at = end) {
        bool data;
        rc = q2_file_extent(file, at, &data, &end, &err);
        Q2_REQUIRE(rc == 0, "%s", err.message);
        if (!data)
            continue;
        end = end - at < PIECE ? end : at + PIECE;
        rc = q2_file_read(file, at, piece, (size_t)(end - at), &err);
        Q2_REQUIRE(rc == 0, "%s", err.message);
        rc = q2_file_write(copy, at, piece, (size_t)(end - at), &err);
        Q2_REQUIRE(rc == 0, "%s", err.message);
    }
    return copy;
}

bool
q2_fuzz_equal(struct q2_file *a, struct q2_file *b)
{
    uint64_t size = 0, other = 0;
    Q2_REQUIRE(q2_file_size(a, &size, NULL) == 0 && q2_file_size(b, &other, NULL) == 0, "no size");
    if (size != other)
        return false;
    uint8_t x[PIECE], y[PIECE];
    for (uint64_t at = 0, end; at < size; at = end) {
        bool data, also;
        uint64_t until;
        int rc = q2_file_extent(a, at, &data, &end, NULL);
        Q2_REQUIRE(rc == 0 && q2_file_extent(b, at, &also, &until, NULL) == 0, "no extent");
        end = end < until ? end : until;
        if (!data && !also)
            continue;
        end = end - at < PIECE ? end : at + PIECE;
        size_t length = (size_t)(end - at);
        rc = q2_file_read(a, at, x, length, NULL);
        Q2_REQUIRE(rc == 0 && q2_file_read(b, at, y, length, NULL) == 0, "no bytes");
        if (memcmp(x, y, length) != 0)
            return false;
    }
    return true;
}

struct q2_repair_options
q2_fuzz_repair_options(const struct q2_fuzz_options *options)
{
    return (struct q2_repair_options){
        .level = (enum q2_repair_level)((options->level + Q2_LEVEL_CERTAIN) % (Q2_LEVEL_GUESS + 1)),
        .deep = options->flags & Q2_FUZZ_DEEP,
        .fixed_size = options->flags & Q2_FUZZ_FIXED_SIZE,
        .discard = options->flags & Q2_FUZZ_DISCARD,
        .threads = 1,
        .max_memory = Q2_FUZZ_MEMORY,
        .now = Q2_FUZZ_NOW,
    };
}

/* There is one file; an image that asks for another does not get it. */
static int
open_file(void *data, const char *name, unsigned flags, struct q2_file **ret_file,
          struct q2_error *err)
{
    (void)flags;
    if (strcmp(name, "input") != 0)
        return q2_error_set(err, Q2_ERR_OPEN, "%s: there is no such file", name);
    const struct q2_fault_plan none = {.kind = Q2_FAULT_NONE};
    return q2_file_new_fault(data, &none, ret_file, err);
}

struct q2_image *
q2_fuzz_open(struct q2_file *file, unsigned flags)
{
    const struct q2_image_options options = {
        .flags = flags | Q2_IMAGE_NO_BACKING | Q2_IMAGE_NO_CRYPTO | Q2_IMAGE_NO_DATA_FILE,
        .format = Q2_DISK_QCOW2,
        .l2_cache_bytes = CACHE,
        .refcount_cache_bytes = CACHE,
        .open_file = open_file,
        .open_file_data = file,
    };
    struct q2_error err = {0};
    struct q2_image *image = NULL;
    int rc = q2_image_open("input", &options, &image, &err);
    Q2_REQUIRE(rc == 0 || err.message[0] != '\0', "refused with %d and no word", rc);
    return rc == 0 ? image : NULL;
}

struct q2_check *
q2_fuzz_check(struct q2_file *file, bool deep)
{
    const struct q2_check_options how = {
        .deep = deep,
        .threads = 1,
        .max_memory = Q2_FUZZ_MEMORY,
        .now = Q2_FUZZ_NOW,
    };
    struct q2_error err = {0};
    struct q2_check *check = NULL;
    int rc = q2_check_run(file, &how, &check, &err);
    Q2_REQUIRE(rc == 0 || err.message[0] != '\0', "failed with %d and no word", rc);
    return rc == 0 ? check : NULL;
}
