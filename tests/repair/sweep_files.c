/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "tests/repair/sweep_files.h"

#include "core/base/checked.h"
#include "core/io/forward.h"
#include "core/io/memory.h"
#include "core/io/overlay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 256 << 10 };

static void
must(int rc, const struct q2_error *err)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "repair-sweep: %s\n", err->message);
    exit(1);
}

/* ---- disks ---- */

void
sweep_disk_init(struct sweep_disk *disk, struct q2_file *base)
{
    struct q2_error err = {0};
    q2_budget_init(&disk->budget, UINT64_C(1) << 30);
    must(q2_file_new_overlay(base, &disk->budget, &disk->files[SWEEP_IMAGE], &err), &err);
    must(q2_file_new_memory("journal", &disk->files[SWEEP_JOURNAL], &err), &err);
}

void
sweep_disk_destroy(struct sweep_disk *disk)
{
    q2_file_close(disk->files[SWEEP_JOURNAL]);
    q2_file_close(disk->files[SWEEP_IMAGE]);
}

bool
sweep_same(struct q2_file *a, struct q2_file *b)
{
    static uint8_t left[PIECE], right[PIECE];
    struct q2_error err = {0};
    uint64_t size, other;
    must(q2_file_size(a, &size, &err), &err);
    must(q2_file_size(b, &other, &err), &err);
    if (size != other)
        return false;
    for (uint64_t at = 0, end, end_b; at < size; at = end) {
        bool data, data_b;
        must(q2_file_extent(a, at, &data, &end, &err), &err);
        must(q2_file_extent(b, at, &data_b, &end_b, &err), &err);
        end = q2_min(end, end_b);
        if (!data && !data_b)
            continue;
        end = q2_min(end, at + PIECE);
        must(q2_file_read(a, at, left, end - at, &err), &err);
        must(q2_file_read(b, at, right, end - at, &err), &err);
        if (memcmp(left, right, end - at) != 0)
            return false;
    }
    return true;
}

/* ---- a file that tells a history of its changes ---- */

struct tap {
    struct q2_forward forward;
    struct sweep_history *history;
    enum sweep_side side;
};

static int
tell(struct q2_file *file, int rc)
{
    const struct tap *tap = (const struct tap *)file;
    struct sweep_history *history = tap->history;
    if (rc < 0)
        return rc;
    if (history->count == history->capacity) {
        history->capacity = history->capacity ? history->capacity * 2 : 256;
        history->order = realloc(history->order, history->capacity);
        if (!history->order)
            abort();
    }
    history->order[history->count++] = (uint8_t)tap->side;
    return rc;
}

static int
tap_pwritev(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
            struct q2_error *err)
{
    return tell(file, q2_file_pwritev(q2_forward_base(file), iov, iov_count, offset, err));
}

static int
tap_flush(struct q2_file *file, struct q2_error *err)
{
    return tell(file, q2_file_flush(q2_forward_base(file), err));
}

static int
tap_truncate(struct q2_file *file, uint64_t size, struct q2_error *err)
{
    return tell(file, q2_file_truncate(q2_forward_base(file), size, err));
}

static int
tap_punch(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err)
{
    return tell(file, q2_file_punch(q2_forward_base(file), offset, length, err));
}

static const struct q2_file_ops tap_ops = {
    .preadv = q2_forward_preadv,
    .pwritev = tap_pwritev,
    .flush = tap_flush,
    .truncate = tap_truncate,
    .punch = tap_punch,
    .size = q2_forward_size,
    .extent = q2_forward_extent,
    .close = q2_forward_close,
};

/* ---- histories ---- */

void
sweep_history_init(struct sweep_history *history, struct q2_file *base)
{
    struct q2_error err = {0};
    *history = (struct sweep_history){.base = base};
    sweep_disk_init(&history->disk, base);
    for (int side = 0; side < SWEEP_SIDES; side++) {
        must(q2_file_new_record(history->disk.files[side], &history->records[side], &err), &err);
        struct tap *tap = calloc(1, sizeof *tap);
        if (!tap)
            abort();
        must(q2_file_init(&tap->forward.file, &tap_ops, history->disk.files[side]->name, true,
                          &err),
             &err);
        tap->forward.base = history->records[side];
        tap->history = history;
        tap->side = (enum sweep_side)side;
        history->files[side] = &tap->forward.file;
    }
}

void
sweep_history_destroy(struct sweep_history *history)
{
    for (int side = 0; side < SWEEP_SIDES; side++) {
        q2_file_close(history->files[side]);
        q2_file_close(history->records[side]);
    }
    sweep_disk_destroy(&history->disk);
    free(history->order);
}

/* Half of them, another half for each number of changes. */
static bool
keeps_some(size_t index, void *data)
{
    uint64_t mixed = (index + 1) * UINT64_C(0x9e3779b97f4a7c15) + *(const uint64_t *)data;
    return (mixed ^ mixed >> 29) & 1;
}

static bool
keeps_none(size_t index, void *data)
{
    (void)index;
    (void)data;
    return false;
}

void
sweep_replay(const struct sweep_history *history, size_t count, enum sweep_loss loss,
             struct sweep_disk *ret_disk)
{
    struct q2_error err = {0};
    size_t counts[SWEEP_SIDES] = {0};
    uint64_t choice = history->chance * UINT64_C(0xd1342543de82ef95) + count;
    sweep_disk_init(ret_disk, history->base);
    for (size_t i = 0; i < count; i++)
        counts[history->order[i]]++;
    for (int side = 0; side < SWEEP_SIDES; side++)
        must(q2_record_replay(history->records[side], counts[side],
                              loss == SWEEP_KILL       ? NULL
                              : loss == SWEEP_LOSE_ALL ? keeps_none
                                                       : keeps_some,
                              &choice, ret_disk->files[side], &err),
             &err);
}
