/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The report for programs. checker/tool/JSON.md describes it.
 *
 * The members of the whole are written one at a time, and each finding is an object that lives only
 * until it is written, so that memory does not grow with the number of findings. */

#include "checker/report_parts.h"

#include <json-c/json.h>
#include <string.h>

struct writer {
    FILE *out;
    bool pretty;
    bool begun;  /* whether a member was written */
    bool failed; /* no memory */
};

const char *
q2_exit_id(enum q2_check_exit status)
{
    switch (status) {
    case Q2_EXIT_CLEAN:
        return "clean";
    case Q2_EXIT_CORRUPT:
        return "corrupt";
    case Q2_EXIT_LEAKS:
        return "leaks";
    case Q2_EXIT_NOT_SUPPORTED:
        return "not-supported";
    default:
        return "incomplete";
    }
}

/* JSON escapes control characters of ASCII itself; everything else that is odd is spelled out. */
struct json_object *
q2_report_name_object(const char *name)
{
    char printable[4096];
    bool ascii = true;
    for (const char *c = name; *c; c++)
        ascii = ascii && (unsigned char)*c < 0x7f;
    return json_object_new_string(
        ascii ? name : q2_printable(printable, sizeof printable, name, strlen(name)));
}

/* ---- objects: every function takes NULL for "no memory" and passes it on ---- */

static void
put(struct json_object **object, const char *key, struct json_object *value)
{
    if (*object && value && json_object_object_add(*object, key, value) == 0)
        return;
    json_object_put(value);
    json_object_put(*object);
    *object = NULL;
}

static void
put_number(struct json_object **object, const char *key, uint64_t value)
{
    put(object, key, json_object_new_uint64(value));
}

static void
put_text(struct json_object **object, const char *key, const char *text)
{
    put(object, key, json_object_new_string(text));
}

static void
append(struct json_object **array, struct json_object *value)
{
    if (*array && value && json_object_array_add(*array, value) == 0)
        return;
    json_object_put(value);
    json_object_put(*array);
    *array = NULL;
}

static struct json_object *
map_object(const struct q2_check *check, uint32_t member)
{
    if (member == 0)
        return json_object_new_string("active");
    const struct q2_snapshot_name *snapshot = q2_check_snapshot(check, member - 1);
    struct json_object *object = json_object_new_object();
    put_number(&object, "snapshot-index", member - 1);
    if (snapshot) {
        put_text(&object, "snapshot-id", snapshot->id);
        put_text(&object, "snapshot-name", snapshot->name);
    }
    return object;
}

/* The maps of a finding or owner. That all of 65,536 snapshots share a table is said in a few. */
static void
put_maps(struct json_object **object, const struct q2_check *check, q2_map_set maps)
{
    enum { MAX_MAPS = 100 };
    const uint32_t *members = NULL;
    if (maps == Q2_MAP_SET_NONE)
        return;
    size_t count = q2_check_maps(check, maps, &members);
    struct json_object *array = json_object_new_array();
    for (size_t i = 0; i < count && i < MAX_MAPS; i++)
        append(&array, map_object(check, members[i]));
    put(object, "maps", array);
    if (count > MAX_MAPS)
        put_number(object, "maps-unlisted", count - MAX_MAPS);
}

struct json_object *
q2_report_owner_object(const struct q2_check *check, const struct q2_owner *owner)
{
    char text[512];
    struct json_object *object = json_object_new_object();
    put_text(&object, "kind", q2_owner_kind_id(owner->kind));
    put_text(&object, "description", q2_report_owner(check, owner, text, sizeof text));
    if (owner->at)
        put_number(&object, "entry-offset", owner->at);
    if (owner->guest_length) {
        put_number(&object, "guest-offset", owner->guest);
        put_number(&object, "guest-length", owner->guest_length);
    }
    switch (owner->kind) {
    case Q2_OWNER_DATA:
    case Q2_OWNER_COMPRESSED:
        put_number(&object, "l2-index", owner->index);
        break;
    case Q2_OWNER_REFCOUNT_BLOCK:
    case Q2_OWNER_BITMAP_TABLE:
    case Q2_OWNER_BITMAP_DATA:
        put_number(&object, "index", owner->index);
        break;
    default:
        break;
    }
    put_maps(&object, check, owner->maps);
    return object;
}

static void
put_range(struct json_object **object, unsigned has, const char *offset_key, uint64_t offset,
          const char *length_key, uint64_t length)
{
    if (!has)
        return;
    put_number(object, offset_key, offset);
    put_number(object, length_key, length);
}

static void
put_catalogue(struct json_object **object, enum q2_problem problem)
{
    const struct q2_catalogue_entry *entry = q2_catalogue(problem);
    put_text(object, "id", entry->id);
    put_text(object, "severity", q2_severity_id(entry->severity));
    put_text(object, "pass", q2_pass_id(entry->pass));
    put_text(object, "impact", q2_impact_id(entry->impact));
    put_text(object, "repair", q2_repairable_id(entry->repair));
}

static struct json_object *
finding_object(const struct q2_check *check, const struct q2_finding *finding)
{
    unsigned has = finding->has;
    struct json_object *object = json_object_new_object();
    put_catalogue(&object, finding->problem);
    put_number(&object, "count", finding->count);
    put_range(&object, has & Q2_HAS_HOST, "host-offset", finding->host_offset, "host-length",
              finding->host_length);
    put_range(&object, has & Q2_HAS_TARGET, "target-offset", finding->target_offset,
              "target-length", finding->target_length);
    put_range(&object, has & Q2_HAS_GUEST, "guest-offset", finding->guest_offset, "guest-length",
              finding->guest_length);
    if (has & Q2_HAS_L1)
        put_number(&object, "l1-index", finding->l1_index);
    if (has & Q2_HAS_L2)
        put_number(&object, "l2-index", finding->l2_index);
    put_maps(&object, check, finding->maps);
    if (has & Q2_HAS_GOT)
        put_number(&object, "got", finding->got);
    if (has & Q2_HAS_EXPECTED)
        put_number(&object, "expected", finding->expected);
    if (has & Q2_HAS_OWNERS) {
        struct json_object *owners = json_object_new_array();
        for (int i = 0; i < 2 && finding->owners[i].kind != Q2_OWNER_NONE; i++)
            append(&owners, q2_report_owner_object(check, &finding->owners[i]));
        put(&object, "owners", owners);
    }
    if (finding->detail && *finding->detail)
        put_text(&object, "detail", finding->detail);
    return object;
}

static struct json_object *
problem_object(enum q2_problem problem, const struct q2_problem_count *count)
{
    struct json_object *object = json_object_new_object();
    put_catalogue(&object, problem);
    put_number(&object, "count", count->count);
    put_number(&object, "findings", count->findings);
    put_number(&object, "unlisted", count->unlisted);
    put_text(&object, "sentence", q2_catalogue(problem)->sentence);
    return object;
}

static struct json_object *
impact_object(enum q2_impact impact, const struct q2_impact_sum *sum)
{
    struct json_object *object = json_object_new_object();
    put_text(&object, "impact", q2_impact_id(impact));
    put_number(&object, "faults", sum->faults);
    put_number(&object, "remarks", sum->remarks);
    put_number(&object, "active-bytes", sum->active_bytes);
    put_number(&object, "snapshot-bytes", sum->snapshot_bytes);
    put_number(&object, "vm-state-bytes", sum->vm_state_bytes);
    put(&object, "at-least", json_object_new_boolean(sum->at_least));
    return object;
}

/* ---- writing ---- */

/* Write `value` and let go of it. */
static void
write_value(struct writer *writer, struct json_object *value)
{
    const char *text = NULL;
    if (value)
        text = json_object_to_json_string_ext(value, JSON_C_TO_STRING_NOSLASHESCAPE |
                                                         (writer->pretty ? JSON_C_TO_STRING_SPACED
                                                                         : JSON_C_TO_STRING_PLAIN));
    if (text)
        fputs(text, writer->out);
    else
        writer->failed = true;
    json_object_put(value);
}

static void
write_key(struct writer *writer, const char *key)
{
    fprintf(writer->out, "%s%s\"%s\":%s", writer->begun ? "," : "", writer->pretty ? "\n    " : "",
            key, writer->pretty ? " " : "");
    writer->begun = true;
}

static void
write_member(struct writer *writer, const char *key, struct json_object *value)
{
    write_key(writer, key);
    write_value(writer, value);
}

/* As qemu-img does, leave out counters that are zero. */
static void
write_counter(struct writer *writer, const char *key, uint64_t value)
{
    if (value)
        write_member(writer, key, json_object_new_uint64(value));
}

static void
write_element(struct writer *writer, bool first, struct json_object *value)
{
    fprintf(writer->out, "%s%s", first ? "" : ",", writer->pretty ? "\n        " : "");
    write_value(writer, value);
}

static void
begin_array(struct writer *writer, const char *key)
{
    write_key(writer, key);
    fputc('[', writer->out);
}

static void
end_array(struct writer *writer, bool empty)
{
    fputs(writer->pretty && !empty ? "\n    ]" : "]", writer->out);
}

static void
write_counts(struct writer *writer, const struct q2_check_counts *counts)
{
    write_counter(writer, "image-end-offset", counts->image_end_offset);
    write_counter(writer, "total-clusters", counts->total_clusters);
    write_counter(writer, "allocated-clusters", counts->allocated_clusters);
    write_counter(writer, "fragmented-clusters", counts->fragmented_clusters);
    write_counter(writer, "compressed-clusters", counts->compressed_clusters);
    write_member(writer, "check-errors", json_object_new_uint64(counts->check_errors));
    write_counter(writer, "corruptions", counts->corruptions);
    write_counter(writer, "leaks", counts->leaks);
}

static void
write_impacts(struct writer *writer, const struct q2_check *check)
{
    struct q2_impact_sum sums[Q2_IMPACT_COUNT];
    bool first = true;
    q2_impact_sums(check, sums);
    begin_array(writer, "impacts");
    for (int i = 0; i < Q2_IMPACT_COUNT; i++)
        if (sums[i].faults || sums[i].remarks) {
            write_element(writer, first, impact_object((enum q2_impact)i, &sums[i]));
            first = false;
        }
    end_array(writer, first);
}

static void
write_problems(struct writer *writer, const struct q2_check *check)
{
    bool first = true;
    begin_array(writer, "problems");
    for (int i = 0; i < Q2_PROBLEM_COUNT; i++) {
        struct q2_problem_count count = q2_check_problem_count(check, (enum q2_problem)i);
        if (count.count) {
            write_element(writer, first, problem_object((enum q2_problem)i, &count));
            first = false;
        }
    }
    end_array(writer, first);
}

static void
write_findings(struct writer *writer, const struct q2_check *check)
{
    size_t count = q2_check_finding_count(check);
    begin_array(writer, "findings");
    for (size_t i = 0; i < count; i++)
        write_element(writer, i == 0, finding_object(check, q2_check_finding(check, i)));
    end_array(writer, count == 0);
}

int
q2_report_json(const struct q2_check *check, const char *filename, bool pretty, FILE *out,
               struct q2_error *err)
{
    struct writer writer = {.out = out, .pretty = pretty};
    enum q2_check_exit status = q2_check_exit(check);
    fputc('{', out);
    write_member(&writer, "filename", q2_report_name_object(filename));
    write_member(&writer, "format", json_object_new_string("qcow2"));
    write_counts(&writer, q2_check_counts(check));
    write_member(&writer, "verdict", json_object_new_string(q2_exit_id(status)));
    write_member(&writer, "exit-status", json_object_new_uint64(status));
    write_member(&writer, "qcow2kit-version", json_object_new_string(QCOW2KIT_VERSION));
    write_impacts(&writer, check);
    write_problems(&writer, check);
    write_findings(&writer, check);
    fputs(pretty ? "\n}\n" : "}\n", out);
    if (writer.failed)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the report");
    if (ferror(out))
        return q2_error_set(err, Q2_ERR_IO, "the report cannot be written");
    return 0;
}
