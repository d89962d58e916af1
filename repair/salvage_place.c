/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Where a salvage is, in a small file beside the output. A new one replaces the old one as a whole,
 * so that there is always one that can be believed. */

#include "core/base/cleanup.h"
#include "repair/salvage_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VERSION = 1, LONGEST = 64 << 10 };

/* ---- writing ---- */

static void
put(json_object *object, const char *key, uint64_t value)
{
    json_object_object_add(object, key, json_object_new_uint64(value));
}

static json_object *
encode(const struct salvage_place *place)
{
    json_object *object = json_object_new_object(), *bytes = json_object_new_array();
    put(object, "qcow2kit-salvage", VERSION);
    json_object_object_add(object, "identity", json_object_new_string(place->identity));
    put(object, "step", place->step);
    put(object, "offset", place->offset);
    put(object, "any-bad", place->any_bad);
    put(object, "map-length", place->log_length);
    for (int i = 0; i < Q2_SALVAGE_STATE_COUNT; i++)
        json_object_array_add(bytes, json_object_new_uint64(place->bytes[i]));
    json_object_object_add(object, "bytes", bytes);
    put(object, "last-map", place->last.map);
    put(object, "last-offset", place->last.offset);
    put(object, "last-length", place->last.length);
    put(object, "last-vm-state", place->last.vm_state);
    put(object, "last-state", place->last.state);
    json_object_object_add(object, "last-why", json_object_new_string(place->why));
    return object;
}

static int
failed(const char *path, const char *what, struct q2_error *err)
{
    return q2_error_set_errno(err, errno == ENOSPC ? Q2_ERR_NOSPACE : Q2_ERR_IO, errno,
                              "%s: cannot %s", path, what);
}

static int
write_all(int fd, const char *path, const char *text, struct q2_error *err)
{
    for (size_t left = strlen(text); left > 0;) {
        ssize_t done = write(fd, text, left);
        if (done < 0)
            return failed(path, "write", err);
        text += done;
        left -= (size_t)done;
    }
    return fsync(fd) < 0 ? failed(path, "flush", err) : 0;
}

int
q2_salvage_place_save(const char *path, const struct salvage_place *place, struct q2_error *err)
{
    Q2_AUTOFREE char *fresh = NULL;
    json_object *object = encode(place);
    const char *text = json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY);
    int rc = 0, fd = -1;
    if (!text || asprintf(&fresh, "%s.new", path) < 0) {
        fresh = NULL;
        rc = q2_error_set(err, Q2_ERR_NOMEM, "no memory for the state of a salvage");
    }
    if (rc == 0 && (fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) < 0)
        rc = failed(fresh, "create", err);
    if (rc == 0)
        rc = write_all(fd, fresh, text, err);
    if (fd >= 0)
        close(fd);
    if (rc == 0 && rename(fresh, path) < 0)
        rc = failed(path, "replace", err);
    json_object_put(object);
    return rc;
}

/* ---- reading ---- */

static bool
get(json_object *object, const char *key, uint64_t most, uint64_t *ret_value)
{
    json_object *value;
    if (!json_object_object_get_ex(object, key, &value) ||
        !json_object_is_type(value, json_type_int))
        return false;
    *ret_value = json_object_get_uint64(value);
    return *ret_value <= most;
}

static bool
get_text(json_object *object, const char *key, char *text, size_t room)
{
    json_object *value;
    if (!json_object_object_get_ex(object, key, &value) ||
        !json_object_is_type(value, json_type_string))
        return false;
    int length = snprintf(text, room, "%s", json_object_get_string(value));
    return length >= 0 && (size_t)length < room;
}

static bool
get_bytes(json_object *object, struct salvage_place *place)
{
    json_object *bytes;
    if (!json_object_object_get_ex(object, "bytes", &bytes) ||
        !json_object_is_type(bytes, json_type_array) ||
        json_object_array_length(bytes) != Q2_SALVAGE_STATE_COUNT)
        return false;
    for (size_t i = 0; i < Q2_SALVAGE_STATE_COUNT; i++)
        place->bytes[i] = json_object_get_uint64(json_object_array_get_idx(bytes, i));
    return true;
}

static bool
decode(json_object *object, struct salvage_place *place)
{
    uint64_t version, any_bad, map, vm_state, state;
    struct q2_salvage_range *last = &place->last;
    if (!json_object_is_type(object, json_type_object) ||
        !get(object, "qcow2kit-salvage", VERSION, &version) || version != VERSION ||
        !get_text(object, "identity", place->identity, sizeof place->identity) ||
        !get(object, "step", UINT64_MAX, &place->step) ||
        !get(object, "offset", UINT64_MAX, &place->offset) ||
        !get(object, "any-bad", 1, &any_bad) ||
        !get(object, "map-length", UINT64_MAX, &place->log_length) || !get_bytes(object, place) ||
        !get(object, "last-map", UINT32_MAX, &map) ||
        !get(object, "last-offset", UINT64_MAX, &last->offset) ||
        !get(object, "last-length", UINT64_MAX, &last->length) ||
        !get(object, "last-vm-state", 1, &vm_state) ||
        !get(object, "last-state", Q2_SALVAGE_LOST, &state) ||
        !get_text(object, "last-why", place->why, sizeof place->why))
        return false;
    place->any_bad = any_bad;
    last->map = (uint32_t)map;
    last->vm_state = vm_state;
    last->state = (enum q2_salvage_state)state;
    return true;
}

int
q2_salvage_place_load(const char *path, struct salvage_place *ret_place, bool *ret_found,
                      struct q2_error *err)
{
    Q2_AUTOFREE char *text = calloc(1, LONGEST);
    struct salvage_place place = {.step = 0};
    if (!text)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the state of a salvage");
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) {
        *ret_found = false;
        return 0;
    }
    ssize_t length = fd < 0 ? -1 : read(fd, text, LONGEST - 1);
    if (fd >= 0)
        close(fd);
    if (length < 0)
        return q2_error_set_errno(err, Q2_ERR_OPEN, errno, "%s: cannot be read", path);
    json_object *object = json_tokener_parse(text);
    bool good = object && decode(object, &place);
    json_object_put(object);
    if (!good)
        return q2_error_set(err, Q2_ERR_FORMAT, "%s: is no state of an interrupted salvage", path);
    *ret_place = place;
    *ret_found = true;
    return 0;
}
