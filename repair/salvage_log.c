/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The map file: a JSON object on each line, first one for each map, then one for each range. It is
 * written as the salvage goes, so that it may be longer than memory. */

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/io/posix.h"
#include "repair/salvage_parts.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER = 64 << 10, LONGEST_LINE = 4 << 20 };

static const char *const state_ids[] = {"certain", "likely", "guess", "lost"};

const char *
q2_salvage_state_id(enum q2_salvage_state state)
{
    return (unsigned)state < Q2_SALVAGE_STATE_COUNT ? state_ids[state] : "unknown";
}

/* ---- writing ---- */

int
q2_salvage_log_open(struct salvage_log *log, const char *path, bool resume, uint64_t length,
                    struct q2_error *err)
{
    *log = (struct salvage_log){.length = resume ? length : 0, .buffer = malloc(BUFFER)};
    if (!log->buffer)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a map file");
    unsigned flags = Q2_OPEN_WRITE | (access(path, F_OK) == 0 ? 0 : Q2_OPEN_CREATE);
    int rc = q2_file_open(path, flags, &log->file, err);
    uint64_t size = 0;
    if (rc == 0)
        rc = q2_file_size(log->file, &size, err);
    if (rc == 0 && size < log->length)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: the map file has %" PRIu64 " bytes instead of %" PRIu64
                            ", so the salvage cannot go on",
                            path, size, log->length);
    return rc < 0 ? rc : q2_file_truncate(log->file, log->length, err);
}

void
q2_salvage_log_close(struct salvage_log *log)
{
    q2_file_close(log->file);
    free(log->buffer);
    *log = (struct salvage_log){0};
}

static int
drain(struct salvage_log *log, struct q2_error *err)
{
    int rc = log->used ? q2_file_write(log->file, log->length, log->buffer, log->used, err) : 0;
    if (rc < 0)
        return rc;
    log->length += log->used;
    log->used = 0;
    return 0;
}

static int
add_bytes(struct salvage_log *log, const char *bytes, size_t length, struct q2_error *err)
{
    while (length > 0) {
        size_t now = (size_t)q2_min(length, BUFFER - log->used);
        memcpy(log->buffer + log->used, bytes, now);
        log->used += now;
        bytes += now;
        length -= now;
        int rc = log->used == BUFFER ? drain(log, err) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Takes over `object`. */
static int
add_line(struct salvage_log *log, json_object *object, struct q2_error *err)
{
    size_t length;
    const char *text = json_object_to_json_string_length(object, JSON_C_TO_STRING_PLAIN, &length);
    int rc = text ? add_bytes(log, text, length, err)
                  : q2_error_set(err, Q2_ERR_NOMEM, "no memory for a line of the map file");
    if (rc == 0)
        rc = add_bytes(log, "\n", 1, err);
    json_object_put(object);
    return rc;
}

static void
put_number(json_object *object, const char *key, uint64_t value)
{
    json_object_object_add(object, key, json_object_new_uint64(value));
}

static void
put_text(json_object *object, const char *key, const char *text)
{
    if (text)
        json_object_object_add(object, key, json_object_new_string(text));
}

int
q2_salvage_log_map(struct salvage_log *log, const struct q2_salvage_map *map, struct q2_error *err)
{
    json_object *object = json_object_new_object();
    if (!object)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a line of the map file");
    put_number(object, "map", map->map);
    put_text(object, "snapshot-id", map->snapshot_id);
    put_text(object, "snapshot-name", map->snapshot_name);
    put_text(object, "output", map->output);
    put_number(object, "disk-size", map->disk_size);
    put_number(object, "vm-state-size", map->vm_state_size);
    return add_line(log, object, err);
}

static int
write_last(struct salvage_log *log, struct q2_error *err)
{
    const struct q2_salvage_range *range = &log->last;
    if (range->length == 0)
        return 0;
    json_object *object = json_object_new_object();
    if (!object)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a line of the map file");
    put_number(object, "map", range->map);
    put_number(object, "offset", range->offset);
    put_number(object, "length", range->length);
    if (range->vm_state)
        json_object_object_add(object, "vm-state", json_object_new_boolean(true));
    put_text(object, "state", state_ids[range->state]);
    if (*log->why)
        put_text(object, "why", log->why);
    log->last.length = 0;
    return add_line(log, object, err);
}

int
q2_salvage_log_range(struct salvage_log *log, const struct q2_salvage_range *range,
                     struct q2_error *err)
{
    struct q2_salvage_range *last = &log->last;
    char why[sizeof log->why];
    snprintf(why, sizeof why, "%s", range->why ? range->why : "");
    log->bytes[range->state] += range->length;
    if (last->length && last->map == range->map && last->vm_state == range->vm_state &&
        last->state == range->state && last->offset + last->length == range->offset &&
        strcmp(log->why, why) == 0) {
        last->length += range->length;
        return 0;
    }
    int rc = write_last(log, err);
    if (rc < 0)
        return rc;
    *last = *range;
    last->why = log->why;
    memcpy(log->why, why, sizeof why);
    return 0;
}

int
q2_salvage_log_flush(struct salvage_log *log, struct q2_error *err)
{
    int rc = drain(log, err);
    return rc < 0 ? rc : q2_file_flush(log->file, err);
}

int
q2_salvage_log_finish(struct salvage_log *log, struct q2_error *err)
{
    int rc = write_last(log, err);
    return rc < 0 ? rc : q2_salvage_log_flush(log, err);
}

/* ---- reading ---- */

struct visitors {
    void (*map)(void *data, const struct q2_salvage_map *map);
    void (*range)(void *data, const struct q2_salvage_range *range);
    void *data;
};

static bool
get_number(json_object *object, const char *key, uint64_t *ret_value)
{
    json_object *value;
    if (!json_object_object_get_ex(object, key, &value) ||
        !json_object_is_type(value, json_type_int))
        return false;
    *ret_value = json_object_get_uint64(value);
    return true;
}

static const char *
get_text(json_object *object, const char *key)
{
    json_object *value;
    return json_object_object_get_ex(object, key, &value) ? json_object_get_string(value) : NULL;
}

static bool
visit(json_object *object, const struct visitors *visitors)
{
    uint64_t map;
    struct q2_salvage_map about = {0};
    struct q2_salvage_range range = {.why = get_text(object, "why")};
    if (!json_object_is_type(object, json_type_object) || !get_number(object, "map", &map) ||
        map > UINT32_MAX)
        return false;
    if (get_number(object, "disk-size", &about.disk_size)) {
        about.map = (uint32_t)map;
        about.output = get_text(object, "output");
        about.snapshot_id = get_text(object, "snapshot-id");
        about.snapshot_name = get_text(object, "snapshot-name");
        if (!get_number(object, "vm-state-size", &about.vm_state_size))
            return false;
        if (visitors->map)
            visitors->map(visitors->data, &about);
        return true;
    }
    const char *state = get_text(object, "state");
    json_object *vm_state;
    range.map = (uint32_t)map;
    range.why = range.why ? range.why : "";
    range.vm_state = json_object_object_get_ex(object, "vm-state", &vm_state);
    while (state && range.state < Q2_SALVAGE_STATE_COUNT &&
           strcmp(state_ids[range.state], state) != 0)
        range.state++;
    if (!state || range.state == Q2_SALVAGE_STATE_COUNT ||
        !get_number(object, "offset", &range.offset) ||
        !get_number(object, "length", &range.length))
        return false;
    if (visitors->range)
        visitors->range(visitors->data, &range);
    return true;
}

static int
read_lines(FILE *stream, const char *path, const struct visitors *visitors, struct q2_error *err)
{
    Q2_AUTOFREE char *line = NULL;
    size_t room = 0;
    ssize_t length;
    for (unsigned long long number = 1; (length = getline(&line, &room, stream)) > 0; number++) {
        json_object *object = length < LONGEST_LINE ? json_tokener_parse(line) : NULL;
        bool good = object && visit(object, visitors);
        json_object_put(object);
        if (!good)
            return q2_error_set(err, Q2_ERR_FORMAT, "%s: line %llu is none of a map", path, number);
    }
    return ferror(stream) ? q2_error_set(err, Q2_ERR_IO, "%s: cannot be read", path) : 0;
}

int
q2_salvage_read_map(const char *path, void (*map)(void *data, const struct q2_salvage_map *map),
                    void (*range)(void *data, const struct q2_salvage_range *range), void *data,
                    struct q2_error *err)
{
    const struct visitors visitors = {map, range, data};
    FILE *stream = fopen(path, "re");
    if (!stream)
        return q2_error_set(err, Q2_ERR_OPEN, "%s: cannot be opened", path);
    int rc = read_lines(stream, path, &visitors, err);
    fclose(stream);
    return rc;
}
