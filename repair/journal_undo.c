/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Undoing: three passes over the journal. The first believes nothing; the second compares the image
 * with what it should hold, before or after; the third writes. Each step can be done again. */

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/base/zeros.h"
#include "repair/journal_parts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct undo {
    struct q2_file *journal, *image;
    struct q2_journal_info info;
    uint8_t *buffer; /* Q2_JOURNAL_LENGTH_MAX bytes of the image */
    bool repaired;   /* some of the image is not what it was before */
    struct q2_journal_hash hash;
};

int
q2_journal_put(struct q2_file *image, uint64_t offset, const uint8_t *bytes, uint64_t length,
               struct q2_error *err)
{
    uint64_t first = offset % Q2_JOURNAL_SECTOR ? q2_journal_in_sector(offset, length) : 0;
    int rc = first ? q2_file_write(image, offset, bytes, (size_t)first, err) : 0;
    if (rc == 0 && first < length)
        rc = q2_file_write(image, offset + first, bytes + first, (size_t)(length - first), err);
    return rc;
}

int
q2_journal_resize(struct q2_file *image, uint64_t wanted, bool grow, struct q2_error *err)
{
    uint64_t size;
    int rc = q2_file_size(image, &size, err);
    if (rc < 0 || (grow ? size >= wanted : size <= wanted))
        return rc;
    rc = q2_file_truncate(image, wanted, err);
    return rc < 0 ? rc : q2_file_flush(image, err);
}

/* ---- is it the image, and is it as it was left ---- */

/* Whether `length` bytes of one sector are what the record says they were, or came to be. */
static int
is_known(struct undo *undo, const struct q2_journal_record *record, uint64_t done, uint64_t number,
         uint64_t length, const uint8_t *bytes, bool *ret_known, struct q2_error *err)
{
    uint8_t mark[Q2_JOURNAL_MARK_LENGTH];
    bool zeros = q2_is_zero(bytes, (size_t)length);
    *ret_known = true;
    if (record->before == Q2_BEFORE_UNREADABLE || (zeros && record->before == Q2_BEFORE_ZEROS) ||
        (record->bytes && memcmp(record->bytes + done, bytes, (size_t)length) == 0))
        return 0;
    undo->repaired = true;
    if (zeros && record->after == Q2_AFTER_ZEROS)
        return 0;
    *ret_known = false;
    if (!record->marks)
        return 0;
    int rc = q2_journal_hash_mark(&undo->hash, bytes, (size_t)length, mark, err);
    if (rc == 0)
        *ret_known = memcmp(record->marks + number * sizeof mark, mark, sizeof mark) == 0;
    return rc;
}

/* A sector that cannot be read is one that writing may mend. */
static int
check_record(struct undo *undo, const struct q2_journal_record *record, struct q2_error *err)
{
    int whole =
        q2_file_read_padded(undo->image, record->offset, undo->buffer, (size_t)record->length, err);
    if (whole < 0 && whole != Q2_ERR_IO)
        return whole;
    uint64_t piece, number = 0;
    for (uint64_t done = 0; done < record->length; done += piece, number++) {
        uint64_t at = record->offset + done;
        bool known = true;
        int rc = 0;
        piece = q2_journal_in_sector(at, record->length - done);
        if (whole < 0)
            rc = q2_file_read_padded(undo->image, at, undo->buffer + done, (size_t)piece, err);
        if (rc == 0)
            rc = is_known(undo, record, done, number, piece, undo->buffer + done, &known, err);
        if (rc < 0 && rc != Q2_ERR_IO)
            return rc;
        if (!known)
            return q2_error_set(err, Q2_ERR_FORMAT,
                                "%s: %" PRIu64 " bytes at offset %" PRIu64 " are neither what they "
                                "were before the repair nor what it wrote: the image has been "
                                "changed since, or is another one",
                                undo->image->name, piece, at);
    }
    return 0;
}

static int
check_size(struct undo *undo, struct q2_error *err)
{
    const struct q2_journal_info *info = &undo->info;
    uint64_t size;
    int rc = q2_file_size(undo->image, &size, err);
    if (rc < 0)
        return rc;
    if (size < q2_min(info->size_before, info->size_after) ||
        size > q2_max(info->size_before, info->size_after))
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: it has %" PRIu64 " bytes, while it had %" PRIu64 " before the "
                            "repair and %" PRIu64 " afterwards: the image has been changed since, "
                            "or is another one",
                            undo->image->name, size, info->size_before, info->size_after);
    undo->repaired |= size != info->size_before;
    return 0;
}

/* ---- writing ---- */

static int
restore_record(struct undo *undo, const struct q2_journal_record *record, struct q2_error *err)
{
    uint64_t end = q2_min(record->offset + record->length, undo->info.size_before);
    if (record->bytes)
        return q2_journal_put(undo->image, record->offset, record->bytes, record->length, err);
    /* What was not there before is cut off in the end. */
    if (record->before == Q2_BEFORE_UNREADABLE || record->offset >= end)
        return 0;
    return q2_file_punch(undo->image, record->offset, end - record->offset, err);
}

static int
each_record(struct undo *undo,
            int (*act)(struct undo *undo, const struct q2_journal_record *record,
                       struct q2_error *err),
            struct q2_error *err)
{
    struct q2_journal_reader reader;
    struct q2_journal_record record;
    int rc = q2_journal_reader_init(&reader, undo->journal, err);
    while (rc == 0 && (rc = q2_journal_next(&reader, &record, err)) > 0)
        rc = act(undo, &record, err);
    q2_journal_reader_destroy(&reader);
    return rc;
}

static int
restore(struct undo *undo, struct q2_error *err)
{
    int rc = 0;
    if (undo->info.state != Q2_JOURNAL_APPLYING)
        rc = q2_journal_mark(undo->journal, Q2_JOURNAL_APPLYING, err);
    if (rc == 0)
        rc = q2_journal_resize(undo->image, undo->info.size_before, true, err);
    if (rc == 0)
        rc = each_record(undo, restore_record, err);
    if (rc == 0)
        rc = q2_journal_resize(undo->image, undo->info.size_before, false, err);
    if (rc == 0)
        rc = q2_file_flush(undo->image, err);
    return rc < 0 ? rc : q2_journal_mark(undo->journal, Q2_JOURNAL_UNDONE, err);
}

/* Verify the journal, and the image by it unless that is not to be asked. */
static int
examine(struct undo *undo, bool trust, struct q2_error *err)
{
    int rc = q2_journal_read(undo->journal, &undo->info, err);
    if (rc < 0)
        return rc;
    if (undo->info.state == Q2_JOURNAL_INCOMPLETE)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: the undo journal was never completed, so nothing has been written "
                            "to the image",
                            undo->journal->name);
    if (trust)
        return 0;
    /* No record reaches beyond the larger of the two. */
    uint64_t largest = q2_max(undo->info.size_before, undo->info.size_after);
    Q2_AUTOFREE uint8_t *buffer = malloc(q2_min(Q2_JOURNAL_LENGTH_MAX, largest) + 1);
    if (!buffer)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory to undo a repair", undo->image->name);
    undo->buffer = buffer;
    rc = check_size(undo, err);
    if (rc == 0)
        rc = q2_journal_hash_init(&undo->hash, err);
    if (rc == 0)
        rc = each_record(undo, check_record, err);
    q2_journal_hash_destroy(&undo->hash);
    return rc;
}

int
q2_journal_undo(struct q2_file *journal, struct q2_file *image, bool force, struct q2_error *err)
{
    struct undo undo = {.journal = journal, .image = image};
    int rc = examine(&undo, force, err);
    return rc < 0 ? rc : restore(&undo, err);
}

int
q2_journal_is_undone(struct q2_file *journal, struct q2_file *image, bool *ret_undone,
                     struct q2_error *err)
{
    struct undo undo = {.journal = journal, .image = image};
    int rc = examine(&undo, false, err);
    if (rc == 0)
        *ret_undone = !undo.repaired;
    return rc;
}
