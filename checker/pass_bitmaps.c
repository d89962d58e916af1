/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Persistent bitmaps: the directory, the tables, and the clusters that they refer to. */

#include "checker/scan.h"
#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/format/bitmap.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 4096 };

/* ---- whose fault ---- */

/* What is wrong with a bitmap is reported with its name. */
struct named_sink {
    struct q2_check *check;
    char name[64]; /* printable */
    struct q2_sink sink;
};

static void
report(void *data, const struct q2_violation *violation)
{
    struct named_sink *named = data;
    struct q2_violation whole = *violation;
    snprintf(whole.detail, sizeof whole.detail, "bitmap '%s'%s%.80s", named->name,
             violation->detail[0] ? ", " : "", violation->detail);
    q2_findings_add_violation(&named->check->findings, &whole);
}

static void
named_sink_init(struct named_sink *named, struct q2_check *check, const uint8_t *name,
                size_t length)
{
    named->check = check;
    named->sink = (struct q2_sink){.report = report, .data = named};
    q2_printable(named->name, sizeof named->name, name, length);
}

/* What cannot be read has a place, but no value. */
static void
report_unreadable(struct q2_check *check, enum q2_problem problem, uint64_t offset, uint64_t length,
                  const char *name)
{
    char detail[80] = "";
    if (name)
        snprintf(detail, sizeof detail, "bitmap '%s'", name);
    q2_findings_add(&check->findings, &(struct q2_finding){.problem = problem,
                                                           .has = Q2_HAS_HOST,
                                                           .host_offset = offset,
                                                           .host_length = length,
                                                           .detail = detail});
    atomic_store(&check->unread, true);
}

/* ---- tables ---- */

static int
read_table(struct q2_check *check, const struct q2_bitmap_table *table,
           const struct named_sink *named, struct q2_error *err)
{
    struct q2_tally_cursor cursor;
    uint8_t piece[PIECE_BYTES];
    int rc = 0;
    q2_tally_cursor_init(&cursor, check->tally);
    for (uint64_t i = 0; i < table->entries && rc == 0; i++) {
        uint64_t inside = i * 8 % PIECE_BYTES, at = table->offset + i * 8;
        uint64_t length = q2_min(PIECE_BYTES, (table->entries - i) * 8);
        if (inside == 0 && q2_file_read_padded(check->file, at, piece, length, NULL) < 0) {
            report_unreadable(check, Q2_PROBLEM_BITMAP_TABLE_UNREADABLE, at, length, named->name);
            break;
        }
        uint64_t raw = q2_load_be64(piece + inside);
        if (raw && q2_bitmap_entry_validate(&check->geometry, raw, at, &named->sink))
            rc = q2_tally_add(&cursor, q2_cluster_of(check, raw), 1, 1, 0, err);
    }
    q2_tally_release(&cursor);
    return rc;
}

static int
add_table(struct q2_check *check, const struct q2_bitmap *bitmap, uint32_t index,
          const struct named_sink *named, struct q2_error *err)
{
    struct q2_bitmap_table table = {.offset = bitmap->table_offset,
                                    .entries = bitmap->table_size,
                                    .index = index};
    struct q2_owner owner = {.kind = Q2_OWNER_BITMAP_TABLE, .index = index};
    /* Tables of different bitmaps that overlap must not multiply the work. */
    if (!q2_work_take(&check->work, (uint64_t)table.entries * 8)) {
        q2_work_exceed(&check->work);
        return 0;
    }
    int rc = q2_check_grow(check, &check->bitmap_tables, check->bitmap_table_count,
                           &check->bitmap_table_capacity, sizeof *check->bitmap_tables, err);
    if (rc < 0)
        return rc;
    check->bitmap_tables[check->bitmap_table_count++] = table;
    rc = q2_check_add_region(check, &owner, table.offset, (uint64_t)table.entries * 8, err);
    return rc < 0 ? rc : read_table(check, &table, named, err);
}

/* ---- names ---- */

struct named {
    const uint8_t *text;
    uint32_t length;
    uint32_t index;
    uint64_t at;
};

static int
compare_names(const void *left, const void *right)
{
    const struct named *a = left, *b = right;
    int order = memcmp(a->text, b->text, a->length < b->length ? a->length : b->length);
    if (order == 0)
        order = (a->length > b->length) - (a->length < b->length);
    return order ? order : (a->index > b->index) - (a->index < b->index);
}

static void
report_duplicate(struct q2_check *check, const struct named *a, const struct named *b)
{
    char name[64], detail[128];
    snprintf(detail, sizeof detail, "bitmaps #%" PRIu32 " and #%" PRIu32 " '%s'", a->index + 1,
             b->index + 1, q2_printable(name, sizeof name, b->text, b->length));
    q2_findings_add(&check->findings,
                    &(struct q2_finding){.problem = Q2_PROBLEM_BITMAP_NAME_DUPLICATE,
                                         .has = Q2_HAS_HOST,
                                         .host_offset = b->at,
                                         .host_length = Q2_BITMAP_FIXED_LENGTH,
                                         .detail = detail});
}

static void
find_duplicates(struct q2_check *check, struct named *names, uint32_t count)
{
    if (count)
        qsort(names, count, sizeof *names, compare_names);
    for (uint32_t i = 1; i < count; i++) {
        const struct named *a = &names[i - 1], *b = &names[i];
        if (a->length == b->length && memcmp(a->text, b->text, a->length) == 0)
            report_duplicate(check, a, b);
    }
}

/* ---- the directory ---- */

struct directory {
    const uint8_t *bytes;
    uint64_t size;   /* bytes */
    uint64_t offset; /* in the file */
    struct named *names;
    uint32_t name_count;
};

/* `entries` of the bitmaps that the header counts were found in the first `used` bytes. */
static void
judge_size(struct q2_check *check, const struct directory *directory, uint32_t entries,
           uint64_t used)
{
    struct q2_sink sink = q2_findings_sink(&check->findings);
    uint64_t at = check->extensions.bitmaps_at;
    uint32_t counted = check->extensions.nb_bitmaps;
    if (entries != counted)
        q2_violate(&sink, Q2_PROBLEM_BITMAP_DIRECTORY_SIZE, at + 8, 8, directory->size,
                   "bitmap_directory_size has room for %" PRIu32 " of %" PRIu32 " bitmaps", entries,
                   counted);
    else if (used != directory->size)
        q2_violate_expected(&sink, Q2_PROBLEM_BITMAP_DIRECTORY_SIZE, at + 8, 8, directory->size,
                            used, "bitmap_directory_size");
}

static int
read_entries(struct q2_check *check, struct directory *directory, struct q2_error *err)
{
    uint64_t at = 0;
    uint32_t index = 0;
    for (; index < check->extensions.nb_bitmaps; index++) {
        struct q2_bitmap bitmap;
        if (!q2_range_inside(at, Q2_BITMAP_FIXED_LENGTH, directory->size))
            break;
        q2_bitmap_decode(directory->bytes + at, directory->offset + at, &bitmap);
        uint64_t length = q2_bitmap_length(&bitmap);
        if (!q2_range_inside(at, length, directory->size))
            break;
        const uint8_t *name = directory->bytes + at + Q2_BITMAP_FIXED_LENGTH + bitmap.extra_length;
        directory->names[directory->name_count++] = (struct named){.text = name,
                                                                   .length = bitmap.name_length,
                                                                   .index = index,
                                                                   .at = bitmap.at};
        struct named_sink named;
        named_sink_init(&named, check, name, bitmap.name_length);
        if (q2_bitmap_validate(&check->geometry, &bitmap, directory->bytes + at, &named.sink)) {
            int rc = add_table(check, &bitmap, index, &named, err);
            if (rc < 0)
                return rc;
        }
        at += length;
    }
    judge_size(check, directory, index, at);
    return 0;
}

static int
read_directory(struct q2_check *check, struct directory *directory, void *bytes,
               struct q2_error *err)
{
    struct q2_owner owner = {.kind = Q2_OWNER_BITMAP_DIRECTORY};
    int rc = q2_check_add_region(check, &owner, directory->offset, directory->size, err);
    if (rc < 0)
        return rc;
    if (q2_file_read(check->file, directory->offset, bytes, directory->size, NULL) < 0) {
        report_unreadable(check, Q2_PROBLEM_BITMAP_DIRECTORY_UNREADABLE, directory->offset,
                          directory->size, NULL);
        return 0;
    }
    rc = read_entries(check, directory, err);
    find_duplicates(check, directory->names, directory->name_count);
    return rc;
}

int
q2_pass_bitmaps(struct q2_check *check, struct q2_error *err)
{
    const struct q2_extensions *extensions = &check->extensions;
    struct q2_sink sink = q2_findings_sink(&check->findings);
    if (!extensions->has_bitmaps ||
        !q2_bitmap_directory_validate(&check->geometry, extensions, &sink))
        return 0;

    struct directory directory = {.size = extensions->bitmap_directory_size,
                                  .offset = extensions->bitmap_directory_offset};
    /* No more names than entries fit into the directory. */
    uint64_t names = q2_min(extensions->nb_bitmaps, directory.size / Q2_BITMAP_FIXED_LENGTH);
    void *bytes = NULL, *memory = NULL;
    int rc = q2_budget_calloc(&check->budget, directory.size, 1, "bitmap directory", &bytes, err);
    if (rc == 0)
        rc = q2_budget_calloc(&check->budget, names, sizeof(struct named), "bitmap directory",
                              &memory, err);
    directory.bytes = bytes;
    directory.names = memory;
    if (rc == 0)
        rc = read_directory(check, &directory, bytes, err);
    q2_budget_free(&check->budget, memory, names, sizeof(struct named));
    q2_budget_free(&check->budget, bytes, directory.size, 1);
    return rc;
}
