/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Undo journals: what they save, what undoing refuses, and journals that somebody has damaged or
 * made up. */

#include "core/base/endian.h"
#include "tests/unit/repairs.h"

#include <stdio.h>

/* An image after a repair, and the journal of it. */
struct done {
    struct scenario *scenario;
    struct q2_file *image, *journal;
};

static struct done
done_new(unsigned which)
{
    struct done done = {.scenario = scenario_new(which)};
    bool needed;
    done.image = old_image();
    done.journal = empty_file("journal");
    cr_assert_eq(apply_to(done.scenario, done.image, done.journal, &needed, NULL), 0);
    return done;
}

static void
done_free(struct done *done)
{
    q2_file_close(done->image);
    q2_file_close(done->journal);
    scenario_free(done->scenario);
}

static enum q2_journal_state
state_of(struct q2_file *journal)
{
    struct q2_journal_info info;
    cr_assert_eq(q2_journal_read(journal, &info, NULL), 0);
    return info.state;
}

/* ---- undoing ---- */

Test(repair_journal, restores_byte_for_byte)
{
    for (unsigned i = 0; i < EDITS; i++) {
        struct done done = done_new(i);
        struct q2_error err = {0};
        bool undone = true;
        cr_assert_eq(q2_journal_is_undone(done.journal, done.image, &undone, &err), 0);
        cr_expect_eq(undone, holds(done.image, &done.scenario->before), "edit %u", i);
        cr_assert_eq(q2_journal_undo(done.journal, done.image, false, &err), 0, "%s", err.message);
        cr_expect(holds(done.image, &done.scenario->before), "edit %u", i);
        cr_assert_eq(q2_journal_is_undone(done.journal, done.image, &undone, &err), 0);
        cr_expect(undone, "edit %u", i);
        cr_expect_eq(state_of(done.journal), Q2_JOURNAL_UNDONE);
        cr_expect_eq(q2_journal_undo(done.journal, done.image, false, &err), 0, "once more");
        cr_expect(holds(done.image, &done.scenario->before));
        done_free(&done);
    }
}

/* The hole that was there is one again. */
Test(repair_journal, gives_space_back)
{
    struct scenario *scenario = scenario_new(4);
    Q2_AUTOCLOSE struct q2_file *journal = empty_file("journal");
    uint64_t before = 0, during = 0, after = 0;
    bool needed;
    scribble(scenario->overlay, HOLE_AT, HOLE_END - HOLE_AT, 9);
    cr_assert_eq(q2_file_allocated(scenario->base, &before, NULL), 0);
    Q2_AUTOCLOSE struct q2_file *image = old_image();
    cr_assert_eq(apply_to(scenario, image, journal, &needed, NULL), 0);
    cr_assert_eq(q2_file_allocated(image, &during, NULL), 0);
    cr_expect_gt(during, before);
    cr_assert_eq(q2_journal_undo(journal, image, false, NULL), 0);
    cr_assert_eq(q2_file_allocated(image, &after, NULL), 0);
    cr_expect_eq(after, before);
    scenario_free(scenario);
}

Test(repair_journal, tells_what_it_has)
{
    struct done done = done_new(2);
    struct q2_journal_info info;
    cr_assert_eq(q2_journal_read(done.journal, &info, NULL), 0);
    cr_expect_eq(info.state, Q2_JOURNAL_DONE);
    cr_expect_eq(info.size_before, OLD_SIZE);
    cr_expect_eq(info.size_after, 14001);
    cr_expect_eq(info.made_at, 1700000000);
    cr_expect_eq(info.unreadable, 0);
    /* Two writes into data; of the punched range the edge and what was data, and the other edge in
     * the hole; a write that begins in the hole; what is cut off, with the last write. */
    cr_expect_eq(info.bytes, 8 + 3000 + (HOLE_AT - 6000) + 700 + (OLD_SIZE - 14001));
    cr_expect_eq(info.records, 7);
    done_free(&done);
}

Test(repair_journal, wants_an_empty_file)
{
    struct scenario *scenario = scenario_new(0);
    Q2_AUTOCLOSE struct q2_file *journal = file_with("journal", &scenario->before);
    cr_expect_eq(q2_journal_write(journal, scenario->base, scenario->overlay, 0, NULL),
                 Q2_ERR_EXISTS);
    cr_expect(holds(journal, &scenario->before));
    scenario_free(scenario);
}

/* As long as it is being made, it says so, and there is nothing to undo. */
Test(repair_journal, is_incomplete_at_first)
{
    struct scenario *scenario = scenario_new(0);
    Q2_AUTOCLOSE struct q2_file *file = empty_file("journal");
    cr_expect_eq(state_of(file), Q2_JOURNAL_INCOMPLETE);
    struct q2_file *record = NULL;
    cr_assert_eq(q2_file_new_record(file, &record, NULL), 0);
    cr_assert_eq(q2_journal_write(record, scenario->base, scenario->overlay, 0, NULL), 0);
    cr_expect_eq(state_of(file), Q2_JOURNAL_APPLYING);
    unsigned incomplete = 0;
    for (size_t i = 0; i <= q2_record_count(record); i++) {
        Q2_AUTOCLOSE struct q2_file *prefix = empty_file("journal");
        struct q2_error err = {0};
        cr_assert_eq(q2_record_replay(record, i, NULL, NULL, prefix, NULL), 0);
        if (state_of(prefix) != Q2_JOURNAL_INCOMPLETE)
            continue;
        incomplete++;
        cr_expect_eq(q2_journal_undo(prefix, scenario->base, true, &err), Q2_ERR_FORMAT);
        cr_expect(strstr(err.message, "never completed"), "%s", err.message);
    }
    cr_expect_gt(incomplete, 3);
    cr_expect(holds(scenario->base, &scenario->before));
    q2_file_close(record);
    scenario_free(scenario);
}

/* ---- an image that somebody else wrote to ---- */

static void
expect_refused(struct done *done, const char *why)
{
    struct bytes image = bytes_of(done->image), journal = bytes_of(done->journal);
    struct q2_error err = {0};
    cr_expect_eq(q2_journal_undo(done->journal, done->image, false, &err), Q2_ERR_FORMAT);
    cr_expect(strstr(err.message, why), "%s", err.message);
    cr_expect(holds(done->image, &image), "refused, but written to");
    cr_expect(holds(done->journal, &journal));
    free(image.bytes);
    free(journal.bytes);
    cr_expect_eq(q2_journal_undo(done->journal, done->image, true, &err), 0, "%s", err.message);
    cr_expect(holds(done->image, &done->scenario->before));
}

Test(repair_journal, refuses_an_image_that_changed)
{
    /* Of each kind of record: data over data, zeros over data, data over a hole, new data. */
    static const uint64_t places[] = {1003, 2100, 5099, 7000, 12000, 12650, 19600, 22499, 30050};
    static const enum q2_journal_state states[] = {Q2_JOURNAL_DONE, Q2_JOURNAL_APPLYING,
                                                   Q2_JOURNAL_UNDONE};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        for (size_t j = 0; j < 3; j++) {
            struct done done = done_new(1);
            uint8_t byte;
            cr_assert_eq(q2_journal_mark(done.journal, states[j], NULL), 0);
            cr_assert_eq(q2_file_read(done.image, places[i], &byte, 1, NULL), 0);
            byte ^= 0x80;
            cr_assert_eq(q2_file_write(done.image, places[i], &byte, 1, NULL), 0);
            expect_refused(&done, "neither what they were before");
            done_free(&done);
        }
}

Test(repair_journal, refuses_an_image_of_another_size)
{
    static const uint64_t sizes[] = {OLD_SIZE - 1, 40002};
    for (size_t i = 0; i < 2; i++) {
        struct done done = done_new(1);
        cr_assert_eq(q2_file_truncate(done.image, sizes[i], NULL), 0);
        if (sizes[i] < OLD_SIZE) /* so that force has all there is to have */
            scribble(done.scenario->base, 0, 1, 1);
        expect_refused(&done, "it has ");
        done_free(&done);
    }
}

/* What the repair did not touch may change. */
Test(repair_journal, does_not_mind_what_it_does_not_cover)
{
    struct done done = done_new(0);
    uint8_t byte = 0;
    cr_assert_eq(q2_file_write(done.image, 500, &byte, 1, NULL), 0);
    cr_expect_eq(q2_journal_undo(done.journal, done.image, false, NULL), 0);
    done_free(&done);
}

/* ---- an image that cannot be read everywhere ---- */

Test(repair_journal, leaves_out_what_cannot_be_read)
{
    const struct q2_fault_plan bad = {.kind = Q2_FAULT_EIO,
                                      .ops = Q2_FAULT_READ,
                                      .offset = 3000,
                                      .length = 100};
    struct scenario *scenario = scenario_new(0);
    Q2_AUTOCLOSE struct q2_file *plain = file_with("image", &scenario->before);
    Q2_AUTOCLOSE struct q2_file *journal = empty_file("journal");
    struct q2_file *image = failing(plain, &bad);
    struct q2_journal_info info;
    struct q2_error err = {0};
    bool needed;
    cr_assert_eq(apply_to(scenario, image, journal, &needed, &err), 0, "%s", err.message);
    cr_expect(holds(plain, &scenario->after));
    cr_assert_eq(q2_journal_read(journal, &info, NULL), 0);
    cr_expect_eq(info.unreadable, 1024, "the two sectors with the bad spot");
    cr_assert_eq(q2_journal_undo(journal, image, false, &err), 0, "%s", err.message);
    /* There the repair stays; all else is as it was. */
    memcpy(scenario->before.bytes + 2560, scenario->after.bytes + 2560, 1024);
    cr_expect(holds(plain, &scenario->before));
    q2_file_close(image);
    scenario_free(scenario);
}

/* ---- journals that are damaged ---- */

/* Neither resuming nor undoing takes it, and the image stays what it is. */
static void
expect_harmless(struct done *done, const struct bytes *bytes, const char *what, uint64_t where)
{
    Q2_AUTOCLOSE struct q2_file *journal = file_with("journal", bytes);
    struct q2_journal_info info;
    struct q2_error err = {0};
    bool rolled_back = false;
    int rc = q2_journal_read(journal, &info, &err);
    cr_expect(rc == Q2_ERR_FORMAT || (rc == 0 && info.state == Q2_JOURNAL_INCOMPLETE),
              "%s at %llu: %d, %s", what, (unsigned long long)where, rc, err.message);
    cr_expect_eq(q2_apply_resume(done->image, journal, &rolled_back, NULL), rc);
    cr_expect_not(rolled_back);
    cr_expect_eq(q2_journal_undo(journal, done->image, true, NULL), Q2_ERR_FORMAT);
    cr_expect(holds(done->image, &done->scenario->after));
}

Test(repair_journal, refuses_any_flipped_byte)
{
    for (unsigned which = 1; which < 3; which++) {
        struct done done = done_new(which);
        cr_assert_eq(q2_journal_mark(done.journal, Q2_JOURNAL_APPLYING, NULL), 0);
        struct bytes bytes = bytes_of(done.journal);
        for (uint64_t i = 0; i < bytes.size; i++) {
            uint8_t old = bytes.bytes[i];
            bytes.bytes[i] ^= (uint8_t)(1 << i % 8);
            expect_harmless(&done, &bytes, "flipped", i);
            bytes.bytes[i] = old;
        }
        free(bytes.bytes);
        done_free(&done);
    }
}

Test(repair_journal, refuses_to_be_cut_short)
{
    struct done done = done_new(1);
    cr_assert_eq(q2_journal_mark(done.journal, Q2_JOURNAL_APPLYING, NULL), 0);
    struct bytes bytes = bytes_of(done.journal);
    for (uint64_t size = bytes.size; bytes.size-- > 0; size--)
        expect_harmless(&done, &bytes, "cut", size);
    free(bytes.bytes);
    done_free(&done);
}

Test(repair_journal, refuses_what_follows_it)
{
    struct done done = done_new(1);
    struct bytes bytes = bytes_of(done.journal);
    bytes.bytes[bytes.size++] = 0;
    expect_harmless(&done, &bytes, "added", bytes.size);
    free(bytes.bytes);
    done_free(&done);
}

/* ---- journals with a good digest and bad intentions ---- */

/* A journal of a growing image with two records, and their parts. */
enum {
    SIZE_BEFORE = 24,
    SIZE_AFTER = 32,
    FIRST = Q2_JOURNAL_HEADER_LENGTH,
    FIRST_LENGTH = Q2_JOURNAL_RECORD_LENGTH + Q2_JOURNAL_MARK_LENGTH + 8,
    SECOND = FIRST + FIRST_LENGTH,
    SECOND_LENGTH = Q2_JOURNAL_RECORD_LENGTH + Q2_JOURNAL_MARK_LENGTH,
    TRAILER = SECOND + SECOND_LENGTH,
    WHOLE = TRAILER + Q2_JOURNAL_TRAILER_LENGTH,
    OFFSET = 0,
    LENGTH = 8,
    KINDS = 16,
};

static struct bytes
small_journal(void)
{
    struct q2_budget budget;
    q2_budget_init(&budget, 1 << 20);
    Q2_AUTOCLOSE struct q2_file *image = old_image();
    Q2_AUTOCLOSE struct q2_file *journal = empty_file("journal");
    struct q2_file *overlay = NULL;
    cr_assert_eq(q2_file_new_overlay(image, &budget, &overlay, NULL), 0);
    scribble(overlay, 1000, 8, 3);
    scribble(overlay, OLD_SIZE, 100, 4);
    cr_assert_eq(q2_journal_write(journal, image, overlay, 0, NULL), 0);
    q2_file_close(overlay);
    struct bytes bytes = bytes_of(journal);
    cr_assert_eq(bytes.size, WHOLE);
    return bytes;
}

static void
seal(struct bytes *bytes)
{
    struct q2_journal_hash hash;
    cr_assert_eq(q2_journal_hash_init(&hash, NULL), 0);
    const size_t covered = bytes->size - Q2_JOURNAL_DIGEST_LENGTH;
    q2_journal_hash_add(&hash, bytes->bytes, 16, NULL);
    q2_journal_hash_add(&hash, bytes->bytes + 24, covered - 24, NULL);
    q2_journal_hash_end(&hash, bytes->bytes + covered, NULL);
    q2_journal_hash_destroy(&hash);
}

static const struct lie {
    const char *what;
    uint64_t at, value;
    const char *said;
} lies[] = {
    {"truth", KINDS, 0, NULL},
    {"size before", SIZE_BEFORE, UINT64_MAX, "no file is that large"},
    {"size after", SIZE_AFTER, UINT64_C(1) << 63, "no file is that large"},
    {"small before", SIZE_BEFORE, 1007, "bytes that the image did not have"},
    {"small after", SIZE_AFTER, OLD_SIZE + 99, "lies outside"},
    {"after", SIZE_AFTER, 50, "does not come to have"},
    {"no length", FIRST + LENGTH, 0, "no record has"},
    {"long", FIRST + LENGTH, (1 << 20) + 1, "no record has"},
    {"longest", FIRST + LENGTH, UINT64_MAX, "no record has"},
    {"past the journal", FIRST + LENGTH, 4000, "past the end of the journal"},
    {"outside", SECOND + OFFSET, OLD_SIZE + 1, "lies outside"},
    {"far outside", SECOND + OFFSET, UINT64_MAX - 50, "lies outside"},
    {"overlap", SECOND + OFFSET, 1007, "out of order"},
    {"descending", SECOND + OFFSET, 0, "out of order"},
    {"kind before", FIRST + KINDS, UINT64_C(3) << 32, "unknown kind"},
    {"kind after", FIRST + KINDS, 2, "unknown kind"},
    {"no change", FIRST + KINDS, UINT64_C(1) << 32 | 1, "unknown kind"},
    {"counted records", TRAILER + 8, 3, "claims 3"},
    {"counted bytes", TRAILER + 16, 9, "with 9"},
    {"trailing fields", TRAILER + 24, 1, "no trailer"},
};

Test(repair_journal, believes_no_number)
{
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        const struct lie *lie = &lies[i];
        struct bytes bytes = small_journal();
        if (lie->said)
            q2_store_be64(bytes.bytes + lie->at, lie->value);
        seal(&bytes);
        Q2_AUTOCLOSE struct q2_file *journal = file_with("journal", &bytes);
        struct q2_journal_info info;
        struct q2_error err = {0};
        int rc = q2_journal_read(journal, &info, &err);
        cr_expect_eq(rc, lie->said ? Q2_ERR_FORMAT : 0, "%s: %d", lie->what, rc);
        cr_expect(!lie->said || strstr(err.message, lie->said), "%s: %s", lie->what, err.message);
        free(bytes.bytes);
    }
}

/* A digest can be made by anybody: what is wrong with the numbers is found before it is compared,
 * and no number of any field makes the reader leave the file. */
Test(repair_journal, survives_any_number_anywhere)
{
    static const uint64_t numbers[] = {0,          1,           511,        UINT64_MAX,
                                       1ULL << 63, 1ULL << 32,  1 << 20,    (1ULL << 63) - 1,
                                       20000,      3ULL << 32,  2ULL << 32, UINT64_MAX - 1000,
                                       4096,       0xffffffff0, 1ULL << 52};
    struct done done = done_new(1);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        for (uint64_t at = 8; at + 8 <= WHOLE; at += at < 48 || at >= FIRST ? 4 : 504) {
            struct bytes bytes = small_journal();
            q2_store_be64(bytes.bytes + at, numbers[i]);
            seal(&bytes);
            Q2_AUTOCLOSE struct q2_file *journal = file_with("journal", &bytes);
            bool rolled_back = false;
            int rc = q2_apply_resume(done.image, journal, &rolled_back, NULL);
            cr_expect(rc == 0 || rc == Q2_ERR_FORMAT);
            cr_expect(!rolled_back, "it is not the journal of this image");
            cr_expect(holds(done.image, &done.scenario->after));
            free(bytes.bytes);
        }
    done_free(&done);
}

/* ---- many ---- */

/* More records than the buffers hold, and long ones. */
Test(repair_journal, takes_more_than_its_buffers_hold)
{
    enum { SIZE = 12 << 20 };
    struct q2_budget budget;
    q2_budget_init(&budget, UINT64_C(256) << 20);
    Q2_AUTOCLOSE struct q2_file *image = empty_file("image");
    for (uint64_t at = 0; at < SIZE; at += 4096)
        scribble(image, at, 4096, (unsigned)(at / 4096));
    struct bytes before = bytes_of(image);
    struct q2_file *overlay = NULL;
    cr_assert_eq(q2_file_new_overlay(image, &budget, &overlay, NULL), 0);
    for (uint64_t at = 7; at < 5 << 20; at += 300)
        scribble(overlay, at, 60, (unsigned)at);
    for (uint64_t at = (6 << 20) + 77; at < 9 << 20; at += 8000)
        scribble(overlay, at, 8000, (unsigned)at);
    cr_assert_eq(q2_file_punch(overlay, 10 << 20, SIZE, NULL), 0);
    struct bytes after = bytes_of(overlay);
    Q2_AUTOCLOSE struct q2_file *copy = file_with("image", &before);
    Q2_AUTOCLOSE struct q2_file *journal = empty_file("journal");
    struct q2_journal_info info;
    struct q2_error err = {0};
    bool needed;
    cr_assert_eq(q2_apply(copy, overlay, journal, 0, NULL, NULL, &needed, &err), 0, "%s",
                 err.message);
    cr_expect(holds(copy, &after));
    cr_assert_eq(q2_journal_read(journal, &info, NULL), 0);
    cr_expect_gt(info.records, 17000);
    cr_assert_eq(q2_journal_undo(journal, copy, false, &err), 0, "%s", err.message);
    cr_expect(holds(copy, &before));
    free(before.bytes);
    free(after.bytes);
    q2_file_close(overlay);
}
