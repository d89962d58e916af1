/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What must hold after every step. */

#include "checker/catalogue.h"
#include "checker/check.h"
#include "core/format/problem.h"
#include "tests/stress/stress.h"

#include <stdlib.h>
#include <string.h>

static bool
is_zero(const uint8_t *bytes, uint64_t length)
{
    return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

bool
verify_content(struct run *run, struct q2_image *image, const struct state *state)
{
    struct q2_error err = {0};
    if (q2_image_size(image) != state->size)
        return fail(run, "the disk has %llu bytes instead of %llu",
                    (unsigned long long)q2_image_size(image), (unsigned long long)state->size);
    int rc = q2_image_read(image, 0, run->scratch, state->size, &err);
    if (!succeeded(run, rc, &err, "read"))
        return false;
    if (memcmp(run->scratch, state->disk, state->size) == 0)
        return true;
    for (uint64_t i = 0; i < state->size; i++)
        if (run->scratch[i] != state->disk[i]) {
            uint64_t end = i;
            while (end < state->size && run->scratch[end] != state->disk[end])
                end++;
            return fail(run, "bytes %llu to %llu are wrong: 0x%02x instead of 0x%02x",
                        (unsigned long long)i, (unsigned long long)end, run->scratch[i],
                        state->disk[i]);
        }
    return true;
}

/* One extent against the content. */
static bool
check_extent(struct run *run, const struct q2_extent *extent, const char *what)
{
    const struct state *active = &run->model.active;
    const uint8_t *bytes = active->disk + extent->offset;
    struct q2_error err = {0};
    unsigned long long offset = extent->offset, length = extent->length;
    if (extent->zero && !is_zero(bytes, extent->length))
        return fail(run, "%s says zeros where there are none: %llu+%llu", what, offset, length);
    if (!extent->zero && !extent->data)
        return fail(run, "%s says neither zero nor data: %llu+%llu", what, offset, length);
    if (!extent->has_host || extent->compressed || extent->zero || run->params.crypt)
        return true;
    if (!extent->file)
        return fail(run, "%s names no file for a host offset: %llu", what, offset);
    int rc = q2_file_read_padded((struct q2_file *)(uintptr_t)extent->file, extent->host,
                                 run->scratch, extent->length, &err);
    if (!succeeded(run, rc, &err, "read at the host offset"))
        return false;
    return memcmp(run->scratch, bytes, extent->length) == 0 ||
           fail(run, "%s says %llu+%llu is at host %llu, which it is not", what, offset, length,
                (unsigned long long)extent->host);
}

bool
verify_map(struct run *run, uint64_t from)
{
    struct q2_error err = {0};
    uint64_t size = run->model.active.size;
    for (uint64_t at = from; at < size;) {
        struct q2_extent all = {0}, own = {0};
        int rc = q2_image_map(run->image, at, size - at, &all, &err);
        if (!succeeded(run, rc, &err, "map"))
            return false;
        rc = q2_image_map_own(run->image, at, size - at, &own, &err);
        if (!succeeded(run, rc, &err, "map_own"))
            return false;
        if (all.offset != at || own.offset != at || all.length == 0 || own.length == 0 ||
            all.length > size - at || own.length > size - at)
            return fail(run, "the map at %llu is %llu+%llu, own %llu+%llu", (unsigned long long)at,
                        (unsigned long long)all.offset, (unsigned long long)all.length,
                        (unsigned long long)own.offset, (unsigned long long)own.length);
        if (!check_extent(run, &all, "map") || (own.present && !check_extent(run, &own, "map_own")))
            return false;
        if (own.present && all.depth != 0)
            return fail(run, "the map says depth %u at %llu, which the image itself has", all.depth,
                        (unsigned long long)at);
        at += all.length;
    }
    return true;
}

/* VM state that no snapshot has taken is there on purpose, and so are the marks on bitmaps while
 * the image is open. */
static size_t
count_known(const struct run *run, const struct q2_check *check)
{
    uint64_t known = q2_check_problem_count(check, Q2_PROBLEM_MAP_BEYOND_DISK).findings;
    if (run->image || run->interrupted)
        known += q2_check_problem_count(check, Q2_PROBLEM_BITMAP_IN_USE).findings;
    return known;
}

bool
verify_clean(struct run *run, const char *when)
{
    struct q2_error err = {0};
    struct q2_check *check = NULL;
    struct q2_check_options options = {.threads = 1, .deep = true};
    int rc = q2_check_run(world_find(&run->world, "image")->base, &options, &check, &err);
    if (!succeeded(run, rc, &err, "check"))
        return false;
    size_t known = count_known(run, check), count = q2_check_finding_count(check);
    if (q2_check_exit(check) != Q2_EXIT_CLEAN || count > known) {
        const struct q2_finding *finding = q2_check_finding(check, 0);
        fail(run, "%s: exit %d, %zu findings, the first: %s at 0x%llx, %s", when,
             (int)q2_check_exit(check), count, q2_problem_id(finding->problem),
             (unsigned long long)finding->host_offset, finding->detail ? finding->detail : "");
    }
    q2_check_free(check);
    return !run->failed;
}

static bool
harmless(const struct q2_finding *finding, bool dirty)
{
    enum q2_severity severity = q2_catalogue(finding->problem)->severity;
    switch (finding->problem) {
    case Q2_PROBLEM_SNAPSHOT_TABLE_LOST:
    case Q2_PROBLEM_ORPHAN_L1_TABLE: /* written, but nothing leads there yet */
    case Q2_PROBLEM_ORPHAN_L2_TABLE:
    case Q2_PROBLEM_L1_COPIED_CLEAR:
    case Q2_PROBLEM_L2_COPIED_CLEAR:
        return true;
    case Q2_PROBLEM_L1_COPIED_SET:
    case Q2_PROBLEM_L2_COPIED_SET:
    case Q2_PROBLEM_REFCOUNT_TOO_LOW:
    case Q2_PROBLEM_REFCOUNT_ZERO:
        return dirty;
    default:
        return severity != Q2_SEVERITY_CORRUPTION && severity != Q2_SEVERITY_ERROR;
    }
}

bool
verify_survived(struct run *run, bool *ret_dirty)
{
    struct q2_error err = {0};
    struct q2_check *check = NULL;
    struct q2_check_options options = {.threads = 1, .deep = true};
    int rc = q2_check_run(world_find(&run->world, "image")->base, &options, &check, &err);
    if (!succeeded(run, rc, &err, "check"))
        return false;
    bool dirty = q2_check_header(check)->incompatible_features & Q2_INCOMPATIBLE_DIRTY;
    for (size_t i = 0; i < q2_check_finding_count(check); i++) {
        const struct q2_finding *finding = q2_check_finding(check, i);
        if (!harmless(finding, dirty))
            fail(run, "%s at 0x%llx, target 0x%llx, guest 0x%llx, %s",
                 q2_problem_id(finding->problem), (unsigned long long)finding->host_offset,
                 (unsigned long long)finding->target_offset,
                 (unsigned long long)finding->guest_offset, finding->detail ? finding->detail : "");
    }
    q2_check_free(check);
    *ret_dirty = dirty;
    return !run->failed;
}

bool
verify_open(struct run *run)
{
    return verify_content(run, run->image, &run->model.active) && verify_map(run, 0);
}
