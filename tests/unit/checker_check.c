/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The check as a library: results through the accessors, errors, the memory budget, the same report
 * every time, and every read failing in turn. What each problem looks like is for the cases. */

#include "checker/report.h"
#include "core/base/cleanup.h"
#include "core/io/fault.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "tests/unit/images.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- images ---- */

static const char healthy[] = "cluster-size 4K\nsize 8M\nwrite 0 64K random\n"
                              "snapshot one\nwrite 8K 16K 0x11\nwrite-compressed 2M 16K text\n"
                              "snapshot two id=\"2nd\"\nzero 16K 8K\n"
                              "bitmap b dirty 0 1M\n";

/* Something for each pass to say. */
static const char damaged[] =
    "cluster-size 4K\nsize 8M\nwrite 0 64K random\nsnapshot one\n"
    "write 8K 16K 0x11\nwrite-compressed 2M 16K text\nleak 3\n"
    "bitmap b dirty 0 1M\nbitmap c dirty 0 1M\n"
    "map(0).offset = map(40K).offset\nmap(4K).offset = 1 << 40\n"
    "map(8K).copied = 0\nmap(12K).reserved = 2\n"
    "refcount(map(16K).offset) = 0\nsnapshot[0].map(8K).offset = offset(l1)\n"
    "bitmap[0].type = 9\nbitmap[1].table[0].offset = 1 << 41\n"
    "snapshot[0].vm_state_size = 1 << 30\nfill map(2M).offset 20 0xff\n"
    "header.autoclear_features |= 0x80\n";

static struct q2_check *
check_file(struct q2_file *file, const struct q2_check_options *options)
{
    struct q2_error err = {0};
    struct q2_check *check = NULL;
    cr_assert_eq(q2_check_run(file, options, &check, &err), 0, "%s", err.message);
    return check;
}

static struct q2_check *
check_text(const char *text)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(text);
    return check_file(file, &(struct q2_check_options){0});
}

static char *
json_of(const struct q2_check *check)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    cr_assert_eq(q2_report_json(check, "image", true, out, NULL), 0);
    fclose(out);
    return text;
}

/* ---- results ---- */

Test(check, a_healthy_image_has_numbers_and_no_findings)
{
    struct q2_check *check = check_text(healthy);
    const struct q2_check_counts *counts = q2_check_counts(check);
    cr_expect_eq(q2_check_exit(check), Q2_EXIT_CLEAN);
    cr_expect_eq(q2_check_finding_count(check), 0);
    cr_expect_null(q2_check_finding(check, 0));
    cr_expect_eq(counts->corruptions + counts->leaks + counts->check_errors, 0);
    cr_expect_eq(counts->total_clusters, 2048);
    cr_expect_eq(counts->allocated_clusters, 16 - 2 + 4);
    cr_expect_eq(counts->compressed_clusters, 4);
    cr_expect_eq(q2_check_header(check)->size, 8 << 20);
    struct q2_geometry geometry;
    cr_assert(q2_check_geometry(check, &geometry));
    cr_expect_eq(geometry.cluster_size, 4096);
    q2_check_free(check);
    q2_check_free(NULL);
}

Test(check, snapshots_have_names)
{
    struct q2_check *check = check_text(healthy);
    cr_assert_eq(q2_check_snapshot_count(check), 2);
    cr_expect_str_eq(q2_check_snapshot(check, 0)->name, "one");
    cr_expect_str_eq(q2_check_snapshot(check, 0)->id, "1");
    cr_expect_str_eq(q2_check_snapshot(check, 1)->id, "2nd");
    cr_expect_null(q2_check_snapshot(check, 2));
    q2_check_free(check);
}

Test(check, findings_are_ordered_and_counted)
{
    struct q2_check *check = check_text(damaged);
    uint64_t counted[Q2_PROBLEM_COUNT] = {0}, findings[Q2_PROBLEM_COUNT] = {0};
    enum q2_severity last = Q2_SEVERITY_CORRUPTION;
    size_t count = q2_check_finding_count(check);
    cr_assert_gt(count, 10);
    for (size_t i = 0; i < count; i++) {
        const struct q2_finding *finding = q2_check_finding(check, i);
        enum q2_severity severity = q2_catalogue(finding->problem)->severity;
        cr_expect_geq(severity, last);
        cr_expect_geq(finding->count, 1);
        last = severity;
        counted[finding->problem] += finding->count;
        findings[finding->problem]++;
    }
    uint64_t leaks = 0;
    for (int p = 0; p < Q2_PROBLEM_COUNT; p++) {
        struct q2_problem_count total = q2_check_problem_count(check, (enum q2_problem)p);
        cr_expect_eq(total.count, counted[p], "%s", q2_problem_id((enum q2_problem)p));
        cr_expect_eq(total.findings, findings[p]);
        cr_expect_eq(total.unlisted, 0);
        if (q2_catalogue((enum q2_problem)p)->severity == Q2_SEVERITY_LEAK)
            leaks += total.count;
    }
    cr_expect_eq(q2_check_counts(check)->leaks, leaks);
    cr_expect_eq(q2_check_exit(check), Q2_EXIT_CORRUPT);
    q2_check_free(check);
}

Test(check, says_which_maps_are_affected)
{
    struct q2_check *check = check_text(damaged);
    const uint32_t *members = NULL;
    size_t found = 0;
    for (size_t i = 0; i < q2_check_finding_count(check); i++) {
        const struct q2_finding *finding = q2_check_finding(check, i);
        if (finding->problem != Q2_PROBLEM_OVERLAP_METADATA_DATA)
            continue;
        found++;
        cr_assert_eq(q2_check_maps(check, finding->maps, &members), 1);
        cr_expect_eq(members[0], 1, "snapshot 0");
        cr_expect_eq(finding->owners[0].kind, Q2_OWNER_L1_TABLE);
        cr_expect_eq(finding->owners[1].kind, Q2_OWNER_DATA);
        cr_expect_eq(finding->guest_offset, 8192);
    }
    cr_expect_eq(found, 1);
    cr_expect_eq(q2_check_maps(check, Q2_MAP_SET_NONE, &members), 0);
    cr_expect_eq(q2_check_maps(check, UINT32_MAX, &members), 0);
    q2_check_free(check);
}

Test(check, details_beyond_the_maximum_are_only_counted)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image("cluster-size 4K\nsize 8M\nwrite 0 64K random\nmap(0).copied = 0\n"
                    "map(8K).copied = 0\nmap(16K).copied = 0\nmap(24K).copied = 0\n"
                    "map(28K).copied = 0\n");
    struct q2_check *check = check_file(file, &(struct q2_check_options){.max_details = 2});
    struct q2_problem_count total = q2_check_problem_count(check, Q2_PROBLEM_L2_COPIED_CLEAR);
    cr_expect_eq(total.count, 5);
    cr_expect_eq(total.findings, 2);
    cr_expect_eq(total.unlisted, 3);
    cr_expect_eq(q2_check_finding_count(check), 2);
    cr_expect_eq(q2_check_counts(check)->corruptions, 5);
    q2_check_free(check);
}

Test(check, exit_status_follows_the_worst)
{
    struct q2_check *check = check_text("size 1M\nwrite 0 64K 1\nleak 1\n");
    cr_expect_eq(q2_check_exit(check), Q2_EXIT_LEAKS);
    q2_check_free(check);
    Q2_AUTOCLOSE struct q2_file *file = build_image("size 1M\nwrite 0 64K 1\nleak 1\n");
    Q2_AUTOCLOSE struct q2_file *faulty = NULL;
    struct q2_fault_plan plan = {.kind = Q2_FAULT_EIO,
                                 .ops = Q2_FAULT_READ,
                                 .permanent = true,
                                 .offset = 0x40000,
                                 .length = 512};
    cr_assert_eq(q2_file_new_fault(file, &plan, &faulty, NULL), 0);
    check = check_file(faulty, &(struct q2_check_options){0});
    cr_expect_eq(q2_check_exit(check), Q2_EXIT_INCOMPLETE);
    cr_expect_eq(q2_check_counts(check)->leaks, 0, "what cannot be read is not called leaked");
    q2_check_free(check);
}

/* ---- what is no image ---- */

static void
expect_refusal(struct q2_file *file, const struct q2_check_options *options, int code,
               const char *word)
{
    struct q2_error err = {0};
    struct q2_check *untouched = (struct q2_check *)1, *check = untouched;
    cr_expect_eq(q2_check_run(file, options, &check, &err), code, "%s", err.message);
    cr_expect_eq(check, untouched);
    cr_expect_not_null(strstr(err.message, word), "%s", err.message);
    cr_expect_eq(q2_check_run(file, options, &check, NULL), code);
}

Test(check, refuses_what_is_no_qcow2_image)
{
    static const char text[] = "just some text that is no image at all";
    const struct q2_check_options options = {0};
    Q2_AUTOCLOSE struct q2_file *empty = NULL;
    Q2_AUTOCLOSE struct q2_file *other = NULL;
    cr_assert_eq(q2_file_new_memory("empty", &empty, NULL), 0);
    cr_assert_eq(q2_file_new_memory_from("other", text, sizeof text, &other, NULL), 0);
    expect_refusal(empty, &options, Q2_ERR_NOT_QCOW2, "empty");
    expect_refusal(other, &options, Q2_ERR_NOT_QCOW2, "other");
}

Test(check, an_unreadable_header_is_an_error)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(healthy);
    Q2_AUTOCLOSE struct q2_file *faulty = NULL;
    struct q2_fault_plan plan = {.kind = Q2_FAULT_EIO,
                                 .ops = Q2_FAULT_READ,
                                 .permanent = true,
                                 .length = 512};
    cr_assert_eq(q2_file_new_fault(file, &plan, &faulty, NULL), 0);
    expect_refusal(faulty, &(struct q2_check_options){0}, Q2_ERR_IO, "image");
}

Test(check, a_header_without_geometry_is_a_result)
{
    struct q2_check *check = check_text("size 1M\nwrite 0 64K 1\nheader.cluster_bits = 40\n");
    struct q2_geometry geometry = {.cluster_bits = 7};
    cr_expect_not(q2_check_geometry(check, &geometry));
    cr_expect_eq(geometry.cluster_bits, 7, "untouched");
    cr_expect_eq(q2_check_problem_count(check, Q2_PROBLEM_HEADER_CLUSTER_BITS).count, 1);
    cr_expect_eq(q2_check_exit(check), Q2_EXIT_CORRUPT);
    cr_expect_eq(q2_check_header(check)->cluster_bits, 40);
    q2_check_free(check);
}

/* ---- memory ---- */

/* From a budget for nothing to one that suffices: either a clear refusal or the whole result. */
static void
sweep_budget(const char *text, bool deep)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(text);
    struct q2_check_options options = {.deep = deep, .threads = 2};
    struct q2_check *check = check_file(file, &options);
    Q2_AUTOFREE char *whole = json_of(check);
    q2_check_free(check);
    int refusals = 0;
    for (uint64_t budget = 1;; budget += budget / 8 + 1) {
        struct q2_error err = {0};
        options.max_memory = budget;
        int rc = q2_check_run(file, &options, &check, &err);
        if (rc == 0)
            break;
        cr_assert_eq(rc, Q2_ERR_BUDGET, "%s", err.message);
        cr_assert_not_null(strstr(err.message, "memory"), "%s", err.message);
        cr_assert_lt(budget, 64 << 20);
        refusals++;
    }
    Q2_AUTOFREE char *again = json_of(check);
    cr_expect_str_eq(again, whole);
    cr_expect_gt(refusals, 20);
    q2_check_free(check);
}

Test(check, a_budget_that_is_too_small_is_a_clear_error)
{
    sweep_budget(healthy, false);
    sweep_budget(healthy, true);
    sweep_budget(damaged, false);
    sweep_budget(damaged, true);
}

/* ---- the same every time ---- */

Test(check, reports_are_the_same_whatever_the_threads)
{
    static const unsigned threads[] = {1, 1, 2, 8, 8};
    const char *const texts[] = {healthy, damaged};
    for (size_t t = 0; t < 2; t++) {
        Q2_AUTOCLOSE struct q2_file *file = build_image(texts[t]);
        Q2_AUTOFREE char *first = NULL;
        for (size_t i = 0; i < sizeof threads / sizeof threads[0]; i++) {
            struct q2_check_options options = {.deep = true, .threads = threads[i]};
            struct q2_check *check = check_file(file, &options);
            Q2_AUTOFREE char *json = json_of(check);
            q2_check_free(check);
            if (first)
                cr_expect_str_eq(json, first, "%u threads", threads[i]);
            else
                first = Q2_STEAL(json);
        }
    }
}

static void
expect_progress(void *data, const struct q2_progress *progress)
{
    unsigned *calls = data;
    cr_expect_not_null(progress->phase);
    cr_expect(progress->total == 0 || progress->done <= progress->total);
    ++*calls;
}

Test(check, tells_how_far_it_is)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(damaged);
    unsigned calls = 0;
    struct q2_check_options options = {.deep = true,
                                       .progress = expect_progress,
                                       .progress_data = &calls};
    q2_check_free(check_file(file, &options));
    cr_expect_gt(calls, 3);
}

/* ---- every read fails in turn ---- */

/* Each time, the check gives up with an error or has something to say, unless what could not be
 * read makes no difference at all. */
static void
sweep_reads(const char *text, bool permanent)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(text);
    const struct q2_check_options options = {.deep = true, .threads = 1};
    struct q2_check *whole = check_file(file, &options);
    Q2_AUTOFREE char *expected = json_of(whole);
    q2_check_free(whole);
    for (uint64_t n = 1;; n++) {
        struct q2_fault_plan plan = {.kind = Q2_FAULT_EIO,
                                     .ops = Q2_FAULT_READ,
                                     .nth = n,
                                     .permanent = permanent};
        Q2_AUTOCLOSE struct q2_file *faulty = NULL;
        struct q2_check *check = NULL;
        struct q2_error err = {0};
        cr_assert_eq(q2_file_new_fault(file, &plan, &faulty, &err), 0);
        int rc = q2_check_run(faulty, &options, &check, &err);
        if (rc == 0 && q2_fault_matched(faulty) < n) {
            q2_check_free(check);
            cr_expect_gt(n, 10);
            return;
        }
        if (rc < 0) {
            cr_expect_neq(err.message[0], '\0', "read %" PRIu64, n);
            continue;
        }
        Q2_AUTOFREE char *json = json_of(check);
        bool told = q2_check_counts(check)->check_errors ||
                    q2_check_problem_count(check, Q2_PROBLEM_DATA_UNREADABLE).count;
        cr_expect(told || strcmp(json, expected) == 0, "read %" PRIu64 " failed unnoticed", n);
        q2_check_free(check);
    }
}

Test(check, every_read_may_fail_for_good)
{
    sweep_reads(healthy, true);
    sweep_reads(damaged, true);
}

Test(check, every_read_may_fail_once)
{
    sweep_reads(healthy, false);
    sweep_reads(damaged, false);
}
