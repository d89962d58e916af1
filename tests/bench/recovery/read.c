/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The disk is read through the strict core: what it refuses counts as unreadable, cluster by
 * cluster. Stretches that the map says are zeros are not read. */

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/image/image.h"
#include "core/image/snapshots.h"
#include "core/io/fault.h"
#include "core/io/memory.h"
#include "tests/bench/recovery/subject.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t
content_hash(const uint8_t *bytes, uint64_t length)
{
    uint64_t hash = UINT64_C(0x9e3779b97f4a7c15), any = 0;
    for (uint64_t i = 0, word; i + 8 <= length; i += 8) {
        memcpy(&word, bytes + i, 8);
        any |= word;
        hash = (hash ^ word) * UINT64_C(0xff51afd7ed558ccd);
        hash ^= hash >> 32;
    }
    return any ? q2_max(hash, 2) : CONTENT_ZERO;
}

struct q2_file *
file_from(const uint8_t *bytes, uint64_t length)
{
    static const uint8_t zeros[4096];
    struct q2_file *file = NULL;
    bool ok = q2_file_new_memory("image", &file, NULL) == 0;
    for (uint64_t at = 0; ok && at < length; at += sizeof zeros) {
        size_t piece = (size_t)q2_min(length - at, sizeof zeros);
        if (memcmp(bytes + at, zeros, piece) != 0)
            ok = q2_file_write(file, at, bytes + at, piece, NULL) == 0;
    }
    if (!ok || q2_file_truncate(file, length, NULL) < 0)
        abort();
    return file;
}

/* The backing file is where its name says, and nowhere else; a salvage writes down where the one is
 * that it was given. */
static int
open_other(void *data, const char *name, unsigned flags, struct q2_file **ret_file,
           struct q2_error *err)
{
    const struct subject *subject = data;
    const char *plain = *name == '/' ? strrchr(name, '/') + 1 : name;
    (void)flags;
    if (!subject->backing || strcmp(plain, subject->backing_name) != 0)
        return q2_error_set(err, Q2_ERR_OPEN, "there is no such file");
    *ret_file = file_from(subject->backing, subject->backing_length);
    return 0;
}

static struct q2_image *
open_image(const struct subject *subject, struct q2_file *file)
{
    struct q2_file *borrowed = NULL;
    struct q2_image *image = NULL;
    struct q2_error err = {0};
    struct q2_image_options options = {
        .format = Q2_DISK_QCOW2,
        .secret = subject->secret.bytes ? &subject->secret : NULL,
        .open_file = open_other,
        .open_file_data = (void *)(uintptr_t)subject,
    };
    if (q2_file_new_fault(file, &(struct q2_fault_plan){.kind = Q2_FAULT_NONE}, &borrowed, &err) <
        0)
        abort();
    /* Its name is not that of a folder's file, so relative names stay as they are. */
    return q2_image_open_file(borrowed, &options, &image, &err) < 0 ? NULL : image;
}

static void
fill(struct content *content, uint64_t first, uint64_t end, uint64_t hash)
{
    for (uint64_t i = first; i < q2_min(end, content->clusters); i++)
        content->hash[i] = hash;
}

/* What follows cluster `at` and cannot be read either, without asking for each: up to the next one
 * that is of interest, or the next L2 table. */
static uint64_t
skip_errors(const struct subject *subject, unsigned map, uint64_t at)
{
    uint64_t end =
        q2_min((at | (subject->geometry.l2_entries - 1)) + 1, subject->truth[map].clusters);
    for (at++; at < end && !subject->entry_at[map][at];)
        at++;
    return at;
}

static void
read_map(const struct subject *subject, struct q2_image *image, unsigned map,
         struct content *content)
{
    uint64_t size = q2_image_size(image), cluster = subject->geometry.cluster_size;
    Q2_AUTOFREE uint8_t *buffer = malloc(cluster);
    struct q2_error err = {0};
    struct q2_extent extent;
    fill(content, 0, content->clusters, CONTENT_ERROR);
    for (uint64_t i = 0, next; buffer && i < content->clusters && i * cluster < size; i = next) {
        uint64_t offset = i * cluster, length = q2_min(cluster, size - offset);
        if (q2_image_map(image, offset, size - offset, &extent, &err) < 0) {
            next = skip_errors(subject, map, i);
            continue;
        }
        uint64_t end = offset + extent.length;
        if (extent.zero && (extent.length >= cluster || end == size)) {
            next = end == size ? q2_max(end / cluster, i + 1) : end / cluster;
            fill(content, i, next, CONTENT_ZERO);
            continue;
        }
        next = i + 1;
        if (q2_image_read(image, offset, buffer, length, &err) == 0)
            content->hash[i] = content_hash(buffer, length);
    }
}

static uint64_t
agreement(const struct content *a, const struct content *b)
{
    uint64_t same = 0;
    for (uint64_t i = 0; i < a->clusters; i++)
        same += a->hash[i] == b->hash[i] && a->hash[i] > CONTENT_ERROR;
    return same;
}

static bool
read_snapshot(const struct subject *subject, struct q2_file *file, unsigned index, unsigned map,
              struct content *content)
{
    struct q2_image *image = open_image(subject, file);
    bool loaded = image && q2_snapshot_load(image, index, NULL) == 0;
    if (loaded)
        read_map(subject, image, map, content);
    q2_image_close(image, NULL);
    return loaded;
}

/* A snapshot whose name is lost is the one that agrees most with what it should be. */
static uint32_t
find_by_content(const struct subject *subject, struct q2_file *file, unsigned count,
                const bool *taken, unsigned map, struct content *content)
{
    struct content trial = {0};
    uint64_t best = 0;
    uint32_t found = UINT32_MAX;
    if (!content_new(subject, &trial))
        return found;
    trial.clusters = content->clusters;
    for (unsigned i = 0; i < count; i++) {
        if (taken[i] || !read_snapshot(subject, file, i, map, &trial))
            continue;
        uint64_t same = agreement(&trial, &subject->truth[map]);
        if (same > best) {
            best = same;
            found = i;
            memcpy(content->hash, trial.hash, trial.clusters * sizeof *trial.hash);
        }
    }
    content_free(&trial);
    return found;
}

enum { MOST_SNAPSHOTS = 64 };

void
subject_read(const struct subject *subject, struct q2_file *file, struct content *content,
             uint32_t *ret_map)
{
    struct q2_image *image = open_image(subject, file);
    bool taken[MOST_SNAPSHOTS] = {false};
    unsigned count = 0;
    for (unsigned map = 0; map < subject->maps; map++) {
        content[map].clusters = subject->truth[map].clusters;
        fill(&content[map], 0, content[map].clusters, CONTENT_ERROR);
        ret_map[map] = UINT32_MAX;
    }
    if (!image)
        return;
    read_map(subject, image, 0, &content[0]);
    ret_map[0] = 0;
    count = (unsigned)q2_min(q2_snapshot_count(image), MOST_SNAPSHOTS);
    for (unsigned map = 1; map < subject->maps; map++) {
        for (unsigned i = 0; i < count && ret_map[map] == UINT32_MAX; i++) {
            struct q2_snapshot_info info;
            q2_snapshot_info(image, i, &info);
            if (!taken[i] && strcmp(info.name, subject->names[map]) == 0) {
                taken[i] = true;
                ret_map[map] = i + 1;
                read_snapshot(subject, file, i, map, &content[map]);
            }
        }
    }
    q2_image_close(image, NULL);
    for (unsigned map = 1; map < subject->maps; map++) {
        if (ret_map[map] != UINT32_MAX)
            continue;
        uint32_t i = find_by_content(subject, file, count, taken, map, &content[map]);
        if (i != UINT32_MAX) {
            taken[i] = true;
            ret_map[map] = i + 1;
        }
    }
}

/* Commas are doubled in options. */
static size_t
add_option(char *text, size_t size, size_t used, const char *key, const char *value)
{
    used += (size_t)snprintf(text + used, size - used, "%s=", key);
    for (; *value && used + 4 < size; value++) {
        if (*value == ',')
            text[used++] = ',';
        text[used++] = *value;
    }
    text[used] = '\0';
    return used;
}

bool
subject_snapshot(const struct subject *subject, struct q2_file *file, unsigned index, char *text,
                 size_t size)
{
    struct q2_image *image = open_image(subject, file);
    bool found = image && index < q2_snapshot_count(image);
    if (found) {
        struct q2_snapshot_info info;
        q2_snapshot_info(image, index, &info);
        size_t used = add_option(text, size / 2, 0, "snapshot.id", info.id);
        add_option(text, size, used, ",snapshot.name", info.name);
    }
    q2_image_close(image, NULL);
    return found;
}

bool
content_new(const struct subject *subject, struct content *ret_content)
{
    uint64_t most = 0;
    for (unsigned map = 0; map < subject->maps; map++)
        most = q2_max(most, subject->truth[map].clusters);
    *ret_content = (struct content){.clusters = most,
                                    .hash = calloc(most ? most : 1, sizeof *ret_content->hash)};
    return ret_content->hash != NULL;
}

void
content_free(struct content *content)
{
    free(content->hash);
    *content = (struct content){0};
}

uint64_t
random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t
random_below(uint64_t *state, uint64_t limit)
{
    return limit ? random_next(state) % limit : 0;
}
