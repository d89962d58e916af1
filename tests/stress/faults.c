/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Errors: in one step, once, and everywhere. */

#include "tests/stress/faults.h"

#include "core/io/memory.h"
#include "tests/stress/allocations.h"
#include "tests/stress/ops.h"
#include "tests/stress/sequence.h"

#include <string.h>

const struct fault_kind fault_kinds[FAULT_KINDS] = {
    {Q2_FAULT_EIO, false},   {Q2_FAULT_EIO, true},   {Q2_FAULT_ENOSPC, false},
    {Q2_FAULT_ENOSPC, true}, {Q2_FAULT_TORN, false}, {Q2_FAULT_SHORT, false},
};
enum { MAX_N = 400 };

static bool
copy_world(struct world *from, struct world *to)
{
    for (unsigned i = 0; i < from->count; i++) {
        struct slot *slot = world_add(to, from->slots[i].name);
        if (!slot || !file_copy(from->slots[i].base, slot->base))
            return false;
    }
    return true;
}

static void
let_go(struct run *run)
{
    q2_image_close(run->image, NULL);
    run->image = NULL;
}

/* What went wrong in spite of what was to be expected, with where that was. */
static bool
blame(struct sweep *sweep)
{
    char message[600];
    snprintf(message, sizeof message, "%.590s", sweep->run->message);
    snprintf(sweep->run->message, sizeof sweep->run->message, "%s, %s %d%s number %llu: %s",
             sweep->step->op->name, sweep->memory ? "allocation" : sweep->slot->name,
             (int)sweep->kind.kind, sweep->kind.permanent ? " from" : "",
             (unsigned long long)sweep->nth, message);
    return false;
}

/* Do the step while something fails. *ret_over: nothing did, there are no more. */
static bool
do_with_fault(struct sweep *sweep, bool *ret_over)
{
    struct run *run = sweep->run;
    struct q2_file *fault = NULL;
    struct q2_fault_plan plan = {.kind = sweep->kind.kind,
                                 .ops = Q2_FAULT_ALL,
                                 .nth = sweep->nth,
                                 .permanent = sweep->kind.permanent};
    if (plan.kind == Q2_FAULT_TORN) { /* the first cluster is trusted to be written whole */
        plan.offset = UINT64_C(1) << run->params.cluster_bits;
        plan.length = Q2_FILE_SIZE_MAX - plan.offset;
    }
    if (!sweep->memory && q2_file_new_fault(sweep->slot->base, &plan, &fault, NULL) < 0)
        return fail(run, "no fault");
    if (fault)
        sweep->slot->top = fault;
    else
        allocations_fail(sweep->nth, sweep->kind.permanent);
    bool done = run_step(run, sweep->step);
    if (done && run->image)
        done = q2_image_flush(run->image, NULL) == 0;
    bool over = fault ? q2_fault_matched(fault) < sweep->nth : !allocations_failed();
    say(run, "%llu: %s\n", (unsigned long long)sweep->nth, done ? "done" : run->message);
    bool fine = done || !over || fail(run, "it failed without a reason: %s", run->message);
    if (fine)
        run->failed = false;
    /* A passing error leaves an image that can be read, and written back as it is closed. */
    if (!sweep->kind.permanent) {
        allocations_fail(0, false);
        sweep->slot->top = sweep->slot->base;
    }
    /* The one may only be closed after an error, the other may have got as far as the snapshot. */
    bool unusable =
        !done && (sweep->step->op->act == op_invalidate || sweep->step->op->act == op_load);
    if (fine && run->image && !sweep->kind.permanent && !unusable)
        fine = history_check_disk(run, &sweep->history, done && !over ? 1 : 0, 1);
    let_go(run);
    allocations_fail(0, false);
    sweep->slot->top = sweep->slot->base;
    q2_file_close(fault);
    *ret_over = over;
    return fine;
}

static bool
check_after(struct sweep *sweep)
{
    struct run *run = sweep->run;
    bool dirty = false;
    /* Pass phrases may have changed, or not. */
    struct q2_error err = {0};
    struct q2_image_options options = run_options(run, 0);
    if (q2_image_open("image", &options, &run->image, &err) == Q2_ERR_PASSPHRASE)
        run->secret = sweep->history.versions[0].secret;
    let_go(run);
    return verify_survived(run, &dirty) && history_check(run, &sweep->history, 0, 1) &&
           run_open(run, Q2_IMAGE_WRITE) && history_check_disk(run, &sweep->history, 0, 1) &&
           run_close(run) && verify_survived(run, &dirty);
}

bool
faults_once(struct sweep *sweep, bool *ret_over)
{
    struct run *run = sweep->run;
    *ret_over = false;
    bool fine = history_restore(&sweep->history.versions[0], run) &&
                copy_world(&sweep->saved, &run->world) && run_open(run, Q2_IMAGE_WRITE) &&
                do_with_fault(sweep, ret_over) && check_after(sweep);
    let_go(run);
    return fine || blame(sweep);
}

static bool
sweep_one(struct sweep *sweep)
{
    bool over = false;
    for (sweep->nth = 1; !over && sweep->nth < MAX_N;
         sweep->nth += 1 + (sweep->nth > 40 ? sweep->nth / 8 : 0))
        if (!faults_once(sweep, &over))
            return false;
    return true;
}

static bool
sweep_all(struct sweep *sweep)
{
    struct run *run = sweep->run;
    bool fine = true;
    sweep->slot = world_find(&run->world, "image");
    for (unsigned k = 0; fine && k < (sweep->memory ? 2 : FAULT_KINDS); k++) {
        sweep->kind = fault_kinds[k];
        fine = sweep_one(sweep);
    }
    sweep->slot = world_find(&run->world, "data");
    for (unsigned k = 0; fine && sweep->slot && !sweep->memory && k < FAULT_KINDS; k++) {
        sweep->kind = fault_kinds[k];
        fine = sweep_one(sweep);
    }
    return fine;
}

bool
faults_prepare(struct sweep *sweep, const struct params *params, const struct step *steps,
               unsigned count)
{
    struct run *run = sweep->run;
    if (!run_begin(run, params))
        return false;
    for (unsigned i = 0; i + 1 < count; i++)
        if (!run_step(run, &steps[i]))
            return false;
    sweep->step = &steps[count - 1];
    if (!run_close(run) || !copy_world(&run->world, &sweep->saved) ||
        !history_add(&sweep->history, run, 0, true) || !run_open(run, Q2_IMAGE_WRITE))
        return false;
    return run_step(run, sweep->step) && run_close(run) &&
           history_add(&sweep->history, run, 0, true);
}

void
faults_destroy(struct sweep *sweep)
{
    let_go(sweep->run);
    history_destroy(&sweep->history);
    world_destroy(&sweep->saved);
}

bool
faults_run(struct run *run, const struct sequence *sequence, bool memory)
{
    struct sweep sweep = {.run = run, .memory = memory};
    if (sequence->count == 0)
        return true;
    bool fine = faults_prepare(&sweep, &sequence->params, sequence->steps, sequence->count) &&
                sweep_all(&sweep);
    faults_destroy(&sweep);
    return fine;
}
