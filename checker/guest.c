/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/guest.h"

#include "core/base/checked.h"

#include <stdlib.h>

/* Beyond this many distinct claims at one guest offset, sorting beats looking through them all. */
enum { FEW_CLAIMS = 32 };

static void
absorb(struct q2_claim *claim, const struct q2_slot_table *table, const struct q2_l2_entry *entry)
{
    claim->references += table->references;
    if (table->active) {
        claim->active = true;
        claim->active_entry = *entry;
    }
}

static int
compare_keys(const void *left, const void *right)
{
    const struct q2_claim *a = left, *b = right;
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    return (a->table > b->table) - (a->table < b->table);
}

/* Join equal neighbours. */
static uint64_t
unite(struct q2_claim *claims, uint64_t count)
{
    uint64_t kept = 0;
    qsort(claims, count, sizeof *claims, compare_keys);
    for (uint64_t i = 0; i < count; i++) {
        if (kept == 0 || claims[kept - 1].key != claims[i].key) {
            claims[kept++] = claims[i];
            continue;
        }
        claims[kept - 1].references += claims[i].references;
        if (claims[i].active) {
            claims[kept - 1].active = true;
            claims[kept - 1].active_entry = claims[i].active_entry;
        }
    }
    return kept;
}

/* The claim with this key among the first few; tables next to each other mostly agree. */
static struct q2_claim *
find(struct q2_claim *claims, uint64_t count, uint64_t key)
{
    for (uint64_t i = count; i-- > 0;)
        if (claims[i].key == key)
            return &claims[i];
    return NULL;
}

uint64_t
q2_claims_collect(const struct q2_window *window, uint8_t *const *buffers, uint64_t index,
                  struct q2_claim *claims)
{
    const struct q2_geometry *geometry = &window->check->geometry;
    uint64_t count = 0;
    bool many = false;
    for (uint64_t t = 0; t < window->table_count; t++) {
        struct q2_l2_entry entry = q2_l2_load(geometry, buffers[t], index);
        uint64_t key = q2_claim_key(geometry, entry.raw);
        if (key == 0)
            continue;
        struct q2_claim *claim = many ? NULL : find(claims, count, key);
        if (!claim) {
            claim = &claims[count++];
            *claim = (struct q2_claim){.key = key, .entry = entry, .table = t};
            many = count > FEW_CLAIMS;
        }
        absorb(claim, &window->tables[t], &entry);
    }
    return many ? unite(claims, count) : count;
}
