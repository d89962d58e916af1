/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the tables of a map say, taken entry by entry: where one cannot be right, or cannot be read,
 * the guest bytes that it stands for are gone, and the next one is looked at. */

#include "core/base/checked.h"
#include "repair/salvage_parts.h"

#include <stdlib.h>
#include <string.h>

enum {
    L1_PART = 64 << 10, /* bytes of an L1 table in memory at once */
    LEAST_HOLE = 4096,  /* shorter runs are not asked for holes */
};

static void
ignore(void *data, const struct q2_violation *violation)
{
    (void)data;
    (void)violation;
}

static const struct q2_sink no_sink = {.report = ignore};

/* ---- tables in memory ---- */

static int
table_init(struct salvage_table *table, size_t room, struct q2_error *err)
{
    *table = (struct salvage_table){.offset = UINT64_MAX,
                                    .bytes = malloc(room),
                                    .bad = calloc(room / SALVAGE_SECTOR / 64 + 1, 8)};
    if (table->bytes && table->bad)
        return 0;
    return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the tables of an image");
}

static void
table_destroy(struct salvage_table *table)
{
    free(table->bytes);
    free(table->bad);
}

int
q2_salvage_tables_init(struct salvage_tables *tables, struct salvage_source *source,
                       const struct salvage_map *map, struct q2_error *err)
{
    *tables = (struct salvage_tables){.source = source, .map = map};
    int rc = table_init(&tables->l1, L1_PART, err);
    if (rc == 0)
        rc = table_init(&tables->l2, source->geometry.cluster_size, err);
    return rc;
}

void
q2_salvage_tables_destroy(struct salvage_tables *tables)
{
    table_destroy(&tables->l1);
    table_destroy(&tables->l2);
}

static void
mark_bad(void *data, uint64_t offset, uint64_t length)
{
    struct salvage_table *table = data;
    uint64_t first = (offset - table->offset) / SALVAGE_SECTOR;
    uint64_t end = q2_units(offset + length - table->offset, Q2_MIN_CLUSTER_BITS);
    for (uint64_t i = first; i < end; i++)
        table->bad[i / 64] |= UINT64_C(1) << (i % 64);
    table->any_bad = true;
}

static void
load(struct salvage_tables *tables, struct salvage_table *table, uint64_t offset, uint64_t length)
{
    uint64_t size = tables->source->geometry.file_size;
    if (table->offset == offset && table->length == length)
        return;
    if (table->any_bad)
        memset(table->bad, 0, (length / SALVAGE_SECTOR / 64 + 1) * 8);
    table->offset = offset;
    table->length = length;
    table->any_bad = false;
    table->end = offset < size ? q2_min(length, size - offset) : 0;
    q2_salvage_read_lenient(tables->source->file, offset, table->bytes, length, mark_bad, table);
}

/* Whether the bytes at `at` of a table could be read. */
static bool
sound(const struct salvage_table *table, uint64_t at)
{
    uint64_t sector = at / SALVAGE_SECTOR;
    return !table->any_bad || !(table->bad[sector / 64] >> (sector % 64) & 1);
}

/* ---- L1 entries ---- */

struct l1_entry {
    bool there;    /* the table has it, and it can be read */
    bool past_end; /* of the file */
    uint64_t raw;
    const char *why;
};

static struct l1_entry
l1_entry(struct salvage_tables *tables, uint64_t slot)
{
    const struct q2_map *map = tables->map->table;
    if (tables->map->lost)
        return (struct l1_entry){.why = tables->map->lost};
    if (slot >= map->l1_size)
        return (struct l1_entry){.why = "the L1 table ends before"};
    uint64_t part = slot * 8 / L1_PART * L1_PART, at = slot * 8 - part;
    load(tables, &tables->l1, map->l1_offset + part,
         q2_min(L1_PART, (uint64_t)map->l1_size * 8 - part));
    if (!sound(&tables->l1, at))
        return (struct l1_entry){.why = "the L1 table cannot be read there"};
    return (struct l1_entry){.there = true,
                             .past_end = at >= tables->l1.end,
                             .raw = q2_load_be64(tables->l1.bytes + at)};
}

static bool
leads_to_table(const struct salvage_tables *tables, uint64_t raw)
{
    return q2_l1_entry_validate(&tables->source->geometry, raw, 0, &no_sink);
}

static void
load_l2(struct salvage_tables *tables, uint64_t raw)
{
    load(tables, &tables->l2, q2_entry_offset(raw), tables->source->geometry.cluster_size);
}

/* ---- L2 entries ---- */

static void
suspect(struct salvage_run *run, const char *why)
{
    run->state = Q2_SALVAGE_GUESS;
    run->why = why;
}

static void
gone(struct salvage_run *run, const char *why)
{
    run->kind = SALVAGE_GONE;
    run->state = Q2_SALVAGE_LOST;
    run->why = why;
}

/* Subclusters from `sub` on that have the same bits. */
static unsigned
alike(uint64_t bitmap, unsigned sub)
{
    uint32_t allocated = (uint32_t)bitmap >> sub, zero = (uint32_t)(bitmap >> 32) >> sub;
    uint32_t differ = (allocated & 1 ? ~allocated : allocated) | (zero & 1 ? ~zero : zero);
    unsigned count = differ ? (unsigned)__builtin_ctz(differ) : Q2_SUBCLUSTERS;
    return count < Q2_SUBCLUSTERS - sub ? count : Q2_SUBCLUSTERS - sub;
}

/* Where a standard cluster's data is. */
static void
place_data(const struct q2_geometry *geometry, const struct q2_l2_entry *entry, uint64_t cluster,
           uint64_t inside, struct salvage_run *run)
{
    uint64_t host = q2_entry_offset(entry->raw);
    run->kind = SALVAGE_DATA;
    if (geometry->data_file) {
        if (host != cluster)
            suspect(run, "its L2 entry does not point at its place in the data file");
        run->host = cluster + inside;
        return;
    }
    run->host = host + inside;
    if (!q2_host_inside(geometry, host))
        gone(run, "its L2 entry leads past the end of the file");
    else if (host & (geometry->cluster_size - 1))
        gone(run, "its L2 entry does not lead to the start of a cluster");
}

static void
subcluster_run(const struct q2_geometry *geometry, const struct q2_l2_entry *entry,
               uint64_t cluster, struct salvage_run *run)
{
    unsigned bits = geometry->cluster_bits - 5;
    uint64_t inside = run->offset - cluster;
    unsigned sub = (unsigned)(inside >> bits), count = alike(entry->bitmap, sub);
    bool allocated = entry->bitmap >> sub & 1, zero = entry->bitmap >> (sub + 32) & 1;
    bool host = q2_l2_kind(geometry, entry->raw) == Q2_CLUSTER_STANDARD;
    run->length = ((uint64_t)(sub + count) << bits) - inside;
    if (allocated && host)
        place_data(geometry, entry, cluster, inside, run);
    else if (allocated)
        gone(run, "its L2 entry says that there is data, but not where");
    else
        run->kind = zero ? SALVAGE_ZERO : SALVAGE_NOTHING;
    if (allocated && zero && run->kind == SALVAGE_DATA)
        suspect(run, "its L2 entry says both that there is data and that it is zeros");
}

static void
packed_run(const struct q2_geometry *geometry, const struct q2_l2_entry *entry,
           struct salvage_run *run)
{
    run->kind = SALVAGE_PACKED;
    run->packed = q2_compressed_decode(geometry, entry->raw);
    /* The descriptor counts whole sectors, so the last of them may begin past the end. */
    if (geometry->data_file)
        gone(run, "its L2 entry says that it is compressed, which it cannot be in a data file");
    else if (run->packed.offset >= geometry->file_size)
        gone(run, "its L2 entry leads past the end of the file");
    else if (geometry->encrypted)
        suspect(run, "its L2 entry says that it is compressed, though the image is encrypted");
}

/* The run at run->offset that one entry makes. */
static void
entry_run(const struct q2_geometry *geometry, const struct q2_l2_entry *entry,
          struct salvage_run *run)
{
    uint64_t cluster = run->offset & ~(geometry->cluster_size - 1);
    uint64_t inside = run->offset - cluster;
    run->length = geometry->cluster_size - inside;
    if (entry->raw & Q2_ENTRY_COMPRESSED) {
        packed_run(geometry, entry, run);
        return;
    }
    if (geometry->extended_l2)
        subcluster_run(geometry, entry, cluster, run);
    else if ((entry->raw & Q2_ENTRY_ZERO) && geometry->version >= 3)
        run->kind = SALVAGE_ZERO;
    else if (q2_l2_kind(geometry, entry->raw & ~Q2_ENTRY_ZERO) == Q2_CLUSTER_STANDARD)
        place_data(geometry, entry, cluster, inside, run);
    else
        run->kind = SALVAGE_NOTHING;
    if (run->state != Q2_SALVAGE_CERTAIN)
        return;
    if ((entry->raw & Q2_L2_RESERVED) ||
        ((entry->raw & Q2_ENTRY_ZERO) && (geometry->version < 3 || geometry->extended_l2)))
        suspect(run, "its L2 entry has bits that mean nothing");
    else if (run->kind == SALVAGE_NOTHING && entry->raw & Q2_ENTRY_COPIED && !geometry->data_file &&
             !q2_entry_offset(entry->raw))
        suspect(run, "its L2 entry says that there is a cluster, but not where");
}

static bool
continues(const struct salvage_run *run, const struct salvage_run *next)
{
    if (run->kind != next->kind || run->kind == SALVAGE_PACKED || run->why != next->why)
        return false;
    return run->kind != SALVAGE_DATA || run->host + run->length == next->host;
}

/* Data that is in a hole of the file is zeros, unless zeros are to be decrypted. */
static void
look_for_hole(struct salvage_tables *tables, struct salvage_run *run)
{
    struct salvage_source *source = tables->source;
    if (run->kind != SALVAGE_DATA || source->cipher || run->length < LEAST_HOLE ||
        run->host >= source->data_size)
        return;
    if (run->host < tables->extent_start || run->host >= tables->extent_end) {
        uint64_t end;
        bool data;
        if (q2_file_extent(source->data, run->host, &data, &end, NULL) < 0)
            return;
        /* Looking for the end of a long extent costs time, so what is before it adds to it. */
        bool joins = data == tables->extent_data && end == tables->extent_end;
        tables->extent_start = joins ? q2_min(run->host, tables->extent_start) : run->host;
        tables->extent_end = end;
        tables->extent_data = data;
    }
    uint64_t left = tables->extent_end - run->host;
    if (left >= run->length)
        run->kind = tables->extent_data ? SALVAGE_DATA : SALVAGE_ZERO;
    else if (left >= LEAST_HOLE) {
        run->length = left & ~(uint64_t)(SALVAGE_SECTOR - 1);
        run->kind = tables->extent_data ? SALVAGE_DATA : SALVAGE_ZERO;
    }
}

/* Runs that the L2 table in memory has from run->offset on, joined, up to `end`. */
static void
table_run(struct salvage_tables *tables, uint64_t end, struct salvage_run *run)
{
    const struct q2_geometry *geometry = &tables->source->geometry;
    uint64_t guest = run->offset;
    run->length = 0;
    while (guest + run->length < end) {
        struct salvage_run next = {.offset = guest + run->length};
        uint64_t index = next.offset >> geometry->cluster_bits & (geometry->l2_entries - 1);
        uint64_t at = index * geometry->l2_entry_size;
        struct q2_l2_entry entry = q2_l2_load(geometry, tables->l2.bytes, index);
        entry_run(geometry, &entry, &next);
        if (!sound(&tables->l2, at))
            gone(&next, "its L2 table cannot be read there");
        else if (at >= tables->l2.end)
            suspect(&next, "the file ends inside its L2 table");
        if (run->length == 0)
            *run = next;
        else if (continues(run, &next))
            run->length += next.length;
        else
            break;
    }
    run->length = q2_min(run->length, end - guest);
    look_for_hole(tables, run);
}

/* Where the slot of `guest` ends, at most at `end`. */
static uint64_t
slot_end(const struct q2_geometry *geometry, uint64_t guest, uint64_t end)
{
    uint64_t left = q2_l2_reach(geometry) - guest % q2_l2_reach(geometry);
    return left < end - guest ? guest + left : end;
}

void
q2_salvage_tables_run(struct salvage_tables *tables, uint64_t guest, uint64_t end,
                      struct salvage_run *ret_run)
{
    const struct q2_geometry *geometry = &tables->source->geometry;
    struct l1_entry entry = l1_entry(tables, guest / q2_l2_reach(geometry));
    struct salvage_run run = {.offset = guest, .length = slot_end(geometry, guest, end) - guest};
    if (!entry.there) {
        gone(&run, entry.why);
    } else if (leads_to_table(tables, entry.raw)) {
        load_l2(tables, entry.raw);
        table_run(tables, guest + run.length, &run);
    } else if (q2_entry_offset(entry.raw)) {
        gone(&run, "its L1 entry does not lead to an L2 table");
    } else if (entry.raw & Q2_ENTRY_COPIED) {
        suspect(&run, "its L1 entry says that there is an L2 table, but not where");
    } else if (tables->source->orphans) {
        suspect(&run, "it has no L2 table, but there are some to which nothing leads");
    }
    if (run.state == Q2_SALVAGE_CERTAIN && entry.raw & Q2_L1_RESERVED)
        suspect(&run, "its L1 entry has bits that mean nothing");
    if (run.state == Q2_SALVAGE_CERTAIN && entry.past_end)
        suspect(&run, "the file ends inside its L1 table");
    *ret_run = run;
}

/* ---- comparing two maps ---- */

/* The entry of the cluster at `guest`; false where it cannot be told. */
static bool
entry_at(struct salvage_tables *tables, uint64_t l1_raw, uint64_t guest,
         struct q2_l2_entry *ret_entry)
{
    const struct q2_geometry *geometry = &tables->source->geometry;
    uint64_t index = guest >> geometry->cluster_bits & (geometry->l2_entries - 1);
    *ret_entry = (struct q2_l2_entry){0};
    if (l1_raw == 0)
        return true;
    if (!leads_to_table(tables, l1_raw))
        return false;
    load_l2(tables, l1_raw);
    *ret_entry = q2_l2_load(geometry, tables->l2.bytes, index);
    return sound(&tables->l2, index * geometry->l2_entry_size);
}

static bool
same_entry(struct salvage_tables *tables, uint64_t raw, struct salvage_tables *before,
           uint64_t before_raw, uint64_t guest)
{
    struct q2_l2_entry now, then;
    return entry_at(tables, raw, guest, &now) && entry_at(before, before_raw, guest, &then) &&
           ((now.raw ^ then.raw) & ~Q2_ENTRY_COPIED) == 0 && now.bitmap == then.bitmap;
}

bool
q2_salvage_tables_same(struct salvage_tables *tables, struct salvage_tables *before, uint64_t guest,
                       uint64_t end, uint64_t *ret_end)
{
    const struct q2_geometry *geometry = &tables->source->geometry;
    uint64_t slot = guest / q2_l2_reach(geometry);
    uint64_t common = before->map->disk_size & ~(geometry->cluster_size - 1);
    *ret_end = end;
    if (guest >= common)
        return false;
    end = *ret_end = slot_end(geometry, guest, q2_min(end, common));
    struct l1_entry now = l1_entry(tables, slot), then = l1_entry(before, slot);
    if (!now.there || !then.there)
        return false;
    if (((now.raw ^ then.raw) & ~Q2_ENTRY_COPIED) == 0)
        return true;
    bool first = same_entry(tables, now.raw, before, then.raw, guest);
    uint64_t at = (guest & ~(geometry->cluster_size - 1)) + geometry->cluster_size;
    while (at < end && same_entry(tables, now.raw, before, then.raw, at) == first)
        at += geometry->cluster_size;
    *ret_end = q2_min(at, end);
    return first;
}
