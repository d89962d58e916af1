/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Images with a damaged first cluster, and what comes of mending that alone. What a guest sees is
 * boiled down to a number: the size of the disk, every byte of it that is not zero, the backing
 * file's name, and the same for each snapshot. */

#ifndef Q2_TESTS_REPAIR_HEADER_H
#define Q2_TESTS_REPAIR_HEADER_H

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/image/image.h"
#include "core/image/snapshots.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "repair/fix.h"
#include "tests/unit/images.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline struct q2_file *
build(const char *image, const char *damage)
{
    char *text = NULL;
    cr_assert_geq(asprintf(&text, "%s%s", image, damage), 0);
    struct q2_file *file = build_image(text);
    free(text);
    return file;
}

/* Copies of at most 64 MiB. */
static inline struct q2_file *
copy_of(struct q2_file *file)
{
    struct q2_file *copy = NULL;
    uint64_t size = 0;
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    cr_assert_leq(size, 64 << 20);
    uint8_t *bytes = malloc(size + 1);
    cr_assert(bytes);
    if (size)
        cr_assert_eq(q2_file_read(file, 0, bytes, size, NULL), 0);
    cr_assert_eq(q2_file_new_memory_from("copy", bytes, size, &copy, NULL), 0);
    free(bytes);
    return copy;
}

static inline uint64_t
mix(uint64_t hash, const void *bytes, size_t length)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ at[i]) * UINT64_C(1099511628211);
    return hash;
}

/* Of an encrypted image, where its bytes are instead of what they are. */
static inline bool
mix_content(struct q2_image *image, uint64_t *hash)
{
    enum { PIECE = 4096 };
    uint8_t bytes[PIECE];
    uint64_t size = q2_image_size(image);
    bool encrypted = q2_image_header(image)->crypt_method != Q2_CRYPT_NONE;
    *hash = mix(*hash, &size, sizeof size);
    for (uint64_t at = 0, end; at < size; at = end) {
        struct q2_extent extent;
        if (q2_image_map(image, at, size - at, &extent, NULL) < 0)
            return false;
        end = extent.offset + extent.length;
        if (!extent.zero && encrypted)
            *hash = mix(mix(*hash, &extent.offset, 8), &extent.host, 8);
        for (; !extent.zero && !encrypted && at < end;) {
            size_t length = (size_t)q2_min(PIECE, end - at);
            if (q2_image_read(image, at, bytes, length, NULL) < 0)
                return false;
            for (size_t i = 0; i < length; i++)
                if (bytes[i]) {
                    uint64_t where = at + i;
                    *hash = mix(mix(*hash, &where, 8), bytes + i, 1);
                }
            at += length;
        }
    }
    return true;
}

/* False where strict software refuses the image. */
static inline bool
signature(struct q2_file *file, uint64_t *ret_hash)
{
    const struct q2_image_options options = {.flags = Q2_IMAGE_NO_BACKING | Q2_IMAGE_NO_CRYPTO |
                                                      Q2_IMAGE_NO_DATA_FILE};
    struct q2_image *image = NULL;
    if (q2_image_open_file(copy_of(file), &options, &image, NULL) < 0)
        return false;
    unsigned count = q2_snapshot_count(image);
    uint32_t method = q2_image_header(image)->crypt_method;
    const char *backing = q2_image_backing_name(image);
    uint64_t hash = mix(UINT64_C(14695981039346656037), &count, sizeof count);
    hash = mix(hash, &method, sizeof method);
    if (backing)
        hash = mix(hash, backing, strlen(backing));
    bool good = mix_content(image, &hash);
    q2_image_close(image, NULL);
    for (unsigned i = 0; i < count && good; i++) {
        if (q2_image_open_file(copy_of(file), &options, &image, NULL) < 0)
            return false;
        good = q2_snapshot_load(image, i, NULL) == 0 && mix_content(image, &hash);
        q2_image_close(image, NULL);
    }
    *ret_hash = hash;
    return good;
}

/* What became of an image. */
struct outcome {
    bool opens;                        /* strictly */
    uint64_t hash;                     /* then */
    bool clean;                        /* as the check has it: no corruption, leak or error */
    bool stopped;                      /* nothing else may be mended */
    bool applied;                      /* something was changed */
    unsigned actions[Q2_ACTION_COUNT]; /* the confidence of each kind of action, + 1 */
};

static const struct q2_scene_options quiet = {.threads = 1};

static inline void
outcome_of(struct q2_scene *scene, struct outcome *ret_outcome)
{
    struct outcome out = {.stopped = scene->stop};
    out.opens = signature(scene->file, &out.hash);
    out.clean = scene->check && q2_check_exit(scene->check) == Q2_EXIT_CLEAN;
    for (uint64_t i = 0; i < scene->plan.count; i++) {
        const struct q2_action *action = &scene->plan.actions[i];
        out.applied |= action->applied;
        out.actions[action->kind] = (unsigned)action->confidence + 1;
    }
    *ret_outcome = out;
}

/* The header's fix, and that of encryption, which may be all that is needed. */
static inline void
mend_image(struct q2_file *file, enum q2_repair_level level, struct outcome *ret_outcome)
{
    struct q2_error err = {0};
    struct q2_scene *scene = NULL;
    cr_assert_eq(q2_scene_open(file, &quiet, level, 0, &scene, &err), 0, "%s", err.message);
    cr_assert_eq(q2_fix_header(scene, &err), 0, "%s", err.message);
    cr_assert_eq(q2_scene_recheck(scene, &err), 0, "%s", err.message);
    if (!scene->stop)
        cr_assert_eq(q2_fix_crypto(scene, &err), 0, "%s", err.message);
    cr_assert_eq(q2_scene_recheck(scene, &err), 0, "%s", err.message);
    outcome_of(scene, ret_outcome);
    /* A second time there is nothing to do. */
    uint64_t count = scene->plan.count;
    if (ret_outcome->clean) {
        cr_assert_eq(q2_fix_header(scene, &err), 0, "%s", err.message);
        cr_assert_eq(q2_fix_crypto(scene, &err), 0, "%s", err.message);
        for (uint64_t i = count; i < scene->plan.count; i++)
            cr_expect_not(scene->plan.actions[i].applied, "a second run acts: %s",
                          scene->plan.actions[i].evidence);
    }
    q2_scene_close(scene);
}

#endif
