/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A sink that remembers the rules that were broken, for the tests of core/format. */

#ifndef Q2_TESTS_FORMAT_RECORD_H
#define Q2_TESTS_FORMAT_RECORD_H

#include "core/format/header.h"

#include <criterion/criterion.h>

struct record {
    size_t count;
    struct q2_violation violations[128];
};

static void
remember(void *data, const struct q2_violation *violation)
{
    struct record *record = data;
    cr_assert_lt(record->count, 128);
    record->violations[record->count++] = *violation;
}

static inline struct q2_sink
record_sink(struct record *record)
{
    record->count = 0;
    return (struct q2_sink){.report = remember, .data = record};
}

static inline const struct q2_violation *
find_violation(const struct record *record, enum q2_problem problem)
{
    for (size_t i = 0; i < record->count; i++)
        if (record->violations[i].problem == problem)
            return &record->violations[i];
    return NULL;
}

/* Exactly one rule was broken: this one, at `offset`, with the value `got`. */
static inline void
expect_only(const struct record *record, enum q2_problem problem, uint64_t offset, uint64_t got)
{
    cr_assert_eq(record->count, 1, "%zu rules broken instead of %s", record->count,
                 q2_problem_id(problem));
    const struct q2_violation *violation = &record->violations[0];
    cr_expect_eq(violation->problem, problem, "%s instead of %s", q2_problem_id(violation->problem),
                 q2_problem_id(problem));
    cr_expect_eq(violation->offset, offset, "%s at %llu", q2_problem_id(problem),
                 (unsigned long long)violation->offset);
    cr_expect_eq(violation->got, got, "%s got %llu", q2_problem_id(problem),
                 (unsigned long long)violation->got);
}

static inline void
expect_none(const struct record *record)
{
    cr_expect_eq(record->count, 0, "%zu rules broken, the first %s", record->count,
                 record->count ? q2_problem_id(record->violations[0].problem) : "");
}

/* The geometry of an image of version 3 with clusters of 2^cluster_bits bytes. */
static inline struct q2_geometry
make_geometry(unsigned cluster_bits, uint64_t file_size, uint64_t disk_size)
{
    struct q2_geometry geometry;
    struct q2_header header = {.magic = Q2_MAGIC,
                               .version = 3,
                               .cluster_bits = cluster_bits,
                               .refcount_order = 4,
                               .size = disk_size};
    q2_geometry_init(&geometry, &header, file_size);
    return geometry;
}

#endif
