/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Each operation asks `strikes` whether it is one that fails; else it goes through to the base. */

#include "core/io/fault.h"

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/io/forward.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { TEAR_UNIT = 512 };

struct fault_file {
    struct q2_forward forward;
    struct q2_fault_plan plan;
    _Atomic uint64_t matched;
};

static struct fault_file *
fault_of(struct q2_file *file)
{
    return (struct fault_file *)file;
}

/* The operations that each kind can befall; of truncates, ENOSPC hits only those that grow. */
static const unsigned befalls[] = {
    [Q2_FAULT_NONE] = Q2_FAULT_ALL,
    [Q2_FAULT_EIO] = Q2_FAULT_ALL,
    [Q2_FAULT_ENOSPC] = Q2_FAULT_WRITE | Q2_FAULT_TRUNCATE,
    [Q2_FAULT_SHORT] = Q2_FAULT_READ,
    [Q2_FAULT_TORN] = Q2_FAULT_WRITE,
};

/* Count the operation if it matches, and say whether it is to fail. */
static bool
strikes(struct fault_file *fault, enum q2_fault_ops op, uint64_t offset, uint64_t length)
{
    const struct q2_fault_plan *plan = &fault->plan;
    if (!(op & plan->ops & befalls[plan->kind]))
        return false;
    if (plan->length && !q2_ranges_overlap(offset, length, plan->offset, plan->length))
        return false;
    uint64_t n = atomic_fetch_add(&fault->matched, 1) + 1;
    if (plan->kind == Q2_FAULT_NONE)
        return false;
    return plan->nth == 0 || n == plan->nth || (plan->permanent && n > plan->nth);
}

static int
fail(const struct fault_file *fault, const char *verb, uint64_t offset, uint64_t length,
     struct q2_error *err)
{
    enum q2_error_code code = fault->plan.kind == Q2_FAULT_ENOSPC ? Q2_ERR_NOSPACE : Q2_ERR_IO;
    return q2_error_set(err, code,
                        "%s: cannot %s %" PRIu64 " bytes at offset %" PRIu64
                        ": %s, injected by a test",
                        fault->forward.file.name, verb, length, offset, q2_error_text(code));
}

static int
fault_preadv(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
             size_t *ret_done, struct q2_error *err)
{
    struct fault_file *fault = fault_of(file);
    size_t length = q2_iov_total(iov, iov_count), done = 0;
    bool struck = strikes(fault, Q2_FAULT_READ, offset, length);
    if (struck && fault->plan.kind != Q2_FAULT_SHORT)
        return fail(fault, "read", offset, length, err);
    int rc = q2_file_preadv(fault->forward.base, iov, iov_count, offset, &done, err);
    if (rc == 0)
        *ret_done = struck ? done / 2 : done;
    return rc;
}

static int
write_first(struct q2_file *base, const struct iovec *iov, size_t length, uint64_t offset,
            struct q2_error *err)
{
    int rc = 0;
    for (; length && rc == 0; iov++) {
        size_t piece = (size_t)q2_min(length, iov->iov_len);
        rc = q2_file_write(base, offset, iov->iov_base, piece, err);
        offset += piece;
        length -= piece;
    }
    return rc;
}

static int
fault_pwritev(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
              struct q2_error *err)
{
    struct fault_file *fault = fault_of(file);
    size_t length = q2_iov_total(iov, iov_count);
    if (!strikes(fault, Q2_FAULT_WRITE, offset, length))
        return q2_file_pwritev(fault->forward.base, iov, iov_count, offset, err);
    if (fault->plan.kind == Q2_FAULT_TORN) {
        size_t half = length / 2 / TEAR_UNIT * TEAR_UNIT;
        int rc = write_first(fault->forward.base, iov, half, offset, err);
        if (rc < 0)
            return rc;
    }
    return fail(fault, "write", offset, length, err);
}

static int
fault_flush(struct q2_file *file, struct q2_error *err)
{
    struct fault_file *fault = fault_of(file);
    if (strikes(fault, Q2_FAULT_FLUSH, 0, 0))
        return q2_error_set(err, Q2_ERR_IO,
                            "%s: cannot make writes durable: %s, injected by a test", file->name,
                            q2_error_text(Q2_ERR_IO));
    return q2_file_flush(fault->forward.base, err);
}

static int
fault_truncate(struct q2_file *file, uint64_t size, struct q2_error *err)
{
    struct fault_file *fault = fault_of(file);
    uint64_t now;
    int rc = q2_file_size(fault->forward.base, &now, err);
    if (rc < 0)
        return rc;
    uint64_t from = q2_min(size, now), length = q2_max(size, now) - from;
    bool needs_space = size > now;
    if ((needs_space || fault->plan.kind != Q2_FAULT_ENOSPC) &&
        strikes(fault, Q2_FAULT_TRUNCATE, from, length))
        return fail(fault, needs_space ? "add" : "cut off", from, length, err);
    return q2_file_truncate(fault->forward.base, size, err);
}

static int
fault_punch(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err)
{
    struct fault_file *fault = fault_of(file);
    if (strikes(fault, Q2_FAULT_PUNCH, offset, length))
        return fail(fault, "punch a hole of", offset, length, err);
    return q2_file_punch(fault->forward.base, offset, length, err);
}

static const struct q2_file_ops fault_ops = {
    .preadv = fault_preadv,
    .pwritev = fault_pwritev,
    .flush = fault_flush,
    .truncate = fault_truncate,
    .size = q2_forward_size,
    .extent = q2_forward_extent,
    .punch = fault_punch,
    .prefetch = q2_forward_prefetch,
    .allocated = q2_forward_allocated,
    .close = q2_forward_close,
};

int
q2_file_new_fault(struct q2_file *base, const struct q2_fault_plan *plan, struct q2_file **ret_file,
                  struct q2_error *err)
{
    Q2_AUTOFREE struct fault_file *fault = calloc(1, sizeof *fault);
    if (!fault)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory to inject faults", base->name);
    int rc = q2_file_init(&fault->forward.file, &fault_ops, base->name, base->writable, err);
    if (rc < 0)
        return rc;
    fault->forward.base = base;
    fault->plan = *plan;
    atomic_init(&fault->matched, 0);
    *ret_file = &Q2_STEAL(fault)->forward.file;
    return 0;
}

uint64_t
q2_fault_matched(const struct q2_file *file)
{
    const struct fault_file *fault = (const struct fault_file *)file;
    return atomic_load(&fault->matched);
}
