/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Small files to repair, and undo journals of that, read a second time.
 *
 * The reading here follows the words of repair/journal_parts.h and shares nothing with the one in
 * repair/: what the two make of the same bytes must be the same. */

#ifndef Q2_FUZZ_SUPPORT_JOURNAL_H
#define Q2_FUZZ_SUPPORT_JOURNAL_H

#include "core/io/file.h"
#include "fuzz/fuzz.h"

enum {
    Q2_FUZZ_REPAIRS = 4, /* which keep the size of the file, grow it, shrink it, or empty it */
    Q2_FUZZ_REPAIR_MAX = 16384, /* bytes that a file has at most */
};

/* A file before and after a repair. */
struct q2_fuzz_repair {
    uint8_t before[Q2_FUZZ_REPAIR_MAX], after[Q2_FUZZ_REPAIR_MAX]; /* zeros behind their ends */
    size_t size_before, size_after;
};
void q2_fuzz_repair_make(unsigned number, struct q2_fuzz_repair *ret_repair);

/* The journal that q2_journal_write makes of it. The caller frees *ret_bytes. */
void q2_fuzz_journal_make(const struct q2_fuzz_repair *repair, uint8_t **ret_bytes,
                          size_t *ret_length);

/* What a journal says. */
struct q2_fuzz_record {
    uint64_t offset, length;
    uint32_t before, after;
    const uint8_t *marks, *bytes;
};
struct q2_fuzz_journal {
    bool valid;      /* all of it obeys the rules, and the digest is right */
    bool incomplete; /* nothing was written yet: none of the rest says anything */
    char state[9];
    uint64_t size_before, size_after;
    struct q2_fuzz_record *records;
    size_t count;
    uint64_t saved; /* bytes */
};
void q2_fuzz_journal_read(const uint8_t *bytes, size_t length, struct q2_fuzz_journal *ret_journal);
void q2_fuzz_journal_destroy(struct q2_fuzz_journal *journal);

/* Make a trailer for a header and records: *length is theirs, and grows. There is room for it. */
void q2_fuzz_journal_sign(uint8_t *bytes, size_t *length);

/* Whether undoing may touch this file: it has a size that it may have, and each part of a sector
 * that is in a record holds what it held before, or came to hold. */
bool q2_fuzz_journal_fits(const struct q2_fuzz_journal *journal, const uint8_t *bytes, size_t size);

/* Undo it in `bytes`, which have room for Q2_FUZZ_REPAIR_MAX and are zeros behind their end; the
 * sizes in the journal are no larger than that. */
void q2_fuzz_journal_undo(const struct q2_fuzz_journal *journal, uint8_t *bytes, size_t *size);

#endif
