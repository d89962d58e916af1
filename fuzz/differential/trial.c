/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Asking for facts, and what facts share. */

#include "fuzz/differential/trial.h"

#include "core/format/problem.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FACT(name, percent) void compare_##name(struct trial *trial);
#include "fuzz/differential/facts.def"
#undef FACT

const struct fact facts[] = {
#define FACT(name, percent) {#name, percent, compare_##name},
#include "fuzz/differential/facts.def"
#undef FACT
};
const unsigned fact_count = sizeof facts / sizeof *facts;

void
trial_run(const char *image, const char *only, uint64_t seed,
          void (*differ)(void *data, const struct difference *difference), void *data)
{
    struct trial trial = {.image = image,
                          .random = {.state = seed},
                          .differ = differ,
                          .data = data};
    report_make(image, &trial.report);
    for (unsigned i = 0; i < fact_count; i++) {
        /* The same numbers whatever is asked, so that a trial can be had again in part. */
        uint64_t chance = q2_fuzz_random_below(&trial.random, 100);
        struct q2_fuzz_random after = {.state = q2_fuzz_random(&trial.random)};
        if (only ? strcmp(only, facts[i].name) == 0 : chance < facts[i].percent)
            facts[i].compare(&trial);
        trial.random = after;
    }
    report_destroy(&trial.report);
}

void
trial_differ(struct trial *trial, const char *fact, const char *field, const char *ours,
             const char *theirs)
{
    const struct difference difference = {fact, field, ours, theirs, trial->report.traits, "", ""};
    if (strcmp(ours, theirs) != 0)
        trial->differ(trial->data, &difference);
}

void
trial_differ_numbers(struct trial *trial, const char *fact, const char *field, uint64_t ours,
                     uint64_t theirs)
{
    char a[24], b[24];
    snprintf(a, sizeof a, "%" PRIu64, ours);
    snprintf(b, sizeof b, "%" PRIu64, theirs);
    trial_differ(trial, fact, field, a, b);
}

/* Our message names the rule of the format that is broken. */
static bool
find_problem(const char *words, const char **ret_id)
{
    char *copy = strdup(words), *rest = copy;
    enum q2_problem problem;
    bool found = false;
    for (char *word; !found && (word = strsep(&rest, " :\n"));) {
        found = q2_problem_find(word, &problem);
        if (found)
            *ret_id = q2_problem_id(problem);
    }
    free(copy);
    /* What only reading finds has no name there. */
    if (!found && strstr(words, "decodes to more than the expected")) {
        *ret_id = "stream-long";
        found = true;
    }
    return found;
}

bool
trial_differ_ends(struct trial *trial, const char *fact, const char *field,
                  const struct outcome *ours, const struct outcome *theirs)
{
    char a[16], b[16], traits[4096];
    const char *refused = "";
    bool named = ours->end == RUN_EXIT && find_problem(ours->errors, &refused);
    snprintf(traits, sizeof traits, "%s%s%s,", trial->report.traits, named ? "!" : "", refused);
    const struct difference difference = {
        .fact = fact,
        .field = field,
        .ours = outcome_word(ours, a),
        .theirs = outcome_word(theirs, b),
        .traits = traits,
        .our_words = ours->errors,
        .their_words = theirs->errors,
    };
    if (strcmp(difference.ours, difference.theirs) != 0)
        trial->differ(trial->data, &difference);
    return outcome_is_exit(ours, 0) && outcome_is_exit(theirs, 0);
}

bool
trial_has(const struct trial *trial, const char *trait)
{
    char text[96];
    snprintf(text, sizeof text, ",%s,", trait);
    return strstr(trial->report.traits, text) != NULL;
}

void
trial_copy(const char *from, const char *to)
{
    enum { PIECE = 65536 };
    static uint8_t piece[PIECE];
    static const uint8_t zeros[PIECE];
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    off_t at = 0;
    for (ssize_t length; in >= 0 && out >= 0 && (length = read(in, piece, PIECE)) > 0;
         at += length) {
        if (memcmp(piece, zeros, (size_t)length) != 0 &&
            pwrite(out, piece, (size_t)length, at) != length)
            out = -1;
    }
    if (in < 0 || out < 0 || ftruncate(out, at) < 0) {
        perror(to);
        exit(2);
    }
    close(in);
    close(out);
}
