/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What is said about an image: names in it reach the terminal and programs that read JSON. Reports
 * of its check, with other files that it may have, and of a repair's plan are printable text and
 * valid JSON, whatever is in it. */

#include "checker/report.h"
#include "checker/companion.h"
#include "core/base/cleanup.h"
#include "core/format/problem.h"
#include "fuzz/fuzz.h"
#include "fuzz/support/image.h"
#include "fuzz/support/medium.h"
#include "repair/report.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHAIN = 1 << 0, DEEP = 1 << 1, PLAN = 1 << 2, COLOUR = 1 << 3 }; /* of the flags */
enum { MAX_BACKING = 3, ESCAPE = 0x1b };

static const char name[] = "image.qcow2";

/* ---- text ---- */

struct text {
    char *bytes;
    size_t length;
    FILE *out;
};

static FILE *
begin(struct text *text)
{
    text->out = open_memstream(&text->bytes, &text->length);
    Q2_REQUIRE(text->out, "no memory");
    return text->out;
}

/* Take out colours, and make of backslashes, which are escapes that are meant, something plain.
 * Returns the end of the line. */
static char *
make_plain(char *line, bool colour)
{
    char *to = line, *at = line;
    for (; *at && *at != '\n'; at++) {
        if (colour && *at == ESCAPE && at[1] == '[') {
            at += 2 + strspn(at + 2, "0123456789;");
            Q2_REQUIRE(*at == 'm', "an escape sequence that is no colour");
        } else {
            *to++ = *at == '\\' ? '/' : *at;
        }
    }
    bool last = !*at;
    *to = '\0';
    return last ? at : at + 1;
}

/* Nothing that a terminal obeys, but line ends, and colours that were asked for. */
static void
require_printable(struct text *text, bool colour)
{
    fclose(text->out);
    Q2_REQUIRE(strlen(text->bytes) == text->length, "a NUL in text");
    size_t size = 4 * text->length + 1;
    char *printable = malloc(size);
    Q2_REQUIRE(printable, "no memory");
    for (char *line = text->bytes, *next; *line; line = next) {
        next = make_plain(line, colour);
        q2_printable(printable, size, line, strlen(line));
        Q2_REQUIRE(strcmp(printable, line) == 0, "a line that is not printable: %s", printable);
    }
    free(printable);
    free(text->bytes);
}

static void
require_json(struct text *text, int rc)
{
    fclose(text->out);
    Q2_REQUIRE(rc == 0, "no JSON");
    struct json_tokener *tokener = json_tokener_new_ex(32);
    Q2_REQUIRE(tokener, "no memory");
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    struct json_object *object = json_tokener_parse_ex(tokener, text->bytes, (int)text->length + 1);
    Q2_REQUIRE(json_object_is_type(object, json_type_object), "JSON is not valid: %s",
               json_tokener_error_desc(json_tokener_get_error(tokener)));
    json_object_put(object);
    json_tokener_free(tokener);
    free(text->bytes);
}

/* ---- other files ---- */

/* A file that an image may name: state, format and content are choices. */
static void
make_companion(struct q2_companion *companion, struct q2_fuzz_cursor *choices)
{
    static const char *const formats[] = {"", "raw", "qcow2", "vmdk"};
    uint8_t choice = q2_fuzz_u8(choices);
    *companion = (struct q2_companion){.state = choice % 5, .name = (char *)"other file"};
    snprintf(companion->format, sizeof companion->format, "%s", formats[choice >> 3 & 3]);
    companion->has_magic = choice >> 5 & 1;
    companion->header.size = companion->file_size = (uint64_t)q2_fuzz_u8(choices) << 10;
    companion->broken = choice >> 6;
    companion->first_broken = q2_fuzz_u8(choices) % Q2_PROBLEM_COUNT;
    snprintf(companion->error.message, sizeof companion->error.message, "other file: is not there");
}

/* ---- reports ---- */

static void
report_check(const struct q2_check *check, const struct q2_report_style *style)
{
    struct text text;
    q2_report_human(check, name, style, begin(&text));
    require_printable(&text, style->colour);
    for (int pretty = 0; pretty < 2; pretty++)
        require_json(&text, q2_report_json(check, name, pretty, begin(&text), NULL));
}

static void
explain_findings(const struct q2_check *check, const struct q2_report_style *style)
{
    for (size_t i = 0; i < q2_check_finding_count(check) && i < 4; i++) {
        struct text text;
        q2_report_explain(q2_check_finding(check, i)->problem, style, begin(&text));
        require_printable(&text, style->colour);
    }
}

static void
report_plan(struct q2_file *file, const struct q2_fuzz_options *options,
            const struct q2_report_style *style)
{
    const struct q2_repair_options how = {.level = options->level % (Q2_LEVEL_GUESS + 1),
                                          .max_memory = Q2_FUZZ_MEMORY,
                                          .threads = 1};
    struct q2_repair *repair = NULL;
    if (q2_repair_plan(file, &how, &repair, NULL) < 0)
        return;
    for (int applied = 0; applied < 2; applied++) {
        const struct q2_repair_report report = {.repair = repair,
                                                .options = &how,
                                                .filename = name,
                                                .journal = applied ? "journal" : NULL,
                                                .dry_run = !applied,
                                                .applied = applied};
        struct text text;
        q2_repair_report_plan(&report, style, begin(&text));
        require_printable(&text, style->colour);
        q2_repair_report_outcome(&report, style, begin(&text));
        require_printable(&text, style->colour);
        require_json(&text, q2_repair_report_json(&report, begin(&text), NULL));
    }
    q2_repair_free(repair);
}

static void
run(const uint8_t *input, size_t length)
{
    struct q2_fuzz_options options;
    length = q2_fuzz_split(input, length, &options);
    struct q2_fuzz_cursor choices = {(const uint8_t *)&options.chance, sizeof options.chance};
    struct q2_file *whole = q2_fuzz_input(input, length, &options),
                   *file = q2_fuzz_medium(whole, &options);
    struct q2_companion backing[MAX_BACKING];
    struct q2_companions others = {.backing = backing, .backing_count = options.number % 4};
    for (size_t i = 0; i < others.backing_count; i++)
        make_companion(&backing[i], &choices);
    make_companion(&others.data_file, &choices);
    others.has_data_file = options.number >> 2 & 1;

    const struct q2_report_style style = {.colour = options.flags & COLOUR,
                                          .max_lines = options.number >> 3 & 7};
    const struct q2_check_options how = {.threads = 1,
                                         .deep = options.flags & DEEP,
                                         .max_memory = Q2_FUZZ_MEMORY,
                                         .now = Q2_FUZZ_NOW,
                                         .companions = options.flags & CHAIN ? &others : NULL};
    struct q2_check *check = NULL;
    if (q2_check_run(file, &how, &check, NULL) == 0) {
        report_check(check, &style);
        explain_findings(check, &style);
    }
    q2_check_free(check);
    if (options.flags & PLAN)
        report_plan(file, &options, &style);
    q2_file_close(file);
    q2_file_close(whole);
}

const struct q2_harness q2_harness = {"report", Q2_FUZZ_IMAGE, 1 << 18, run};
