/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Images in memory that are built from recipes, opened again and again, and held to the checker:
 * for tests of what concerns whole states of a disk. */

#ifndef Q2_TESTS_IMAGE_STATES_H
#define Q2_TESTS_IMAGE_STATES_H

#include "checker/catalogue.h"
#include "checker/check.h"
#include "core/base/cleanup.h"
#include "core/image/image.h"
#include "core/image/snapshots.h"
#include "core/io/memory.h"
#include "core/io/record.h"
#include "corpus/recipe/recipe.h"
#include "tests/unit/images.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* A file that is the caller's, and a recorder over it that an open image owns. */
struct opened {
    struct q2_image *image;
    struct q2_file *record;
};

static inline struct q2_file *
clone_file(struct q2_file *file)
{
    uint64_t size;
    struct q2_file *clone = NULL;
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    Q2_AUTOFREE void *bytes = malloc(size);
    cr_assert_eq(q2_file_read(file, 0, bytes, size, NULL), 0);
    cr_assert_eq(q2_file_new_memory_from("image", bytes, size, &clone, NULL), 0);
    return clone;
}

/* Open over a recorder; `file` stays the caller's. */
static inline int
open_image(struct q2_file *file, unsigned flags, struct opened *ret_opened, struct q2_error *err)
{
    struct q2_image_options options = {.flags = flags};
    cr_assert_eq(q2_file_new_record(file, &ret_opened->record, NULL), 0);
    return q2_image_open_file(ret_opened->record, &options, &ret_opened->image, err);
}

static inline struct opened
must_open(struct q2_file *file, unsigned flags)
{
    struct opened opened = {0};
    struct q2_error err = {0};
    cr_assert_eq(open_image(file, flags, &opened, &err), 0, "%s", err.message);
    return opened;
}

static inline void
must_close(struct opened *opened)
{
    struct q2_error err = {0};
    cr_assert_eq(q2_image_close(opened->image, &err), 0, "%s", err.message);
}

#define MUST(call, err) cr_assert_eq(call, 0, "%s: %s", #call, (err).message)

/* Whether the checker reports nothing that `allowed` does not let pass. */
static inline void
expect_findings(struct q2_file *file, bool (*allowed)(enum q2_problem problem), const char *when)
{
    struct q2_check *check = NULL;
    struct q2_error err = {0};
    const struct q2_finding *finding;
    MUST(q2_check_run(file, &(struct q2_check_options){.threads = 1}, &check, &err), err);
    for (size_t i = 0; (finding = q2_check_finding(check, i)); i++)
        cr_assert(allowed && allowed(finding->problem), "%s: %s at 0x%llx (0x%llx)", when,
                  q2_problem_id(finding->problem), (unsigned long long)finding->host_offset,
                  (unsigned long long)finding->target_offset);
    q2_check_free(check);
}

static inline void
expect_clean(struct q2_file *file, const char *when)
{
    expect_findings(file, NULL, when);
}

/* All bytes of the active disk, or of the snapshot at `index` (-1: active). malloc'ed. */
static inline uint8_t *
read_state(struct q2_file *file, int index, uint64_t *ret_size)
{
    struct opened opened = must_open(file, 0);
    struct q2_error err = {0};
    if (index >= 0)
        MUST(q2_snapshot_load(opened.image, (unsigned)index, &err), err);
    uint64_t size = q2_image_size(opened.image);
    uint8_t *bytes = malloc(size + 1);
    MUST(q2_image_read(opened.image, 0, bytes, size, &err), err);
    must_close(&opened);
    *ret_size = size;
    return bytes;
}

static inline void
expect_state(struct q2_file *file, int index, const uint8_t *bytes, uint64_t size, const char *when)
{
    uint64_t got_size;
    Q2_AUTOFREE uint8_t *got = read_state(file, index, &got_size);
    cr_assert_eq(got_size, size, "%s: state %d has %llu bytes", when, index,
                 (unsigned long long)got_size);
    cr_assert_eq(memcmp(got, bytes, size), 0, "%s: state %d reads differently", when, index);
}

#endif
