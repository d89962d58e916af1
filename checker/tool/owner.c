/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Owners are written as they are found: a cluster that a hostile image refers to a million times
 * takes lines, not memory. */

#include "checker/tool/owner.h"

#include "checker/format.h"
#include "checker/report_parts.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>

struct visit {
    const struct q2_check *check;
    FILE *out;
    bool json;
    uint64_t owners;
};

static void
write_owner(void *data, const struct q2_owner *owner)
{
    struct visit *visit = data;
    char text[512];
    bool first = visit->owners++ == 0;
    if (visit->json) {
        struct json_object *object = q2_report_owner_object(visit->check, owner);
        fprintf(visit->out, "%s\n        %s", first ? "" : ",",
                json_object_to_json_string_ext(object, JSON_C_TO_STRING_SPACED |
                                                           JSON_C_TO_STRING_NOSLASHESCAPE));
        json_object_put(object);
        return;
    }
    fprintf(visit->out, "  %s", q2_report_owner(visit->check, owner, text, sizeof text));
    if (owner->at)
        fprintf(visit->out, ", entry at 0x%" PRIx64, owner->at);
    fputc('\n', visit->out);
}

static void
begin(const struct visit *visit, const char *name, uint64_t offset, uint64_t length)
{
    char printable[1024];
    if (!visit->json) {
        fprintf(visit->out, "%s: cluster at host %s is used by:\n",
                q2_printable(printable, sizeof printable, name, strlen(name)),
                q2_format_host(offset, length).text);
        return;
    }
    struct json_object *object = q2_report_name_object(name);
    fprintf(visit->out,
            "{\n    \"filename\": %s,\n    \"format\": \"qcow2\",\n    \"host-offset\": %" PRIu64
            ",\n    \"host-length\": %" PRIu64 ",\n    \"owners\": [",
            json_object_to_json_string_ext(object, JSON_C_TO_STRING_NOSLASHESCAPE), offset, length);
    json_object_put(object);
}

static void
finish(const struct visit *visit, uint64_t refcount)
{
    if (visit->json) {
        fprintf(visit->out, "%s],\n    \"refcount\": %" PRIu64 "\n}\n",
                visit->owners ? "\n    " : "", refcount);
        return;
    }
    if (visit->owners == 0)
        fputs("  nothing\n", visit->out);
    fprintf(visit->out, "Its refcount is %" PRIu64 "%s.\n", refcount,
            visit->owners == 0 && refcount == 0 ? ": it is free"
            : visit->owners == 0                ? ": it is leaked, or what used it has been lost"
            : refcount == 0                     ? ": the next allocation may overwrite it"
                                                : "");
}

int
owner_report(const struct options *options, const char *name, struct q2_check *check,
             struct q2_file *file, FILE *out, struct q2_error *err)
{
    struct visit visit = {.check = check, .out = out, .json = options->json};
    struct q2_geometry geometry;
    uint64_t refcount = 0;
    if (!q2_check_geometry(check, &geometry))
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "the header does not say how large clusters are, so that none has an "
                            "owner");
    if (options->owner_offset >= geometry.file_size)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "the file ends at 0x%" PRIx64 ", before the offset 0x%" PRIx64,
                            geometry.file_size, options->owner_offset);
    uint64_t offset = options->owner_offset & ~(geometry.cluster_size - 1);
    begin(&visit, name, offset, geometry.cluster_size);
    int rc = q2_check_owners(check, file, offset, write_owner, &visit, &refcount, err);
    if (rc < 0)
        return rc;
    finish(&visit, refcount);
    return 0;
}
