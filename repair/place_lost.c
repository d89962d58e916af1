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
#include "repair/place.h"

#include <stdlib.h>

enum {
    NO_NODE = -1,
    ENOUGH = 5, /* tables in order, or continuing each other, that make a rule */
    MANY = 8,   /* entries in order that make one */
};

/* A table that has, or may have, a place in the map at hand. */
struct node {
    struct q2_carved *found; /* NULL: in place */
    uint64_t offset;         /* host, bytes */
    struct q2_table_facts facts;
    uint64_t slot; /* Q2_NO_SLOT: not known yet */
    int64_t next, previous;
    bool strong; /* the continuation in `next` is */
    uint64_t left, right;
};

struct work {
    struct q2_placing *placing;
    uint32_t map;
    struct q2_slot_map *slots;
    struct node *nodes; /* by the first host cluster that they map */
    uint64_t count, capacity;
    uint64_t loose;  /* nodes without a slot */
    uint64_t open;   /* slots */
    uint64_t strong; /* continuations */
    uint64_t anchors;
    bool in_order; /* the tables in place are */
    bool twin;     /* some snapshot has the same L1 table: what is lost may be from before */
};

/* ---- who takes part ---- */

static bool
is_open(const struct work *work, uint64_t slot)
{
    return q2_slot_open(work->slots, slot);
}

static bool
takes_part(const struct work *work, const struct q2_carved *table)
{
    return q2_carved_is_l2(work->placing->carving, table) && !table->placed &&
           q2_table_flags_fit(work->placing, table, work->map) &&
           (table->home == Q2_NO_SLOT || is_open(work, table->home));
}

static int
add_node(struct work *work, uint64_t offset, struct q2_carved *found, uint64_t slot,
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
    struct node *node = &work->nodes[work->count];
    *node = (struct node){
        .found = found, .offset = offset, .slot = slot, .next = NO_NODE, .previous = NO_NODE};
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

/* The table that a slot has now, 0 for none. */
static uint64_t
table_in(const struct work *work, uint64_t slot)
{
    bool has =
        work->slots->state[slot] == Q2_SLOT_SOUND || work->slots->state[slot] == Q2_SLOT_PLACED;
    return has ? q2_entry_offset(work->slots->raw[slot]) : 0;
}

static int
gather(struct work *work, struct q2_error *err)
{
    struct q2_carving *carving = work->placing->carving;
    uint64_t highest = 0, last = 0;
    int rc = 0;
    work->in_order = true;
    for (uint64_t i = 0; i < carving->count && rc == 0; i++)
        if (takes_part(work, &carving->tables[i]))
            rc = add_node(work, carving->tables[i].offset, &carving->tables[i], Q2_NO_SLOT, err);
    for (uint64_t s = 0; s < work->slots->slots && work->loose && rc == 0; s++) {
        work->open += is_open(work, s);
        uint64_t table = table_in(work, s);
        if (!table)
            continue;
        work->anchors++;
        work->in_order = work->in_order && table > highest;
        highest = q2_max(highest, table);
        bool beside = (s > last && is_open(work, s - 1)) ||
                      (s + 1 < work->slots->slots && is_open(work, s + 1));
        if (beside)
            rc = add_node(work, table, NULL, s, err);
    }
    return rc;
}

/* Whether a snapshot's L1 table is the same as the active one: then the disk was just set back to
 * it, or nothing was written since, and lost tables may be those of a state that was given up. */
static bool
has_twin(const struct q2_slots *slots)
{
    const struct q2_slot_map *active = &slots->maps[0];
    for (uint32_t m = 1; m < slots->map_count; m++) {
        const struct q2_slot_map *map = &slots->maps[m];
        bool same = map->raw && map->sound > 0;
        for (uint64_t s = 0; s < q2_min(active->size, map->size) && same; s++)
            same = q2_entry_offset(active->raw[s]) == q2_entry_offset(map->raw[s]);
        if (same)
            return true;
    }
    return false;
}

/* ---- continuations ---- */

static int
compare_nodes(const void *left, const void *right)
{
    const struct node *a = left, *b = right;
    uint64_t x = a->facts.look.first_cluster, y = b->facts.look.first_cluster;
    if (x != y)
        return x < y ? -1 : 1;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

static uint64_t
first_from(const struct work *work, uint64_t cluster)
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
link_nodes(struct work *work)
{
    enum { REACH = 16 };
    if (work->count)
        qsort(work->nodes, work->count, sizeof *work->nodes, compare_nodes);
    for (uint64_t i = 0; i < work->count; i++) {
        struct node *node = &work->nodes[i];
        uint64_t from = first_from(work, node->facts.look.last_cluster);
        for (uint64_t j = from; j < q2_min(from + REACH, work->count); j++) {
            struct node *other = &work->nodes[j];
            bool strong;
            if (j == i || node->next != NO_NODE || other->previous != NO_NODE ||
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

static int
put(struct work *work, struct node *node, uint64_t slot, enum q2_confidence confidence,
    const char *why, struct q2_error *err)
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

static bool
can_go(const struct work *work, const struct node *node, uint64_t slot)
{
    return is_open(work, slot) && q2_table_fits(work->placing, &node->facts, work->map, slot) &&
           (node->found->home == Q2_NO_SLOT || node->found->home == slot);
}

/* Maps in which a lost table could go into this slot. */
static uint64_t
rivals(const struct work *work, const struct q2_carved *table, uint64_t slot)
{
    const struct q2_slots *slots = work->placing->slots;
    uint64_t count = 0;
    if (!q2_placing_spend(work->placing, slots->map_count))
        return UINT64_MAX;
    for (uint32_t m = 0; m < slots->map_count; m++)
        count += q2_slot_open(&slots->maps[m], slot) &&
                 q2_table_flags_fit(work->placing, table, m) &&
                 q2_table_fits(work->placing, &table->facts, m, slot);
    return count;
}

static uint64_t
claims_on(const struct work *work, uint64_t home)
{
    uint64_t count = 0;
    if (!q2_placing_spend(work->placing, work->count))
        return UINT64_MAX;
    for (uint64_t i = 0; i < work->count; i++)
        count += work->nodes[i].found && work->nodes[i].found->home == home;
    return count;
}

static int
put_home(struct work *work, struct q2_error *err)
{
    int rc = 0;
    for (uint64_t i = 0; i < work->count && rc == 0; i++) {
        struct node *node = &work->nodes[i];
        if (!node->found || node->slot != Q2_NO_SLOT || node->found->home == Q2_NO_SLOT ||
            !can_go(work, node, node->found->home))
            continue;
        uint64_t home = node->found->home;
        bool alone = rivals(work, node->found, home) == 1 && claims_on(work, home) == 1;
        rc = put(work, node, home, alone ? Q2_CERTAIN : Q2_GUESS,
                 work->placing->slots->scene->check->geometry.data_file
                     ? "its entries name the guest's clusters"
                     : "it shares data with the table that another map has there",
                 err);
    }
    return rc;
}

/* Follow continuations from tables whose slot is known. */
static int
put_along(struct work *work, struct node *from, bool forward, struct q2_error *err)
{
    struct node *node = from;
    int rc = 0;
    for (uint64_t turns = 0; turns < work->count && rc == 0; turns++) {
        int64_t to = forward ? node->next : node->previous;
        struct node *other = to == NO_NODE ? NULL : &work->nodes[to];
        uint64_t slot = forward ? node->slot + 1 : node->slot - 1;
        if (!other || other->slot != Q2_NO_SLOT || (!forward && node->slot == 0) ||
            !can_go(work, other, slot))
            break;
        bool strong = forward ? node->strong : other->strong;
        bool alone = rivals(work, other->found, slot) == 1;
        enum q2_confidence confidence = strong ? Q2_CERTAIN : Q2_LIKELY;
        rc = put(work, other, slot, alone ? confidence : Q2_GUESS,
                 forward ? "its data goes on where that of the slot before ends"
                         : "its data ends where that of the next slot goes on",
                 err);
        node = other;
    }
    return rc;
}

static int
put_chains(struct work *work, struct q2_error *err)
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

/* ---- by order ---- */

static int
compare_places(const void *left, const void *right)
{
    const struct node *const *a = left, *const *b = right;
    return ((*a)->offset > (*b)->offset) - ((*a)->offset < (*b)->offset);
}

/* Nodes without a slot in the order in which they are to go: chains by the offset of their first
 * table, each in one piece. */
static uint64_t
list_chains(struct work *work, struct node **list)
{
    uint64_t heads = 0, count = 0;
    for (uint64_t i = 0; i < work->count; i++) {
        struct node *node = &work->nodes[i];
        if (node->slot == Q2_NO_SLOT &&
            (node->previous == NO_NODE || work->nodes[node->previous].slot != Q2_NO_SLOT))
            list[heads++] = node;
    }
    if (heads)
        qsort(list, heads, sizeof(struct node *), compare_places);
    for (uint64_t i = heads; i > 0; i--)
        list[work->loose - heads + i - 1] = list[i - 1];
    for (uint64_t i = work->loose - heads; i < work->loose; i++)
        for (struct node *node = list[i]; node && count <= i;) {
            list[count++] = node;
            node = node->next == NO_NODE || work->nodes[node->next].slot != Q2_NO_SLOT
                       ? NULL
                       : &work->nodes[node->next];
        }
    return count;
}

/* The slots between the tables in place that lie before and behind a node in the file. */
static void
bounds_of(const struct work *work, const struct node *node, uint64_t *ret_low, uint64_t *ret_high)
{
    uint64_t low = 0, high = work->slots->slots;
    for (uint64_t s = 0; work->in_order && s < work->slots->slots; s++) {
        uint64_t table = table_in(work, s);
        if (table && table < node->offset)
            low = s + 1;
        if (table > node->offset) {
            high = s;
            break;
        }
    }
    *ret_low = low;
    *ret_high = high;
}

static bool
joined(const struct work *work, const struct node *left, const struct node *right)
{
    return left && right && left->next != NO_NODE && &work->nodes[left->next] == right;
}

/* Push all nodes as far left as they go. Returns whether they have room. */
static bool
push_left(const struct work *work, struct node **list, uint64_t count)
{
    uint64_t at = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t low, high;
        if (!q2_placing_spend(work->placing, work->slots->slots))
            return false;
        bounds_of(work, list[i], &low, &high);
        at = q2_max(at, low);
        while (at < work->slots->slots && !can_go(work, list[i], at))
            at++;
        if (at >= work->slots->slots)
            return false;
        list[i]->left = at++;
        if (i && joined(work, list[i - 1], list[i]) && list[i]->left != list[i - 1]->left + 1) {
            /* The chain is torn: begin again with its first one, farther to the right. */
            uint64_t first = i;
            while (first && joined(work, list[first - 1], list[first]))
                first--;
            at = list[first]->left + 1;
            i = first - 1;
        }
    }
    return true;
}

static bool
push_right(const struct work *work, struct node **list, uint64_t count)
{
    uint64_t end = work->slots->slots;
    for (uint64_t i = count; i-- > 0;) {
        uint64_t low, high;
        bounds_of(work, list[i], &low, &high);
        end = q2_min(end, high);
        while (end > 0 && !can_go(work, list[i], end - 1))
            end--;
        if (end == 0)
            return false;
        list[i]->right = --end;
    }
    return true;
}

/* Whether each lost table was filled from its begin to its end, one after the other. */
static bool
are_sequential(struct node *const *list, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        const struct q2_table_facts *facts = &list[i]->facts;
        if (!facts->ascending || facts->look.mapped < MANY ||
            (i && list[i - 1]->facts.highest > facts->lowest))
            return false;
    }
    return true;
}

static enum q2_confidence
trust(const struct work *work, struct node *const *list, uint64_t count)
{
    uint64_t loose = count, open = work->open;
    if (work->map && work->placing->slots->map_count > 2)
        return Q2_GUESS;
    if (loose == 1 && open == 1)
        return Q2_CERTAIN;
    if (!work->in_order)
        return Q2_GUESS;
    if (are_sequential(list, count) && (loose == open || work->anchors + work->strong >= ENOUGH))
        return Q2_CERTAIN;
    return Q2_LIKELY;
}

static int
put_in_order(struct work *work, struct q2_error *err)
{
    void *memory;
    uint64_t loose = work->loose;
    if (loose == 0)
        return 0;
    struct q2_budget *budget = &work->placing->slots->scene->budget;
    int rc =
        q2_budget_calloc(budget, loose, sizeof(struct node *), "places of tables", &memory, err);
    if (rc < 0)
        return rc;
    struct node **list = memory;
    uint64_t count = list_chains(work, list);
    bool fits = push_left(work, list, count);
    bool both = fits && push_right(work, list, count);
    enum q2_confidence best = trust(work, list, count);
    for (uint64_t i = 0; i < count && fits && rc == 0; i++) {
        bool determined = both && list[i]->left == list[i]->right;
        bool alone = rivals(work, list[i]->found, list[i]->left) == 1;
        rc = put(work, list[i], list[i]->left, determined && alone ? best : Q2_GUESS,
                 determined ? "no other slot is left for it" : "it may go there by its position",
                 err);
    }
    q2_budget_free(budget, memory, loose, sizeof(struct node *));
    return rc;
}

/* ---- the whole ---- */

static int
place_map(struct q2_placing *placing, uint32_t map, struct q2_error *err)
{
    struct work work = {.placing = placing, .map = map, .slots = &placing->slots->maps[map]};
    int rc = work.slots->raw ? gather(&work, err) : 0;
    if (rc == 0 && work.loose && work.open) {
        work.twin = map == 0 && has_twin(placing->slots);
        link_nodes(&work);
        rc = put_home(&work, err);
        if (rc == 0)
            rc = put_chains(&work, err);
        if (rc == 0)
            rc = put_in_order(&work, err);
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
