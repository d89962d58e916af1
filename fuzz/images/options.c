/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What stands beside a recipe, in the words of tests/cases/folder.c and two more: how the image is
 * to be checked, what cannot be read of it, and what follows it. That becomes options of a harness.
 */

#include "core/base/checked.h"
#include "fuzz/fuzz.h"
#include "fuzz/images/seeds.h"
#include "fuzz/support/medium.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void
seed_options_read(const char *text, struct seed_options *ret_options)
{
    struct seed_options options = {0};
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        char word[32] = "";
        uint64_t a = 0, b = 0;
        line += strspn(line, "\n");
        if (sscanf(line, "%31s %" SCNi64 " %" SCNi64, word, (int64_t *)&a, (int64_t *)&b) < 1)
            continue;
        if (strcmp(word, "deep") == 0)
            options.deep = true;
        else if (strcmp(word, "max-memory") == 0)
            options.max_memory = a;
        else if (strcmp(word, "max-work") == 0)
            options.max_work = a;
        else if (strcmp(word, "max-details") == 0)
            options.max_details = a;
        else if (strcmp(word, "slow") == 0)
            options.slow = true;
        else if (strcmp(word, "grown") == 0)
            options.grown = a;
        else if (strcmp(word, "fault") == 0 || strcmp(word, "fault-once") == 0)
            options.bad_offset = a, options.bad_length = b, options.heals = word[5] == '-';
        else /* the others are nothing to a harness */
            Q2_REQUIRE(strcmp(word, "chain") == 0 || strcmp(word, "threads") == 0 ||
                           strcmp(word, "now") == 0,
                       "there is no option %s", word);
    }
    *ret_options = options;
}

void
seed_options_scale(const struct seed_scale *scale, struct seed_options *options)
{
    options->bad_offset = seed_scaled(options->bad_offset, scale);
    options->bad_length = options->bad_length > Q2_FUZZ_SECTOR
                              ? seed_scaled(options->bad_length, scale)
                              : options->bad_length;
}

/* The limit n for which unit << n comes next to `value`; 0: none. */
static uint32_t
steps(uint64_t value, uint64_t unit, unsigned most)
{
    uint32_t n = 0;
    while (value && unit << n < value && n < most)
        n++;
    return value && n == 0 ? 1 : n;
}

struct q2_fuzz_options
seed_options_fuzz(const struct seed_options *options)
{
    uint64_t first = options->bad_offset / Q2_FUZZ_SECTOR;
    uint64_t end =
        (options->bad_offset + options->bad_length + Q2_FUZZ_SECTOR - 1) / Q2_FUZZ_SECTOR;
    struct q2_fuzz_options fuzz = {0};
    if (options->bad_length) {
        fuzz.flags |= Q2_FUZZ_BAD_SPOT;
        fuzz.number = (uint16_t)first;
        fuzz.chance = (uint32_t)(q2_min(end - first, Q2_FUZZ_MOST_BAD) - 1);
    }
    if (options->heals)
        fuzz.chance |= Q2_FUZZ_HEALS;
    if (options->grown) {
        fuzz.flags |= Q2_FUZZ_GROWN;
        fuzz.chance |= (uint32_t)(options->grown - 1) << Q2_FUZZ_GROWN_SHIFT;
    }
    fuzz.chance |= steps(options->max_memory, Q2_FUZZ_LEAST_MEMORY, 15) << Q2_FUZZ_MEMORY_SHIFT;
    fuzz.chance |= steps(options->max_work, Q2_FUZZ_LEAST_WORK, 31) << Q2_FUZZ_WORK_SHIFT;
    fuzz.chance |= (uint32_t)(options->max_details & 7) << Q2_FUZZ_DETAILS_SHIFT;
    return fuzz;
}

bool
seed_options_any(const struct seed_options *options)
{
    return options->bad_length || options->grown || options->max_memory || options->max_work ||
           options->max_details;
}
