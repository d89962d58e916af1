/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Subcluster bits that contradict the entry they belong to ("Extended L2 Entries"). A compressed
 * cluster has none. A subcluster that is both allocated and zero is one flipped bit away from
 * either; where its bytes are zeros that makes no difference. */

#include "repair/fix.h"

#include "core/base/checked.h"
#include "core/base/zeros.h"
#include "repair/entries.h"

#include <inttypes.h>
#include <string.h>

/* Whether all subclusters in `conflict` hold zeros in the file. */
static bool
hold_zeros(struct q2_entries *entries, const struct q2_suspect *suspect, uint32_t conflict)
{
    const struct q2_check *check = entries->survey->scene->check;
    uint64_t size = check->geometry.cluster_size, part = size / Q2_SUBCLUSTERS;
    uint8_t *buffer = entries->matcher.decoded;
    if (q2_file_read_padded(check->file, q2_entry_offset(suspect->entry.raw), buffer, size, NULL) <
        0)
        return false;
    for (unsigned i = 0; i < Q2_SUBCLUSTERS; i++)
        if ((conflict >> i & 1) && !q2_is_zero(buffer + i * part, part))
            return false;
    return true;
}

static int
set_bits(struct q2_entries *entries, const struct q2_suspect *suspect, uint64_t bitmap,
         enum q2_confidence confidence, const char *why, struct q2_error *err)
{
    struct q2_scene *scene = entries->survey->scene;
    bool apply = q2_plan_begin(&scene->plan, Q2_ACTION_MEND_SUBCLUSTERS, confidence, suspect->at,
                               "subcluster bits 0x%" PRIx64 " become 0x%" PRIx64 ": %s",
                               suspect->entry.bitmap, bitmap, why);
    q2_entries_answer(entries, suspect);
    q2_survey_change(entries->survey, suspect, Q2_CHANGE_RECOVERED,
                     scene->check->geometry.cluster_size);
    int rc = apply ? q2_scene_write64(scene, Q2_OWNER_L2_TABLE, suspect->at + 8, bitmap, err) : 0;
    q2_plan_end(&scene->plan);
    return rc;
}

static int
mend(struct q2_entries *entries, const struct q2_suspect *suspect, struct q2_error *err)
{
    const struct q2_geometry *geometry = &entries->survey->scene->check->geometry;
    uint64_t raw = suspect->entry.raw, bitmap = suspect->entry.bitmap;
    if (raw & Q2_ENTRY_COMPRESSED)
        return bitmap && q2_matcher_decodes(&entries->matcher, raw, NULL)
                   ? set_bits(entries, suspect, 0, Q2_CERTAIN,
                              "a compressed cluster has no subclusters", err)
                   : 0;
    uint32_t allocated = (uint32_t)bitmap, conflict = allocated & (uint32_t)(bitmap >> 32);
    if (!conflict || q2_l2_kind(geometry, raw) == Q2_CLUSTER_UNALLOCATED ||
        !q2_host_inside(geometry, q2_entry_offset(raw)))
        return 0;
    bool same = hold_zeros(entries, suspect, conflict);
    return set_bits(entries, suspect, bitmap & ~((uint64_t)conflict << 32),
                    same ? Q2_CERTAIN : Q2_LIKELY,
                    same ? "what is both zero and allocated holds zeros"
                         : "what is both zero and allocated holds data",
                    err);
}

int
q2_fix_subclusters(struct q2_scene *scene, struct q2_error *err)
{
    struct q2_entries entries;
    if (!scene->check->geometry.extended_l2 || !q2_entries_wanted(scene))
        return 0;
    int rc = q2_entries_init(&entries, scene, err);
    if (rc < 0)
        return rc;
    for (uint64_t i = 0; i < entries.survey->suspect_count && rc == 0; i++)
        if (!entries.survey->suspects[i].is_l1)
            rc = mend(&entries, &entries.survey->suspects[i], err);
    q2_entries_destroy(&entries);
    return rc;
}
