/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The image that is salvaged: mended in memory as far as guesses go, and its maps. Where no repair
 * can be planned, the image is taken as it is. */

#include "repair/salvage_parts.h"

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/codec/cipher.h"

#include <stdlib.h>
#include <string.h>

/* A snapshot costs flushes, and the whole snapshot table being written anew: 65536, which a header
 * of a few bytes can claim, would take hours. */
enum { MAX_SNAPSHOTS = 4096 };

/* ---- the repair ---- */

static void
progress(void *data, const struct q2_progress *progress)
{
    const struct q2_salvage_options *options = data;
    options->progress(options->progress_data,
                      &(struct q2_salvage_progress){.phase = "check",
                                                    .done = progress->done,
                                                    .total = progress->total});
}

static int
check_only(struct salvage_source *source, const struct q2_salvage_options *options,
           struct q2_error *err)
{
    const struct q2_check_options check = {
        .max_memory = options->max_memory,
        .threads = options->threads,
        .now = options->now,
        .progress = options->progress ? progress : NULL,
        .progress_data = (void *)(uintptr_t)options,
    };
    int rc = q2_check_run(source->image, &check, &source->own_check, err);
    source->check = source->own_check;
    source->file = source->image;
    return rc;
}

static int
plan(struct salvage_source *source, const struct q2_salvage_options *options, struct q2_error *err)
{
    const struct q2_repair_options repair = {
        .level = Q2_LEVEL_GUESS,
        .max_memory = options->max_memory,
        .threads = options->threads,
        .now = options->now,
        .progress = options->progress ? progress : NULL,
        .progress_data = (void *)(uintptr_t)options,
    };
    int rc = q2_repair_plan(source->image, &repair, &source->repair, err);
    if (rc == Q2_ERR_NOT_QCOW2)
        return rc;
    source->check = rc == 0 ? q2_repair_after(source->repair) : NULL;
    if (!source->check)
        return check_only(source, options, err);
    source->file =
        q2_repair_needed(source->repair) ? q2_repair_file(source->repair) : source->image;
    return 0;
}

/* ---- maps ---- */

static char *
copy_bytes(const uint8_t *bytes, size_t length)
{
    char *text = malloc(length + 1);
    if (!text)
        return NULL;
    memcpy(text, bytes, length);
    text[length] = '\0';
    return text;
}

/* Id and name as they are; where they cannot be read, as the check has them. */
static int
read_names(struct salvage_source *source, uint32_t index, struct salvage_map *map,
           struct q2_error *err)
{
    const struct q2_snapshot *fixed = &map->fixed;
    const struct q2_snapshot_name *name = q2_check_snapshot(source->check, index);
    uint64_t at = fixed->at + Q2_SNAPSHOT_FIXED_LENGTH + fixed->extra_length;
    size_t length = (size_t)fixed->id_length + fixed->name_length;
    uint8_t *bytes = malloc(length + 1);
    if (bytes && q2_file_read_padded(source->file, at, bytes, length, NULL) == 0) {
        map->id = copy_bytes(bytes, fixed->id_length);
        map->name = copy_bytes(bytes + fixed->id_length, fixed->name_length);
    } else if (bytes) {
        map->id = strdup(name ? name->id : "");
        map->name = strdup(name ? name->name : "");
    }
    free(bytes);
    return map->id && map->name ? 0 : q2_error_set(err, Q2_ERR_NOMEM, "no memory for a snapshot");
}

static int
read_snapshot(struct salvage_source *source, uint32_t index, struct salvage_map *map,
              struct q2_error *err)
{
    enum { ICOUNT_AT = Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH };
    uint8_t bytes[ICOUNT_AT + 8] = {0};
    uint64_t at = map->table->entry_at;
    /* Zeros, where it cannot be read any more: then it has no disk size, nor a name. */
    (void)q2_file_read_padded(source->file, at, bytes, sizeof bytes, NULL);
    q2_snapshot_decode(&source->geometry, bytes, at, &map->fixed);
    map->icount = q2_load_be64(bytes + ICOUNT_AT);
    map->has_icount = map->fixed.extra_length >= ICOUNT_AT + 8 - Q2_SNAPSHOT_FIXED_LENGTH &&
                      map->icount != UINT64_MAX;
    map->disk_size = map->fixed.disk_size;
    map->vm_state_size = map->fixed.vm_state_size;
    return read_names(source, index, map, err);
}

/* Sizes within what tables can map, so that a damaged one cannot make an output without end. */
static void
bound_sizes(const struct salvage_source *source, struct salvage_map *map)
{
    const struct q2_geometry *geometry = &source->geometry;
    uint64_t reach = q2_l2_reach(geometry), most = reach * (Q2_MAX_L1_BYTES / 8);
    uint64_t mapped = q2_min(map->table->l1_size, Q2_MAX_L1_BYTES / 8) * reach;
    if (map->id && map->disk_size > q2_max(mapped, geometry->disk_size))
        map->disk_size = q2_max(mapped, q2_min(geometry->disk_size, most));
    map->disk_size = q2_min(map->disk_size, most);
    map->vm_start = q2_l1_entries_for(geometry, map->disk_size) * reach;
    map->vm_state_size =
        q2_min(map->vm_state_size, mapped > map->vm_start ? mapped - map->vm_start : 0);
}

static int
read_maps(struct salvage_source *source, const struct q2_salvage_options *options,
          struct q2_error *err)
{
    const struct q2_check *check = source->check;
    uint32_t most = options->max_snapshots ? options->max_snapshots : MAX_SNAPSHOTS;
    source->maps = calloc(check->map_count, sizeof *source->maps);
    if (!source->maps)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the maps of an image");
    source->map_count = (uint32_t)check->map_count;
    for (uint32_t i = 0; i < source->map_count; i++) {
        struct salvage_map *map = &source->maps[i];
        map->table = &check->maps[i];
        map->disk_size = source->geometry.disk_size;
        int rc = i > 0 ? read_snapshot(source, i - 1, map, err) : 0;
        if (rc < 0)
            return rc;
        if (map->table->l1_size == 0 && map->disk_size + map->vm_state_size > 0)
            map->lost = "its L1 table has not been found";
        else if (i > most)
            map->lost = "there are more snapshots than are copied";
        bound_sizes(source, map);
    }
    return 0;
}

int
q2_salvage_source_open(struct salvage_source *source, struct q2_file *image,
                       const struct q2_salvage_options *options, struct q2_error *err)
{
    *source = (struct salvage_source){.image = image};
    int rc = plan(source, options, err);
    if (rc < 0)
        return rc;
    if (!q2_check_geometry(source->check, &source->geometry) || source->check->map_count == 0)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: neither its header nor anything else in it says how large its "
                            "clusters are, so nothing can be told from it",
                            image->name);
    source->orphans = q2_check_problem_count(source->check, Q2_PROBLEM_ORPHAN_L2_TABLE).count > 0 ||
                      q2_check_problem_count(source->check, Q2_PROBLEM_ORPHAN_L1_TABLE).count > 0;
    rc = read_maps(source, options, err);
    return rc < 0 ? rc : q2_salvage_open_others(source, options, err);
}

void
q2_salvage_source_close(struct salvage_source *source)
{
    for (uint32_t i = 0; i < source->map_count; i++) {
        free(source->maps[i].id);
        free(source->maps[i].name);
    }
    free(source->maps);
    free(source->backing_name);
    free(source->backing_format);
    free(source->backing_path);
    q2_disk_close(source->backing, NULL);
    q2_cipher_free(source->cipher);
    q2_file_close(source->opened);
    q2_check_free(source->own_check);
    q2_repair_free(source->repair);
}
