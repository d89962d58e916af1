/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The report for people and the pages of the catalogue. */

#include "tests/unit/fake_check.h"

#include <stdlib.h>

static void
flatten(char *text)
{
    char *to = text;
    for (const char *from = text; *from; from++)
        if (*from != ' ' && *from != '\n')
            *to++ = *from;
        else if (to == text || to[-1] != ' ')
            *to++ = ' ';
    *to = '\0';
}

/* The report with every run of spaces and newlines as one space. */
static char *
human(const struct q2_check *check, const char *name, const struct q2_report_style *style)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    q2_report_human(check, name, style, out);
    fclose(out);
    flatten(text);
    return text;
}

static const struct q2_report_style plain = {.max_lines = 10};

/* ---- the human report ---- */

Test(human, clean)
{
    struct q2_check check = {.counts = {.total_clusters = 16384, .allocated_clusters = 4096}};
    char *text = human(&check, "vm.qcow2", &plain);
    cr_expect_str_eq(text, "vm.qcow2: no errors found "
                           "qcow2 version 3, disk of 1 GiB, clusters of 64 KiB "
                           "file of 20 MiB, 25.00 % of the disk allocated, 0.00 % fragmented, "
                           "0.00 % compressed ");
    free(text);
}

Test(human, names_everything)
{
    struct q2_check check = {.snapshots = 1};
    add_past_end(&check, 65536, 3);
    char *text = human(&check, "vm.qcow2", &plain);
    EXPECT_IN(text, "vm.qcow2: damaged: 1 corruption ");
    EXPECT_IN(text, "corruption l2-entry-past-end An L2 entry points past the end");
    EXPECT_IN(text, "at 0x50008 (L1[0] L2[1]) -> host 0x990000-0x9a0000, guest");
    EXPECT_IN(text, "guest 64K-128K (active,");
    EXPECT_IN(text, "found 0x8000000000990000");
    EXPECT_IN(text, "What this means: 64 KiB of guest data (64K-128K) cannot be read.");
    EXPECT_IN(text, "qcow2-repair --dry-run vm.qcow2 says what");
    EXPECT_IN(text, "qcow2-check --explain l2-entry-past-end");
    EXPECT_NOT_IN(text, "salvage");
    EXPECT_NOT_IN(text, "\033");
    free(text);
}

Test(human, a_million_leaks_are_a_line)
{
    struct q2_check check = {.snapshots = 0};
    add(&check, (struct q2_finding){.problem = Q2_PROBLEM_CLUSTER_LEAKED,
                                    .has = Q2_HAS_TARGET | Q2_HAS_GOT | Q2_HAS_EXPECTED,
                                    .count = 1000000,
                                    .target_offset = 0x100000,
                                    .target_length = UINT64_C(65536) * 1000000,
                                    .got = 1});
    char *text = human(&check, "vm.qcow2", &plain);
    EXPECT_IN(text, "sound, but wastes space: 1,000,000 leaks");
    EXPECT_IN(text, "1,000,000 times");
    EXPECT_IN(text, "Guest data is not affected; 61 GiB of space is wasted.");
    cr_expect_lt(strlen(text), 1000);
    free(text);
}

Test(human, lists_no_more_than_asked)
{
    struct q2_check check = {.snapshots = 0};
    struct q2_report_style two = {.max_lines = 2};
    for (uint64_t i = 0; i < 5; i++)
        add_past_end(&check, i * 131072, 1);
    check.problems[Q2_PROBLEM_L2_ENTRY_PAST_END].count += 1000;
    check.problems[Q2_PROBLEM_L2_ENTRY_PAST_END].unlisted = 1000;
    char *text = human(&check, "vm.qcow2", &two);
    EXPECT_IN(text, "(1,005 times)");
    EXPECT_IN(text, "... and 1,003 more");
    EXPECT_IN(text, "At least 320 KiB of guest data cannot be read.");
    free(text);
}

Test(human, names_both_owners)
{
    struct q2_check check = {.snapshots = 1};
    add(&check, (struct q2_finding){.problem = Q2_PROBLEM_OVERLAP_DATA,
                                    .has = Q2_HAS_TARGET | Q2_HAS_OWNERS,
                                    .target_offset = 0x60000,
                                    .target_length = 65536,
                                    .owners = {{.kind = Q2_OWNER_DATA,
                                                .maps = 1,
                                                .guest = 0,
                                                .guest_length = 65536,
                                                .at = 0x40000},
                                               {.kind = Q2_OWNER_DATA,
                                                .maps = 2,
                                                .guest = 65536,
                                                .guest_length = 65536,
                                                .at = 0x40008}}});
    char *text = human(&check, "vm.qcow2", &plain);
    EXPECT_IN(text, "host 0x60000-0x70000");
    EXPECT_IN(text, "used by guest data, guest 0-64K (active), entry at 0x40000 ");
    EXPECT_IN(text, "and by guest data, guest 64K-128K (snapshot 'before'), entry at 0x40008 ");
    EXPECT_IN(text, "64 KiB of guest data (0-64K) and 64 KiB of snapshots may be wrong");
    free(text);
}

Test(human, says_the_worst_first_and_two_things_at_most)
{
    struct q2_check check = {.snapshots = 0};
    add(&check, (struct q2_finding){.problem = Q2_PROBLEM_L2_COPIED_SET});
    add(&check, (struct q2_finding){.problem = Q2_PROBLEM_REFCOUNT_ZERO});
    add(&check, (struct q2_finding){.problem = Q2_PROBLEM_COMPRESSED_BROKEN});
    char *text = human(&check, "vm.qcow2", &plain);
    EXPECT_IN(text,
              "What this means: Some guest data cannot be read. The next write to the image may "
              "overwrite what is in use.");
    EXPECT_NOT_IN(text, "shares its clusters");
    EXPECT_IN(text, "qcow2-repair --format=qcow2 --salvage=salvaged.qcow2 vm.qcow2");
    free(text);
}

Test(human, says_what_was_not_checked)
{
    struct q2_check check = {.snapshots = 0};
    add(&check, (struct q2_finding){.problem = Q2_PROBLEM_L2_TABLE_UNREADABLE});
    char *text = human(&check, "vm.qcow2", &plain);
    EXPECT_IN(text, "could not be checked completely: 1 check error");
    EXPECT_IN(text, "Part of the image could not be checked, so there may be more.");
    free(text);
}

Test(human, works_without_geometry)
{
    struct q2_check check = {.no_geometry = true};
    add(&check, (struct q2_finding){.problem = Q2_PROBLEM_HEADER_CLUSTER_BITS,
                                    .has = Q2_HAS_HOST | Q2_HAS_GOT,
                                    .host_offset = 20,
                                    .host_length = 4,
                                    .got = UINT32_MAX});
    add(&check, (struct q2_finding){.problem = Q2_PROBLEM_CLUSTER_LEAKED,
                                    .has = Q2_HAS_TARGET,
                                    .target_length = 65536});
    char *text = human(&check, "vm.qcow2", &plain);
    EXPECT_IN(text, "at 0x14: found 0xffffffff");
    EXPECT_NOT_IN(text, "qcow2 version");
    free(text);
}

Test(human, remarks_do_not_make_an_image_bad)
{
    struct q2_check check = {.snapshots = 0};
    add(&check, (struct q2_finding){.problem = Q2_PROBLEM_EXTENSION_UNKNOWN,
                                    .has = Q2_HAS_HOST,
                                    .host_offset = 112,
                                    .detail = (char *)"type 0x12345678"});
    char *text = human(&check, "vm.qcow2", &plain);
    EXPECT_IN(text, "no errors found: 1 remark");
    EXPECT_IN(text, "at 0x70, type 0x12345678");
    EXPECT_IN(text, "Guest data is not affected.");
    EXPECT_NOT_IN(text, "qcow2-repair");
    free(text);
}

Test(human, colours_only_where_asked_and_names_are_tame)
{
    struct q2_check check = {.snapshots = 0};
    struct q2_report_style coloured = {.colour = true};
    add_past_end(&check, 0, 1);
    char *text = human(&check, "a\033[2Jb", &coloured);
    EXPECT_IN(text, "\033[1;31mdamaged\033[m");
    EXPECT_IN(text, "a\\x1b[2Jb: ");
    EXPECT_IN(text, "--dry-run $'a\\x1b[2Jb'");
    EXPECT_NOT_IN(text, "\033[2J");
    free(text);
}

Test(human, says_whose_data_it_is)
{
    struct q2_check snapshots = {.snapshots = 1};
    add_past_end(&snapshots, 65536, 2);
    char *text = human(&snapshots, "vm.qcow2", &plain);
    EXPECT_IN(text, "What this means: 64 KiB of the data of snapshots cannot be read.");
    free(text);

    struct q2_check state = {.snapshots = 1};
    add_past_end(&state, UINT64_C(2) << 30, 2);
    text = human(&state, "vm.qcow2", &plain);
    EXPECT_IN(text, "What this means: 64 KiB of saved VM state cannot be read.");
    free(text);
}

Test(human, says_what_orphans_hold)
{
    struct q2_check check = {.snapshots = 0};
    add(&check, (struct q2_finding){.problem = Q2_PROBLEM_ORPHAN_L2_TABLE,
                                    .has = Q2_HAS_TARGET | Q2_HAS_GOT,
                                    .target_offset = 0x50000,
                                    .target_length = 65536,
                                    .got = 12});
    add(&check, (struct q2_finding){.problem = Q2_PROBLEM_ORPHAN_L1_TABLE,
                                    .has = Q2_HAS_TARGET | Q2_HAS_GOT,
                                    .target_offset = 0x60000,
                                    .target_length = 65536,
                                    .got = 1});
    char *text = human(&check, "vm.qcow2", &plain);
    EXPECT_IN(text, "host 0x50000-0x60000: maps 12 clusters");
    EXPECT_IN(text, "host 0x60000-0x70000: points at 1 L2 table");
    EXPECT_IN(text, "write nothing to the image before it has been repaired");
    free(text);
}

Test(human, keeps_lone_owners_that_say_something)
{
    struct q2_check check = {.snapshots = 0};
    struct q2_finding finding = {.problem = Q2_PROBLEM_REFCOUNT_ZERO,
                                 .has = Q2_HAS_L2 | Q2_HAS_OWNERS,
                                 .l2_index = 7,
                                 .owners = {{.kind = Q2_OWNER_LUKS_HEADER}}};
    add(&check, finding);
    finding.has |= Q2_HAS_GUEST;
    finding.guest_length = 65536;
    finding.owners[0].kind = Q2_OWNER_DATA;
    add(&check, finding);
    char *text = human(&check, "vm.qcow2", &plain);
    EXPECT_IN(text, "L2[7] used by LUKS header");
    EXPECT_NOT_IN(text, "used by guest data");
    EXPECT_NOT_IN(text, "and by");
    free(text);
}

Test(human, damage_comes_before_what_was_not_checked)
{
    struct q2_check check = {.snapshots = 0};
    add(&check, (struct q2_finding){.problem = Q2_PROBLEM_REFCOUNT_ZERO});
    add(&check, (struct q2_finding){.problem = Q2_PROBLEM_WORK_LIMIT});
    char *text = human(&check, "vm.qcow2", &plain);
    EXPECT_IN(text,
              "vm.qcow2: damaged, and could not be checked completely: 1 corruption, 1 check");
    free(text);
}

Test(explain, says_all_columns)
{
    for (int i = 0; i < Q2_PROBLEM_COUNT; i++) {
        const struct q2_catalogue_entry *entry = q2_catalogue((enum q2_problem)i);
        struct q2_report_style coloured = {.colour = i % 2};
        char *text = NULL;
        size_t size = 0;
        FILE *out = open_memstream(&text, &size);
        q2_report_explain((enum q2_problem)i, &coloured, out);
        fclose(out);
        EXPECT_IN(text, entry->id);
        EXPECT_IN(text, q2_severity_id(entry->severity));
        EXPECT_IN(text, q2_repairable_id(entry->repair));
        free(text);
    }
}
