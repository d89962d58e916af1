/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "tests/bench/recovery/measure.h"

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/io/posix.h"
#include "repair/repair.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char *const way_names[WAY_COUNT] = {"nothing", "certain", "likely",
                                          "guess",   "salvage", "qemu-img"};

static double
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* ---- what is there ---- */

/* The damaged file with the healthy metadata: all that could be read at best. What has been cut off
 * is no longer there. */
static uint8_t *
best_case(const struct subject *subject, const struct hit *hit)
{
    uint8_t *bytes = malloc(subject->length);
    if (!bytes)
        return NULL;
    memset(bytes, 0xee, subject->length);
    memcpy(bytes, hit->bytes, q2_min(hit->length, subject->length));
    for (unsigned i = 0; i < subject->place_count; i++) {
        const struct place *place = &subject->places[i];
        if (place->kind != Q2_OWNER_LUKS_HEADER && place->offset < subject->length)
            memcpy(bytes + place->offset, subject->bytes + place->offset,
                   q2_min(place->length, subject->length - place->offset));
    }
    return bytes;
}

static bool
entry_intact(const struct judgement *judgement, unsigned map, uint64_t guest)
{
    const struct subject *subject = judgement->subject;
    uint64_t at = guest < subject->truth[map].clusters ? subject->entry_at[map][guest] : 0;
    unsigned size = subject->geometry.l2_entry_size;
    return at && q2_range_inside(at, size, judgement->hit->length) &&
           memcmp(subject->bytes + at, judgement->hit->bytes + at, size) == 0;
}

static bool
is_known(const struct judgement *judgement, unsigned map, uint64_t guest)
{
    const struct subject *subject = judgement->subject;
    for (unsigned other = 0; other < subject->maps; other++)
        if (entry_intact(judgement, other, guest) &&
            subject->truth[other].hash[guest] == subject->truth[map].hash[guest])
            return true;
    return false;
}

static bool
prepare(struct judgement *judgement, struct result *result)
{
    const struct subject *subject = judgement->subject;
    const struct hit *hit = judgement->hit;
    Q2_AUTOFREE uint8_t *best = best_case(subject, hit);
    uint32_t found[MAX_MAPS];
    bool ok = best != NULL;
    for (unsigned map = 0; map < subject->maps; map++) {
        ok = ok && content_new(subject, &judgement->best[map]) &&
             content_new(subject, &judgement->before[map]) &&
             content_new(subject, &judgement->after[map]);
        judgement->known[map] = calloc(subject->truth[map].clusters + 1, 1);
        ok = ok && judgement->known[map];
    }
    if (!ok)
        return false;
    Q2_AUTOCLOSE struct q2_file *best_file = file_from(best, subject->length);
    Q2_AUTOCLOSE struct q2_file *damaged = file_from(hit->bytes, hit->length);
    subject_read(subject, best_file, judgement->best, found);
    subject_read(subject, damaged, judgement->before, judgement->before_map);
    for (unsigned map = 0; map < subject->maps; map++)
        for (uint64_t i = 0; i < subject->truth[map].clusters; i++) {
            bool own = subject->entry_at[map][i] != 0;
            bool there = own && judgement->best[map].hash[i] == subject->truth[map].hash[i];
            judgement->known[map][i] = there && is_known(judgement, map, i);
            result->own += own;
            result->exists += there;
            result->known += judgement->known[map][i];
        }
    return true;
}

static void
release(struct judgement *judgement)
{
    for (unsigned map = 0; map < MAX_MAPS; map++) {
        content_free(&judgement->best[map]);
        content_free(&judgement->before[map]);
        content_free(&judgement->after[map]);
        free(judgement->known[map]);
    }
}

/* ---- our own ---- */

static void
print_plan(const struct q2_plan *plan, const struct q2_repair *repair)
{
    for (uint64_t i = 0; i < plan->count; i++) {
        const struct q2_action *action = &plan->actions[i];
        printf("  %s %s (%s): %s; %" PRIu64 " changes\n",
               action->applied   ? "+"
               : action->dropped ? "dropped"
                                 : "-",
               q2_action_id(action->kind), q2_confidence_id(action->confidence), action->evidence,
               action->change_count);
    }
    for (size_t i = 0; q2_repair_objection(repair, i); i++)
        printf("  objection: %s\n", q2_repair_objection(repair, i));
}

bool
file_keep(const char *path, struct q2_file *file)
{
    uint64_t size;
    Q2_AUTOCLOSE struct q2_file *copy = NULL;
    unlink(path);
    if (q2_file_size(file, &size, NULL) < 0)
        return false;
    Q2_AUTOFREE uint8_t *bytes = malloc(size + 1);
    return bytes && q2_file_read(file, 0, bytes, size, NULL) == 0 &&
           q2_file_open(path, Q2_OPEN_CREATE, &copy, NULL) == 0 &&
           q2_file_write(copy, 0, bytes, size, NULL) == 0;
}

static void
keep(const struct case_options *options, const char *name, struct q2_file *file)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.qcow2", options->keep, name);
    if (options->keep)
        file_keep(path, file);
}

static void
repair_ourselves(struct judgement *judgement, enum way way, const struct case_options *options,
                 struct score *score)
{
    static const enum q2_repair_level levels[] = {[WAY_CERTAIN] = Q2_LEVEL_CERTAIN,
                                                  [WAY_LIKELY] = Q2_LEVEL_LIKELY,
                                                  [WAY_GUESS] = Q2_LEVEL_GUESS};
    struct q2_repair_options settings = {.level = levels[way], .threads = 1};
    struct q2_repair *repair = NULL, *second = NULL;
    struct q2_error err = {0};
    Q2_AUTOCLOSE struct q2_file *file = file_from(judgement->hit->bytes, judgement->hit->length);
    double begin = now();
    int rc = q2_repair_plan(file, &settings, &repair, &err);
    score->seconds = now() - begin;
    score->ran = true;
    score->refused = rc == Q2_ERR_NOT_QCOW2;
    score->failed = rc < 0 && !score->refused;
    score->status = rc < 0 ? Q2_EXIT_INCOMPLETE : (int)q2_check_exit(q2_repair_after(repair));
    if (options->loud)
        printf("%s: status %d, %.2f s %s\n", way_names[way], score->status, score->seconds,
               err.message);
    if (rc < 0) {
        snprintf(score->note, sizeof score->note, "error: %.200s", err.message);
        judge_read(judgement, file);
        judge(judgement, file, NULL, NULL, options->loud, score);
        return;
    }
    struct q2_file *result = q2_repair_file(repair);
    uint64_t size = 0;
    q2_file_size(result, &size, NULL);
    score->bytes = size > judgement->hit->length ? size - judgement->hit->length : 0;
    if (options->loud)
        print_plan(q2_repair_actions(repair), repair);
    keep(options, way_names[way], result);
    judge_read(judgement, result);
    judge(judgement, result, judge_plan_admits, (void *)(uintptr_t)q2_repair_actions(repair),
          options->loud, score);
    if (options->cross && way == WAY_CERTAIN && score->status == 0)
        score->disagrees = !peer_agrees(judgement, options, result);
    if (q2_repair_plan(result, &settings, &second, &err) == 0) {
        score->again = q2_repair_needed(second);
        if (score->again && options->loud) {
            printf("  a second run would:\n");
            print_plan(q2_repair_actions(second), second);
        }
    }
    q2_repair_free(second);
    q2_repair_free(repair);
}

static void
try_all(struct judgement *judgement, const struct case_options *options, struct result *result)
{
    Q2_AUTOCLOSE struct q2_file *damaged = file_from(judgement->hit->bytes, judgement->hit->length);
    keep(options, "damaged", damaged);
    result->scores[WAY_NOTHING].ran = true;
    result->scores[WAY_NOTHING].status = Q2_EXIT_CORRUPT;
    judge_read(judgement, damaged);
    judge(judgement, damaged, NULL, NULL, false, &result->scores[WAY_NOTHING]);
    for (unsigned way = WAY_CERTAIN; way <= WAY_GUESS; way++)
        if (options->ways & 1U << way)
            repair_ourselves(judgement, way, options, &result->scores[way]);
    if (options->ways & 1U << WAY_SALVAGE)
        salvage(judgement, options, &result->scores[WAY_SALVAGE]);
    if (options->peer)
        peer_repair(judgement, options, &result->scores[WAY_PEER]);
}

void
measure(const struct subject *subject, const struct damage *damage, uint64_t seed,
        const struct case_options *options, struct result *result)
{
    uint64_t random = seed * UINT64_C(0x100000001b3);
    for (const char *at = subject->name; *at; at++)
        random = random * 31 + (unsigned char)*at;
    for (const char *at = damage->name; *at; at++)
        random = random * 31 + (unsigned char)*at;
    /* Damage that begins near the end of the file may reach a little past it. */
    struct hit hit = {.subject = subject, .length = subject->length, .random = random};
    hit.bytes = malloc(subject->length);
    if (!hit.bytes)
        return;
    memcpy(hit.bytes, subject->bytes, subject->length);
    struct judgement judgement = {.subject = subject, .hit = &hit};
    result->applies = damage->hit(&hit);
    snprintf(result->what, sizeof result->what, "%.190s", hit.what);
    if (result->applies && prepare(&judgement, result)) {
        if (options->loud)
            printf("%s, %s, seed %" PRIu64 ": %s\n%" PRIu64 " guest clusters, %" PRIu64
                   " exist, %" PRIu64 " known\n",
                   subject->name, damage->name, seed, hit.what, result->own, result->exists,
                   result->known);
        try_all(&judgement, options, result);
    }
    result->done = true;
    release(&judgement);
    free(hit.bytes);
}
