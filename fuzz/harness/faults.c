/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A chosen allocation or I/O operation fails, once or from then on: in the last step of a program,
 * which leaves the old or the new bytes and an image that can be used on; while a repair is
 * planned, which leaves the image alone; while it is applied, which leaves it what it was, or
 * repaired, or a journal that says how to get there. */

#include "tests/stress/faults.h"
#include "fuzz/support/image.h"
#include "fuzz/support/repaired.h"
#include "tests/stress/allocations.h"

/* Flags: three bits of what fails, a bit of where. */
enum { MEMORY = FAULT_KINDS, WHATS = FAULT_KINDS + 2, ELSEWHERE = 1 << 3 };

/* Low numbers often. */
static uint64_t
nth_of(const struct q2_program *program)
{
    return 1 + (program->number >> 14 ? program->number % 24 : program->number % 1000);
}

static void
fail_program(const struct q2_program *program)
{
    struct run run = {0};
    struct sweep sweep = {.run = &run, .nth = nth_of(program)};
    unsigned what = program->flags % WHATS;
    bool fine = faults_prepare(&sweep, &program->params, program->steps, program->step_count);
    bool over;
    Q2_PROGRAM_REQUIRE(fine, &run);
    sweep.memory = what >= MEMORY;
    sweep.kind = sweep.memory ? (struct fault_kind){.permanent = what > MEMORY} : fault_kinds[what];
    sweep.slot = world_find(&run.world, program->flags & ELSEWHERE ? "data" : "image");
    if (sweep.slot) {
        fine = faults_once(&sweep, &over);
        Q2_PROGRAM_REQUIRE(fine, &run);
    }
    faults_destroy(&sweep);
    run_end(&run);
}

/* A file that fails as the program has it. */
static struct q2_file *
faulty(struct q2_file *base, const struct q2_program *program)
{
    struct q2_error err = {0};
    struct q2_file *file = NULL;
    const struct fault_kind *kind = &fault_kinds[program->flags % WHATS % FAULT_KINDS];
    const struct q2_fault_plan plan = {.kind = kind->kind,
                                       .ops = Q2_FAULT_ALL,
                                       .nth = nth_of(program),
                                       .permanent = kind->permanent};
    int rc = q2_file_new_fault(base, &plan, &file, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
    return file;
}

static struct q2_repair *
plan_whole(struct q2_file *file, const struct q2_program *program)
{
    struct q2_error err = {0};
    struct q2_repair *repair = NULL;
    struct q2_repair_options options = q2_program_repair_options(program);
    int rc = q2_repair_plan(file, &options, &repair, &err);
    Q2_REQUIRE(rc == 0 || err.message[0] != '\0', "failed with %d and no word", rc);
    return repair;
}

/* Plan with the fault; the image must not notice. */
static void
fail_plan(struct q2_file *file, const struct q2_program *program)
{
    struct q2_file *before = q2_fuzz_copy(file), *fault = NULL;
    if (program->flags % WHATS >= MEMORY)
        allocations_fail(nth_of(program), program->flags % WHATS > MEMORY);
    else
        fault = faulty(file, program);
    struct q2_repair *repair = plan_whole(fault ? fault : file, program);
    allocations_fail(0, false);
    q2_repair_free(repair);
    q2_file_close(fault);
    Q2_REQUIRE(q2_fuzz_equal(file, before), "a plan changes the image");
    q2_file_close(before);
}

/* Apply with the fault, to the image or to the journal. */
static void
fail_apply(struct q2_file *file, const struct q2_program *program)
{
    struct q2_repair *repair = plan_whole(file, program);
    if (!repair || !q2_repair_needed(repair)) {
        q2_repair_free(repair);
        return;
    }
    struct q2_error err = {0};
    struct sweep_disk disk;
    sweep_disk_init(&disk, file);
    struct q2_file *image = disk.files[SWEEP_IMAGE], *journal = disk.files[SWEEP_JOURNAL];
    bool memory = program->flags % WHATS >= MEMORY, needed = false;
    bool elsewhere = program->flags & ELSEWHERE;
    struct q2_file *fault = memory ? NULL : faulty(elsewhere ? journal : image, program);
    if (memory)
        allocations_fail(nth_of(program), program->flags % WHATS > MEMORY);
    int rc = q2_repair_apply(repair, fault && !elsewhere ? fault : image,
                             fault && elsewhere ? fault : journal, &needed, &err);
    allocations_fail(0, false);
    q2_file_close(fault);
    Q2_REQUIRE(rc == 0 || err.message[0] != '\0', "failed with %d and no word", rc);
    if (rc == 0)
        Q2_REQUIRE(sweep_same(image, q2_repair_file(repair)), "done, but not what was planned");
    else if (!needed)
        Q2_REQUIRE(sweep_same(image, file), "failed, but not rolled back: %s", err.message);
    else
        q2_require_safe(&disk, file, q2_repair_file(repair));
    sweep_disk_destroy(&disk);
    q2_repair_free(repair);
}

static void
run(const uint8_t *input, size_t length)
{
    struct q2_program program;
    q2_program_decode(input, length, &program);
    if (program.damage_count > 0) {
        struct run run = {0};
        struct q2_file *file = q2_program_damaged(&run, &program);
        if (program.chance & 1)
            fail_plan(file, &program);
        else
            fail_apply(file, &program);
        run_end(&run);
    } else if (program.step_count > 0) {
        fail_program(&program);
    }
}

const struct q2_harness q2_harness = {"faults", Q2_FUZZ_PROGRAM, Q2_PROGRAM_MAX, run};
