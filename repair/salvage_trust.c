/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What is to be thought of guest ranges that can be read: those that the repair had to decide
 * about, and those with which something is still wrong after it. Where several say something, the
 * worst counts. */

#include "core/base/checked.h"
#include "repair/salvage_parts.h"

#include <stdlib.h>

/* ---- collecting ---- */

static int
add(struct salvage_trust *trust, const struct salvage_view *view, struct q2_error *err)
{
    if (view->start >= view->end)
        return 0;
    if (trust->count == trust->capacity) {
        uint64_t capacity = trust->capacity * 2 + 64;
        void *views = realloc(trust->views, capacity * sizeof *trust->views);
        if (!views)
            return q2_error_set(err, Q2_ERR_NOMEM, "no memory for what was guessed");
        trust->views = views;
        trust->capacity = capacity;
    }
    trust->views[trust->count++] = *view;
    return 0;
}

static uint64_t
end_of(uint64_t offset, uint64_t length)
{
    uint64_t end;
    return q2_add(offset, length, &end) ? end : UINT64_MAX;
}

static int
add_action(struct salvage_trust *trust, const struct q2_action *action, struct q2_error *err)
{
    static const enum q2_salvage_state states[] = {
        [Q2_CERTAIN] = Q2_SALVAGE_CERTAIN,
        [Q2_LIKELY] = Q2_SALVAGE_LIKELY,
        [Q2_GUESS] = Q2_SALVAGE_GUESS,
    };
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < action->change_count; i++) {
        const struct q2_change *change = &action->changes[i];
        struct salvage_view view = {
            .map = change->map,
            .start = change->offset,
            .end = end_of(change->offset, change->length),
            .state = change->kind == Q2_CHANGE_LOST ? Q2_SALVAGE_LOST : states[action->confidence],
            .why = action->evidence ? action->evidence : q2_action_sentence(action->kind),
        };
        if (view.state != Q2_SALVAGE_CERTAIN)
            rc = add(trust, &view, err);
    }
    return rc;
}

/* Whether a guest range that has this problem may read wrong bytes. */
static bool
doubtful(const struct q2_finding *finding)
{
    const struct q2_catalogue_entry *entry = q2_catalogue(finding->problem);
    bool about_data = entry->impact == Q2_IMPACT_LOST_DATA ||
                      entry->impact == Q2_IMPACT_WRONG_DATA ||
                      entry->impact == Q2_IMPACT_UNREADABLE;
    return about_data && entry->severity == Q2_SEVERITY_CORRUPTION;
}

static int
add_range(struct salvage_trust *trust, const struct q2_check *check, q2_map_set set,
          uint64_t offset, uint64_t length, const char *why, struct q2_error *err)
{
    const uint32_t *members = NULL;
    size_t count = q2_check_maps(check, set, &members);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = add(trust,
                 &(struct salvage_view){.map = members[i],
                                        .start = offset,
                                        .end = end_of(offset, length),
                                        .state = Q2_SALVAGE_GUESS,
                                        .why = why},
                 err);
    return rc;
}

static int
add_finding(struct salvage_trust *trust, const struct q2_check *check,
            const struct q2_finding *finding, struct q2_error *err)
{
    const char *why = q2_catalogue(finding->problem)->sentence;
    int rc = 0;
    if (!doubtful(finding))
        return 0;
    if (finding->has & Q2_HAS_GUEST)
        rc = add_range(trust, check, finding->maps, finding->guest_offset, finding->guest_length,
                       why, err);
    for (int i = 0; rc == 0 && finding->has & Q2_HAS_OWNERS && i < 2; i++) {
        const struct q2_owner *owner = &finding->owners[i];
        if (owner->kind == Q2_OWNER_DATA || owner->kind == Q2_OWNER_COMPRESSED ||
            owner->kind == Q2_OWNER_L2_TABLE)
            rc = add_range(trust, check, owner->maps, owner->guest, owner->guest_length, why, err);
    }
    return rc;
}

/* Of what is too much to list, all ranges may be. */
static int
add_unlisted(struct salvage_trust *trust, const struct salvage_source *source,
             enum q2_problem problem, struct q2_error *err)
{
    struct q2_finding any = {.problem = problem};
    int rc = 0;
    if (!doubtful(&any) || q2_check_problem_count(source->check, problem).unlisted == 0)
        return 0;
    for (uint32_t i = 0; rc == 0 && i < source->map_count; i++)
        rc = add(trust,
                 &(struct salvage_view){.map = i,
                                        .end = UINT64_MAX,
                                        .state = Q2_SALVAGE_GUESS,
                                        .why = q2_catalogue(problem)->sentence},
                 err);
    return rc;
}

/* ---- putting in order ---- */

static int
compare(const void *left, const void *right)
{
    const struct salvage_view *a = left, *b = right;
    if (a->map != b->map)
        return a->map < b->map ? -1 : 1;
    if (a->start != b->start)
        return a->start < b->start ? -1 : 1;
    return (a->end > b->end) - (a->end < b->end);
}

/* What reaches farthest of each state, from where a sweep is. */
struct sweep {
    const struct salvage_view *views; /* sorted */
    uint64_t count, next;
    uint32_t map;
    uint64_t at;
    struct salvage_view open[Q2_SALVAGE_STATE_COUNT]; /* end <= at: none */
};

/* Take in the views that begin where the sweep is. */
static void
take_in(struct sweep *sweep)
{
    for (; sweep->next < sweep->count; sweep->next++) {
        const struct salvage_view *view = &sweep->views[sweep->next];
        if (view->map != sweep->map || view->start > sweep->at)
            return;
        if (view->end > sweep->open[view->state].end)
            sweep->open[view->state] = *view;
    }
}

/* The worst that is open, and up to where nothing changes. NULL: nothing is open. */
static const struct salvage_view *
worst(const struct sweep *sweep, uint64_t *ret_end)
{
    const struct salvage_view *found = NULL;
    uint64_t end = UINT64_MAX;
    for (int i = Q2_SALVAGE_STATE_COUNT; i-- > 0;) {
        const struct salvage_view *open = &sweep->open[i];
        if (open->end <= sweep->at)
            continue;
        end = q2_min(end, open->end);
        found = found ? found : open;
    }
    if (sweep->next < sweep->count && sweep->views[sweep->next].map == sweep->map)
        end = q2_min(end, sweep->views[sweep->next].start);
    *ret_end = end;
    return found;
}

static int
settle(struct salvage_trust *trust, struct q2_error *err)
{
    struct salvage_trust sorted = *trust;
    struct sweep sweep = {.views = sorted.views, .count = sorted.count};
    int rc = 0;
    *trust = (struct salvage_trust){0};
    if (sorted.count)
        qsort(sorted.views, sorted.count, sizeof *sorted.views, compare);
    const struct salvage_view *found = NULL;
    while (rc == 0 && (found || sweep.next < sweep.count)) {
        if (!found) {
            const struct salvage_view *view = &sorted.views[sweep.next];
            sweep = (struct sweep){.views = sorted.views,
                                   .count = sorted.count,
                                   .next = sweep.next,
                                   .map = view->map,
                                   .at = view->start};
        }
        uint64_t end;
        take_in(&sweep);
        found = worst(&sweep, &end);
        if (!found)
            continue;
        struct salvage_view view = *found;
        view.start = sweep.at;
        view.end = end;
        rc = add(trust, &view, err);
        sweep.at = end;
        if (end == UINT64_MAX)
            found = NULL;
    }
    free(sorted.views);
    return rc;
}

int
q2_salvage_trust_init(struct salvage_trust *trust, const struct salvage_source *source,
                      struct q2_error *err)
{
    const struct q2_plan *plan = source->repair ? q2_repair_actions(source->repair) : NULL;
    int rc = 0;
    *trust = (struct salvage_trust){0};
    for (uint64_t i = 0; rc == 0 && plan && i < plan->count; i++)
        if (plan->actions[i].applied)
            rc = add_action(trust, &plan->actions[i], err);
    for (size_t i = 0; rc == 0 && i < q2_check_finding_count(source->check); i++)
        rc = add_finding(trust, source->check, q2_check_finding(source->check, i), err);
    for (int i = 0; rc == 0 && i < Q2_PROBLEM_COUNT; i++)
        rc = add_unlisted(trust, source, (enum q2_problem)i, err);
    return rc < 0 ? rc : settle(trust, err);
}

void
q2_salvage_trust_destroy(struct salvage_trust *trust)
{
    free(trust->views);
}

enum q2_salvage_state
q2_salvage_trust_at(const struct salvage_trust *trust, uint32_t map, uint64_t guest,
                    const char **ret_why, uint64_t *ret_end)
{
    uint64_t low = 0, high = trust->count;
    while (low < high) { /* the first that ends behind `guest` */
        uint64_t middle = low + (high - low) / 2;
        const struct salvage_view *view = &trust->views[middle];
        if (view->map < map || (view->map == map && view->end <= guest))
            low = middle + 1;
        else
            high = middle;
    }
    const struct salvage_view *view = low < trust->count ? &trust->views[low] : NULL;
    bool here = view && view->map == map;
    *ret_why = "";
    *ret_end = here ? view->start : UINT64_MAX;
    if (!here || view->start > guest)
        return Q2_SALVAGE_CERTAIN;
    *ret_why = view->why;
    *ret_end = view->end;
    return view->state;
}
