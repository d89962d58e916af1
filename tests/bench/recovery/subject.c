/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The places of structures are the checker's, which has to find the image clean; the rest follows
 * from walking the tables. */

#include "tests/bench/recovery/subject.h"

#include "checker/scan.h"
#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/base/endian.h"
#include "core/format/entry.h"
#include "core/image/snapshots.h"
#include "core/io/posix.h"
#include "tests/bench/recovery/images.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PLACES = 4096 };

static bool
load_file(const char *path, uint8_t **ret_bytes, uint64_t *ret_length)
{
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    struct q2_error err = {0};
    uint8_t *bytes = NULL;
    if (q2_file_open(path, 0, &file, &err) == 0 && q2_file_size(file, ret_length, &err) == 0 &&
        (bytes = malloc(*ret_length + 1)) && q2_file_read(file, 0, bytes, *ret_length, &err) == 0) {
        *ret_bytes = bytes;
        return true;
    }
    fprintf(stderr, "bench-recovery: %s: %s\n", path, err.message);
    free(bytes);
    return false;
}

/* ---- structures ---- */

static void
add_place(struct subject *subject, const struct place *place)
{
    for (unsigned i = 0; i < subject->place_count; i++)
        if (subject->places[i].offset == place->offset)
            return;
    if (subject->place_count < MOST_PLACES)
        subject->places[subject->place_count++] = *place;
}

static const uint8_t *
inside(const struct subject *subject, uint64_t offset, uint64_t length)
{
    return q2_range_inside(offset, length, subject->length) ? subject->bytes + offset : NULL;
}

static void
walk_l2(struct subject *subject, unsigned map, uint64_t l1_index, uint64_t table)
{
    const struct q2_geometry *geometry = &subject->geometry;
    const uint8_t *bytes = inside(subject, table, geometry->cluster_size);
    for (uint64_t i = 0; bytes && i < geometry->l2_entries; i++) {
        uint64_t raw = q2_l2_load(geometry, bytes, i).raw;
        uint64_t guest = l1_index * geometry->l2_entries + i;
        if (guest >= subject->truth[map].clusters || q2_entry_offset(raw) == 0)
            continue;
        uint64_t at = table + i * geometry->l2_entry_size;
        subject->entry_at[map][guest] = at;
        subject->has_compressed |= (raw & Q2_ENTRY_COMPRESSED) != 0;
        bool known = false;
        for (unsigned other = 0; other < map && !known; other++)
            known = guest < subject->truth[other].clusters && subject->entry_at[other][guest] == at;
        if (!known)
            subject->slots[subject->slot_count++] =
                (struct slot){.map = map, .guest = guest, .at = at, .raw = raw};
    }
}

static bool
walk_l1(struct subject *subject, unsigned map, uint64_t l1, uint32_t entries)
{
    uint64_t clusters = subject->truth[map].clusters;
    subject->entry_at[map] = calloc(clusters + 1, sizeof **subject->entry_at);
    const uint8_t *bytes = inside(subject, l1, (uint64_t)entries * 8);
    if (!bytes || !subject->entry_at[map])
        return false;
    for (uint32_t i = 0; i < entries; i++) {
        uint64_t table = q2_entry_offset(q2_load_be64(bytes + (size_t)i * 8));
        if (!table)
            continue;
        add_place(subject, &(struct place){.kind = Q2_OWNER_L2_TABLE,
                                           .offset = table,
                                           .length = subject->geometry.cluster_size,
                                           .map = map,
                                           .index = i});
        walk_l2(subject, map, i, table);
    }
    return true;
}

static void
walk_refcounts(struct subject *subject)
{
    uint64_t entries = (uint64_t)subject->header.refcount_table_clusters
                       << (subject->geometry.cluster_bits - 3);
    const uint8_t *table = inside(subject, subject->header.refcount_table_offset, entries * 8);
    for (uint64_t i = 0; table && i < entries; i++) {
        uint64_t block = q2_load_be64(table + i * 8);
        if (block)
            add_place(subject, &(struct place){.kind = Q2_OWNER_REFCOUNT_BLOCK,
                                               .offset = block,
                                               .length = subject->geometry.cluster_size,
                                               .index = i});
    }
}

static bool
walk(struct subject *subject, const struct q2_check *check)
{
    uint64_t most = 0;
    for (uint64_t i = 0; i < check->region_count; i++) {
        const struct q2_region *region = &check->regions[i];
        struct place place = {.kind = region->owner.kind,
                              .offset = region->offset,
                              .length = region->length,
                              .index = region->owner.index};
        for (uint64_t map = 0; map < check->map_count; map++)
            if (region->owner.kind == Q2_OWNER_L1_TABLE &&
                check->maps[map].l1_offset == region->offset)
                place.map = (unsigned)map;
        subject->has_luks |= place.kind == Q2_OWNER_LUKS_HEADER;
        if (place.length)
            add_place(subject, &place);
    }
    subject->has_bitmaps = check->extensions.has_bitmaps;
    for (unsigned map = 0; map < subject->maps; map++)
        most += subject->truth[map].clusters;
    subject->slots = calloc(most + 1, sizeof *subject->slots);
    for (unsigned map = 0; map < subject->maps; map++)
        if (!subject->slots ||
            !walk_l1(subject, map, check->maps[map].l1_offset, check->maps[map].l1_size))
            return false;
    walk_refcounts(subject);
    return true;
}

/* ---- content ---- */

static int
compare_hashes(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* Whether all reads as something, and no cluster of its own twice. */
static bool
unique(const struct subject *subject, unsigned map)
{
    const struct content *truth = &subject->truth[map];
    uint64_t count = 0;
    Q2_AUTOFREE uint64_t *sorted = calloc(truth->clusters + 1, sizeof *sorted);
    for (uint64_t i = 0; sorted && i < truth->clusters; i++) {
        if (truth->hash[i] == CONTENT_ERROR)
            return false;
        if (subject->entry_at[map][i] && truth->hash[i] != CONTENT_ZERO)
            sorted[count++] = truth->hash[i];
    }
    if (!sorted)
        return false;
    qsort(sorted, count, sizeof *sorted, compare_hashes);
    for (uint64_t i = 1; i < count; i++)
        if (sorted[i] == sorted[i - 1])
            return false;
    return count > 0;
}

static bool
read_truth(struct subject *subject, const struct q2_check *check, struct q2_file *file)
{
    uint32_t found[MAX_MAPS];
    subject->maps = (unsigned)check->map_count;
    if (subject->maps > MAX_MAPS)
        return false;
    for (unsigned map = 0; map < subject->maps; map++) {
        struct content *truth = &subject->truth[map];
        truth->clusters = q2_units(check->maps[map].limit, subject->geometry.cluster_bits);
        truth->hash = calloc(truth->clusters + 1, sizeof *truth->hash);
        if (!truth->hash)
            return false;
        if (map)
            snprintf(subject->names[map], NAME_SIZE, "%s", check->snapshots[map - 1].name);
    }
    if (!walk(subject, check))
        return false;
    subject_read(subject, file, subject->truth, found);
    for (unsigned map = 0; map < subject->maps; map++)
        if (found[map] != map || !unique(subject, map))
            return false;
    return true;
}

bool
subject_load(const char *folder, const char *name, struct subject *ret_subject)
{
    struct subject *subject = ret_subject;
    char path[4096];
    struct q2_check *check = NULL;
    struct q2_check_options settings = {.threads = 1};
    struct q2_error err = {0};
    *subject = (struct subject){.name = name};
    snprintf(path, sizeof path, "%s/%s.qcow2", folder, name);
    if (!load_file(path, &subject->bytes, &subject->length))
        return false;
    if (image_has_backing(name)) {
        snprintf(subject->backing_name, NAME_SIZE, "%s.raw", name);
        snprintf(path, sizeof path, "%s/%s.raw", folder, name);
        if (!load_file(path, &subject->backing, &subject->backing_length))
            return false;
    }
    snprintf(path, sizeof path, "%s/" IMAGE_SECRET, folder);
    if (image_is_encrypted(name) && q2_secret_read(path, Q2_SECRET_RAW, &subject->secret, &err) < 0)
        return false;
    Q2_AUTOCLOSE struct q2_file *file = file_from(subject->bytes, subject->length);
    subject->places = calloc(MOST_PLACES, sizeof *subject->places);
    if (!subject->places || q2_check_run(file, &settings, &check, &err) < 0) {
        fprintf(stderr, "bench-recovery: %s: %s\n", name, err.message);
        return false;
    }
    subject->geometry = check->geometry;
    subject->header = check->header;
    bool ok = q2_check_exit(check) == Q2_EXIT_CLEAN && read_truth(subject, check, file);
    if (!ok)
        fprintf(stderr, "bench-recovery: %s.qcow2 is not what it should be\n", name);
    q2_check_free(check);
    return ok;
}

void
subject_destroy(struct subject *subject)
{
    for (unsigned map = 0; map < MAX_MAPS; map++) {
        free(subject->truth[map].hash);
        free(subject->entry_at[map]);
    }
    free(subject->bytes);
    free(subject->places);
    free(subject->slots);
    free(subject->backing);
    q2_secret_destroy(&subject->secret);
    *subject = (struct subject){0};
}
