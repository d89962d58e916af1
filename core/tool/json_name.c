/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Names of the form json:{...}, which say what --image-opts says: members of members become keys
 * with dots. */

#include "core/tool/tool.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

enum { KEY_SIZE = 1024 };

static bool
add_value(struct tool_pairs *pairs, const char *key, struct json_object *value)
{
    switch (json_object_get_type(value)) {
    case json_type_null:
        return tool_pairs_set(pairs, key, "");
    case json_type_boolean:
        return tool_pairs_set(pairs, key, json_object_get_boolean(value) ? "on" : "off");
    case json_type_string:
    case json_type_int:
        return tool_pairs_set(pairs, key, json_object_get_string(value));
    default:
        tool_say("json: '%s' is neither a text, a number, a switch nor a list of those", key);
        return false;
    }
}

/* The parser bounds how deep objects lie in each other. */
static bool
add_members(struct tool_pairs *pairs, const char *prefix, struct json_object *object)
{
    struct json_object_iterator at = json_object_iter_begin(object);
    struct json_object_iterator end = json_object_iter_end(object);
    for (; !json_object_iter_equal(&at, &end); json_object_iter_next(&at)) {
        struct json_object *value = json_object_iter_peek_value(&at);
        char key[KEY_SIZE], below[KEY_SIZE];
        int length = snprintf(key, sizeof key, "%s%s", prefix, json_object_iter_peek_name(&at));
        if ((size_t)length + 2 > sizeof key) {
            tool_say("json: a key of %d bytes is too long", length);
            return false;
        }
        memcpy(below, key, (size_t)length);
        memcpy(below + length, ".", 2);
        bool good = json_object_is_type(value, json_type_object) ? add_members(pairs, below, value)
                                                                 : add_value(pairs, key, value);
        if (!good)
            return false;
    }
    return true;
}

bool
tool_pairs_add_json(struct tool_pairs *pairs, const char *text)
{
    enum json_tokener_error error = json_tokener_success;
    struct json_object *object = json_tokener_parse_verbose(text, &error);
    bool good = json_object_is_type(object, json_type_object);
    if (!good)
        tool_say("json: this is no JSON object: %s",
                 object ? "it is something else" : json_tokener_error_desc(error));
    else
        good = add_members(pairs, "", object);
    json_object_put(object);
    return good;
}
