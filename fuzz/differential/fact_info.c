/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What is said about an image: opens or not, and every field of `info`. */

#include "fuzz/differential/trial.h"
#include "fuzz/differential/worker.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

/* Depends on how the file is stored, not on what is in it. */
static bool
is_left_out(const char *name)
{
    return strcmp(name, "actual-size") == 0 || strcmp(name, "filename") == 0 ||
           strcmp(name, "children") == 0;
}

/* The members of one that the other lacks or has otherwise; `swapped`: `a` is theirs, and members
 * that both have have been looked at. */
static void
compare_objects(struct trial *trial, const char *path, json_object *a, json_object *b, bool swapped)
{
    json_object_object_foreach(a, name, value)
    {
        char field[256];
        json_object *other = NULL;
        bool both = json_object_object_get_ex(b, name, &other);
        snprintf(field, sizeof field, "%s%s%s", path, *path ? "." : "", name);
        if (is_left_out(name))
            continue;
        if (both && json_object_is_type(value, json_type_object) &&
            json_object_is_type(other, json_type_object)) {
            compare_objects(trial, field, value, other, swapped);
        } else if (!both) {
            const char *text = json_object_to_json_string(value);
            trial_differ(trial, "info", field, swapped ? "absent" : text,
                         swapped ? text : "absent");
        } else if (!swapped && !json_object_equal(value, other)) {
            trial_differ(trial, "info", field, json_object_to_json_string(value),
                         json_object_to_json_string(other));
        }
    }
}

void compare_info(struct trial *trial);

void
compare_info(struct trial *trial)
{
    const char *const theirs_argv[] = {"qemu-img",   "info", "--output=json", "-f", "qcow2",
                                       trial->image, NULL};
    const char *const ours_argv[] = {"info", "--output=json", "-f", "qcow2", trial->image, NULL};
    struct outcome ours, theirs;
    run_own(ours_argv, NULL, &ours);
    run_program(theirs_argv, NULL, &theirs);
    if (trial_differ_ends(trial, "info", "end", &ours, &theirs)) {
        json_object *a = json_tokener_parse(ours.output), *b = json_tokener_parse(theirs.output);
        if (json_object_is_type(a, json_type_object) && json_object_is_type(b, json_type_object)) {
            compare_objects(trial, "", a, b, false);
            compare_objects(trial, "", b, a, true);
        } else {
            trial_differ(trial, "info", "json", a ? "made" : "none", b ? "made" : "none");
        }
        json_object_put(a);
        json_object_put(b);
    }
    outcome_destroy(&ours);
    outcome_destroy(&theirs);
}
