/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Plan files that anybody may have written, against the plans of small damaged images: refused with
 * an error, or the same in everything that matters as the true one.
 *
 * Input: the number of an image, then the text. */

#include "fuzz/fuzz.h"
#include "fuzz/support/plans.h"
#include "repair/plan_file.h"
#include "repair/report.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

static const char *const options[] = {"level", "deep", "discard", "digest"};
static const char *const members[] = {"id", "confidence", "host-offset", "applied", "evidence"};

static bool
equal(struct json_object *a, struct json_object *b, const char *const *keys, size_t count)
{
    struct json_object *x, *y;
    for (size_t i = 0; i < count; i++)
        if (!json_object_is_type(a, json_type_object) ||
            !json_object_object_get_ex(a, keys[i], &x) ||
            !json_object_object_get_ex(b, keys[i], &y) ||
            json_object_get_type(x) != json_object_get_type(y) || json_object_equal(x, y) != 1)
            return false;
    return true;
}

/* Whether the text says of this plan what it is. */
static bool
is_true(struct json_object *said, struct json_object *truth)
{
    struct json_object *a, *b;
    if (!said || !equal(said, truth, options, sizeof options / sizeof options[0]) ||
        !json_object_object_get_ex(said, "actions", &a) ||
        !json_object_object_get_ex(truth, "actions", &b) ||
        !json_object_is_type(a, json_type_array) ||
        json_object_array_length(a) != json_object_array_length(b))
        return false;
    for (size_t i = 0; i < json_object_array_length(a); i++)
        if (!equal(json_object_array_get_idx(a, i), json_object_array_get_idx(b, i), members,
                   sizeof members / sizeof members[0]))
            return false;
    return true;
}

/* The true plan under these options, parsed once. */
static struct json_object *
truth_of(unsigned number, const struct q2_repair_options *how)
{
    static struct json_object *truths[Q2_FUZZ_PLANS][Q2_LEVEL_GUESS + 1][2][2];
    struct json_object **truth = &truths[number][how->level][how->deep][how->discard];
    char *text;
    size_t length;
    if (*truth)
        return *truth;
    q2_fuzz_plan_text(number, how->level, how->deep, how->discard, &text, &length);
    *truth = json_tokener_parse(text);
    Q2_REQUIRE(*truth, "our own report is no JSON: %s", text);
    free(text);
    return *truth;
}

/* As the parser under test has it, so that only what follows is compared. */
static struct json_object *
parse(const char *text, size_t length)
{
    struct json_tokener *tokener = json_tokener_new_ex(16);
    Q2_REQUIRE(tokener, "no memory");
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    struct json_object *root = json_tokener_parse_ex(tokener, text, (int)length);
    json_tokener_free(tokener);
    return root;
}

static void
run(const uint8_t *input, size_t length)
{
    struct q2_fuzz_cursor cursor = {input, length};
    struct q2_plan_file *file = NULL;
    struct q2_error err = {0};
    unsigned number = q2_fuzz_u8(&cursor) % Q2_FUZZ_PLANS;
    const char *text = cursor.left ? (const char *)cursor.at : "";
    int rc = q2_plan_file_parse("plan", text, cursor.left, &file, &err);
    Q2_REQUIRE(rc == 0 || err.message[0], "refused without a word");
    if (rc < 0)
        return;

    struct q2_repair_options how = q2_fuzz_plan_options(Q2_LEVEL_CERTAIN, false, false);
    q2_plan_file_options(file, &how);
    Q2_REQUIRE(how.level <= Q2_LEVEL_GUESS, "level %d", (int)how.level);
    const struct q2_repair *plan = q2_fuzz_plan(number, how.level, how.deep, how.discard);
    rc = q2_plan_file_match(file, plan, &err);
    Q2_REQUIRE(rc == 0 || err.message[0], "refused without a word");
    struct json_object *said = parse(text, cursor.left);
    Q2_REQUIRE(json_object_get_int64(json_object_object_get(said, "now")) >= 0,
               "a time before any");
    bool same = is_true(said, truth_of(number, &how));
    Q2_REQUIRE((rc == 0) == same, "%s", rc == 0 ? "it is another plan" : err.message);
    json_object_put(said);
    q2_plan_file_free(file);
}

const struct q2_harness q2_harness = {"plan", Q2_FUZZ_BYTES, 16384, run};
