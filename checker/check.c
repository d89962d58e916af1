/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/check.h"

#include "checker/window.h"
#include "core/base/checked.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    DEFAULT_DETAILS = 1000,
    MIN_MEMORY = 64 << 20,  /* bytes; the least that the default allows */
    WORK_FACTOR = 8,        /* times that what is stored may be read */
    WORK_SLACK = 128 << 20, /* bytes that may be read in any case */
    /* Most of them wait for the disk: the more do, the more requests it can order and merge. */
    THREADS_PER_CORE = 4,
    MAX_THREADS = 16,
};

/* ---- shared by the passes ---- */

int
q2_check_grow(struct q2_check *check, void *array, uint64_t count, uint64_t *capacity, size_t size,
              struct q2_error *err)
{
    if (count < *capacity)
        return 0;
    uint64_t larger = *capacity ? *capacity * 2 : 16;
    void *memory;
    memcpy(&memory, array, sizeof memory);
    int rc =
        q2_budget_grow(&check->budget, *capacity, larger, size, "lists of the check", &memory, err);
    if (rc < 0)
        return rc;
    memcpy(array, &memory, sizeof memory);
    *capacity = larger;
    return 0;
}

int
q2_check_add_region(struct q2_check *check, const struct q2_owner *owner, uint64_t offset,
                    uint64_t length, struct q2_error *err)
{
    const struct q2_geometry *geometry = &check->geometry;
    int rc = q2_check_grow(check, &check->regions, check->region_count, &check->region_capacity,
                           sizeof *check->regions, err);
    if (rc < 0)
        return rc;
    check->regions[check->region_count++] =
        (struct q2_region){.owner = *owner, .offset = offset, .length = length};

    uint64_t first = offset >> geometry->cluster_bits;
    uint64_t end =
        q2_min(q2_units(offset + length, geometry->cluster_bits), geometry->file_clusters);
    struct q2_tally_cursor cursor;
    q2_tally_cursor_init(&cursor, check->tally);
    rc = end > first ? q2_tally_add(&cursor, first, end - first, 1, 0, err) : 0;
    q2_tally_release(&cursor);
    return rc;
}

void
q2_work_reset(struct q2_work *work)
{
    atomic_store(&work->used, 0);
    atomic_store(&work->holes, 0);
    atomic_store(&work->exceeded, false);
}

void
q2_work_exceed(struct q2_work *work)
{
    atomic_store(&work->exceeded, true);
    atomic_store(&work->limited, true);
}

bool
q2_work_take(struct q2_work *work, uint64_t bytes)
{
    return atomic_fetch_add(&work->used, bytes) + bytes <= work->limit;
}

void
q2_check_phase(struct q2_check *check, const char *phase, uint64_t turns, uint64_t bytes)
{
    check->phase = phase;
    check->phase_turns = turns;
    check->phase_turn_bytes = bytes;
    q2_check_progress(check, 0);
}

void
q2_check_progress(struct q2_check *check, uint64_t turns_done)
{
    if (!check->options.progress)
        return;
    uint64_t bytes = check->phase_turn_bytes;
    check->options.progress(check->options.progress_data,
                            &(struct q2_progress){.phase = check->phase,
                                                  .done = turns_done * bytes,
                                                  .total = check->phase_turns * bytes});
}

/* ---- running ---- */

/* The default budget: enough for a healthy image of that size with room to spare, however its
 * clusters are used. */
static uint64_t
default_memory(uint64_t file_size)
{
    /* Even at 512 bytes a cluster, and 2 bytes for each. */
    return q2_max(MIN_MEMORY, q2_min(file_size / 256, UINT64_C(1) << 32));
}

static unsigned
default_threads(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    cores = cores < 1 ? 1 : cores;
    return (unsigned)q2_min((uint64_t)cores * THREADS_PER_CORE, MAX_THREADS);
}

static int
prepare(struct q2_check *check, const struct q2_check_options *options, struct q2_error *err)
{
    uint64_t file_size, allocated;
    int rc = q2_file_size(check->file, &file_size, err);
    if (rc == 0)
        rc = q2_file_allocated(check->file, &allocated, err);
    if (rc < 0)
        return rc;
    /* A file system that knows no better says 0, but the header is stored somewhere. */
    allocated = allocated ? q2_min(allocated, file_size) : file_size;

    check->options = *options;
    check->threads = options->threads ? options->threads : default_threads();
    q2_budget_init(&check->budget,
                   options->max_memory ? options->max_memory : default_memory(file_size));
    q2_findings_init(&check->findings, &check->budget,
                     options->max_details ? options->max_details : DEFAULT_DETAILS);
    if (!q2_mul(allocated, WORK_FACTOR, &check->work.limit) ||
        !q2_add(check->work.limit, WORK_SLACK, &check->work.limit))
        check->work.limit = UINT64_MAX;
    if (options->max_work)
        check->work.limit = options->max_work;
    rc = q2_mapset_new(&check->budget, &check->sets, err);
    if (rc == 0)
        rc = q2_tally_new(&check->budget, &check->tally, err);
    return rc;
}

static int
run_references(struct q2_check *check, struct q2_error *err)
{
    uint64_t *odd_units, words = q2_unit_count(check) / 64 + 1;
    int rc = q2_pass_map(check, &odd_units, err);
    if (rc < 0)
        return rc;
    rc = q2_pass_references(check, odd_units, err);
    q2_budget_free(&check->budget, odd_units, words, 8);
    return rc;
}

typedef int pass(struct q2_check *check, struct q2_error *err);

static int
run_refcount_table(struct q2_check *check, struct q2_error *err)
{
    return check->usable & Q2_USABLE_REFCOUNTS ? q2_pass_refcount_table(check, err) : 0;
}

/* Whether a problem that says what could not be checked was found. */
static bool
has_errors(const struct q2_check *check)
{
    for (int p = 0; p < Q2_PROBLEM_COUNT; p++)
        if (q2_catalogue((enum q2_problem)p)->severity == Q2_SEVERITY_ERROR &&
            check->findings.totals[p].count)
            return true;
    return false;
}

/* Say what no pass can say for itself. */
static void
conclude(struct q2_check *check)
{
    if (check->work.limited)
        q2_findings_add(&check->findings, &(struct q2_finding){.problem = Q2_PROBLEM_WORK_LIMIT,
                                                               .has = Q2_HAS_GOT,
                                                               .got = check->work.limit});
    if (check->unread && !has_errors(check))
        q2_findings_add(&check->findings,
                        &(struct q2_finding){.problem = Q2_PROBLEM_READ_UNSTABLE});
}

static int
run_passes(struct q2_check *check, struct q2_error *err)
{
    static pass *const passes[] = {q2_pass_snapshots,  q2_pass_encryption, q2_pass_bitmaps,
                                   run_refcount_table, run_references,     q2_pass_payload,
                                   q2_pass_chain};
    int rc = q2_pass_header(check, err);
    if (rc < 0 || !(check->usable & Q2_USABLE_GEOMETRY))
        return rc;
    for (size_t i = 0; i < sizeof passes / sizeof passes[0] && rc == 0; i++)
        rc = passes[i](check, err);
    if (rc == 0)
        conclude(check);
    return rc;
}

static void
count_findings(struct q2_check *check)
{
    for (int p = 0; p < Q2_PROBLEM_COUNT; p++) {
        uint64_t count = check->findings.totals[p].count;
        switch (q2_catalogue((enum q2_problem)p)->severity) {
        case Q2_SEVERITY_CORRUPTION:
            check->counts.corruptions += count;
            break;
        case Q2_SEVERITY_LEAK:
            check->counts.leaks += count;
            break;
        case Q2_SEVERITY_ERROR:
            check->counts.check_errors += count;
            break;
        default:
            break;
        }
    }
}

static int
run_once(struct q2_file *file, const struct q2_check_options *options, struct q2_check **ret_check,
         struct q2_error *err)
{
    struct q2_check *check = calloc(1, sizeof *check);
    if (!check)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a check");
    check->file = file;
    int rc = prepare(check, options, err);
    if (rc == 0)
        rc = run_passes(check, err);
    if (rc == 0 && check->findings.failed) {
        *err = check->findings.error;
        rc = check->findings.failed;
    }
    if (rc < 0) {
        q2_check_free(check);
        return rc;
    }
    q2_findings_sort(&check->findings);
    count_findings(check);
    check->file = NULL;
    *ret_check = check;
    return 0;
}

int
q2_check_run(struct q2_file *file, const struct q2_check_options *options,
             struct q2_check **ret_check, struct q2_error *err)
{
    struct q2_error local = {0};
    err = err ? err : &local; /* the passes hand errors on */
    struct q2_check *check;
    int rc = run_once(file, options, &check, err);
    if (rc == 0 && check->work.limited && check->threads > 1) {
        /* What was reached before the limit is a matter of which thread came first. One thread
         * alone always tells the same. */
        struct q2_check_options alone = *options;
        alone.threads = 1;
        q2_check_free(check);
        rc = run_once(file, &alone, &check, err);
    }
    if (rc == 0)
        *ret_check = check;
    return rc;
}

static void
free_text(struct q2_budget *budget, const char *text)
{
    if (text)
        q2_budget_free(budget, (char *)(uintptr_t)text, strlen(text) + 1, 1);
}

void
q2_check_free(struct q2_check *check)
{
    if (!check)
        return;
    struct q2_budget *budget = &check->budget;
    for (uint64_t i = 0; i < check->snapshot_count; i++) {
        free_text(budget, check->snapshots[i].id);
        free_text(budget, check->snapshots[i].name);
    }
    q2_budget_free(budget, check->snapshots, check->snapshot_capacity, sizeof *check->snapshots);
    q2_budget_free(budget, check->maps, check->map_capacity, sizeof *check->maps);
    q2_budget_free(budget, check->regions, check->region_capacity, sizeof *check->regions);
    q2_budget_free(budget, check->bitmap_tables, check->bitmap_table_capacity,
                   sizeof *check->bitmap_tables);
    q2_budget_free(budget, check->refcount_table, check->refcount_entries, 8);
    q2_budget_free(budget, check->area, q2_max(check->area_length, 1), 1);
    q2_findings_destroy(&check->findings);
    q2_tally_free(check->tally);
    q2_mapset_free(check->sets);
    free(check);
}

/* ---- the result ---- */

const struct q2_check_counts *
q2_check_counts(const struct q2_check *check)
{
    return &check->counts;
}

enum q2_check_exit
q2_check_exit(const struct q2_check *check)
{
    if (check->counts.check_errors)
        return Q2_EXIT_INCOMPLETE;
    if (check->counts.corruptions)
        return Q2_EXIT_CORRUPT;
    return check->counts.leaks ? Q2_EXIT_LEAKS : Q2_EXIT_CLEAN;
}

const struct q2_header *
q2_check_header(const struct q2_check *check)
{
    return &check->header;
}

bool
q2_check_geometry(const struct q2_check *check, struct q2_geometry *ret_geometry)
{
    if (!(check->usable & Q2_USABLE_GEOMETRY))
        return false;
    *ret_geometry = check->geometry;
    return true;
}

size_t
q2_check_finding_count(const struct q2_check *check)
{
    return check->findings.count;
}

const struct q2_finding *
q2_check_finding(const struct q2_check *check, size_t index)
{
    return index < check->findings.count ? &check->findings.items[index] : NULL;
}

struct q2_problem_count
q2_check_problem_count(const struct q2_check *check, enum q2_problem problem)
{
    return check->findings.totals[problem];
}

size_t
q2_check_snapshot_count(const struct q2_check *check)
{
    return check->snapshot_count;
}

const struct q2_snapshot_name *
q2_check_snapshot(const struct q2_check *check, size_t index)
{
    return index < check->snapshot_count ? &check->snapshots[index] : NULL;
}

size_t
q2_check_maps(const struct q2_check *check, q2_map_set set, const uint32_t **ret_members)
{
    return q2_mapset_members(check->sets, set, ret_members);
}
