/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Whole images, damaged or not, opened for writing and worked on. Of any image: what fails fails
 * with a word, and what could be opened can be opened afterwards, however wrong its refcounts are.
 * Of one that the checker has nothing against: the disk holds what was written, nothing fails
 * but what cannot be done, and the checker still finds nothing.
 *
 * The options at the end of the image: how many steps, whether freed space is given back and the
 * file is longer than the input, the first four steps, and random bits for all else. */

#include "checker/check.h"
#include "core/base/checked.h"
#include "core/image/amend.h"
#include "core/image/bitmaps.h"
#include "core/image/create.h"
#include "core/image/resize.h"
#include "core/image/snapshots.h"
#include "core/image/vmstate.h"
#include "fuzz/fuzz.h"
#include "fuzz/support/image.h"
#include "fuzz/support/medium.h"
#include "tests/stress/stress.h"

#include <string.h>

enum {
    WINDOW = 64 << 10, /* bytes of the disk that are worked on */
    MOST_STEPS = 8,
    GIVE_BACK = 1 << 0, /* of the flags */
};

struct work {
    struct q2_file *file;
    struct q2_image *image;
    unsigned flags; /* that it is opened with */
    uint64_t random;
    bool sound;            /* the checker found nothing */
    uint8_t model[WINDOW]; /* how the disk begins, where it is sound */
};

static uint64_t
window(const struct work *work)
{
    return q2_min(q2_image_size(work->image), WINDOW);
}

/* ---- the model ---- */

static void
look(struct work *work, uint8_t *bytes)
{
    struct q2_error err = {0};
    int rc = q2_image_read(work->image, 0, bytes, window(work), &err);
    Q2_REQUIRE(rc == 0, "a sound disk cannot be read: %s", err.message);
}

static void
compare(struct work *work, const char *when)
{
    static uint8_t bytes[WINDOW];
    if (!work->sound)
        return;
    look(work, bytes);
    Q2_REQUIRE(memcmp(bytes, work->model, window(work)) == 0, "the disk has other bytes %s", when);
}

/* Whether it was done, which a sound image never refuses. */
static bool
done_surely(struct work *work, int rc, const struct q2_error *err)
{
    Q2_REQUIRE(rc == 0 || err->message[0], "failed with %d and no word", rc);
    Q2_REQUIRE(rc == 0 || !work->sound, "a sound image refuses with %d: %s", rc, err->message);
    return rc == 0;
}

/* Whether it was done. A sound image refuses for good reasons only. */
static bool
done(struct work *work, int rc, const struct q2_error *err)
{
    Q2_REQUIRE(rc == 0 || err->message[0], "failed with %d and no word", rc);
    if (work->sound)
        Q2_REQUIRE(rc == 0 || rc == Q2_ERR_UNSUPPORTED || rc == Q2_ERR_RANGE ||
                       rc == Q2_ERR_NOSPACE || rc == Q2_ERR_EXISTS,
                   "a sound image says %d: %s", rc, err->message);
    return rc == 0;
}

/* ---- steps ---- */

struct range {
    uint64_t offset, length;
};

static struct range
range_of(struct work *work, bool whole)
{
    uint64_t size = window(work), unit = q2_image_geometry(work->image)->cluster_size;
    if (size == 0)
        return (struct range){0};
    uint64_t offset = random_below(&work->random, size);
    if (whole || random_below(&work->random, 2))
        offset = offset / unit * unit;
    uint64_t most = q2_min(size - offset, whole ? unit : 4 * unit);
    return (struct range){offset, whole ? most : random_below(&work->random, most + 1)};
}

static void
write_some(struct work *work, bool compressed)
{
    static uint8_t bytes[WINDOW];
    struct q2_error err = {0};
    struct range range = range_of(work, compressed);
    uint64_t unit = q2_image_geometry(work->image)->cluster_size;
    if (range.length == 0 || (compressed && unit > WINDOW))
        return;
    fill(bytes, range.length, next_random(&work->random));
    bool written;
    if (compressed)
        written =
            done(work,
                 q2_image_write_compressed(work->image, range.offset, bytes, range.length, &err),
                 &err);
    else
        written =
            done_surely(work, q2_image_write(work->image, range.offset, bytes, range.length, &err),
                        &err);
    if (written)
        memcpy(work->model + range.offset, bytes, range.length);
}

static void
zero_some(struct work *work, bool unmap)
{
    struct q2_error err = {0};
    struct range range = range_of(work, false);
    int rc =
        q2_image_zero(work->image, range.offset, range.length, unmap ? Q2_ZERO_UNMAP : 0, &err);
    if (done_surely(work, rc, &err))
        memset(work->model + range.offset, 0, range.length);
}

/* What is given back reads as zeros; the model follows where all of it is in the window. */
static void
discard_some(struct work *work)
{
    struct q2_error err = {0};
    struct range range = range_of(work, true);
    uint64_t unit = q2_image_geometry(work->image)->cluster_size;
    bool end = range.offset + range.length == q2_image_size(work->image);
    int rc = q2_image_discard(work->image, range.offset, range.length, &err);
    if (done_surely(work, rc, &err) && (range.length == unit || end))
        memset(work->model + range.offset, 0, range.length);
}

static void
take_snapshot(struct work *work)
{
    struct q2_error err = {0};
    char name[] = "a";
    name[0] = (char)('a' + random_below(&work->random, 3));
    const struct q2_snapshot_options options = {.name = name, .date_seconds = 1};
    done(work, q2_snapshot_create(work->image, &options, &err), &err);
}

static void
use_snapshot(struct work *work, bool delete)
{
    struct q2_error err = {0};
    struct q2_snapshot_info info;
    unsigned count = q2_snapshot_count(work->image), found = count;
    if (count == 0)
        return;
    unsigned index = (unsigned)random_below(&work->random, count);
    q2_snapshot_info(work->image, index, &info);
    int rc = q2_snapshot_find(work->image, info.id, &found, &err);
    Q2_REQUIRE(rc == 0 && found < count, "snapshot %u is not found: %s", index, err.message);
    Q2_REQUIRE(found == index || !work->sound, "snapshot %u is found as %u", index, found);
    if (delete) {
        done(work, q2_snapshot_delete(work->image, index, &err), &err);
    } else {
        done(work, q2_snapshot_goto(work->image, index, &err), &err);
        if (work->sound)
            look(work, work->model);
    }
}

static void
resize(struct work *work)
{
    struct q2_error err = {0};
    uint64_t before = window(work), size = random_below(&work->random, 4 * WINDOW / 512) * 512;
    if (!done(work, q2_image_resize(work->image, size, Q2_PREALLOCATION_OFF, &err), &err))
        return;
    Q2_REQUIRE(q2_image_size(work->image) == size, "another size");
    if (size > before && before < WINDOW)
        memset(work->model + before, 0, WINDOW - before);
}

static void
work_on_bitmap(struct work *work)
{
    struct q2_error err = {0};
    struct q2_bitmap_info info;
    unsigned count = q2_bitmap_count(work->image), how = (unsigned)random_below(&work->random, 6);
    unsigned index = (unsigned)random_below(&work->random, count + 1), other = index;
    bool dirty = false;
    uint64_t end = 0;
    if (index < count && q2_bitmap_info(work->image, index, &info, &err) == 0 &&
        done_surely(work, q2_bitmap_find(work->image, info.name, &other, &err), &err))
        Q2_REQUIRE(other == index || !work->sound, "bitmap %u is found as %u", index, other);
    bool missing = index == count && how > 0;
    int rc = how == 0   ? q2_bitmap_add(work->image, "new", UINT64_C(512) << index % 8, true, &err)
             : how == 1 ? q2_bitmap_remove(work->image, index, &err)
             : how == 2 ? q2_bitmap_clear(work->image, index, &err)
             : how == 3 ? q2_bitmap_set_enabled(work->image, index, count & 1, &err)
             : how == 4 ? q2_bitmap_merge(work->image, index, work->image, 0, &err)
                        : q2_bitmap_extent(work->image, index, 0, &dirty, &end, &err);
    Q2_REQUIRE(!missing || rc == Q2_ERR_NOT_FOUND || (rc < 0 && !work->sound),
               "bitmap %u of %u gives %d, how %u: %s", index, count, rc, how, err.message);
    if (!missing)
        done(work, rc, &err);
}

static void
amend(struct work *work)
{
    struct q2_error err = {0};
    uint64_t random = next_random(&work->random) >> 16;
    const struct q2_amend_options options = {
        .fields = 1U << random % 3,
        .version = 2 + (unsigned)(random >> 4 & 1),
        .refcount_bits = 1U << (random >> 5) % 8,
        .lazy_refcounts = random >> 8 & 1,
    };
    if (random >> 9 & 1)
        done(work, q2_image_amend(work->image, &options, &err), &err);
    else
        done(work,
             q2_image_change_backing(work->image, random >> 10 & 1 ? "b" : NULL,
                                     random >> 11 & 1 ? "raw" : NULL, &err),
             &err);
}

static void
empty(struct work *work)
{
    struct q2_error err = {0};
    if (done(work, q2_image_make_empty(work->image, &err), &err))
        memset(work->model, 0, WINDOW);
    else if (work->sound)
        look(work, work->model);
}

static void
work_on_vm_state(struct work *work)
{
    struct q2_error err = {0};
    uint8_t bytes[3000], again[sizeof bytes];
    uint64_t offset = random_below(&work->random, 1 << 14);
    if (random_below(&work->random, 4) == 0) {
        done(work, q2_vmstate_discard(work->image, &err), &err);
        return;
    }
    fill(bytes, sizeof bytes, next_random(&work->random));
    if (!done(work, q2_vmstate_write(work->image, offset, bytes, sizeof bytes, &err), &err))
        return;
    int rc = q2_vmstate_read(work->image, offset, again, sizeof again, &err);
    if (work->sound)
        Q2_REQUIRE(rc == 0 && memcmp(bytes, again, sizeof bytes) == 0, "other VM state: %s",
                   err.message);
}

static void
flush(struct work *work)
{
    struct q2_error err = {0};
    done_surely(work, q2_image_flush(work->image, &err), &err);
}

/* ---- opening ---- */

static void
close_image(struct work *work)
{
    struct q2_error err = {0};
    done_surely(work, q2_image_close(work->image, &err), &err);
    work->image = NULL;
}

static void
reopen(struct work *work)
{
    close_image(work);
    work->image = q2_fuzz_open(work->file, work->flags);
    Q2_REQUIRE(work->image || !work->sound, "a sound image cannot be opened again");
}

static void
step(struct work *work, unsigned number)
{
    switch (number % 16) {
    case 0 ... 2:
        write_some(work, number % 16 == 2);
        break;
    case 3 ... 4:
        zero_some(work, number % 16 == 4);
        break;
    case 5:
        discard_some(work);
        break;
    case 6:
        flush(work);
        break;
    case 7:
        take_snapshot(work);
        break;
    case 8 ... 9:
        use_snapshot(work, number % 16 == 8);
        break;
    case 10:
        resize(work);
        break;
    case 11:
        work_on_bitmap(work);
        break;
    case 12:
        amend(work);
        break;
    case 13:
        empty(work);
        break;
    case 14:
        work_on_vm_state(work);
        break;
    default:
        reopen(work);
    }
}

/* Nothing is wrong with the image, and this file is all there is of it. */
static bool
is_sound(struct q2_file *file)
{
    struct q2_check *check = q2_fuzz_check(file, true);
    bool sound =
        check && q2_check_exit(check) == Q2_EXIT_CLEAN && q2_check_finding_count(check) == 0;
    if (sound) {
        const struct q2_header *header = q2_check_header(check);
        sound =
            header->crypt_method == 0 && header->backing_file_offset == 0 &&
            !(header->incompatible_features & (Q2_INCOMPATIBLE_DATA_FILE | Q2_INCOMPATIBLE_DIRTY));
    }
    q2_check_free(check);
    return sound;
}

static void
require_sound(struct work *work)
{
    struct q2_check *check = q2_fuzz_check(work->file, true);
    Q2_REQUIRE(check && q2_check_exit(check) == Q2_EXIT_CLEAN, "%s after work on a sound image",
               check && q2_check_finding_count(check)
                   ? q2_problem_id(q2_check_finding(check, 0)->problem)
                   : "no check");
    q2_check_free(check);
}

static void
run(const uint8_t *input, size_t length)
{
    static struct work work;
    struct q2_fuzz_options options;
    length = q2_fuzz_split(input, length, &options);
    work = (struct work){.file = q2_fuzz_input(input, length, &options), .random = options.chance};
    work.flags = Q2_IMAGE_WRITE | (options.flags & GIVE_BACK ? Q2_IMAGE_DISCARD : 0);
    work.image = q2_fuzz_open(work.file, work.flags);
    if (work.image) {
        work.sound = is_sound(work.file);
        if (work.sound)
            look(&work, work.model);
        for (unsigned i = 0; i <= options.level % MOST_STEPS && work.image; i++) {
            step(&work,
                 i < 4 ? (unsigned)options.number >> 4 * i : (unsigned)next_random(&work.random));
            if (work.image)
                compare(&work, "after a step");
        }
        close_image(&work);
        work.image = q2_fuzz_open(work.file, 0);
        Q2_REQUIRE(work.image, "it cannot be opened any more");
        compare(&work, "when it is opened again");
        if (work.sound)
            require_sound(&work);
    }
    q2_image_close(work.image, NULL);
    q2_file_close(work.file);
}

const struct q2_harness q2_harness = {"writes", Q2_FUZZ_IMAGE, 1 << 17, run};
