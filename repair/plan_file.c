/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/plan_file.h"

#include "checker/report_parts.h"
#include "repair/report.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 16, DIGEST_LENGTH = 64 };

struct q2_plan_file {
    char *name;
    struct json_object *root;
    struct json_object *actions;
    const char *digest;
    enum q2_repair_level level;
    bool deep;
    bool discard;
    uint64_t now;
};

bool
q2_repair_level_find(const char *id, enum q2_repair_level *ret_level)
{
    for (int level = Q2_LEVEL_LEAKS; level <= Q2_LEVEL_GUESS; level++)
        if (strcmp(id, q2_repair_level_id((enum q2_repair_level)level)) == 0) {
            *ret_level = (enum q2_repair_level)level;
            return true;
        }
    return false;
}

/* ---- members, each of one type ---- */

static struct json_object *
member(struct json_object *object, const char *key, enum json_type type)
{
    struct json_object *value = NULL;
    if (!json_object_is_type(object, json_type_object) ||
        !json_object_object_get_ex(object, key, &value) || !json_object_is_type(value, type))
        return NULL;
    return value;
}

/* NULL where there is no such text, or one with a NUL inside. */
static const char *
text_member(struct json_object *object, const char *key)
{
    struct json_object *value = member(object, key, json_type_string);
    const char *text = value ? json_object_get_string(value) : NULL;
    return text && strlen(text) == (size_t)json_object_get_string_len(value) ? text : NULL;
}

static bool
number_member(struct json_object *object, const char *key, uint64_t *ret_number)
{
    struct json_object *value = member(object, key, json_type_int);
    if (!value || json_object_get_int64(value) < 0) /* which would come out as 0 */
        return false;
    *ret_number = json_object_get_uint64(value);
    return true;
}

static bool
bool_member(struct json_object *object, const char *key, bool *ret_value)
{
    struct json_object *value = member(object, key, json_type_boolean);
    if (!value)
        return false;
    *ret_value = json_object_get_boolean(value);
    return true;
}

/* ---- parsing ---- */

static int
parse_json(struct q2_plan_file *file, const char *text, size_t length, struct q2_error *err)
{
    struct json_tokener *tokener = json_tokener_new_ex(MAX_DEPTH);
    if (!tokener)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory to read it", file->name);
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    file->root = json_tokener_parse_ex(tokener, text, (int)length);
    enum json_tokener_error error = json_tokener_get_error(tokener);
    size_t end = json_tokener_get_parse_end(tokener);
    json_tokener_free(tokener);
    while (end < length && strchr(" \t\r\n", text[end]) && text[end])
        end++;
    if (file->root && error == json_tokener_success && end == length)
        return 0;
    return q2_error_set(err, Q2_ERR_FORMAT, "%s: is no JSON from byte %zu on: %s", file->name, end,
                        error == json_tokener_success ? "something follows it"
                                                      : json_tokener_error_desc(error));
}

static int
no_plan(const struct q2_plan_file *file, const char *key, struct q2_error *err)
{
    return q2_error_set(err, Q2_ERR_FORMAT,
                        "%s: is no plan of qcow2-repair --dry-run --output=json: '%s' is missing "
                        "or not what it should be",
                        file->name, key);
}

static int
read_members(struct q2_plan_file *file, struct q2_error *err)
{
    const char *level = text_member(file->root, "level");
    file->digest = text_member(file->root, "digest");
    file->actions = member(file->root, "actions", json_type_array);
    if (!level || !q2_repair_level_find(level, &file->level))
        return no_plan(file, "level", err);
    if (!file->digest || strspn(file->digest, "0123456789abcdef") != DIGEST_LENGTH ||
        file->digest[DIGEST_LENGTH])
        return no_plan(file, "digest", err);
    if (!file->actions)
        return no_plan(file, "actions", err);
    if (!bool_member(file->root, "deep", &file->deep))
        return no_plan(file, "deep", err);
    if (!bool_member(file->root, "discard", &file->discard))
        return no_plan(file, "discard", err);
    if (!number_member(file->root, "now", &file->now))
        return no_plan(file, "now", err);
    return 0;
}

int
q2_plan_file_parse(const char *name, const char *text, size_t length,
                   struct q2_plan_file **ret_file, struct q2_error *err)
{
    if (length > Q2_PLAN_FILE_MAX)
        return q2_error_set(err, Q2_ERR_RANGE, "%s: %zu bytes are more than the %d of a plan", name,
                            length, Q2_PLAN_FILE_MAX);
    struct q2_plan_file *file = calloc(1, sizeof *file);
    if (!file || !(file->name = strdup(name))) {
        q2_plan_file_free(file);
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory to read it", name);
    }
    int rc = parse_json(file, text, length, err);
    if (rc == 0)
        rc = read_members(file, err);
    if (rc < 0) {
        q2_plan_file_free(file);
        return rc;
    }
    *ret_file = file;
    return 0;
}

void
q2_plan_file_free(struct q2_plan_file *file)
{
    if (!file)
        return;
    json_object_put(file->root);
    free(file->name);
    free(file);
}

void
q2_plan_file_options(const struct q2_plan_file *file, struct q2_repair_options *options)
{
    options->level = file->level;
    options->deep = file->deep;
    options->discard = file->discard;
    options->now = file->now;
}

/* ---- holding it against the image ---- */

static bool
is_text(struct json_object *object, const char *key, const char *expected)
{
    const char *text = text_member(object, key);
    return text && strcmp(text, expected) == 0;
}

/* The evidence may have names of snapshots in it, which a report spells in its own way. */
static bool
is_same_evidence(struct json_object *object, const char *evidence)
{
    struct json_object *value = q2_report_name_object(evidence ? evidence : "");
    bool same = value && is_text(object, "evidence", json_object_get_string(value));
    json_object_put(value);
    return same;
}

static bool
is_same_action(struct json_object *object, const struct q2_action *action)
{
    uint64_t key;
    bool applied;
    return is_text(object, "id", q2_action_id(action->kind)) &&
           is_text(object, "confidence", q2_confidence_id(action->confidence)) &&
           number_member(object, "host-offset", &key) && key == action->key &&
           bool_member(object, "applied", &applied) && applied == action->applied &&
           is_same_evidence(object, action->evidence);
}

int
q2_plan_file_match(const struct q2_plan_file *file, const struct q2_repair *repair,
                   struct q2_error *err)
{
    static const char advice[] = "make a new plan with --dry-run";
    const struct q2_plan *plan = q2_repair_actions(repair);
    size_t count = json_object_array_length(file->actions);
    char digest[DIGEST_LENGTH + 1];
    for (uint64_t i = 0; i < plan->count && i < count; i++)
        if (!is_same_action(json_object_array_get_idx(file->actions, i), &plan->actions[i]))
            return q2_error_set(err, Q2_ERR_FORMAT,
                                "%s: is not the plan for this image as it is now: action %" PRIu64
                                " would be %s at offset 0x%" PRIx64 "; %s",
                                file->name, i + 1, q2_action_id(plan->actions[i].kind),
                                plan->actions[i].key, advice);
    if (count != plan->count)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: is not the plan for this image as it is now: it has %zu actions, "
                            "not %" PRIu64 "; %s",
                            file->name, count, plan->count, advice);
    int rc = q2_repair_digest(repair, digest, err);
    if (rc == 0 && strcmp(digest, file->digest) != 0)
        rc = q2_error_set(err, Q2_ERR_FORMAT,
                          "%s: is not the plan for this image as it is now: what is to be written, "
                          "or what is there, has changed; %s",
                          file->name, advice);
    return rc;
}
