/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/base/endian.h"
#include "core/format/entry.h"
#include "core/format/refcount.h"
#include "repair/plan.h"
#include "tests/bench/recovery/measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool
exists(const struct judgement *judgement, unsigned map, uint64_t guest)
{
    const struct subject *subject = judgement->subject;
    return subject->entry_at[map][guest] &&
           judgement->best[map].hash[guest] == subject->truth[map].hash[guest];
}

/* Whether the refcount of the cluster at host `offset` is 0, by the tables of the file itself. */
static bool
is_free(struct q2_file *file, uint64_t offset)
{
    uint8_t bytes[Q2_HEADER_KNOWN_LENGTH], word[8];
    struct q2_header header;
    if (q2_file_read(file, 0, bytes, sizeof bytes, NULL) < 0)
        return false;
    q2_header_decode(bytes, sizeof bytes, &header);
    if (header.cluster_bits < 9 || header.cluster_bits > 21 || header.refcount_order > 6)
        return false;
    unsigned block_bits = header.cluster_bits + 3 - header.refcount_order;
    uint64_t cluster = offset >> header.cluster_bits, entry = cluster >> block_bits;
    if (q2_file_read(file, header.refcount_table_offset + entry * 8, word, 8, NULL) < 0)
        return false;
    uint64_t block = q2_load_be64(word), size = UINT64_C(1) << header.cluster_bits;
    Q2_AUTOFREE uint8_t *refcounts = malloc(size);
    if (!block)
        return true;
    if (!refcounts || q2_file_read(file, block, refcounts, size, NULL) < 0)
        return false;
    return q2_refcount_get(refcounts, header.refcount_order,
                           cluster & ((UINT64_C(1) << block_bits) - 1)) == 0;
}

/* Whether the bytes of a guest cluster are gone from the file, or about to go. */
static bool
is_gone(const struct judgement *judgement, struct q2_file *file, unsigned map, uint64_t guest)
{
    const struct subject *subject = judgement->subject;
    const struct q2_geometry *geometry = &subject->geometry;
    uint64_t raw = q2_load_be64(subject->bytes + subject->entry_at[map][guest]);
    uint64_t offset = q2_entry_offset(raw), length = geometry->cluster_size;
    if (raw & Q2_ENTRY_COMPRESSED) {
        struct q2_compressed_range range = q2_compressed_decode(geometry, raw);
        offset = range.offset;
        length = q2_min(range.length, subject->length - q2_min(offset, subject->length));
    }
    length = q2_min(length, judgement->hit->length - q2_min(offset, judgement->hit->length));
    Q2_AUTOFREE uint8_t *bytes = malloc(length + 1);
    if (!bytes || !length)
        return false;
    if (q2_file_read(file, offset, bytes, length, NULL) < 0 ||
        memcmp(bytes, judgement->hit->bytes + offset, length) != 0)
        return true;
    return is_free(file, offset);
}

bool
judge_plan_admits(void *data, uint32_t map, uint64_t offset, uint64_t length)
{
    const struct q2_plan *plan = data;
    for (uint64_t i = 0; i < plan->count; i++) {
        const struct q2_action *action = &plan->actions[i];
        for (uint64_t j = 0; j < action->change_count; j++) {
            const struct q2_change *change = &action->changes[j];
            if ((change->kind == Q2_CHANGE_LOST) == action->applied && change->map == map &&
                q2_ranges_overlap(change->offset, change->length, offset, length))
                return true;
        }
    }
    return false;
}

/* Whether a cluster reads as zeros for the zero flag alone, which is what the damage was: nothing
 * in the image contradicts it, and the repair has not set it. */
static bool
is_belief(const struct judgement *judgement, struct q2_file *file, unsigned map, uint64_t guest)
{
    const struct subject *subject = judgement->subject;
    uint64_t at = subject->entry_at[map][guest];
    uint8_t word[8];
    if (!at || !q2_range_inside(at, 8, judgement->hit->length) || subject->geometry.extended_l2 ||
        q2_file_read(file, at, word, 8, NULL) < 0)
        return false;
    uint64_t healthy = q2_load_be64(subject->bytes + at);
    uint64_t damaged = q2_load_be64(judgement->hit->bytes + at);
    return damaged == (healthy | Q2_ENTRY_ZERO) && q2_load_be64(word) == damaged &&
           judgement->after[map].hash[guest] == CONTENT_ZERO;
}

/* Whether a cluster reads what the file has of it, through its own entry: it was cut off in the
 * middle, and all readers take what is behind the end for zeros. */
static bool
is_cut(const struct judgement *judgement, struct q2_file *file, unsigned map, uint64_t guest)
{
    const struct subject *subject = judgement->subject;
    uint64_t at = subject->entry_at[map][guest], end = judgement->hit->length;
    uint8_t word[8];
    if (!at || q2_file_read(file, at, word, 8, NULL) < 0)
        return false;
    uint64_t healthy = q2_load_be64(subject->bytes + at), offset = q2_entry_offset(healthy);
    return ((healthy ^ q2_load_be64(word)) & ~Q2_ENTRY_COPIED) == 0 &&
           !(healthy & Q2_ENTRY_COMPRESSED) && offset < end &&
           offset + subject->geometry.cluster_size > end;
}

static const char *
word_of(const struct judgement *judgement, unsigned map, uint64_t guest, uint64_t hash)
{
    return hash == CONTENT_ERROR                                ? "an error"
           : hash == judgement->subject->truth[map].hash[guest] ? "what it should"
           : hash == CONTENT_ZERO                               ? "zeros"
                                                                : "something else";
}

static void
note(const struct judgement *judgement, struct score *score, const char *what, unsigned map,
     uint64_t guest, bool loud)
{
    char text[sizeof score->note];
    snprintf(text, sizeof text,
             "%s: map %u, guest cluster %llu (L2 entry at 0x%llx): reads %s, before %s", what, map,
             (unsigned long long)guest,
             (unsigned long long)judgement->subject->entry_at[map][guest],
             word_of(judgement, map, guest, judgement->after[map].hash[guest]),
             word_of(judgement, map, guest, judgement->before[map].hash[guest]));
    if (!score->note[0])
        memcpy(score->note, text, sizeof text);
    if (loud)
        printf("    %s\n", text);
}

static void
judge_cluster(const struct judgement *judgement, struct q2_file *file, excuse *excused, void *data,
              unsigned map, uint64_t guest, bool loud, struct score *score)
{
    const struct subject *subject = judgement->subject;
    uint64_t truth = subject->truth[map].hash[guest];
    uint64_t best = judgement->best[map].hash[guest];
    uint64_t before = judgement->before[map].hash[guest];
    uint64_t after = judgement->after[map].hash[guest];
    bool there = exists(judgement, map, guest);
    if (there && after == truth) {
        score->recovered++;
        score->recovered_known += judgement->known[map][guest];
    }
    if (after == truth)
        return;
    if (before == truth) {
        score->harm++;
        note(judgement, score, "harm", map, guest, loud);
    } else if (after != CONTENT_ERROR && after != best && after != before &&
               !(excused &&
                 excused(data, judgement->after_map[map], guest * subject->geometry.cluster_size,
                         subject->geometry.cluster_size)) &&
               !is_belief(judgement, file, map, guest) && !is_cut(judgement, file, map, guest)) {
        score->wrong++;
        note(judgement, score, "wrong", map, guest, loud);
    } else if (loud && there) {
        note(judgement, score, "missed", map, guest, loud);
    }
    if (there && score->status == 0 && is_gone(judgement, file, map, guest))
        score->destroyed++;
}

void
judge_read(struct judgement *judgement, struct q2_file *file)
{
    subject_read(judgement->subject, file, judgement->after, judgement->after_map);
}

void
judge(struct judgement *judgement, struct q2_file *file, excuse *excused, void *data, bool loud,
      struct score *score)
{
    const struct subject *subject = judgement->subject;
    for (unsigned map = 0; map < subject->maps; map++)
        for (uint64_t guest = 0; guest < subject->truth[map].clusters; guest++)
            judge_cluster(judgement, file, excused, data, map, guest, loud, score);
}
