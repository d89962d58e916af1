/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Whole images through the checker, twice: the same image gives the same report, and what strict
 * open accepts has a header that the checker has nothing against. */

#include "checker/check.h"
#include "core/image/image.h"
#include "core/io/memory.h"
#include "fuzz/fuzz.h"
#include "fuzz/support/image.h"

#include <string.h>

enum { DEEP = 1 << 0 }; /* of the flags */

static void
compare(const struct q2_check *a, const struct q2_check *b)
{
    Q2_REQUIRE(!a == !b, "one check ended, one did not");
    if (!a)
        return;
    Q2_REQUIRE(memcmp(q2_check_counts(a), q2_check_counts(b), sizeof(struct q2_check_counts)) == 0,
               "the counts differ");
    size_t count = q2_check_finding_count(a);
    Q2_REQUIRE(q2_check_finding_count(b) == count, "%zu findings, then %zu", count,
               q2_check_finding_count(b));
    for (size_t i = 0; i < count; i++) {
        const struct q2_finding *x = q2_check_finding(a, i), *y = q2_check_finding(b, i);
        Q2_REQUIRE(x->problem == y->problem && x->host_offset == y->host_offset &&
                       x->guest_offset == y->guest_offset && x->got == y->got &&
                       x->count == y->count,
                   "finding %zu was %s, then %s", i, q2_problem_id(x->problem),
                   q2_problem_id(y->problem));
    }
}

/* The passes over the header and its extensions, whose rules strict open obeys too; only that the
 * corrupt bit is set does not keep it from reading. */
static void
require_sound_header(const struct q2_check *check)
{
    Q2_REQUIRE(check, "strict open accepts what the checker cannot check");
    for (size_t i = 0; i < q2_check_finding_count(check); i++) {
        const struct q2_finding *finding = q2_check_finding(check, i);
        const struct q2_catalogue_entry *entry = q2_catalogue(finding->problem);
        Q2_REQUIRE(entry->pass != Q2_PASS_HEADER || entry->severity != Q2_SEVERITY_CORRUPTION ||
                       finding->problem == Q2_PROBLEM_HEADER_CORRUPT,
                   "strict open accepts %s", q2_problem_id(finding->problem));
    }
}

static void
run(const uint8_t *input, size_t length)
{
    struct q2_fuzz_options options;
    length = q2_fuzz_split(input, length, &options);
    struct q2_file *file = q2_fuzz_file(input, length);
    bool deep = options.flags & DEEP;
    struct q2_check *first = q2_fuzz_check(file, deep), *second = q2_fuzz_check(file, deep);
    compare(first, second);
    q2_check_free(second);

    struct q2_image *image = q2_fuzz_open(file, 0);
    if (image)
        require_sound_header(first);
    q2_image_close(image, NULL);
    q2_check_free(first);
    q2_file_close(file);
}

const struct q2_harness q2_harness = {"check", Q2_FUZZ_IMAGE, 1 << 18, run};
