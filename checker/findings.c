/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/findings.h"

#include <stdlib.h>
#include <string.h>

void
q2_findings_init(struct q2_findings *findings, struct q2_budget *budget, uint64_t max_details)
{
    *findings = (struct q2_findings){.budget = budget, .max_details = max_details};
}

static void
free_detail(struct q2_findings *findings, char *detail)
{
    if (detail)
        q2_budget_free(findings->budget, detail, strlen(detail) + 1, 1);
}

void
q2_findings_destroy(struct q2_findings *findings)
{
    for (uint64_t i = 0; i < findings->count; i++)
        free_detail(findings, findings->items[i].detail);
    q2_budget_free(findings->budget, findings->items, findings->capacity, sizeof *findings->items);
}

/* ---- joining neighbours ---- */

static bool
continues(unsigned has, unsigned bit, uint64_t offset, uint64_t length, uint64_t next)
{
    return !(has & bit) || offset + length == next;
}

static bool
is_guest(const struct q2_owner *owner)
{
    return owner->kind == Q2_OWNER_DATA || owner->kind == Q2_OWNER_COMPRESSED;
}

/* Whether an owner of the next finding follows that of the last one in its guest range, or is the
 * same structure. */
static bool
owner_continues(const struct q2_owner *last, const struct q2_owner *next)
{
    if (last->kind != next->kind || last->maps != next->maps)
        return false;
    if (is_guest(last))
        return last->guest + last->guest_length == next->guest;
    return last->guest == next->guest && last->index == next->index;
}

static bool
same_text(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool
joins(const struct q2_finding *last, const struct q2_finding *next)
{
    if (last->has != next->has || last->maps != next->maps ||
        !same_text(last->detail, next->detail))
        return false;
    /* Refcounts say something; entries differ from their neighbours in any case. */
    if (q2_problem_is_about_refcounts(last->problem) &&
        (last->got != next->got || last->expected != next->expected))
        return false;
    if (!continues(last->has, Q2_HAS_HOST, last->host_offset, last->host_length,
                   next->host_offset) ||
        !continues(last->has, Q2_HAS_TARGET, last->target_offset, last->target_length,
                   next->target_offset) ||
        !continues(last->has, Q2_HAS_GUEST, last->guest_offset, last->guest_length,
                   next->guest_offset))
        return false;
    return !(last->has & Q2_HAS_OWNERS) || (owner_continues(&last->owners[0], &next->owners[0]) &&
                                            owner_continues(&last->owners[1], &next->owners[1]));
}

static void
join(struct q2_finding *last, const struct q2_finding *next, uint64_t count)
{
    last->count += count;
    last->host_length += next->host_length;
    last->target_length += next->target_length;
    last->guest_length += next->guest_length;
    for (int i = 0; i < 2; i++)
        if (is_guest(&last->owners[i]))
            last->owners[i].guest_length += next->owners[i].guest_length;
}

/* ---- adding ---- */

static int
make_room(struct q2_findings *findings)
{
    if (findings->count < findings->capacity)
        return 0;
    uint64_t capacity = findings->capacity ? findings->capacity * 2 : 64;
    void *memory = findings->items;
    int rc = q2_budget_grow(findings->budget, findings->capacity, capacity, sizeof *findings->items,
                            "list of findings", &memory, &findings->error);
    if (rc < 0)
        return rc;
    findings->items = memory;
    findings->capacity = capacity;
    return 0;
}

static int
copy_detail(struct q2_findings *findings, const char *detail, char **ret_detail)
{
    void *memory = NULL;
    if (detail && detail[0]) {
        size_t size = strlen(detail) + 1;
        int rc = q2_budget_calloc(findings->budget, size, 1, "list of findings", &memory,
                                  &findings->error);
        if (rc < 0)
            return rc;
        memcpy(memory, detail, size);
    }
    *ret_detail = memory;
    return 0;
}

static int
append(struct q2_findings *findings, const struct q2_finding *finding, uint64_t count)
{
    int rc = make_room(findings);
    if (rc < 0)
        return rc;
    struct q2_finding *item = &findings->items[findings->count];
    *item = *finding;
    item->count = count;
    rc = copy_detail(findings, finding->detail, &item->detail);
    if (rc < 0)
        return rc;
    findings->count++;
    return 0;
}

void
q2_findings_add(struct q2_findings *findings, const struct q2_finding *finding)
{
    struct q2_problem_count *total = &findings->totals[finding->problem];
    uint64_t *last = &findings->last[finding->problem];
    uint64_t count = finding->count ? finding->count : 1;
    if (findings->failed)
        return;

    total->count += count;
    /* What has had no room ends the list: what comes later would join the newest or not as the work
     * was divided among threads. */
    if (!total->unlisted && *last && joins(&findings->items[*last - 1], finding)) {
        join(&findings->items[*last - 1], finding, count);
        return;
    }
    if (total->findings >= findings->max_details) {
        total->unlisted += count;
        return;
    }
    findings->failed = append(findings, finding, count);
    if (findings->failed)
        return;
    total->findings++;
    *last = findings->count;
}

void
q2_findings_absorb(struct q2_findings *findings, const struct q2_findings *from,
                   const q2_map_set *ids)
{
    for (uint64_t i = 0; i < from->count; i++) {
        struct q2_finding finding = from->items[i];
        finding.maps = ids[finding.maps];
        finding.owners[0].maps = ids[finding.owners[0].maps];
        finding.owners[1].maps = ids[finding.owners[1].maps];
        q2_findings_add(findings, &finding);
    }
    /* Where one list is full, so is the whole. */
    for (int p = 0; p < Q2_PROBLEM_COUNT; p++) {
        findings->totals[p].count += from->totals[p].unlisted;
        findings->totals[p].unlisted += from->totals[p].unlisted;
    }
}

struct q2_finding
q2_finding_of(const struct q2_violation *violation)
{
    return (struct q2_finding){
        .problem = violation->problem,
        .has = Q2_HAS_HOST | (violation->has_got ? Q2_HAS_GOT : 0U) |
               (violation->has_expected ? Q2_HAS_EXPECTED : 0U),
        .host_offset = violation->offset,
        .host_length = violation->length,
        .got = violation->got,
        .expected = violation->expected,
        .detail = (char *)(uintptr_t)violation->detail,
    };
}

void
q2_findings_add_violation(struct q2_findings *findings, const struct q2_violation *violation)
{
    struct q2_finding finding = q2_finding_of(violation);
    q2_findings_add(findings, &finding);
}

static void
report(void *data, const struct q2_violation *violation)
{
    q2_findings_add_violation(data, violation);
}

struct q2_sink
q2_findings_sink(struct q2_findings *findings)
{
    return (struct q2_sink){.report = report, .data = findings};
}

/* ---- order ---- */

static int
compare_numbers(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int
compare(const void *left, const void *right)
{
    const struct q2_finding *a = left, *b = right;
    int order =
        compare_numbers(q2_catalogue(a->problem)->severity, q2_catalogue(b->problem)->severity);
    if (order == 0)
        order = compare_numbers(a->problem, b->problem);
    if (order == 0)
        order = compare_numbers(a->guest_offset, b->guest_offset);
    if (order == 0)
        order = compare_numbers(a->target_offset, b->target_offset);
    if (order == 0)
        order = compare_numbers(a->host_offset, b->host_offset);
    if (order == 0)
        order = compare_numbers(a->maps, b->maps);
    if (order == 0)
        order = compare_numbers(a->got, b->got);
    return order;
}

void
q2_findings_sort(struct q2_findings *findings)
{
    if (findings->count)
        qsort(findings->items, findings->count, sizeof *findings->items, compare);
    memset(findings->last, 0, sizeof findings->last);
}
