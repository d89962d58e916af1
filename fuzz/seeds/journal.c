/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Journals of repairs, in each state, for images in each state; and such whose records overlap. */

#include "fuzz/support/journal.h"
#include "core/base/checked.h"
#include "core/base/endian.h"
#include "fuzz/seeds/seed.h"
#include "repair/journal_parts.h"

#include <stdlib.h>
#include <string.h>

enum { SIGN = 1, FORCE = 2, RESUME = 4, WHOLE = 8, FOREIGN = 16, HEADER = 4096, TRAILER = 64 };

static const char *const states[] = {"prepare ", "applying", "complete", "undone.."};
static const unsigned ways[] = {0, SIGN, SIGN | FORCE, SIGN | RESUME, RESUME, SIGN | FOREIGN};

/* For each record, the journal where it begins a sector earlier, and may reach into the one before.
 */
static void
make_overlaps(struct q2_seed *seed, unsigned number, uint8_t *bytes, size_t length)
{
    for (size_t at = HEADER; at < length - TRAILER;) {
        uint64_t offset = q2_load_be64(bytes + at), covers = q2_load_be64(bytes + at + 8);
        size_t next = at + Q2_JOURNAL_RECORD_LENGTH;
        if (q2_load_be32(bytes + at + 16) == Q2_BEFORE_BYTES)
            next += (size_t)covers;
        if (q2_load_be32(bytes + at + 20) == Q2_AFTER_MARKS)
            next += (size_t)q2_journal_sectors(offset, covers) * Q2_JOURNAL_MARK_LENGTH;
        q2_store_be64(bytes + at, offset - q2_min(offset, 512));
        q2_seed_number(seed, 1, SIGN | FORCE);
        q2_seed_number(seed, 1, number);
        q2_seed_number(seed, 1, 0);
        q2_seed_number(seed, 2, 0);
        q2_seed_bytes(seed, bytes, 48);
        q2_seed_bytes(seed, bytes + HEADER, length - TRAILER - HEADER);
        q2_seed_write(seed, "%u-overlap-%zu", number, at);
        q2_store_be64(bytes + at, offset);
        at = next;
    }
}

void
q2_make_seeds(void)
{
    static struct q2_seed seed;
    static struct q2_fuzz_repair repair;
    for (unsigned number = 0; number < Q2_FUZZ_REPAIRS; number++) {
        uint8_t *bytes;
        size_t length;
        q2_fuzz_repair_make(number, &repair);
        q2_fuzz_journal_make(&repair, &bytes, &length);
        for (unsigned state = 0; state < 4; state++)
            for (unsigned way = 0; way < sizeof ways / sizeof ways[0]; way++) {
                memcpy(bytes + 16, states[state], 8);
                q2_seed_number(&seed, 1, ways[way]);
                q2_seed_number(&seed, 1, number);
                q2_seed_number(&seed, 1, state == 3 ? 0 : state == 2 ? 0xff : 0x55);
                q2_seed_number(&seed, 2, 700);
                q2_seed_bytes(&seed, bytes, 48);
                size_t end = ways[way] & SIGN ? length - TRAILER : length;
                q2_seed_bytes(&seed, bytes + HEADER, end - HEADER);
                q2_seed_write(&seed, "%u-%u-%u", number, state, way);
            }
        make_overlaps(&seed, number, bytes, length);
        free(bytes);
    }
    q2_seed_write(&seed, "empty");
}
