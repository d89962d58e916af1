/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Clusters for what is new. Nothing may be where a damaged pointer leads, nor where something may
 * be that was lost: behind the end of the file, before anything leads there; or, where it cannot
 * grow so far, what is free beyond doubt. */

#include "repair/scene.h"

#include "checker/refcounts.h"
#include "core/base/checked.h"
#include "core/base/zeros.h"
#include "core/format/entry.h"

uint64_t
q2_scene_references(const struct q2_scene *scene, uint64_t cluster)
{
    const struct q2_chunk *chunk = q2_tally_chunk(scene->check->tally, cluster >> Q2_CHUNK_BITS);
    return chunk ? q2_chunk_references(chunk, (unsigned)(cluster % Q2_CHUNK_CLUSTERS)) : 0;
}

static int
take(struct q2_scene *scene, uint64_t first, uint64_t count, struct q2_error *err)
{
    uint64_t last = scene->taken_count - 1;
    if (scene->taken_count && scene->taken[last].first + scene->taken[last].count == first) {
        scene->taken[last].count += count;
        return 0;
    }
    if (scene->taken_count == scene->taken_capacity) {
        uint64_t larger = scene->taken_capacity ? scene->taken_capacity * 2 : 16;
        void *memory = scene->taken;
        int rc = q2_budget_grow(&scene->budget, scene->taken_capacity, larger, sizeof *scene->taken,
                                "new clusters", &memory, err);
        if (rc < 0)
            return rc;
        scene->taken = memory;
        scene->taken_capacity = larger;
    }
    scene->taken[scene->taken_count].first = first;
    scene->taken[scene->taken_count++].count = count;
    return 0;
}

static bool
is_taken(const struct q2_scene *scene, uint64_t cluster)
{
    for (uint64_t i = 0; i < scene->taken_count; i++)
        if (cluster - scene->taken[i].first < scene->taken[i].count)
            return true;
    return false;
}

/* Where a pointer of the maps or of bitmaps leads that is past the end; 0: the finding is about
 * something else. */
static uint64_t
dangling_offset(const struct q2_geometry *geometry, const struct q2_finding *finding)
{
    switch (finding->problem) {
    case Q2_PROBLEM_L1_ENTRY_PAST_END:
    case Q2_PROBLEM_L2_ENTRY_PAST_END:
        return q2_entry_offset(finding->got);
    case Q2_PROBLEM_L2_COMPRESSED_PAST_END:
        return q2_compressed_decode(geometry, finding->got).offset;
    case Q2_PROBLEM_SNAPSHOT_L1_PAST_END:
    case Q2_PROBLEM_BITMAP_TABLE_PAST_END:
    case Q2_PROBLEM_BITMAP_ENTRY_PAST_END:
        return finding->got;
    default: /* in the header, or refcounts: what leads there does not stay as it is */
        return 0;
    }
}

/* A damaged pointer that leads past the end must not come to lead into the file, neither to
 * something new nor into a hole before that: it would look right. The first cluster that one leads
 * to. Of neighbours a finding tells the first, which nearly always leads to what comes first. */
static uint64_t
first_dangling(struct q2_scene *scene)
{
    const struct q2_geometry *geometry = &scene->check->geometry;
    if (scene->dangling)
        return scene->dangling;
    scene->dangling = UINT64_MAX;
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++) {
        uint64_t offset = dangling_offset(geometry, q2_check_finding(scene->check, i));
        if (offset >= geometry->file_size)
            scene->dangling = q2_min(scene->dangling, offset >> geometry->cluster_bits);
    }
    return scene->dangling;
}

static int
allocate_behind(struct q2_scene *scene, uint64_t count, uint64_t *ret_first, struct q2_error *err)
{
    unsigned bits = scene->check->geometry.cluster_bits;
    uint64_t size;
    int rc = q2_file_size(scene->file, &size, err);
    if (rc < 0)
        return rc;
    uint64_t first = q2_units(size, bits);
    for (uint64_t i = 0; i < scene->taken_count; i++)
        first = q2_max(first, scene->taken[i].first + scene->taken[i].count);
    if (first + count > q2_min(Q2_FILE_SIZE_MAX >> bits, first_dangling(scene)))
        return q2_error_set(err, Q2_ERR_NOSPACE, "%s: there is no room for %llu new clusters",
                            scene->base->name, (unsigned long long)count);
    *ret_first = first;
    return 0;
}

static bool
is_unsound(const struct q2_check *check)
{
    if (!(check->usable & Q2_USABLE_REFCOUNTS))
        return true;
    for (int p = 0; p < Q2_PROBLEM_COUNT; p++) {
        enum q2_problem problem = (enum q2_problem)p;
        bool counts = problem == Q2_PROBLEM_REFCOUNT_ZERO || problem == Q2_PROBLEM_REFCOUNT_TOO_LOW;
        bool structures = q2_catalogue(problem)->pass == Q2_PASS_REFCOUNTS &&
                          q2_catalogue(problem)->severity <= Q2_SEVERITY_ERROR &&
                          !q2_problem_is_about_refcounts(problem);
        if ((counts || structures) && q2_check_problem_count(check, problem).count)
            return true;
    }
    return false;
}

/* Whether what counts references was damaged itself, before this round or before all of them, so
 * that a refcount of 0 says nothing. (That new references are not counted yet is no damage.) */
static bool
has_unsound_refcounts(const struct q2_scene *scene)
{
    const struct q2_check *origin = q2_scene_origin(scene);
    return is_unsound(scene->before ? scene->before : scene->check) ||
           (origin && is_unsound(origin));
}

/* Whether a cluster that nothing refers to can be taken: one that cannot be read would not take a
 * part of a sector either; and where its refcount of 0 says nothing, it may be what somebody has
 * lost, unless it is all zeros. */
static bool
is_spare(const struct q2_scene *scene, uint64_t cluster, bool unsound)
{
    unsigned bits = scene->check->geometry.cluster_bits;
    uint8_t bytes[4096];
    uint64_t size = UINT64_C(1) << bits, step = q2_min(size, sizeof bytes);
    for (uint64_t at = 0; at < size; at += step)
        if (q2_file_read_padded(scene->file, (cluster << bits) + at, bytes, step, NULL) < 0 ||
            (unsound && !q2_is_zero(bytes, step)))
            return false;
    return true;
}

static int
allocate_inside(struct q2_scene *scene, uint64_t count, uint64_t *ret_first, struct q2_error *err)
{
    bool unsound = has_unsound_refcounts(scene);
    struct q2_refcount_reader reader;
    int rc = q2_refcount_reader_init(&reader, scene->check, err);
    if (rc < 0)
        return rc;
    /* What was passed over for a single one is not free. */
    uint64_t found = 0, cluster = count == 1 ? q2_max(scene->inside, 1) : 1;
    /* Of one that the file cuts short, there is no rest where it cannot grow. */
    uint64_t end = scene->check->geometry.file_size >> scene->check->geometry.cluster_bits;
    for (; cluster < end && found < count; cluster++) {
        bool free = q2_scene_references(scene, cluster) == 0 && !is_taken(scene, cluster) &&
                    q2_refcount_of(&reader, cluster) == 0 && is_spare(scene, cluster, unsound);
        found = free ? found + 1 : 0;
    }
    q2_refcount_reader_destroy(&reader);
    scene->inside = count == 1 ? cluster : scene->inside;
    if (found < count)
        return q2_error_set(err, Q2_ERR_NOSPACE,
                            "%s: there are no %llu free clusters in a row, and it cannot grow",
                            scene->base->name, (unsigned long long)count);
    *ret_first = cluster - count;
    return 0;
}

int
q2_scene_allocate(struct q2_scene *scene, uint64_t count, uint64_t *ret_offset,
                  struct q2_error *err)
{
    uint64_t first;
    int rc =
        scene->options->fixed_size ? Q2_ERR_NOSPACE : allocate_behind(scene, count, &first, err);
    if (rc == Q2_ERR_NOSPACE)
        rc = allocate_inside(scene, count, &first, err);
    if (rc == 0)
        rc = take(scene, first, count, err);
    if (rc < 0)
        return rc;
    *ret_offset = first << scene->check->geometry.cluster_bits;
    return 0;
}
