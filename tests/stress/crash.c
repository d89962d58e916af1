/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Power cuts: all changes of the image file are recorded, and after each of them, with all, none or
 * some of what had not been flushed, the image must open, hold what was flushed, and have nothing
 * worse than leaked clusters. */

#include "core/io/memory.h"
#include "core/io/record.h"
#include "tests/stress/history.h"
#include "tests/stress/sequence.h"

/* What had reached the disk of the changes since the last flush. */
enum kept_writes { ALL, NONE, SOME, SECTORS, WAYS };
enum { SECTOR = 512 };

static int
apply_write(const struct q2_record *record, enum kept_writes way, uint64_t *random,
            struct q2_file *target)
{
    int rc = 0;
    /* The first cluster is trusted to be written whole: a backing file's name moves when an
     * extension comes before it. None is smaller than this. */
    if (way != SECTORS || record->offset < 512)
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
        enum kept_writes now = i < durable ? ALL : way;
        if (now != NONE && (now != SOME || (next_random(&random) & 1)))
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

static bool
cut_at(struct run *run, const struct history *history, const struct q2_file *record,
       struct q2_file *before, size_t count, size_t durable)
{
    struct slot *slot = world_find(&run->world, "image");
    struct q2_file *saved = slot->base;
    size_t first, last;
    bool fine = true;
    window(history, count, &first, &last);
    for (unsigned way = ALL; fine && way < WAYS; way++) {
        struct q2_file *target = NULL;
        if (count == durable && way != ALL)
            break;
        fine = q2_file_new_memory("image", &target, NULL) == 0 && file_copy(before, target) &&
               replay(run, record, count, durable, way, count * WAYS + way, target);
        slot->base = slot->top = target;
        fine = fine && check_survivor(run, history, first, last);
        if (run->image)
            q2_image_close(run->image, NULL);
        run->image = NULL;
        q2_file_close(target);
        slot->base = slot->top = saved;
        if (!fine) {
            char message[512];
            snprintf(message, sizeof message, "%.400s", run->message);
            snprintf(run->message, sizeof run->message,
                     "cut after %zu records, way %u, durable %zu, versions %zu to %zu: %s", count,
                     way, durable, first, last, message);
        }
    }
    return fine;
}

/* Run the steps with a recorder under the image. */
static bool
record_steps(struct run *run, const struct sequence *sequence, struct q2_file *record,
             struct history *history)
{
    bool fine = history_add(history, run, 0, true);
    for (unsigned i = 0; fine && i < sequence->count; i++) {
        unsigned flushes = run->flushes;
        say(run, "%zu: ", q2_record_count(record));
        fine = run_step(run, &sequence->steps[i]) &&
               history_add(history, run, q2_record_count(record), run->flushes != flushes);
    }
    return fine && run_close(run) && history_add(history, run, q2_record_count(record), true);
}

bool
crash_run(struct run *run, const struct sequence *sequence)
{
    struct history history = {0};
    struct q2_file *record = NULL, *before = NULL;
    if (!run_begin(run, &sequence->params) || !run_close(run))
        return false;
    struct slot *slot = world_find(&run->world, "image");
    bool fine = q2_file_new_memory("before", &before, NULL) == 0 && file_copy(slot->base, before) &&
                q2_file_new_record(slot->base, &record, NULL) == 0;
    slot->top = fine ? record : slot->base;
    fine = fine && run_open(run, Q2_IMAGE_WRITE) && record_steps(run, sequence, record, &history);
    slot->top = slot->base;
    size_t total = record ? q2_record_count(record) : 0, durable = 0;
    run->verbose = false;
    run->interrupted = true;
    for (size_t count = 0; fine && count <= total; count++) {
        if (count > 0 && q2_record_at(record, count - 1)->kind == Q2_RECORD_FLUSH)
            durable = count;
        fine = cut_at(run, &history, record, before, count, durable);
    }
    if (run->image)
        q2_image_close(run->image, NULL);
    run->image = NULL;
    q2_file_close(record);
    q2_file_close(before);
    history_destroy(&history);
    return fine;
}
