/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A file that fails on purpose: at the Nth operation, to sweep over every error path with N = 1, 2,
 * 3 ..., or wherever a bad spot of the medium is touched. */

#ifndef Q2_IO_FAULT_H
#define Q2_IO_FAULT_H

#include "core/io/file.h"

enum q2_fault_kind {
    Q2_FAULT_NONE,
    Q2_FAULT_EIO,    /* the operation fails, nothing happens */
    Q2_FAULT_ENOSPC, /* a write or growth fails for lack of space, nothing happens */
    Q2_FAULT_SHORT,  /* a read returns half of the bytes, as if the file ended there */
    Q2_FAULT_TORN,   /* a write puts down its first half, rounded down to 512 bytes, then fails */
};

/* Which operations count and can fail; a bit set. Of these, only such as the kind of fault can
 * befall match: with ENOSPC writes and growing truncates, with SHORT reads, with TORN writes. */
enum q2_fault_ops {
    Q2_FAULT_READ = 1 << 0,
    Q2_FAULT_WRITE = 1 << 1,
    Q2_FAULT_FLUSH = 1 << 2,
    Q2_FAULT_TRUNCATE = 1 << 3,
    Q2_FAULT_PUNCH = 1 << 4,
    Q2_FAULT_ALL = (1 << 5) - 1,
};

struct q2_fault_plan {
    enum q2_fault_kind kind;
    unsigned ops;
    uint64_t nth;   /* the nth matching operation fails, counted from 1; 0: each one that matches */
    bool permanent; /* and every matching one after it */
    /* Only operations that touch [offset, offset + length) match; length 0: any offset. A truncate
     * touches what it cuts off or adds, a flush touches nothing. */
    uint64_t offset;
    uint64_t length;
};

/* Wrap `base`, which stays the caller's and must outlive the wrapper. Copies `plan`. */
int q2_file_new_fault(struct q2_file *base, const struct q2_fault_plan *plan,
                      struct q2_file **ret_file, struct q2_error *err);

/* How many operations matched so far, failed or not: a sweep ends when `nth` exceeds it. */
uint64_t q2_fault_matched(const struct q2_file *fault);

#endif
