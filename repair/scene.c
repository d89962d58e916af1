/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/scene.h"

#include "core/base/checked.h"
#include "core/base/endian.h"

#include <stdlib.h>
#include <string.h>

enum {
    MIN_MEMORY = 256 << 20, /* bytes; the least that the default allows */
    SECTOR = 512,
    MAX_COVERED = 64 << 10, /* bytes at the start that cannot be read and may be made up for */
};

/* Bytes; the most that the default allows. */
static const uint64_t max_default = UINT64_C(8) << 30;

/* A survey has some bits for each cluster (survey.h), and may be taken several times at once. */
enum { CLUSTER_MEMORY = 2 }; /* bytes */

/* What a repair may read and decode in search of evidence: some full looks at all that the file
 * stores, and in any case as much as takes some ten seconds. A hostile image is small and damaged
 * all over, so that this is what bounds the time it takes; an honest one needs a hundredth. */
enum { WORK_FACTOR = 16 };
static const uint64_t work_slack = UINT64_C(8) << 30;

/* ---- opening and checking ---- */

/* The budget also holds the edits: rebuilt refcounts are a 32768th of the file, damaged tables much
 * less. */
static uint64_t
default_memory(uint64_t file_size)
{
    return q2_max(MIN_MEMORY, q2_min(file_size / 1024, max_default));
}

static uint64_t
default_work(struct q2_file *file, uint64_t file_size)
{
    uint64_t allocated, work;
    if (q2_file_allocated(file, &allocated, NULL) < 0)
        allocated = file_size;
    return q2_mul(q2_min(allocated, file_size), WORK_FACTOR, &work) &&
                   q2_add(work, work_slack, &work)
               ? work
               : UINT64_MAX;
}

void
q2_scene_work(struct q2_scene *scene, uint64_t steps)
{
    scene->work += q2_min(steps, UINT64_MAX - scene->work);
}

bool
q2_scene_exhausted(const struct q2_scene *scene)
{
    uint64_t cost = q2_overlay_cost(scene->file);
    return scene->work > scene->work_limit || cost > scene->work_limit - scene->work;
}

bool
q2_scene_searches(struct q2_scene *scene)
{
    if (!scene->blind && scene->check && scene->check->work.limited)
        scene->unsearched = "its tables overlap so much that not even a check could follow them "
                            "all, so that what is lost was not looked for";
    else if (!scene->blind)
        return true;
    scene->keep_all = true;
    return false;
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
    return check && check->packed && !scene->options->deep && !scene->deep &&
           scene->plan.level != Q2_LEVEL_LEAKS;
}

int
q2_scene_look_deeper(struct q2_scene *scene, struct q2_error *err)
{
    struct q2_check *deeper;
    if (!needs_decoding(scene))
        return 0;
    scene->deep = true;
    int rc = run_check(scene, scene->base, &deeper, err);
    if (rc < 0)
        return rc;
    q2_check_free(scene->before);
    scene->before = scene->check = deeper;
    if (deeper)
        deeper->file = scene->file;
    return 0;
}

static void
allow_clusters(struct q2_scene *scene)
{
    uint64_t clusters = q2_min(scene->before->geometry.file_clusters, max_default / CLUSTER_MEMORY);
    scene->budget.limit = q2_max(scene->budget.limit, clusters * CLUSTER_MEMORY);
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
    scene->work_limit = default_work(base, size);
    q2_budget_init(&scene->budget, max_memory ? max_memory : default_memory(size));
    q2_plan_init(&scene->plan, &scene->budget, level);
    rc = q2_file_new_overlay(base, &scene->budget, &scene->file, err);
    if (rc == 0)
        rc = run_check(scene, base, &scene->before, err);
    if (rc == 0)
        rc = q2_scene_look_deeper(scene, err);
    if (rc == 0)
        rc = cover_header(scene, err);
    if (rc < 0) {
        q2_scene_close(scene);
        return rc;
    }
    if (scene->before && !max_memory)
        allow_clusters(scene);
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
    scene->keep_high = false;
}

/* Where clusters were looked for, which the newest check decides. */
static void
forget_search(struct q2_scene *scene)
{
    scene->dangling = 0;
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
    scene->header_believed = false;
}

void
q2_scene_close(struct q2_scene *scene)
{
    if (!scene)
        return;
    q2_scene_settle(scene);
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
    if (!scene->edited) { /* then nothing that was taken is in use */
        scene->taken_count = 0;
        forget_search(scene);
        return 0;
    }
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

/* ---- what stays counted ---- */

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
