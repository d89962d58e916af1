/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The map of the disk, extent by extent. */

#include "fuzz/differential/trial.h"
#include "fuzz/differential/worker.h"

#include <json-c/json.h>
#include <string.h>

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
        size_t count =
            a && json_object_is_type(a, json_type_array) ? json_object_array_length(a) : 0;
        size_t other =
            b && json_object_is_type(b, json_type_array) ? json_object_array_length(b) : 0;
        size_t i = 0;
        while (i < count && i < other &&
               json_object_equal(json_object_array_get_idx(a, i), json_object_array_get_idx(b, i)))
            i++;
        if (i < count || i < other)
            trial_differ(trial, "map", "extent",
                         i < count ? json_object_to_json_string(json_object_array_get_idx(a, i))
                                   : "none",
                         i < other ? json_object_to_json_string(json_object_array_get_idx(b, i))
                                   : "none");
        json_object_put(a);
        json_object_put(b);
    }
    outcome_destroy(&ours);
    outcome_destroy(&theirs);
}
