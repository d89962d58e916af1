/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Writing a repair: in order, and interrupted by everything that can, everywhere it can. */

#include "tests/unit/repairs.h"

/* ---- what goes well ---- */

Test(repair_apply, makes_the_image_what_the_overlay_is)
{
    for (unsigned i = 0; i < EDITS; i++) {
        struct scenario *scenario = scenario_new(i);
        Q2_AUTOCLOSE struct q2_file *image = file_with("image", &scenario->before);
        Q2_AUTOCLOSE struct q2_file *journal = empty_file("journal");
        struct q2_journal_info info;
        struct q2_error err = {0};
        bool needed = false, rolled_back = true;
        cr_assert_eq(apply_to(scenario, image, journal, &needed, &err), 0, "%s", err.message);
        cr_expect(holds(image, &scenario->after), "edit %u", i);
        cr_expect(needed);
        cr_assert_eq(q2_journal_read(journal, &info, &err), 0, "%s", err.message);
        cr_expect_eq(info.state, Q2_JOURNAL_DONE);
        cr_assert_eq(q2_apply_resume(image, journal, &rolled_back, &err), 0, "%s", err.message);
        cr_expect(!rolled_back);
        cr_expect(holds(image, &scenario->after));
        scenario_free(scenario);
    }
}

/* Whether the journal was durable when the image was first changed, and each phase when the next
 * one began: what a byte's phase is, its record tells. */
static void
expect_order(const struct history *history)
{
    size_t at[SIDES] = {0};
    int reached = -1;
    bool flushed = true, journal_flushed = false, cut = false;
    for (size_t i = 0; i < history->count; i++) {
        unsigned side = history->order[i];
        const struct q2_record *record = q2_record_at(history->records[side], at[side]++);
        if (side == JOURNAL) {
            journal_flushed = record->kind == Q2_RECORD_FLUSH;
            continue;
        }
        cr_expect(journal_flushed, "change %zu comes before the journal is durable", i);
        if (record->kind == Q2_RECORD_FLUSH) {
            flushed = true;
            continue;
        }
        uint64_t end;
        cr_expect(!cut, "change %zu comes after the cut", i);
        if (record->kind == Q2_RECORD_TRUNCATE) {
            cut = record->offset < OLD_SIZE;
            cr_expect(cut || reached < 0, "the file grows after phase %d", reached);
            cr_expect(flushed);
        } else {
            int phase = (int)odd_phase(NULL, record->offset, &end);
            cr_expect_geq(phase, reached, "change %zu is late", i);
            cr_expect(phase == reached || flushed, "no barrier before phase %d", phase);
            cr_expect_leq(record->offset + record->length, end);
            reached = phase;
        }
        flushed = false;
    }
    cr_expect(flushed);
}

Test(repair_apply, goes_by_phases)
{
    const struct bytes none = {0};
    for (unsigned i = 0; i < EDITS; i++) {
        struct scenario *scenario = scenario_new(i);
        struct history *history = history_new(&scenario->before, &none);
        bool needed;
        cr_assert_eq(apply_to(scenario, history->files[IMAGE], history->files[JOURNAL], &needed,
                              NULL),
                     0);
        expect_order(history);
        history_free(history);
        scenario_free(scenario);
    }
}

/* An image of exabytes may get longer, and a hole of exabytes stays one. */
Test(repair_apply, takes_no_time_for_holes)
{
    const uint64_t large = UINT64_C(1) << 61;
    struct q2_budget budget;
    q2_budget_init(&budget, UINT64_C(64) << 20);
    Q2_AUTOCLOSE struct q2_file *image = old_image();
    Q2_AUTOCLOSE struct q2_file *journal = empty_file("journal");
    cr_assert_eq(q2_file_truncate(image, large, NULL), 0);
    struct q2_file *overlay = NULL;
    cr_assert_eq(q2_file_new_overlay(image, &budget, &overlay, NULL), 0);
    cr_assert_eq(q2_file_punch(overlay, 16384, large - 16384, NULL), 0);
    cr_assert_eq(q2_file_truncate(overlay, 2 * large, NULL), 0);
    struct q2_error err = {0};
    uint64_t size = 0;
    bool needed;
    cr_assert_eq(q2_apply(image, overlay, journal, 0, NULL, NULL, &needed, &err), 0, "%s",
                 err.message);
    cr_assert_eq(q2_file_size(journal, &size, NULL), 0);
    cr_expect_lt(size, 16384);
    cr_assert_eq(q2_file_size(image, &size, NULL), 0);
    cr_expect_eq(size, 2 * large);
    cr_assert_eq(q2_journal_undo(journal, image, false, &err), 0, "%s", err.message);
    cr_assert_eq(q2_file_size(image, &size, NULL), 0);
    cr_expect_eq(size, large);
    uint8_t bytes[OLD_SIZE], old[OLD_SIZE];
    Q2_AUTOCLOSE struct q2_file *wanted = old_image();
    cr_assert_eq(q2_file_read(image, 0, bytes, sizeof bytes, NULL), 0);
    cr_assert_eq(q2_file_read(wanted, 0, old, sizeof old, NULL), 0);
    cr_expect_arr_eq(bytes, old, sizeof old);
    q2_file_close(overlay);
}

/* A device has the length that it has: nothing may ask it for another. */
Test(repair_apply, never_sets_the_length_of_a_device)
{
    static const unsigned same_size[] = {0, 4};
    const struct q2_fault_plan fixed = {.kind = Q2_FAULT_EIO, .ops = Q2_FAULT_TRUNCATE};
    for (unsigned i = 0; i < 2; i++) {
        struct scenario *scenario = scenario_new(same_size[i]);
        Q2_AUTOCLOSE struct q2_file *device = file_with("image", &scenario->before);
        struct q2_file *image = failing(device, &fixed);
        Q2_AUTOCLOSE struct q2_file *journal = empty_file("journal");
        bool needed;
        cr_assert_eq(apply_to(scenario, image, journal, &needed, NULL), 0);
        cr_expect(holds(device, &scenario->after));
        cr_assert_eq(q2_journal_undo(journal, image, false, NULL), 0);
        cr_expect(holds(device, &scenario->before));
        cr_expect_eq(q2_fault_matched(image), 0);
        q2_file_close(image);
        scenario_free(scenario);
    }
}

/* ---- what fails ---- */

/* A fault on one side, then everything works again. Returns whether the fault came to happen. */
static bool
survives_fault(const struct scenario *scenario, unsigned side, const struct q2_fault_plan *plan)
{
    struct q2_file *files[SIDES] = {file_with("image", &scenario->before), empty_file("journal")};
    struct q2_file *faulty = failing(files[side], plan), *used[SIDES] = {files[0], files[1]};
    struct q2_error err = {0};
    bool needed = true, rolled_back;
    used[side] = faulty;
    int rc = apply_to(scenario, used[IMAGE], used[JOURNAL], &needed, &err);
    bool struck = q2_fault_matched(faulty) >= plan->nth;
    /* Reading sector by sector gets over what happens to the image once. */
    cr_expect(rc < 0 || !struck || side == IMAGE, "a fault went unnoticed");
    if (rc == 0) {
        cr_expect(holds(files[IMAGE], &scenario->after));
    } else {
        bool before = holds(files[IMAGE], &scenario->before);
        cr_expect(needed || before, "the journal is needed: %s", err.message);
        cr_expect(!strstr(err.message, "as it was before") || before, "%s", err.message);
        cr_expect(!strstr(err.message, "not been touched") || before, "%s", err.message);
        cr_expect(!strstr(err.message, "is repaired") || holds(files[IMAGE], &scenario->after));
        cr_expect(strstr(err.message, "the image "), "%s", err.message);
    }
    int resumed = q2_apply_resume(files[IMAGE], files[JOURNAL], &rolled_back, &err);
    cr_expect_eq(resumed, 0, "side %u fault %d at %llu: %s", side, plan->kind,
                 (unsigned long long)plan->nth, err.message);
    bool before = holds(files[IMAGE], &scenario->before);
    cr_expect(before || holds(files[IMAGE], &scenario->after),
              "side %u fault %d at %llu leaves a mixture", side, plan->kind,
              (unsigned long long)plan->nth);
    cr_expect(before || !rolled_back);
    q2_file_close(faulty);
    q2_file_close(files[IMAGE]);
    q2_file_close(files[JOURNAL]);
    return struck;
}

static void
sweep_faults(unsigned side)
{
    static const enum q2_fault_kind kinds[] = {Q2_FAULT_EIO, Q2_FAULT_ENOSPC, Q2_FAULT_SHORT,
                                               Q2_FAULT_TORN};
    for (unsigned i = 0; i < EDITS; i++) {
        struct scenario *scenario = scenario_new(i);
        for (unsigned kind = 0; kind < 4; kind++)
            for (int permanent = 0; permanent < 2; permanent++) {
                struct q2_fault_plan plan = {.kind = kinds[kind],
                                             .ops = Q2_FAULT_ALL,
                                             .nth = 1,
                                             .permanent = permanent};
                while (survives_fault(scenario, side, &plan))
                    plan.nth++;
                /* The journal is read only where something failed. */
                cr_expect(plan.nth > 1 || (side == IMAGE && edits[i] == edit_nothing) ||
                          (side == JOURNAL && plan.kind == Q2_FAULT_SHORT));
            }
        scenario_free(scenario);
    }
}

Test(repair_apply, survives_every_fault_of_the_image)
{
    sweep_faults(IMAGE);
}

Test(repair_apply, survives_every_fault_of_the_journal)
{
    sweep_faults(JOURNAL);
}

/* ---- what is interrupted ---- */

static void resume_after(const struct scenario *scenario, const struct wreck *wreck, int depth);

/* All subsets of a few changes, and some of many: the last and the first are all and none. */
static uint64_t
subset(size_t index, size_t of)
{
    return index + 1 == of ? UINT64_MAX : index * UINT64_C(0x9e3779b97f4a7c15) >> (index ? 7 : 0);
}

/* Cut the power at every change of a history, with changes that were not durable lost or kept. */
static void
cut_everywhere(const struct scenario *scenario, const struct history *history,
               const struct wreck *start, int depth)
{
    for (size_t count = 0; count <= history->count; count++) {
        size_t loose = unsettled(history, count);
        size_t most = depth ? 3 : 24;
        bool all = loose < (depth ? 2 : 5);
        size_t subsets = all ? (size_t)1 << loose : most;
        const struct q2_record *next = next_write(history, count);
        for (size_t i = 0; i < subsets; i++)
            for (int torn = 0; torn < (next ? 2 : 1); torn++) {
                uint64_t bits = all ? i : subset(i, subsets);
                struct wreck wreck = power_cut(history, start, count, bits, torn ? next : NULL);
                resume_after(scenario, &wreck, depth);
                wreck_free(&wreck);
            }
    }
}

static void
resume_after(const struct scenario *scenario, const struct wreck *wreck, int depth)
{
    struct history *history = history_new(&wreck->sides[IMAGE], &wreck->sides[JOURNAL]);
    struct q2_error err = {0};
    bool rolled_back = false;
    int rc = q2_apply_resume(history->files[IMAGE], history->files[JOURNAL], &rolled_back, &err);
    cr_assert_eq(rc, 0, "%s", err.message);
    bool before = holds(history->bases[IMAGE], &scenario->before);
    cr_expect(before || (!rolled_back && holds(history->bases[IMAGE], &scenario->after)),
              "the image is neither as before nor as after");
    if (depth < 1 && rolled_back)
        cut_everywhere(scenario, history, wreck, depth + 1);
    history_free(history);
}

Test(repair_apply, survives_a_power_cut_at_every_change)
{
    for (unsigned i = 0; i < EDITS; i++) {
        struct scenario *scenario = scenario_new(i);
        const struct wreck start = {.sides = {scenario->before, {0}}};
        struct history *history = history_new(&start.sides[IMAGE], &start.sides[JOURNAL]);
        bool needed;
        cr_assert_eq(apply_to(scenario, history->files[IMAGE], history->files[JOURNAL], &needed,
                              NULL),
                     0);
        cut_everywhere(scenario, history, &start, 0);
        history_free(history);
        scenario_free(scenario);
    }
}

/* An undo of what was complete is interrupted: it goes on, it does not stop half way. */
Test(repair_apply, survives_a_power_cut_while_undoing)
{
    const struct bytes none = {0};
    for (unsigned i = 0; i < EDITS; i++) {
        struct scenario *scenario = scenario_new(i);
        struct history *first = history_new(&scenario->before, &none);
        bool needed;
        cr_assert_eq(apply_to(scenario, first->files[IMAGE], first->files[JOURNAL], &needed, NULL),
                     0);
        struct wreck start = {
            .sides = {bytes_of(first->bases[IMAGE]), bytes_of(first->bases[JOURNAL])}};
        struct history *second = history_new(&start.sides[IMAGE], &start.sides[JOURNAL]);
        cr_assert_eq(q2_journal_undo(second->files[JOURNAL], second->files[IMAGE], false, NULL), 0);
        cr_expect(holds(second->bases[IMAGE], &scenario->before));
        cut_everywhere(scenario, second, &start, 1);
        history_free(second);
        history_free(first);
        wreck_free(&start);
        scenario_free(scenario);
    }
}
