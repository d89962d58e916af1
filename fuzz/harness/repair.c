/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Whole images through the repair: planned, written through a journal, checked, planned again,
 * undone. The image is never worse; nothing that a guest could read is lost unless the plan says
 * so; a second repair, or on a device a third, finds nothing to do; undoing it restores every byte
 * that could be read. */

#include "repair/repair.h"
#include "checker/catalogue.h"
#include "checker/check.h"
#include "core/base/checked.h"
#include "core/image/snapshots.h"
#include "core/io/memory.h"
#include "fuzz/fuzz.h"
#include "fuzz/support/guest.h"
#include "fuzz/support/image.h"
#include "fuzz/support/medium.h"
#include "repair/journal.h"
#include "repair/prove.h"

#include <inttypes.h>
#include <string.h>

static struct q2_repair *
plan(struct q2_file *file, const struct q2_fuzz_options *options)
{
    const struct q2_repair_options how = q2_fuzz_repair_options(options);
    struct q2_error err = {0};
    struct q2_repair *repair = NULL;
    int rc = q2_repair_plan(file, &how, &repair, &err);
    Q2_REQUIRE(rc == 0 || err.message[0] != '\0', "failed with %d and no word", rc);
    return rc == 0 ? repair : NULL;
}

/* ---- what the guest sees ---- */

/* The same disk before and after. */
struct sides {
    const struct q2_plan *plan;
    uint32_t map; /* of the repaired image */
    struct q2_image *after;
};

static void
compare(void *data, uint64_t offset, const uint8_t *bytes, size_t length)
{
    const struct sides *sides = data;
    uint8_t now[Q2_FUZZ_PIECE];
    struct q2_error err = {0};
    int rc = sides->after ? q2_image_read(sides->after, offset, now, length, &err) : -1;
    if (rc == 0 && memcmp(bytes, now, length) == 0)
        return;
    Q2_REQUIRE(q2_plan_names(sides->plan, sides->map, offset, length),
               "guest offset %" PRIu64 " of map %" PRIu32 " %s", offset, sides->map,
               rc == 0 ? "reads otherwise" : "cannot be read any more");
}

/* Whether a snapshot has no id, or that of another, so that a repair has to give it one. */
static bool
is_ambiguous(const struct q2_image *image, unsigned index)
{
    struct q2_snapshot_info one, other;
    q2_snapshot_info(image, index, &one);
    if (one.id[0] == '\0')
        return true;
    for (unsigned i = 0; i < q2_snapshot_count(image); i++) {
        q2_snapshot_info(image, i, &other);
        if (i != index && strcmp(one.id, other.id) == 0)
            return true;
    }
    return false;
}

/* Compare the active disk (index 0), or snapshot index - 1. False: there is none. */
static bool
compare_map(struct q2_file *before, struct q2_file *after, const struct q2_plan *plan,
            unsigned index)
{
    struct q2_image *old = q2_fuzz_open(before, 0), *new = q2_fuzz_open(after, 0);
    struct q2_snapshot_info info;
    struct sides sides = {.plan = plan, .after = new};
    bool there = old && index <= q2_snapshot_count(old);
    bool looked = there;
    if (looked && index > 0) {
        q2_snapshot_info(old, index - 1, &info);
        unsigned found = 0;
        looked = !is_ambiguous(old, index - 1);
        if (looked && new) {
            int rc = q2_snapshot_find(new, info.id, &found, NULL);
            looked = rc == 0; /* the proof may give up one of which nothing can be read */
            sides.map = found + 1;
            if (looked && q2_snapshot_load(new, found, NULL) < 0)
                sides.after = NULL;
        }
        looked = looked && q2_snapshot_load(old, index - 1, NULL) == 0;
    }
    if (looked)
        q2_fuzz_guest(old, compare, &sides);
    q2_image_close(old, NULL);
    q2_image_close(new, NULL);
    return there;
}

/* ---- the repair ---- */

/* What the plan says that it writes, bytes. */
static uint64_t
planned_bytes(const struct q2_plan *plan)
{
    uint64_t total = 0;
    for (uint64_t i = 0; i < plan->count; i++)
        for (uint64_t j = 0; plan->actions[i].applied && j < plan->actions[i].written_count; j++)
            total += plan->actions[i].written[j].length;
    return total;
}

static void
require_size(struct q2_file *before, struct q2_file *after, const struct q2_repair *repair,
             const struct q2_fuzz_options *options)
{
    struct q2_geometry geometry = {.cluster_size = 1};
    uint64_t old = 0, new = 0;
    q2_check_geometry(q2_repair_after(repair), &geometry);
    /* What is written may need new clusters, and those new refcounts. */
    uint64_t most = planned_bytes(q2_repair_actions(repair)) + 8 * geometry.cluster_size;
    q2_file_size(before, &old, NULL);
    q2_file_size(after, &new, NULL);
    Q2_REQUIRE(new <= old || !(options->flags & Q2_FUZZ_FIXED_SIZE), "the file grew on a device");
    Q2_REQUIRE(new <= old || new - old <= most,
               "the file grew by %" PRIu64 " bytes, the plan writes %" PRIu64, new - old, most);
}

/* Corruptions, without what is only seen once refcounts say so, that nothing leads to a table, or
 * once a table has been found again: that some of what it leads to cannot be read. Nor does it
 * count that refcounts are too narrow: a copy is shared by as many as share the table that it is
 * for. */
static uint64_t
corruptions(struct q2_check *check)
{
    static const enum q2_problem left_out[] = {Q2_PROBLEM_ORPHAN_L1_TABLE,
                                               Q2_PROBLEM_ORPHAN_L2_TABLE,
                                               Q2_PROBLEM_SNAPSHOT_TABLE_LOST,
                                               Q2_PROBLEM_DATA_UNREADABLE,
                                               Q2_PROBLEM_REFCOUNT_OVERFLOW};
    uint64_t count = q2_check_counts(check)->corruptions;
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++)
        count -= q2_check_problem_count(check, left_out[i]).count;
    return count;
}

/* Whether no damage to the header kept the check from looking at all there is. */
static bool
saw_all(const struct q2_check *check)
{
    for (size_t i = 0; i < q2_check_finding_count(check); i++) {
        const struct q2_catalogue_entry *entry = q2_catalogue(q2_check_finding(check, i)->problem);
        if (entry->severity <= Q2_SEVERITY_ERROR &&
            (entry->pass == Q2_PASS_HEADER || entry->pass == Q2_PASS_EXTENSIONS))
            return false;
    }
    return true;
}

static void
require_better(const struct q2_repair *repair, struct q2_file *before, struct q2_file *after,
               const struct q2_fuzz_options *options)
{
    struct q2_check *first = q2_repair_before(repair),
                    *last = q2_fuzz_check(after, options->flags & Q2_FUZZ_DEEP);
    Q2_REQUIRE(last, "what was repaired cannot be checked");
    struct q2_geometry geometry;
    /* Where there was no geometry, nothing behind the header has been looked at. */
    if (first && q2_check_geometry(first, &geometry)) {
        uint64_t then = corruptions(first), now = corruptions(last);
        struct q2_objection objection = {0};
        struct q2_error err = {0};
        Q2_REQUIRE(now <= then || !saw_all(first), "%" PRIu64 " corruptions became %" PRIu64, then,
                   now);
        int rc = q2_prove_content(before, first, after, last, q2_repair_actions(repair), &objection,
                                  &err);
        Q2_REQUIRE(rc != 0, "what was written is not what was proven: %s", objection.text);
    }
    q2_check_free(last);
}

/* Of what may be somebody's data nothing is given up but by a guess. */
static void
require_modest(const struct q2_repair *repair, enum q2_repair_level level)
{
    const struct q2_plan *plan = q2_repair_actions(repair);
    for (uint64_t i = 0; i < plan->count; i++)
        Q2_REQUIRE(!plan->actions[i].applied || plan->actions[i].kind != Q2_ACTION_FREE_ORPHANS ||
                       level == Q2_LEVEL_GUESS,
                   "orphans are freed at level %d", (int)level);
}

/* Whether nothing but COPIED flags is wrong, with whatever follows from that. */
static bool
is_about_flags(const struct q2_check *check)
{
    size_t count = q2_check_finding_count(check), flags = 0;
    for (size_t i = 0; i < count; i++) {
        enum q2_problem problem = q2_check_finding(check, i)->problem;
        flags += problem == Q2_PROBLEM_L1_COPIED_SET || problem == Q2_PROBLEM_L1_COPIED_CLEAR ||
                 problem == Q2_PROBLEM_L2_COPIED_SET || problem == Q2_PROBLEM_L2_COPIED_CLEAR;
    }
    return count > 0 && flags == count;
}

/* Flags follow from refcounts, so they are mended at any level but the lowest. */
static void
require_flags(const struct q2_repair *repair, enum q2_repair_level level)
{
    const struct q2_check *before = q2_repair_before(repair), *after = q2_repair_after(repair);
    if (before && level >= Q2_LEVEL_CERTAIN && is_about_flags(before))
        Q2_REQUIRE(after && q2_check_finding_count(after) == 0, "COPIED flags are not mended");
}

static void
require_idle(struct q2_file *file, const struct q2_fuzz_options *options)
{
    struct q2_repair *repair = plan(file, options);
    Q2_REQUIRE(repair, "what was repaired cannot be repaired");
    const struct q2_plan *again = q2_repair_actions(repair);
    for (uint64_t i = 0; i < again->count; i++)
        Q2_REQUIRE(!again->actions[i].applied, "another repair has to do: %s, %s",
                   q2_action_id(again->actions[i].kind), again->actions[i].evidence);
    q2_repair_free(repair);
}

/* A device has more room once it is repaired: clusters were leaked, or what refcounts called free
 * may have been lost data. Then it is repaired once more, and there is nothing left to do. */
static void
require_idle_soon(struct q2_file *file, const struct q2_fuzz_options *options)
{
    struct q2_repair *repair = plan(file, options);
    struct q2_file *journal = q2_fuzz_file(NULL, 0);
    struct q2_error err = {0};
    bool needed = false;
    Q2_REQUIRE(repair, "what was repaired cannot be repaired");
    if (q2_repair_needed(repair)) {
        int rc = q2_repair_apply(repair, file, journal, &needed, &err);
        Q2_REQUIRE(rc == 0, "a second time: %s", err.message);
        require_idle(file, options);
        rc = q2_journal_undo(journal, file, false, &err);
        Q2_REQUIRE(rc == 0, "a second time: %s", err.message);
    }
    q2_file_close(journal);
    q2_repair_free(repair);
}

/* Undone, the image is what it was, but where nobody knows what that is. */
static void
require_undo(struct q2_file *file, struct q2_file *journal, struct q2_file *before,
             const struct q2_fuzz_options *options)
{
    struct q2_error err = {0};
    uint8_t sector[Q2_FUZZ_SECTOR];
    uint64_t at, length, size = 0;
    int rc = q2_journal_undo(journal, file, false, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
    q2_fuzz_bad_spot(options, &at, &length);
    q2_file_size(before, &size, NULL);
    for (uint64_t end = at + length; at < end && at < size; at += sizeof sector) {
        size_t piece = (size_t)q2_min(size - at, sizeof sector);
        rc = q2_file_read(before, at, sector, piece, &err);
        rc = rc ? rc : q2_file_write(file, at, sector, piece, &err);
        Q2_REQUIRE(rc == 0, "%s", err.message);
    }
    Q2_REQUIRE(q2_fuzz_equal(file, before), "undoing did not restore it");
}

/* `before` as it can be read, `whole` as it is. */
static void
carry_out(const struct q2_repair *repair, struct q2_file *before, struct q2_file *whole,
          const struct q2_fuzz_options *options)
{
    const struct q2_plan *actions = q2_repair_actions(repair);
    struct q2_file *copy = q2_fuzz_copy(whole), *file = q2_fuzz_medium(copy, options);
    struct q2_file *journal = NULL;
    struct q2_error err = {0};
    bool needed = false;
    int rc = q2_file_new_memory("journal", &journal, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
    rc = q2_repair_apply(repair, file, journal, &needed, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
    require_size(before, file, repair, options);
    require_better(repair, before, file, options);
    for (unsigned i = 0; i <= 16 && compare_map(before, file, actions, i); i++) {
    }
    if (options->flags & Q2_FUZZ_FIXED_SIZE)
        require_idle_soon(file, options);
    else
        require_idle(file, options);
    require_undo(file, journal, whole, options);
    q2_file_close(journal);
    q2_file_close(file);
    q2_file_close(copy);
}

static void
run(const uint8_t *input, size_t length)
{
    struct q2_fuzz_options options;
    length = q2_fuzz_split(input, length, &options);
    /* Otherwise there is more to be read, and to be mended, with each time. */
    options.chance &= ~(uint32_t)Q2_FUZZ_HEALS;
    struct q2_file *whole = q2_fuzz_input(input, length, &options),
                   *file = q2_fuzz_medium(whole, &options);
    struct q2_repair *repair = plan(file, &options);
    if (repair)
        require_modest(repair, q2_fuzz_repair_options(&options).level);
    if (repair)
        require_flags(repair, q2_fuzz_repair_options(&options).level);
    if (repair && q2_repair_needed(repair))
        carry_out(repair, file, whole, &options);
    struct q2_file *untouched = q2_fuzz_input(input, length, &options);
    Q2_REQUIRE(q2_fuzz_equal(whole, untouched), "planning wrote to the image");
    q2_file_close(untouched);
    q2_repair_free(repair);
    q2_file_close(file);
    q2_file_close(whole);
}

const struct q2_harness q2_harness = {"repair", Q2_FUZZ_IMAGE, 1 << 18, run};
