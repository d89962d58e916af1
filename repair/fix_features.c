/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Feature bits, last of all: what they say has to be true by then. The dirty bit says that
 * refcounts may be wrong, the corrupt bit that anything may be. A bit that is not known and clears
 * itself must go as soon as the image is written to, as the specification has it. */

#include "repair/fix.h"

#include "core/base/endian.h"

#include <inttypes.h>

enum { INCOMPATIBLE_AT = 72, AUTOCLEAR_AT = 88 }; /* bytes */

/* Whether nothing is left that makes refcounts or COPIED flags wrong. */
static bool
refcounts_right(const struct q2_scene *scene)
{
    for (int p = 0; p < Q2_PROBLEM_COUNT; p++) {
        const struct q2_catalogue_entry *entry = q2_catalogue((enum q2_problem)p);
        bool about = q2_problem_is_about_refcounts((enum q2_problem)p) ||
                     entry->pass == Q2_PASS_REFCOUNTS ||
                     p == Q2_PROBLEM_HEADER_REFCOUNT_TABLE_UNALIGNED ||
                     p == Q2_PROBLEM_HEADER_REFCOUNT_TABLE_SIZE ||
                     p == Q2_PROBLEM_HEADER_REFCOUNT_TABLE_PAST_END;
        bool bad =
            entry->severity == Q2_SEVERITY_CORRUPTION || entry->severity == Q2_SEVERITY_ERROR;
        if (about && bad && q2_scene_count(scene, (enum q2_problem)p))
            return false;
    }
    return q2_references_complete(scene->check);
}

/* Whether nothing is corrupt but what is mended here. */
static bool
nothing_else(const struct q2_scene *scene, bool raw_data)
{
    const struct q2_check_counts *counts = q2_check_counts(scene->check);
    uint64_t ours = q2_scene_count(scene, Q2_PROBLEM_HEADER_CORRUPT);
    if (raw_data)
        ours += q2_scene_count(scene, Q2_PROBLEM_HEADER_RAW_DATA_BIT);
    return counts->corruptions == ours && counts->check_errors == 0;
}

/* Clear the bits `clear` of the field at `at`, for one reason. Returns whether that is done. */
static int
clear_bits(struct q2_scene *scene, enum q2_problem problem, enum q2_confidence confidence,
           uint64_t at, uint64_t *field, uint64_t clear, const char *evidence, bool *ret_done,
           struct q2_error *err)
{
    bool permitted = q2_plan_begin(&scene->plan, Q2_ACTION_MEND_FEATURES, confidence,
                                   at * 64 + (unsigned)__builtin_ctzll(clear), "%s", evidence);
    int rc = 0;
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++) {
        const struct q2_finding *finding = q2_check_finding(scene->check, i);
        if (finding->problem == problem)
            q2_plan_answer(&scene->plan, problem, finding->host_offset, finding->count);
    }
    if (permitted) {
        *field &= ~clear;
        rc = q2_scene_write64(scene, Q2_OWNER_HEADER, at, *field, err);
    }
    q2_plan_end(&scene->plan);
    *ret_done = rc == 0 && permitted;
    return rc;
}

/* An external data file that only some fields know of may be what is right about them. */
static int
mend_raw_data(struct q2_scene *scene, uint64_t *autoclear, bool *ret_done, struct q2_error *err)
{
    bool named = q2_scene_count(scene, Q2_PROBLEM_EXTENSION_DATA_FILE_UNUSED) > 0;
    return clear_bits(scene, Q2_PROBLEM_HEADER_RAW_DATA_BIT, named ? Q2_GUESS : Q2_CERTAIN,
                      AUTOCLEAR_AT, autoclear, Q2_AUTOCLEAR_RAW_DATA,
                      named ? "the image has no external data file, but it names one"
                            : "the image has no external data file, and names none",
                      ret_done, err);
}

int
q2_fix_features(struct q2_scene *scene, struct q2_error *err)
{
    const struct q2_header *header = &scene->check->header;
    uint64_t incompatible = header->incompatible_features, autoclear = header->autoclear_features;
    bool raw_data = false, done;
    int rc = 0;
    if (header->version < 3)
        return 0;
    if (q2_scene_count(scene, Q2_PROBLEM_HEADER_RAW_DATA_BIT))
        rc = mend_raw_data(scene, &autoclear, &raw_data, err);
    if (rc == 0 && incompatible & Q2_INCOMPATIBLE_DIRTY && refcounts_right(scene))
        rc = clear_bits(scene, Q2_PROBLEM_HEADER_DIRTY, Q2_CERTAIN, INCOMPATIBLE_AT, &incompatible,
                        Q2_INCOMPATIBLE_DIRTY,
                        "all references have been counted, and the refcounts agree with them",
                        &done, err);
    if (rc == 0 && incompatible & Q2_INCOMPATIBLE_CORRUPT && nothing_else(scene, raw_data))
        rc =
            clear_bits(scene, Q2_PROBLEM_HEADER_CORRUPT, Q2_CERTAIN, INCOMPATIBLE_AT, &incompatible,
                       Q2_INCOMPATIBLE_CORRUPT, "nothing else is corrupt", &done, err);
    uint64_t unknown = autoclear & ~(uint64_t)Q2_AUTOCLEAR_KNOWN;
    if (rc == 0 && unknown && q2_plan_does_anything(&scene->plan))
        rc = clear_bits(scene, Q2_PROBLEM_HEADER_AUTOCLEAR_UNKNOWN, Q2_CERTAIN, AUTOCLEAR_AT,
                        &autoclear, unknown,
                        "software that does not know such a bit clears it when it writes to the "
                        "image",
                        &done, err);
    return rc;
}
