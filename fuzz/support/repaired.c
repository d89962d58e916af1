/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Damaged images of programs, and what an interrupted repair may leave. */

#include "fuzz/support/repaired.h"

#include "fuzz/support/image.h"
#include "repair/apply.h"

struct q2_file *
q2_program_damaged(struct run *run, const struct q2_program *program)
{
    bool fine = run_begin(run, &program->params);
    for (unsigned i = 0; fine && i < program->step_count; i++)
        fine = run_step(run, &program->steps[i]);
    Q2_PROGRAM_REQUIRE(fine && run_close(run), run);
    struct q2_file *file = world_find(&run->world, "image")->base;
    for (unsigned i = 0; i < program->damage_count; i++)
        q2_damage_image(file, &program->damages[i]);
    return file;
}

struct q2_repair_options
q2_program_repair_options(const struct q2_program *program)
{
    return (struct q2_repair_options){
        .level = (enum q2_repair_level)(Q2_LEVEL_CERTAIN + (program->flags >> 4 & 3) % 3),
        .discard = program->flags >> 6 & 1,
        .max_memory = Q2_FUZZ_MEMORY,
        .threads = 1,
    };
}

void
q2_require_safe(struct sweep_disk *disk, struct q2_file *before, struct q2_file *after)
{
    struct q2_error err = {0};
    bool rolled_back = false;
    struct q2_file *image = disk->files[SWEEP_IMAGE];
    int rc = q2_apply_resume(image, disk->files[SWEEP_JOURNAL], &rolled_back, &err);
    /* A journal that cannot be read may only be one that was never needed. */
    if (sweep_same(image, before))
        return;
    Q2_REQUIRE(rc == 0, "the journal is of no use: %s", err.message);
    Q2_REQUIRE(!rolled_back && sweep_same(image, after), "neither what it was nor repaired");
}
