/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* One line for each operation that is passed on as it is. */

#include "core/io/forward.h"

#include <stdlib.h>

int
q2_forward_preadv(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
                  size_t *ret_done, struct q2_error *err)
{
    return q2_file_preadv(q2_forward_base(file), iov, iov_count, offset, ret_done, err);
}

int
q2_forward_pwritev(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
                   struct q2_error *err)
{
    return q2_file_pwritev(q2_forward_base(file), iov, iov_count, offset, err);
}

int
q2_forward_flush(struct q2_file *file, struct q2_error *err)
{
    return q2_file_flush(q2_forward_base(file), err);
}

int
q2_forward_truncate(struct q2_file *file, uint64_t size, struct q2_error *err)
{
    return q2_file_truncate(q2_forward_base(file), size, err);
}

int
q2_forward_size(struct q2_file *file, uint64_t *ret_size, struct q2_error *err)
{
    return q2_file_size(q2_forward_base(file), ret_size, err);
}

int
q2_forward_extent(struct q2_file *file, uint64_t offset, bool *ret_data, uint64_t *ret_end,
                  struct q2_error *err)
{
    return q2_file_extent(q2_forward_base(file), offset, ret_data, ret_end, err);
}

void
q2_forward_prefetch(struct q2_file *file, uint64_t offset, uint64_t length)
{
    q2_file_prefetch(q2_forward_base(file), offset, length);
}

int
q2_forward_allocated(struct q2_file *file, uint64_t *ret_bytes, struct q2_error *err)
{
    return q2_file_allocated(q2_forward_base(file), ret_bytes, err);
}

void
q2_forward_close(struct q2_file *file)
{
    q2_file_fini(file);
    free(file);
}
