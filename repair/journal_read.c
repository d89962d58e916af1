/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Reading an undo journal, which may have been made by anybody: every number is held against the
 * size of the file and the rules of journal_parts.h before it is used, and no digest is taken as a
 * proof that who made it meant well. */

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/base/zeros.h"
#include "repair/journal_parts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    BUFFER_LENGTH = Q2_JOURNAL_RECORD_LENGTH + Q2_JOURNAL_LENGTH_MAX +
                    Q2_JOURNAL_MARKS_MAX * Q2_JOURNAL_MARK_LENGTH,
};

const char q2_journal_states[][Q2_JOURNAL_STATE_LENGTH + 1] = {
    [Q2_JOURNAL_INCOMPLETE] = "prepare ",
    [Q2_JOURNAL_APPLYING] = "applying",
    [Q2_JOURNAL_DONE] = "complete",
    [Q2_JOURNAL_UNDONE] = "undone..",
};

/* ---- the header ---- */

static int
find_state(const struct q2_file *journal, const uint8_t *header, enum q2_journal_state *ret_state,
           struct q2_error *err)
{
    for (int i = 0; i < Q2_JOURNAL_STATES; i++) {
        if (memcmp(header + Q2_JOURNAL_STATE_AT, q2_journal_states[i], Q2_JOURNAL_STATE_LENGTH))
            continue;
        *ret_state = (enum q2_journal_state)i;
        return 0;
    }
    return q2_error_set(err, Q2_ERR_FORMAT,
                        "%s: the state of the undo journal, at offset %d, is none that exists",
                        journal->name, Q2_JOURNAL_STATE_AT);
}

static int
check_header(struct q2_journal_reader *reader, const uint8_t *header, struct q2_error *err)
{
    const char *name = reader->journal->name;
    struct q2_journal_info *info = &reader->info;
    if (memcmp(header, Q2_JOURNAL_MAGIC, 8) != 0)
        return q2_error_set(err, Q2_ERR_FORMAT, "%s: this is no undo journal", name);
    uint32_t version = q2_load_be32(header + 8), length = q2_load_be32(header + 12);
    if (version != Q2_JOURNAL_VERSION || length != Q2_JOURNAL_HEADER_LENGTH)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: the undo journal has version %" PRIu32 " and a header of %" PRIu32
                            " bytes, where %d and %d are known",
                            name, version, length, Q2_JOURNAL_VERSION, Q2_JOURNAL_HEADER_LENGTH);
    int rc = find_state(reader->journal, header, &info->state, err);
    if (rc < 0 || info->state == Q2_JOURNAL_INCOMPLETE)
        return rc;
    info->size_before = q2_load_be64(header + 24);
    info->size_after = q2_load_be64(header + 32);
    info->made_at = q2_load_be64(header + 40);
    if (info->size_before > Q2_FILE_SIZE_MAX || info->size_after > Q2_FILE_SIZE_MAX)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: the undo journal is about an image of %" PRIu64 " and %" PRIu64
                            " bytes: no file is that large",
                            name, info->size_before, info->size_after);
    rc = q2_journal_hash_add(&reader->hash, header, Q2_JOURNAL_STATE_AT, err);
    const int rest = Q2_JOURNAL_STATE_AT + Q2_JOURNAL_STATE_LENGTH;
    return rc < 0 ? rc
                  : q2_journal_hash_add(&reader->hash, header + rest,
                                        (size_t)(Q2_JOURNAL_HEADER_LENGTH - rest), err);
}

int
q2_journal_reader_init(struct q2_journal_reader *reader, struct q2_file *journal,
                       struct q2_error *err)
{
    uint8_t header[Q2_JOURNAL_HEADER_LENGTH];
    uint64_t size;
    *reader = (struct q2_journal_reader){.journal = journal};
    int rc = q2_file_size(journal, &size, err);
    if (rc == 0)
        rc = q2_file_read_padded(journal, 0, header, sizeof header, err);
    if (rc < 0)
        return rc;
    /* A power cut may leave the header as a hole, but not what comes after it without it. */
    if (size <= sizeof header && q2_is_zero(header, sizeof header))
        return 0;
    rc = q2_journal_hash_init(&reader->hash, err);
    if (rc == 0)
        rc = check_header(reader, header, err);
    if (rc < 0 || reader->info.state == Q2_JOURNAL_INCOMPLETE)
        return rc;
    if (size < Q2_JOURNAL_HEADER_LENGTH + Q2_JOURNAL_TRAILER_LENGTH)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: the undo journal was cut short: it has %" PRIu64 " bytes",
                            journal->name, size);
    reader->at = Q2_JOURNAL_HEADER_LENGTH;
    reader->end = size - Q2_JOURNAL_TRAILER_LENGTH;
    reader->capacity = (size_t)q2_min(BUFFER_LENGTH, reader->end - reader->at);
    reader->buffer = malloc(reader->capacity + 1);
    if (!reader->buffer)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory to read the undo journal",
                            journal->name);
    return 0;
}

void
q2_journal_reader_destroy(struct q2_journal_reader *reader)
{
    free(reader->buffer);
    reader->buffer = NULL;
    q2_journal_hash_destroy(&reader->hash);
}

/* ---- records ---- */

/* Where the byte that is read next is in the journal. */
static uint64_t
position(const struct q2_journal_reader *reader)
{
    return reader->at - (reader->filled - reader->taken);
}

static int
malformed(const struct q2_journal_reader *reader, const char *what, uint64_t number,
          struct q2_error *err)
{
    return q2_error_set(err, Q2_ERR_FORMAT,
                        "%s: the record of the undo journal at offset %" PRIu64 " %s (%" PRIu64 ")",
                        reader->journal->name, position(reader), what, number);
}

/* Have `length` bytes, no more than the largest record has, at buffer + taken. */
static int
need(struct q2_journal_reader *reader, size_t length, struct q2_error *err)
{
    size_t ready = reader->filled - reader->taken;
    if (length <= ready)
        return 0;
    if (length - ready > reader->end - reader->at)
        return malformed(reader, "goes on past the end of the journal, in bytes", length, err);
    memmove(reader->buffer, reader->buffer + reader->taken, ready);
    reader->filled = ready;
    reader->taken = 0;
    size_t more = (size_t)q2_min(reader->capacity - ready, reader->end - reader->at);
    int rc = q2_file_read(reader->journal, reader->at, reader->buffer + ready, more, err);
    if (rc < 0)
        return rc;
    reader->filled += more;
    reader->at += more;
    return 0;
}

static int
check_range(const struct q2_journal_reader *reader, const struct q2_journal_record *record,
            struct q2_error *err)
{
    const struct q2_journal_info *info = &reader->info;
    uint64_t largest = q2_max(info->size_before, info->size_after);
    if (record->length == 0 || record->length > Q2_JOURNAL_LENGTH_MAX)
        return malformed(reader, "covers a number of bytes that no record has", record->length,
                         err);
    if (record->offset < reader->reached)
        return malformed(reader, "is out of order, with offset", record->offset, err);
    if (!q2_range_inside(record->offset, record->length, largest))
        return malformed(reader, "lies outside the image, with offset", record->offset, err);
    if (record->before != Q2_BEFORE_ZEROS &&
        !q2_range_inside(record->offset, record->length, info->size_before))
        return malformed(reader, "has bytes that the image did not have, with offset",
                         record->offset, err);
    if (record->after != Q2_AFTER_ZEROS &&
        !q2_range_inside(record->offset, record->length, info->size_after))
        return malformed(reader, "has bytes that the image does not come to have, with offset",
                         record->offset, err);
    return 0;
}

static int
decode(const struct q2_journal_reader *reader, const uint8_t *bytes,
       struct q2_journal_record *record, struct q2_error *err)
{
    uint32_t before = q2_load_be32(bytes + 16), after = q2_load_be32(bytes + 20);
    if (before > Q2_BEFORE_UNREADABLE)
        return malformed(reader, "is of an unknown kind", before, err);
    if (after > Q2_AFTER_ZEROS || (before == Q2_BEFORE_ZEROS && after == Q2_AFTER_ZEROS))
        return malformed(reader, "is of an unknown kind", after, err);
    *record = (struct q2_journal_record){.offset = q2_load_be64(bytes),
                                         .length = q2_load_be64(bytes + 8),
                                         .before = (enum q2_journal_before)before,
                                         .after = (enum q2_journal_after)after};
    return check_range(reader, record, err);
}

int
q2_journal_next(struct q2_journal_reader *reader, struct q2_journal_record *ret_record,
                struct q2_error *err)
{
    struct q2_journal_record record;
    if (position(reader) == reader->end)
        return 0;
    int rc = need(reader, Q2_JOURNAL_RECORD_LENGTH, err);
    if (rc == 0)
        rc = decode(reader, reader->buffer + reader->taken, &record, err);
    if (rc < 0)
        return rc;
    size_t marks = 0, bytes = 0;
    if (record.after == Q2_AFTER_MARKS)
        marks = (size_t)q2_journal_sectors(record.offset, record.length) * Q2_JOURNAL_MARK_LENGTH;
    if (record.before == Q2_BEFORE_BYTES)
        bytes = (size_t)record.length;
    size_t all = Q2_JOURNAL_RECORD_LENGTH + marks + bytes;
    rc = need(reader, all, err);
    if (rc == 0)
        rc = q2_journal_hash_add(&reader->hash, reader->buffer + reader->taken, all, err);
    if (rc < 0)
        return rc;
    const uint8_t *data = reader->buffer + reader->taken + Q2_JOURNAL_RECORD_LENGTH;
    record.marks = marks ? data : NULL;
    record.bytes = bytes ? data + marks : NULL;
    reader->taken += all;
    reader->reached = record.offset + record.length;
    reader->info.records++;
    reader->info.bytes += bytes;
    if (record.before == Q2_BEFORE_UNREADABLE)
        reader->info.unreadable += record.length;
    *ret_record = record;
    return 1;
}

int
q2_journal_reader_end(struct q2_journal_reader *reader, struct q2_error *err)
{
    const struct q2_journal_info *info = &reader->info;
    uint8_t trailer[Q2_JOURNAL_TRAILER_LENGTH], digest[Q2_JOURNAL_DIGEST_LENGTH];
    int rc = q2_file_read(reader->journal, reader->end, trailer, sizeof trailer, err);
    if (rc == 0)
        rc = q2_journal_hash_add(&reader->hash, trailer, Q2_JOURNAL_DIGEST_AT, err);
    if (rc == 0)
        rc = q2_journal_hash_end(&reader->hash, digest, err);
    if (rc < 0)
        return rc;
    if (memcmp(trailer, Q2_JOURNAL_END, 8) != 0 || q2_load_be64(trailer + 24) != 0)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: the undo journal was cut short: no trailer at offset %" PRIu64,
                            reader->journal->name, reader->end);
    if (memcmp(trailer + Q2_JOURNAL_DIGEST_AT, digest, sizeof digest) != 0)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: the undo journal is damaged: its digest at offset %" PRIu64
                            " is not that of its content",
                            reader->journal->name, reader->end + Q2_JOURNAL_DIGEST_AT);
    if (q2_load_be64(trailer + 8) != info->records || q2_load_be64(trailer + 16) != info->bytes)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: the undo journal has %" PRIu64 " records with %" PRIu64
                            " bytes, and claims %" PRIu64 " with %" PRIu64,
                            reader->journal->name, info->records, info->bytes,
                            q2_load_be64(trailer + 8), q2_load_be64(trailer + 16));
    return 0;
}

/* ---- the whole ---- */

int
q2_journal_read(struct q2_file *journal, struct q2_journal_info *ret_info, struct q2_error *err)
{
    struct q2_journal_reader reader;
    struct q2_journal_record record;
    int rc = q2_journal_reader_init(&reader, journal, err);
    if (rc == 0 && reader.info.state != Q2_JOURNAL_INCOMPLETE) {
        do
            rc = q2_journal_next(&reader, &record, err);
        while (rc > 0);
        if (rc == 0)
            rc = q2_journal_reader_end(&reader, err);
    }
    if (rc == 0)
        *ret_info = reader.info;
    q2_journal_reader_destroy(&reader);
    return rc;
}
