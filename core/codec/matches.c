/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Chains of places that begin with the same four bytes, latest first; of three bytes only the
 * latest place is known, as three bytes from further back cost more than they save. A match is
 * taken unless the next byte begins a better one. */

#include "core/codec/matches.h"

#include "core/base/endian.h"

#include <stdbool.h>
#include <string.h>

enum {
    DEPTH = 128,     /* places tried at most */
    LAZY_DEPTH = 64, /* the same for a match that has to be better than another */
    NICE = 128,      /* long enough to look no further */
    LAZY_MAX = 48,   /* long enough to take at once */
    NEAR = 4096,     /* three bytes are worth a match up to this distance */
    /* Literals that one match can be put off for: each time it gets better, by is_better's measure,
     * and a match of LAZY_MAX is the end of it. */
    DEFERRED_MAX = 4 * LAZY_MAX,
    /* After so many literals without a match, what follows will hardly have one: look at every
     * eighth place only, but remember all. */
    QUIET = 512,
    QUIET_STEP = 7,
};

struct match {
    uint32_t length; /* 0: none */
    uint32_t distance;
};

static inline uint32_t
hash(uint32_t value, unsigned bits)
{
    return value * UINT32_C(0x9e3779b1) >> (32 - bits);
}

/* How many bytes are equal, `known` of which are known to be. */
static inline uint32_t
extend(const uint8_t *here, const uint8_t *there, uint32_t known, uint32_t limit)
{
    uint32_t length = known;
    for (; length + 8 <= limit; length += 8) {
        uint64_t differ = q2_load_le64(here + length) ^ q2_load_le64(there + length);
        if (differ)
            return length + (uint32_t)__builtin_ctzll(differ) / 8;
    }
    while (length < limit && here[length] == there[length])
        length++;
    return length;
}

/* The longest match of more than `best.length` bytes at matcher->at, which becomes a place itself;
 * `best` if there is none. */
static inline struct match
find(struct q2_matcher *matcher, size_t at, struct match best, unsigned depth)
{
    const uint8_t *here = matcher->bytes + at;
    if (matcher->length - at < 4)
        return best;
    uint32_t limit =
        matcher->length - at < Q2_MATCH_MAX ? (uint32_t)(matcher->length - at) : Q2_MATCH_MAX;
    uint32_t number = matcher->base + (uint32_t)at;
    uint32_t first = q2_load_le32(here);
    uint32_t *latest3 = &matcher->latest3[hash(first << 8, Q2_MATCH_HASH3_BITS)];
    uint32_t *latest4 = &matcher->latest4[hash(first, Q2_MATCH_HASH4_BITS)];
    uint32_t three = number - *latest3, distance = number - *latest4, place = *latest4;
    /* Whether a place is in reach is anybody's guess, so there is no branch on that alone. */
    bool is_near = three <= NEAR;
    uint32_t differ = (q2_load_le32(here - (is_near ? three : 0)) ^ first) << 8;
    if ((best.length < 3) & is_near & !differ)
        best = (struct match){3, three};

    for (; distance <= Q2_MATCH_WINDOW && best.length < limit && depth; depth--) {
        const uint8_t *there = here - distance;
        if (q2_load_le32(there) == first &&
            (best.length < 4 ||
             q2_load_le32(there + best.length - 3) == q2_load_le32(here + best.length - 3))) {
            uint32_t length = extend(here, there, 4, limit);
            if (length > best.length) {
                best = (struct match){length, distance};
                if (length >= NICE)
                    break;
            }
        }
        place = matcher->before[place % Q2_MATCH_WINDOW];
        distance = number - place;
    }
    matcher->before[number % Q2_MATCH_WINDOW] = *latest4;
    *latest4 = *latest3 = number;
    return best;
}

/* The same without looking for a match. */
static inline void
skip(struct q2_matcher *matcher, size_t from, size_t to)
{
    size_t end = matcher->length < 4 ? 0 : matcher->length - 3;
    for (size_t at = from; at < to && at < end; at++) {
        uint32_t number = matcher->base + (uint32_t)at, first = q2_load_le32(matcher->bytes + at);
        uint32_t *latest4 = &matcher->latest4[hash(first, Q2_MATCH_HASH4_BITS)];
        matcher->latest3[hash(first << 8, Q2_MATCH_HASH3_BITS)] = number;
        matcher->before[number % Q2_MATCH_WINDOW] = *latest4;
        *latest4 = number;
    }
}

static inline int
log2_of(uint32_t value)
{
    return 31 - __builtin_clz(value);
}

/* Whether `next`, which costs a literal more, is worth it: a byte of length is worth about four
 * bits, a bit of distance costs one. */
static inline bool
is_better(struct match next, struct match match)
{
    return 4 * ((int)next.length - (int)match.length) + log2_of(match.distance) -
               log2_of(next.distance) >
           2;
}

/* How many bytes before `at` belong to the match too: places that nobody looked at. */
static size_t
earlier(const struct q2_matcher *matcher, size_t at, struct match match)
{
    const uint8_t *here = matcher->bytes + at;
    size_t back = 0;
    while (back < QUIET_STEP && match.length + back < Q2_MATCH_MAX && match.distance + back < at &&
           here[-1 - (ptrdiff_t)back] == here[-1 - (ptrdiff_t)(back + match.distance)])
        back++;
    return back;
}

void
q2_matcher_begin(struct q2_matcher *matcher, const void *bytes, size_t length)
{
    uint32_t used = (uint32_t)(matcher->length + Q2_MATCH_WINDOW);
    if (matcher->base > UINT32_MAX / 2) {
        memset(matcher, 0, sizeof *matcher);
        used = Q2_MATCH_WINDOW;
    }
    /* The first place is not 0, which is what the tables begin with. */
    matcher->base += used + 1;
    matcher->bytes = bytes;
    matcher->length = length;
    matcher->at = 0;
}

size_t
q2_matcher_parse(struct q2_matcher *matcher, uint32_t *tokens, size_t room)
{
    const uint8_t *bytes = matcher->bytes;
    size_t count = 0, at = matcher->at, quiet = 0; /* literals since the last match */
    while (at < matcher->length && count + DEFERRED_MAX < room) {
        struct match match = find(matcher, at, (struct match){0}, DEPTH);
        size_t known = 1; /* places from `at` on that were looked at */
        while (match.length && match.length < LAZY_MAX && at + 1 < matcher->length) {
            struct match rival = {match.length - 1, 0};
            rival = find(matcher, at + 1, rival, LAZY_DEPTH);
            known = 2;
            if (!rival.distance || !is_better(rival, match))
                break;
            tokens[count++] = bytes[at++];
            match = rival;
            known = 1;
        }
        if (match.length && quiet >= QUIET) {
            size_t back = earlier(matcher, at, match);
            count -= back;
            at -= back;
            known += back;
            match.length += (uint32_t)back;
        }
        if (match.length) {
            skip(matcher, at + known, at + match.length);
            tokens[count++] = match.length << 16 | match.distance;
            at += match.length;
            quiet = 0;
            continue;
        }
        tokens[count++] = bytes[at++];
        if (++quiet < QUIET)
            continue;
        size_t pass = at + QUIET_STEP < matcher->length ? at + QUIET_STEP : matcher->length;
        skip(matcher, at, pass);
        while (at < pass)
            tokens[count++] = bytes[at++];
    }
    matcher->at = at;
    return count;
}
