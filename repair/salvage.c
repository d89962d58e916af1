/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The front of a salvage: whether to begin or to go on, and what is there in the end. */

#include "repair/salvage.h"

#include "core/base/cleanup.h"
#include "core/base/endian.h"
#include "repair/salvage_parts.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PROBE_BYTES = 64 << 10 };

/* ---- telling one salvage from another ---- */

static void
add_number(EVP_MD_CTX *context, uint64_t value)
{
    uint8_t bytes[8];
    q2_store_be64(bytes, value);
    EVP_DigestUpdate(context, bytes, sizeof bytes);
}

static void
add_text(EVP_MD_CTX *context, const char *text)
{
    EVP_DigestUpdate(context, text ? text : "", text ? strlen(text) + 1 : 1);
}

/* The image by its size, its beginning, when it was written and what the repair does; what is
 * made of it. */
static int
identify(struct salvage *salvage, struct q2_error *err)
{
    static const char digits[] = "0123456789abcdef";
    const struct salvage_source *source = &salvage->source;
    uint8_t digest[EVP_MAX_MD_SIZE];
    char plan[65] = "";
    struct stat st;
    Q2_AUTOFREE uint8_t *bytes = calloc(1, PROBE_BYTES);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (!bytes || !context || !EVP_DigestInit_ex(context, EVP_sha256(), NULL)) {
        EVP_MD_CTX_free(context);
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a digest");
    }
    /* Zeros, if it cannot be read. */
    (void)q2_file_read_padded(source->file, 0, bytes, PROBE_BYTES, NULL);
    EVP_DigestUpdate(context, bytes, PROBE_BYTES);
    add_number(context, source->geometry.file_size);
    if (source->repair && q2_repair_digest(source->repair, plan, NULL) == 0)
        add_text(context, plan);
    if (stat(source->image->name, &st) == 0) {
        add_number(context, (uint64_t)st.st_mtim.tv_sec);
        add_number(context, (uint64_t)st.st_mtim.tv_nsec);
    }
    add_number(context, salvage->is_image);
    add_number(context, salvage->options->keep_backing);
    add_number(context, source->backing != NULL);
    add_text(context, salvage->options->backing_file);
    add_text(context, salvage->options->data_file);
    bool done = EVP_DigestFinal_ex(context, digest, NULL);
    EVP_MD_CTX_free(context);
    for (size_t i = 0; i < 32; i++) {
        salvage->identity[2 * i] = digits[digest[i] >> 4];
        salvage->identity[2 * i + 1] = digits[digest[i] & 15];
    }
    return done ? 0 : q2_error_set(err, Q2_ERR_NOMEM, "no memory for a digest");
}

/* ---- beginning or going on ---- */

static int
refuse_itself(const struct salvage *salvage, const char *path, struct q2_error *err)
{
    const struct salvage_source *source = &salvage->source;
    const char *others[] = {source->image->name, source->opened ? source->opened->name : NULL,
                            source->backing_path};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (others[i] && q2_salvage_same_file(path, others[i]))
            return q2_error_set(err, Q2_ERR_OPEN, "%s: belongs to the image that is salvaged",
                                path);
    return 0;
}

static int
check_output(const struct salvage *salvage, const char *path, bool may_exist, struct q2_error *err)
{
    int rc = refuse_itself(salvage, path, err);
    if (rc == 0 && q2_salvage_same_file(path, salvage->map_path))
        rc = q2_error_set(err, Q2_ERR_OPEN, "%s: cannot be the new image and its map", path);
    if (rc == 0 && !may_exist && access(path, F_OK) == 0)
        return q2_error_set(err, Q2_ERR_EXISTS, "%s: exists already", path);
    return rc;
}

static int
check_outputs(const struct salvage *salvage, bool may_exist, struct q2_error *err)
{
    int rc = refuse_itself(salvage, salvage->map_path, err);
    for (uint32_t i = 0; rc == 0 && i < salvage->source.map_count; i++) {
        Q2_AUTOFREE char *disk = q2_salvage_output_name(salvage, i, false);
        Q2_AUTOFREE char *vm_state = q2_salvage_output_name(salvage, i, true);
        if (!disk || !vm_state)
            return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a file name");
        rc = check_output(salvage, disk, may_exist, err);
        if (rc == 0)
            rc = check_output(salvage, vm_state, may_exist, err);
        if (salvage->is_image)
            break;
    }
    return rc;
}

static int
decide(struct salvage *salvage, struct q2_error *err)
{
    const struct q2_salvage_options *options = salvage->options;
    bool found = false;
    int rc = 0;
    if (!options->restart)
        rc = q2_salvage_place_load(salvage->place_path, &salvage->from, &found, err);
    if (rc < 0)
        return rc;
    if (found && strcmp(salvage->from.identity, salvage->identity) != 0)
        return q2_error_set(err, Q2_ERR_EXISTS,
                            "%s: is of an interrupted salvage of another image, of this one before "
                            "it changed, or with other options",
                            salvage->place_path);
    salvage->resumed = found && access(salvage->out, F_OK) == 0;
    if (!salvage->resumed)
        salvage->from = (struct salvage_place){0};
    atomic_store(&salvage->source.any_bad, salvage->from.any_bad);
    return check_outputs(salvage, found || options->overwrite || options->restart, err);
}

/* ---- the map file ---- */

static int
log_maps(struct salvage *salvage, struct q2_error *err)
{
    struct salvage_source *source = &salvage->source;
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < source->map_count; i++) {
        const struct q2_snapshot_name *name = i ? q2_check_snapshot(source->check, i - 1) : NULL;
        Q2_AUTOFREE char *output = q2_salvage_output_name(salvage, i, false);
        rc = q2_salvage_log_map(&salvage->log,
                                &(struct q2_salvage_map){
                                    .map = i,
                                    .output = i && source->maps[i].lost ? NULL : output,
                                    .snapshot_id = name ? name->id : NULL,
                                    .snapshot_name = name ? name->name : NULL,
                                    .disk_size = source->maps[i].disk_size,
                                    .vm_state_size = source->maps[i].vm_state_size,
                                },
                                err);
    }
    return rc;
}

static int
open_log(struct salvage *salvage, struct q2_error *err)
{
    const struct salvage_place *from = &salvage->from;
    bool begun = from->step > 0 || from->offset > 0;
    int rc = q2_salvage_log_open(&salvage->log, salvage->map_path, begun, from->log_length, err);
    if (rc < 0 || !begun)
        return rc < 0 ? rc : log_maps(salvage, err);
    memcpy(salvage->log.bytes, from->bytes, sizeof from->bytes);
    memcpy(salvage->log.why, from->why, sizeof from->why);
    salvage->log.last = from->last;
    salvage->log.last.why = salvage->log.why;
    return 0;
}

int
q2_salvage_reached(struct salvage *salvage, uint64_t offset, struct q2_error *err)
{
    const struct salvage_log *log = &salvage->log;
    bool open = salvage->target.file || salvage->target.image;
    int rc = open ? q2_salvage_target_flush(&salvage->target, err) : 0;
    if (rc == 0)
        rc = q2_salvage_log_flush(&salvage->log, err);
    if (rc < 0)
        return rc;
    struct salvage_place place = {
        .step = salvage->step,
        .offset = offset,
        .any_bad = atomic_load(&salvage->source.any_bad),
        .log_length = log->length,
        .last = log->last,
    };
    memcpy(place.identity, salvage->identity, sizeof place.identity);
    memcpy(place.bytes, log->bytes, sizeof place.bytes);
    memcpy(place.why, log->why, sizeof place.why);
    return q2_salvage_place_save(salvage->place_path, &place, err);
}

/* ---- the whole ---- */

static int
prepare(struct salvage *salvage, struct q2_file *file, struct q2_error *err)
{
    const char *map_file = salvage->options->map_file;
    if (map_file)
        salvage->map_path = strdup(map_file);
    else if (asprintf(&salvage->map_path, "%s.map.json", salvage->out) < 0)
        salvage->map_path = NULL;
    if (asprintf(&salvage->place_path, "%s.qcow2kit-salvage", salvage->out) < 0)
        salvage->place_path = NULL;
    if (!salvage->map_path || !salvage->place_path)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a file name");
    int rc = q2_salvage_source_open(&salvage->source, file, salvage->options, err);
    if (rc == 0)
        rc = identify(salvage, err);
    if (rc == 0)
        rc = decide(salvage, err);
    if (rc == 0)
        rc = q2_salvage_trust_init(&salvage->trust, &salvage->source, err);
    for (uint32_t i = 0; i < salvage->source.map_count; i++)
        salvage->total += salvage->source.maps[i].disk_size + salvage->source.maps[i].vm_state_size;
    return rc;
}

static int
run(struct salvage *salvage, struct q2_error *err)
{
    int rc = open_log(salvage, err);
    /* From here on, what is interrupted can be continued. */
    if (rc == 0 && !salvage->from.step && !salvage->from.offset)
        rc = q2_salvage_reached(salvage, 0, err);
    if (rc == 0)
        rc = q2_salvage_steps(salvage, err);
    if (rc == 0)
        rc = q2_salvage_log_finish(&salvage->log, err);
    bool began = salvage->from.step || salvage->from.offset || access(salvage->out, F_OK) == 0;
    if (rc == 0 || !began)
        unlink(salvage->place_path);
    if (rc < 0 && !began)
        unlink(salvage->map_path);
    return rc;
}

static void
tell(const struct salvage *salvage, struct q2_salvage_result *ret_result)
{
    const struct salvage_source *source = &salvage->source;
    struct q2_salvage_result result = {
        .resumed = salvage->resumed,
        .backing_missing = source->backing_missing,
    };
    for (uint32_t i = 0; i < source->map_count; i++) {
        result.maps += i == 0 || !source->maps[i].lost;
        result.maps_lost += i > 0 && source->maps[i].lost;
    }
    memcpy(result.bytes, salvage->log.bytes, sizeof result.bytes);
    *ret_result = result;
}

int
q2_salvage_run(struct q2_file *file, const char *out, const struct q2_salvage_options *options,
               struct q2_salvage_result *ret_result, struct q2_error *err)
{
    struct salvage *salvage = calloc(1, sizeof *salvage);
    if (!salvage)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a salvage");
    salvage->options = options;
    salvage->out = out;
    salvage->is_image = options->format == Q2_DISK_QCOW2;
    int rc = prepare(salvage, file, err);
    if (rc == 0)
        rc = run(salvage, err);
    if (rc == 0)
        tell(salvage, ret_result);
    q2_salvage_target_close(&salvage->target, NULL);
    q2_salvage_log_close(&salvage->log);
    q2_salvage_trust_destroy(&salvage->trust);
    q2_salvage_source_close(&salvage->source);
    free(salvage->map_path);
    free(salvage->place_path);
    free(salvage);
    return rc;
}
