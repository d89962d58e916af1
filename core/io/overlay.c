/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Edits and a size over a base. Edits past the size mean nothing, and growing zeroes whatever of
 * the base the new size would bring back, so that the edits and the size are all there is to know.
 */

#include "core/io/overlay.h"

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/io/edits.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct overlay_file {
    struct q2_file file;
    struct q2_file *base;
    uint64_t base_size;
    pthread_rwlock_t lock; /* over all below */
    uint64_t size;
    struct q2_edits edits;
    _Atomic uint64_t cost; /* of all reads; not under the lock */
};

static struct overlay_file *
overlay_of(struct q2_file *file)
{
    return (struct overlay_file *)file;
}

/* Set a larger size. What the base has there was cut off before and must not come back. */
static int
grow(struct overlay_file *overlay, uint64_t size, struct q2_error *err)
{
    int rc = q2_edits_zero(&overlay->edits, overlay->size, q2_min(size, overlay->base_size), err);
    if (rc == 0)
        overlay->size = size;
    return rc;
}

static int
shrink(struct overlay_file *overlay, uint64_t size, struct q2_error *err)
{
    int rc = q2_edits_cut(&overlay->edits, size, err);
    if (rc == 0)
        overlay->size = size;
    return rc;
}

/* The size follows what has been written: a write that runs out of memory is a short one. */
static int
store(struct overlay_file *overlay, uint64_t offset, const uint8_t *from, size_t length,
      struct q2_error *err)
{
    int rc = length && offset > overlay->size ? grow(overlay, offset, err) : 0;
    return rc < 0 ? rc : q2_edits_write(&overlay->edits, offset, from, length, &overlay->size, err);
}

/* Read bytes inside the overlay. The base is asked only where the edits do not say all, in reads as
 * large as can be: what a repair has rewritten is readable even where the base is not. */
static int
load(struct overlay_file *overlay, uint64_t offset, uint8_t *to, size_t length,
     struct q2_error *err)
{
    uint64_t end = offset + length, until;
    while (offset < end) {
        bool known = q2_edits_cover(&overlay->edits, offset, end, &until);
        for (uint64_t next;
             until < end && q2_edits_cover(&overlay->edits, until, end, &next) == known;)
            until = next;
        size_t piece = (size_t)(until - offset);
        int rc = known ? 0 : q2_file_read_padded(overlay->base, offset, to, piece, err);
        if (rc < 0)
            return rc;
        q2_edits_apply(&overlay->edits, offset, to, piece);
        to += piece;
        offset = until;
    }
    return 0;
}

/* ---- operations ---- */

static int
overlay_preadv(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
               size_t *ret_done, struct q2_error *err)
{
    struct overlay_file *overlay = overlay_of(file);
    size_t done = 0;
    int rc = 0;
    pthread_rwlock_rdlock(&overlay->lock);
    for (int i = 0; i < iov_count && rc == 0 && offset < overlay->size; i++) {
        size_t length = (size_t)q2_min(iov[i].iov_len, overlay->size - offset);
        rc = load(overlay, offset, iov[i].iov_base, length, err);
        offset += length;
        done += length;
    }
    pthread_rwlock_unlock(&overlay->lock);
    atomic_fetch_add_explicit(&overlay->cost, done + Q2_OVERLAY_READ_COST, memory_order_relaxed);
    if (rc == 0)
        *ret_done = done;
    return rc;
}

static int
overlay_pwritev(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
                struct q2_error *err)
{
    struct overlay_file *overlay = overlay_of(file);
    int rc = 0;
    pthread_rwlock_wrlock(&overlay->lock);
    for (int i = 0; i < iov_count && rc == 0; i++) {
        rc = store(overlay, offset, iov[i].iov_base, iov[i].iov_len, err);
        offset += iov[i].iov_len;
    }
    pthread_rwlock_unlock(&overlay->lock);
    return rc;
}

static int
overlay_flush(struct q2_file *file, struct q2_error *err)
{
    (void)file;
    (void)err;
    return 0;
}

static int
overlay_truncate(struct q2_file *file, uint64_t size, struct q2_error *err)
{
    struct overlay_file *overlay = overlay_of(file);
    pthread_rwlock_wrlock(&overlay->lock);
    int rc = size < overlay->size ? shrink(overlay, size, err) : grow(overlay, size, err);
    pthread_rwlock_unlock(&overlay->lock);
    return rc;
}

static int
overlay_size(struct q2_file *file, uint64_t *ret_size, struct q2_error *err)
{
    (void)err;
    struct overlay_file *overlay = overlay_of(file);
    pthread_rwlock_rdlock(&overlay->lock);
    *ret_size = overlay->size;
    pthread_rwlock_unlock(&overlay->lock);
    return 0;
}

/* Exact to the block of edits: one with a single edited byte counts as data. */
static int
extent(struct overlay_file *overlay, uint64_t offset, bool *ret_data, uint64_t *ret_end,
       struct q2_error *err)
{
    uint64_t end, base_end = overlay->size;
    enum q2_sparse_state state = q2_edits_extent(&overlay->edits, offset, &end);
    bool data = state == Q2_SPARSE_BACKED;
    if (state == Q2_SPARSE_ABSENT) {
        int rc = 0;
        if (offset < overlay->base_size)
            rc = q2_file_extent(overlay->base, offset, &data, &base_end, err);
        if (rc < 0)
            return rc;
    }
    *ret_data = data;
    *ret_end = q2_min(q2_min(end, base_end), overlay->size);
    return 0;
}

static int
overlay_extent(struct q2_file *file, uint64_t offset, bool *ret_data, uint64_t *ret_end,
               struct q2_error *err)
{
    struct overlay_file *overlay = overlay_of(file);
    pthread_rwlock_rdlock(&overlay->lock);
    int rc = extent(overlay, offset, ret_data, ret_end, err);
    pthread_rwlock_unlock(&overlay->lock);
    return rc;
}

static int
overlay_punch(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err)
{
    struct overlay_file *overlay = overlay_of(file);
    pthread_rwlock_wrlock(&overlay->lock);
    int rc = q2_edits_zero(&overlay->edits, offset, q2_min(offset + length, overlay->size), err);
    pthread_rwlock_unlock(&overlay->lock);
    return rc;
}

static void
overlay_prefetch(struct q2_file *file, uint64_t offset, uint64_t length)
{
    q2_file_prefetch(overlay_of(file)->base, offset, length);
}

/* The space of the base: edits are not stored anywhere. */
static int
overlay_allocated(struct q2_file *file, uint64_t *ret_bytes, struct q2_error *err)
{
    return q2_file_allocated(overlay_of(file)->base, ret_bytes, err);
}

static void
overlay_close(struct q2_file *file)
{
    struct overlay_file *overlay = overlay_of(file);
    q2_edits_clear(&overlay->edits);
    pthread_rwlock_destroy(&overlay->lock);
    q2_file_fini(file);
    free(overlay);
}

static const struct q2_file_ops overlay_ops = {
    .preadv = overlay_preadv,
    .pwritev = overlay_pwritev,
    .flush = overlay_flush,
    .truncate = overlay_truncate,
    .size = overlay_size,
    .extent = overlay_extent,
    .punch = overlay_punch,
    .prefetch = overlay_prefetch,
    .allocated = overlay_allocated,
    .close = overlay_close,
};

int
q2_file_new_overlay(struct q2_file *base, struct q2_budget *budget, struct q2_file **ret_file,
                    struct q2_error *err)
{
    uint64_t size;
    int rc = q2_file_size(base, &size, err);
    if (rc < 0)
        return rc;
    Q2_AUTOFREE struct overlay_file *overlay = calloc(1, sizeof *overlay);
    if (!overlay)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for an overlay", base->name);
    rc = q2_file_init(&overlay->file, &overlay_ops, base->name, true, err);
    if (rc < 0)
        return rc;
    overlay->base = base;
    overlay->base_size = overlay->size = size;
    pthread_rwlock_init(&overlay->lock, NULL);
    q2_edits_init(&overlay->edits, budget, overlay->file.name);
    *ret_file = &Q2_STEAL(overlay)->file;
    return 0;
}

bool
q2_overlay_is_over(const struct q2_file *file, const struct q2_file *base)
{
    return file->ops == &overlay_ops && ((const struct overlay_file *)file)->base == base;
}

void
q2_overlay_reset(struct q2_file *file)
{
    struct overlay_file *overlay = overlay_of(file);
    pthread_rwlock_wrlock(&overlay->lock);
    q2_edits_clear(&overlay->edits);
    overlay->size = overlay->base_size;
    pthread_rwlock_unlock(&overlay->lock);
}

/* ---- visiting ---- */

static bool
next_edit(const struct overlay_file *overlay, uint64_t offset, struct q2_edit *ret_edit)
{
    struct q2_edit edit;
    if (!q2_edits_next(&overlay->edits, offset, &edit) || edit.offset >= overlay->size)
        return false;
    edit.length = q2_min(edit.length, overlay->size - edit.offset);
    *ret_edit = edit;
    return true;
}

/* Whether an edit goes on with the next one: they touch, are of one kind, and fit the buffer. */
static bool
merges(const struct q2_edit *edit, const struct q2_edit *next, size_t capacity)
{
    return next->offset == edit->offset + edit->length && !next->bytes == !edit->bytes &&
           (!edit->bytes || edit->length < capacity);
}

/* Find the first run at or after `offset`, merged as far as can be, with its bytes in `buffer`. */
static bool
gather(struct overlay_file *overlay, uint64_t offset, uint8_t *buffer, size_t capacity,
       struct q2_edit *ret_edit)
{
    struct q2_edit next, edit = {0};
    pthread_rwlock_rdlock(&overlay->lock);
    bool any = next_edit(overlay, offset, &next);
    if (any)
        edit = (struct q2_edit){.offset = next.offset, .bytes = next.bytes ? buffer : NULL};
    while (any && merges(&edit, &next, capacity)) {
        uint64_t length = next.length;
        if (next.bytes) {
            length = q2_min(length, capacity - edit.length);
            memcpy(buffer + edit.length, next.bytes, (size_t)length);
        }
        edit.length += length;
        any = next_edit(overlay, edit.offset + edit.length, &next);
    }
    pthread_rwlock_unlock(&overlay->lock);
    *ret_edit = edit;
    return edit.length > 0;
}

int
q2_overlay_visit(struct q2_file *file, int (*visit)(const struct q2_edit *edit, void *data),
                 void *data)
{
    struct overlay_file *overlay = overlay_of(file);
    pthread_rwlock_rdlock(&overlay->lock);
    size_t capacity = (size_t)q2_max(q2_min(overlay->size, Q2_EDIT_LENGTH_MAX), 1);
    pthread_rwlock_unlock(&overlay->lock);
    Q2_AUTOFREE uint8_t *buffer = malloc(capacity);
    if (!buffer)
        return Q2_ERR_NOMEM;
    struct q2_edit edit;
    int rc = 0;
    for (uint64_t offset = 0; rc >= 0 && gather(overlay, offset, buffer, capacity, &edit);
         offset = edit.offset + edit.length)
        rc = visit(&edit, data);
    return rc < 0 ? rc : 0;
}

uint64_t
q2_overlay_cost(const struct q2_file *overlay)
{
    return atomic_load(&((const struct overlay_file *)overlay)->cost);
}
