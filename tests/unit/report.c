/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The reports, from findings made up here. The reports see a check only through its accessors, so
 * this file defines its own: no image is needed to show them any mixture of findings. */

#include "checker/format.h"
#include "checker/report_parts.h"

#include <criterion/criterion.h>
#include <json-c/json.h>
#include <stdlib.h>
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
        {"1", "before"},
        {"2", ""},
        {"3", "a name that goes on and on until nobody reads it any more"},
        {"4", "four"},
        {"5", "five"},
        {"6", "six"},
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

static void
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

static void
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

static char *
json(const struct q2_check *check, const char *name, bool pretty)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    cr_assert_eq(q2_report_json(check, name, pretty, out, NULL), 0);
    fclose(out);
    return text;
}

static struct json_object *
parsed(const struct q2_check *check, const char *name, bool pretty)
{
    char *text = json(check, name, pretty);
    struct json_object *object = json_tokener_parse(text);
    cr_assert_not_null(object, "not JSON: %s", text);
    free(text);
    return object;
}

static struct json_object *
member(struct json_object *object, const char *key)
{
    struct json_object *value = NULL;
    cr_assert(json_object_object_get_ex(object, key, &value), "no member %s", key);
    return value;
}

#define EXPECT_IN(text, words)     cr_expect(strstr(text, words), "no \"%s\" in:\n%s", words, text)
#define EXPECT_NOT_IN(text, words) cr_expect_not(strstr(text, words), "\"%s\" in:\n%s", words, text)

static const struct q2_report_style plain = {.max_lines = 10};

/* ---- numbers ---- */

Test(format, sizes)
{
    cr_expect_str_eq(q2_format_size(0).text, "0 bytes");
    cr_expect_str_eq(q2_format_size(1).text, "1 byte");
    cr_expect_str_eq(q2_format_size(1023).text, "1023 bytes");
    cr_expect_str_eq(q2_format_size(65536).text, "64 KiB");
    cr_expect_str_eq(q2_format_size(1536).text, "1.5 KiB");
    cr_expect_str_eq(q2_format_size((1 << 20) - 1).text, "1024 KiB");
    cr_expect_str_eq(q2_format_size(UINT64_MAX).text, "16 EiB");
}

Test(format, offsets_are_exact)
{
    cr_expect_str_eq(q2_format_offset(0).text, "0");
    cr_expect_str_eq(q2_format_offset(513).text, "513");
    cr_expect_str_eq(q2_format_offset(65536).text, "64K");
    cr_expect_str_eq(q2_format_offset((UINT64_C(4) << 30) + 1024).text, "4194305K");
    cr_expect_str_eq(q2_format_offset(UINT64_C(1) << 62).text, "4E");
    cr_expect_str_eq(q2_format_range(65536, 65536).text, "64K-128K");
    cr_expect_str_eq(q2_format_host(0x50000, 0x10000).text, "0x50000-0x60000");
    cr_expect_str_eq(q2_format_host(0x50000, 0).text, "0x50000");
}

Test(format, counts_and_values)
{
    cr_expect_str_eq(q2_format_count(0).text, "0");
    cr_expect_str_eq(q2_format_count(999).text, "999");
    cr_expect_str_eq(q2_format_count(1000).text, "1,000");
    cr_expect_str_eq(q2_format_count(UINT64_MAX).text, "18,446,744,073,709,551,615");
    cr_expect_str_eq(q2_format_plural(1, "leak").text, "1 leak");
    cr_expect_str_eq(q2_format_plural(2000, "leak").text, "2,000 leaks");
    cr_expect_str_eq(q2_format_value(1023).text, "1023");
    cr_expect_str_eq(q2_format_value(65536).text, "0x10000");
    cr_expect_str_eq(q2_format_percent(1, 8).text, "12.50 %");
    cr_expect_str_eq(q2_format_percent(1, 0).text, "0.00 %");
}

Test(format, appending_stops_at_the_end)
{
    char buffer[8];
    size_t used = 0;
    q2_format_append(buffer, sizeof buffer, &used, "%s", "12345");
    q2_format_append(buffer, sizeof buffer, &used, "%s", "6789");
    q2_format_append(buffer, sizeof buffer, &used, "%s", "x");
    cr_expect_str_eq(buffer, "1234567");
    cr_expect_eq(used, 7);
}

Test(format, names_for_a_shell)
{
    char buffer[64];
    cr_expect_str_eq(q2_format_shell(buffer, sizeof buffer, "vm/a.qcow2"), "vm/a.qcow2");
    cr_expect_str_eq(q2_format_shell(buffer, sizeof buffer, "-f"), "./-f");
    cr_expect_str_eq(q2_format_shell(buffer, sizeof buffer, ""), "''");
    cr_expect_str_eq(q2_format_shell(buffer, sizeof buffer, "my vm"), "'my vm'");
    cr_expect_str_eq(q2_format_shell(buffer, sizeof buffer, "it's"), "'it'\\''s'");
    cr_expect_str_eq(q2_format_shell(buffer, sizeof buffer, "a\033'b"), "$'a\\x1b\\'b'");
}

Test(format, wraps_at_words)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    q2_format_wrap(out, 70, 4, "these are words that go on the next line");
    fclose(out);
    cr_expect_str_eq(text, "these are\n    words that go on the next line\n");
    free(text);
}

/* ---- owners and maps ---- */

Test(owner, says_what_and_whose)
{
    struct q2_check check = {.snapshots = 3};
    struct q2_owner owner = {.kind = Q2_OWNER_L2_TABLE, .maps = 3};
    char text[256];
    cr_expect_str_eq(q2_report_owner(&check, &owner, text, sizeof text),
                     "L2 table for guest 0-512M (active, snapshot 'before')");
    owner = (struct q2_owner){.kind = Q2_OWNER_DATA, .maps = 4, .guest = 65536};
    cr_expect_str_eq(q2_report_owner(&check, &owner, text, sizeof text),
                     "guest data, guest 64K-128K (snapshot '2')");
    owner = (struct q2_owner){.kind = Q2_OWNER_DATA, .maps = 1, .guest = UINT64_C(1) << 30};
    cr_expect_str_eq(q2_report_owner(&check, &owner, text, sizeof text),
                     "guest data in VM state, at guest 1G-1048640K (active)");
    owner = (struct q2_owner){.kind = Q2_OWNER_REFCOUNT_BLOCK, .index = 7};
    cr_expect_str_eq(q2_report_owner(&check, &owner, text, sizeof text), "refcount block 7");
    owner = (struct q2_owner){.kind = Q2_OWNER_BITMAP_DATA, .index = 0};
    cr_expect_str_eq(q2_report_owner(&check, &owner, text, sizeof text), "data of bitmap #1");
}

Test(owner, many_maps_stay_short)
{
    struct q2_check check = {.snapshots = 6};
    char text[256];
    cr_expect_str_eq(q2_report_maps(&check, 0, text, sizeof text), "");
    cr_expect_str_eq(q2_report_maps(&check, 0x7f, text, sizeof text), "active and all 6 snapshots");
    cr_expect_str_eq(q2_report_maps(&check, 0x7e, text, sizeof text), "all 6 snapshots");
    cr_expect_str_eq(q2_report_maps(&check, 0x3f, text, sizeof text),
                     "active, snapshot 'before', snapshot '2', snapshot 'a name that goes on and "
                     "on until nobody ...' and 2 more");
    cr_expect_str_eq(q2_report_maps(&check, 0x80000000, text, sizeof text), "snapshot #31");
}

/* ---- sums ---- */

Test(impact, counts_each_guest_byte_once)
{
    struct q2_check check = {.snapshots = 1};
    struct q2_impact_sum sums[Q2_IMPACT_COUNT];
    add_past_end(&check, 65536, 1);
    add_past_end(&check, 65536, 3);
    add_past_end(&check, 131072, 1);
    add_past_end(&check, 65536, 2);
    add_past_end(&check, 1 << 20, 2);
    add_past_end(&check, (1 << 30) - 4096, 1);
    q2_impact_sums(&check, sums);
    const struct q2_impact_sum *sum = &sums[Q2_IMPACT_UNREADABLE];
    cr_expect_eq(sum->faults, 6);
    cr_expect_eq(sum->active_bytes, 131072 + 4096);
    cr_expect_eq(sum->snapshot_bytes, 65536);
    cr_expect_eq(sum->vm_state_bytes, 65536 - 4096);
    cr_expect_eq(sum->ranges, 2);
    cr_expect_eq(sum->first, 65536);
    cr_expect_eq(sum->first_size, 131072);
    cr_expect_not(sum->at_least);

    check.problems[Q2_PROBLEM_L2_ENTRY_PAST_END].unlisted = 1;
    q2_impact_sums(&check, sums);
    cr_expect(sum->at_least);
}

Test(impact, snapshot_bytes_exclude_active_ones)
{
    struct q2_check check = {.snapshots = 1};
    struct q2_impact_sum sums[Q2_IMPACT_COUNT];
    add_past_end(&check, 0, 2);
    check.findings[0].guest_length = 10 * 65536;
    add_past_end(&check, 65536, 1);
    add_past_end(&check, 3 * 65536, 1);
    add_past_end(&check, 9 * 65536, 1);
    q2_impact_sums(&check, sums);
    cr_expect_eq(sums[Q2_IMPACT_UNREADABLE].snapshot_bytes, 7 * 65536);
}

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
    EXPECT_IN(text, "qcow2-repair --dry-run vm.qcow2");
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
    add(&check, (struct q2_finding){
                    .problem = Q2_PROBLEM_OVERLAP_DATA,
                    .has = Q2_HAS_TARGET | Q2_HAS_OWNERS,
                    .target_offset = 0x60000,
                    .target_length = 65536,
                    .owners = {{.kind = Q2_OWNER_DATA, .maps = 1, .guest = 0, .at = 0x40000},
                               {.kind = Q2_OWNER_DATA, .maps = 2, .guest = 65536, .at = 0x40008}}});
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
    EXPECT_IN(text, "What this means: Guest data cannot be read. The next write to the image may "
                    "overwrite what is in use.");
    EXPECT_NOT_IN(text, "shares its clusters");
    EXPECT_IN(text, "qcow2-repair --salvage NEW.qcow2 vm.qcow2");
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
    EXPECT_IN(text, "at 0x70; type 0x12345678");
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

/* ---- JSON ---- */

Test(json, clean_has_the_fields_of_qemu_img)
{
    struct q2_check check = {.counts = {.total_clusters = 16384, .image_end_offset = 262144}};
    char *text = json(&check, "vm.qcow2", false);
    EXPECT_IN(text, "{\"filename\":\"vm.qcow2\",\"format\":\"qcow2\",\"image-end-offset\":262144,"
                    "\"total-clusters\":16384,\"check-errors\":0,\"verdict\":\"clean\","
                    "\"exit-status\":0,");
    cr_expect_eq(strchr(text, '\n'), text + strlen(text) - 1, "more than one line");
    EXPECT_NOT_IN(text, "leaks");
    free(text);
}

Test(json, says_what_the_human_report_says)
{
    struct q2_check check = {.snapshots = 1};
    add_past_end(&check, 65536, 3);
    for (int pretty = 0; pretty < 2; pretty++) {
        struct json_object *root = parsed(&check, "vm.qcow2", pretty);
        cr_expect_eq(json_object_get_int(member(root, "corruptions")), 1);
        cr_expect_str_eq(json_object_get_string(member(root, "verdict")), "corrupt");
        struct json_object *finding = json_object_array_get_idx(member(root, "findings"), 0);
        cr_expect_str_eq(json_object_get_string(member(finding, "id")), "l2-entry-past-end");
        cr_expect_eq(json_object_get_uint64(member(finding, "got")), UINT64_C(0x8000000000990000));
        struct json_object *maps = member(finding, "maps");
        cr_expect_str_eq(json_object_get_string(json_object_array_get_idx(maps, 0)), "active");
        struct json_object *snapshot = json_object_array_get_idx(maps, 1);
        cr_expect_str_eq(json_object_get_string(member(snapshot, "snapshot-name")), "before");
        cr_expect_not(json_object_object_get_ex(finding, "expected", NULL));
        json_object_put(root);
    }
}

Test(json, owners_and_totals)
{
    struct q2_check check = {.snapshots = 0};
    add(&check, (struct q2_finding){.problem = Q2_PROBLEM_OVERLAP_METADATA_DATA,
                                    .has = Q2_HAS_TARGET | Q2_HAS_OWNERS,
                                    .owners = {{.kind = Q2_OWNER_REFCOUNT_BLOCK, .index = 3},
                                               {.kind = Q2_OWNER_DATA, .maps = 1, .guest = 65536}},
                                    .detail = (char *)"a \"detail\""});
    struct json_object *root = parsed(&check, "vm.qcow2", true);
    struct json_object *finding = json_object_array_get_idx(member(root, "findings"), 0);
    struct json_object *owners = member(finding, "owners");
    struct json_object *block = json_object_array_get_idx(owners, 0);
    struct json_object *data = json_object_array_get_idx(owners, 1);
    cr_expect_str_eq(json_object_get_string(member(block, "kind")), "refcount-block");
    cr_expect_eq(json_object_get_int(member(block, "index")), 3);
    cr_expect_eq(json_object_get_int(member(data, "guest-offset")), 65536);
    cr_expect_str_eq(json_object_get_string(member(finding, "detail")), "a \"detail\"");
    struct json_object *problem = json_object_array_get_idx(member(root, "problems"), 0);
    cr_expect_eq(json_object_get_int(member(problem, "count")), 1);
    struct json_object *impact = json_object_array_get_idx(member(root, "impacts"), 0);
    cr_expect_eq(json_object_get_int(member(impact, "active-bytes")), 65536);
    json_object_put(root);
}

Test(json, odd_names)
{
    struct q2_check check = {.snapshots = 0};
    static const struct {
        const char *name;
        const char *want;
    } cases[] = {
        {"a\033\"\\b", "a\033\"\\b"},
        {"stra\xc3\x9f"
         "e",
         "stra\xc3\x9f"
         "e"},
        {"\xff", "\\xff"},
        {"\xc2\x9b", "\\xc2\\x9b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct json_object *root = parsed(&check, cases[i].name, false);
        cr_expect_str_eq(json_object_get_string(member(root, "filename")), cases[i].want);
        json_object_put(root);
    }
}

Test(json, a_full_disk_is_noticed)
{
    struct q2_check check = {.snapshots = 0};
    struct q2_error err = {0};
    FILE *out = fopen("/dev/full", "w");
    if (!out)
        cr_skip_test("no /dev/full");
    setvbuf(out, NULL, _IONBF, 0);
    cr_expect_eq(q2_report_json(&check, "vm.qcow2", false, out, &err), Q2_ERR_IO);
    fclose(out);
}

Test(json, exit_words)
{
    cr_expect_str_eq(q2_exit_id(Q2_EXIT_CLEAN), "clean");
    cr_expect_str_eq(q2_exit_id(Q2_EXIT_INCOMPLETE), "incomplete");
    cr_expect_str_eq(q2_exit_id(Q2_EXIT_CORRUPT), "corrupt");
    cr_expect_str_eq(q2_exit_id(Q2_EXIT_LEAKS), "leaks");
    cr_expect_str_eq(q2_exit_id(Q2_EXIT_NOT_SUPPORTED), "not-supported");
}
