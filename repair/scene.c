/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/scene.h"

#include "checker/refcounts.h"
#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/format/entry.h"

#include <stdlib.h>
#include <string.h>

enum {
    MIN_MEMORY = 256 << 20, /* bytes; the least that the default allows */
    SECTOR = 512,
    MAX_COVERED = 64 << 10, /* bytes at the start that cannot be read and may be made up for */
    MAX_DETOUR = 64 << 20,  /* bytes that new clusters may be farther away for dangling pointers */
};

/* ---- opening and checking ---- */

/* The budget also holds the edits: rebuilt refcounts are a 32768th of the file, damaged tables much
 * less. */
static uint64_t
default_memory(uint64_t file_size)
{
    return q2_max(MIN_MEMORY, q2_min(file_size / 1024, UINT64_C(8) << 30));
}

/* NULL where the header is damaged beyond recognition, or cannot be read. */
static int
run_check(struct q2_scene *scene, struct q2_file *file, struct q2_check **ret_check,
          struct q2_error *err)
{
    const struct q2_check_options options = {
        .deep = scene->options->deep || scene->deep,
        .threads = scene->options->threads,
        .now = scene->options->now,
        .progress = scene->options->progress,
        .progress_data = scene->options->progress_data,
    };
    struct q2_check *check = NULL;
    int rc = q2_check_run(file, &options, &check, err);
    if (rc < 0 && rc != Q2_ERR_NOT_QCOW2 && rc != Q2_ERR_IO) /* of the header: it cannot be read */
        return rc;
    if (check)
        check->file = file;
    *ret_check = check;
    return 0;
}

/* Where the header cannot be read, zeros take its place for whoever looks for another one. */
static int
cover_header(struct q2_scene *scene, struct q2_error *err)
{
    uint8_t sector[SECTOR];
    int rc = 0;
    for (uint64_t at = 0; at < MAX_COVERED && rc == 0 && !scene->before; at += SECTOR) {
        if (q2_file_read_padded(scene->base, at, sector, SECTOR, NULL) == 0)
            break;
        memset(sector, 0, sizeof sector);
        rc = q2_file_write(scene->file, at, sector, SECTOR, err);
    }
    return rc;
}

/* What a damaged pointer leads to shows in compressed clusters only once they are decoded. */
static bool
needs_decoding(const struct q2_scene *scene)
{
    const struct q2_check *check = scene->before;
    return check && !scene->options->deep && scene->plan.level != Q2_LEVEL_LEAKS && check->packed;
}

static int
check_deeper(struct q2_scene *scene, struct q2_error *err)
{
    scene->deep = true;
    q2_check_free(scene->before);
    scene->before = NULL;
    return run_check(scene, scene->base, &scene->before, err);
}

int
q2_scene_open(struct q2_file *base, const struct q2_scene_options *options,
              enum q2_repair_level level, uint64_t max_memory, struct q2_scene **ret_scene,
              struct q2_error *err)
{
    struct q2_error local = {0};
    err = err ? err : &local;
    uint64_t size;
    int rc = q2_file_size(base, &size, err);
    if (rc < 0)
        return rc;
    struct q2_scene *scene = calloc(1, sizeof *scene);
    if (!scene)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a repair");
    scene->options = options;
    scene->base = base;
    q2_budget_init(&scene->budget, max_memory ? max_memory : default_memory(size));
    q2_plan_init(&scene->plan, &scene->budget, level);
    rc = q2_file_new_overlay(base, &scene->budget, &scene->file, err);
    if (rc == 0)
        rc = run_check(scene, base, &scene->before, err);
    if (rc == 0 && needs_decoding(scene))
        rc = check_deeper(scene, err);
    if (rc == 0)
        rc = cover_header(scene, err);
    if (rc < 0) {
        q2_scene_close(scene);
        return rc;
    }
    /* As long as there are no edits, both are the same. */
    scene->check = scene->before;
    if (scene->check)
        scene->check->file = scene->file;
    *ret_scene = scene;
    return 0;
}

static void
forget_check(struct q2_scene *scene)
{
    if (scene->check != scene->before)
        q2_check_free(scene->check);
    scene->check = NULL;
}

void
q2_scene_forget_kept(struct q2_scene *scene)
{
    q2_budget_free(&scene->budget, scene->keep, q2_units(scene->keep_clusters, 6), 8);
    scene->keep = NULL;
    scene->keep_clusters = 0;
    scene->keep_all = false;
}

/* Where clusters were looked for, which the newest check decides. */
static void
forget_search(struct q2_scene *scene)
{
    scene->untargeted.first = scene->untargeted.end = 0;
    scene->inside = 0;
}

static void
forget_notes(struct q2_scene *scene)
{
    q2_budget_free(&scene->budget, scene->taken, scene->taken_capacity, sizeof *scene->taken);
    scene->taken = NULL;
    scene->taken_count = scene->taken_capacity = 0;
    forget_search(scene);
    q2_scene_forget_kept(scene);
    scene->stop = false;
}

void
q2_scene_close(struct q2_scene *scene)
{
    if (!scene)
        return;
    forget_check(scene);
    forget_notes(scene);
    q2_check_free(scene->before);
    q2_plan_destroy(&scene->plan);
    q2_file_close(scene->file);
    free(scene);
}

int
q2_scene_restart(struct q2_scene *scene, struct q2_error *err)
{
    (void)err;
    q2_overlay_reset(scene->file);
    q2_plan_restart(&scene->plan);
    forget_check(scene);
    forget_notes(scene);
    scene->check = scene->before;
    if (scene->check)
        scene->check->file = scene->file;
    scene->edited = false;
    return cover_header(scene, err);
}

int
q2_scene_recheck(struct q2_scene *scene, struct q2_error *err)
{
    if (!scene->edited)
        return 0;
    struct q2_check *check;
    forget_check(scene);
    if (scene->before)
        scene->before->file = scene->base;
    int rc = run_check(scene, scene->file, &check, err);
    if (rc < 0)
        return rc;
    scene->check = check;
    scene->edited = false;
    scene->taken_count = 0;
    forget_search(scene);
    return 0;
}

uint64_t
q2_scene_count(const struct q2_scene *scene, enum q2_problem problem)
{
    return scene->check ? q2_check_problem_count(scene->check, problem).count : 0;
}

/* ---- editing ---- */

int
q2_scene_write(struct q2_scene *scene, enum q2_owner_kind kind, uint64_t offset, const void *bytes,
               size_t length, struct q2_error *err)
{
    int rc = q2_file_write(scene->file, offset, bytes, length, err);
    if (rc < 0)
        return rc;
    scene->edited = true;
    q2_plan_written(&scene->plan, kind, offset, length);
    return 0;
}

int
q2_scene_write64(struct q2_scene *scene, enum q2_owner_kind kind, uint64_t offset, uint64_t value,
                 struct q2_error *err)
{
    uint8_t bytes[8];
    q2_store_be64(bytes, value);
    return q2_scene_write(scene, kind, offset, bytes, sizeof bytes, err);
}

/* ---- clusters ---- */

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

/* The clusters that a finding is about. Of entries that lead past the end it tells the first, and
 * its neighbours nearly always lead to what follows. */
static bool
target_of(const struct q2_check *check, const struct q2_finding *finding, uint64_t *ret_first,
          uint64_t *ret_end)
{
    const struct q2_geometry *geometry = &check->geometry;
    uint64_t offset = finding->target_offset, length = q2_max(finding->target_length, 1), end;
    if (finding->problem == Q2_PROBLEM_L1_ENTRY_PAST_END ||
        finding->problem == Q2_PROBLEM_L2_ENTRY_PAST_END) {
        offset = q2_entry_offset(finding->got);
        if (!q2_mul(finding->count, geometry->cluster_size, &length))
            return false;
    } else if (!(finding->has & Q2_HAS_TARGET) ||
               finding->problem == Q2_PROBLEM_REFCOUNT_BEYOND_END) { /* leads nowhere */
        return false;
    }
    if (!q2_add(offset, length, &end))
        return false;
    *ret_first = offset >> geometry->cluster_bits;
    *ret_end = q2_units(end, geometry->cluster_bits);
    return true;
}

/* Note that nothing leads to the clusters from `first` on, up to the next that a finding is about.
 */
static void
note_untargeted(struct q2_scene *scene, uint64_t first)
{
    scene->untargeted.first = first;
    scene->untargeted.end = UINT64_MAX;
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++) {
        uint64_t target, behind;
        if (target_of(scene->check, q2_check_finding(scene->check, i), &target, &behind) &&
            behind > first)
            scene->untargeted.end = q2_min(scene->untargeted.end, target);
    }
}

/* A damaged pointer that leads past the end must not come to lead to something new: the first
 * cluster from `first` on behind all that lead there, unless that is too far away. */
static uint64_t
past_dangling(struct q2_scene *scene, uint64_t first, uint64_t count)
{
    unsigned bits = scene->check->geometry.cluster_bits;
    uint64_t limit = first + (MAX_DETOUR >> bits) + 1, start = first;
    if (first >= scene->untargeted.first && first < scene->untargeted.end &&
        count <= scene->untargeted.end - first)
        return first;
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t i = 0; i < q2_check_finding_count(scene->check); i++) {
            uint64_t target, behind;
            if (!target_of(scene->check, q2_check_finding(scene->check, i), &target, &behind) ||
                target >= start + count || behind <= start)
                continue;
            start = behind;
            moved = true;
        }
        if (start > limit) { /* and so it is for all that follow */
            scene->untargeted.first = first;
            scene->untargeted.end = UINT64_MAX;
            return first;
        }
    }
    note_untargeted(scene, start);
    return start;
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
    first = past_dangling(scene, first, count);
    if (first + count > Q2_FILE_SIZE_MAX >> bits)
        return q2_error_set(err, Q2_ERR_NOSPACE, "%s: there is no room for %llu new clusters",
                            scene->base->name, (unsigned long long)count);
    *ret_first = first;
    return 0;
}

static int
allocate_inside(struct q2_scene *scene, uint64_t count, uint64_t *ret_first, struct q2_error *err)
{
    struct q2_refcount_reader reader;
    int rc = q2_refcount_reader_init(&reader, scene->check, err);
    if (rc < 0)
        return rc;
    /* What was passed over for a single one is not free. */
    uint64_t found = 0, cluster = count == 1 ? q2_max(scene->inside, 1) : 1;
    for (; cluster < scene->check->geometry.file_clusters && found < count; cluster++) {
        bool free = q2_scene_references(scene, cluster) == 0 && !is_taken(scene, cluster) &&
                    q2_refcount_of(&reader, cluster) == 0;
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
    int rc = scene->options->fixed_size ? allocate_inside(scene, count, &first, err)
                                        : allocate_behind(scene, count, &first, err);
    if (rc == 0)
        rc = take(scene, first, count, err);
    if (rc < 0)
        return rc;
    *ret_offset = first << scene->check->geometry.cluster_bits;
    return 0;
}

int
q2_scene_keep(struct q2_scene *scene, uint64_t first, uint64_t count, struct q2_error *err)
{
    uint64_t clusters = scene->check->geometry.file_clusters;
    if (scene->keep_clusters < clusters) {
        void *memory = scene->keep;
        int rc = q2_budget_grow(&scene->budget, q2_units(scene->keep_clusters, 6),
                                q2_units(clusters, 6), 8, "clusters to keep", &memory, err);
        if (rc < 0)
            return rc;
        scene->keep = memory;
        scene->keep_clusters = clusters;
    }
    for (uint64_t i = first; i < q2_min(first + count, clusters); i++)
        q2_bit_set(scene->keep, i);
    return 0;
}

bool
q2_scene_kept(const struct q2_scene *scene, uint64_t cluster)
{
    return scene->keep_all || (cluster < scene->keep_clusters && q2_bit_test(scene->keep, cluster));
}
