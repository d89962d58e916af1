/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Undo journals that anybody may have written: refused with the image and the journal untouched, or
 * applied exactly as a second reading of the format says; and once undone, undoing changes nothing.
 *
 * Input: how, which repair, the state of the image, and a place in it; then the journal: the first
 * 48 bytes of its header, records, trailer. */

#include "fuzz/support/journal.h"
#include "core/io/memory.h"
#include "fuzz/support/image.h"
#include "repair/apply.h"
#include "repair/journal.h"

#include <stdlib.h>
#include <string.h>

enum {
    SIGN = 1 << 0, /* make a trailer: otherwise the input's must do */
    FORCE = 1 << 1,
    RESUME = 1 << 2,
    WHOLE = 1 << 3,   /* the input has all of the header */
    FOREIGN = 1 << 4, /* the image was changed by somebody else */
    HEADER = 4096,
    START = 48,
    SECTOR = 512,
};

/* The image before, after, or on the way: each sector as a bit of `state` has it. */
static void
make_image(const struct q2_fuzz_repair *repair, unsigned state, unsigned place, bool foreign,
           uint8_t *bytes, size_t *ret_size)
{
    size_t size = state & 1 ? repair->size_after : repair->size_before;
    memset(bytes, 0, Q2_FUZZ_REPAIR_MAX);
    for (size_t at = 0; at < size; at += SECTOR) {
        const uint8_t *from = state >> (at / SECTOR % 8) & 1 ? repair->after : repair->before;
        memcpy(bytes + at, from + at, size - at < SECTOR ? size - at : SECTOR);
    }
    if (foreign && size > 0)
        bytes[place % size] ^= 0x55;
    *ret_size = size;
}

static void
require_bytes(struct q2_file *file, const uint8_t *bytes, size_t size, const char *what)
{
    struct q2_file *expected = q2_fuzz_file(bytes, size);
    Q2_REQUIRE(q2_fuzz_equal(file, expected), "%s", what);
    q2_file_close(expected);
}

static int
act(struct q2_file *image, struct q2_file *journal, unsigned flags, bool *ret_done)
{
    struct q2_error err = {0};
    *ret_done = true;
    int rc = flags & RESUME ? q2_apply_resume(image, journal, ret_done, &err)
                            : q2_journal_undo(journal, image, flags & FORCE, &err);
    Q2_REQUIRE(rc == 0 || err.message[0], "refused without a word");
    *ret_done &= rc == 0;
    return rc;
}

/* Whether it should be undone, and whether there should be an error. */
static bool
decide(const struct q2_fuzz_journal *said, unsigned flags, const uint8_t *bytes, size_t size,
       bool *ret_fails)
{
    *ret_fails = !said->valid;
    if (!said->valid)
        return false;
    if (flags & RESUME) {
        if (said->incomplete || strcmp(said->state, "applying") != 0)
            return false;
        *ret_fails = !q2_fuzz_journal_fits(said, bytes, size);
        return !*ret_fails;
    }
    *ret_fails = said->incomplete || (!(flags & FORCE) && !q2_fuzz_journal_fits(said, bytes, size));
    return !*ret_fails;
}

static void
try_journal(uint8_t *bytes, size_t length, unsigned flags, uint8_t *image_bytes, size_t size)
{
    struct q2_fuzz_journal said;
    struct q2_journal_info info;
    struct q2_error err = {0};
    bool fails, done;
    q2_fuzz_journal_read(bytes, length, &said);
    struct q2_file *journal = q2_fuzz_file(bytes, length);
    int rc = q2_journal_read(journal, &info, &err);
    Q2_REQUIRE((rc == 0) == said.valid, "the readings differ: %s", err.message);
    Q2_REQUIRE(rc < 0 || said.incomplete == (info.state == Q2_JOURNAL_INCOMPLETE), "the state");
    Q2_REQUIRE(rc < 0 || said.incomplete ||
                   (info.size_before == said.size_before && info.size_after == said.size_after &&
                    info.records == said.count && info.bytes == said.saved),
               "the counts differ");
    /* What no file here can be is left alone. */
    if (said.valid &&
        (said.size_before > Q2_FUZZ_REPAIR_MAX || said.size_after > Q2_FUZZ_REPAIR_MAX))
        goto out;

    bool undone = decide(&said, flags, image_bytes, size, &fails);
    struct q2_file *image = q2_fuzz_file(image_bytes, size);
    rc = act(image, journal, flags, &done);
    Q2_REQUIRE((rc < 0) == fails && done == undone, "it returned %d, %s", rc,
               done ? "and undid" : "and undid nothing");
    if (undone) {
        q2_fuzz_journal_undo(&said, image_bytes, &size);
        memcpy(bytes + 16, "undone..", 8);
    }
    require_bytes(image, image_bytes, size, "the image is not what the journal says");
    require_bytes(journal, bytes, length, "the journal is another one");
    if (undone) {
        rc = act(image, journal, flags | FORCE, &done);
        Q2_REQUIRE(rc == 0, "it cannot be undone twice");
        require_bytes(image, image_bytes, size, "undone twice, it is another image");
    }
    q2_file_close(image);
out:
    q2_file_close(journal);
    q2_fuzz_journal_destroy(&said);
}

static void
run(const uint8_t *input, size_t length)
{
    static struct q2_fuzz_repair repairs[Q2_FUZZ_REPAIRS];
    static bool ready;
    uint8_t image[Q2_FUZZ_REPAIR_MAX];
    size_t size, taken;
    struct q2_fuzz_cursor cursor = {input, length};
    for (unsigned i = 0; !ready && i < Q2_FUZZ_REPAIRS; i++)
        q2_fuzz_repair_make(i, &repairs[i]);
    ready = true;
    unsigned flags = q2_fuzz_u8(&cursor), number = q2_fuzz_u8(&cursor) % Q2_FUZZ_REPAIRS;
    unsigned state = q2_fuzz_u8(&cursor), place = q2_fuzz_u16(&cursor);
    make_image(&repairs[number], state, place, flags & FOREIGN, image, &size);

    uint8_t *bytes = calloc(1, HEADER + cursor.left + 64);
    Q2_REQUIRE(bytes, "no memory");
    const uint8_t *start = q2_fuzz_take(&cursor, flags & WHOLE ? HEADER : START, &taken);
    if (taken > 0)
        memcpy(bytes, start, taken);
    size_t end = taken;
    if (cursor.left > 0 || (flags & SIGN))
        end = HEADER;
    if (cursor.left > 0)
        memcpy(bytes + HEADER, cursor.at, cursor.left);
    end += cursor.left;
    if (flags & SIGN)
        q2_fuzz_journal_sign(bytes, &end);
    try_journal(bytes, end, flags, image, size);
    free(bytes);
}

const struct q2_harness q2_harness = {"journal", Q2_FUZZ_BYTES, 16384, run};
