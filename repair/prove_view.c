/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What a guest reads through a map, as software would: flags and bits that readers ignore are
 * ignored here too, so that damage which harms no reader counts as readable. What readers refuse is
 * unreadable, and so is what lies past the end of the file, where the data was cut off. */

#include "core/base/checked.h"
#include "core/format/references.h"
#include "repair/prove_parts.h"

#include <string.h>

enum {
    L1_BYTES = 32 << 10, /* of an L1 table that are read at once */
    L2_BYTES = 64 << 10, /* and of an L2 table */
    READ_COST = 512,     /* the least that a read costs */
    SECTOR = 512,
};

/* ---- setting up ---- */

static enum q2_view_kind
hole_of(const struct q2_check *check)
{
    if (check->header.backing_file_offset == 0)
        return Q2_VIEW_ZERO;
    if (!(check->usable & Q2_USABLE_BACKING_NAME))
        return Q2_VIEW_UNREADABLE;
    return check->extensions.backing_file.length ? Q2_VIEW_BACKING : Q2_VIEW_ZERO;
}

uint64_t
q2_viewer_most(const struct q2_viewer *viewer)
{
    return viewer->check->geometry.cluster_size;
}

static uint64_t
stream_bytes(const struct q2_viewer *viewer)
{
    return viewer->check->geometry.cluster_size * 2 + SECTOR;
}

static int
take(struct q2_viewer *viewer, uint64_t bytes, uint8_t **ret_memory, struct q2_error *err)
{
    void *memory;
    int rc = q2_budget_calloc(viewer->budget, bytes, 1, "the proof of a repair", &memory, err);
    if (rc == 0)
        *ret_memory = memory;
    return rc;
}

int
q2_viewer_init(struct q2_viewer *viewer, struct q2_proof *proof, struct q2_file *file,
               struct q2_check *check, struct q2_error *err)
{
    *viewer = (struct q2_viewer){.file = file,
                                 .check = check,
                                 .work = &proof->work,
                                 .budget = proof->budget,
                                 .hole = hole_of(check)};
    int rc = take(viewer, L1_BYTES, &viewer->l1, err);
    if (rc == 0)
        rc = take(viewer, L2_BYTES, &viewer->l2, err);
    if (rc == 0)
        rc = take(viewer, q2_viewer_most(viewer), &viewer->bytes, err);
    if (rc == 0)
        rc = take(viewer, stream_bytes(viewer), &viewer->stream, err);
    if (rc == 0)
        rc = take(viewer, q2_viewer_most(viewer), &viewer->decoded, err);
    if (rc == 0 && check->header.compression_type <= Q2_COMPRESSION_ZSTD)
        rc = q2_decoder_new((enum q2_compression)check->header.compression_type, &viewer->decoder,
                            err);
    return rc;
}

void
q2_viewer_destroy(struct q2_viewer *viewer)
{
    if (!viewer->check)
        return;
    q2_budget_free(viewer->budget, viewer->l1, L1_BYTES, 1);
    q2_budget_free(viewer->budget, viewer->l2, L2_BYTES, 1);
    q2_budget_free(viewer->budget, viewer->bytes, q2_viewer_most(viewer), 1);
    q2_budget_free(viewer->budget, viewer->stream, stream_bytes(viewer), 1);
    q2_budget_free(viewer->budget, viewer->decoded, q2_viewer_most(viewer), 1);
    q2_decoder_free(viewer->decoder);
    *viewer = (struct q2_viewer){0};
}

void
q2_viewer_choose(struct q2_viewer *viewer, const struct q2_map *map)
{
    viewer->map = map;
    viewer->l1_count = 0;
}

/* ---- tables ---- */

/* Read `length` bytes of a table; false where they cannot be, or must not for all that was read. */
static bool
read_table(struct q2_viewer *viewer, uint64_t offset, uint8_t *buffer, uint64_t length)
{
    if (!q2_work_take(viewer->work, q2_max(length, READ_COST))) {
        viewer->limited = true;
        return false;
    }
    return q2_file_read_padded(viewer->file, offset, buffer, length, NULL) == 0;
}

static bool
load_l1(struct q2_viewer *viewer, uint64_t slot)
{
    if (viewer->l1_count && slot - viewer->l1_first < viewer->l1_count)
        return true;
    const struct q2_map *map = viewer->map;
    uint64_t first = slot & ~(uint64_t)(L1_BYTES / 8 - 1);
    uint64_t count = q2_min(L1_BYTES / 8, map->l1_size - first);
    viewer->l1_count = 0;
    if (!read_table(viewer, map->l1_offset + first * 8, viewer->l1, count * 8))
        return false;
    viewer->l1_first = first;
    viewer->l1_count = count;
    return true;
}

/* L2 tables are read in parts of as many entries; the first of that which has entry `index`. */
static uint64_t
entries_of_part(const struct q2_geometry *geometry)
{
    return q2_min(L2_BYTES, geometry->cluster_size) / geometry->l2_entry_size;
}

static uint64_t
part_of(const struct q2_geometry *geometry, uint64_t index)
{
    return index & ~(entries_of_part(geometry) - 1);
}

/* Load the part of the L2 table at `table` that has entry `index`; tells the first entry in it. */
static bool
load_l2(struct q2_viewer *viewer, uint64_t table, uint64_t index, uint64_t *ret_first)
{
    const struct q2_geometry *geometry = &viewer->check->geometry;
    uint64_t length = entries_of_part(geometry) * geometry->l2_entry_size;
    uint64_t part = part_of(geometry, index) * geometry->l2_entry_size;
    if (viewer->l2_length == 0 || viewer->l2_offset != table + part) {
        viewer->l2_length = 0;
        if (!read_table(viewer, table + part, viewer->l2, length))
            return false;
        viewer->l2_offset = table + part;
        viewer->l2_length = length;
    }
    *ret_first = part / geometry->l2_entry_size;
    return true;
}

/* ---- entries ---- */

/* Subcluster `index` of a standard or unallocated cluster. */
static enum q2_view_kind
subcluster_kind(const struct q2_viewer *viewer, const struct q2_l2_entry *entry, bool has_host,
                unsigned index)
{
    uint32_t allocated = (uint32_t)entry->bitmap, zero = (uint32_t)(entry->bitmap >> 32);
    /* Where the bits of any contradict each other, readers refuse the whole cluster. */
    if (has_host ? (allocated & zero) != 0 : allocated != 0)
        return Q2_VIEW_UNREADABLE;
    if (zero >> index & 1)
        return Q2_VIEW_ZERO;
    return allocated >> index & 1 ? Q2_VIEW_DATA : viewer->hole;
}

static void
look_extended(const struct q2_viewer *viewer, const struct q2_l2_entry *entry, bool has_host,
              uint64_t within, struct q2_view *view)
{
    uint64_t size = viewer->check->geometry.cluster_size / Q2_SUBCLUSTERS;
    unsigned index = (unsigned)(within / size), end = index + 1;
    view->kind = subcluster_kind(viewer, entry, has_host, index);
    while (end < Q2_SUBCLUSTERS && subcluster_kind(viewer, entry, has_host, end) == view->kind)
        end++;
    view->length = end * size - within;
}

static enum q2_view_kind
compressed_kind(const struct q2_geometry *geometry, uint64_t raw)
{
    struct q2_compressed_range range = q2_compressed_decode(geometry, raw);
    if (geometry->data_file || range.offset >> 56 || range.offset >= geometry->file_size)
        return Q2_VIEW_UNREADABLE;
    return Q2_VIEW_COMPRESSED;
}

/* Where a standard cluster is: in the image, in the data file, or out of reach. */
static enum q2_view_kind
standard_kind(const struct q2_geometry *geometry, uint64_t offset, uint64_t guest)
{
    if (geometry->data_file)
        return offset == guest ? Q2_VIEW_EXTERNAL : Q2_VIEW_UNREADABLE;
    bool aligned = (offset & (geometry->cluster_size - 1)) == 0;
    return aligned && q2_host_inside(geometry, offset) ? Q2_VIEW_DATA : Q2_VIEW_UNREADABLE;
}

/* One entry, of the cluster at `guest`, seen from byte `within` of it on. */
static void
look_entry(const struct q2_viewer *viewer, const struct q2_l2_entry *entry, uint64_t guest,
           uint64_t within, struct q2_view *view)
{
    const struct q2_geometry *geometry = &viewer->check->geometry;
    uint64_t offset = q2_entry_offset(entry->raw);
    enum q2_cluster_kind kind = q2_l2_kind(geometry, entry->raw);
    view->length = geometry->cluster_size - within;
    switch (kind) {
    case Q2_CLUSTER_COMPRESSED:
        view->kind = compressed_kind(geometry, entry->raw);
        view->raw = entry->raw & ~Q2_ENTRY_COPIED;
        view->host = q2_compressed_decode(geometry, entry->raw).offset;
        view->past_end = view->host >= geometry->file_size;
        view->skip = within;
        return;
    case Q2_CLUSTER_ZERO:
    case Q2_CLUSTER_ZERO_ALLOCATED:
        /* Readers look at where the cluster is even though they do not need it. */
        view->kind = geometry->version < 3 || (offset & (geometry->cluster_size - 1))
                         ? Q2_VIEW_UNREADABLE
                         : Q2_VIEW_ZERO;
        return;
    case Q2_CLUSTER_STANDARD:
        view->kind = standard_kind(geometry, offset, guest);
        view->past_end = !geometry->data_file && offset >= geometry->file_size;
        view->host = offset + within;
        break;
    case Q2_CLUSTER_UNALLOCATED:
        view->kind = viewer->hole;
        break;
    }
    if (!geometry->extended_l2 || view->kind == Q2_VIEW_UNREADABLE)
        return;
    enum q2_view_kind data = view->kind;
    look_extended(viewer, entry, kind == Q2_CLUSTER_STANDARD, within, view);
    if (view->kind == Q2_VIEW_DATA)
        view->kind = data;
}

/* Entries that are alike are one view. */
static void
look_table(struct q2_viewer *viewer, uint64_t table, uint64_t guest, struct q2_view *view)
{
    const struct q2_geometry *geometry = &viewer->check->geometry;
    uint64_t size = geometry->cluster_size, within = guest & (size - 1), first;
    uint64_t index = (guest >> geometry->cluster_bits) & (geometry->l2_entries - 1);
    view->length = size - within;
    view->l2_at = table + index * geometry->l2_entry_size;
    if (!load_l2(viewer, table, index, &first)) {
        /* Nor can the entries next to it be read, and trying each of them takes its time. */
        uint64_t behind = part_of(geometry, index) + entries_of_part(geometry);
        view->length = viewer->limited ? view->length : (behind - index) * size - within;
        return;
    }
    uint64_t local = index - first, end = viewer->l2_length / geometry->l2_entry_size;
    uint64_t run = q2_empty_run(geometry, viewer->l2, local, end);
    struct q2_l2_entry entry = q2_l2_load(geometry, viewer->l2, local);
    if (run) {
        view->kind = entry.raw ? Q2_VIEW_ZERO : viewer->hole;
        view->length = run * size - within;
        return;
    }
    run = q2_plain_run(geometry, viewer->l2, local, end);
    if (run) {
        view->kind = Q2_VIEW_DATA;
        view->host = q2_entry_offset(entry.raw) + within;
        view->length = run * size - within;
        return;
    }
    look_entry(viewer, &entry, guest - within, within, view);
}

/* Empty L1 entries of the window, from `slot` on, are one view. */
static uint64_t
empty_slots(const struct q2_viewer *viewer, uint64_t slot)
{
    uint64_t i = slot - viewer->l1_first;
    while (i < viewer->l1_count && q2_entry_offset(q2_load_be64(viewer->l1 + i * 8)) == 0)
        i++;
    return i + viewer->l1_first - slot;
}

/* The raw L1 entry of a slot; false where the table ends before it, or cannot be read. */
static bool
slot_entry(struct q2_viewer *viewer, uint64_t slot, uint64_t *ret_raw)
{
    if (slot >= viewer->map->l1_size || !load_l1(viewer, slot))
        return false;
    *ret_raw = q2_load_be64(viewer->l1 + (slot - viewer->l1_first) * 8);
    return true;
}

/* The L2 table that an L1 entry leads to; 0: none that can be read. */
static uint64_t
table_of(const struct q2_geometry *geometry, uint64_t raw)
{
    uint64_t table = q2_entry_offset(raw);
    bool aligned = (table & (geometry->cluster_size - 1)) == 0;
    return aligned && q2_host_inside(geometry, table) ? table : 0;
}

uint64_t
q2_viewer_table(struct q2_viewer *viewer, uint64_t guest)
{
    const struct q2_geometry *geometry = &viewer->check->geometry;
    uint64_t raw;
    if (!viewer->map || !slot_entry(viewer, guest / q2_l2_reach(geometry), &raw))
        return 0;
    return table_of(geometry, raw);
}

struct q2_view
q2_viewer_look(struct q2_viewer *viewer, uint64_t guest)
{
    const struct q2_geometry *geometry = &viewer->check->geometry;
    const struct q2_map *map = viewer->map;
    struct q2_view view = {.kind = Q2_VIEW_UNREADABLE, .length = UINT64_MAX - guest};
    if (!map || guest >= map->limit)
        return view;
    view.length = map->limit - guest;
    uint64_t reach = q2_l2_reach(geometry), slot = guest / reach, within = guest % reach, raw;
    if (slot >= map->l1_size)
        return view;
    view.l1_at = map->l1_offset + slot * 8;
    view.length = reach - within;
    if (slot_entry(viewer, slot, &raw)) {
        uint64_t table = table_of(geometry, raw), empty = empty_slots(viewer, slot), length;
        if (empty) {
            view.kind = viewer->hole;
            view.length = q2_mul(empty, reach, &length) ? length - within : UINT64_MAX - guest;
        } else if (table) {
            look_table(viewer, table, guest, &view);
        } else {
            view.host = q2_entry_offset(raw);
            view.past_end = view.host >= geometry->file_size;
        }
    }
    view.length = q2_min(view.length, map->limit - guest);
    return view;
}

/* ---- bytes ---- */

static bool
decode(struct q2_viewer *viewer, const struct q2_view *view)
{
    const struct q2_geometry *geometry = &viewer->check->geometry;
    struct q2_compressed_range range = q2_compressed_decode(geometry, view->raw);
    uint64_t length = q2_min(range.length, geometry->file_size - range.offset);
    size_t used;
    if (viewer->decoded_raw == view->raw)
        return true;
    viewer->decoded_raw = 0;
    if (!viewer->decoder || length > stream_bytes(viewer) ||
        !read_table(viewer, range.offset, viewer->stream, length) ||
        q2_decoder_run(viewer->decoder, viewer->stream, length, viewer->decoded,
                       geometry->cluster_size, &used, NULL) < 0)
        return false;
    viewer->decoded_raw = view->raw;
    return true;
}

bool
q2_viewer_fetch(struct q2_viewer *viewer, const struct q2_view *view, uint64_t length)
{
    switch (view->kind) {
    case Q2_VIEW_ZERO:
        memset(viewer->bytes, 0, length);
        return true;
    case Q2_VIEW_DATA:
        return read_table(viewer, view->host, viewer->bytes, length);
    case Q2_VIEW_COMPRESSED:
        if (!decode(viewer, view))
            return false;
        memcpy(viewer->bytes, viewer->decoded + view->skip, length);
        return true;
    default:
        return false;
    }
}
