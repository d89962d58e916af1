/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/masses.h"

#include "checker/window.h"
#include "core/base/checked.h"
#include "core/format/refcount.h"

/* Clusters that are explained in any case, and of each problem beyond these. */
enum { ROOM = 65536, ROOM_OF_EACH = 1024 };

/* Clusters of one word with the same number of references and the same refcount. */
struct group {
    uint64_t clusters;
    uint64_t references;
    uint64_t refcount;
    uint64_t wrong_flags; /* of these, those whose COPIED flag is wrong */
    uint64_t tables;      /* of these, L2 tables */
};

void
q2_masses_init(struct q2_masses *masses, struct q2_check *check)
{
    *masses = (struct q2_masses){.check = check, .words = check->geometry.file_clusters / 64 + 1};
    for (int p = 0; p < Q2_PROBLEM_COUNT; p++)
        masses->room[p] = ROOM_OF_EACH;
}

void
q2_masses_destroy(struct q2_masses *masses)
{
    q2_budget_free(&masses->check->budget, masses->tables, masses->words, 8);
    masses->tables = NULL;
}

/* ---- which clusters are L2 tables ---- */

static void
mark_tables(struct q2_masses *masses, struct q2_window *window)
{
    struct q2_check *check = masses->check;
    for (uint64_t unit = 0; unit < q2_unit_count(check); unit++) {
        q2_window_load(window, unit);
        for (uint64_t slot = window->first; slot < window->first + window->count; slot++) {
            q2_window_group(window, slot);
            for (uint64_t t = 0; t < window->table_count; t++)
                q2_bit_set(masses->tables, q2_cluster_of(check, window->tables[t].offset));
        }
    }
}

/* Whether it is known by now. The L1 tables are read once more, which is no work to speak of. */
static bool
knows_tables(struct q2_masses *masses)
{
    struct q2_check *check = masses->check;
    struct q2_window window;
    void *memory;
    if (masses->tables)
        return true;
    if (q2_budget_calloc(&check->budget, masses->words, 8, "list of tables", &memory, NULL) < 0)
        return false;
    if (q2_window_init(&window, check, NULL) < 0) {
        q2_budget_free(&check->budget, memory, masses->words, 8);
        return false;
    }
    uint64_t used = atomic_exchange(&check->work.used, 0);
    masses->tables = memory;
    mark_tables(masses, &window);
    atomic_store(&check->work.used, used);
    q2_window_destroy(&window);
    return true;
}

/* ---- what is wrong with them: as judge.c has it, of one owner ---- */

static bool
find_problem(const struct q2_masses *masses, const struct group *group,
             enum q2_problem *ret_problem)
{
    uint64_t most = q2_refcount_max(masses->check->geometry.refcount_order);
    uint64_t countable = q2_min(group->references, most);
    if (group->refcount == countable)
        return false;
    *ret_problem = group->refcount == 0          ? Q2_PROBLEM_REFCOUNT_ZERO
                   : group->refcount < countable ? Q2_PROBLEM_REFCOUNT_TOO_LOW
                                                 : Q2_PROBLEM_REFCOUNT_TOO_HIGH;
    return *ret_problem != Q2_PROBLEM_REFCOUNT_TOO_HIGH || q2_references_complete(masses->check);
}

/* Whether there is room for a group among what is explained, of any problem that it has. */
static bool
has_room(struct q2_masses *masses, const struct group *group)
{
    static const enum q2_problem flags[2][2] = {
        {Q2_PROBLEM_L2_COPIED_SET, Q2_PROBLEM_L2_COPIED_CLEAR},
        {Q2_PROBLEM_L1_COPIED_SET, Q2_PROBLEM_L1_COPIED_CLEAR},
    };
    bool one = group->refcount == 1, room = false;
    enum q2_problem problems[3];
    uint64_t counts[3];
    unsigned count = 0;
    if (find_problem(masses, group, &problems[0]))
        counts[count++] = (unsigned)__builtin_popcountll(group->clusters);
    for (unsigned table = 0; table < 2; table++) {
        uint64_t wrong = group->wrong_flags & (table ? group->tables : ~group->tables);
        problems[count] = flags[table][one];
        counts[count] = (unsigned)__builtin_popcountll(wrong);
        count += wrong != 0;
    }
    for (unsigned i = 0; i < count; i++)
        room |= masses->room[problems[i]] > 0;
    for (unsigned i = 0; i < count; i++) {
        struct q2_problem_count *total = &masses->check->findings.totals[problems[i]];
        if (room) {
            masses->room[problems[i]] -= q2_min(masses->room[problems[i]], counts[i]);
        } else {
            total->count += counts[i];
            total->unlisted += counts[i];
        }
    }
    return room;
}

uint64_t
q2_masses_take(struct q2_masses *masses, const struct q2_refcount_reader *reader,
               const struct q2_chunk *chunk, uint64_t cluster, uint64_t suspect)
{
    const struct q2_geometry *geometry = &masses->check->geometry;
    unsigned w = (unsigned)(cluster % Q2_CHUNK_CLUSTERS / 64);
    uint64_t explained = q2_chunk_word(chunk->overlap, w) & suspect, left = suspect & ~explained;
    if (masses->explained < ROOM || (left && !knows_tables(masses))) {
        masses->explained += (unsigned)__builtin_popcountll(suspect);
        return suspect;
    }
    while (left) {
        unsigned bit = (unsigned)__builtin_ctzll(left);
        struct group group = {.references = q2_chunk_references(chunk, w * 64 + bit)};
        if (!reader->zero)
            group.refcount = q2_refcount_get(reader->buffer, geometry->refcount_order,
                                             cluster + bit - reader->first);
        group.clusters = chunk->counts ? UINT64_C(1) << bit
                                       : left & q2_refcounts_equal(reader, cluster, group.refcount);
        group.wrong_flags = group.clusters & (group.refcount == 1 ? q2_chunk_word(chunk->plain, w)
                                                                  : chunk->copied[w]);
        group.tables = masses->tables[cluster / 64];
        left &= ~group.clusters;
        /* What is beyond what a refcount can count is always explained: it takes hard work. */
        if (group.references > q2_refcount_max(geometry->refcount_order) ||
            has_room(masses, &group))
            explained |= group.clusters;
    }
    return explained;
}
