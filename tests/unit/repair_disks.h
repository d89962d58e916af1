/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What tests of single fixes share: a healthy image and the same with damage, a scene in which one
 * fix can work, and the disk that a strict reader sees. */

#ifndef Q2_TESTS_UNIT_REPAIR_DISKS_H
#define Q2_TESTS_UNIT_REPAIR_DISKS_H

#include "checker/refcounts.h"
#include "core/base/endian.h"
#include "core/format/entry.h"
#include "tests/unit/repair_counts.h"

/* ---- disks ---- */

/* What a strict reader sees of the disk; no bytes if it refuses the image or a part of the disk. */
static inline struct content
disk_of(struct q2_file *file)
{
    const struct q2_image_options options = {.flags = Q2_IMAGE_NO_BACKING};
    struct content bytes = content_of(file), disk = {0};
    struct q2_file *copy = NULL;
    struct q2_image *image = NULL;
    cr_assert_eq(q2_file_new_memory_from("copy", bytes.bytes, bytes.size, &copy, NULL), 0);
    free(bytes.bytes);
    if (q2_image_open_file(copy, &options, &image, NULL) < 0)
        return disk;
    disk.size = q2_image_size(image);
    disk.bytes = calloc(1, disk.size + 1);
    cr_assert(disk.bytes);
    if (q2_image_read(image, 0, disk.bytes, disk.size, NULL) < 0) {
        free(disk.bytes);
        disk.bytes = NULL;
    }
    q2_image_close(image, NULL);
    return disk;
}

/* Whether two images show the same disk. */
static inline bool
same_disk(struct q2_file *left, struct q2_file *right)
{
    struct content a = disk_of(left), b = disk_of(right);
    bool same = a.bytes && b.bytes && a.size == b.size && memcmp(a.bytes, b.bytes, a.size) == 0;
    free(a.bytes);
    free(b.bytes);
    return same;
}

/* Whether two files hold the same bytes. */
static inline bool
same_content(struct q2_file *left, struct q2_file *right)
{
    struct content a = content_of(left), b = content_of(right);
    bool same = a.size == b.size && memcmp(a.bytes, b.bytes, a.size) == 0;
    free(a.bytes);
    free(b.bytes);
    return same;
}

static inline uint64_t
word_at(struct q2_file *file, uint64_t offset)
{
    uint8_t bytes[8];
    cr_assert_eq(q2_file_read(file, offset, bytes, sizeof bytes, NULL), 0);
    return q2_load_be64(bytes);
}

/* ---- scenes ---- */

static inline struct q2_scene *
scene_on(struct q2_file *file, enum q2_repair_level level, bool fixed_size)
{
    static const struct q2_scene_options grows = {.threads = 1},
                                         fixed = {.threads = 1, .fixed_size = true};
    struct q2_scene *scene = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_scene_open(file, fixed_size ? &fixed : &grows, level, 0, &scene, &err), 0, "%s",
                 err.message);
    return scene;
}

typedef int fix_function(struct q2_scene *scene, struct q2_error *err);

/* Let one fix work, and check what it made. */
static inline void
run_fix(struct q2_scene *scene, fix_function *fix)
{
    struct q2_error err = {0};
    cr_assert_eq(fix(scene, &err), 0, "%s", err.message);
    cr_assert_eq(scene->plan.failed, 0);
    cr_assert_eq(q2_scene_recheck(scene, &err), 0, "%s", err.message);
}

/* An image without and with damage, and what one fix makes of the latter. */
struct mending {
    struct q2_file *healthy, *damaged;
    struct q2_scene *scene;
};

static inline struct mending
mend_with(fix_function *fix, enum q2_repair_level level, const char *image, const char *damage)
{
    struct mending mending = {.healthy = build_image(image)};
    char *text = NULL;
    cr_assert_geq(asprintf(&text, "%s%s", image, damage), 0);
    mending.damaged = build_image(text);
    free(text);
    mending.scene = scene_on(mending.damaged, level, false);
    run_fix(mending.scene, fix);
    return mending;
}

static inline void
mending_free(struct mending *mending)
{
    q2_scene_close(mending->scene);
    q2_file_close(mending->damaged);
    q2_file_close(mending->healthy);
}

/* Actions of a kind; the first of them to *ret_first, if there is any. */
static inline uint64_t
actions_of(const struct q2_plan *plan, enum q2_action_kind kind, const struct q2_action **ret_first)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < plan->count; i++) {
        if (plan->actions[i].kind != kind)
            continue;
        if (count++ == 0 && ret_first)
            *ret_first = &plan->actions[i];
    }
    return count;
}

/* Whether there is an action of this kind that is this sure. */
static inline bool
has_action(const struct q2_plan *plan, enum q2_action_kind kind, enum q2_confidence confidence,
           bool applied)
{
    for (uint64_t i = 0; i < plan->count; i++)
        if (plan->actions[i].kind == kind && plan->actions[i].confidence == confidence &&
            plan->actions[i].applied == applied)
            return true;
    return false;
}

/* The refcount that an image records. */
static inline uint64_t
refcount_in(struct q2_check *check, uint64_t cluster)
{
    struct q2_refcount_reader reader;
    cr_assert_eq(q2_refcount_reader_init(&reader, check, NULL), 0);
    uint64_t count = q2_refcount_of(&reader, cluster);
    q2_refcount_reader_destroy(&reader);
    return count;
}

#endif
