/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The report for programs. */

#include "tests/unit/fake_check.h"

#include <json-c/json.h>
#include <stdlib.h>

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
    add(&check,
        (struct q2_finding){
            .problem = Q2_PROBLEM_OVERLAP_METADATA_DATA,
            .has = Q2_HAS_TARGET | Q2_HAS_OWNERS,
            .owners = {{.kind = Q2_OWNER_REFCOUNT_BLOCK, .index = 3},
                       {.kind = Q2_OWNER_DATA, .maps = 1, .guest = 65536, .guest_length = 65536}},
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
