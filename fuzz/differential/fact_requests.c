/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The same requests to a copy each: what both made of it holds the same, in the eyes of each, and
 * neither finds anything wrong with what the other wrote. */

#include "fuzz/differential/trial.h"
#include "fuzz/differential/worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REQUESTS = 6, LENGTH_MAX = 20000 };

/* A script for `qemu-io`; the caller frees it. */
static char *
new_script(struct trial *trial)
{
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        abort();
    uint64_t sectors = trial->report.disk_size / 512 + 1;
    for (unsigned i = 0; i < REQUESTS; i++) {
        static const char *const commands[] = {
            "write -P %u", "write -z", "write -z -u", "discard", "write -P %u", "write -P %u",
        };
        uint64_t offset = q2_fuzz_random_below(&trial->random, sectors) * 512;
        uint64_t count = 512 * (1 + q2_fuzz_random_below(&trial->random, LENGTH_MAX / 512));
        if (offset + count > trial->report.disk_size)
            continue;
        const char *command =
            commands[q2_fuzz_random_below(&trial->random, sizeof commands / sizeof *commands)];
        if (strchr(command, '%'))
            fprintf(out, "write -P %u", 1 + i);
        else
            fputs(command, out);
        fprintf(out, " %" PRIu64 " %" PRIu64 "\n", offset, count);
    }
    fputs("flush\n", out);
    fclose(out);
    return text;
}

/* What both left: whoever reads it, it is the same, and sound. */
static void
compare_results(struct trial *trial)
{
    compare_content(trial, "requests", "ours.qcow2", NULL);
    const char *const argv[] = {"qemu-img", "convert",      "-f",        "qcow2", "-O",
                                "raw",      "theirs.qcow2", "other.raw", NULL};
    struct outcome read;
    run_program(argv, NULL, &read);
    uint64_t offset;
    if (outcome_is_exit(&read, 0) && !same_bytes("theirs.raw", "other.raw", &offset)) {
        char text[32];
        snprintf(text, sizeof text, "%#" PRIx64, offset);
        trial_differ(trial, "requests", "written", "same", text);
    }
    outcome_destroy(&read);
    compare_changed(trial, "requests-by-us", "ours.qcow2");
    compare_changed(trial, "requests-by-them", "theirs.qcow2");
}

/* Whether neither calls the image corrupt: what writing does to it then is nobody's promise. */
static bool
is_sound(const struct trial *trial)
{
    const struct outcome *ours = &trial->report.run;
    const char *const argv[] = {"qemu-img", "check", "-q", "-f", "qcow2", trial->image, NULL};
    struct outcome theirs;
    if (!outcome_is_exit(ours, 0) && !outcome_is_exit(ours, 3))
        return false;
    run_program(argv, NULL, &theirs);
    bool sound = !outcome_is_exit(&theirs, 2);
    outcome_destroy(&theirs);
    return sound;
}

void compare_requests(struct trial *trial);

void
compare_requests(struct trial *trial)
{
    if (trial->report.disk_size > UINT64_C(64) << 20 || !is_sound(trial))
        return;
    char *script = new_script(trial);
    trial_copy(trial->image, "ours.qcow2");
    trial_copy(trial->image, "theirs.qcow2");
    const char *const ours_argv[] = {"io", "-f", "qcow2", "ours.qcow2", NULL};
    const char *const theirs_argv[] = {"qemu-io", "-f", "qcow2", "theirs.qcow2", NULL};
    struct outcome ours, theirs;
    run_own(ours_argv, script, &ours);
    run_program(theirs_argv, script, &theirs);
    if (trial_differ_ends(trial, "requests", "end", &ours, &theirs))
        compare_results(trial);
    outcome_destroy(&ours);
    outcome_destroy(&theirs);
    free(script);
}
