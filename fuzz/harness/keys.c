/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* LUKS key slots against a list of who may open what: pass phrases are added, used and removed in
 * any order, and at each step exactly those that should open the image do, with the same master
 * key; the header stays one that obeys the rules; and what is encrypted with that key comes back.
 *
 * Once the header is damaged nobody knows what opens; but what fails changes nothing, and what is
 * said to open does.
 *
 * Input: cipher, hash and length of the key, then a byte for each step, with the place and the bits
 * where that is damage, and the pass phrase that is tried last. */

#include "core/codec/keys.h"
#include "fuzz/support/format.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 8, PHRASES = 4, NONE = -1, WORK = 1 << 22, DATA = 4 * Q2_CIPHER_SECTOR };
enum { ADD, ADD_ANY, REMOVE_SLOT, REMOVE_PHRASE, UNLOCK, ENCRYPT, STEPS };

/* Bytes of steps that are something else: damage, and calls that must be refused. */
enum { DAMAGE = 192, REFUSALS = 240 };

/* More iterations than the first take long, but up to the second they are not refused. */
enum { QUICK_ITERATIONS = 1 << 14, MANY_ITERATIONS = 1 << 28 };

static const char *const phrases[PHRASES] = {
    "", "abc", "pass phrase", "one that is longer than the block of a hash, which is hashed first"};

struct state {
    uint8_t *area;
    size_t length;
    struct q2_luks_key key;
    int opens[Q2_LUKS_SLOTS]; /* the phrase that opens a slot, or NONE */
    bool damaged;
};

static struct q2_luks_options how = {.iterations = Q2_LUKS_MIN_ITERATIONS};

/* ---- the list ---- */

static unsigned
used(const struct state *state)
{
    unsigned count = 0;
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        count += state->opens[i] != NONE;
    return count;
}

/* A bit for each slot that the phrase opens. */
static unsigned
opened_by(const struct state *state, int phrase)
{
    unsigned slots = 0;
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        slots |= (unsigned)(state->opens[i] == phrase) << i;
    return slots;
}

static int
first_free(const struct state *state)
{
    for (int i = 0; i < Q2_LUKS_SLOTS; i++)
        if (state->opens[i] == NONE)
            return i;
    return NONE;
}

/* ---- steps ---- */

static void
add(struct state *state, int slot, int phrase)
{
    struct q2_error err = {0};
    unsigned got = 99;
    bool any = slot == Q2_LUKS_ANY_SLOT;
    int rc = q2_luks_add_key(state->area, state->length, &state->key, phrases[phrase],
                             strlen(phrases[phrase]), slot, &how, &got, &err);
    if (any)
        slot = first_free(state);
    int wanted = any && slot == NONE                  ? Q2_ERR_NOSPACE
                 : !any && state->opens[slot] != NONE ? Q2_ERR_EXISTS
                                                      : 0;
    Q2_REQUIRE(rc == wanted, "adding a key gives %d, not %d: %s", rc, wanted, err.message);
    if (rc < 0)
        return;
    Q2_REQUIRE((int)got == slot, "the key went to slot %u, not %d", got, slot);
    state->opens[slot] = phrase;
}

static void
remove_slot(struct state *state, unsigned slot, bool force)
{
    struct q2_error err = {0};
    bool there = state->opens[slot] != NONE;
    int wanted = force ? 0 : !there ? Q2_ERR_NOT_FOUND : used(state) == 1 ? Q2_ERR_RANGE : 0;
    int rc = q2_luks_remove_slot(state->area, state->length, slot, force, &err);
    Q2_REQUIRE(rc == wanted, "removing a slot gives %d, not %d: %s", rc, wanted, err.message);
    if (rc == 0)
        state->opens[slot] = NONE;
}

static void
remove_phrase(struct state *state, int phrase, bool force)
{
    struct q2_error err = {0};
    unsigned slots = opened_by(state, phrase), got = 0;
    int rc = q2_luks_remove_passphrase(state->area, state->length, phrases[phrase],
                                       strlen(phrases[phrase]), force, WORK, &got, &err);
    bool all = (unsigned)__builtin_popcount(slots) == used(state) && !force;
    int wanted = !slots ? Q2_ERR_PASSPHRASE : all ? Q2_ERR_RANGE : 0;
    Q2_REQUIRE((rc == 0) == (wanted == 0), "removing a pass phrase gives %d, not %d: %s", rc,
               wanted, err.message);
    if (rc < 0)
        return;
    Q2_REQUIRE(got == slots, "slots %x are gone, not %x", got, slots);
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        if (slots >> i & 1)
            state->opens[i] = NONE;
}

static void
unlock(const struct state *state, int phrase)
{
    struct q2_error err = {0};
    struct q2_luks_key key = {0};
    unsigned slot = 0, slots = opened_by(state, phrase);
    int rc = q2_luks_unlock(state->area, state->length, phrases[phrase], strlen(phrases[phrase]),
                            WORK, &key, &slot, &err);
    Q2_REQUIRE((rc == 0) == (slots != 0), "unlocking gives %d: %s", rc, err.message);
    if (rc == 0)
        Q2_REQUIRE(slots >> slot & 1 && key.length == state->key.length &&
                       memcmp(key.bytes, state->key.bytes, key.length) == 0,
                   "slot %u opens with another key", slot);
}

static void
encrypt(const struct state *state, uint64_t sector)
{
    struct q2_error err = {0};
    struct q2_cipher *cipher = NULL;
    uint8_t plain[DATA], secret[DATA];
    int rc = q2_luks_cipher(state->area, state->length, &state->key, &cipher, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
    for (size_t i = 0; i < sizeof plain; i++)
        plain[i] = (uint8_t)(i * 7 + i / 256);
    memcpy(secret, plain, sizeof plain);
    rc = q2_cipher_encrypt(cipher, sector, secret, sizeof secret, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
    Q2_REQUIRE(memcmp(secret, plain, sizeof plain) != 0, "nothing is encrypted");
    rc = q2_cipher_encrypt(cipher, sector, secret, sizeof secret - 1, &err);
    Q2_REQUIRE(rc == Q2_ERR_RANGE, "a part of a sector gives %d", rc);
    /* What one call does, two do. */
    rc = q2_cipher_decrypt(cipher, sector, secret, DATA / 2, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
    rc = q2_cipher_decrypt(cipher, sector + DATA / 2 / Q2_CIPHER_SECTOR, secret + DATA / 2,
                           DATA / 2, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
    Q2_REQUIRE(memcmp(secret, plain, sizeof plain) == 0, "it comes back otherwise");
    q2_cipher_free(cipher);
}

/* ---- damage ---- */

static bool
is_slow(const struct q2_luks_header *header)
{
    bool slow = header->iterations > QUICK_ITERATIONS && header->iterations < MANY_ITERATIONS;
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        slow |= header->slots[i].iterations > QUICK_ITERATIONS &&
                header->slots[i].iterations < MANY_ITERATIONS;
    return slow;
}

/* Change some bits of the header. */
static void
damage(struct state *state, unsigned place, uint8_t bits)
{
    struct q2_luks_header header;
    uint8_t *at = state->area + place % Q2_LUKS_HEADER_LENGTH;
    *at ^= bits;
    if (q2_luks_decode(state->area, state->length, &header, NULL) < 0 || is_slow(&header))
        *at ^= bits;
    else
        state->damaged = true;
}

/* A step on a damaged header. */
static void
try_damaged(struct state *state, unsigned number, int phrase, unsigned slot)
{
    struct q2_error err = {0};
    struct q2_luks_key key = {0};
    const char *text = phrases[phrase];
    unsigned got = 0;
    uint8_t *before = malloc(state->length);
    Q2_REQUIRE(before, "no memory");
    memcpy(before, state->area, state->length);
    bool adds = number == ADD || number == ADD_ANY;
    int rc = adds ? q2_luks_add_key(state->area, state->length, &state->key, text, strlen(text),
                                    number == ADD ? (int)slot : Q2_LUKS_ANY_SLOT, &how, &got, &err)
             : number == REMOVE_SLOT
                 ? q2_luks_remove_slot(state->area, state->length, slot, phrase == 0, &err)
             : number == REMOVE_PHRASE
                 ? q2_luks_remove_passphrase(state->area, state->length, text, strlen(text),
                                             slot == 0, WORK, &got, &err)
                 : q2_luks_unlock(state->area, state->length, text, strlen(text), WORK, &key, &got,
                                  &err);
    Q2_REQUIRE(rc == 0 || err.message[0], "failed with %d and no word", rc);
    Q2_REQUIRE((rc == 0 && number < UNLOCK) || memcmp(before, state->area, state->length) == 0,
               "it gives %d, and the area has changed", rc);
    free(before);
    if (rc == 0 && adds) {
        rc = q2_luks_unlock(state->area, state->length, text, strlen(text), WORK, &key, &got, &err);
        Q2_REQUIRE(rc == 0 || rc == Q2_ERR_RANGE, "a new pass phrase opens nothing: %s",
                   err.message);
    }
    Q2_REQUIRE(rc < 0 || number == REMOVE_SLOT || number == REMOVE_PHRASE ||
                   memcmp(key.bytes, state->key.bytes, state->key.length) == 0,
               "slot %u opens with another key", got);
}

/* What is wrong with the call, not with the area. */
static void
refuse(struct state *state, unsigned which)
{
    struct q2_error err = {0};
    struct q2_luks_key other = state->key;
    struct q2_luks_options long_time = how;
    unsigned got = 0;
    int slot = first_free(state);
    bool full = slot == NONE;
    other.bytes[0] ^= which % 2 ? 1 : 0;
    other.length -= which % 2 ? 0 : 8;
    long_time.iterations = UINT32_MAX - which;
    int rc = q2_luks_remove_slot(state->area, state->length, Q2_LUKS_SLOTS + which, true, &err);
    Q2_REQUIRE(rc == Q2_ERR_RANGE, "removing slot %u gives %d", Q2_LUKS_SLOTS + which, rc);
    rc = q2_luks_add_key(state->area, state->length, &state->key, "a", 1,
                         Q2_LUKS_SLOTS + (int)which, &how, &got, &err);
    Q2_REQUIRE(rc == Q2_ERR_RANGE, "adding slot %u gives %d", Q2_LUKS_SLOTS + which, rc);
    rc = q2_luks_add_key(state->area, state->length, &other, "a", 1, slot, &how, &got, &err);
    Q2_REQUIRE(rc == (full ? Q2_ERR_NOSPACE : Q2_ERR_PASSPHRASE), "another key gives %d", rc);
    rc = q2_luks_add_key(state->area, state->length, &state->key, "a", 1, slot, &long_time, &got,
                         &err);
    Q2_REQUIRE(rc == (full ? Q2_ERR_NOSPACE : Q2_ERR_RANGE), "a long time gives %d", rc);
}

/* ---- all of it ---- */

/* The header obeys the rules, and says which slots are in use. */
static void
require_header(const struct state *state)
{
    struct q2_luks_header header;
    struct q2_fuzz_rules rules;
    struct q2_error err = {0};
    q2_fuzz_rules_init(&rules);
    int rc = q2_luks_decode(state->area, state->length, &header, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
    q2_luks_validate(&header, state->length, state->length, &rules.sink);
    for (size_t i = 0; i < Q2_PROBLEM_COUNT; i++)
        Q2_REQUIRE(!rules.broken[i] || used(state) == 0, "the header breaks %s",
                   q2_problem_id((enum q2_problem)i));
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        Q2_REQUIRE((header.slots[i].state == Q2_LUKS_SLOT_ENABLED) == (state->opens[i] != NONE),
                   "slot %u", i);
}

static void
step(struct state *state, uint8_t byte, struct q2_fuzz_cursor *cursor)
{
    unsigned argument = byte / STEPS;
    int phrase = (int)(argument % PHRASES);
    unsigned slot = argument / PHRASES % Q2_LUKS_SLOTS;
    if (byte >= DAMAGE && byte < REFUSALS) {
        unsigned place = q2_fuzz_u16(cursor);
        damage(state, place, q2_fuzz_u8(cursor));
        return;
    }
    if (state->damaged) {
        try_damaged(state, byte % STEPS, phrase, slot);
        return;
    }
    if (byte >= REFUSALS) {
        refuse(state, byte % 16U);
        require_header(state);
        return;
    }
    switch (byte % STEPS) {
    case ADD:
        add(state, (int)slot, phrase);
        break;
    case ADD_ANY:
        add(state, Q2_LUKS_ANY_SLOT, phrase);
        break;
    case REMOVE_SLOT:
        remove_slot(state, slot, phrase == 0);
        break;
    case REMOVE_PHRASE:
        remove_phrase(state, phrase, slot == 0);
        break;
    case UNLOCK:
        unlock(state, phrase);
        break;
    default:
        encrypt(state, (uint64_t)argument << 36);
    }
    require_header(state);
}

static void
run(const uint8_t *input, size_t length)
{
    static const char *const modes[] = {"xts-plain64",      "cbc-plain64", "cbc-plain",
                                        "cbc-essiv:sha256", "ecb",         "ctr-plain64"};
    static const char *const hashes[] = {"sha1", "sha256", "sha512", "ripemd160"};
    struct q2_fuzz_cursor cursor = {input, length};
    struct q2_error err = {0};
    struct state state = {.opens = {0, NONE, NONE, NONE, NONE, NONE, NONE, NONE}};
    how.cipher_mode = modes[q2_fuzz_u8(&cursor) % (sizeof modes / sizeof *modes)];
    how.hash = hashes[q2_fuzz_u8(&cursor) % (sizeof hashes / sizeof *hashes)];
    how.key_bytes = 8 * (q2_fuzz_u8(&cursor) % 9U); /* 0, or one of which not all are right */
    int rc = q2_luks_format(&how, phrases[0], 0, &state.area, &state.length, &state.key, &err);
    Q2_REQUIRE(rc == 0 || err.message[0], "refused without a word");
    for (unsigned i = 0; rc == 0 && i < MAX_STEPS && cursor.left > 0; i++)
        step(&state, q2_fuzz_u8(&cursor), &cursor);
    if (rc == 0 && !state.damaged)
        unlock(&state, q2_fuzz_u8(&cursor) % PHRASES);
    q2_luks_key_wipe(&state.key);
    free(state.area);
}

const struct q2_harness q2_harness = {"keys", Q2_FUZZ_BYTES, 4 + 4 * MAX_STEPS, run};
