/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/json.h"

#include "checker/report_parts.h"

#include <inttypes.h>
#include <json-c/json.h>

/* What stands before any member or element. */
static void
lead(struct q2_json *json, const char *key)
{
    bool inside = json->flat && json->depth >= json->flat;
    if (json->comma)
        fputs(inside ? ", " : ",", json->out);
    if (json->depth && !inside)
        fprintf(json->out, "\n%*s", (int)(4 * json->depth), "");
    if (key)
        fprintf(json->out, "\"%s\": ", key);
    json->comma = true;
}

void
q2_json_begin(struct q2_json *json, const char *key, char bracket, bool flat)
{
    lead(json, key);
    fputc(bracket, json->out);
    json->depth++;
    json->comma = false;
    if (flat && !json->flat)
        json->flat = json->depth;
}

void
q2_json_end(struct q2_json *json, char bracket)
{
    bool inside = json->flat && json->depth >= json->flat;
    if (json->flat == json->depth)
        json->flat = 0;
    json->depth--;
    if (json->comma && !inside)
        fprintf(json->out, "\n%*s", (int)(4 * json->depth), "");
    fputc(bracket, json->out);
    json->comma = true;
}

void
q2_json_number(struct q2_json *json, const char *key, uint64_t value)
{
    lead(json, key);
    fprintf(json->out, "%" PRIu64, value);
}

void
q2_json_bool(struct q2_json *json, const char *key, bool value)
{
    lead(json, key);
    fputs(value ? "true" : "false", json->out);
}

void
q2_json_text(struct q2_json *json, const char *key, const char *text)
{
    lead(json, key);
    struct json_object *value = q2_report_name_object(text);
    const char *quoted =
        value ? json_object_to_json_string_ext(value, JSON_C_TO_STRING_NOSLASHESCAPE) : NULL;
    if (quoted)
        fputs(quoted, json->out);
    else
        json->failed = true;
    json_object_put(value);
}
