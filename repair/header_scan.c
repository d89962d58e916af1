/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/header_scan.h"

#include "core/base/checked.h"
#include "core/format/entry.h"
#include "core/format/luks.h"
#include "core/format/snapshot.h"

#include <string.h>

enum {
    PIECE = 1 << 20, /* bytes that are read at once */
    WORDS = Q2_SCAN_SECTOR / 8,
    MAX_PLACES = 1 << 20,
    MAX_TEXT = 300, /* bytes of a snapshot's id and name that are looked at */
    GPT_AT_MY_LBA = 24,
    GPT_AT_ALTERNATE_LBA = 32,
};

struct scan {
    struct q2_scene *scene;
    struct q2_sightings *out;
    uint64_t file_size;
    uint8_t *buffer; /* PIECE bytes, or the file and what its last sector lacks */
};

/* ---- tables ---- */

/* A word of a table of standard entries: a pointer into the file, or nothing. Of compressed
 * clusters only those bits are looked at that hold the offset at every cluster size. */
static bool
is_pointer(const struct scan *scan, uint64_t word)
{
    const uint64_t offset_at_least = (UINT64_C(1) << 49) - 1;
    if (word & Q2_ENTRY_COMPRESSED)
        return !(word & Q2_ENTRY_COPIED) && (word & offset_at_least) < scan->file_size;
    return !(word & Q2_L2_RESERVED) && q2_entry_offset(word) < scan->file_size;
}

struct view {
    uint64_t pointers;
    uint64_t repeated; /* that are the same as the one before */
    uint64_t low;
    uint64_t strides[Q2_MAX_CLUSTER_BITS + 1];
};

static void
note_pointer(struct view *view, uint64_t word, uint64_t before)
{
    if (word & Q2_ENTRY_COMPRESSED) {
        view->pointers++;
        return;
    }
    uint64_t offset = q2_entry_offset(word), last = q2_entry_offset(before);
    if (!offset)
        return;
    view->pointers++;
    view->low |= offset;
    if (!before || (before & Q2_ENTRY_COMPRESSED))
        return;
    uint64_t stride = offset - last;
    view->repeated += stride == 0;
    if (offset > last && (stride & (stride - 1)) == 0 &&
        stride <= UINT64_C(1) << Q2_MAX_CLUSTER_BITS)
        view->strides[__builtin_ctzll(stride)]++;
}

/* Whether a sector can be part of a table, each of whose entries has `step` words. */
static bool
view_sector(const struct scan *scan, const uint8_t *sector, unsigned step, struct view *view)
{
    uint64_t before = 0, bitmaps = 0, pointers = 0;
    *view = (struct view){.pointers = 0};
    for (unsigned i = 0; i < WORDS; i += step) {
        uint64_t word = q2_load_be64(sector + i * 8);
        if (word && !is_pointer(scan, word))
            return false;
        if (step == 2) {
            uint64_t bitmap = q2_load_be64(sector + i * 8 + 8);
            bool is_sound = bitmap && q2_entry_offset(bitmap) && is_pointer(scan, bitmap);
            bitmaps += bitmap && !is_sound;
            pointers += is_sound;
            bool conflict = (bitmap >> 32) & bitmap & UINT32_MAX;
            if (conflict || (word & Q2_ENTRY_ZERO) || ((word & Q2_ENTRY_COMPRESSED) && bitmap) ||
                (!word && (bitmap & UINT32_MAX)))
                return false;
        }
        if (word)
            note_pointer(view, word, before);
        before = word;
    }
    /* Bitmaps that all happen to be pointers are pointers. */
    if (pointers && !bitmaps)
        return false;
    return view->pointers > 0 && view->repeated * 2 <= view->pointers;
}

static int
add_place(struct scan *scan, uint64_t offset, unsigned kinds, uint64_t low, struct q2_error *err)
{
    struct q2_sightings *out = scan->out;
    struct q2_place *last = out->count ? &out->places[out->count - 1] : NULL;
    if (last && last->kinds == kinds &&
        last->offset + (uint64_t)last->sectors * Q2_SCAN_SECTOR == offset &&
        last->sectors < UINT32_MAX) {
        last->sectors++;
        last->low |= low;
        return 0;
    }
    if (out->count == MAX_PLACES)
        return 0;
    if (out->count == out->capacity) {
        uint64_t larger = out->capacity ? out->capacity * 2 : 256;
        void *memory = out->places;
        int rc = q2_budget_grow(out->budget, out->capacity, larger, sizeof *out->places,
                                "tables that were found", &memory, err);
        if (rc < 0)
            return rc;
        out->places = memory;
        out->capacity = larger;
    }
    out->places[out->count++] =
        (struct q2_place){.offset = offset, .sectors = 1, .kinds = kinds, .low = low};
    return 0;
}

static int
look_for_table(struct scan *scan, const uint8_t *sector, uint64_t offset, struct q2_error *err)
{
    unsigned kinds = 0;
    uint64_t low = UINT64_MAX;
    for (unsigned step = 1; step <= 2; step++) {
        struct view view;
        if (!view_sector(scan, sector, step, &view))
            continue;
        kinds |= step == 1 ? Q2_PLACE_TABLE : Q2_PLACE_EXTENDED;
        low &= view.low;
        for (unsigned bits = Q2_MIN_CLUSTER_BITS; bits <= Q2_MAX_CLUSTER_BITS; bits++)
            scan->out->strides[step - 1][bits] += view.strides[bits];
    }
    return kinds ? add_place(scan, offset, kinds, low, err) : 0;
}

/* ---- what has a form of its own ---- */

static void
look_for_snapshots(struct scan *scan, const uint8_t *sector, uint64_t offset)
{
    struct q2_geometry nothing = {.version = 3};
    struct q2_snapshot snapshot;
    struct q2_sightings *out = scan->out;
    if (out->snapshot_count == Q2_SCAN_SNAPSHOTS || q2_load_be64(sector) % Q2_SCAN_SECTOR ||
        q2_load_be64(sector) - 1 >= scan->file_size)
        return;
    q2_snapshot_decode(&nothing, sector, offset, &snapshot);
    if (snapshot.l1_size == 0 || snapshot.l1_size > Q2_MAX_L1_BYTES / 8 ||
        snapshot.id_length == 0 || snapshot.id_length > MAX_TEXT ||
        snapshot.name_length > Q2_MAX_NAME || snapshot.extra_length > Q2_SNAPSHOT_MAX_EXTRA)
        return;
    uint64_t at = (uint64_t)Q2_SNAPSHOT_FIXED_LENGTH + snapshot.extra_length;
    for (uint64_t i = at; i < q2_min(at + snapshot.id_length, Q2_SCAN_SECTOR); i++)
        if (sector[i] < 0x20 || sector[i] == 0x7f)
            return;
    out->snapshots[out->snapshot_count++] = offset;
}

static void
look_for_others(struct scan *scan, const uint8_t *sector, uint64_t offset)
{
    struct q2_sightings *out = scan->out;
    if (memcmp(sector, q2_luks_magic, sizeof q2_luks_magic) == 0 && offset &&
        out->luks_count < Q2_SCAN_LUKS)
        out->luks[out->luks_count++] = offset;
    if (memcmp(sector, "EFI PART", 8) != 0 || q2_load_le32(sector + GPT_AT_ALTERNATE_LBA) != 1 ||
        q2_load_le32(sector + GPT_AT_ALTERNATE_LBA + 4) != 0)
        return;
    uint64_t mine = q2_load_le32(sector + GPT_AT_MY_LBA) |
                    (uint64_t)q2_load_le32(sector + GPT_AT_MY_LBA + 4) << 32;
    uint64_t size = (mine + 1) * Q2_SCAN_SECTOR;
    if (mine > 2 && mine < Q2_FILE_SIZE_MAX / Q2_SCAN_SECTOR)
        out->disk_size = out->disk_size && out->disk_size != size ? UINT64_MAX : size;
}

/* ---- the pass ---- */

static int
look_at(struct scan *scan, uint64_t offset, size_t length, struct q2_error *err)
{
    int rc = 0;
    for (size_t at = 0; at < length && rc == 0; at += Q2_SCAN_SECTOR) {
        const uint8_t *sector = scan->buffer + at;
        /* Most guest data is told by its first words. */
        uint64_t first = q2_load_be64(sector);
        look_for_others(scan, sector, offset + at);
        if (first && !is_pointer(scan, first))
            continue;
        if (first)
            look_for_snapshots(scan, sector, offset + at);
        rc = look_for_table(scan, sector, offset + at, err);
    }
    return rc;
}

/* Read a piece; sectors that cannot be read are left out. */
static void
read_piece(struct scan *scan, uint64_t offset, size_t length)
{
    struct q2_error ignored;
    if (q2_file_read_padded(scan->scene->file, offset, scan->buffer, length, &ignored) == 0)
        return;
    for (size_t at = 0; at < length; at += Q2_SCAN_SECTOR)
        if (q2_file_read_padded(scan->scene->file, offset + at, scan->buffer + at, Q2_SCAN_SECTOR,
                                &ignored) < 0)
            memset(scan->buffer + at, 0, Q2_SCAN_SECTOR);
}

static int
pass(struct scan *scan, struct q2_error *err)
{
    const struct q2_scene_options *options = scan->scene->options;
    int rc = 0;
    for (uint64_t at = 0, end; at < scan->file_size && rc == 0; at = end) {
        bool data = true;
        struct q2_error ignored;
        if (q2_file_extent(scan->scene->file, at, &data, &end, &ignored) < 0 || end <= at)
            end = scan->file_size;
        /* Holes may begin and end anywhere; sectors do not. */
        end = q2_min((end + Q2_SCAN_SECTOR - 1) & ~(uint64_t)(Q2_SCAN_SECTOR - 1), scan->file_size);
        for (uint64_t piece = at; data && piece < end && rc == 0; piece += PIECE) {
            size_t length = (size_t)q2_min(PIECE, end - piece);
            length = (length + Q2_SCAN_SECTOR - 1) & ~(size_t)(Q2_SCAN_SECTOR - 1);
            read_piece(scan, piece, length);
            rc = look_at(scan, piece, length, err);
            if (options->progress)
                options->progress(options->progress_data,
                                  &(struct q2_progress){.phase = "looking for tables",
                                                        .done = piece,
                                                        .total = scan->file_size});
        }
    }
    return rc;
}

int
q2_header_scan(struct q2_scene *scene, struct q2_sightings *ret_sightings, struct q2_error *err)
{
    struct q2_sightings out = {.budget = &scene->budget};
    struct scan scan = {.scene = scene, .out = &out};
    void *memory;
    int rc = q2_file_size(scene->file, &scan.file_size, err);
    if (rc < 0)
        return rc;
    uint64_t most = q2_min(PIECE, scan.file_size + Q2_SCAN_SECTOR);
    rc = q2_budget_calloc(&scene->budget, most, 1, "a piece of the file", &memory, err);
    if (rc < 0)
        return rc;
    scan.buffer = memory;
    rc = pass(&scan, err);
    q2_budget_free(&scene->budget, memory, most, 1);
    if (rc < 0)
        q2_sightings_destroy(&out);
    else
        *ret_sightings = out;
    return rc;
}

void
q2_sightings_destroy(struct q2_sightings *sightings)
{
    if (sightings->budget)
        q2_budget_free(sightings->budget, sightings->places, sightings->capacity,
                       sizeof *sightings->places);
    sightings->places = NULL;
}

unsigned
q2_sightings_at(const struct q2_sightings *sightings, uint64_t offset, unsigned bits)
{
    uint64_t low = 0, high = sightings->count, size = UINT64_C(1) << bits;
    unsigned kinds = 0;
    /* The first place that ends behind `offset`. */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        const struct q2_place *place = &sightings->places[middle];
        if (place->offset + (uint64_t)place->sectors * Q2_SCAN_SECTOR <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    for (bool first = true; low < sightings->count; low++, first = false) {
        const struct q2_place *place = &sightings->places[low];
        if (place->offset >= offset + size)
            break;
        if (place->low & (size - 1))
            return 0;
        kinds = first ? place->kinds : kinds & place->kinds;
    }
    return kinds;
}
