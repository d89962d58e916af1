/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the harnesses for the decoders of core/format have in common: measures from bytes, a record
 * of broken rules, and an image around the structure that is under test, so that strict reading can
 * be asked for its opinion. */

#ifndef Q2_FUZZ_SUPPORT_FORMAT_H
#define Q2_FUZZ_SUPPORT_FORMAT_H

#include "core/base/error.h"
#include "core/format/header.h"
#include "core/io/file.h"
#include "fuzz/fuzz.h"

/* ---- measures ---- */

/* Any header that measures can be taken from, and some size of the file. The rules about single
 * fields hold; tables may be anywhere. */
void q2_fuzz_header(struct q2_fuzz_cursor *cursor, struct q2_header *ret_header,
                    uint64_t *ret_file_size);

void q2_fuzz_geometry(struct q2_fuzz_cursor *cursor, struct q2_geometry *ret_geometry);

/* ---- broken rules ---- */

struct q2_fuzz_rules {
    struct q2_sink sink; /* pass this to a validator; holds each report to what it must be */
    unsigned count;
    unsigned breaking; /* those that strict readers refuse an image for */
    bool broken[Q2_PROBLEM_COUNT];
};

/* `rules` must stay where it is. */
void q2_fuzz_rules_init(struct q2_fuzz_rules *rules);

/* Strict reading said `rc`, with `err`. Where it refused because of a problem, that must be one of
 * `rules`, if it is one of `count` problems that these rules are about; where a rule is broken that
 * strict readers refuse, it must not have returned 0. */
void q2_fuzz_rules_agree(const struct q2_fuzz_rules *rules, const enum q2_problem *problems,
                         size_t count, int rc, const struct q2_error *err);

/* ---- a minimal image ---- */

enum {
    Q2_FUZZ_MINIMAL_CLUSTERS = 16,
    /* The clusters that are in use; the others are for what the harness puts there. */
    Q2_FUZZ_MINIMAL_REFCOUNT_TABLE = 1,
    Q2_FUZZ_MINIMAL_REFCOUNT_BLOCK = 2,
    Q2_FUZZ_MINIMAL_L1 = 3,
    Q2_FUZZ_MINIMAL_L2 = 4,
    Q2_FUZZ_MINIMAL_DATA = 5,
    Q2_FUZZ_MINIMAL_FREE = 6,
    /* Bytes of a cluster that are kept. In larger ones zeros follow, and the free ones are zero. */
    Q2_FUZZ_MINIMAL_PART = 512,
};

/* An image of 16 clusters. Its first L1 entry leads to an empty L2 table. */
struct q2_fuzz_minimal {
    struct q2_header header; /* may be changed before q2_fuzz_minimal_file */
    struct q2_geometry geometry;
    uint8_t bytes[Q2_FUZZ_MINIMAL_CLUSTERS * Q2_FUZZ_MINIMAL_PART];
};

/* `extended`: with extended L2 entries and clusters of 16 KiB, otherwise of 512 bytes. */
void q2_fuzz_minimal_init(struct q2_fuzz_minimal *minimal, unsigned version, bool extended);

/* What is kept of a cluster. In those of 512 bytes that is all of it, and the next one follows. */
static inline uint8_t *
q2_fuzz_minimal_cluster(struct q2_fuzz_minimal *minimal, unsigned cluster)
{
    return minimal->bytes + (size_t)cluster * Q2_FUZZ_MINIMAL_PART;
}

/* Append a header extension; they begin behind a header of 112 bytes, or 72 in version 2. *at is 0
 * before the first. */
void q2_fuzz_minimal_extension(struct q2_fuzz_minimal *minimal, size_t *at, uint32_t type,
                               const void *data, size_t length);

/* Put the header in and make a file of it all. */
struct q2_file *q2_fuzz_minimal_file(struct q2_fuzz_minimal *minimal);

/* Open it strictly, as q2_fuzz_open does, and have the error. */
struct q2_image;
int q2_fuzz_minimal_open(struct q2_file *file, unsigned flags, struct q2_image **ret_image,
                         struct q2_error *err);

#endif
