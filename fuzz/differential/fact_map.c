/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The map of the disk, extent by extent. */

#include "fuzz/differential/trial.h"
#include "fuzz/differential/worker.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

/* The first extent that is not the same, member by member. */
static void
compare_extents(struct trial *trial, json_object *a, json_object *b)
{
    json_object_object_foreach(a, name, value)
    {
        char field[64];
        json_object *other = NULL;
        bool both = json_object_object_get_ex(b, name, &other);
        snprintf(field, sizeof field, "extent.%s", name);
        if (!both || !json_object_equal(value, other))
            trial_differ(trial, "map", field, json_object_to_json_string(value),
                         both ? json_object_to_json_string(other) : "absent");
    }
    if (json_object_object_length(a) < json_object_object_length(b))
        trial_differ(trial, "map", "extent", json_object_to_json_string(a),
                     json_object_to_json_string(b));
}

static void
compare_maps(struct trial *trial, json_object *a, json_object *b)
{
    size_t count = json_object_array_length(a), other = json_object_array_length(b), i = 0;
    while (i < count && i < other &&
           json_object_equal(json_object_array_get_idx(a, i), json_object_array_get_idx(b, i)))
        i++;
    if (i < count && i < other)
        compare_extents(trial, json_object_array_get_idx(a, i), json_object_array_get_idx(b, i));
    else
        trial_differ_numbers(trial, "map", "extents", count, other);
}

void compare_map(struct trial *trial);

void
compare_map(struct trial *trial)
{
    const char *const theirs_argv[] = {"qemu-img",   "map", "--output=json", "-f", "qcow2",
                                       trial->image, NULL};
    const char *const ours_argv[] = {"map", "--output=json", "-f", "qcow2", trial->image, NULL};
    struct outcome ours, theirs;
    run_own(ours_argv, NULL, &ours);
    run_program(theirs_argv, NULL, &theirs);
    if (trial_differ_ends(trial, "map", "end", &ours, &theirs)) {
        json_object *a = json_tokener_parse(ours.output), *b = json_tokener_parse(theirs.output);
        if (json_object_is_type(a, json_type_array) && json_object_is_type(b, json_type_array))
            compare_maps(trial, a, b);
        else
            trial_differ(trial, "map", "json", a ? "made" : "none", b ? "made" : "none");
        json_object_put(a);
        json_object_put(b);
    }
    outcome_destroy(&ours);
    outcome_destroy(&theirs);
}
