/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/window.h"

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/format/entry.h"

#include <stdlib.h>
#include <string.h>

enum {
    UNIT_BYTES = 1 << 20,   /* of L2 tables that a unit of work should cover */
    WINDOW_BYTES = 1 << 20, /* of L1 entries that a window may hold */
    MAX_HOLES = 1 << 17,    /* that are looked for once the work limit is reached */
    PLAUSIBLE_BYTES = 512,
    READ_COST = 512, /* and reading any number of them, this */
    L1_COST = 4,     /* an L1 entry costs more work than its bytes */
};

static uint64_t
largest_l1(const struct q2_check *check)
{
    uint64_t largest = 0;
    for (uint64_t i = 0; i < check->map_count; i++)
        largest = q2_max(largest, check->maps[i].l1_size);
    return largest;
}

uint64_t
q2_unit_slots(const struct q2_check *check)
{
    /* No fewer L1 entries than a read costs anyway: a sparse exabyte has millions of them. */
    uint64_t by_tables = q2_max(UNIT_BYTES >> check->geometry.cluster_bits, READ_COST / 8);
    uint64_t by_window = WINDOW_BYTES / 8 / q2_max(check->map_count, 1);
    return q2_max(1, q2_min(by_tables, by_window));
}

uint64_t
q2_unit_count(const struct q2_check *check)
{
    uint64_t slots = q2_unit_slots(check);
    return (largest_l1(check) + slots - 1) / slots;
}

int
q2_window_init(struct q2_window *window, struct q2_check *check, struct q2_error *err)
{
    /* Small images have less than a unit. */
    uint64_t capacity = q2_max(q2_min(q2_unit_slots(check), largest_l1(check)), 1);
    *window = (struct q2_window){.check = check, .capacity = capacity};
    void *entries, *items, *tables;
    int rc = q2_budget_calloc(&check->budget, check->map_count * window->capacity, 8,
                              "window over the L1 tables", &entries, err);
    if (rc < 0)
        return rc;
    window->entries = entries;
    rc = q2_budget_calloc(&check->budget, check->map_count, sizeof *window->items,
                          "window over the L1 tables", &items, err);
    if (rc == 0) {
        window->items = items;
        rc = q2_budget_calloc(&check->budget, check->map_count, sizeof *window->tables,
                              "window over the L1 tables", &tables, err);
    }
    if (rc == 0)
        window->tables = tables;
    else
        q2_window_destroy(window);
    return rc;
}

void
q2_window_destroy(struct q2_window *window)
{
    struct q2_check *check = window->check;
    if (!check)
        return;
    q2_budget_free(&check->budget, window->entries, check->map_count * window->capacity, 8);
    q2_budget_free(&check->budget, window->items, check->map_count, sizeof *window->items);
    q2_budget_free(&check->budget, window->tables, check->map_count, sizeof *window->tables);
    *window = (struct q2_window){0};
}

static uint8_t *
row(const struct q2_window *window, uint64_t map)
{
    return window->entries + map * window->capacity * 8;
}

void
q2_window_load(struct q2_window *window, uint64_t unit)
{
    struct q2_check *check = window->check;
    window->first = unit * window->capacity;
    window->count = q2_min(window->capacity, largest_l1(check) - window->first);
    window->unreadable = false;
    if (atomic_load(&check->work.exceeded)) {
        window->count = 0;
        return;
    }
    for (uint64_t m = 0; m < check->map_count; m++) {
        const struct q2_map *map = &check->maps[m];
        memset(row(window, m), 0, window->capacity * 8);
        if (window->first >= map->l1_size)
            continue;
        uint64_t bytes = q2_min(window->count, map->l1_size - window->first) * 8;
        if (!q2_work_take(&check->work, q2_max(bytes * L1_COST, READ_COST))) {
            q2_work_exceed(&check->work);
            continue;
        }
        int rc = q2_file_read_padded(check->file, map->l1_offset + window->first * 8,
                                     row(window, m), bytes, NULL);
        if (rc < 0) {
            memset(row(window, m), 0, bytes);
            window->unreadable = true;
            atomic_store(&check->unread, true);
        }
    }
}

uint64_t
q2_window_entry(const struct q2_window *window, uint64_t map, uint64_t slot)
{
    return q2_load_be64(row(window, map) + (slot - window->first) * 8);
}

static int
compare_items(const void *left, const void *right)
{
    const struct q2_slot_item *a = left, *b = right;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return (a->map > b->map) - (a->map < b->map);
}

/* The table that an entry which is not aligned still leads to: a flipped bit below the cluster size
 * leaves the rest of the pointer intact, and if what it points into is a table, nothing under it is
 * leaked. 0: none. */
static uint64_t
likely_table(struct q2_check *check, uint64_t offset)
{
    uint64_t aligned = offset & ~(check->geometry.cluster_size - 1);
    return aligned && q2_table_plausible(check, aligned) ? aligned : 0;
}

/* Collect the usable entries of a slot in map order; returns whether all have the same table. */
static bool
collect(struct q2_window *window, uint64_t slot, uint64_t *ret_count)
{
    const struct q2_geometry *geometry = &window->check->geometry;
    uint64_t odd_bits = q2_entry_odd_bits(geometry), count = 0;
    bool same = true;
    for (uint64_t m = 0; m < window->check->map_count; m++) {
        uint64_t raw = q2_window_entry(window, m, slot);
        if (raw == 0)
            continue;
        uint64_t offset = q2_entry_offset(raw);
        bool inside = offset && offset < geometry->file_size;
        if (!inside || (raw & odd_bits))
            window->odd = true;
        if (inside && (offset & (geometry->cluster_size - 1)))
            offset = likely_table(window->check, offset);
        if (!inside || !offset)
            continue;
        window->items[count] = (struct q2_slot_item){.offset = offset,
                                                     .map = (uint32_t)m,
                                                     .copied = (raw & Q2_ENTRY_COPIED) != 0};
        same = same && offset == window->items[0].offset;
        count++;
    }
    *ret_count = count;
    return same;
}

void
q2_window_group(struct q2_window *window, uint64_t slot)
{
    uint64_t count;
    window->odd = window->unreadable;
    window->table_count = 0;
    if (!collect(window, slot, &count))
        qsort(window->items, count, sizeof *window->items, compare_items);
    for (uint64_t i = 0; i < count; i++) {
        const struct q2_slot_item *item = &window->items[i];
        struct q2_slot_table *table = &window->tables[window->table_count];
        if (i == 0 || item->offset != window->items[i - 1].offset) {
            *table = (struct q2_slot_table){.offset = item->offset, .first = i};
            window->table_count++;
        } else {
            table--;
        }
        table->references++;
        if (item->map == 0) {
            table->active = true;
            table->copied = item->copied;
        }
    }
}

int
q2_read_table(struct q2_check *check, uint64_t offset, uint64_t part, uint8_t *buffer,
              size_t length)
{
    if (q2_work_take(&check->work, length)) {
        if (q2_file_read_padded(check->file, offset + part, buffer, length, NULL) == 0)
            return 0;
        atomic_store(&check->unread, true);
        return Q2_ERR_IO;
    }
    /* Beyond the limit, only what costs next to nothing is still looked at. */
    bool data = true;
    uint64_t end = 0;
    bool enough = atomic_fetch_add(&check->work.holes, 1) >= MAX_HOLES;
    if (enough || q2_file_extent(check->file, offset + part, &data, &end, NULL) < 0 || data ||
        end < q2_min(offset + part + length, check->geometry.file_size)) {
        q2_work_exceed(&check->work);
        return Q2_ERR_RANGE;
    }
    memset(buffer, 0, length);
    return 0;
}

/* ---- what a table looks like ---- */

static void
count_fault(void *data, const struct q2_violation *violation)
{
    (void)violation;
    ++*(uint64_t *)data;
}

bool
q2_table_plausible(struct q2_check *check, uint64_t offset)
{
    const struct q2_geometry *geometry = &check->geometry;
    uint8_t piece[PLAUSIBLE_BYTES];
    uint64_t faults = 0, allocated = 0;
    struct q2_sink sink = {.report = count_fault, .data = &faults, .wordless = true};
    for (uint64_t part = 0; part < geometry->cluster_size; part += sizeof piece) {
        if (q2_read_table(check, offset, part, piece, sizeof piece) < 0)
            return false;
        for (uint64_t i = 0; i < sizeof piece / geometry->l2_entry_size; i++) {
            struct q2_l2_entry entry = q2_l2_load(geometry, piece, i);
            /* Where the guest cluster is does not matter, except to a data file. */
            uint64_t guest = q2_entry_offset(entry.raw);
            if (entry.raw || entry.bitmap)
                q2_l2_entry_validate(geometry, &entry, 0, guest, &sink);
            allocated += q2_l2_kind(geometry, entry.raw) != Q2_CLUSTER_UNALLOCATED;
        }
        if (faults)
            return false;
    }
    return allocated > 0;
}
