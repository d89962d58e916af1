/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Power cuts at every write of taking, applying and deleting a snapshot: each image that can be
 * left behind opens, has leaks or needlessly clear COPIED flags at worst, and all its states read
 * as before (or, while a snapshot is applied, the active one as the snapshot). And every operation
 * of the file failing in turn: an error, and no worse an image. */

#include "tests/unit/image_states.h"

#include "core/io/fault.h"

static const char *const images[] = {
    "cluster-size 4K\nsize 1M\nwrite 0 64K random\nwrite-compressed 256K 16K text\n"
    "snapshot one\nwrite 8K 16K 0x11\nzero 16K 8K\nwrite-compressed 272K 8K text\n"
    "write 600K 4K 0x22\n",
    "cluster-size 512\nsize 64K\nrefcount-bits 64\nwrite 0 8K random\nsnapshot one\n"
    "write 4K 8K 0x11\nsnapshot two\nwrite 60K 4K 0x12\n",
    "cluster-size 16K\nextended-l2\nsize 1M\nwrite 0 64K random\nsnapshot one\n"
    "write 8K 16K 0x11\n",
};

enum { IMAGES = sizeof images / sizeof images[0] };

enum operation { TAKE, APPLY, DELETE };

static int
operate(struct q2_image *image, enum operation operation, struct q2_error *err)
{
    switch (operation) {
    case TAKE:
        return q2_snapshot_create(image, &(struct q2_snapshot_options){.name = "new"}, err);
    case APPLY:
        return q2_snapshot_goto(image, 0, err);
    case DELETE:
        return q2_snapshot_delete(image, 0, err);
    }
    return Q2_ERR_RANGE;
}

/* Leaks, refcounts that are ahead of the file, what was written for nothing. */
static bool
harmless(enum q2_problem problem)
{
    switch (problem) {
    case Q2_PROBLEM_L1_COPIED_CLEAR:
    case Q2_PROBLEM_L2_COPIED_CLEAR:
    case Q2_PROBLEM_REFCOUNT_BEYOND_END:
    case Q2_PROBLEM_ORPHAN_L1_TABLE:
    case Q2_PROBLEM_ORPHAN_L2_TABLE:
    case Q2_PROBLEM_SNAPSHOT_TABLE_LOST:
        return true;
    default:
        return q2_catalogue(problem)->severity == Q2_SEVERITY_LEAK;
    }
}

/* What the states of an image read as before the operation. */
struct states {
    unsigned count; /* of snapshots */
    uint64_t size;
    uint8_t *active;
    uint8_t *snapshots[4];
};

static void
remember_states(struct q2_file *file, struct states *states)
{
    struct opened opened = must_open(file, 0);
    states->count = q2_snapshot_count(opened.image);
    must_close(&opened);
    states->active = read_state(file, -1, &states->size);
    for (unsigned i = 0; i < states->count; i++)
        states->snapshots[i] = read_state(file, (int)i, &states->size);
}

static void
forget_states(struct states *states)
{
    free(states->active);
    for (unsigned i = 0; i < states->count; i++)
        free(states->snapshots[i]);
}

static void
expect_survived(struct q2_file *file, enum operation operation, const struct states *states,
                const char *when)
{
    struct opened opened = must_open(file, 0);
    unsigned count = q2_snapshot_count(opened.image), shift = 0;
    must_close(&opened);
    expect_findings(file, harmless, when);

    uint64_t size;
    Q2_AUTOFREE uint8_t *active = read_state(file, -1, &size);
    bool old = memcmp(active, states->active, size) == 0;
    bool new = operation == APPLY &&memcmp(active, states->snapshots[0], size) == 0;
    cr_assert(old || new, "%s: the disk reads differently", when);
    if (operation == DELETE && count < states->count)
        shift = 1;
    else if (operation == TAKE && count > states->count)
        expect_state(file, (int)count - 1, states->active, states->size, when);
    else
        cr_assert_eq(count, states->count, "%s: %u snapshots", when, count);
    for (unsigned i = shift; i < states->count; i++)
        expect_state(file, (int)(i - shift), states->snapshots[i], states->size, when);
}

/* ---- power cuts ---- */

/* What a volatile cache happened to put down of the writes since the last barrier. */
struct cut {
    size_t at; /* records before this one were made */
    enum { ALL, NONE, LAST, SOME, OTHERS, VARIANTS } variant;
};

static bool
keep(size_t index, void *data)
{
    const struct cut *cut = data;
    switch (cut->variant) {
    case ALL:
        return true;
    case NONE:
        return false;
    case LAST:
        return index + 1 == cut->at;
    default:
        return (index * 2654435761U >> 7 ^ cut->variant) & 1;
    }
}

static void
cut_everywhere(const char *text, enum operation operation)
{
    struct q2_error err = {0};
    struct states states = {0};
    Q2_AUTOCLOSE struct q2_file *file = build_image(text), *before = NULL;
    remember_states(file, &states);
    before = clone_file(file);
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    MUST(operate(opened.image, operation, &err), err);
    size_t count = q2_record_count(opened.record);
    cr_assert_gt(count, 3);
    for (struct cut cut = {0}; cut.at <= count; cut.at++)
        for (cut.variant = ALL; cut.variant < VARIANTS; cut.variant++) {
            char when[64];
            snprintf(when, sizeof when, "operation %d, cut at %zu of %zu, variant %d",
                     (int)operation, cut.at, count, (int)cut.variant);
            Q2_AUTOCLOSE struct q2_file *after = clone_file(before);
            MUST(q2_record_replay(opened.record, cut.at, keep, &cut, after, &err), err);
            expect_survived(after, operation, &states, when);
        }
    must_close(&opened);
    expect_clean(file, "closed");
    forget_states(&states);
}

Test(snapshot_crash, a_power_cut_while_one_is_taken_does_no_harm)
{
    for (unsigned i = 0; i < IMAGES; i++)
        cut_everywhere(images[i], TAKE);
}

Test(snapshot_crash, a_power_cut_while_one_is_applied_leaves_either_state)
{
    for (unsigned i = 0; i < IMAGES; i++)
        cut_everywhere(images[i], APPLY);
}

Test(snapshot_crash, a_power_cut_while_one_is_deleted_does_no_harm)
{
    for (unsigned i = 0; i < IMAGES; i++)
        cut_everywhere(images[i], DELETE);
}

/* ---- failures ---- */

/* Run the operation with the `nth` operation of the file failing. False: there were fewer. */
static bool
fail_at(struct q2_file *file, enum operation operation, enum q2_fault_kind kind, uint64_t nth)
{
    struct q2_fault_plan plan = {.kind = kind, .ops = Q2_FAULT_ALL, .nth = nth};
    struct q2_image_options options = {.flags = Q2_IMAGE_WRITE};
    struct q2_file *fault = NULL;
    struct q2_image *image = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_file_new_fault(file, &plan, &fault, NULL), 0);
    if (q2_image_open_file(fault, &options, &image, &err) < 0)
        return true;
    bool open = q2_fault_matched(fault) < nth;
    int rc = operate(image, operation, &err);
    bool reached = q2_fault_matched(fault) >= nth;
    if (open && reached && rc < 0)
        cr_expect_neq(err.message[0], 0);
    int closed = q2_image_close(image, &err);
    return !open || reached || closed < 0;
}

static void
fail_everywhere(const char *text, enum operation operation, enum q2_fault_kind kind)
{
    struct states states = {0};
    Q2_AUTOCLOSE struct q2_file *original = build_image(text);
    remember_states(original, &states);
    for (uint64_t nth = 1;; nth++) {
        char when[64];
        snprintf(when, sizeof when, "operation %d, fault %d at %llu", (int)operation, (int)kind,
                 (unsigned long long)nth);
        cr_assert_lt(nth, 5000);
        Q2_AUTOCLOSE struct q2_file *file = clone_file(original);
        if (!fail_at(file, operation, kind, nth))
            break;
        expect_survived(file, operation, &states, when);
    }
    forget_states(&states);
}

Test(snapshot_crash, each_failing_operation_does_no_harm)
{
    for (unsigned i = 0; i < IMAGES; i++)
        for (enum operation operation = TAKE; operation <= DELETE; operation++) {
            fail_everywhere(images[i], operation, Q2_FAULT_EIO);
            fail_everywhere(images[i], operation, Q2_FAULT_ENOSPC);
        }
}
