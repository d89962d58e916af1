/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What each says of an image that the other has repaired. */

#include "core/io/memory.h"
#include "core/io/posix.h"
#include "fuzz/differential/trial.h"
#include "fuzz/differential/worker.h"
#include "repair/repair.h"

#include <stdio.h>

int
own_repair(const char *name)
{
    struct q2_error err = {0};
    Q2_AUTOCLOSE struct q2_file *image = NULL;
    Q2_AUTOCLOSE struct q2_file *journal = NULL;
    const struct q2_repair_options options = {.level = Q2_LEVEL_LIKELY, .threads = 1};
    struct q2_repair *plan = NULL;
    bool needed;
    int rc = q2_file_open(name, Q2_OPEN_WRITE | Q2_OPEN_FORCE_SHARE, &image, &err);
    if (rc == 0)
        rc = q2_file_new_memory("journal", &journal, &err);
    if (rc == 0)
        rc = q2_repair_plan(image, &options, &plan, &err);
    if (rc == 0 && q2_repair_needed(plan))
        rc = q2_repair_apply(plan, image, journal, &needed, &err);
    if (rc < 0)
        fprintf(stderr, "%s\n", err.message);
    int status = rc < 0 ? 1 : (int)q2_check_exit(q2_repair_after(plan));
    q2_repair_free(plan);
    return status;
}

void compare_our_repair(struct trial *trial);

void
compare_our_repair(struct trial *trial)
{
    if (outcome_is_exit(&trial->report.run, 0))
        return;
    trial_copy(trial->image, "repaired.qcow2");
    struct outcome run;
    const char *const argv[] = {"repair", "repaired.qcow2", NULL};
    run_own(argv, NULL, &run);
    char word[16];
    if (run.end != RUN_EXIT)
        trial_differ(trial, "our_repair", "end", outcome_word(&run, word), "ends");
    else if (run.status != 1)
        compare_changed(trial, "our_repair", "repaired.qcow2");
    outcome_destroy(&run);
}

void compare_their_repair(struct trial *trial);

void
compare_their_repair(struct trial *trial)
{
    if (outcome_is_exit(&trial->report.run, 0))
        return;
    trial_copy(trial->image, "repaired.qcow2");
    const char *const argv[] = {"qemu-img", "check",          "-q", "-f", "qcow2", "-r",
                                "all",      "repaired.qcow2", NULL};
    struct outcome run;
    run_program(argv, NULL, &run);
    compare_changed(trial, "their_repair", "repaired.qcow2");
    outcome_destroy(&run);
}
