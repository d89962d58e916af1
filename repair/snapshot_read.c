/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/snapshot_read.h"

#include "core/base/checked.h"
#include "repair/l1_find.h"

#include <string.h>

enum {
    PROBE = 4096,         /* bytes of an entry: names are short */
    MAX_PARSED = 1 << 24, /* entries that a search may read */
};

static bool
is_known(const struct q2_check *check, const struct q2_snapshot *snapshot)
{
    for (uint64_t m = 1; m < check->map_count; m++)
        if (check->maps[m].l1_offset == snapshot->l1_table_offset &&
            check->maps[m].l1_size == snapshot->l1_size)
            return true;
    return false;
}

/* Whether nothing else leads to the L1 table of an entry, and it is one, or empty. */
static bool
is_lost(struct q2_carving *carving, const struct q2_snapshot *snapshot)
{
    struct q2_l1_look look;
    if (!q2_l1_is_lost(carving, snapshot->l1_table_offset, snapshot->l1_size))
        return false;
    q2_l1_look(carving, snapshot->l1_table_offset, snapshot->l1_size, &look);
    return q2_l1_credible(&look) || (look.leads == 0 && look.astray == 0);
}

static bool
read_entry(struct q2_carving *carving, uint64_t at, const struct q2_snapshot_patch *patch,
           uint8_t bytes[PROBE])
{
    struct q2_check *check = carving->slots->scene->check;
    if (at >= check->geometry.file_size ||
        q2_file_read_padded(check->file, at, bytes, PROBE, NULL) < 0)
        return false;
    if (patch && patch->at >= at && patch->at - at < PROBE)
        bytes[patch->at - at] ^= patch->mask;
    return q2_snapshot_plausible(&check->geometry, bytes, PROBE, at);
}

void
q2_snapshot_run(struct q2_carving *carving, uint64_t at, uint64_t limit,
                const struct q2_snapshot_patch *patch, struct q2_snapshot_run *ret_run)
{
    const struct q2_check *check = carving->slots->scene->check;
    struct q2_snapshot_run run = {.at = at};
    uint8_t bytes[PROBE];
    while (run.count < q2_min(limit, Q2_MAX_SNAPSHOTS) &&
           read_entry(carving, at + run.length, patch, bytes)) {
        struct q2_snapshot snapshot;
        q2_snapshot_decode(&check->geometry, bytes, at + run.length, &snapshot);
        bool lost = is_lost(carving, &snapshot);
        if (!lost && !is_known(check, &snapshot))
            break;
        run.lost += lost;
        run.last = at + run.length;
        run.count++;
        run.length += q2_snapshot_length(bytes);
    }
    *ret_run = run;
}

bool
q2_snapshot_run_has(struct q2_carving *carving, const struct q2_snapshot_run *run, uint64_t cluster)
{
    const struct q2_geometry *geometry = &carving->slots->scene->check->geometry;
    uint8_t bytes[PROBE];
    uint64_t at = run->at;
    for (uint64_t i = 0; i < run->count && read_entry(carving, at, NULL, bytes); i++) {
        struct q2_snapshot snapshot;
        q2_snapshot_decode(geometry, bytes, at, &snapshot);
        uint64_t first = snapshot.l1_table_offset >> geometry->cluster_bits;
        uint64_t count = q2_units((uint64_t)snapshot.l1_size * 8, geometry->cluster_bits);
        if (cluster - first < count)
            return true;
        at += q2_snapshot_length(bytes);
    }
    return false;
}

/* Whether the id of the entry at `at` is a number, as QEMU makes them. */
static bool
has_number(struct q2_carving *carving, uint64_t at, const struct q2_snapshot_patch *patch)
{
    const struct q2_geometry *geometry = &carving->slots->scene->check->geometry;
    uint8_t bytes[PROBE];
    struct q2_snapshot snapshot;
    if (!read_entry(carving, at, patch, bytes))
        return false;
    q2_snapshot_decode(geometry, bytes, at, &snapshot);
    const uint8_t *id = bytes + Q2_SNAPSHOT_FIXED_LENGTH + snapshot.extra_length;
    for (unsigned i = 0; i < snapshot.id_length; i++)
        if (id[i] < '0' || id[i] > '9')
            return false;
    return true;
}

void
q2_snapshot_flips(struct q2_carving *carving, uint64_t start, uint64_t at, uint64_t limit,
                  struct q2_snapshot_patch *ret_patch, uint64_t *ret_count)
{
    enum { BYTES = Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH };
    uint64_t count = 0, numbers = 0;
    struct q2_snapshot_patch first = {0}, number = {0};
    for (unsigned bit = 0; bit < BYTES * 8 && limit * BYTES * 8 < MAX_PARSED; bit++) {
        const struct q2_snapshot_patch patch = {.at = at + bit / 8,
                                                .mask = (uint8_t)(1U << bit % 8)};
        struct q2_snapshot_run run;
        q2_snapshot_run(carving, start, limit, &patch, &run);
        if (run.count < limit)
            continue;
        first = count++ ? first : patch;
        if (!has_number(carving, at, &patch))
            continue;
        number = numbers++ ? number : patch;
    }
    *ret_patch = numbers ? number : first;
    *ret_count = numbers ? numbers : count;
}

void
q2_snapshot_search(struct q2_carving *carving, uint64_t limit, struct q2_snapshot_run *ret_run,
                   uint64_t *ret_count)
{
    struct q2_survey *survey = carving->slots->survey;
    unsigned bits = carving->slots->scene->check->geometry.cluster_bits;
    struct q2_snapshot_run best = {0};
    uint64_t count = 0, parsed = 0;
    for (uint64_t cluster = 1; cluster < survey->clusters && parsed < MAX_PARSED; cluster++) {
        struct q2_snapshot_run run;
        if (!q2_survey_lost(survey, cluster))
            continue;
        q2_snapshot_run(carving, cluster << bits, limit, NULL, &run);
        parsed += run.count;
        if (run.lost == 0 || run.count < best.count)
            continue;
        count = run.count > best.count ? 1 : count + 1;
        best = run.count > best.count ? run : best;
    }
    *ret_run = best;
    *ret_count = count;
}
