/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Operations on the content of the disk. */

#include "tests/stress/ops.h"

#include <string.h>

struct range {
    uint64_t offset, length;
};

static uint64_t
cluster_size(const struct run *run)
{
    return UINT64_C(1) << run->params.cluster_bits;
}

/* A range of the disk that two random numbers stand for: of any alignment, mostly short. */
static struct range
pick(struct run *run, const uint64_t *arg)
{
    static const unsigned aligned[] = {0, 0, 9, 9, 12};
    uint64_t size = run->model.active.size, offset = (arg[0] >> 4) % size;
    unsigned how = arg[0] & 7, kind = arg[1] & 7;
    unsigned bits = how < 5 ? aligned[how] : run->params.cluster_bits;
    uint64_t longest = kind == 0   ? 16
                       : kind < 3  ? 1024
                       : kind == 3 ? cluster_size(run)
                       : kind < 6  ? 3 * cluster_size(run)
                       : kind == 6 ? size / 4
                                   : size;
    uint64_t length = (arg[1] >> 8) % (longest + 1);
    offset = offset >> bits << bits;
    if (arg[1] >> 4 & 1)
        length = (length + (UINT64_C(1) << bits) - 1) >> bits << bits;
    length = length > size - offset ? size - offset : length;
    say(run, " %llu+%llu", (unsigned long long)offset, (unsigned long long)length);
    return (struct range){.offset = offset, .length = length};
}

bool
op_write(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    struct range range = pick(run, arg);
    fill(run->scratch, range.length, arg[2]);
    int rc = q2_image_write(run->image, range.offset, run->scratch, range.length, &err);
    model_write(&run->model, range.offset, run->scratch, range.length);
    return succeeded(run, rc, &err, "write");
}

/* Cut [0, length) of `bytes` into parts, some of them empty. */
static int
cut(uint8_t *bytes, uint64_t length, uint64_t random, struct iovec *parts, int most)
{
    int count = 0;
    uint64_t done = 0;
    while (count < most - 1 && done < length) {
        uint64_t part = random_below(&random, length / 3 + 2);
        part = part > length - done ? length - done : part;
        parts[count++] = (struct iovec){.iov_base = bytes + done, .iov_len = part};
        done += part;
    }
    parts[count++] = (struct iovec){.iov_base = bytes + done, .iov_len = length - done};
    return count;
}

bool
op_writev(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    struct iovec parts[24];
    struct range range = pick(run, arg);
    fill(run->scratch, range.length, arg[2]);
    int count = cut(run->scratch, range.length, arg[3], parts, arg[3] & 1 ? 24 : 4);
    int rc = q2_image_writev(run->image, range.offset, parts, count, &err);
    model_write(&run->model, range.offset, run->scratch, range.length);
    return succeeded(run, rc, &err, "writev");
}

/* One to four clusters, one after the other, as programs write them. */
bool
op_compressed(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    uint64_t size = run->model.active.size, unit = cluster_size(run);
    uint64_t offset = arg[0] % size / unit * unit;
    for (uint64_t i = 0; i <= arg[1] % 4 && offset < size; i++, offset += unit) {
        uint64_t length = unit < size - offset ? unit : size - offset;
        fill(run->scratch, length, arg[2] + i);
        say(run, " %llu+%llu", (unsigned long long)offset, (unsigned long long)length);
        int rc = q2_image_write_compressed(run->image, offset, run->scratch, length, &err);
        if (run->params.data_file || run->params.crypt)
            return rc == Q2_ERR_UNSUPPORTED ||
                   fail(run, "a compressed cluster where there can be none: %d", rc);
        model_write(&run->model, offset, run->scratch, length);
        if (!succeeded(run, rc, &err, "write_compressed"))
            return false;
    }
    return true;
}

static bool
zero(struct run *run, const uint64_t *arg, unsigned flags)
{
    struct q2_error err = {0};
    struct range range = pick(run, arg);
    int rc = q2_image_zero(run->image, range.offset, range.length, flags, &err);
    model_touch(&run->model, range.offset, range.length);
    model_zero(&run->model, range.offset, range.length);
    return succeeded(run, rc, &err, "zero");
}

bool
op_zero(struct run *run, const uint64_t *arg)
{
    return zero(run, arg, 0);
}

bool
op_unmap(struct run *run, const uint64_t *arg)
{
    return zero(run, arg, Q2_ZERO_UNMAP);
}

bool
op_discard(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    struct range range = pick(run, arg);
    uint64_t unit = cluster_size(run), size = run->model.active.size;
    uint64_t start = (range.offset + unit - 1) / unit * unit, end = range.offset + range.length;
    int rc = q2_image_discard(run->image, range.offset, range.length, &err);
    end = end == size ? end : end / unit * unit;
    model_touch(&run->model, range.offset, range.length);
    if (start < end && (q2_image_header(run->image)->version >= 3 || !run->params.below))
        model_zero(&run->model, start, end - start);
    return succeeded(run, rc, &err, "discard");
}

bool
op_empty(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    (void)arg;
    int rc = q2_image_make_empty(run->image, &err);
    model_empty(&run->model, &run->params);
    return succeeded(run, rc, &err, "make_empty");
}

bool
op_flush(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    int rc = q2_image_flush(run->image, &err);
    if (!succeeded(run, rc, &err, "flush"))
        return false;
    run->flushes++;
    /* Lazy refcounts are behind while the image is open. */
    bool lazy = q2_image_header(run->image)->compatible_features & Q2_COMPATIBLE_LAZY_REFCOUNTS;
    return arg[0] % 4 != 0 || lazy || verify_clean(run, "after a flush");
}

bool
op_reopen(struct run *run, const uint64_t *arg)
{
    if (!run_close(run) || !verify_clean(run, "after closing"))
        return false;
    return run_open(run, Q2_IMAGE_WRITE) && (arg[0] % 4 != 0 || verify_open(run));
}

bool
op_invalidate(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    (void)arg;
    return succeeded(run, q2_image_invalidate(run->image, &err), &err, "invalidate");
}

bool
op_read(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    struct iovec parts[24];
    struct range range = pick(run, arg);
    memset(run->scratch, 0xEE, range.length);
    int count = cut(run->scratch, range.length, arg[3], parts, arg[3] & 1 ? 24 : 4);
    int rc = q2_image_readv(run->image, range.offset, parts, count, &err);
    if (!succeeded(run, rc, &err, "readv"))
        return false;
    return memcmp(run->scratch, run->model.active.disk + range.offset, range.length) == 0 ||
           fail(run, "wrong bytes read from %llu to %llu", (unsigned long long)range.offset,
                (unsigned long long)(range.offset + range.length));
}

bool
op_map(struct run *run, const uint64_t *arg)
{
    return verify_map(run, arg[0] % run->model.active.size);
}

bool
op_verify(struct run *run, const uint64_t *arg)
{
    (void)arg;
    return verify_open(run);
}
