/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/carve.h"

#include "core/base/checked.h"
#include "core/format/references.h"

#include <stdlib.h>

enum {
    MAX_TABLES = 1 << 20,
    PROBE_BYTES = 4096,
    MAX_TURNS = 1 << 28, /* tables in place times tables that share data with them */
    MANY_FAULTS = 256,   /* entries: what breaks more rules than it obeys by then is no table */
};

/* ---- what a cluster looks like ---- */

static void
count_fault(void *data, const struct q2_violation *violation)
{
    (void)violation;
    ++*(uint64_t *)data;
}

struct form {
    uint64_t mapped, l2_faults;
    uint64_t leads, l1_faults;
};

/* Hold a piece of a cluster against the rules of both kinds of tables. */
static void
look_at_piece(const struct q2_geometry *geometry, const uint8_t *piece, uint64_t length,
              struct form *form)
{
    const struct q2_sink l1_sink = {.report = count_fault,
                                    .data = &form->l1_faults,
                                    .wordless = true};
    for (uint64_t i = 0; i < length / geometry->l2_entry_size; i++) {
        struct q2_l2_entry entry = q2_l2_load(geometry, piece, i);
        uint64_t faults = 0;
        const struct q2_sink sink = {.report = count_fault, .data = &faults, .wordless = true};
        if (entry.raw == 0 && entry.bitmap == 0)
            continue;
        q2_l2_entry_validate(geometry, &entry, 0,
                             geometry->data_file ? q2_entry_offset(entry.raw) : 0, &sink);
        form->l2_faults += faults > 0;
        form->mapped += faults == 0;
    }
    for (uint64_t i = 0; i < length / 8; i++) {
        uint64_t raw = q2_load_be64(piece + i * 8), faults = form->l1_faults;
        if (raw == 0)
            continue;
        q2_l1_entry_validate(geometry, raw, 0, &l1_sink);
        form->leads += form->l1_faults == faults;
    }
}

static bool
is_hopeless(uint64_t good, uint64_t faults)
{
    return faults > MANY_FAULTS && faults > good;
}

/* Whether the cluster at `offset` has the form of a table; reads no more than that takes. */
static bool
has_form(struct q2_carving *carving, uint64_t offset, bool *ret_l2, bool *ret_l1)
{
    struct q2_check *check = carving->slots->scene->check;
    const struct q2_geometry *geometry = &check->geometry;
    uint64_t step = q2_min(PROBE_BYTES, geometry->cluster_size);
    struct form form = {0};
    for (uint64_t at = 0; at < geometry->cluster_size; at += step) {
        if (q2_file_read_padded(check->file, offset + at, carving->buffer, step, NULL) < 0)
            return false;
        look_at_piece(geometry, carving->buffer, step, &form);
        if (is_hopeless(form.mapped, form.l2_faults) && is_hopeless(form.leads, form.l1_faults))
            return false;
    }
    *ret_l2 = form.mapped > 0 && form.l2_faults * 4 <= form.mapped;
    *ret_l1 = form.leads > 0 && form.l1_faults * 8 <= form.leads;
    return *ret_l2 || *ret_l1;
}

/* ---- facts ---- */

struct gathering {
    struct q2_carving *carving;
    struct q2_table_facts *facts;
    uint64_t last_index, last_cluster; /* of the entry that mapped something before */
    uint64_t run;
    bool any;
};

static void
gather_counts(struct gathering *gathering, const struct q2_l2_entry *entry, uint64_t index,
              uint64_t cluster)
{
    struct q2_slots *slots = gathering->carving->slots;
    struct q2_table_facts *facts = gathering->facts;
    uint64_t refcount = q2_survey_refcount(slots->survey, &slots->reader, cluster);
    bool compressed = entry->raw & Q2_ENTRY_COMPRESSED;
    facts->room += refcount > q2_slots_references(slots, cluster);
    if (!compressed && refcount == 1) {
        facts->own++;
        facts->own_copied += (entry->raw & Q2_ENTRY_COPIED) != 0;
    }
    if (q2_bit_test(slots->survey->sound, cluster) && !compressed && facts->shared++ == 0) {
        facts->key_index = index;
        facts->key_cluster = cluster;
    }
}

static void
gather_entry(struct gathering *gathering, const struct q2_l2_entry *entry, uint64_t index)
{
    const struct q2_geometry *geometry = &gathering->carving->slots->scene->check->geometry;
    struct q2_table_facts *facts = gathering->facts;
    uint64_t first, count, faults = 0;
    const struct q2_sink sink = {.report = count_fault, .data = &faults, .wordless = true};
    if (geometry->data_file && q2_l2_kind(geometry, entry->raw) == Q2_CLUSTER_STANDARD &&
        facts->data_slot == Q2_NO_SLOT)
        facts->data_slot = q2_entry_offset(entry->raw) / q2_l2_reach(geometry);
    q2_l2_entry_validate(geometry, entry, 0, 0, &sink);
    if (faults || !q2_entry_clusters(geometry, entry->raw, &first, &count))
        return;
    gather_counts(gathering, entry, index, first);
    /* Compressed clusters in a row end and begin in the same host cluster. */
    bool joined = (entry->raw & Q2_ENTRY_COMPRESSED) && first == gathering->last_cluster;
    bool follows = gathering->any && index == gathering->last_index + 1 &&
                   (joined || first == gathering->last_cluster + 1);
    facts->ascending = facts->ascending && (!gathering->any || first >= gathering->last_cluster);
    facts->lowest = gathering->any ? q2_min(facts->lowest, first) : first;
    facts->highest = q2_max(facts->highest, first + count - 1);
    /* As long as the first run lasts, it is the head too. */
    bool head = !gathering->any || (follows && facts->head == gathering->run);
    gathering->run = follows ? gathering->run + 1 : 1;
    if (head)
        facts->head = gathering->run;
    facts->tail = gathering->run;
    gathering->any = true;
    gathering->last_index = index;
    gathering->last_cluster = first + count - 1;
}

int
q2_table_facts(struct q2_carving *carving, uint64_t offset, struct q2_table_facts *ret_facts,
               struct q2_error *err)
{
    struct q2_check *check = carving->slots->scene->check;
    const struct q2_geometry *geometry = &check->geometry;
    struct q2_table_facts facts = {.ascending = true, .data_slot = Q2_NO_SLOT};
    struct gathering gathering = {.carving = carving, .facts = &facts};
    int rc = q2_survey_look(carving->slots->survey, offset, &facts.look, err);
    if (rc < 0)
        return rc;
    if (facts.look.readable &&
        q2_file_read_padded(check->file, offset, carving->buffer, geometry->cluster_size, NULL) < 0)
        facts.look.readable = false;
    for (uint64_t i = 0; facts.look.readable && i < geometry->l2_entries; i++) {
        struct q2_l2_entry entry = q2_l2_load(geometry, carving->buffer, i);
        if (entry.raw == 0 && entry.bitmap == 0)
            continue;
        facts.used = i + 1;
        gather_entry(&gathering, &entry, i);
    }
    *ret_facts = facts;
    return 0;
}

/* ---- finding them ---- */

struct q2_carved *
q2_carved_at(const struct q2_carving *carving, uint64_t offset)
{
    uint64_t low = 0, high = carving->count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (carving->tables[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < carving->count && carving->tables[low].offset == offset ? &carving->tables[low]
                                                                         : NULL;
}

static int
keep(struct q2_carving *carving, const struct q2_carved *table, struct q2_error *err)
{
    if (carving->count == carving->capacity) {
        uint64_t larger = carving->capacity ? carving->capacity * 2 : 16;
        void *memory = carving->tables;
        int rc = carving->count >= MAX_TABLES
                     ? Q2_ERR_BUDGET
                     : q2_budget_grow(&carving->slots->scene->budget, carving->capacity, larger,
                                      sizeof *carving->tables, "lost tables", &memory, err);
        if (rc == Q2_ERR_BUDGET)
            carving->dropped = true;
        if (rc < 0)
            return rc == Q2_ERR_BUDGET ? 0 : rc;
        carving->tables = memory;
        carving->capacity = larger;
    }
    carving->tables[carving->count++] = *table;
    return 0;
}

static int
probe(struct q2_carving *carving, uint64_t cluster, struct q2_error *err)
{
    struct q2_slots *slots = carving->slots;
    struct q2_carved table = {.offset = cluster << slots->scene->check->geometry.cluster_bits,
                              .home = Q2_NO_SLOT,
                              .named = Q2_NO_SLOT};
    bool l1;
    if (carving->dropped || !has_form(carving, table.offset, &table.like_l2, &l1))
        return 0;
    int rc = q2_table_facts(carving, table.offset, &table.facts, err);
    if (rc < 0)
        return rc;
    table.like_l2 = table.like_l2 && q2_table_credible(&table.facts.look);
    if (!table.like_l2 && !l1)
        return 0;
    table.refcount = q2_survey_refcount(slots->survey, &slots->reader, cluster);
    return keep(carving, &table, err);
}

/* The end of the hole at a cluster, in clusters; the cluster itself if it has data. */
static uint64_t
hole_end(struct q2_carving *carving, uint64_t cluster)
{
    struct q2_check *check = carving->slots->scene->check;
    unsigned bits = check->geometry.cluster_bits;
    bool data = true;
    uint64_t end = 0;
    if (q2_file_extent(check->file, cluster << bits, &data, &end, NULL) < 0 || data)
        return cluster;
    return q2_max(end >> bits, cluster);
}

static int
scan(struct q2_carving *carving, struct q2_error *err)
{
    struct q2_survey *survey = carving->slots->survey;
    uint64_t checked = 0; /* below it, there is no hole */
    for (uint64_t cluster = 1; cluster < survey->clusters; cluster++) {
        if (cluster % 64 == 0 && survey->sound[cluster / 64] == UINT64_MAX) {
            cluster += 63;
            continue;
        }
        if (!q2_survey_lost(survey, cluster))
            continue;
        uint64_t end = cluster >= checked ? hole_end(carving, cluster) : cluster;
        if (end > cluster) {
            cluster = end - 1;
            continue;
        }
        checked = cluster >= checked ? cluster + 16 : checked;
        int rc = probe(carving, cluster, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- what they are to each other ---- */

static bool
leads_to_table(const struct q2_carving *carving, uint64_t raw)
{
    uint64_t offset = q2_entry_offset(raw);
    const struct q2_carved *found = q2_carved_at(carving, offset);
    return offset && ((found && found->like_l2) || q2_slots_owner(carving->slots, offset));
}

/* Count the words of a cluster that lead to tables, and mark those tables as data or as explained
 * where it is known what the cluster is. */
static void
follow(struct q2_carving *carving, struct q2_carved *table, bool mark)
{
    struct q2_check *check = carving->slots->scene->check;
    const struct q2_geometry *geometry = &check->geometry;
    uint64_t step = table->is_l1 || !mark ? 8 : geometry->l2_entry_size, leads = 0, words = 0;
    if (q2_file_read_padded(check->file, table->offset, carving->buffer, geometry->cluster_size,
                            NULL) < 0)
        return;
    for (uint64_t at = 0; at < geometry->cluster_size; at += step) {
        uint64_t raw = q2_load_be64(carving->buffer + at);
        if (raw == 0 || (raw & q2_entry_odd_bits(geometry)))
            continue;
        words++;
        if (!leads_to_table(carving, raw))
            continue;
        leads++;
        struct q2_carved *target = q2_carved_at(carving, q2_entry_offset(raw));
        if (!mark || !target || target == table)
            continue;
        if (table->is_l1)
            target->leads++;
        else
            target->is_data = true;
    }
    if (!mark) {
        table->facts.tables = leads;
        table->is_l1 = leads > 0 && leads * 2 >= words;
    }
}

static void
relate(struct q2_carving *carving)
{
    for (uint64_t i = 0; i < carving->count; i++)
        follow(carving, &carving->tables[i], false);
    for (uint64_t i = 0; i < carving->count; i++)
        if (carving->tables[i].is_l1 || carving->tables[i].like_l2)
            follow(carving, &carving->tables[i], true);
}

/* ---- what they share with tables in place ---- */

/* Which slot a table belongs to that shares data with one in place. */
static void
compare_with(struct q2_carving *carving, const struct q2_slot_owner *owner)
{
    const struct q2_geometry *geometry = &carving->slots->scene->check->geometry;
    for (uint64_t i = 0; i < carving->count; i++) {
        struct q2_carved *table = &carving->tables[i];
        if (table->facts.shared == 0 || !table->like_l2)
            continue;
        struct q2_l2_entry entry = q2_l2_load(geometry, carving->buffer, table->facts.key_index);
        uint64_t first, count;
        if (!(entry.raw & Q2_ENTRY_COMPRESSED) &&
            q2_entry_clusters(geometry, entry.raw, &first, &count) &&
            first == table->facts.key_cluster)
            table->home = owner->slot;
    }
}

static void
find_homes(struct q2_carving *carving)
{
    struct q2_check *check = carving->slots->scene->check;
    uint64_t sharing = 0;
    for (uint64_t i = 0; i < carving->count; i++)
        sharing += carving->tables[i].like_l2 && carving->tables[i].facts.shared > 0;
    bool affordable = sharing && carving->slots->owner_count < MAX_TURNS / carving->count;
    for (uint64_t i = 0; affordable && i < carving->slots->owner_count; i++) {
        const struct q2_slot_owner *owner = &carving->slots->owners[i];
        if (q2_file_read_padded(check->file, owner->offset, carving->buffer,
                                check->geometry.cluster_size, NULL) == 0)
            compare_with(carving, owner);
    }
    for (uint64_t i = 0; i < carving->count; i++) {
        struct q2_carved *table = &carving->tables[i];
        if (table->facts.data_slot != Q2_NO_SLOT)
            table->home = table->facts.data_slot;
        table->stale = table->facts.shared > 0 && table->home == Q2_NO_SLOT;
    }
}

bool
q2_carved_is_l2(const struct q2_carving *carving, const struct q2_carved *table)
{
    bool counts = carving->slots->survey->counts_help;
    bool data_file = carving->slots->scene->check->geometry.data_file;
    return table->like_l2 && !table->is_l1 && !table->is_data && !table->stale &&
           (!counts || data_file || table->facts.room == table->facts.look.mapped);
}

/* ---- the whole ---- */

int
q2_carve(struct q2_slots *slots, struct q2_carving **ret_carving, struct q2_error *err)
{
    struct q2_carving *carving = calloc(1, sizeof *carving);
    if (!carving)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for lost tables");
    carving->slots = slots;
    void *buffer;
    int rc = q2_budget_calloc(&slots->scene->budget, slots->scene->check->geometry.cluster_size, 1,
                              "lost tables", &buffer, err);
    if (rc == 0) {
        carving->buffer = buffer;
        rc = scan(carving, err);
    }
    if (rc < 0) {
        q2_carving_free(carving);
        return rc;
    }
    relate(carving);
    find_homes(carving);
    *ret_carving = carving;
    return 0;
}

void
q2_carving_free(struct q2_carving *carving)
{
    if (!carving)
        return;
    struct q2_scene *scene = carving->slots->scene;
    q2_budget_free(&scene->budget, carving->tables, carving->capacity, sizeof *carving->tables);
    q2_budget_free(&scene->budget, carving->buffer, scene->check->geometry.cluster_size, 1);
    free(carving);
}
