/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A check without an image. The reports see a check only through its accessors, so a test that
 * includes this defines its own and can show the reports any mixture of findings. */

#ifndef Q2_TESTS_FAKE_CHECK_H
#define Q2_TESTS_FAKE_CHECK_H

#include "checker/report_parts.h"

#include <criterion/criterion.h>
#include <string.h>

enum { MAX_FINDINGS = 16 };

struct q2_check {
    struct q2_finding findings[MAX_FINDINGS];
    size_t finding_count;
    struct q2_problem_count problems[Q2_PROBLEM_COUNT];
    struct q2_check_counts counts;
    enum q2_check_exit exit;
    bool no_geometry;
    size_t snapshots;
};

/* ---- the accessors ---- */

const struct q2_check_counts *
q2_check_counts(const struct q2_check *check)
{
    return &check->counts;
}

enum q2_check_exit
q2_check_exit(const struct q2_check *check)
{
    return check->exit;
}

bool
q2_check_geometry(const struct q2_check *check, struct q2_geometry *ret_geometry)
{
    if (check->no_geometry)
        return false;
    *ret_geometry = (struct q2_geometry){.version = 3,
                                         .cluster_bits = 16,
                                         .cluster_size = 65536,
                                         .l2_bits = 13,
                                         .l2_entries = 8192,
                                         .disk_size = UINT64_C(1) << 30,
                                         .file_size = 20 << 20};
    return true;
}

size_t
q2_check_finding_count(const struct q2_check *check)
{
    return check->finding_count;
}

const struct q2_finding *
q2_check_finding(const struct q2_check *check, size_t index)
{
    return &check->findings[index];
}

struct q2_problem_count
q2_check_problem_count(const struct q2_check *check, enum q2_problem problem)
{
    return check->problems[problem];
}

size_t
q2_check_snapshot_count(const struct q2_check *check)
{
    return check->snapshots;
}

const struct q2_snapshot_name *
q2_check_snapshot(const struct q2_check *check, size_t index)
{
    static const struct q2_snapshot_name names[] = {
        {.id = "1", .name = "before"},
        {.id = "2", .name = ""},
        {.id = "3", .name = "a name that goes on and on until nobody reads it any more"},
        {.id = "4", .name = "four"},
        {.id = "5", .name = "five"},
        {.id = "6", .name = "six"},
    };
    return index < check->snapshots ? &names[index] : NULL;
}

/* A set is a bit mask here. */
size_t
q2_check_maps(const struct q2_check *check, q2_map_set set, const uint32_t **ret_members)
{
    static uint32_t members[32];
    size_t count = 0;
    (void)check;
    for (uint32_t i = 0; i < 32; i++)
        if (set >> i & 1)
            members[count++] = i;
    *ret_members = members;
    return count;
}

/* ---- helpers ---- */

static inline void
add(struct q2_check *check, struct q2_finding finding)
{
    struct q2_problem_count *count = &check->problems[finding.problem];
    finding.count = finding.count ? finding.count : 1;
    count->count += finding.count;
    count->findings++;
    switch (q2_catalogue(finding.problem)->severity) {
    case Q2_SEVERITY_CORRUPTION:
        check->counts.corruptions += finding.count;
        check->exit = Q2_EXIT_CORRUPT;
        break;
    case Q2_SEVERITY_LEAK:
        check->counts.leaks += finding.count;
        if (check->exit == Q2_EXIT_CLEAN)
            check->exit = Q2_EXIT_LEAKS;
        break;
    case Q2_SEVERITY_ERROR:
        check->counts.check_errors += finding.count;
        check->exit = Q2_EXIT_INCOMPLETE;
        break;
    default:
        break;
    }
    check->findings[check->finding_count++] = finding;
}

static inline void
add_past_end(struct q2_check *check, uint64_t guest, q2_map_set maps)
{
    add(check, (struct q2_finding){.problem = Q2_PROBLEM_L2_ENTRY_PAST_END,
                                   .has = Q2_HAS_HOST | Q2_HAS_GUEST | Q2_HAS_L1 | Q2_HAS_L2 |
                                          Q2_HAS_GOT | Q2_HAS_TARGET,
                                   .host_offset = 0x50008,
                                   .host_length = 8,
                                   .target_offset = 0x990000,
                                   .target_length = 65536,
                                   .guest_offset = guest,
                                   .guest_length = 65536,
                                   .l2_index = 1,
                                   .maps = maps,
                                   .got = UINT64_C(0x8000000000990000)});
}

#define EXPECT_IN(text, words)     cr_expect(strstr(text, words), "no \"%s\" in:\n%s", words, text)
#define EXPECT_NOT_IN(text, words) cr_expect_not(strstr(text, words), "\"%s\" in:\n%s", words, text)

#endif
