/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A list of what happened. A change and its record are made under one lock, so that the order of
 * the list is the order of the file; memory for the record is taken first, so that nothing happens
 * that is not remembered. */

#include "core/io/record.h"

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/io/forward.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* One allocation, so that a record stays where it is while the list grows. */
struct entry {
    struct q2_record record;
    uint8_t bytes[];
};

struct record_file {
    struct q2_forward forward;
    pthread_mutex_t lock; /* over all below, and over changes of the base */
    struct entry **entries;
    size_t count;
    size_t capacity;
};

static struct record_file *
record_of(struct q2_file *file)
{
    return (struct record_file *)file;
}

/* For those that only look: the lock changes, what it guards does not. */
static struct record_file *
peek(const struct q2_file *file)
{
    return (struct record_file *)(uintptr_t)file;
}

static int
reserve(struct record_file *recorder, struct q2_error *err)
{
    if (recorder->count < recorder->capacity)
        return 0;
    size_t capacity = recorder->capacity ? recorder->capacity * 2 : 64;
    struct entry **entries = reallocarray(recorder->entries, capacity, sizeof(struct entry *));
    if (!entries)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for %zu records",
                            recorder->forward.file.name, capacity);
    recorder->entries = entries;
    recorder->capacity = capacity;
    return 0;
}

static int
entry_new(const struct record_file *recorder, enum q2_record_kind kind, uint64_t offset,
          uint64_t length, size_t bytes, struct entry **ret_entry, struct q2_error *err)
{
    struct entry *entry = malloc(sizeof *entry + bytes);
    if (!entry)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory to record %zu bytes",
                            recorder->forward.file.name, bytes);
    entry->record = (struct q2_record){.kind = kind,
                                       .offset = offset,
                                       .length = length,
                                       .bytes = bytes ? entry->bytes : NULL};
    *ret_entry = entry;
    return 0;
}

static void
gather(uint8_t *to, const struct iovec *iov, int iov_count)
{
    for (int i = 0; i < iov_count; i++) {
        if (iov[i].iov_len)
            memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
}

static int
apply(struct q2_file *target, const struct q2_record *record, struct q2_error *err)
{
    switch (record->kind) {
    case Q2_RECORD_WRITE:
        return q2_file_write(target, record->offset, record->bytes, (size_t)record->length, err);
    case Q2_RECORD_FLUSH:
        return q2_file_flush(target, err);
    case Q2_RECORD_TRUNCATE:
        return q2_file_truncate(target, record->offset, err);
    case Q2_RECORD_PUNCH:
        return q2_file_punch(target, record->offset, record->length, err);
    }
    return 0;
}

/* Do what the entry says to the base, and keep the entry if that went well. Takes the entry. */
static int
perform(struct record_file *recorder, struct entry *taken, struct q2_error *err)
{
    Q2_AUTOFREE struct entry *entry = taken;
    pthread_mutex_lock(&recorder->lock);
    int rc = reserve(recorder, err);
    if (rc == 0)
        rc = apply(recorder->forward.base, &entry->record, err);
    if (rc == 0)
        recorder->entries[recorder->count++] = Q2_STEAL(entry);
    pthread_mutex_unlock(&recorder->lock);
    return rc;
}

static int
record_pwritev(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
               struct q2_error *err)
{
    struct record_file *recorder = record_of(file);
    size_t length = q2_iov_total(iov, iov_count);
    struct entry *entry = NULL;
    int rc = entry_new(recorder, Q2_RECORD_WRITE, offset, length, length, &entry, err);
    if (rc < 0)
        return rc;
    gather(entry->bytes, iov, iov_count);
    return perform(recorder, entry, err);
}

static int
record_flush(struct q2_file *file, struct q2_error *err)
{
    struct record_file *recorder = record_of(file);
    struct entry *entry = NULL;
    int rc = entry_new(recorder, Q2_RECORD_FLUSH, 0, 0, 0, &entry, err);
    return rc < 0 ? rc : perform(recorder, entry, err);
}

static int
record_truncate(struct q2_file *file, uint64_t size, struct q2_error *err)
{
    struct record_file *recorder = record_of(file);
    struct entry *entry = NULL;
    int rc = entry_new(recorder, Q2_RECORD_TRUNCATE, size, 0, 0, &entry, err);
    return rc < 0 ? rc : perform(recorder, entry, err);
}

static int
record_punch(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err)
{
    struct record_file *recorder = record_of(file);
    struct entry *entry = NULL;
    int rc = entry_new(recorder, Q2_RECORD_PUNCH, offset, length, 0, &entry, err);
    return rc < 0 ? rc : perform(recorder, entry, err);
}

static void
record_close(struct q2_file *file)
{
    struct record_file *recorder = record_of(file);
    for (size_t i = 0; i < recorder->count; i++)
        free(recorder->entries[i]);
    free(recorder->entries);
    pthread_mutex_destroy(&recorder->lock);
    q2_file_fini(file);
    free(recorder);
}

static const struct q2_file_ops record_ops = {
    .preadv = q2_forward_preadv,
    .pwritev = record_pwritev,
    .flush = record_flush,
    .truncate = record_truncate,
    .size = q2_forward_size,
    .extent = q2_forward_extent,
    .punch = record_punch,
    .prefetch = q2_forward_prefetch,
    .allocated = q2_forward_allocated,
    .close = record_close,
};

int
q2_file_new_record(struct q2_file *base, struct q2_file **ret_file, struct q2_error *err)
{
    Q2_AUTOFREE struct record_file *recorder = calloc(1, sizeof *recorder);
    if (!recorder)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for a recorder", base->name);
    int rc = q2_file_init(&recorder->forward.file, &record_ops, base->name, base->writable, err);
    if (rc < 0)
        return rc;
    recorder->forward.base = base;
    pthread_mutex_init(&recorder->lock, NULL);
    *ret_file = &Q2_STEAL(recorder)->forward.file;
    return 0;
}

size_t
q2_record_count(const struct q2_file *file)
{
    struct record_file *recorder = peek(file);
    pthread_mutex_lock(&recorder->lock);
    size_t count = recorder->count;
    pthread_mutex_unlock(&recorder->lock);
    return count;
}

const struct q2_record *
q2_record_at(const struct q2_file *file, size_t index)
{
    struct record_file *recorder = peek(file);
    pthread_mutex_lock(&recorder->lock);
    const struct q2_record *record = &recorder->entries[index]->record;
    pthread_mutex_unlock(&recorder->lock);
    return record;
}

/* The number of records up to and including the last barrier below `count`. */
static size_t
durable_count(const struct q2_file *file, size_t count)
{
    while (count && q2_record_at(file, count - 1)->kind != Q2_RECORD_FLUSH)
        count--;
    return count;
}

int
q2_record_replay(const struct q2_file *file, size_t count, bool (*keep)(size_t index, void *data),
                 void *data, struct q2_file *target, struct q2_error *err)
{
    size_t recorded = q2_record_count(file);
    if (count > recorded)
        return q2_error_set(err, Q2_ERR_RANGE, "%s: cannot replay %zu of %zu records", file->name,
                            count, recorded);
    size_t durable = durable_count(file, count);
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        if (i < durable || !keep || keep(i, data))
            rc = apply(target, q2_record_at(file, i), err);
    }
    return rc;
}
