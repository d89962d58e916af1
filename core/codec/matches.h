/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Repetitions in a cluster, for the deflate encoder: from bytes to literals and matches that reach
 * back no more than 4 KiB. Private to core/codec. */

#ifndef Q2_CODEC_MATCHES_H
#define Q2_CODEC_MATCHES_H

#include <stddef.h>
#include <stdint.h>

enum {
    Q2_MATCH_WINDOW = 4096,
    Q2_MATCH_MIN = 3,
    Q2_MATCH_MAX = 258,
    Q2_MATCH_HASH3_BITS = 12,
    Q2_MATCH_HASH4_BITS = 15,
};

/* A literal is its byte; a match has its length in the upper half and its distance in the lower. */
static inline uint32_t
q2_token_length(uint32_t token)
{
    return token >> 16;
}

static inline uint32_t
q2_token_distance(uint32_t token)
{
    return token & 0xffff;
}

/* Where bytes that hash alike were seen. Places are numbered on and on, with a gap of a window
 * between two clusters: what is left of the last cluster is out of reach without being erased. */
struct q2_matcher {
    const uint8_t *bytes;
    size_t length, at;                          /* of the cluster, and how far it is parsed */
    uint32_t base;                              /* the number of its first byte */
    uint32_t before[Q2_MATCH_WINDOW];           /* the place before that hashes alike */
    uint32_t latest4[1 << Q2_MATCH_HASH4_BITS]; /* by the hash of four bytes */
    uint32_t latest3[1 << Q2_MATCH_HASH3_BITS];
};

/* The object begins as zeros. */
void q2_matcher_begin(struct q2_matcher *matcher, const void *bytes, size_t length);

/* Go on until the cluster ends or `room` tokens are full. Returns how many there are; at least 1
 * unless the cluster ends. */
size_t q2_matcher_parse(struct q2_matcher *matcher, uint32_t *tokens, size_t room);

#endif
