/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/tool/catalogue_page.h"

#include "checker/catalogue.h"

#include <json-c/json.h>

static void
print_object(enum q2_problem problem, FILE *out)
{
    const struct q2_catalogue_entry *entry = q2_catalogue(problem);
    const struct {
        const char *key;
        const char *value;
    } members[] = {
        {"id", entry->id},
        {"severity", q2_severity_id(entry->severity)},
        {"pass", q2_pass_id(entry->pass)},
        {"impact", q2_impact_id(entry->impact)},
        {"repair", q2_repairable_id(entry->repair)},
        {"sentence", entry->sentence},
    };
    struct json_object *object = json_object_new_object();
    for (size_t i = 0; object && i < sizeof members / sizeof *members; i++)
        json_object_object_add(object, members[i].key, json_object_new_string(members[i].value));
    fputs(json_object_to_json_string_ext(object,
                                         JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE),
          out);
    json_object_put(object);
}

void
catalogue_print_json(enum q2_problem problem, FILE *out)
{
    print_object(problem, out);
    fputc('\n', out);
}

void
catalogue_print_list(bool json, FILE *out)
{
    for (int i = 0; i < Q2_PROBLEM_COUNT; i++) {
        const struct q2_catalogue_entry *entry = q2_catalogue((enum q2_problem)i);
        if (json) {
            fputs(i ? ",\n    " : "[\n    ", out);
            print_object((enum q2_problem)i, out);
        } else {
            fprintf(out, "%-10s  %-32s  %s\n", q2_severity_id(entry->severity), entry->id,
                    entry->sentence);
        }
    }
    if (json)
        fputs("\n]\n", out);
}
