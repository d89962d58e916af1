/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The true plans, under each option, and in the shortest form that says the same. */

#include "fuzz/seeds/seed.h"
#include "fuzz/support/plans.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

static const char *const keys[] = {"level", "deep", "discard", "now", "digest", "actions"};

/* What reading a plan takes, and nothing else. */
static void
shorten(const char *text, struct q2_seed *seed)
{
    struct json_object *root = json_tokener_parse(text), *shorter = json_object_new_object();
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        json_object_object_add(shorter, keys[i],
                               json_object_get(json_object_object_get(root, keys[i])));
    const char *line = json_object_to_json_string_ext(shorter, JSON_C_TO_STRING_PLAIN);
    q2_seed_bytes(seed, line, strlen(line));
    json_object_put(shorter);
    json_object_put(root);
}

void
q2_make_seeds(void)
{
    static struct q2_seed seed;
    for (unsigned number = 0; number < Q2_FUZZ_PLANS; number++)
        for (unsigned level = Q2_LEVEL_LEAKS; level <= Q2_LEVEL_GUESS; level++) {
            char *text;
            size_t length;
            q2_fuzz_plan_text(number, level, level & 1, level & 2, &text, &length);
            q2_seed_number(&seed, 1, number);
            q2_seed_bytes(&seed, text, length);
            q2_seed_write(&seed, "%u-%u", number, level);
            q2_seed_number(&seed, 1, number);
            shorten(text, &seed);
            q2_seed_write(&seed, "%u-%u-short", number, level);
            free(text);
        }
}
