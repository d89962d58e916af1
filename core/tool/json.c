/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* JSON as `qemu-img` lays it out: an indent of four spaces. A NULL object is "no memory", which is
 * passed on and said once, when it should be printed. */

#include "core/format/problem.h"
#include "core/tool/tool.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

void
tool_json_put(struct json_object **object, const char *key, struct json_object *value)
{
    if (*object && value && json_object_object_add(*object, key, value) == 0)
        return;
    json_object_put(value);
    json_object_put(*object);
    *object = NULL;
}

void
tool_json_number(struct json_object **object, const char *key, uint64_t value)
{
    tool_json_put(object, key, json_object_new_uint64(value));
}

void
tool_json_text(struct json_object **object, const char *key, const char *text)
{
    char printable[4096];
    bool ascii = true;
    /* JSON escapes what is ASCII itself. */
    for (const char *c = text; *c; c++)
        ascii = ascii && (unsigned char)*c < 0x7f;
    tool_json_put(object, key,
                  json_object_new_string(
                      ascii ? text
                            : q2_printable(printable, sizeof printable, text, strlen(text))));
}

void
tool_json_bool(struct json_object **object, const char *key, bool value)
{
    tool_json_put(object, key, json_object_new_boolean(value));
}

void
tool_json_append(struct json_object **array, struct json_object *value)
{
    if (*array && value && json_object_array_add(*array, value) == 0)
        return;
    json_object_put(value);
    json_object_put(*array);
    *array = NULL;
}

/* ---- printing ---- */

static void
print_indent(unsigned depth)
{
    printf("\n%*s", (int)(4 * depth), "");
}

/* Depth is that of what the program itself builds. */
static void
print(struct json_object *value, unsigned depth)
{
    bool first = true;
    if (json_object_is_type(value, json_type_object)) {
        putchar('{');
        json_object_object_foreach(value, key, member)
        {
            fputs(first ? "" : ",", stdout);
            print_indent(depth + 1);
            struct json_object *name = json_object_new_string(key);
            printf("%s: ", json_object_to_json_string_ext(name, JSON_C_TO_STRING_NOSLASHESCAPE));
            json_object_put(name);
            print(member, depth + 1);
            first = false;
        }
    } else if (json_object_is_type(value, json_type_array)) {
        putchar('[');
        for (size_t i = 0; i < json_object_array_length(value); i++) {
            fputs(i ? "," : "", stdout);
            print_indent(depth + 1);
            print(json_object_array_get_idx(value, i), depth + 1);
        }
    } else {
        fputs(json_object_to_json_string_ext(value, JSON_C_TO_STRING_NOSLASHESCAPE), stdout);
        return;
    }
    print_indent(depth);
    putchar(json_object_is_type(value, json_type_object) ? '}' : ']');
}

int
tool_json_print(struct json_object *object)
{
    if (!object) {
        tool_say("out of memory");
        return TOOL_FAILED;
    }
    print(object, 0);
    putchar('\n');
    json_object_put(object);
    return TOOL_OK;
}
