/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "fuzz/support/journal.h"

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/io/memory.h"
#include "core/io/overlay.h"
#include "fuzz/support/image.h"
#include "repair/journal.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER = 4096, RECORD = 24, TRAILER = 64, SECTOR = 512, MARK = 16, LONGEST = 1 << 20 };

/* ---- files ---- */

void
q2_fuzz_repair_make(unsigned number, struct q2_fuzz_repair *ret_repair)
{
    static const size_t sizes[Q2_FUZZ_REPAIRS] = {5000, 9000, 3000, 0};
    struct q2_fuzz_repair *repair = ret_repair;
    memset(repair, 0, sizeof *repair);
    repair->size_before = 5000;
    repair->size_after = sizes[number];
    /* The second sector and the last but one are zeros. */
    for (size_t i = 0; i < repair->size_before; i++)
        repair->before[i] = i / SECTOR == 1 || i / SECTOR == 8 ? 0 : (uint8_t)(i * 7 + i / 256);
    memcpy(repair->after, repair->before, repair->size_before);
    memset(repair->after + 100, 0x11, 10);
    memset(repair->after + 600, 0x22, 1000);
    memset(repair->after + 2048, 0, 1024);
    memset(repair->after + 4000, 0x33, 700);
    memset(repair->after + 7000, 0x44, 900);
    memset(repair->after + repair->size_after, 0, Q2_FUZZ_REPAIR_MAX - repair->size_after);
}

void
q2_fuzz_journal_make(const struct q2_fuzz_repair *repair, uint8_t **ret_bytes, size_t *ret_length)
{
    static const size_t edits[][2] = {{100, 10}, {600, 1000}, {2048, 0}, {4000, 700}, {7000, 900}};
    struct q2_error err = {0};
    struct q2_budget budget;
    struct q2_file *overlay = NULL, *journal = NULL;
    struct q2_file *image = q2_fuzz_file(repair->before, repair->size_before);
    uint64_t size = 0;
    q2_budget_init(&budget, Q2_FUZZ_MEMORY);
    int rc = q2_file_new_overlay(image, &budget, &overlay, &err);
    if (rc == 0)
        rc = q2_file_truncate(overlay, repair->size_after, &err);
    for (size_t i = 0; rc == 0 && i < sizeof edits / sizeof edits[0]; i++) {
        size_t at = edits[i][0], length = edits[i][1];
        if (at + (length ? length : 1) > repair->size_after)
            continue;
        rc = length ? q2_file_write(overlay, at, repair->after + at, length, &err)
                    : q2_file_punch(overlay, at, q2_min(1024, repair->size_after - at), &err);
    }
    if (rc == 0)
        rc = q2_file_new_memory("journal", &journal, &err);
    if (rc == 0)
        rc = q2_journal_write(journal, image, overlay, 1000000000, &err);
    if (rc == 0)
        rc = q2_file_size(journal, &size, &err);
    *ret_bytes = malloc(size + 1);
    *ret_length = (size_t)size;
    Q2_REQUIRE(rc == 0 && *ret_bytes && q2_file_read(journal, 0, *ret_bytes, size, &err) == 0, "%s",
               err.message);
    q2_file_close(overlay);
    q2_file_close(journal);
    q2_file_close(image);
}

/* ---- reading ---- */

static void
digest(const uint8_t *bytes, size_t length, uint8_t ret_digest[32])
{
    static EVP_MD *sha256;
    static EVP_MD_CTX *context;
    if (!sha256) {
        sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
        context = EVP_MD_CTX_new();
    }
    Q2_REQUIRE(EVP_DigestInit_ex2(context, sha256, NULL) == 1 &&
                   EVP_DigestUpdate(context, bytes, length) == 1 &&
                   EVP_DigestFinal_ex(context, ret_digest, NULL) == 1,
               "no digest");
}

/* That of a journal: all but the state, and but the digest itself. `length` is up to there. */
static void
digest_journal(const uint8_t *bytes, size_t length, uint8_t ret_digest[32])
{
    uint8_t *copy = malloc(length);
    Q2_REQUIRE(copy, "no memory");
    memcpy(copy, bytes, 16);
    memcpy(copy + 16, bytes + 24, length - 24);
    digest(copy, length - 8, ret_digest);
    free(copy);
}

static uint64_t
sectors(uint64_t offset, uint64_t length)
{
    return (offset + length - 1) / SECTOR - offset / SECTOR + 1;
}

/* One record from `*at` on; false where it breaks a rule. */
static bool
read_record(const uint8_t *bytes, size_t end, size_t *at, struct q2_fuzz_journal *journal)
{
    if (end - *at < RECORD)
        return false;
    const uint8_t *here = bytes + *at;
    struct q2_fuzz_record record = {q2_load_be64(here),
                                    q2_load_be64(here + 8),
                                    q2_load_be32(here + 16),
                                    q2_load_be32(here + 20),
                                    NULL,
                                    NULL};
    bool saved = record.before == 0, marked = record.after == 0;
    const struct q2_fuzz_record *last =
        journal->count ? &journal->records[journal->count - 1] : NULL;
    if (record.before > 2 || record.after > 1 || (record.before == 1 && !marked) ||
        record.length == 0 || record.length > LONGEST || record.offset > INT64_MAX ||
        (last && record.offset < last->offset + last->length))
        return false;
    uint64_t until = record.offset + record.length;
    bool was = until <= journal->size_before, comes = until <= journal->size_after;
    if ((!was && !comes) || (!was && record.before != 1) || (!comes && marked))
        return false;
    uint64_t marks = marked ? sectors(record.offset, record.length) * MARK : 0;
    uint64_t all = RECORD + marks + (saved ? record.length : 0);
    if (all > end - *at)
        return false;
    record.marks = marked ? here + RECORD : NULL;
    record.bytes = saved ? here + RECORD + marks : NULL;
    journal->saved += saved ? record.length : 0;
    journal->records[journal->count++] = record;
    *at += all;
    return true;
}

/* Everything but the trailer; *ret_at is where that should be. */
static bool
read_records(const uint8_t *bytes, size_t end, struct q2_fuzz_journal *journal)
{
    size_t at = HEADER;
    journal->records = calloc((end - HEADER) / RECORD + 1, sizeof *journal->records);
    Q2_REQUIRE(journal->records, "no memory");
    while (at < end)
        if (!read_record(bytes, end, &at, journal))
            return false;
    return true;
}

static bool
is_state(const char *state)
{
    return strcmp(state, "prepare ") == 0 || strcmp(state, "applying") == 0 ||
           strcmp(state, "complete") == 0 || strcmp(state, "undone..") == 0;
}

static bool
all_zeros(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (bytes[i])
            return false;
    return true;
}

static bool
read_all(const uint8_t *bytes, size_t length, struct q2_fuzz_journal *journal)
{
    uint8_t start[HEADER] = {0}, sum[32];
    memcpy(start, bytes, length < HEADER ? length : HEADER);
    if (length <= HEADER && all_zeros(start, HEADER))
        return journal->incomplete = true;
    memcpy(journal->state, start + 16, 8);
    if (memcmp(start, "q2-undo\n", 8) != 0 || q2_load_be32(start + 8) != 1 ||
        q2_load_be32(start + 12) != HEADER || !is_state(journal->state))
        return false;
    if (strcmp(journal->state, "prepare ") == 0)
        return journal->incomplete = true;
    journal->size_before = q2_load_be64(start + 24);
    journal->size_after = q2_load_be64(start + 32);
    if (journal->size_before > INT64_MAX || journal->size_after > INT64_MAX ||
        length < HEADER + TRAILER || !read_records(bytes, length - TRAILER, journal))
        return false;
    const uint8_t *trailer = bytes + length - TRAILER;
    digest_journal(bytes, length - 32, sum);
    return memcmp(trailer, "q2-done\n", 8) == 0 && q2_load_be64(trailer + 8) == journal->count &&
           q2_load_be64(trailer + 16) == journal->saved && q2_load_be64(trailer + 24) == 0 &&
           memcmp(trailer + 32, sum, 32) == 0;
}

void
q2_fuzz_journal_read(const uint8_t *bytes, size_t length, struct q2_fuzz_journal *ret_journal)
{
    *ret_journal = (struct q2_fuzz_journal){0};
    ret_journal->valid = read_all(bytes, length, ret_journal);
}

void
q2_fuzz_journal_destroy(struct q2_fuzz_journal *journal)
{
    free(journal->records);
}

/* Records by their shape, whatever other rules they break: a trailer that agrees with them leaves
 * it to those rules to refuse them. */
static void
count_records(const uint8_t *bytes, size_t end, uint64_t *ret_count, uint64_t *ret_saved)
{
    *ret_count = *ret_saved = 0;
    for (size_t at = HEADER; end - at >= RECORD;) {
        uint64_t offset = q2_load_be64(bytes + at), length = q2_load_be64(bytes + at + 8);
        bool saved = q2_load_be32(bytes + at + 16) == 0,
             marked = q2_load_be32(bytes + at + 20) == 0;
        if (length == 0 || length > LONGEST || offset > INT64_MAX)
            return;
        uint64_t all =
            RECORD + (marked ? sectors(offset, length) * MARK : 0) + (saved ? length : 0);
        if (all > end - at)
            return;
        at += all;
        *ret_count += 1;
        *ret_saved += saved ? length : 0;
    }
}

void
q2_fuzz_journal_sign(uint8_t *bytes, size_t *length)
{
    uint8_t *trailer = bytes + *length;
    uint64_t count, saved;
    count_records(bytes, *length, &count, &saved);
    memset(trailer, 0, TRAILER);
    memcpy(trailer, "q2-done\n", 8);
    q2_store_be64(trailer + 8, count);
    q2_store_be64(trailer + 16, saved);
    digest_journal(bytes, *length + 32, trailer + 32);
    *length += TRAILER;
}

/* ---- undoing ---- */

/* What a file holds at `offset`, with zeros behind its end. */
static void
look(const uint8_t *bytes, size_t size, uint64_t offset, uint8_t *out, size_t length)
{
    memset(out, 0, length);
    if (offset < size)
        memcpy(out, bytes + offset, size - offset < length ? size - offset : length);
}

static bool
record_fits(const struct q2_fuzz_record *record, const uint8_t *bytes, size_t size)
{
    uint8_t part[SECTOR], sum[32];
    uint64_t done = 0;
    for (size_t i = 0; done < record->length; i++) {
        uint64_t at = record->offset + done;
        size_t length = SECTOR - at % SECTOR;
        if (length > record->length - done)
            length = (size_t)(record->length - done);
        look(bytes, size, at, part, length);
        bool zeros = all_zeros(part, length), known = record->before == 2;
        known |= zeros && (record->before == 1 || record->after == 1);
        known |= record->bytes && memcmp(record->bytes + done, part, length) == 0;
        if (!known && record->marks) {
            digest(part, length, sum);
            known = memcmp(record->marks + i * MARK, sum, MARK) == 0;
        }
        if (!known)
            return false;
        done += length;
    }
    return true;
}

bool
q2_fuzz_journal_fits(const struct q2_fuzz_journal *journal, const uint8_t *bytes, size_t size)
{
    uint64_t a = journal->size_before, b = journal->size_after;
    if (size < (a < b ? a : b) || size > (a < b ? b : a))
        return false;
    for (size_t i = 0; i < journal->count; i++)
        if (!record_fits(&journal->records[i], bytes, size))
            return false;
    return true;
}

void
q2_fuzz_journal_undo(const struct q2_fuzz_journal *journal, uint8_t *bytes, size_t *size)
{
    for (size_t i = 0; i < journal->count; i++) {
        const struct q2_fuzz_record *record = &journal->records[i];
        if (record->bytes)
            memcpy(bytes + record->offset, record->bytes, (size_t)record->length);
        else if (record->before == 1)
            memset(bytes + record->offset, 0, (size_t)record->length);
    }
    *size = (size_t)journal->size_before;
    memset(bytes + *size, 0, Q2_FUZZ_REPAIR_MAX - *size);
}
