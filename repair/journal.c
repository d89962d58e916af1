/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Making an undo journal: one pass over the edits, one piece of at most a mebibyte at a time.
 *
 * What is a hole, or all zeros, and stays so needs no record: that alone may be of any length.
 * What cannot be read is noted sector by sector; a repair may well be there to write over it. */

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/base/endian.h"
#include "core/base/zeros.h"
#include "repair/journal_parts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFER_LENGTH = 64 << 10 };

struct writer {
    struct q2_file *journal, *image;
    uint64_t at; /* of the first byte in the buffer, in the journal */
    uint8_t *buffer;
    size_t filled;
    uint8_t *before; /* as much of the image as one record can have */
    uint64_t size_before, size_after;
    uint64_t records, bytes;
    struct q2_journal_hash hash;
    struct q2_error *err; /* never NULL */
};

/* ---- the file ---- */

static int
put_out(struct writer *writer)
{
    int rc =
        q2_file_write(writer->journal, writer->at, writer->buffer, writer->filled, writer->err);
    if (rc < 0)
        return rc;
    writer->at += writer->filled;
    writer->filled = 0;
    return 0;
}

/* Append without adding to the digest. */
static int
append(struct writer *writer, const void *from, size_t length)
{
    for (const uint8_t *bytes = from; length;) {
        if (writer->filled == BUFFER_LENGTH) {
            int rc = put_out(writer);
            if (rc < 0)
                return rc;
        }
        size_t piece = (size_t)q2_min(length, BUFFER_LENGTH - writer->filled);
        memcpy(writer->buffer + writer->filled, bytes, piece);
        writer->filled += piece;
        bytes += piece;
        length -= piece;
    }
    return 0;
}

static int
add(struct writer *writer, const void *bytes, size_t length)
{
    int rc = q2_journal_hash_add(&writer->hash, bytes, length, writer->err);
    return rc < 0 ? rc : append(writer, bytes, length);
}

/* The header alone, durable: from here on the file is known for what it is. */
static int
put_header(struct writer *writer, uint64_t now)
{
    uint8_t header[Q2_JOURNAL_HEADER_LENGTH] = Q2_JOURNAL_MAGIC;
    const size_t rest = Q2_JOURNAL_STATE_AT + Q2_JOURNAL_STATE_LENGTH;
    q2_store_be32(header + 8, Q2_JOURNAL_VERSION);
    q2_store_be32(header + 12, Q2_JOURNAL_HEADER_LENGTH);
    memcpy(header + Q2_JOURNAL_STATE_AT, q2_journal_states[Q2_JOURNAL_INCOMPLETE],
           Q2_JOURNAL_STATE_LENGTH);
    q2_store_be64(header + 24, writer->size_before);
    q2_store_be64(header + 32, writer->size_after);
    q2_store_be64(header + 40, now);
    int rc = q2_file_write(writer->journal, 0, header, sizeof header, writer->err);
    if (rc == 0)
        rc = q2_file_flush(writer->journal, writer->err);
    if (rc == 0)
        rc = q2_journal_hash_add(&writer->hash, header, Q2_JOURNAL_STATE_AT, writer->err);
    if (rc == 0)
        rc = q2_journal_hash_add(&writer->hash, header + rest, sizeof header - rest, writer->err);
    writer->at = sizeof header;
    return rc;
}

static int
put_trailer(struct writer *writer)
{
    uint8_t trailer[Q2_JOURNAL_TRAILER_LENGTH] = Q2_JOURNAL_END;
    q2_store_be64(trailer + 8, writer->records);
    q2_store_be64(trailer + 16, writer->bytes);
    int rc = q2_journal_hash_add(&writer->hash, trailer, Q2_JOURNAL_DIGEST_AT, writer->err);
    if (rc == 0)
        rc = q2_journal_hash_end(&writer->hash, trailer + Q2_JOURNAL_DIGEST_AT, writer->err);
    if (rc == 0)
        rc = append(writer, trailer, sizeof trailer);
    if (rc == 0)
        rc = put_out(writer);
    return rc < 0 ? rc : q2_file_flush(writer->journal, writer->err);
}

/* ---- records ---- */

static int
put_marks(struct writer *writer, uint64_t offset, const uint8_t *bytes, uint64_t length)
{
    for (uint64_t done = 0, piece; done < length; done += piece) {
        uint8_t mark[Q2_JOURNAL_MARK_LENGTH];
        piece = q2_journal_in_sector(offset + done, length - done);
        int rc =
            q2_journal_hash_mark(&writer->hash, bytes + done, (size_t)piece, mark, writer->err);
        if (rc == 0)
            rc = add(writer, mark, sizeof mark);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* `bytes` are those that the image had, for Q2_BEFORE_BYTES; `after` those that it gets, or NULL
 * for zeros. */
static int
put_record(struct writer *writer, uint64_t offset, uint64_t length, enum q2_journal_before before,
           const uint8_t *bytes, const uint8_t *after)
{
    uint8_t record[Q2_JOURNAL_RECORD_LENGTH];
    q2_store_be64(record, offset);
    q2_store_be64(record + 8, length);
    q2_store_be32(record + 16, before);
    q2_store_be32(record + 20, after ? Q2_AFTER_MARKS : Q2_AFTER_ZEROS);
    int rc = add(writer, record, sizeof record);
    if (rc == 0 && after)
        rc = put_marks(writer, offset, after, length);
    if (rc == 0 && before == Q2_BEFORE_BYTES)
        rc = add(writer, bytes, (size_t)length);
    if (rc < 0)
        return rc;
    writer->records++;
    if (before == Q2_BEFORE_BYTES)
        writer->bytes += length;
    return 0;
}

/* A record of what was read, if it takes one. */
static int
put_known(struct writer *writer, uint64_t offset, uint64_t length, const uint8_t *bytes,
          const uint8_t *after)
{
    bool zeros = q2_is_zero(bytes, (size_t)length);
    if (zeros && !after)
        return 0;
    return put_record(writer, offset, length, zeros ? Q2_BEFORE_ZEROS : Q2_BEFORE_BYTES, bytes,
                      after);
}

/* Save `length` bytes, at most Q2_JOURNAL_LENGTH_MAX and all inside the image as it was. */
static int
save(struct writer *writer, uint64_t offset, uint64_t length, const uint8_t *after)
{
    int rc = q2_file_read(writer->image, offset, writer->before, (size_t)length, writer->err);
    if (rc == 0)
        return put_known(writer, offset, length, writer->before, after);
    if (rc != Q2_ERR_IO)
        return rc;
    rc = 0;
    for (uint64_t done = 0, piece; done < length && rc == 0; done += piece) {
        const uint8_t *to = after ? after + done : NULL;
        piece = q2_journal_in_sector(offset + done, length - done);
        rc = q2_file_read(writer->image, offset + done, writer->before, (size_t)piece, writer->err);
        if (rc == 0)
            rc = put_known(writer, offset + done, piece, writer->before, to);
        else if (rc == Q2_ERR_IO)
            rc = put_record(writer, offset + done, piece, Q2_BEFORE_UNREADABLE, NULL, to);
    }
    return rc;
}

/* Save what is not a hole of a range that becomes zeros, or is cut off. */
static int
save_zeroed(struct writer *writer, uint64_t offset, uint64_t end)
{
    uint64_t until;
    for (end = q2_min(end, writer->size_before); offset < end; offset = until) {
        bool data;
        int rc = q2_file_extent(writer->image, offset, &data, &until, writer->err);
        if (rc < 0)
            return rc;
        until = q2_min(until, end);
        if (!data)
            continue;
        uint64_t most = Q2_JOURNAL_LENGTH_MAX - offset % Q2_JOURNAL_LENGTH_MAX;
        until = q2_min(until, offset + most);
        rc = save(writer, offset, until - offset, NULL);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int
save_edit(const struct q2_edit *edit, void *data)
{
    struct writer *writer = data;
    uint64_t end = edit->offset + edit->length;
    if (!edit->bytes)
        return save_zeroed(writer, edit->offset, end);
    uint64_t old = 0; /* bytes that are not new */
    if (edit->offset < writer->size_before)
        old = q2_min(edit->length, writer->size_before - edit->offset);
    int rc = old ? save(writer, edit->offset, old, edit->bytes) : 0;
    if (rc == 0 && old < edit->length)
        rc = put_record(writer, edit->offset + old, edit->length - old, Q2_BEFORE_ZEROS, NULL,
                        edit->bytes + old);
    return rc;
}

/* ---- the whole ---- */

static int
begin(struct writer *writer, struct q2_file *overlay)
{
    uint64_t size;
    int rc = q2_file_size(writer->journal, &size, writer->err);
    if (rc == 0 && size)
        rc =
            q2_error_set(writer->err, Q2_ERR_EXISTS,
                         "%s: the file for the undo journal is not empty: it has %" PRIu64 " bytes",
                         writer->journal->name, size);
    if (rc == 0)
        rc = q2_file_size(writer->image, &writer->size_before, writer->err);
    if (rc == 0)
        rc = q2_file_size(overlay, &writer->size_after, writer->err);
    return rc < 0 ? rc : q2_journal_hash_init(&writer->hash, writer->err);
}

int
q2_journal_write(struct q2_file *journal, struct q2_file *image, struct q2_file *overlay,
                 uint64_t now, struct q2_error *err)
{
    struct q2_error local = {0};
    Q2_AUTOFREE uint8_t *buffer = malloc(BUFFER_LENGTH);
    Q2_AUTOFREE uint8_t *before = NULL;
    struct writer writer = {.journal = journal,
                            .image = image,
                            .buffer = buffer,
                            .err = err ? err : &local};
    int rc = begin(&writer, overlay);
    if (rc == 0)
        writer.before = before =
            malloc((size_t)q2_min(writer.size_before, Q2_JOURNAL_LENGTH_MAX) + 1);
    if (rc == 0 && (!buffer || !before))
        rc = q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory to write the undo journal",
                          journal->name);
    if (rc == 0)
        rc = put_header(&writer, now);
    if (rc == 0)
        rc = q2_overlay_visit(overlay, save_edit, &writer);
    if (rc == 0)
        rc = save_zeroed(&writer, writer.size_after, writer.size_before);
    if (rc == 0)
        rc = put_trailer(&writer);
    q2_journal_hash_destroy(&writer.hash);
    return rc < 0 ? rc : q2_journal_mark(journal, Q2_JOURNAL_APPLYING, err);
}

int
q2_journal_mark(struct q2_file *journal, enum q2_journal_state state, struct q2_error *err)
{
    int rc = q2_file_write(journal, Q2_JOURNAL_STATE_AT, q2_journal_states[state],
                           Q2_JOURNAL_STATE_LENGTH, err);
    return rc < 0 ? rc : q2_file_flush(journal, err);
}
