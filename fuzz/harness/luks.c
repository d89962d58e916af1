/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* LUKS headers come back byte for byte, and what obeys the rules is good for what comes next: its
 * slots' key material lies in the area, and its names make a cipher or name one that is not built
 * in. Unlocking says no within a small limit of work.
 *
 * Input: flags, length of the header that the image records in sectors, then the bytes. */

#include "core/base/checked.h"
#include "core/codec/keys.h"
#include "fuzz/support/format.h"

#include <stdlib.h>
#include <string.h>

enum {
    UNLOCK = 1 << 0,
    AREA_MAX = 1 << 12, /* bytes that are really there */
    WORK = 64,          /* computations of a hash */
};

static void
try_bytes(const uint8_t *bytes, struct q2_luks_header *header)
{
    uint8_t out[Q2_LUKS_HEADER_LENGTH];
    struct q2_luks_header again;
    memset(out, 0xee, sizeof out);
    q2_luks_encode(header, out);
    Q2_REQUIRE(memcmp(out, bytes, sizeof out) == 0, "the header becomes other bytes");
    int rc = q2_luks_decode(out, sizeof out, &again, NULL);
    Q2_REQUIRE(rc == 0 && again.payload == header->payload &&
                   again.iterations == header->iterations &&
                   strcmp(again.cipher_mode, header->cipher_mode) == 0 &&
                   memcmp(again.slots, header->slots, sizeof again.slots) == 0,
               "the bytes become another header");
}

/* What the slots say of themselves follows from the header alone. */
static void
try_slots(const struct q2_luks_header *header, const struct q2_fuzz_rules *rules,
          const uint8_t *bytes, size_t length)
{
    struct q2_luks_slot_info slots[Q2_LUKS_SLOTS];
    struct q2_error err = {0};
    int rc = q2_luks_slots(bytes, length, slots, &err);
    Q2_REQUIRE(rc == 0 || err.message[0], "refused without a word");
    Q2_REQUIRE(rc == 0 || rules->count > 0, "no rule is broken: %s", err.message);
    for (unsigned i = 0; rc == 0 && i < Q2_LUKS_SLOTS; i++) {
        const struct q2_luks_slot *slot = &header->slots[i];
        Q2_REQUIRE(slots[i].active == (slot->state == Q2_LUKS_SLOT_ENABLED) &&
                       slots[i].iterations == slot->iterations &&
                       slots[i].stripes == slot->stripes &&
                       slots[i].material_offset == (uint64_t)slot->material * 512,
                   "slot %u", i);
        Q2_REQUIRE(!slots[i].usable ||
                       q2_range_inside(slots[i].material_offset, slots[i].material_length, length),
                   "the key material of slot %u is not there", i);
    }
}

static void
try_cipher(const struct q2_luks_header *header, const struct q2_fuzz_rules *rules,
           const uint8_t *bytes, size_t length)
{
    struct q2_luks_key key = {.length = header->key_bytes};
    struct q2_cipher *cipher = NULL;
    struct q2_error err = {0};
    if (header->key_bytes > sizeof key.bytes)
        return;
    for (size_t i = 0; i < key.length; i++)
        key.bytes[i] = (uint8_t)i;
    int rc = q2_luks_cipher(bytes, length, &key, &cipher, &err);
    Q2_REQUIRE(rc == 0 || err.message[0], "refused without a word");
    bool names = rules->broken[Q2_PROBLEM_LUKS_MAGIC] || rules->broken[Q2_PROBLEM_LUKS_VERSION] ||
                 rules->broken[Q2_PROBLEM_LUKS_CIPHER] || rules->broken[Q2_PROBLEM_LUKS_KEY_BYTES];
    Q2_REQUIRE(rc == 0 || names || rc == Q2_ERR_UNSUPPORTED, "no rule is broken: %s", err.message);
    q2_cipher_free(cipher);
}

static void
run(const uint8_t *input, size_t length)
{
    struct q2_fuzz_cursor cursor = {input, length};
    struct q2_luks_header header;
    struct q2_fuzz_rules rules;
    struct q2_error err = {0};
    unsigned flags = q2_fuzz_u8(&cursor);
    uint64_t recorded = q2_fuzz_u32(&cursor) * UINT64_C(512);
    uint8_t *bytes = malloc(cursor.left + 1);
    Q2_REQUIRE(bytes, "no memory");
    if (cursor.left > 0)
        memcpy(bytes, cursor.at, cursor.left);
    int rc = q2_luks_decode(bytes, cursor.left, &header, &err);
    Q2_REQUIRE((rc == 0) == (cursor.left >= Q2_LUKS_HEADER_LENGTH), "%s", err.message);
    if (rc == 0) {
        try_bytes(bytes, &header);
        q2_fuzz_rules_init(&rules);
        q2_luks_validate(&header, recorded, recorded, &rules.sink);
        if (flags & UNLOCK) {
            try_slots(&header, &rules, bytes, cursor.left);
            try_cipher(&header, &rules, bytes, cursor.left);
            struct q2_luks_key key = {0};
            unsigned slot;
            rc = q2_luks_unlock(bytes, cursor.left, "pass phrase", 11, WORK, &key, &slot, &err);
            Q2_REQUIRE(rc < 0 && err.message[0], "unlocked");
        }
    }
    free(bytes);
}

const struct q2_harness q2_harness = {"luks", Q2_FUZZ_BYTES, AREA_MAX, run};
