/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Lost tables and open slots, one map at a time.
 *
 * First come the tables whose slot is known from what they share with others, or that continue a
 * neighbour. Tables that continue each other make chains, which keep together. Where the tables in
 * place lie in the file in the order of their slots, a sequential writer made the map, and the
 * chains go between their neighbours in the file; they are determined where pushing them all to
 * the left and all to the right comes out the same. */

#include "core/base/checked.h"
#include "repair/place_parts.h"

#include <stdlib.h>

/* Bytes: parts of a disk seldom begin and end at multiples of that. */
enum { RARE_BORDER = 32 << 20 };

/* ---- who takes part ---- */

bool
q2_work_open(const struct q2_place_work *work, uint64_t slot)
{
    return q2_slot_open(work->slots, slot);
}

static bool
takes_part(const struct q2_place_work *work, const struct q2_carved *table)
{
    return q2_carved_is_l2(work->placing->carving, table) && !table->placed &&
           q2_table_flags_fit(work->placing, table, work->map) &&
           (table->home == Q2_NO_SLOT || q2_work_open(work, table->home));
}

static int
add_node(struct q2_place_work *work, uint64_t offset, struct q2_carved *found, uint64_t slot,
         struct q2_error *err)
{
    if (work->count == work->capacity) {
        uint64_t larger = work->capacity ? work->capacity * 2 : 64;
        void *memory = work->nodes;
        int rc = q2_budget_grow(&work->placing->slots->scene->budget, work->capacity, larger,
                                sizeof *work->nodes, "places of tables", &memory, err);
        if (rc < 0)
            return rc;
        work->nodes = memory;
        work->capacity = larger;
    }
    struct q2_node *node = &work->nodes[work->count];
    *node = (struct q2_node){
        .found = found, .offset = offset, .slot = slot, .next = Q2_NO_NODE, .previous = Q2_NO_NODE};
    if (found)
        node->facts = found->facts;
    else {
        int rc = q2_table_facts(work->placing->carving, offset, &node->facts, err);
        if (rc < 0)
            return rc;
    }
    work->count++;
    work->loose += found != NULL;
    return 0;
}

uint64_t
q2_work_table(const struct q2_place_work *work, uint64_t slot)
{
    bool has =
        work->slots->state[slot] == Q2_SLOT_SOUND || work->slots->state[slot] == Q2_SLOT_PLACED;
    return has ? q2_entry_offset(work->slots->raw[slot]) : 0;
}

static int
gather(struct q2_place_work *work, struct q2_error *err)
{
    struct q2_carving *carving = work->placing->carving;
    uint64_t highest = 0, last = 0;
    int rc = 0;
    work->in_order = true;
    for (uint64_t i = 0; i < carving->count && rc == 0; i++)
        if (takes_part(work, &carving->tables[i]))
            rc = add_node(work, carving->tables[i].offset, &carving->tables[i], Q2_NO_SLOT, err);
    for (uint64_t s = 0; s < work->slots->slots && work->loose && rc == 0; s++) {
        work->open += q2_work_open(work, s);
        uint64_t table = q2_work_table(work, s);
        if (!table)
            continue;
        work->anchors++;
        work->in_order = work->in_order && table > highest;
        highest = q2_max(highest, table);
        bool beside = (s > last && q2_work_open(work, s - 1)) ||
                      (s + 1 < work->slots->slots && q2_work_open(work, s + 1));
        if (beside)
            rc = add_node(work, table, NULL, s, err);
    }
    return rc;
}

/* ---- continuations ---- */

static int
compare_nodes(const void *left, const void *right)
{
    const struct q2_node *a = left, *b = right;
    uint64_t x = a->facts.look.first_cluster, y = b->facts.look.first_cluster;
    if (x != y)
        return x < y ? -1 : 1;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

static uint64_t
first_from(const struct q2_place_work *work, uint64_t cluster)
{
    uint64_t low = 0, high = work->count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (work->nodes[middle].facts.look.first_cluster < cluster)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void
link_nodes(struct q2_place_work *work)
{
    enum { REACH = 16 };
    if (work->count)
        qsort(work->nodes, work->count, sizeof *work->nodes, compare_nodes);
    for (uint64_t i = 0; i < work->count; i++) {
        struct q2_node *node = &work->nodes[i];
        uint64_t from = first_from(work, node->facts.look.last_cluster);
        for (uint64_t j = from; j < q2_min(from + REACH, work->count); j++) {
            struct q2_node *other = &work->nodes[j];
            bool strong;
            if (j == i || node->next != Q2_NO_NODE || other->previous != Q2_NO_NODE ||
                !q2_tables_follow(work->placing, &node->facts, other->offset, &other->facts,
                                  &strong) ||
                (node->slot != Q2_NO_SLOT && other->slot != Q2_NO_SLOT))
                continue;
            node->next = (int64_t)j;
            node->strong = strong;
            other->previous = (int64_t)i;
            work->strong += strong;
        }
    }
}

/* ---- putting them there ---- */

int
q2_work_put(struct q2_place_work *work, struct q2_node *node, uint64_t slot,
            enum q2_confidence confidence, const char *why, struct q2_error *err)
{
    const struct q2_survey *survey = work->placing->slots->survey;
    bool data_file = work->placing->slots->scene->check->geometry.data_file;
    if (!survey->counts_help && !data_file && confidence == Q2_CERTAIN)
        confidence = Q2_LIKELY;
    if (work->twin && confidence == Q2_CERTAIN)
        confidence = Q2_LIKELY;
    if (node->found->leads || work->placing->carving->dropped || survey->dropped)
        confidence = Q2_GUESS;
    const struct q2_placement placement = {.map = work->map,
                                           .slot = slot,
                                           .table = node->offset,
                                           .found = node->found,
                                           .confidence = confidence,
                                           .why = why};
    node->slot = slot;
    work->loose--;
    work->open--;
    return q2_place(work->placing, &placement, err);
}

/* Whether what a table maps says that it goes into another slot, which is open. */
static bool
is_named_otherwise(const struct q2_place_work *work, const struct q2_carved *table, uint64_t slot)
{
    return work->map == 0 && table->ruled && table->named != slot &&
           q2_work_open(work, table->named) &&
           q2_table_fits(work->placing, &table->facts, work->map, table->named);
}

bool
q2_work_can_go(const struct q2_place_work *work, const struct q2_node *node, uint64_t slot)
{
    return q2_work_open(work, slot) && !is_named_otherwise(work, node->found, slot) &&
           q2_table_fits(work->placing, &node->facts, work->map, slot) &&
           (node->found->home == Q2_NO_SLOT || node->found->home == slot);
}

/* Whether a sound slot leads to the table to which a damaged entry of another slot leads too, but
 * for bits beside the offset: then either has come to it by damage. */
static bool
is_contested(const struct q2_slots *slots, uint32_t map, uint64_t slot)
{
    const struct q2_slot_map *of = &slots->maps[map];
    const struct q2_survey *survey = slots->survey;
    if (!of->raw || slot >= of->slots || of->state[slot] != Q2_SLOT_SOUND)
        return false;
    for (uint64_t i = 0; i < survey->suspect_count; i++) {
        const struct q2_suspect *other = &survey->suspects[i];
        if (other->is_l1 && other->why == Q2_SUSPECT_RULE && other->l1_index != slot &&
            q2_entry_offset(other->entry.raw) == q2_entry_offset(of->raw[slot]) &&
            q2_slot_open(&slots->maps[other->map], other->l1_index))
            return true;
    }
    return false;
}

uint64_t
q2_work_rivals(const struct q2_place_work *work, const struct q2_carved *table, uint64_t slot)
{
    const struct q2_slots *slots = work->placing->slots;
    uint64_t count = 0;
    if (!q2_placing_spend(work->placing, slots->map_count * (slots->survey->suspect_count + 1)))
        return UINT64_MAX;
    for (uint32_t m = 0; m < slots->map_count; m++)
        count += (q2_slot_open(&slots->maps[m], slot) || is_contested(slots, m, slot)) &&
                 q2_table_flags_fit(work->placing, table, m) &&
                 q2_table_fits(work->placing, &table->facts, m, slot);
    return count;
}

static uint64_t
claims_on(const struct q2_place_work *work, uint64_t home)
{
    uint64_t count = 0;
    if (!q2_placing_spend(work->placing, work->count))
        return UINT64_MAX;
    for (uint64_t i = 0; i < work->count; i++)
        count += work->nodes[i].found && work->nodes[i].found->home == home;
    return count;
}

static int
put_home(struct q2_place_work *work, struct q2_error *err)
{
    int rc = 0;
    for (uint64_t i = 0; i < work->count && rc == 0; i++) {
        struct q2_node *node = &work->nodes[i];
        if (!node->found || node->slot != Q2_NO_SLOT || node->found->home == Q2_NO_SLOT ||
            !q2_work_can_go(work, node, node->found->home))
            continue;
        uint64_t home = node->found->home;
        bool alone = q2_work_rivals(work, node->found, home) == 1 && claims_on(work, home) == 1;
        rc = q2_work_put(work, node, home, alone ? Q2_CERTAIN : Q2_GUESS,
                         work->placing->slots->scene->check->geometry.data_file
                             ? "its entries name the guest's clusters"
                             : "it shares data with the table that another map has there",
                         err);
    }
    return rc;
}

/* How sure a continuation makes a slot. A sequential writer that leaves out a part of the disk
 * comes to the same where both ends of that part are borders of slots, which is rare where slots
 * are large; the other neighbour may settle it. */
static enum q2_confidence
trust_link(const struct q2_place_work *work, const struct q2_node *other, uint64_t slot,
           bool forward, bool strong)
{
    const struct q2_check *check = work->placing->slots->scene->check;
    int64_t beyond = forward ? other->next : other->previous;
    const struct q2_node *third = beyond == Q2_NO_NODE ? NULL : &work->nodes[beyond];
    uint64_t behind = forward ? slot + 1 : slot - 1;
    if (third && third->slot != Q2_NO_SLOT && third->slot != behind)
        return Q2_GUESS;
    if (q2_work_rivals(work, other->found, slot) != 1)
        return Q2_GUESS;
    if (third && third->slot == behind)
        return Q2_CERTAIN;
    return strong && q2_l2_reach(&check->geometry) >= RARE_BORDER ? Q2_CERTAIN : Q2_LIKELY;
}

/* Follow continuations from tables whose slot is known. */
static int
put_along(struct q2_place_work *work, struct q2_node *from, bool forward, struct q2_error *err)
{
    struct q2_node *node = from;
    int rc = 0;
    for (uint64_t turns = 0; turns < work->count && rc == 0; turns++) {
        int64_t to = forward ? node->next : node->previous;
        struct q2_node *other = to == Q2_NO_NODE ? NULL : &work->nodes[to];
        uint64_t slot = forward ? node->slot + 1 : node->slot - 1;
        if (!other || other->slot != Q2_NO_SLOT || (!forward && node->slot == 0) ||
            !q2_work_can_go(work, other, slot))
            break;
        bool strong = forward ? node->strong : other->strong;
        enum q2_confidence confidence = trust_link(work, other, slot, forward, strong);
        if (confidence != Q2_GUESS)
            rc = q2_work_put(work, other, slot, confidence,
                             forward ? "its data goes on where that of the slot before ends"
                                     : "its data ends where that of the next slot goes on",
                             err);
        else
            break;
        node = other;
    }
    return rc;
}

static int
put_chains(struct q2_place_work *work, struct q2_error *err)
{
    int rc = 0;
    for (uint64_t i = 0; i < work->count && rc == 0; i++) {
        if (work->nodes[i].slot == Q2_NO_SLOT)
            continue;
        rc = put_along(work, &work->nodes[i], true, err);
        if (rc == 0)
            rc = put_along(work, &work->nodes[i], false, err);
    }
    return rc;
}

/* Tables into the slots that their data names. */
static int
put_named(struct q2_place_work *work, struct q2_error *err)
{
    int rc = 0;
    for (uint64_t i = 0; work->map == 0 && i < work->count && rc == 0; i++) {
        struct q2_node *node = &work->nodes[i];
        if (!node->found || node->slot != Q2_NO_SLOT || node->found->named == Q2_NO_SLOT ||
            !q2_work_can_go(work, node, node->found->named))
            continue;
        bool alone = q2_work_rivals(work, node->found, node->found->named) == 1;
        rc = q2_work_put(work, node, node->found->named,
                         alone && node->found->ruled ? Q2_LIKELY : Q2_GUESS,
                         "the blocks that it maps are numbered, and so is its slot", err);
    }
    return rc;
}

/* ---- the whole ---- */

static int
place_map(struct q2_placing *placing, uint32_t map, struct q2_error *err)
{
    struct q2_place_work work = {.placing = placing,
                                 .map = map,
                                 .slots = &placing->slots->maps[map]};
    int rc = work.slots->raw ? gather(&work, err) : 0;
    if (rc == 0 && work.loose && work.open) {
        work.twin = map == 0 && placing->twin;
        link_nodes(&work);
        rc = put_home(&work, err);
        if (rc == 0)
            rc = q2_put_in_order(&work, true, err);
        if (rc == 0)
            rc = put_chains(&work, err);
        if (rc == 0)
            rc = put_named(&work, err);
        if (rc == 0)
            rc = q2_put_in_order(&work, false, err);
    }
    q2_budget_free(&placing->slots->scene->budget, work.nodes, work.capacity, sizeof *work.nodes);
    return rc;
}

int
q2_place_lost(struct q2_placing *placing, struct q2_error *err)
{
    int rc = 0;
    for (uint32_t m = 0; m < placing->slots->map_count && rc == 0; m++)
        rc = place_map(placing, m, err);
    return rc;
}
