/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The undo journal as it stands in its file; private to those who write, read and apply it.
 *
 *   header, 4096 bytes   0 magic, 8 version, 12 length of the header, 16 state as 8 letters,
 *                        24 size before, 32 size after, 40 made at; zeros
 *   records, ascending   0 offset, 8 length, 16 what was there (enum q2_journal_before),
 *                        20 what comes there (enum q2_journal_after); then for MARKS the marks,
 *                        then for BYTES the bytes
 *   trailer, 64 bytes    0 magic, 8 records, 16 bytes saved, 24 zeros, 32 digest
 *
 * Both images count as followed by zeros without end, so that growing and cutting off are changes
 * like any other. A mark is the first half of the digest of what is in one sector of the image, or
 * in the part of it that the record covers: sectors are what a write that is cut short is cut at.
 *
 * The header goes to the disk before anything else; as long as the state in it is "prepare ", the
 * rest means nothing. It fills a page of its own, so that setting the state rewrites no record. */

#ifndef Q2_REPAIR_JOURNAL_PARTS_H
#define Q2_REPAIR_JOURNAL_PARTS_H

#include "repair/journal.h"

#define Q2_JOURNAL_MAGIC "q2-undo\n"
#define Q2_JOURNAL_END   "q2-done\n"

enum {
    Q2_JOURNAL_VERSION = 1,
    Q2_JOURNAL_HEADER_LENGTH = 4096,
    Q2_JOURNAL_RECORD_LENGTH = 24,
    Q2_JOURNAL_TRAILER_LENGTH = 64,
    Q2_JOURNAL_STATE_AT = 16,
    Q2_JOURNAL_STATE_LENGTH = 8,
    Q2_JOURNAL_DIGEST_AT = 32, /* in the trailer */
    Q2_JOURNAL_DIGEST_LENGTH = 32,
    Q2_JOURNAL_MARK_LENGTH = 16,
    Q2_JOURNAL_SECTOR = 512,
    Q2_JOURNAL_LENGTH_MAX = Q2_EDIT_LENGTH_MAX, /* of what one record covers */
    Q2_JOURNAL_MARKS_MAX = Q2_JOURNAL_LENGTH_MAX / Q2_JOURNAL_SECTOR + 1,
};

/* Eight letters and a NUL each, far apart, so that no flipped bit makes one of another. */
extern const char q2_journal_states[][Q2_JOURNAL_STATE_LENGTH + 1];
enum { Q2_JOURNAL_STATES = Q2_JOURNAL_UNDONE + 1 };

enum q2_journal_before {
    Q2_BEFORE_BYTES,
    Q2_BEFORE_ZEROS,
    Q2_BEFORE_UNREADABLE, /* undoing leaves what is there then */
};

enum q2_journal_after {
    Q2_AFTER_MARKS,
    Q2_AFTER_ZEROS,
};

struct q2_journal_record {
    uint64_t offset; /* bytes */
    uint64_t length;
    enum q2_journal_before before;
    enum q2_journal_after after;
    const uint8_t *marks; /* NULL without */
    const uint8_t *bytes; /* NULL without */
};

/* How many of `length` bytes from `offset` on are in the same sector. */
static inline uint64_t
q2_journal_in_sector(uint64_t offset, uint64_t length)
{
    uint64_t rest = Q2_JOURNAL_SECTOR - offset % Q2_JOURNAL_SECTOR;
    return rest < length ? rest : length;
}

/* The number of sectors that `length` bytes from `offset` on have a part in; at least one byte. */
static inline uint64_t
q2_journal_sectors(uint64_t offset, uint64_t length)
{
    return (offset + length - 1) / Q2_JOURNAL_SECTOR - offset / Q2_JOURNAL_SECTOR + 1;
}

/* Write bytes to an image so that a write that is torn is torn between sectors of the image. */
int q2_journal_put(struct q2_file *image, uint64_t offset, const uint8_t *bytes, uint64_t length,
                   struct q2_error *err);

/* Make an image `wanted` bytes long, durably, if it is shorter (grow) or longer. A length that is
 * right already is not set: a device has but one. */
int q2_journal_resize(struct q2_file *image, uint64_t wanted, bool grow, struct q2_error *err);

/* ---- digests ---- */

struct q2_journal_hash {
    void *md, *whole, *mark; /* libcrypto's */
};

/* q2_journal_hash_destroy takes one of zeros, or one for which this failed. */
int q2_journal_hash_init(struct q2_journal_hash *hash, struct q2_error *err);
void q2_journal_hash_destroy(struct q2_journal_hash *hash);
int q2_journal_hash_add(struct q2_journal_hash *hash, const void *bytes, size_t length,
                        struct q2_error *err);
/* The digest of all that was added; once. */
int q2_journal_hash_end(struct q2_journal_hash *hash, uint8_t ret_digest[Q2_JOURNAL_DIGEST_LENGTH],
                        struct q2_error *err);
/* The mark of some bytes, which has nothing to do with those that were added. */
int q2_journal_hash_mark(struct q2_journal_hash *hash, const void *bytes, size_t length,
                         uint8_t ret_mark[Q2_JOURNAL_MARK_LENGTH], struct q2_error *err);

/* ---- reading ---- */

/* Steps through the records, holding each against the rules and adding it to the digest. */
struct q2_journal_reader {
    struct q2_file *journal;
    struct q2_journal_info info; /* counts are of what has been read */
    uint64_t at, end;            /* of the records that have not been read into the buffer, bytes */
    uint64_t reached;            /* the end of the last record's range */
    uint8_t *buffer;
    size_t capacity;
    size_t filled, taken; /* bytes in the buffer, and of those the ones that were used */
    struct q2_journal_hash hash;
};

/* Begin with the header. Destroy the reader also if this failed. Where the state is INCOMPLETE,
 * there is nothing to read. */
int q2_journal_reader_init(struct q2_journal_reader *reader, struct q2_file *journal,
                           struct q2_error *err);
void q2_journal_reader_destroy(struct q2_journal_reader *reader);

/* 1: a record, whose pointers are valid until the next call; 0: that was the last one. */
int q2_journal_next(struct q2_journal_reader *reader, struct q2_journal_record *ret_record,
                    struct q2_error *err);

/* After the last record: hold the trailer against what was read. */
int q2_journal_reader_end(struct q2_journal_reader *reader, struct q2_error *err);

#endif
