/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Power cuts: after each change, and one of them. */

#include "tests/stress/crash.h"

#include "core/io/memory.h"
#include "core/io/record.h"
#include "tests/stress/sequence.h"

enum { SECTOR = 512 };

static int
apply_write(const struct q2_record *record, enum kept_writes way, uint64_t *random,
            struct q2_file *target)
{
    int rc = 0;
    /* The first cluster is trusted to be written whole: a backing file's name moves when an
     * extension comes before it. None is smaller than this. */
    if (way != KEPT_SECTORS || record->offset < 512)
        return q2_file_write(target, record->offset, record->bytes, record->length, NULL);
    for (uint64_t at = 0; at < record->length && rc == 0;) {
        uint64_t end = ((record->offset + at) / SECTOR + 1) * SECTOR - record->offset;
        end = end > record->length ? record->length : end;
        if (next_random(random) & 1)
            rc = q2_file_write(target, record->offset + at, record->bytes + at, end - at, NULL);
        at = end;
    }
    return rc;
}

static int
apply(const struct q2_record *record, enum kept_writes way, uint64_t *random,
      struct q2_file *target)
{
    switch (record->kind) {
    case Q2_RECORD_WRITE:
        return apply_write(record, way, random, target);
    case Q2_RECORD_TRUNCATE:
        return q2_file_truncate(target, record->offset, NULL);
    case Q2_RECORD_PUNCH:
        return q2_file_punch(target, record->offset, record->length, NULL);
    case Q2_RECORD_FLUSH:
        break;
    }
    return 0;
}

/* Records [from, count) onto `target`, of which those from `durable` on are in doubt. */
static bool
replay(struct run *run, const struct q2_file *record, size_t count, size_t durable,
       enum kept_writes way, uint64_t random, struct q2_file *target)
{
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        enum kept_writes now = i < durable ? KEPT_ALL : way;
        if (now != KEPT_NONE && (now != KEPT_SOME || (next_random(&random) & 1)))
            rc = apply(q2_record_at(record, i), now, &random, target);
    }
    return rc == 0 || fail(run, "replaying: %d", rc);
}

/* The versions that a cut after `count` records can show. */
static void
window(const struct history *history, size_t count, size_t *ret_first, size_t *ret_last)
{
    size_t first = 0, last = history->count - 1;
    for (size_t v = 0; v < history->count; v++) {
        if (history->versions[v].durable && history->versions[v].records <= count)
            first = v;
        if (history->versions[v].records >= count && last > v)
            last = v;
    }
    *ret_first = first;
    *ret_last = last < first ? first : last;
}

/* The image is there after the cut; look at it, then use it. */
static bool
check_survivor(struct run *run, const struct history *history, size_t first, size_t last)
{
    const struct version *version = &history->versions[last];
    struct q2_error err = {0};
    bool dirty = false;
    run->secret = version->secret;
    if (!verify_survived(run, &dirty) || !history_check(run, history, first, last) ||
        !run_open(run, Q2_IMAGE_WRITE) || !history_check_disk(run, history, first, last))
        return false;
    /* Something new has to find its place without harm to the rest. */
    uint64_t size = q2_image_size(run->image), unit = size < 4096 ? size : 4096;
    uint64_t offset = (size - unit) / 2;
    int rc = q2_image_read(run->image, offset, run->scratch, unit, &err);
    if (rc == 0)
        rc = q2_image_write(run->image, offset, run->scratch, unit, &err);
    return succeeded(run, rc, &err, "a write after the cut") && run_close(run) &&
           (dirty ? verify_clean(run, "after a dirty image was opened and closed")
                  : verify_survived(run, &dirty)) &&
           history_check(run, history, first, last);
}

/* Say where that was. */
static void
blame(struct run *run, size_t count, enum kept_writes way, size_t durable, size_t first,
      size_t last)
{
    char message[512];
    snprintf(message, sizeof message, "%.400s", run->message);
    snprintf(run->message, sizeof run->message,
             "cut after %zu records, way %u, durable %zu, versions %zu to %zu: %s", count,
             (unsigned)way, durable, first, last, message);
}

bool
crash_cut(struct crash *crash, size_t count, enum kept_writes way, uint64_t random)
{
    struct run *run = crash->run;
    struct slot *slot = world_find(&run->world, "image");
    struct q2_file *saved = slot->base, *target = NULL;
    size_t first, last, durable = crash_durable(crash, count);
    window(&crash->history, count, &first, &last);
    bool fine = q2_file_new_memory("image", &target, NULL) == 0 &&
                file_copy(crash->before, target) &&
                replay(run, crash->record, count, durable, way, random, target);
    slot->base = slot->top = target;
    fine = fine && check_survivor(run, &crash->history, first, last);
    q2_image_close(run->image, NULL);
    run->image = NULL;
    q2_file_close(target);
    slot->base = slot->top = saved;
    if (!fine)
        blame(run, count, way, durable, first, last);
    return fine;
}

/* Run the steps with a recorder under the image. */
static bool
record_steps(struct crash *crash, const struct step *steps, unsigned count)
{
    struct run *run = crash->run;
    struct history *history = &crash->history;
    bool fine = history_add(history, run, 0, true);
    for (unsigned i = 0; fine && i < count; i++) {
        unsigned flushes = run->flushes;
        say(run, "%zu: ", crash_count(crash));
        fine = run_step(run, &steps[i]) &&
               history_add(history, run, crash_count(crash), run->flushes != flushes);
    }
    return fine && run_close(run) && history_add(history, run, crash_count(crash), true);
}

bool
crash_record(struct crash *crash, const struct params *params, const struct step *steps,
             unsigned count)
{
    struct run *run = crash->run;
    if (!run_begin(run, params) || !run_close(run))
        return false;
    struct slot *slot = world_find(&run->world, "image");
    bool fine = q2_file_new_memory("before", &crash->before, NULL) == 0 &&
                file_copy(slot->base, crash->before) &&
                q2_file_new_record(slot->base, &crash->record, NULL) == 0;
    slot->top = fine ? crash->record : slot->base;
    fine = fine && run_open(run, Q2_IMAGE_WRITE) && record_steps(crash, steps, count);
    q2_image_close(run->image, NULL);
    run->image = NULL;
    slot->top = slot->base;
    run->verbose = false;
    run->interrupted = true;
    return fine;
}

size_t
crash_count(const struct crash *crash)
{
    return q2_record_count(crash->record);
}

size_t
crash_durable(const struct crash *crash, size_t count)
{
    while (count > 0 && q2_record_at(crash->record, count - 1)->kind != Q2_RECORD_FLUSH)
        count--;
    return count;
}

void
crash_destroy(struct crash *crash)
{
    q2_file_close(crash->record);
    q2_file_close(crash->before);
    history_destroy(&crash->history);
    *crash = (struct crash){0};
}

bool
crash_run(struct run *run, const struct sequence *sequence)
{
    struct crash crash = {.run = run};
    bool fine = crash_record(&crash, &sequence->params, sequence->steps, sequence->count);
    for (size_t count = 0; fine && count <= crash_count(&crash); count++)
        for (unsigned way = KEPT_ALL; fine && way < KEPT_WAYS; way++) {
            fine = crash_cut(&crash, count, way, count * KEPT_WAYS + way);
            if (crash_durable(&crash, count) == count) /* all ways are one */
                break;
        }
    crash_destroy(&crash);
    return fine;
}
