/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* For files that stand over another one and pass on to it what they do not change: embed a struct
 * q2_forward as the first member, and put these into the vtable. */

#ifndef Q2_IO_FORWARD_H
#define Q2_IO_FORWARD_H

#include "core/io/file.h"

struct q2_forward {
    struct q2_file file;
    struct q2_file *base; /* not owned */
};

static inline struct q2_file *
q2_forward_base(const struct q2_file *file)
{
    return ((const struct q2_forward *)file)->base;
}

/* Operations of struct q2_file_ops, done to the base. */
int q2_forward_preadv(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
                      size_t *ret_done, struct q2_error *err);
int q2_forward_pwritev(struct q2_file *file, const struct iovec *iov, int iov_count,
                       uint64_t offset, struct q2_error *err);
int q2_forward_flush(struct q2_file *file, struct q2_error *err);
int q2_forward_truncate(struct q2_file *file, uint64_t size, struct q2_error *err);
int q2_forward_size(struct q2_file *file, uint64_t *ret_size, struct q2_error *err);
int q2_forward_extent(struct q2_file *file, uint64_t offset, bool *ret_data, uint64_t *ret_end,
                      struct q2_error *err);
void q2_forward_prefetch(struct q2_file *file, uint64_t offset, uint64_t length);
int q2_forward_allocated(struct q2_file *file, uint64_t *ret_bytes, struct q2_error *err);

/* Release `file`, which malloc() made. The base stays as it is. */
void q2_forward_close(struct q2_file *file);

#endif
