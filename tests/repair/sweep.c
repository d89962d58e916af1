/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Repairs all case folders (tests/cases/run.c says what is in them), at the levels certain and
 * guess, and interrupts the writing everywhere. What must hold of each:
 *
 *   - What is written is what was planned, and its check says what the plan promised.
 *   - No problem occurs more often than before, and the file does not grow beyond need.
 *   - Planned again on its own outcome, there is nothing left to do.
 *   - Undoing it brings back every byte, and the length.
 *   - Whenever it is killed, or the power fails and unwritten bytes are lost, or a write, flush or
 *     read fails on the image or the journal, going by the journal brings back the image as it was,
 *     or the repair is complete. That again holds where going by the journal is cut short.
 *
 * `repair-sweep [--shard I/N] [--points N] FOLDER...` takes each Nth folder from the Ith on, and of
 * each kind of interruption about so many, evenly spread. With more points than by default, images
 * that take long are not spared. */

#include "checker/catalogue.h"
#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "repair/apply.h"
#include "repair/journal.h"
#include "repair/repair.h"
#include "tests/cases/folder.h"
#include "tests/repair/built.h"
#include "tests/repair/sweep_files.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    POINTS = 6,
    LARGE = 16 << 20,  /* bytes of an image that take too long to be checked again and again */
    GROWTH = 64,       /* clusters that a file may grow by, besides to twice its size */
    DETOUR = 65 << 20, /* bytes: new clusters keep away from where dangling pointers lead */
};

struct sweep {
    const char *folder;
    const char *level;
    uint64_t points;
    struct q2_repair_options options;
    struct q2_file *before; /* the image */
    struct q2_file *view;   /* the same, with what cannot be read of it */
    struct q2_file *after;  /* what is planned */
    struct q2_repair *repair;
    bool blind; /* parts of the image cannot be read */
    int failures;
};

static void complain(struct sweep *sweep, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void
complain(struct sweep *sweep, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("%s, level %s: ", sweep->folder, sweep->level);
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
    sweep->failures++;
}

/* ---- what comes out ---- */

/* Problems that count, of which there are more than before. Where the header or a table kept the
 * check from looking, what it could not see is not new. */
static void
expect_nothing_new(struct sweep *sweep)
{
    struct q2_check *before = q2_repair_before(sweep->repair);
    struct q2_check *after = q2_repair_after(sweep->repair);
    struct q2_geometry geometry;
    if (!before || !q2_check_geometry(before, &geometry))
        return;
    for (int p = 0; p < Q2_PROBLEM_COUNT; p++) {
        enum q2_problem problem = (enum q2_problem)p;
        const struct q2_catalogue_entry *entry = q2_catalogue(problem);
        uint64_t was = q2_check_problem_count(before, problem).count;
        uint64_t is = q2_check_problem_count(after, problem).count;
        if (sweep->blind && problem == Q2_PROBLEM_CLUSTER_LEAKED)
            continue; /* what led to them was not seen, so neither were they */
        if (entry->severity <= Q2_SEVERITY_ERROR && is > was)
            complain(sweep, "%s: %" PRIu64 " faults become %" PRIu64, entry->id, was, is);
    }
}

/* The check of what was written. */
static void
expect_promised(struct sweep *sweep, struct q2_file *image)
{
    struct q2_error err = {0};
    struct q2_check *check = NULL;
    const struct q2_check_options options = {.deep = true, .now = sweep->options.now};
    if (q2_check_run(image, &options, &check, &err) < 0) {
        complain(sweep, "the outcome cannot be checked: %s", err.message);
        return;
    }
    const struct q2_check *planned = q2_repair_after(sweep->repair);
    for (int p = 0; p < Q2_PROBLEM_COUNT; p++) {
        enum q2_problem problem = (enum q2_problem)p;
        uint64_t is = q2_check_problem_count(check, problem).count;
        uint64_t promised = q2_check_problem_count(planned, problem).count;
        if (is != promised)
            complain(sweep, "%s: %" PRIu64 " faults were planned, %" PRIu64 " there are",
                     q2_catalogue(problem)->id, promised, is);
    }
    q2_check_free(check);
}

static void
expect_idle(struct sweep *sweep, struct q2_file *image)
{
    struct q2_error err = {0};
    struct q2_repair *again = NULL;
    if (q2_repair_plan(image, &sweep->options, &again, &err) < 0) {
        complain(sweep, "the outcome cannot be planned for: %s", err.message);
        return;
    }
    const struct q2_plan *plan = q2_repair_actions(again);
    for (uint64_t i = 0; i < plan->count; i++)
        if (plan->actions[i].applied)
            complain(sweep, "a second run would %s at 0x%" PRIx64 ": %s",
                     q2_action_id(plan->actions[i].kind), plan->actions[i].key,
                     plan->actions[i].evidence);
    if (q2_repair_needed(again) && !q2_plan_does_anything(plan))
        complain(sweep, "a second run writes without an action");
    q2_repair_free(again);
}

static void
expect_bounded(struct sweep *sweep)
{
    uint64_t from, to;
    struct q2_geometry geometry = {.cluster_size = 1 << 21};
    if (q2_file_size(sweep->before, &from, NULL) < 0 || q2_file_size(sweep->after, &to, NULL) < 0)
        return;
    q2_check_geometry(q2_repair_after(sweep->repair), &geometry);
    if (to > from * 2 + GROWTH * geometry.cluster_size + DETOUR)
        complain(sweep, "the file grows from %" PRIu64 " to %" PRIu64 " bytes", from, to);
}

/* ---- interruptions ---- */

/* Go by the journal, and hold the image against both states that it may be in. */
static void
expect_safe(struct sweep *sweep, struct sweep_disk *disk, const char *what, uint64_t number)
{
    struct q2_error err = {0};
    bool rolled_back = false;
    int rc =
        q2_apply_resume(disk->files[SWEEP_IMAGE], disk->files[SWEEP_JOURNAL], &rolled_back, &err);
    bool before = sweep_same(disk->files[SWEEP_IMAGE], sweep->before);
    if (before)
        return;
    /* A journal that cannot be read may only be one that was never needed. */
    if (rc < 0)
        complain(sweep, "%s %" PRIu64 ": the journal is of no use: %s", what, number, err.message);
    else if (rolled_back || !sweep_same(disk->files[SWEEP_IMAGE], sweep->after))
        complain(sweep, "%s %" PRIu64 ": the image is neither what it was nor repaired", what,
                 number);
}

/* The same, after going by the journal was itself cut short at its nth write. */
static void
expect_safe_twice(struct sweep *sweep, struct sweep_disk *disk, uint64_t nth, uint64_t number)
{
    static const enum q2_fault_kind kinds[] = {Q2_FAULT_EIO, Q2_FAULT_TORN};
    const struct q2_fault_plan plan = {.kind = kinds[nth % 2],
                                       .ops = Q2_FAULT_WRITE | Q2_FAULT_FLUSH,
                                       .nth = nth,
                                       .permanent = true};
    struct q2_error err = {0};
    struct q2_file *faulty = NULL;
    bool rolled_back;
    if (q2_file_new_fault(disk->files[SWEEP_IMAGE], &plan, &faulty, &err) < 0)
        folder_die(sweep->folder, err.message);
    q2_apply_resume(faulty, disk->files[SWEEP_JOURNAL], &rolled_back, &err);
    q2_file_close(faulty);
    expect_safe(sweep, disk, "cut short twice at change", number);
}

/* Of `total` points counted from 1, the one to take after `point`: the first and the last, and what
 * lies evenly between. */
static uint64_t
next_point(const struct sweep *sweep, uint64_t point, uint64_t total)
{
    uint64_t step = q2_max(1, total / sweep->points);
    return point < total && point + step > total ? total : point + step;
}

static void
sweep_cuts(struct sweep *sweep, const struct sweep_history *history)
{
    static const char *const words[SWEEP_LOSSES] = {"killed at change", "power lost at change",
                                                    "power lost, in part, at change"};
    struct sweep_disk disk;
    for (uint64_t at = 1; at <= history->count; at = next_point(sweep, at, history->count)) {
        for (int loss = 0; loss < SWEEP_LOSSES; loss++) {
            sweep_replay(history, at, (enum sweep_loss)loss, &disk);
            expect_safe(sweep, &disk, words[loss], at);
            sweep_disk_destroy(&disk);
        }
        sweep_replay(history, at, SWEEP_LOSE_SOME, &disk);
        expect_safe_twice(sweep, &disk, 1 + at % 3, at);
        sweep_disk_destroy(&disk);
    }
}

/* Apply with a fault on one side. Returns how many operations could have met with it. */
static uint64_t
strike(struct sweep *sweep, enum sweep_side side, const struct q2_fault_plan *plan)
{
    static const char *const words[SWEEP_SIDES] = {"image fault at", "journal fault at"};
    struct q2_error err = {0};
    struct sweep_disk disk;
    struct q2_file *faulty = NULL;
    bool needed = false;
    sweep_disk_init(&disk, sweep->before);
    if (q2_file_new_fault(disk.files[side], plan, &faulty, &err) < 0)
        folder_die(sweep->folder, err.message);
    struct q2_file *image = side == SWEEP_IMAGE ? faulty : disk.files[SWEEP_IMAGE];
    struct q2_file *journal = side == SWEEP_JOURNAL ? faulty : disk.files[SWEEP_JOURNAL];
    int rc = q2_repair_apply(sweep->repair, image, journal, &needed, &err);
    uint64_t matched = q2_fault_matched(faulty);
    q2_file_close(faulty);
    if (rc == 0 && !sweep_same(disk.files[SWEEP_IMAGE], sweep->after))
        complain(sweep, "%s %" PRIu64 ": it claims to be complete", words[side], plan->nth);
    if (rc < 0 && !needed && !sweep_same(disk.files[SWEEP_IMAGE], sweep->before))
        complain(sweep, "%s %" PRIu64 ": not rolled back: %s", words[side], plan->nth, err.message);
    expect_safe(sweep, &disk, words[side], plan->nth);
    sweep_disk_destroy(&disk);
    return matched;
}

static void
sweep_faults(struct sweep *sweep, enum sweep_side side)
{
    static const enum q2_fault_kind kinds[] = {Q2_FAULT_EIO, Q2_FAULT_ENOSPC, Q2_FAULT_TORN};
    static const unsigned ops[] = {Q2_FAULT_ALL, Q2_FAULT_WRITE | Q2_FAULT_TRUNCATE,
                                   Q2_FAULT_WRITE};
    for (unsigned kind = 0; kind < 3; kind++) {
        struct q2_fault_plan plan = {.kind = Q2_FAULT_NONE, .ops = ops[kind]};
        uint64_t total = strike(sweep, side, &plan);
        plan.kind = kinds[kind];
        for (plan.nth = 1; plan.nth <= total; plan.nth = next_point(sweep, plan.nth, total)) {
            plan.permanent = plan.nth % 2; /* the roll back fails as well */
            strike(sweep, side, &plan);
        }
    }
}

/* ---- one case ---- */

static void
undo(struct sweep *sweep, const struct sweep_history *history)
{
    struct q2_error err = {0};
    if (q2_journal_undo(history->disk.files[SWEEP_JOURNAL], history->disk.files[SWEEP_IMAGE], false,
                        &err) < 0)
        complain(sweep, "it cannot be undone: %s", err.message);
    else if (!sweep_same(history->disk.files[SWEEP_IMAGE], sweep->before))
        complain(sweep, "undone, it is not what it was");
}

static void
apply(struct sweep *sweep)
{
    struct q2_error err = {0};
    struct sweep_history history;
    bool needed;
    sweep_history_init(&history, sweep->before);
    if (q2_repair_apply(sweep->repair, history.files[SWEEP_IMAGE], history.files[SWEEP_JOURNAL],
                        &needed, &err) < 0)
        complain(sweep, "it cannot be written: %s", err.message);
    else if (!sweep_same(history.disk.files[SWEEP_IMAGE], sweep->after))
        complain(sweep, "what is written is not what was planned");
    expect_bounded(sweep);
    expect_nothing_new(sweep);
    expect_promised(sweep, history.disk.files[SWEEP_IMAGE]);
    expect_idle(sweep, history.disk.files[SWEEP_IMAGE]);
    undo(sweep, &history);
    sweep_cuts(sweep, &history);
    for (int side = 0; side < SWEEP_SIDES; side++)
        sweep_faults(sweep, (enum sweep_side)side);
    sweep_history_destroy(&history);
}

/* What cannot be read can neither be compared nor brought back. */
static void
apply_blind(struct sweep *sweep)
{
    struct q2_error err = {0};
    struct sweep_disk disk;
    bool needed;
    sweep_disk_init(&disk, sweep->view);
    if (q2_repair_apply(sweep->repair, disk.files[SWEEP_IMAGE], disk.files[SWEEP_JOURNAL], &needed,
                        &err) < 0)
        complain(sweep, "it cannot be written: %s", err.message);
    expect_bounded(sweep);
    expect_nothing_new(sweep);
    expect_promised(sweep, disk.files[SWEEP_IMAGE]);
    expect_idle(sweep, disk.files[SWEEP_IMAGE]);
    sweep_disk_destroy(&disk);
}

/* *digest is that of the level before, and tells where this one does the same. */
static void
sweep_level(struct sweep *sweep, enum q2_repair_level level, char digest[65])
{
    struct q2_error err = {0};
    char now[65];
    sweep->level = level == Q2_LEVEL_GUESS ? "guess" : "certain";
    sweep->options.level = level;
    sweep->repair = NULL;
    int rc = q2_repair_plan(sweep->view, &sweep->options, &sweep->repair, &err);
    if (rc == Q2_ERR_NOT_QCOW2 || rc == Q2_ERR_BUDGET) /* which is a clear refusal */
        return;
    if (rc < 0 || q2_repair_digest(sweep->repair, now, &err) < 0) {
        complain(sweep, "it cannot be planned for: %s", err.message);
    } else if (!q2_repair_needed(sweep->repair)) {
        if (q2_plan_does_anything(q2_repair_actions(sweep->repair)))
            complain(sweep, "actions that write nothing");
    } else if (strcmp(now, digest) != 0) {
        memcpy(digest, now, sizeof now);
        sweep->after = q2_repair_file(sweep->repair);
        if (sweep->blind)
            apply_blind(sweep);
        else
            apply(sweep);
    }
    q2_repair_free(sweep->repair);
}

static int
sweep_folder(const char *folder, uint64_t points)
{
    struct q2_error err = {0};
    struct folder_options setup = {.check = {.now = 0}};
    struct sweep sweep = {.folder = strrchr(folder, '/') ? strrchr(folder, '/') + 1 : folder,
                          .points = points};
    char digest[65] = "";
    folder_options(folder, &setup);
    sweep.options.now = setup.check.now;
    sweep.options.deep = true;
    sweep.options.threads = 1;
    sweep.before = sweep.view = built_image(folder);
    sweep.blind = setup.fault.kind != Q2_FAULT_NONE;
    if (sweep.blind && q2_file_new_fault(sweep.before, &setup.fault, &sweep.view, &err) < 0)
        folder_die(folder, err.message);
    uint64_t stored = 0;
    if (q2_file_allocated(sweep.before, &stored, &err) < 0)
        folder_die(folder, err.message);
    if (stored > LARGE / 4 && points == POINTS)
        sweep.points = 1;
    if (stored <= LARGE || points > POINTS) {
        sweep_level(&sweep, Q2_LEVEL_CERTAIN, digest);
        sweep_level(&sweep, Q2_LEVEL_GUESS, digest);
    }
    if (sweep.blind)
        q2_file_close(sweep.view);
    q2_file_close(sweep.before);
    return sweep.failures;
}

int
main(int argc, char **argv)
{
    int shard = 0, shards = 1, first = 1, failed = 0;
    uint64_t points = POINTS;
    for (; first + 1 < argc && argv[first][0] == '-'; first += 2) {
        if (strcmp(argv[first], "--shard") == 0 &&
            sscanf(argv[first + 1], "%d/%d", &shard, &shards) == 2 && shards > 0)
            continue;
        if (strcmp(argv[first], "--points") == 0 &&
            sscanf(argv[first + 1], "%" SCNu64, &points) == 1 && points > 0)
            continue;
        folder_die(argv[first], "is no option, or not like this");
    }
    for (int i = first + shard; i < argc; i += shards) {
        bool bad = sweep_folder(argv[i], points) > 0;
        failed += bad;
        printf("%s: %s\n", argv[i], bad ? "FAILED" : "ok");
        fflush(stdout);
    }
    return failed ? 1 : 0;
}
