/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The other files of the image, for --chain: do they exist, are they what the image says, are they
 * long enough. */

#include "checker/companion.h"
#include "checker/guest.h"
#include "core/base/checked.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { ENTRY_BYTES = 512 }; /* of an L2 table that are read at once */

/* Where in the chain a file is: which one names it, unless that is the image itself. */
static void
describe(const struct q2_check *check, const struct q2_companion *companion, char *text,
         size_t size)
{
    const struct q2_companions *companions = check->options.companions;
    bool deeper = companion != companions->backing && companion != &companions->data_file;
    snprintf(text, size, "%.150s%s%.150s", companion->name, deeper ? ", backing file of " : "",
             deeper ? companion[-1].name : "");
}

static void
add(struct q2_check *check, enum q2_problem problem, const struct q2_companion *companion,
    const char *more)
{
    char file[320], detail[512];
    size_t name = strlen(companion->name);
    /* Messages about opening files begin with their names. */
    if (strncmp(more, companion->name, name) == 0 && more[name] == ':')
        more += strspn(more + name, ": ") + name;
    describe(check, companion, file, sizeof file);
    snprintf(detail, sizeof detail, "%s%s%.160s", file, more[0] ? ": " : "", more);
    q2_findings_add(&check->findings, &(struct q2_finding){.problem = problem, .detail = detail});
}

/* ---- backing files ---- */

static uint64_t
virtual_size(const struct q2_companion *companion)
{
    bool qcow2 = companion->has_magic && strcmp(companion->format, "raw") != 0;
    return qcow2 ? companion->header.size : companion->file_size;
}

static void
judge_open_backing(struct q2_check *check, const struct q2_companion *companion,
                   uint64_t overlay_size)
{
    bool raw = strcmp(companion->format, "raw") == 0;
    if (strcmp(companion->format, "qcow2") == 0 && !companion->has_magic) {
        add(check, Q2_PROBLEM_BACKING_FORMAT_MISMATCH, companion, "recorded as qcow2");
        return;
    }
    if (!raw && companion->broken) {
        char more[160];
        snprintf(more, sizeof more, "%s%s", q2_problem_id(companion->first_broken),
                 companion->broken > 1 ? " and others" : "");
        add(check, Q2_PROBLEM_BACKING_DAMAGED, companion, more);
    }
    uint64_t size = virtual_size(companion);
    if (size == 0)
        add(check, Q2_PROBLEM_BACKING_EMPTY, companion, "");
    else if (size > overlay_size) {
        char more[80];
        snprintf(more, sizeof more, "%" PRIu64 " bytes behind an image of %" PRIu64, size,
                 overlay_size);
        add(check, Q2_PROBLEM_BACKING_SIZE, companion, more);
    }
}

static void
judge_backing(struct q2_check *check, const struct q2_companion *companion, uint64_t overlay_size)
{
    if (companion->format[0] == '\0')
        add(check, Q2_PROBLEM_BACKING_FORMAT_ABSENT, companion, "");
    switch (companion->state) {
    case Q2_COMPANION_OPEN:
        judge_open_backing(check, companion, overlay_size);
        break;
    case Q2_COMPANION_MISSING:
        add(check, Q2_PROBLEM_BACKING_MISSING, companion, companion->error.message);
        break;
    case Q2_COMPANION_NOT_FOLLOWED:
        add(check, Q2_PROBLEM_BACKING_NOT_FOLLOWED, companion, "");
        break;
    case Q2_COMPANION_LOOP:
        add(check, Q2_PROBLEM_BACKING_LOOP, companion, "");
        break;
    case Q2_COMPANION_TOO_DEEP:
        add(check, Q2_PROBLEM_BACKING_TOO_DEEP, companion, "");
        break;
    }
}

/* ---- the external data file ---- */

struct short_scan {
    struct q2_check *check;
    struct q2_window window;
    uint64_t data_size; /* bytes that the data file has */
};

static void
scan_entries(struct short_scan *scan, const struct q2_slot_table *table, uint64_t slot,
             uint64_t part, const uint8_t *buffer)
{
    const struct q2_geometry *geometry = &scan->check->geometry;
    for (uint64_t i = 0; i < ENTRY_BYTES / geometry->l2_entry_size; i++) {
        struct q2_l2_entry entry = q2_l2_load(geometry, buffer, i);
        uint64_t index = part / geometry->l2_entry_size + i;
        uint64_t guest = slot * q2_l2_reach(geometry) + (index << geometry->cluster_bits);
        uint64_t end = q2_min(guest + geometry->cluster_size, geometry->disk_size);
        if (q2_l2_kind(geometry, entry.raw) != Q2_CLUSTER_STANDARD || end <= scan->data_size)
            continue;
        q2_findings_add(&scan->check->findings,
                        &(struct q2_finding){.problem = Q2_PROBLEM_DATA_FILE_SHORT,
                                             .has =
                                                 Q2_HAS_HOST | Q2_HAS_GUEST | Q2_HAS_L1 | Q2_HAS_L2,
                                             .host_offset =
                                                 table->offset + part + i * geometry->l2_entry_size,
                                             .host_length = geometry->l2_entry_size,
                                             .guest_offset = guest,
                                             .guest_length = geometry->cluster_size,
                                             .l1_index = (uint32_t)slot,
                                             .l2_index = (uint32_t)index});
    }
}

static void
scan_slot(struct short_scan *scan, uint64_t slot)
{
    struct q2_check *check = scan->check;
    uint8_t buffer[ENTRY_BYTES];
    if ((slot + 1) * q2_l2_reach(&check->geometry) <= scan->data_size)
        return;
    q2_window_group(&scan->window, slot);
    for (uint64_t t = 0; t < scan->window.table_count; t++)
        for (uint64_t part = 0; part < check->geometry.cluster_size; part += ENTRY_BYTES) {
            const struct q2_slot_table *table = &scan->window.tables[t];
            if (q2_read_table(check, table->offset, part, buffer, sizeof buffer) == 0)
                scan_entries(scan, table, slot, part, buffer);
        }
}

static int
judge_length(struct q2_check *check, uint64_t data_size, struct q2_error *err)
{
    struct short_scan scan = {.check = check, .data_size = data_size};
    if (data_size >= check->geometry.disk_size)
        return 0;
    q2_work_reset(&check->work);
    int rc = q2_window_init(&scan.window, check, err);
    for (uint64_t unit = 0; rc == 0 && unit < q2_unit_count(check); unit++) {
        q2_window_load(&scan.window, unit);
        for (uint64_t s = 0; s < scan.window.count; s++)
            scan_slot(&scan, scan.window.first + s);
    }
    q2_window_destroy(&scan.window);
    return rc;
}

static int
judge_data_file(struct q2_check *check, const struct q2_companion *companion, struct q2_error *err)
{
    if (companion->state == Q2_COMPANION_OPEN)
        return judge_length(check, companion->file_size, err);
    const char *why = companion->state == Q2_COMPANION_LOOP           ? "it is the image itself"
                      : companion->state == Q2_COMPANION_NOT_FOLLOWED ? "not a plain path"
                                                                      : companion->error.message;
    add(check, Q2_PROBLEM_DATA_FILE_MISSING, companion, why);
    return 0;
}

int
q2_pass_chain(struct q2_check *check, struct q2_error *err)
{
    const struct q2_companions *companions = check->options.companions;
    if (!companions)
        return 0;
    uint64_t overlay_size = check->header.size;
    for (size_t i = 0; i < companions->backing_count; i++) {
        judge_backing(check, &companions->backing[i], overlay_size);
        overlay_size = virtual_size(&companions->backing[i]);
    }
    return companions->has_data_file ? judge_data_file(check, &companions->data_file, err) : 0;
}
