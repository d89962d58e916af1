/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A salvage writes a new image and a map of how far it can be trusted. Reading that image is judged
 * as reading a repaired one is, but what the map does not call certain may be anything. */

#include "repair/salvage.h"
#include "core/base/checked.h"

#include "core/io/posix.h"
#include "tests/bench/recovery/measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct doubt {
    uint32_t map;
    uint64_t offset, length;
};

struct doubts {
    struct doubt *list;
    size_t count, capacity;
};

static void
add_range(void *data, const struct q2_salvage_range *range)
{
    struct doubts *doubts = data;
    if (range->vm_state || range->state == Q2_SALVAGE_CERTAIN)
        return;
    if (doubts->count == doubts->capacity) {
        size_t capacity = doubts->capacity ? doubts->capacity * 2 : 64;
        struct doubt *list = realloc(doubts->list, capacity * sizeof *list);
        if (!list)
            return;
        doubts->list = list;
        doubts->capacity = capacity;
    }
    doubts->list[doubts->count++] =
        (struct doubt){.map = range->map, .offset = range->offset, .length = range->length};
}

static bool
doubted(void *data, uint32_t map, uint64_t offset, uint64_t length)
{
    const struct doubts *doubts = data;
    for (size_t i = 0; i < doubts->count; i++) {
        const struct doubt *doubt = &doubts->list[i];
        if (doubt->map == map && q2_ranges_overlap(doubt->offset, doubt->length, offset, length))
            return true;
    }
    return false;
}

void
salvage(struct judgement *judgement, const struct case_options *options, struct score *score)
{
    const struct subject *subject = judgement->subject;
    const char *folder = options->keep ? options->keep : options->folder;
    char out[4096], map[4200], backing[4200];
    struct q2_error err = {0};
    struct doubts doubts = {0};
    struct q2_salvage_result result;
    snprintf(out, sizeof out, "%s/salvage-%d.qcow2", folder, (int)getpid());
    snprintf(map, sizeof map, "%s.map.json", out);
    snprintf(backing, sizeof backing, "%s/%s", options->folder, subject->backing_name);
    struct q2_salvage_options settings = {
        .format = Q2_DISK_QCOW2,
        .keep_backing = subject->backing != NULL,
        .backing_file = subject->backing ? backing : NULL,
        .secret = subject->secret.bytes ? &subject->secret : NULL,
        .overwrite = true,
        .restart = true,
        .threads = 1,
    };
    struct q2_file *file = file_from(judgement->hit->bytes, judgement->hit->length), *copy = NULL;
    int rc = q2_salvage_run(file, out, &settings, &result, &err);
    q2_file_close(file);
    score->ran = true;
    score->failed = rc < 0;
    if (options->loud)
        printf("salvage: %d %s\n", rc, err.message);
    if (rc < 0)
        snprintf(score->note, sizeof score->note, "error: %.200s", err.message);
    if (rc == 0 && q2_salvage_read_map(map, NULL, add_range, &doubts, &err) == 0 &&
        q2_file_open(out, 0, &copy, &err) == 0) {
        score->status = 2; /* no claim that all is well */
        judge_read(judgement, copy);
        judge(judgement, copy, doubted, &doubts, options->loud, score);
        q2_file_close(copy);
    }
    free(doubts.list);
    if (!options->keep) {
        unlink(out);
        unlink(map);
    }
}
