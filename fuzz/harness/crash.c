/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Power cuts at a chosen change with a chosen part of what was not flushed lost. After a program,
 * the image opens, holds what was flushed, and has leaks at worst; after the repair of an image
 * that a program left and that was then damaged, it is what it was before, or repaired. */

#include "tests/stress/crash.h"
#include "fuzz/support/repaired.h"

static void
cut_program(struct q2_program *program)
{
    struct run run = {0};
    struct crash crash = {.run = &run};
    program->params.data_file = DATA_FILE_NONE; /* one file alone is recorded */
    bool fine = crash_record(&crash, &program->params, program->steps, program->step_count);
    Q2_PROGRAM_REQUIRE(fine, &run);
    fine = crash_cut(&crash, program->number % (crash_count(&crash) + 1),
                     (enum kept_writes)(program->flags % KEPT_WAYS), program->chance);
    Q2_PROGRAM_REQUIRE(fine, &run);
    crash_destroy(&crash);
    run_end(&run);
}

static void
cut_repair(const struct q2_program *program)
{
    struct run run = {0};
    struct q2_error err = {0};
    struct q2_repair *repair = NULL;
    struct q2_file *file = q2_program_damaged(&run, program);
    struct q2_repair_options options = q2_program_repair_options(program);
    if (q2_repair_plan(file, &options, &repair, &err) == 0 && q2_repair_needed(repair)) {
        struct sweep_history history;
        struct sweep_disk disk;
        bool needed = false;
        sweep_history_init(&history, file);
        history.chance = program->chance;
        int rc = q2_repair_apply(repair, history.files[SWEEP_IMAGE], history.files[SWEEP_JOURNAL],
                                 &needed, &err);
        Q2_REQUIRE(rc == 0, "%s", err.message);
        sweep_replay(&history, program->number % (history.count + 1),
                     (enum sweep_loss)(program->flags % SWEEP_LOSSES), &disk);
        q2_require_safe(&disk, file, q2_repair_file(repair));
        sweep_disk_destroy(&disk);
        sweep_history_destroy(&history);
    }
    q2_repair_free(repair);
    run_end(&run);
}

static void
run(const uint8_t *input, size_t length)
{
    struct q2_program program;
    q2_program_decode(input, length, &program);
    if (program.damage_count > 0)
        cut_repair(&program);
    else
        cut_program(&program);
}

const struct q2_harness q2_harness = {"crash", Q2_FUZZ_PROGRAM, Q2_PROGRAM_MAX, run};
