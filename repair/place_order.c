/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Placing by order: lost tables, in chains, between their neighbours in the file. */

#include "core/base/checked.h"
#include "repair/place_parts.h"

#include <stdlib.h>

enum {
    ENOUGH = 5, /* tables in order, or continuing each other, that make a rule */
    MANY = 8,   /* entries in order that make one */
};

static int
compare_places(const void *left, const void *right)
{
    const struct q2_node *const *a = left, *const *b = right;
    return ((*a)->offset > (*b)->offset) - ((*a)->offset < (*b)->offset);
}

/* Nodes without a slot in the order in which they are to go: chains by the offset of their first
 * table, each in one piece. */
static uint64_t
list_chains(struct q2_place_work *work, struct q2_node **list)
{
    uint64_t heads = 0, count = 0;
    for (uint64_t i = 0; i < work->count; i++) {
        struct q2_node *node = &work->nodes[i];
        if (node->slot == Q2_NO_SLOT &&
            (node->previous == Q2_NO_NODE || work->nodes[node->previous].slot != Q2_NO_SLOT))
            list[heads++] = node;
    }
    if (heads)
        qsort(list, heads, sizeof(struct q2_node *), compare_places);
    for (uint64_t i = heads; i > 0; i--)
        list[work->loose - heads + i - 1] = list[i - 1];
    for (uint64_t i = work->loose - heads; i < work->loose; i++)
        for (struct q2_node *node = list[i]; node && count <= i;) {
            list[count++] = node;
            node = node->next == Q2_NO_NODE || work->nodes[node->next].slot != Q2_NO_SLOT
                       ? NULL
                       : &work->nodes[node->next];
        }
    return count;
}

/* The slots between the tables in place that lie before and behind a node in the file. */
static void
bounds_of(const struct q2_place_work *work, const struct q2_node *node, uint64_t *ret_low,
          uint64_t *ret_high)
{
    uint64_t low = 0, high = work->slots->slots;
    for (uint64_t s = 0; work->in_order && s < work->slots->slots; s++) {
        uint64_t table = q2_work_table(work, s);
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
joined(const struct q2_place_work *work, const struct q2_node *left, const struct q2_node *right)
{
    return left && right && left->next != Q2_NO_NODE && &work->nodes[left->next] == right;
}

/* Push all nodes as far left as they go. Returns whether they have room. */
static bool
push_left(const struct q2_place_work *work, struct q2_node **list, uint64_t count)
{
    uint64_t at = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t low, high;
        if (!q2_placing_spend(work->placing, work->slots->slots))
            return false;
        bounds_of(work, list[i], &low, &high);
        at = q2_max(at, low);
        while (at < work->slots->slots && !q2_work_can_go(work, list[i], at))
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
push_right(const struct q2_place_work *work, struct q2_node **list, uint64_t count)
{
    uint64_t end = work->slots->slots;
    for (uint64_t i = count; i-- > 0;) {
        uint64_t low, high;
        bounds_of(work, list[i], &low, &high);
        end = q2_min(end, high);
        while (end > 0 && !q2_work_can_go(work, list[i], end - 1))
            end--;
        if (end == 0)
            return false;
        list[i]->right = --end;
    }
    return true;
}

/* Whether each lost table was filled from its begin to its end, one after the other. */
static bool
are_sequential(struct q2_node *const *list, uint64_t count)
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
trust(const struct q2_place_work *work, struct q2_node *const *list, uint64_t count)
{
    uint64_t loose = count, open = work->open;
    if (work->map && work->placing->slots->map_count > 2)
        return Q2_GUESS;
    if (loose == 1 && open == 1)
        return Q2_CERTAIN;
    /* Two tables in place are the least that has an order. */
    if (!work->in_order || (loose > 1 && work->anchors < 2 && !are_sequential(list, count)))
        return Q2_GUESS;
    if (are_sequential(list, count) && (loose == open || work->anchors + work->strong >= ENOUGH))
        return Q2_CERTAIN;
    return Q2_LIKELY;
}

int
q2_put_in_order(struct q2_place_work *work, bool certain, struct q2_error *err)
{
    void *memory;
    uint64_t loose = work->loose;
    if (loose == 0)
        return 0;
    struct q2_budget *budget = &work->placing->slots->scene->budget;
    int rc =
        q2_budget_calloc(budget, loose, sizeof(struct q2_node *), "places of tables", &memory, err);
    if (rc < 0)
        return rc;
    struct q2_node **list = memory;
    uint64_t count = list_chains(work, list);
    bool fits = push_left(work, list, count);
    if (!fits && work->in_order) {
        /* One that does not fit into the order says that there is none. */
        work->in_order = false;
        fits = push_left(work, list, count);
    }
    bool both = fits && push_right(work, list, count);
    enum q2_confidence best = trust(work, list, count);
    for (uint64_t i = 0; i < count && fits && rc == 0; i++) {
        bool determined = both && list[i]->left == list[i]->right;
        bool alone = q2_work_rivals(work, list[i]->found, list[i]->left) == 1;
        enum q2_confidence confidence = determined && alone ? best : Q2_GUESS;
        if (certain && confidence != Q2_CERTAIN)
            continue;
        rc = q2_work_put(work, list[i], list[i]->left, confidence,
                         determined ? "no other slot is left for it"
                                    : "it may go there by its position",
                         err);
    }
    q2_budget_free(budget, memory, loose, sizeof(struct q2_node *));
    return rc;
}
