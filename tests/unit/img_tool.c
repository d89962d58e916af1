/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The parts of qcow2-img that its output alone does not show well: numbers, lists of options,
 * progress, JSON. */

#include "core/tool/tool.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* ---- numbers ---- */

Test(img_tool, sizes)
{
    static const struct {
        const char *text;
        uint64_t size;
    } good[] = {
        {"0", 0},
        {"7b", 7},
        {"010", 10},
        {"0x10", 16},
        {"0x10G", UINT64_C(16) << 30},
        {"1.", 1},
        {"1.0", 1},
        {"1.k", 1024},
        {"1.5k", 1536},
        {"0.3K", 307},
        {"64M", 64 << 20},
        {"15E", UINT64_C(15) << 60},
        {"18446744073709551615", UINT64_MAX},
    };
    static const char *const bad[] = {"",   " 1",  "+1",  "-1",  ".5k",    "1.5", "1.5b",
                                      "1x", "1kB", "1e3", "1,5", "1.5.5k", "k",   "0x1.8k"};
    static const char *const big[] = {"16E", "18446744073709551616", "99999999999999999999999k"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        uint64_t size = 1;
        cr_expect_eq(tool_size_parse(good[i].text, 'B', &size), TOOL_SIZE_OK, "%s", good[i].text);
        cr_expect_eq(size, good[i].size, "%s", good[i].text);
    }
    uint64_t untouched = 99;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(tool_size_parse(bad[i], 'B', &untouched), TOOL_SIZE_BAD, "%s", bad[i]);
    for (size_t i = 0; i < sizeof big / sizeof *big; i++)
        cr_expect_eq(tool_size_parse(big[i], 'B', &untouched), TOOL_SIZE_TOO_BIG, "%s", big[i]);
    cr_expect_eq(untouched, 99);
    cr_expect_eq(tool_size_parse("2", 'M', &untouched), TOOL_SIZE_OK);
    cr_expect_eq(untouched, 2 << 20);
}

Test(img_tool, limits, .init = cr_redirect_stderr)
{
    uint64_t value = 99;
    cr_expect(tool_size_option("it", "1k", 1024, 1024, &value));
    cr_expect_eq(value, 1024);
    cr_expect_not(tool_size_option("it", "1k", 1025, 2048, &value));
    cr_expect_not(tool_size_option("it", "1k", 0, 1023, &value));
    cr_expect_not(tool_number_option("it", "1k", 0, 2048, &value));
    cr_expect_not(tool_number_option("it", "-1", 0, UINT64_MAX, &value));
    cr_expect(tool_number_option("it", "0x20", 0, 32, &value));
    cr_expect_eq(value, 32);
    bool flag = false;
    cr_expect(tool_bool_option("it", "yes", &flag));
    cr_expect(flag);
    cr_expect(tool_bool_option("it", "off", &flag));
    cr_expect_not(flag);
    cr_expect_not(tool_bool_option("it", "1", &flag));
}

Test(img_tool, sizes_for_people)
{
    static const struct {
        uint64_t size;
        const char *text;
    } expected[] = {
        {0, "0 B"},
        {999, "999 B"},
        {1000, "0.977 KiB"},
        {1536, "1.5 KiB"},
        {200704, "196 KiB"},
        {1023 << 10, "0.999 MiB"},
        {UINT64_C(1) << 30, "1 GiB"},
        {UINT64_MAX, "16 EiB"},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        cr_expect_str_eq(tool_size_text(expected[i].size).text, expected[i].text);
}

/* ---- lists of options ---- */

Test(img_tool, pairs)
{
    struct tool_pairs pairs = {0};
    cr_assert(tool_pairs_add(&pairs, "a=1,b=x,,y,c,nod,a=2,e==", NULL));
    cr_expect_eq(pairs.count, 6);
    cr_expect_str_eq(tool_pairs_get(&pairs, "a"), "2");
    cr_expect_str_eq(tool_pairs_get(&pairs, "b"), "x,y");
    cr_expect_str_eq(tool_pairs_get(&pairs, "c"), "on");
    cr_expect_str_eq(tool_pairs_get(&pairs, "d"), "off");
    cr_expect_str_eq(tool_pairs_get(&pairs, "e"), "=");
    cr_expect_null(tool_pairs_get(&pairs, "f"));
    cr_expect_not(tool_pairs_help(&pairs));
    cr_assert(tool_pairs_add(&pairs, "f=,help", NULL));
    cr_expect_str_eq(tool_pairs_get(&pairs, "f"), "");
    cr_expect(tool_pairs_help(&pairs));
    tool_pairs_destroy(&pairs);
    cr_assert(tool_pairs_add(&pairs, "secret,id=x", "qom-type"));
    cr_expect_str_eq(tool_pairs_get(&pairs, "qom-type"), "secret");
    cr_expect_str_eq(tool_pairs_get(&pairs, "id"), "x");
    tool_pairs_destroy(&pairs);
}

/* ---- progress ---- */

/* What the steps of `work` print. */
static void
expect_output(void (*work)(void), const char *expected)
{
    char got[256] = "";
    cr_redirect_stdout();
    work();
    fflush(stdout);
    FILE *output = cr_get_redirected_stdout();
    got[fread(got, 1, sizeof got - 1, output)] = '\0';
    cr_expect_str_eq(got, expected, "%s", got);
}

static void
work_in_parts(void)
{
    struct tool_progress progress;
    tool_progress_init(&progress, true);
    tool_progress_part(&progress, 50);
    tool_progress_update(&progress, 1, 1000); /* too little to be shown */
    tool_progress_update(&progress, 1, 2);
    tool_progress_update(&progress, 2, 2);
    tool_progress_part(&progress, 50);
    tool_progress_update(&progress, 1, 2);
    tool_progress_end(&progress, true);
}

Test(img_tool, progress)
{
    expect_output(work_in_parts, "    (0.00/100%)\r    (25.00/100%)\r    (50.00/100%)\r"
                                 "    (75.00/100%)\r    (100.00/100%)\r\n");
}

static void
fail_half_way(void)
{
    struct tool_progress progress;
    tool_progress_init(&progress, true);
    tool_progress_update(&progress, 1, 2);
    tool_progress_end(&progress, false);
}

Test(img_tool, progress_of_failure)
{
    expect_output(fail_half_way, "    (0.00/100%)\r    (50.00/100%)\r\n");
}

Test(img_tool, progress_on_signal, .init = cr_redirect_stderr)
{
    struct tool_progress progress;
    tool_progress_init(&progress, false);
    raise(SIGUSR1);
    tool_progress_update(&progress, 1, 4);
    tool_progress_update(&progress, 2, 4);
    fflush(stderr);
    cr_assert_stderr_eq_str("    (25.00/100%)\n");
}

/* ---- JSON ---- */

static void
print_nested(void)
{
    struct json_object *object = json_object_new_object(), *array = json_object_new_array();
    tool_json_append(&array, json_object_new_string("a/b"));
    tool_json_append(&array, json_object_new_array());
    tool_json_put(&object, "list", array);
    tool_json_text(&object, "odd", "\xff\n");
    cr_expect_eq(tool_json_print(object), TOOL_OK);
}

Test(img_tool, json)
{
    expect_output(print_nested,
                  "{\n    \"list\": [\n        \"a/b\",\n        [\n        ]\n    ],\n"
                  "    \"odd\": \"\\\\xff\\\\x0a\"\n}\n");
}

Test(img_tool, json_without_memory, .init = cr_redirect_stderr)
{
    struct json_object *nothing = NULL;
    tool_json_number(&nothing, "a", 1);
    cr_expect_null(nothing);
    cr_expect_eq(tool_json_print(nothing), TOOL_FAILED);
}
