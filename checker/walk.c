/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Phase one of the map: every L2 table once, in parallel, at the speed of memory.
 *
 * A table is mostly runs of clusters one after the other, or nothing; both are taken at once,
 * however long they are, so that damage in between costs little more than what is damaged. What is
 * neither goes entry by entry and is held against the rules. Nothing is reported from here: a unit
 * in which a rule is broken is marked odd, for phase two to explain. */

#include "checker/slices.h"
#include "core/base/checked.h"
#include "core/base/parallel.h"
#include "core/format/references.h"

#include <string.h>

enum {
    BLOCK = 64,              /* entries of several tables that are compared at once */
    SLICE_BYTES = 256 << 10, /* of an L2 table that are read at once */
};

/* What one thread owns. */
struct worker {
    struct q2_check *check;
    struct q2_window window;
    struct q2_tally_cursor cursor;
    struct q2_check_counts counts;
    struct q2_slices slices;
    uint64_t next_host; /* where the active table's next cluster would be contiguous */
    uint64_t unit_odd;  /* faults in the unit at hand */
    struct q2_sink count_odd;
};

struct walk {
    struct q2_check *check;
    struct worker *workers;
    uint64_t *odd_units;  /* bit set */
    pthread_mutex_t lock; /* of odd_units */
};

static void
count_fault(void *data, const struct q2_violation *violation)
{
    (void)violation;
    ++*(uint64_t *)data;
}

/* ---- counters of qemu-img check: the active map only ---- */

static void
count_cluster(struct worker *worker, uint64_t raw)
{
    const struct q2_geometry *geometry = &worker->check->geometry;
    struct q2_check_counts *counts = &worker->counts;
    switch (q2_l2_kind(geometry, raw)) {
    case Q2_CLUSTER_COMPRESSED:
        /* Packed clusters are fragmented by nature. With a data file there can be none. */
        if (!geometry->data_file) {
            counts->allocated_clusters++;
            counts->compressed_clusters++;
            counts->fragmented_clusters++;
        }
        return;
    case Q2_CLUSTER_STANDARD:
    case Q2_CLUSTER_ZERO_ALLOCATED:
        counts->allocated_clusters++;
        if (worker->next_host && q2_entry_offset(raw) != worker->next_host)
            counts->fragmented_clusters++;
        worker->next_host = q2_entry_offset(raw) + geometry->cluster_size;
        return;
    default:
        return;
    }
}

static void
count_run(struct worker *worker, uint64_t host, uint64_t clusters)
{
    worker->counts.allocated_clusters += clusters;
    if (worker->next_host && host != worker->next_host)
        worker->counts.fragmented_clusters++;
    worker->next_host = host + (clusters << worker->check->geometry.cluster_bits);
}

/* ---- entries ---- */

static unsigned
flags_of(bool active, uint64_t active_raw)
{
    if (!active)
        return 0;
    return active_raw & Q2_ENTRY_COPIED ? Q2_REFERENCE_COPIED : Q2_REFERENCE_PLAIN;
}

/* An entry that is not empty: hold it against the rules, and count what it refers to. `guest` is
 * its guest offset. */
static int
take_entry(struct worker *worker, const struct q2_l2_entry *entry, uint64_t guest,
           uint64_t references, unsigned flags, struct q2_error *err)
{
    struct q2_check *check = worker->check;
    const struct q2_geometry *geometry = &check->geometry;
    uint64_t raw = entry->raw, first, count;

    q2_l2_entry_validate(geometry, entry, 0, guest, &worker->count_odd);
    if (raw & Q2_ENTRY_COMPRESSED) {
        flags = Q2_REFERENCE_PACKED;
        check->packed = true;
    }
    if (!q2_entry_clusters(geometry, raw, &first, &count))
        return 0;
    return q2_tally_add(&worker->cursor, first, count, references, flags, err);
}

/* A run of plain entries; `raw` is the first. */
static int
take_run(struct worker *worker, uint64_t raw, uint64_t count, const struct q2_slot_table *table,
         struct q2_error *err)
{
    uint64_t host = q2_entry_offset(raw);
    if (table->active)
        count_run(worker, host, count);
    return q2_tally_add(&worker->cursor, host >> worker->check->geometry.cluster_bits, count,
                        table->references, flags_of(table->active, raw), err);
}

/* One table's entries [index, end), which map the guest from `guest` on. */
static int
take_entries(struct worker *worker, const uint8_t *buffer, uint64_t index, uint64_t end,
             uint64_t guest, const struct q2_slot_table *table, struct q2_error *err)
{
    const struct q2_geometry *geometry = &worker->check->geometry;
    for (uint64_t i = index, run; i < end; i += run) {
        run = q2_empty_run(geometry, buffer, i, end);
        if (run)
            continue;
        struct q2_l2_entry entry = q2_l2_load(geometry, buffer, i);
        int rc;
        run = q2_plain_run(geometry, buffer, i, end);
        if (run) {
            rc = take_run(worker, entry.raw, run, table, err);
        } else {
            run = 1;
            if (table->active)
                count_cluster(worker, entry.raw);
            rc = take_entry(worker, &entry, guest + ((i - index) << geometry->cluster_bits),
                            table->references, flags_of(table->active, entry.raw), err);
        }
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- several tables for one guest range ---- */

/* Whether all tables have the same bytes in a block, the COPIED flag aside. */
static bool
blocks_agree(const struct worker *worker, uint64_t offset, uint64_t length)
{
    /* In extended entries that bit means something else in every other word. */
    bool extended = worker->check->geometry.extended_l2;
    uint64_t relevant = extended ? UINT64_MAX : ~htobe64(Q2_ENTRY_COPIED);
    for (uint64_t t = 1; t < worker->window.table_count; t++) {
        const uint8_t *a = worker->slices.buffers[0] + offset,
                      *b = worker->slices.buffers[t] + offset;
        uint64_t differs = 0;
        for (uint64_t i = 0; i < length; i += 8) {
            uint64_t x, y;
            memcpy(&x, a + i, 8);
            memcpy(&y, b + i, 8);
            differs |= x ^ y;
        }
        if (differs & relevant)
            return false;
    }
    return true;
}

/* One index at which the tables differ. */
static int
take_claims(struct worker *worker, uint64_t index, uint64_t guest, struct q2_error *err)
{
    const struct q2_window *window = &worker->window;
    const struct q2_geometry *geometry = &worker->check->geometry;
    uint64_t count =
        q2_claims_collect(window, worker->slices.buffers, index, worker->slices.claims);
    for (uint64_t c = 0; c < count; c++) {
        const struct q2_claim *claim = &worker->slices.claims[c];
        int rc = take_entry(worker, &claim->entry, guest, claim->references,
                            flags_of(claim->active, claim->active_entry.raw), err);
        if (rc < 0)
            return rc;
    }
    /* Entries that claim nothing, or the same as another, still have rules to obey. */
    for (uint64_t t = 0; t < window->table_count; t++) {
        struct q2_l2_entry entry = q2_l2_load(geometry, worker->slices.buffers[t], index);
        if (entry.raw == 0 && entry.bitmap == 0)
            continue;
        q2_l2_entry_validate(geometry, &entry, 0, guest, &worker->count_odd);
        if (window->tables[t].active)
            count_cluster(worker, entry.raw);
    }
    return 0;
}

static int
take_slices(struct worker *worker, uint64_t entries, uint64_t guest, struct q2_error *err)
{
    const struct q2_window *window = &worker->window;
    const struct q2_geometry *geometry = &worker->check->geometry;
    struct q2_slot_table all = {0};
    const uint8_t *active = worker->slices.buffers[0];
    for (uint64_t t = 0; t < window->table_count; t++) {
        all.references += window->tables[t].references;
        if (window->tables[t].active) {
            all.active = true;
            active = worker->slices.buffers[t];
        }
    }
    for (uint64_t i = 0; i < entries; i += BLOCK) {
        uint64_t here = guest + (i << geometry->cluster_bits);
        uint64_t count = q2_min(BLOCK, entries - i);
        int rc = 0;
        if (blocks_agree(worker, i * geometry->l2_entry_size, count * geometry->l2_entry_size)) {
            rc = take_entries(worker, active, i, i + count, here, &all, err);
        } else {
            for (uint64_t j = 0; j < count && rc == 0; j++)
                rc = take_claims(worker, i + j, here + (j << geometry->cluster_bits), err);
        }
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- tables, slots, units ---- */

static int
count_tables(struct worker *worker, struct q2_error *err)
{
    const struct q2_geometry *geometry = &worker->check->geometry;
    for (uint64_t t = 0; t < worker->window.table_count; t++) {
        const struct q2_slot_table *table = &worker->window.tables[t];
        unsigned flags = !table->active  ? 0
                         : table->copied ? Q2_REFERENCE_COPIED
                                         : Q2_REFERENCE_PLAIN;
        int rc = q2_tally_add(&worker->cursor, table->offset >> geometry->cluster_bits, 1,
                              table->references, flags, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int
take_slot(struct worker *worker, uint64_t slot, struct q2_error *err)
{
    const struct q2_geometry *geometry = &worker->check->geometry;
    struct q2_window *window = &worker->window;
    q2_window_group(window, slot);
    worker->unit_odd += window->odd;
    if (window->table_count == 0)
        return 0;
    int rc = q2_slices_fit(&worker->slices, window, err);
    if (rc == 0)
        rc = count_tables(worker, err);

    worker->next_host = 0;
    uint64_t length = worker->slices.length;
    for (uint64_t part = 0; part < geometry->cluster_size && rc == 0; part += length) {
        q2_tally_release(&worker->cursor);
        worker->unit_odd += q2_slices_read(&worker->slices, window, part);
        uint64_t entries = length / geometry->l2_entry_size;
        uint64_t guest = slot * q2_l2_reach(geometry) +
                         (part / geometry->l2_entry_size << geometry->cluster_bits);
        rc = window->table_count == 1 ? take_entries(worker, worker->slices.buffers[0], 0, entries,
                                                     guest, &window->tables[0], err)
                                      : take_slices(worker, entries, guest, err);
    }
    return rc;
}

/* Whether a unit reaches past the end of a disk, where entries are allowed but pointless. */
static bool
reaches_past_end(const struct q2_check *check, const struct q2_window *window)
{
    uint64_t end;
    if (!q2_mul(window->first + window->count, q2_l2_reach(&check->geometry), &end))
        return true;
    for (uint64_t m = 0; m < check->map_count; m++)
        if (check->maps[m].l1_size > window->first && check->maps[m].limit < end)
            return true;
    return false;
}

static int
turn(void *data, unsigned index, uint64_t unit, struct q2_error *err)
{
    struct walk *walk = data;
    struct worker *worker = &walk->workers[index];
    worker->unit_odd = 0;
    q2_window_load(&worker->window, unit);
    bool any = false;
    for (uint64_t s = 0; s < worker->window.count; s++) {
        int rc = take_slot(worker, worker->window.first + s, err);
        any |= worker->window.table_count > 0;
        if (rc < 0) {
            q2_tally_release(&worker->cursor);
            return rc;
        }
    }
    q2_tally_release(&worker->cursor);
    if (worker->unit_odd || worker->window.unreadable ||
        (any && reaches_past_end(walk->check, &worker->window))) {
        pthread_mutex_lock(&walk->lock);
        q2_bit_set(walk->odd_units, unit);
        pthread_mutex_unlock(&walk->lock);
    }
    return 0;
}

static void
progress(void *data, uint64_t done)
{
    struct walk *walk = data;
    q2_check_progress(walk->check, done);
}

/* ---- setting up ---- */

static void
worker_destroy(struct worker *worker)
{
    q2_window_destroy(&worker->window);
    q2_slices_destroy(&worker->slices);
}

static int
worker_init(struct worker *worker, struct q2_check *check, struct q2_error *err)
{
    worker->check = check;
    worker->count_odd =
        (struct q2_sink){.report = count_fault, .data = &worker->unit_odd, .wordless = true};
    q2_tally_cursor_init(&worker->cursor, check->tally);
    q2_slices_init(&worker->slices, check, SLICE_BYTES);
    return q2_window_init(&worker->window, check, err);
}

static int
run(struct walk *walk, unsigned threads, struct q2_error *err)
{
    struct q2_check *check = walk->check;
    for (unsigned i = 0; i < threads; i++) {
        int rc = worker_init(&walk->workers[i], check, err);
        if (rc < 0)
            return rc;
    }
    struct q2_loop loop = {.threads = threads,
                           .turns = q2_unit_count(check),
                           .turn = turn,
                           .progress = progress,
                           .data = walk};
    q2_check_phase(check, "L2 tables", loop.turns,
                   q2_unit_slots(check) << check->geometry.cluster_bits);
    return q2_loop_run(&loop, err);
}

static void
add_counts(struct q2_check_counts *to, const struct q2_check_counts *from)
{
    to->allocated_clusters += from->allocated_clusters;
    to->fragmented_clusters += from->fragmented_clusters;
    to->compressed_clusters += from->compressed_clusters;
}

int
q2_pass_map(struct q2_check *check, uint64_t **ret_odd_units, struct q2_error *err)
{
    struct walk walk = {.check = check, .lock = PTHREAD_MUTEX_INITIALIZER};
    uint64_t words = q2_unit_count(check) / 64 + 1;
    unsigned threads = check->threads;
    void *odd, *workers;
    int rc = q2_budget_calloc(&check->budget, words, 8, "list of odd tables", &odd, err);
    if (rc < 0)
        return rc;
    walk.odd_units = odd;
    rc = q2_budget_calloc(&check->budget, threads, sizeof *walk.workers, "walking the L2 tables",
                          &workers, err);
    if (rc == 0) {
        walk.workers = workers;
        rc = run(&walk, threads, err);
        for (unsigned i = 0; i < threads; i++) {
            add_counts(&check->counts, &walk.workers[i].counts);
            worker_destroy(&walk.workers[i]);
        }
        q2_budget_free(&check->budget, workers, threads, sizeof *walk.workers);
    }
    if (rc < 0)
        q2_budget_free(&check->budget, odd, words, 8);
    else
        *ret_odd_units = odd;
    return rc;
}
