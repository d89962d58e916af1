/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The guest's data itself, for --deep: every compressed cluster decodes to exactly one cluster, and
 * every data cluster can be read.
 *
 * Units of L1 slots run in parallel. What is wrong with a guest cluster is noted with its place
 * only; once all is read, the notes are put in order and become findings. */

#include "checker/slices.h"
#include "checker/streams.h"
#include "core/base/checked.h"
#include "core/base/parallel.h"
#include "core/codec/codec.h"
#include "core/codec/window.h"

#include <stdlib.h>
#include <string.h>

enum {
    SLICE_BYTES = 16 << 10, /* of an L2 table that are read at once */
    SLICES_BYTES = 1 << 20, /* of all L2 tables of a slot */
};

/* A fault of one guest cluster, seen from one L2 table. */
struct fault {
    enum q2_problem problem;
    uint32_t slot;
    uint32_t index; /* in the L2 table */
    uint64_t raw;   /* entry */
    uint64_t got;   /* 0: not known */
};

struct worker {
    struct q2_check *check;
    struct q2_window window;
    struct q2_slices slices;
    uint8_t *data;    /* read from the file: a cluster, or a compressed one's sectors */
    uint8_t *decoded; /* one cluster */
    struct q2_decoder *decoder;
    uint64_t hole_from, hole_until; /* the hole found last, bytes */
    uint64_t data_from, data_until; /* and the data */
    struct q2_streams streams;
};

struct payload {
    struct q2_check *check;
    struct worker *workers;
    struct fault *faults;
    uint64_t fault_count, fault_capacity;
    pthread_mutex_t lock; /* of the faults, and of growing anything */
};

static uint64_t
data_bytes(const struct q2_check *check)
{
    return check->geometry.cluster_size * 2 + 512;
}

static int
note(struct payload *payload, enum q2_problem problem, uint64_t slot, uint64_t index, uint64_t raw,
     uint64_t got, struct q2_error *err)
{
    pthread_mutex_lock(&payload->lock);
    int rc = q2_check_grow(payload->check, &payload->faults, payload->fault_count,
                           &payload->fault_capacity, sizeof *payload->faults, err);
    if (rc == 0)
        payload->faults[payload->fault_count++] = (struct fault){.problem = problem,
                                                                 .slot = (uint32_t)slot,
                                                                 .index = (uint32_t)index,
                                                                 .raw = raw,
                                                                 .got = got};
    pthread_mutex_unlock(&payload->lock);
    return rc;
}

/* ---- standard clusters ---- */

/* Whether the whole cluster at host `offset` lies in a hole; asks the file once per extent. */
static bool
in_hole(struct worker *worker, uint64_t offset)
{
    uint64_t size = worker->check->geometry.cluster_size, end;
    bool data;
    if (offset >= worker->hole_from && offset + size <= worker->hole_until)
        return true;
    if (offset >= worker->data_from && offset < worker->data_until)
        return false;
    if (q2_file_extent(worker->check->file, offset, &data, &end, NULL) < 0)
        return false;
    *(data ? &worker->data_from : &worker->hole_from) = offset;
    *(data ? &worker->data_until : &worker->hole_until) = end;
    return !data && offset + size <= end;
}

static int
check_standard(struct payload *payload, struct worker *worker, uint64_t slot, uint64_t index,
               uint64_t raw, struct q2_error *err)
{
    struct q2_check *check = worker->check;
    uint64_t offset = q2_entry_offset(raw);
    bool usable = offset && !(offset & (check->geometry.cluster_size - 1)) &&
                  offset < check->geometry.file_size && !check->geometry.data_file;
    if (!usable || in_hole(worker, offset) ||
        q2_file_read_padded(check->file, offset, worker->data, check->geometry.cluster_size,
                            NULL) == 0)
        return 0;
    return note(payload, Q2_PROBLEM_DATA_UNREADABLE, slot, index, raw, 0, err);
}

/* ---- compressed clusters ---- */

/* What is wrong with a stream of `length` bytes in the data buffer; false: nothing. */
static bool
judge_stream(struct worker *worker, uint64_t length, enum q2_problem *ret_problem,
             uint64_t *ret_got)
{
    struct q2_check *check = worker->check;
    uint64_t size = check->geometry.cluster_size;
    if (check->header.compression_type == Q2_COMPRESSION_ZLIB) {
        struct q2_deflate_walk walk = {0};
        int rc = q2_deflate_walk(worker->data, length, size, &walk, NULL);
        bool broken = rc < 0 || walk.produced != size;
        *ret_problem = broken ? Q2_PROBLEM_COMPRESSED_BROKEN : Q2_PROBLEM_COMPRESSED_WINDOW;
        *ret_got = broken ? walk.produced : walk.distance;
        return broken || walk.distance > Q2_DEFLATE_WINDOW;
    }
    size_t used;
    *ret_problem = Q2_PROBLEM_COMPRESSED_BROKEN;
    *ret_got = 0;
    return q2_decoder_run(worker->decoder, worker->data, length, worker->decoded, size, &used,
                          NULL) < 0;
}

static int
check_compressed(struct payload *payload, struct worker *worker, uint64_t slot, uint64_t index,
                 uint64_t raw, struct q2_error *err)
{
    struct q2_check *check = worker->check;
    const struct q2_geometry *geometry = &check->geometry;
    struct q2_compressed_range range = q2_compressed_decode(geometry, raw);
    if (geometry->data_file || range.offset >= geometry->file_size)
        return 0;
    q2_streams_add(&worker->streams, raw, (slot << geometry->l2_bits) + index);
    /* The last sector may be cut short by the end of the file. */
    uint64_t length = q2_min(range.length, geometry->file_size - range.offset);
    if (q2_file_read(check->file, range.offset, worker->data, length, NULL) < 0)
        return note(payload, Q2_PROBLEM_DATA_UNREADABLE, slot, index, raw, 0, err);
    enum q2_problem problem;
    uint64_t got;
    if (check->header.compression_type == Q2_COMPRESSION_ZSTD && !worker->decoder) {
        int rc = q2_decoder_new(Q2_COMPRESSION_ZSTD, &worker->decoder, err);
        if (rc < 0)
            return rc;
    }
    bool known = check->header.compression_type == Q2_COMPRESSION_ZLIB || worker->decoder;
    if (!known || !judge_stream(worker, length, &problem, &got))
        return 0;
    return note(payload, problem, slot, index, raw, got, err);
}

/* ---- the walk ---- */

static int
check_index(struct payload *payload, struct worker *worker, uint64_t slot, uint64_t index,
            uint64_t local, struct q2_error *err)
{
    const struct q2_geometry *geometry = &worker->check->geometry;
    uint64_t count =
        q2_claims_collect(&worker->window, worker->slices.buffers, local, worker->slices.claims);
    int rc = 0;
    for (uint64_t c = 0; c < count && rc == 0; c++) {
        uint64_t raw = worker->slices.claims[c].entry.raw;
        enum q2_cluster_kind kind = q2_l2_kind(geometry, raw);
        if (kind == Q2_CLUSTER_COMPRESSED)
            rc = check_compressed(payload, worker, slot, index, raw, err);
        else if (kind == Q2_CLUSTER_STANDARD)
            rc = check_standard(payload, worker, slot, index, raw, err);
    }
    return rc;
}

static int
check_slot(struct payload *payload, struct worker *worker, uint64_t slot, struct q2_error *err)
{
    struct q2_check *check = worker->check;
    const struct q2_geometry *geometry = &check->geometry;
    struct q2_window *window = &worker->window;
    q2_window_group(window, slot);
    int rc = 0;
    if (window->table_count == 0)
        return 0;
    rc = q2_slices_fit(&worker->slices, window, err);
    uint64_t length = worker->slices.length;
    for (uint64_t part = 0; part < geometry->cluster_size && rc == 0; part += length) {
        q2_slices_read(&worker->slices, window, part);
        uint64_t first = part / geometry->l2_entry_size;
        uint64_t entries = length / geometry->l2_entry_size;
        for (uint64_t i = 0; i < entries && rc == 0; i++)
            rc = check_index(payload, worker, slot, first + i, i, err);
    }
    return rc;
}

static int
turn(void *data, unsigned index, uint64_t unit, struct q2_error *err)
{
    struct payload *payload = data;
    struct worker *worker = &payload->workers[index];
    q2_window_load(&worker->window, unit);
    int rc = 0;
    for (uint64_t s = 0; s < worker->window.count && rc == 0; s++)
        rc = check_slot(payload, worker, worker->window.first + s, err);
    return rc;
}

static void
progress(void *data, uint64_t done)
{
    struct payload *payload = data;
    q2_check_progress(payload->check, done);
}

/* ---- from notes to findings ---- */

static int
compare_faults(const void *left, const void *right)
{
    const struct fault *a = left, *b = right;
    if (a->problem != b->problem)
        return a->problem < b->problem ? -1 : 1;
    if (a->slot != b->slot)
        return a->slot < b->slot ? -1 : 1;
    if (a->index != b->index)
        return a->index < b->index ? -1 : 1;
    return (a->raw > b->raw) - (a->raw < b->raw);
}

static int
compare_members(const void *left, const void *right)
{
    const uint32_t *a = left, *b = right;
    return (*a > *b) - (*a < *b);
}

/* The maps that have `raw`, its COPIED flag aside, at `index` of the L2 table of a slot; `owner`
 * gets them and the place of the first such entry. */
static int
find_maps(struct worker *worker, uint64_t slot, uint64_t index, uint64_t raw,
          struct q2_owner *owner, struct q2_error *err)
{
    struct q2_check *check = worker->check;
    const struct q2_geometry *geometry = &check->geometry;
    struct q2_window *window = &worker->window;
    size_t count = 0;
    void *memory;
    int rc = q2_budget_calloc(&check->budget, check->map_count, sizeof(uint32_t),
                              "sets of snapshots", &memory, err);
    if (rc < 0)
        return rc;
    uint32_t *members = memory;
    if (slot < window->first || slot >= window->first + window->count)
        q2_window_load(window, slot / window->capacity);
    q2_window_group(window, slot);
    for (uint64_t t = 0; t < window->table_count; t++) {
        const struct q2_slot_table *table = &window->tables[t];
        uint64_t at = table->offset + index * geometry->l2_entry_size;
        uint8_t entry[8] = {0};
        if (q2_file_read_padded(check->file, at, entry, sizeof entry, NULL) < 0)
            atomic_store(&check->unread, true);
        if (q2_claim_key(geometry, q2_load_be64(entry)) != q2_claim_key(geometry, raw))
            continue;
        owner->at = count ? owner->at : at;
        for (uint64_t i = 0; i < table->references; i++)
            members[count++] = window->items[table->first + i].map;
    }
    if (count)
        qsort(members, count, sizeof *members, compare_members);
    rc = q2_mapset_intern(check->sets, members, count, &owner->maps, err);
    q2_budget_free(&check->budget, memory, check->map_count, sizeof *members);
    return rc;
}

static int
report_fault(struct worker *worker, const struct fault *fault, struct q2_error *err)
{
    struct q2_check *check = worker->check;
    const struct q2_geometry *geometry = &check->geometry;
    bool compressed = fault->raw & Q2_ENTRY_COMPRESSED;
    struct q2_compressed_range range = {.offset = q2_entry_offset(fault->raw),
                                        .length = geometry->cluster_size};
    struct q2_owner owner = {0};
    if (compressed)
        range = q2_compressed_decode(geometry, fault->raw);
    int rc = find_maps(worker, fault->slot, fault->index, fault->raw, &owner, err);
    if (rc < 0)
        return rc;
    q2_findings_add(&check->findings,
                    &(struct q2_finding){
                        .problem = fault->problem,
                        .has = Q2_HAS_TARGET | Q2_HAS_GUEST | Q2_HAS_L1 | Q2_HAS_L2 |
                               (fault->got ? Q2_HAS_GOT : 0U),
                        .target_offset = range.offset,
                        .target_length = range.length,
                        .guest_offset = fault->slot * q2_l2_reach(geometry) +
                                        ((uint64_t)fault->index << geometry->cluster_bits),
                        .guest_length = geometry->cluster_size,
                        .l1_index = fault->slot,
                        .l2_index = fault->index,
                        .maps = owner.maps,
                        .got = fault->got,
                    });
    return 0;
}

/* Whose a compressed cluster is, for the report on those that share their data. */
static int
find_stream(void *data, const struct q2_stream *stream, struct q2_owner *owner,
            struct q2_error *err)
{
    struct worker *worker = data;
    const struct q2_geometry *geometry = &worker->check->geometry;
    return find_maps(worker, stream->guest >> geometry->l2_bits, owner->index, stream->raw, owner,
                     err);
}

static int
report_faults(struct payload *payload, struct q2_error *err)
{
    int rc = 0;
    if (payload->fault_count)
        qsort(payload->faults, payload->fault_count, sizeof *payload->faults, compare_faults);
    for (uint64_t i = 0; i < payload->fault_count && rc == 0; i++)
        rc = report_fault(&payload->workers[0], &payload->faults[i], err);
    return rc;
}

/* ---- setting up ---- */

static void
worker_destroy(struct worker *worker)
{
    struct q2_check *check = worker->check;
    if (!check)
        return;
    struct q2_budget *budget = &check->budget;
    q2_window_destroy(&worker->window);
    q2_slices_destroy(&worker->slices);
    q2_budget_free(budget, worker->data, data_bytes(check), 1);
    q2_budget_free(budget, worker->decoded, check->geometry.cluster_size, 1);
    q2_streams_destroy(&worker->streams);
    q2_decoder_free(worker->decoder);
}

static int
worker_init(struct worker *worker, struct q2_check *check, struct q2_error *err)
{
    static const char purpose[] = "reading the guest's data";
    struct q2_budget *budget = &check->budget;
    void *data = NULL, *decoded = NULL;
    worker->check = check;
    q2_streams_init(&worker->streams, check);
    q2_slices_init(&worker->slices, check, SLICE_BYTES);
    int rc = q2_window_init(&worker->window, check, err);
    if (rc == 0)
        rc = q2_budget_calloc(budget, data_bytes(check), 1, purpose, &data, err);
    if (rc == 0)
        rc = q2_budget_calloc(budget, check->geometry.cluster_size, 1, purpose, &decoded, err);
    worker->data = data;
    worker->decoded = decoded;
    return rc;
}

static int
run(struct payload *payload, struct q2_error *err)
{
    struct q2_check *check = payload->check;
    for (unsigned i = 0; i < check->threads; i++) {
        int rc = worker_init(&payload->workers[i], check, err);
        if (rc < 0)
            return rc;
    }
    struct q2_loop loop = {.threads = check->threads,
                           .turns = q2_unit_count(check),
                           .turn = turn,
                           .progress = progress,
                           .data = payload};
    q2_check_phase(check, "guest data", loop.turns,
                   q2_unit_slots(check) * q2_l2_reach(&check->geometry));
    q2_work_reset(&check->work); /* a walk of its own, with the same bound */
    int rc = q2_loop_run(&loop, err);
    if (rc == 0)
        rc = report_faults(payload, err);
    for (unsigned i = 1; rc == 0 && i < check->threads; i++)
        q2_streams_merge(&payload->workers[0].streams, &payload->workers[i].streams);
    if (rc == 0)
        rc =
            q2_streams_report(&payload->workers[0].streams, find_stream, &payload->workers[0], err);
    return rc;
}

int
q2_pass_payload(struct q2_check *check, struct q2_error *err)
{
    struct payload payload = {.check = check, .lock = PTHREAD_MUTEX_INITIALIZER};
    void *workers;
    if (!check->options.deep)
        return 0;
    int rc = q2_budget_calloc(&check->budget, check->threads, sizeof *payload.workers,
                              "reading the guest's data", &workers, err);
    if (rc < 0)
        return rc;
    payload.workers = workers;
    rc = run(&payload, err);
    for (unsigned i = 0; i < check->threads; i++)
        worker_destroy(&payload.workers[i]);
    q2_budget_free(&check->budget, workers, check->threads, sizeof *payload.workers);
    q2_budget_free(&check->budget, payload.faults, payload.fault_capacity, sizeof *payload.faults);
    return rc;
}
