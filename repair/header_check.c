/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The second half of a trial: the whole image, checked under a candidate. */

#include "core/base/checked.h"
#include "core/format/extension.h"
#include "repair/header_try.h"

#include <string.h>

/* Whether findings of this problem are about the header rather than what it leads to. */
static bool
about_header(enum q2_problem problem)
{
    enum q2_pass pass = q2_catalogue(problem)->pass;
    return pass == Q2_PASS_HEADER || pass == Q2_PASS_EXTENSIONS;
}

static bool
says_nothing(enum q2_problem problem)
{
    switch (problem) {
    case Q2_PROBLEM_HEADER_DIRTY:
    case Q2_PROBLEM_HEADER_CORRUPT:
    case Q2_PROBLEM_HEADER_COMPATIBLE_UNKNOWN:
    case Q2_PROBLEM_HEADER_AUTOCLEAR_UNKNOWN:
    case Q2_PROBLEM_HEADER_SIZE_UNALIGNED:
    case Q2_PROBLEM_EXTENSION_BITMAPS_STALE:
    case Q2_PROBLEM_BITMAP_IN_USE:
    case Q2_PROBLEM_SNAPSHOT_DATE:
    case Q2_PROBLEM_SNAPSHOT_NAME_DUPLICATE:
        return true;
    default:
        return false;
    }
}

static void
add_up(struct q2_candidate *candidate, const struct q2_check *check)
{
    candidate->faults = candidate->header_faults = 0;
    for (int p = 0; p < Q2_PROBLEM_COUNT; p++) {
        uint64_t count = q2_check_problem_count(check, (enum q2_problem)p).count;
        if (says_nothing((enum q2_problem)p))
            continue;
        candidate->faults += count;
        if (about_header((enum q2_problem)p) &&
            q2_catalogue((enum q2_problem)p)->severity != Q2_SEVERITY_NOTE)
            candidate->header_faults += count;
    }
    if (q2_header_in_disguise(check->area, check->area_length)) {
        candidate->faults++;
        candidate->header_faults++;
    }
    /* Nothing else was looked at, so it is not that there is nothing else. */
    if (!(check->usable & Q2_USABLE_GEOMETRY))
        candidate->faults += UINT64_C(1) << 40;
    if (!(check->usable & Q2_USABLE_L1))
        candidate->faults += UINT64_C(1) << 36;
}

static int
lay(struct q2_trial *trial, const struct q2_candidate *candidate, struct q2_file *file,
    struct q2_error *err)
{
    size_t length = (size_t)q2_min(sizeof candidate->bytes, trial->length);
    int rc = q2_file_write(file, 0, candidate->bytes, length, err);
    const uint8_t marker[Q2_EXTENSION_HEADER_LENGTH] = {0};
    if (rc == 0 && candidate->fresh)
        rc = q2_file_write(file, length, marker, sizeof marker, err);
    if (rc == 0 && candidate->flip_mask && candidate->flip_at < trial->length) {
        uint8_t byte = trial->area[candidate->flip_at] ^ candidate->flip_mask;
        rc = q2_file_write(file, candidate->flip_at, &byte, 1, err);
    }
    return rc;
}

/* What earlier rounds found out about this candidate. */
static bool
recall(struct q2_trial *trial, struct q2_candidate *candidate)
{
    for (unsigned i = 0; i < q2_min(trial->verdicts, Q2_TRIAL_VERDICTS); i++) {
        const struct q2_candidate *known = &trial->verdict[i];
        if (memcmp(known->bytes, candidate->bytes, sizeof known->bytes) != 0 ||
            known->flip_at != candidate->flip_at || known->flip_mask != candidate->flip_mask ||
            known->fresh != candidate->fresh)
            continue;
        candidate->tried = true;
        candidate->faults = known->faults;
        candidate->header_faults = known->header_faults;
        return true;
    }
    return false;
}

static void
remember(struct q2_trial *trial, const struct q2_candidate *candidate)
{
    trial->verdict[trial->verdicts++ % Q2_TRIAL_VERDICTS] = *candidate;
}

int
q2_trial_check(struct q2_trial *trial, struct q2_candidate *candidate, struct q2_check **ret_check,
               struct q2_error *err)
{
    struct q2_scene *scene = trial->scene;
    if (!ret_check && recall(trial, candidate))
        return 0;
    const struct q2_check_options options = {.threads = scene->options->threads};
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    struct q2_check *check = NULL;
    int rc = q2_file_new_overlay(scene->file, &scene->budget, &file, err);
    if (rc == 0)
        rc = lay(trial, candidate, file, err);
    if (rc == 0)
        rc = q2_check_run(file, &options, &check, err);
    /* A header whose first cluster would reach over a sector that cannot be read is not the one. */
    if (rc < 0 && rc != Q2_ERR_NOT_QCOW2 && rc != Q2_ERR_IO)
        return rc;
    candidate->tried = true;
    candidate->faults = candidate->header_faults = UINT64_MAX;
    if (check)
        add_up(candidate, check);
    remember(trial, candidate);
    if (ret_check)
        *ret_check = check;
    else
        q2_check_free(check);
    return 0;
}

bool
q2_candidate_better(const struct q2_candidate *a, const struct q2_candidate *b)
{
    if (a->tried && b->tried && a->faults != b->faults)
        return a->faults < b->faults;
    return a->bad != b->bad ? a->bad < b->bad : a->good > b->good;
}
