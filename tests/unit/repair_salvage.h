/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the tests of salvage share: images from recipes in a folder of their own, and comparing what
 * was salvaged with what strict reading gives. */

#ifndef Q2_TESTS_REPAIR_SALVAGE_H
#define Q2_TESTS_REPAIR_SALVAGE_H

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/codec/secret.h"
#include "core/image/create.h"
#include "core/image/resize.h"
#include "core/image/snapshots.h"
#include "core/image/vmstate.h"
#include "core/io/fault.h"
#include "core/io/posix.h"
#include "corpus/recipe/recipe.h"
#include "repair/salvage.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 1 << 16 };

/* ---- folders ---- */

static char folder[] = "/tmp/q2_salvage_XXXXXX";

static const char *
in_folder(const char *name)
{
    static char paths[8][4096];
    static unsigned turn;
    char *path = paths[turn++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void
empty_folder(void)
{
    DIR *directory = opendir(folder);
    cr_assert(directory);
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;)
        if (entry->d_name[0] != '.')
            unlink(in_folder(entry->d_name));
    closedir(directory);
}

static void
make_folder(void)
{
    cr_assert(mkdtemp(folder));
}

static void
remove_folder(void)
{
    empty_folder();
    cr_expect_eq(rmdir(folder), 0);
}

/* A path below the sources, found from this file. */
static const char *
source_path(const char *name)
{
    static char path[8192];
    snprintf(path, sizeof path, "%s", __FILE__);
    for (int i = 0; i < 3; i++)
        *strrchr(path, '/') = '\0';
    size_t used = strlen(path);
    snprintf(path + used, sizeof path - used, "/%s", name);
    return path;
}

/* ---- recipes ---- */

static int
make_companion(void *data, const char *name, struct q2_file **ret_file, struct q2_error *err)
{
    (void)data;
    unlink(in_folder(name));
    return q2_file_open(in_folder(name), Q2_OPEN_CREATE | Q2_OPEN_WRITE, ret_file, err);
}

static void
build(const char *name, const char *text)
{
    struct q2_recipe *recipe = NULL;
    struct q2_error err = {0};
    struct q2_recipe_target target = {.make_companion = make_companion};
    unlink(in_folder(name));
    int rc = q2_recipe_parse(name, text, strlen(text), &recipe, &err);
    rc = rc ? rc
            : q2_file_open(in_folder(name), Q2_OPEN_CREATE | Q2_OPEN_WRITE, &target.image, &err);
    rc = rc ? rc : q2_recipe_build(recipe, &target, &err);
    cr_assert_eq(rc, 0, "%s", err.message);
    q2_recipe_free(recipe);
    q2_file_close(target.image);
}

static void
build_from(const char *name, const char *path)
{
    FILE *stream = fopen(path, "r");
    Q2_AUTOFREE char *text = NULL;
    size_t room = 0;
    cr_assert(stream, "cannot open %s", path);
    cr_assert_gt(getdelim(&text, &room, '\0', stream), 0);
    fclose(stream);
    build(name, text);
}

/* ---- salvaging ---- */

static struct q2_file *
open_source(void)
{
    struct q2_file *file = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_file_open(in_folder("image"), 0, &file, &err), 0, "%s", err.message);
    return file;
}

static int
salvage(const char *out, const struct q2_salvage_options *options,
        struct q2_salvage_result *ret_result, struct q2_error *err)
{
    Q2_AUTOCLOSE struct q2_file *file = open_source();
    return q2_salvage_run(file, in_folder(out), options, ret_result, err);
}

/* ---- comparing ---- */

static struct q2_disk *
open_disk(const char *name, enum q2_disk_format format, const struct q2_secret *secret)
{
    const struct q2_image_options options = {.format = format, .secret = secret};
    struct q2_disk *disk = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_disk_open(in_folder(name), &options, &disk, &err), 0, "%s", err.message);
    return disk;
}

/* Whether [offset, offset + length) reads the same. */
static bool
same_bytes(struct q2_disk *a, struct q2_disk *b, uint64_t offset, uint64_t length)
{
    static char left[CHUNK], right[CHUNK];
    for (uint64_t done = 0; done < length; done += CHUNK) {
        size_t now = (size_t)q2_min(length - done, CHUNK);
        struct q2_error err = {0};
        cr_assert_eq(q2_disk_read(a, offset + done, left, now, &err), 0, "%s", err.message);
        cr_assert_eq(q2_disk_read(b, offset + done, right, now, &err), 0, "%s", err.message);
        if (memcmp(left, right, now) != 0)
            return false;
    }
    return true;
}

/* Both disks read the same; what both say is zeros is not read. */
static void
expect_same(struct q2_disk *strict, struct q2_disk *made, const char *what)
{
    uint64_t size = q2_disk_size(strict);
    cr_expect_eq(q2_units(q2_disk_size(made), 9), q2_units(size, 9), "%s: %" PRIu64, what,
                 q2_disk_size(made));
    size = q2_min(size, q2_disk_size(made));
    for (uint64_t at = 0; at < size;) {
        struct q2_extent a, b;
        cr_assert_eq(q2_disk_map(strict, at, size - at, &a, NULL), 0);
        cr_assert_eq(q2_disk_map(made, at, size - at, &b, NULL), 0);
        uint64_t length = q2_min(a.length, b.length);
        if (!(a.zero && b.zero) && !same_bytes(strict, made, at, length)) {
            cr_expect_fail("%s: differs in 0x%" PRIx64 " + 0x%" PRIx64, what, at, length);
            return;
        }
        at += length;
    }
}

static void
expect_same_vm_state(struct q2_image *a, struct q2_image *b, uint64_t length, const char *what)
{
    static char left[CHUNK], right[CHUNK];
    for (uint64_t at = 0; at < length; at += CHUNK) {
        size_t now = (size_t)q2_min(length - at, CHUNK);
        cr_assert_eq(q2_vmstate_read(a, at, left, now, NULL), 0);
        cr_assert_eq(q2_vmstate_read(b, at, right, now, NULL), 0);
        cr_expect_arr_eq(left, right, now, "%s: VM state at %" PRIu64, what, at);
    }
}

static bool
same_text(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

/* Snapshot `index` of both images is the same. */
static void
expect_same_snapshot(const char *made_name, unsigned index, const struct q2_secret *secret,
                     const char *what)
{
    Q2_AUTODISK struct q2_disk *strict = open_disk("image", Q2_DISK_QCOW2, secret);
    Q2_AUTODISK struct q2_disk *made = open_disk(made_name, Q2_DISK_QCOW2, secret);
    struct q2_snapshot_info a, b;
    q2_snapshot_info(q2_disk_image(strict), index, &a);
    q2_snapshot_info(q2_disk_image(made), index, &b);
    cr_expect(same_text(a.id, b.id) && same_text(a.name, b.name), "%s: %s %s", what, b.id, b.name);
    cr_expect_eq(a.vm_state_size, b.vm_state_size, "%s", what);
    cr_expect_eq(a.date_nanoseconds, b.date_nanoseconds, "%s", what);
    cr_expect(a.date_seconds == b.date_seconds || a.date_seconds == 0, "%s", what);
    cr_expect_eq(a.vm_clock_nanoseconds, b.vm_clock_nanoseconds, "%s", what);
    cr_assert_eq(q2_snapshot_load(q2_disk_image(strict), index, NULL), 0);
    cr_assert_eq(q2_snapshot_load(q2_disk_image(made), index, NULL), 0);
    expect_same(strict, made, what);
    expect_same_vm_state(q2_disk_image(strict), q2_disk_image(made), a.vm_state_size, what);
}

static void
expect_same_raw_snapshot(const char *made_name, unsigned index, const struct q2_secret *secret,
                         const char *what)
{
    Q2_AUTODISK struct q2_disk *strict = open_disk("image", Q2_DISK_QCOW2, secret);
    struct q2_snapshot_info info;
    char name[256];
    q2_snapshot_info(q2_disk_image(strict), index, &info);
    snprintf(name, sizeof name, "%s.%s.raw", made_name, info.id);
    cr_assert_eq(q2_snapshot_load(q2_disk_image(strict), index, NULL), 0);
    Q2_AUTODISK struct q2_disk *made = open_disk(name, Q2_DISK_RAW, NULL);
    expect_same(strict, made, what);
}

/* All that was made of "image" is what strict reading gives. */
static void
expect_all_same(const char *made_name, enum q2_disk_format format, const struct q2_secret *secret,
                const char *what)
{
    unsigned count;
    {
        Q2_AUTODISK struct q2_disk *strict = open_disk("image", Q2_DISK_QCOW2, secret);
        Q2_AUTODISK struct q2_disk *made = open_disk(made_name, format, secret);
        expect_same(strict, made, what);
        count = q2_snapshot_count(q2_disk_image(strict));
        if (format == Q2_DISK_QCOW2)
            cr_expect_eq(q2_snapshot_count(q2_disk_image(made)), count, "%s", what);
    }
    for (unsigned i = 0; i < count; i++) {
        if (format == Q2_DISK_QCOW2)
            expect_same_snapshot(made_name, i, secret, what);
        else
            expect_same_raw_snapshot(made_name, i, secret, what);
    }
}

static void
expect_clean(const char *name, const char *what)
{
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    const struct q2_check_options options = {.deep = true};
    struct q2_check *check = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_file_open(in_folder(name), 0, &file, &err), 0, "%s", err.message);
    cr_assert_eq(q2_check_run(file, &options, &check, &err), 0, "%s", err.message);
    cr_expect_eq(q2_check_exit(check), Q2_EXIT_CLEAN, "%s: %s is not clean", what, name);
    q2_check_free(check);
}

/* ---- the map ---- */

struct tally {
    uint64_t sizes[2][64];   /* of the disks and VM states of maps */
    uint64_t reached[2][64]; /* by ranges */
    uint64_t bytes[Q2_SALVAGE_STATE_COUNT];
    bool gap;
    struct q2_salvage_range lost[16];
    unsigned lost_count;
};

static void
tally_map(void *data, const struct q2_salvage_map *map)
{
    struct tally *tally = data;
    if (map->map >= 64)
        return;
    tally->sizes[0][map->map] = map->disk_size;
    tally->sizes[1][map->map] = map->vm_state_size;
}

static void
tally_range(void *data, const struct q2_salvage_range *range)
{
    struct tally *tally = data;
    tally->bytes[range->state] += range->length;
    if (range->state == Q2_SALVAGE_LOST && tally->lost_count < 16)
        tally->lost[tally->lost_count++] = *range;
    if (range->map >= 64)
        return;
    tally->gap |= tally->reached[range->vm_state][range->map] != range->offset;
    tally->reached[range->vm_state][range->map] = range->offset + range->length;
}

/* Ranges follow each other and cover all maps. */
static struct tally
read_tally(const char *name)
{
    struct tally tally = {0};
    struct q2_error err = {0};
    cr_assert_eq(q2_salvage_read_map(in_folder(name), tally_map, tally_range, &tally, &err), 0,
                 "%s", err.message);
    cr_expect(!tally.gap);
    cr_expect_arr_eq(tally.sizes, tally.reached, sizeof tally.sizes);
    return tally;
}

static uint64_t
digest(const char *name)
{
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    static uint8_t bytes[CHUNK];
    uint64_t size = 0, hash = UINT64_C(14695981039346656037);
    cr_assert_eq(q2_file_open(in_folder(name), 0, &file, NULL), 0);
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    for (uint64_t at = 0; at < size;) {
        uint64_t end = size;
        bool data = true;
        q2_file_extent(file, at, &data, &end, NULL);
        for (; data && at < end; at += CHUNK) {
            cr_assert_eq(q2_file_read_padded(file, at, bytes, CHUNK, NULL), 0);
            for (size_t i = 0; i < CHUNK; i++)
                hash = (hash ^ bytes[i]) * UINT64_C(1099511628211);
        }
        at = end;
    }
    return hash ^ size;
}

#endif
