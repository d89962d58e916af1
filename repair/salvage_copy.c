/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Copying one map's disk, or its VM state: cut into pieces of a megabyte, which threads read, and
 * which are written and noted in the map file in order. Long stretches without data are one piece,
 * however long they are.
 *
 * Where the target has another state already (the snapshot before), only clusters that are mapped
 * otherwise are touched: given back to the backing file first, then written. */

#include "core/base/checked.h"
#include "core/base/zeros.h"
#include "repair/salvage_parts.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    MAX_THREADS = 4,
    MAX_JOINED = 4096, /* runs without data that are one piece */
    CHECKPOINT_S = 10,
};

/* As much as is done without data in one piece: progress is shown in between. */
#define EMPTY_PIECE (UINT64_C(64) << 40)

/* What is to be done about a block of the target. */
enum block_kind { BLOCK_SKIP, BLOCK_ZERO, BLOCK_DATA };

struct slot {
    struct salvage_run *runs;
    size_t count;
};

struct copying {
    const struct salvage_copy *copy;
    struct salvage_tables tables, before;
    uint64_t next, end; /* guest, bytes */
    uint64_t cut;       /* pieces so far */
    uint64_t piece;     /* bytes */
    unsigned threads;
    struct slot *slots; /* of the pieces under way, by number */
    struct salvage_worker *workers;
    bool check_same;           /* runs that the target has already may hold what cannot be read */
    uint64_t written;          /* up to here, guest, bytes */
    uint64_t since_checkpoint; /* bytes */
    time_t checkpoint_time;
};

/* ---- cutting ---- */

/* What the image leaves to its backing file. */
static void
resolve_nothing(const struct copying *c, struct salvage_run *run)
{
    const struct salvage_source *source = c->copy->source;
    uint64_t size = source->backing ? q2_disk_size(source->backing) : 0;
    if (c->copy->vm_state || !source->backing_name) {
        run->kind = SALVAGE_ZERO;
        return;
    }
    if (c->copy->target->keep)
        return;
    if (!source->backing) {
        run->kind = SALVAGE_GONE;
        run->state = Q2_SALVAGE_LOST;
        run->why = c->copy->options->given_names_only && !c->copy->options->backing_file
                       ? "the backing file, which has it, was not to be opened"
                       : "the backing file, which has it, is missing";
        return;
    }
    if (run->offset >= size) {
        run->kind = SALVAGE_ZERO;
        return;
    }
    struct q2_extent extent;
    run->length = q2_min(run->length, size - run->offset);
    run->kind = SALVAGE_BACKING;
    if (q2_disk_map(source->backing, run->offset, run->length, &extent, NULL) < 0) {
        run->length = q2_min(run->length, c->piece); /* reading it says what is wrong with it */
        return;
    }
    run->length = extent.length;
    if (extent.zero)
        run->kind = SALVAGE_ZERO;
}

static void
next_run(struct copying *c, uint64_t guest, uint64_t end, struct salvage_run *run)
{
    bool same = c->copy->before && q2_salvage_tables_same(&c->tables, &c->before, guest, end, &end);
    q2_salvage_tables_run(&c->tables, guest, end, run);
    run->same = same;
    if (run->kind == SALVAGE_NOTHING)
        resolve_nothing(c, run);
}

static bool
has_data(const struct salvage_run *run)
{
    return run->kind == SALVAGE_DATA || run->kind == SALVAGE_PACKED || run->kind == SALVAGE_BACKING;
}

static bool
to_be_read(const struct copying *c, const struct salvage_run *run)
{
    return has_data(run) && (!run->same || c->check_same);
}

/* Whether two neighbours without anything to read are the same to all that follows. */
static bool
joins(const struct copying *c, const struct salvage_run *run, const struct salvage_run *next)
{
    return !to_be_read(c, next) && run->same == next->same && run->why == next->why &&
           run->state == next->state && (run->same || (run->kind == next->kind && !has_data(run)));
}

/* One piece of nothing, as long as that goes on. */
static void
cut_empty(struct copying *c, struct salvage_run *run)
{
    for (unsigned i = 0; i < MAX_JOINED && run->length < EMPTY_PIECE; i++) {
        struct salvage_run next;
        uint64_t at = run->offset + run->length;
        if (at >= c->end)
            return;
        next_run(c, at, c->end, &next);
        if (!joins(c, run, &next))
            return;
        run->length += next.length;
    }
}

/* Pieces end where clusters do, or the disk. No cluster has more runs than fit. */
static void
trim(const struct copying *c, struct slot *slot)
{
    struct salvage_run *last = &slot->runs[slot->count - 1];
    uint64_t end = last->offset + last->length;
    if (end == c->end)
        return;
    end &= ~(c->copy->source->geometry.cluster_size - 1);
    while (last->offset >= end)
        last = &slot->runs[--slot->count - 1];
    last->length = end - last->offset;
}

static int
next_piece(void *data, struct q2_piece *ret_piece, struct q2_error *err)
{
    struct copying *c = data;
    const struct q2_salvage_options *options = c->copy->options;
    struct slot *slot = &c->slots[c->cut % c->threads];
    if (c->next >= c->end)
        return 0;
    if (options->stop && options->stop(options->stop_data))
        return q2_error_set(err, Q2_ERR_STOPPED, "interrupted; it can be continued");
    uint64_t start = c->next, inside = start % c->piece;
    uint64_t end = c->end - start > c->piece - inside ? start - inside + c->piece : c->end;
    slot->count = 0;
    bool plain = true;
    for (uint64_t at = start; at < end && slot->count < SALVAGE_PIECE_RUNS;) {
        struct salvage_run *run = &slot->runs[slot->count++];
        next_run(c, at, end, run);
        plain &= !to_be_read(c, run);
        at += run->length;
    }
    plain &= slot->count == 1;
    if (plain)
        cut_empty(c, &slot->runs[0]);
    trim(c, slot);
    c->next = slot->runs[slot->count - 1].offset + slot->runs[slot->count - 1].length;
    c->cut++;
    *ret_piece = (struct q2_piece){.offset = start, .length = c->next - start, .plain = plain};
    return 1;
}

/* ---- reading ---- */

static void
mark_blocks(const struct copying *c, struct salvage_worker *worker, const struct q2_piece *piece,
            const struct salvage_run *run)
{
    uint64_t grain = c->copy->target->grain, begin = run->offset - piece->offset;
    enum block_kind kind = run->same || run->kind == SALVAGE_NOTHING ? BLOCK_SKIP
                           : has_data(run)                           ? BLOCK_DATA
                                                                     : BLOCK_ZERO;
    for (uint64_t i = begin / grain; i * grain < begin + run->length; i++)
        if (kind > worker->kinds[i])
            worker->kinds[i] = (uint8_t)kind;
}

/* Data that is zeros. */
static void
sift_blocks(const struct copying *c, struct salvage_worker *worker, const struct q2_piece *piece)
{
    uint64_t grain = c->copy->target->grain;
    for (uint64_t i = 0, at = 0; at < piece->length; i++, at += grain)
        if (worker->kinds[i] == BLOCK_DATA &&
            q2_is_zero(worker->buffer + at, (size_t)q2_min(grain, piece->length - at)))
            worker->kinds[i] = BLOCK_ZERO;
}

static int
prepare(void *data, unsigned number, const struct q2_piece *piece, struct q2_error *err)
{
    struct copying *c = data;
    struct salvage_worker *worker = &c->workers[number];
    const struct slot *slot = &c->slots[piece->number % c->threads];
    worker->loss_count = 0;
    if (piece->plain)
        return 0;
    memset(worker->kinds, BLOCK_SKIP, c->piece / SALVAGE_SECTOR + 1);
    for (size_t i = 0; i < slot->count; i++) {
        const struct salvage_run *run = &slot->runs[i];
        if (!run->same || to_be_read(c, run))
            q2_salvage_read_run(c->copy->source, worker, run,
                                worker->buffer + (run->offset - piece->offset));
        mark_blocks(c, worker, piece, run);
    }
    sift_blocks(c, worker, piece);
    return worker->failed ? q2_error_set(err, Q2_ERR_NOMEM, "no memory to note what is lost") : 0;
}

/* ---- writing ---- */

static int
write_blocks(struct copying *c, const struct salvage_worker *worker, const struct q2_piece *piece,
             struct q2_error *err)
{
    struct salvage_target *target = c->copy->target;
    uint64_t grain = target->grain, count = (piece->length + grain - 1) / grain;
    uint64_t offset = piece->offset - c->copy->base;
    int rc = 0;
    for (uint64_t first = 0, last; rc == 0 && first < count; first = last) {
        for (last = first + 1; last < count && worker->kinds[last] == worker->kinds[first];)
            last++;
        uint64_t begin = first * grain, length = q2_min(last * grain, piece->length) - begin;
        if (worker->kinds[first] == BLOCK_DATA)
            rc = q2_salvage_target_write(target, offset + begin, worker->buffer + begin,
                                         (size_t)length, err);
        else if (worker->kinds[first] == BLOCK_ZERO)
            rc = q2_salvage_target_zero(target, offset + begin, length, err);
    }
    return rc;
}

/* Give back what the state before has and this one has not. */
static int
uncover(struct copying *c, const struct slot *slot, struct q2_error *err)
{
    int rc = 0;
    for (size_t first = 0, last; c->copy->before && rc == 0 && first < slot->count; first = last) {
        uint64_t begin = slot->runs[first].offset;
        for (last = first + 1;
             last < slot->count && slot->runs[last].same == slot->runs[first].same;)
            last++;
        const struct salvage_run *end = &slot->runs[last - 1];
        if (!end->same)
            rc = q2_salvage_target_uncover(c->copy->target, begin,
                                           end->offset + end->length - begin, err);
    }
    return rc;
}

static int
note(struct copying *c, uint64_t offset, uint64_t length, enum q2_salvage_state state,
     const char *why, struct q2_error *err)
{
    const struct salvage_copy *copy = c->copy;
    int rc = 0;
    while (rc == 0 && length > 0) {
        const char *view_why;
        uint64_t end;
        enum q2_salvage_state view =
            q2_salvage_trust_at(copy->trust, copy->map, offset, &view_why, &end);
        struct q2_salvage_range range = {
            .map = copy->map,
            .offset = offset - copy->base,
            .length = q2_min(length, end - offset),
            .vm_state = copy->vm_state,
            .state = view > state ? view : state,
            .why = view > state ? view_why : why,
        };
        rc = q2_salvage_log_range(copy->log, &range, err);
        offset += range.length;
        length -= range.length;
    }
    return rc;
}

/* Note what the piece is worth. */
static int
note_piece(struct copying *c, const struct salvage_worker *worker, const struct slot *slot,
           struct q2_error *err)
{
    size_t loss = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < slot->count; i++) {
        const struct salvage_run *run = &slot->runs[i];
        uint64_t at = run->offset, end = run->offset + run->length;
        for (; rc == 0 && loss < worker->loss_count && worker->losses[loss].offset < end; loss++) {
            const struct salvage_loss *lost = &worker->losses[loss];
            uint64_t stop = q2_min(lost->offset + lost->length, end);
            if (lost->offset > at)
                rc = note(c, at, lost->offset - at, run->state, run->why, err);
            if (rc == 0 && stop > q2_max(at, lost->offset))
                rc = note(c, q2_max(at, lost->offset), stop - q2_max(at, lost->offset), lost->state,
                          lost->why, err);
            at = q2_max(at, stop);
        }
        if (rc == 0 && at < end)
            rc = note(c, at, end - at, run->state, run->why, err);
    }
    return rc;
}

static int
checkpoint(struct copying *c, const struct q2_piece *piece, struct q2_error *err)
{
    const struct q2_salvage_options *options = c->copy->options;
    uint64_t reached = piece->offset + piece->length - c->copy->base;
    struct q2_salvage_progress progress = c->copy->progress;
    progress.done += reached;
    if (options->progress)
        options->progress(options->progress_data, &progress);
    c->written = piece->offset + piece->length;
    c->since_checkpoint += piece->plain ? 0 : piece->length;
    bool due = options->checkpoint_bytes ? c->since_checkpoint >= options->checkpoint_bytes
                                         : time(NULL) - c->checkpoint_time >= CHECKPOINT_S;
    if (!due)
        return 0;
    int rc = c->copy->reached(c->copy->reached_data, reached, err);
    c->since_checkpoint = 0;
    c->checkpoint_time = time(NULL);
    return rc;
}

static int
finish(void *data, unsigned number, const struct q2_piece *piece, struct q2_error *err)
{
    struct copying *c = data;
    const struct salvage_worker *worker = &c->workers[number];
    const struct slot *slot = &c->slots[piece->number % c->threads];
    const struct salvage_run *first = &slot->runs[0];
    int rc = uncover(c, slot, err);
    if (rc == 0 && !piece->plain)
        rc = write_blocks(c, worker, piece, err);
    else if (rc == 0 && !first->same && first->kind != SALVAGE_NOTHING)
        rc = q2_salvage_target_zero(c->copy->target, piece->offset - c->copy->base, piece->length,
                                    err);
    if (rc == 0)
        rc = note_piece(c, worker, slot, err);
    return rc < 0 ? rc : checkpoint(c, piece, err);
}

/* ---- the whole ---- */

static int
init(struct copying *c, struct q2_error *err)
{
    const struct salvage_copy *copy = c->copy;
    int rc = q2_salvage_tables_init(&c->tables, copy->source, &copy->source->maps[copy->map], err);
    if (rc == 0 && copy->before)
        rc = q2_salvage_tables_init(&c->before, copy->source, copy->before, err);
    c->slots = calloc(c->threads, sizeof *c->slots);
    c->workers = calloc(c->threads, sizeof *c->workers);
    if (rc == 0 && !(c->slots && c->workers))
        rc = q2_error_set(err, Q2_ERR_NOMEM, "no memory for a salvage");
    for (unsigned i = 0; rc == 0 && i < c->threads; i++) {
        rc = q2_salvage_worker_init(&c->workers[i], copy->source, c->piece, err);
        c->slots[i].runs = malloc(SALVAGE_PIECE_RUNS * sizeof *c->slots[i].runs);
        if (rc == 0 && !c->slots[i].runs)
            rc = q2_error_set(err, Q2_ERR_NOMEM, "no memory for a salvage");
    }
    return rc;
}

static void
destroy(struct copying *c)
{
    for (unsigned i = 0; i < c->threads; i++) {
        if (c->workers)
            q2_salvage_worker_destroy(&c->workers[i]);
        if (c->slots)
            free(c->slots[i].runs);
    }
    free(c->workers);
    free(c->slots);
    q2_salvage_tables_destroy(&c->tables);
    q2_salvage_tables_destroy(&c->before);
}

int
q2_salvage_copy_run(const struct salvage_copy *copy, struct q2_error *err)
{
    unsigned threads = copy->options->threads ? copy->options->threads : q2_flow_threads();
    struct copying c = {
        .copy = copy,
        .next = copy->base + copy->start,
        .end = copy->base + copy->length,
        .piece = q2_max(SALVAGE_PIECE, copy->source->geometry.cluster_size),
        .threads = threads < MAX_THREADS ? threads : MAX_THREADS,
        .check_same = atomic_load(&copy->source->any_bad),
        .checkpoint_time = time(NULL),
    };
    const struct q2_flow flow = {
        .threads = c.threads,
        .ordered = true,
        .next = next_piece,
        .prepare = prepare,
        .finish = finish,
        .data = &c,
    };
    int rc = init(&c, err);
    if (rc == 0)
        rc = q2_flow_run(&flow, err);
    if (rc == Q2_ERR_STOPPED && c.written > copy->base)
        (void)copy->reached(copy->reached_data, c.written - copy->base, NULL);
    destroy(&c);
    return rc;
}
