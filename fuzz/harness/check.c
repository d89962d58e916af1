/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Whole images through the checker, twice: the same image gives the same report, on however many
 * threads and with however little room for it, and what strict open accepts has a header that the
 * checker has nothing against. Whoever asks for the owners of a cluster is told what its refcount
 * says, where nothing is wrong. */

#include "checker/check.h"
#include "core/image/image.h"
#include "core/io/memory.h"
#include "fuzz/fuzz.h"
#include "fuzz/support/image.h"
#include "fuzz/support/medium.h"

#include <inttypes.h>
#include <string.h>

enum { DEEP = 1 << 0, THREADS = 1 << 1, TIGHT = 1 << 2, OWNERS = 1 << 3 }; /* of the flags */

static void
look_at_progress(void *data, const struct q2_progress *progress)
{
    (void)data;
    Q2_REQUIRE(progress->phase && progress->phase[0], "progress of nothing");
    Q2_REQUIRE(progress->total == 0 || progress->done <= progress->total,
               "%s: %" PRIu64 " bytes of %" PRIu64, progress->phase, progress->done,
               progress->total);
}

static struct q2_check_options
options_of(const struct q2_fuzz_options *options)
{
    struct q2_check_options how = {.deep = options->flags & DEEP,
                                   .threads = 1,
                                   .max_memory = Q2_FUZZ_MEMORY,
                                   .now = Q2_FUZZ_NOW,
                                   .progress = look_at_progress};
    if (options->flags & TIGHT)
        q2_fuzz_limits(options, &how);
    return how;
}

static struct q2_check *
check(struct q2_file *file, const struct q2_check_options *how)
{
    struct q2_error err = {0};
    struct q2_check *check = NULL;
    int rc = q2_check_run(file, how, &check, &err);
    Q2_REQUIRE(rc == 0 || err.message[0] != '\0', "failed with %d and no word", rc);
    return rc == 0 ? check : NULL;
}

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
count(void *data, const struct q2_owner *owner)
{
    (void)owner;
    ++*(uint64_t *)data;
}

/* Of some cluster. */
static void
ask_owners(struct q2_check *check, struct q2_file *file, uint32_t chance)
{
    struct q2_error err = {0};
    struct q2_geometry geometry = {0};
    bool known = q2_check_geometry(check, &geometry);
    uint64_t owners = 0, refcount = 0;
    uint64_t offset =
        geometry.file_size ? (uint64_t)chance * Q2_FUZZ_SECTOR % geometry.file_size : chance;
    int rc = q2_check_owners(check, file, offset, count, &owners, &refcount, &err);
    Q2_REQUIRE(rc == 0 || err.message[0] != '\0', "failed with %d and no word", rc);
    Q2_REQUIRE(rc < 0 || known, "owners of clusters whose size is not known");
    if (rc == 0 && q2_check_exit(check) == Q2_EXIT_CLEAN)
        Q2_REQUIRE((owners > 0) == (refcount > 0),
                   "%" PRIu64 " owners, but the refcount is %" PRIu64, owners, refcount);
}

static void
run(const uint8_t *input, size_t length)
{
    struct q2_fuzz_options options;
    length = q2_fuzz_split(input, length, &options);
    struct q2_file *whole = q2_fuzz_input(input, length, &options),
                   *file = q2_fuzz_medium(whole, &options);
    struct q2_check_options how = options_of(&options);
    struct q2_check *first = check(file, &how);
    /* Each thread takes memory of its own; and who is the first to read what can be read at the
     * second attempt is a matter of chance. */
    bool heals = options.flags & Q2_FUZZ_BAD_SPOT && options.chance & Q2_FUZZ_HEALS;
    if (options.flags & THREADS && how.max_memory == Q2_FUZZ_MEMORY && !heals)
        how.threads = 3;
    q2_file_close(file);
    file = q2_fuzz_medium(whole, &options); /* as it was for the first */
    struct q2_check *second = check(file, &how);
    compare(first, second);
    if (second && options.flags & OWNERS)
        ask_owners(second, file, options.chance);
    q2_check_free(second);

    /* What heals is another image by now. */
    struct q2_image *image = options.flags & TIGHT || heals ? NULL : q2_fuzz_open(file, 0);
    if (image)
        require_sound_header(first);
    q2_image_close(image, NULL);
    q2_check_free(first);
    q2_file_close(file);
    q2_file_close(whole);
}

const struct q2_harness q2_harness = {"check", Q2_FUZZ_IMAGE, 1 << 18, run};
