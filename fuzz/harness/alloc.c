/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Programs of operations on images of all kinds: the disk holds what the model holds after each
 * step, and the checker finds nothing whenever the image is flushed or closed. */

#include "fuzz/support/program.h"
#include "tests/stress/ops.h"

/* Whether the step was a flush that has not looked for itself. Lazy refcounts are behind while the
 * image is open. */
static bool
flushed(const struct run *run, const struct step *step)
{
    bool lazy = q2_image_header(run->image)->compatible_features & Q2_COMPATIBLE_LAZY_REFCOUNTS;
    return step->op->act == op_flush && step->arg[0] % 4 != 0 && !lazy;
}

/* What each step is followed by. */
static bool
look(struct run *run, const struct q2_program *program, const struct step *step)
{
    bool looks = !program->quiet && step->op->act != op_verify;
    return (!looks || verify_content(run, run->image, &run->model.active)) &&
           (!flushed(run, step) || verify_clean(run, "after a flush"));
}

static bool
execute(struct run *run, const struct q2_program *program)
{
    if (!run_begin(run, &program->params))
        return false;
    for (unsigned i = 0; i < program->step_count; i++)
        if (!run_step(run, &program->steps[i]) || !look(run, program, &program->steps[i]))
            return false;
    return verify_open(run) && run_close(run) && verify_clean(run, "at the end");
}

static void
run(const uint8_t *input, size_t length)
{
    struct q2_program program;
    struct run run = {0};
    q2_program_decode(input, length, &program);
    bool fine = execute(&run, &program);
    Q2_PROGRAM_REQUIRE(fine, &run);
    run_end(&run);
}

const struct q2_harness q2_harness = {"alloc", Q2_FUZZ_PROGRAM, Q2_PROGRAM_MAX, run};
