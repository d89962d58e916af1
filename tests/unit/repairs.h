/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What tests of the undo journal share: small files, edits of every kind on overlays over them, and
 * two files of which is remembered what happened to them, and in what order. */

#ifndef Q2_TESTS_UNIT_REPAIRS_H
#define Q2_TESTS_UNIT_REPAIRS_H

#include "core/base/budget.h"
#include "core/io/fault.h"
#include "core/io/forward.h"
#include "core/io/memory.h"
#include "core/io/overlay.h"
#include "core/io/record.h"
#include "repair/apply.h"
#include "repair/journal_parts.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* ---- files ---- */

struct bytes {
    uint64_t size;
    uint8_t *bytes;
};

static inline struct bytes
bytes_of(struct q2_file *file)
{
    struct bytes bytes = {0};
    cr_assert_eq(q2_file_size(file, &bytes.size, NULL), 0);
    bytes.bytes = malloc(bytes.size + 1);
    cr_assert(bytes.bytes);
    cr_assert_eq(q2_file_read(file, 0, bytes.bytes, bytes.size, NULL), 0);
    return bytes;
}

static inline bool
same_bytes(const struct bytes *a, const struct bytes *b)
{
    return a->size == b->size && memcmp(a->bytes, b->bytes, a->size) == 0;
}

static inline bool
holds(struct q2_file *file, const struct bytes *wanted)
{
    struct bytes found = bytes_of(file);
    bool same = same_bytes(&found, wanted);
    free(found.bytes);
    return same;
}

static inline struct q2_file *
file_with(const char *name, const struct bytes *bytes)
{
    struct q2_file *file = NULL;
    cr_assert_eq(q2_file_new_memory_from(name, bytes->bytes, bytes->size, &file, NULL), 0);
    return file;
}

static inline struct q2_file *
empty_file(const char *name)
{
    struct q2_file *file = NULL;
    cr_assert_eq(q2_file_new_memory(name, &file, NULL), 0);
    return file;
}

static inline struct q2_file *
failing(struct q2_file *base, const struct q2_fault_plan *plan)
{
    struct q2_file *file = NULL;
    cr_assert_eq(q2_file_new_fault(base, plan, &file, NULL), 0);
    return file;
}

/* ---- an image and edits ---- */

enum { OLD_SIZE = 20000, HOLE_AT = 8192, HOLE_END = 12288 };

static inline void
scribble(struct q2_file *file, uint64_t offset, size_t length, unsigned seed)
{
    uint8_t bytes[8192];
    cr_assert_leq(length, sizeof bytes);
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)((seed * 2654435761U + i * 40503U) >> 7 | 1);
    cr_assert_eq(q2_file_write(file, offset, bytes, length, NULL), 0);
}

/* Data with a hole in it that is no longer than it has to be. */
static inline struct q2_file *
old_image(void)
{
    struct q2_file *file = empty_file("image");
    scribble(file, 0, HOLE_AT, 1);
    scribble(file, HOLE_END, OLD_SIZE - HOLE_END, 2);
    return file;
}

static inline void
edit_inside(struct q2_file *overlay)
{
    scribble(overlay, 1000, 8, 3);
    scribble(overlay, 2100, 3000, 4);
    cr_assert_eq(q2_file_punch(overlay, 6000, 5000, NULL), 0);
    scribble(overlay, 12000, 700, 5);
    scribble(overlay, 15872, 512, 6);
}

static inline void
edit_growing(struct q2_file *overlay)
{
    edit_inside(overlay);
    scribble(overlay, 19500, 3000, 7);
    scribble(overlay, 30000, 100, 8);
    cr_assert_eq(q2_file_truncate(overlay, 40001, NULL), 0);
}

static inline void
edit_shrinking(struct q2_file *overlay)
{
    edit_inside(overlay);
    cr_assert_eq(q2_file_truncate(overlay, 14001, NULL), 0);
}

static inline void
edit_both(struct q2_file *overlay)
{
    cr_assert_eq(q2_file_truncate(overlay, 5000, NULL), 0);
    cr_assert_eq(q2_file_truncate(overlay, 18000, NULL), 0);
    scribble(overlay, 17000, 900, 9);
}

static inline void
edit_nothing(struct q2_file *overlay)
{
    (void)overlay;
}

static void (*const edits[])(struct q2_file *overlay) = {
    edit_inside, edit_growing, edit_shrinking, edit_both, edit_nothing,
};
enum { EDITS = sizeof edits / sizeof edits[0] };

/* The image before, what it becomes, and the overlay that says so. */
struct scenario {
    struct q2_budget budget;
    struct q2_file *base;
    struct q2_file *overlay;
    struct bytes before, after;
};

static inline struct scenario *
scenario_new(unsigned which)
{
    struct scenario *scenario = calloc(1, sizeof *scenario);
    cr_assert(scenario);
    q2_budget_init(&scenario->budget, UINT64_C(64) << 20);
    scenario->base = old_image();
    cr_assert_eq(q2_file_new_overlay(scenario->base, &scenario->budget, &scenario->overlay, NULL),
                 0);
    edits[which](scenario->overlay);
    scenario->before = bytes_of(scenario->base);
    scenario->after = bytes_of(scenario->overlay);
    return scenario;
}

static inline void
scenario_free(struct scenario *scenario)
{
    free(scenario->before.bytes);
    free(scenario->after.bytes);
    q2_file_close(scenario->overlay);
    q2_file_close(scenario->base);
    free(scenario);
}

/* Phases that have nothing to do with the edits, so that these are cut at odd places. */
static inline enum q2_apply_phase
odd_phase(void *data, uint64_t offset, uint64_t *ret_end)
{
    (void)data;
    *ret_end = offset - offset % 1536 + 1536;
    return (enum q2_apply_phase)(3 - offset / 1536 % 4);
}

static inline int
apply_to(const struct scenario *scenario, struct q2_file *image, struct q2_file *journal,
         bool *ret_needed, struct q2_error *err)
{
    return q2_apply(image, scenario->overlay, journal, 1700000000, odd_phase, NULL, ret_needed,
                    err);
}

/* ---- what happened, in one order ---- */

enum { IMAGE, JOURNAL, SIDES };

struct history {
    struct q2_file *bases[SIDES], *records[SIDES], *files[SIDES];
    uint8_t *order; /* the side of each change */
    size_t count;
};

/* Notes that something happened on its side. */
struct tap {
    struct q2_forward forward;
    struct history *history;
    uint8_t side;
};

static inline int
happened(struct q2_file *file, int rc)
{
    struct tap *tap = (struct tap *)file;
    struct history *history = tap->history;
    if (rc < 0)
        return rc;
    history->order = realloc(history->order, history->count + 1);
    cr_assert(history->order);
    history->order[history->count++] = tap->side;
    return rc;
}

static inline int
tap_pwritev(struct q2_file *file, const struct iovec *iov, int count, uint64_t offset,
            struct q2_error *err)
{
    return happened(file, q2_file_pwritev(q2_forward_base(file), iov, count, offset, err));
}

static inline int
tap_flush(struct q2_file *file, struct q2_error *err)
{
    return happened(file, q2_file_flush(q2_forward_base(file), err));
}

static inline int
tap_truncate(struct q2_file *file, uint64_t size, struct q2_error *err)
{
    return happened(file, q2_file_truncate(q2_forward_base(file), size, err));
}

static inline int
tap_punch(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err)
{
    return happened(file, q2_file_punch(q2_forward_base(file), offset, length, err));
}

static const struct q2_file_ops tap_ops = {
    .preadv = q2_forward_preadv,
    .pwritev = tap_pwritev,
    .flush = tap_flush,
    .truncate = tap_truncate,
    .size = q2_forward_size,
    .extent = q2_forward_extent,
    .punch = tap_punch,
    .close = q2_forward_close,
};

/* Takes copies: what the two files hold when it begins stays the caller's. */
static inline struct history *
history_new(const struct bytes *image, const struct bytes *journal)
{
    const struct bytes *sides[SIDES] = {image, journal};
    struct history *history = calloc(1, sizeof *history);
    cr_assert(history);
    for (uint8_t i = 0; i < SIDES; i++) {
        struct tap *tap = calloc(1, sizeof *tap);
        cr_assert(tap);
        history->bases[i] = file_with(i == IMAGE ? "image" : "journal", sides[i]);
        cr_assert_eq(q2_file_new_record(history->bases[i], &history->records[i], NULL), 0);
        cr_assert_eq(q2_file_init(&tap->forward.file, &tap_ops, "tap", true, NULL), 0);
        tap->forward.base = history->records[i];
        tap->history = history;
        tap->side = i;
        history->files[i] = &tap->forward.file;
    }
    return history;
}

static inline void
history_free(struct history *history)
{
    for (unsigned i = 0; i < SIDES; i++) {
        q2_file_close(history->files[i]);
        q2_file_close(history->records[i]);
        q2_file_close(history->bases[i]);
    }
    free(history->order);
    free(history);
}

/* What a power cut left. */
struct wreck {
    struct bytes sides[SIDES];
};

/* Which changes that were not made durable happen to be there: a bit each. */
struct kept {
    size_t durable; /* records that are there in any case */
    uint64_t bits;
};

static inline bool
is_kept(size_t index, void *data)
{
    const struct kept *kept = data;
    return kept->bits >> ((index - kept->durable) % 64) & 1;
}

/* Of the first `count` records of a side, how many lie before the last barrier. */
static inline size_t
durable_of(const struct q2_file *record, size_t count)
{
    while (count && q2_record_at(record, count - 1)->kind != Q2_RECORD_FLUSH)
        count--;
    return count;
}

static inline void
count_sides(const struct history *history, size_t count, size_t ret_counts[SIDES])
{
    memset(ret_counts, 0, SIDES * sizeof *ret_counts);
    for (size_t i = 0; i < count; i++)
        ret_counts[history->order[i]]++;
}

/* How many of the first `count` changes a power cut may have lost, on the side that has more. */
static inline size_t
unsettled(const struct history *history, size_t count)
{
    size_t counts[SIDES], most = 0;
    count_sides(history, count, counts);
    for (unsigned side = 0; side < SIDES; side++) {
        size_t some = counts[side] - durable_of(history->records[side], counts[side]);
        most = some > most ? some : most;
    }
    return most;
}

/* The change that comes after the first `count`, if it is a write that can be torn. */
static inline const struct q2_record *
next_write(const struct history *history, size_t count)
{
    size_t counts[SIDES];
    if (count >= history->count)
        return NULL;
    count_sides(history, count, counts);
    unsigned side = history->order[count];
    const struct q2_record *next = q2_record_at(history->records[side], counts[side]);
    return next->kind == Q2_RECORD_WRITE && next->length >= 1024 ? next : NULL;
}

/* A power cut after `count` changes; with `torn`, half of the next write is there too. */
static inline struct wreck
power_cut(const struct history *history, const struct wreck *start, size_t count, uint64_t bits,
          const struct q2_record *torn)
{
    size_t counts[SIDES];
    struct wreck wreck;
    count_sides(history, count, counts);
    for (unsigned side = 0; side < SIDES; side++) {
        struct q2_file *file = file_with("wreck", &start->sides[side]);
        struct q2_file *record = history->records[side];
        struct kept kept = {durable_of(record, counts[side]), bits};
        cr_assert_eq(q2_record_replay(record, counts[side], is_kept, &kept, file, NULL), 0);
        if (torn && history->order[count] == side)
            cr_assert_eq(q2_file_write(file, torn->offset, torn->bytes,
                                       torn->length / 2 / 512 * 512, NULL),
                         0);
        wreck.sides[side] = bytes_of(file);
        q2_file_close(file);
    }
    return wreck;
}

static inline void
wreck_free(struct wreck *wreck)
{
    for (unsigned side = 0; side < SIDES; side++)
        free(wreck->sides[side].bytes);
}

#endif
