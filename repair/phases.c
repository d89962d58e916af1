/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The first cluster comes last. What nothing referred to in the image as it was comes first, and
 * refcounts come before the tables, so that an interrupted repair leaves clusters counted that are
 * not referred to rather than the reverse. */

#include "repair/phases.h"

#include "checker/refcounts.h"
#include "core/base/bitset.h"
#include "core/base/checked.h"

#include <stdlib.h>

struct q2_phases {
    struct q2_scene *scene;
    uint64_t clusters;
    uint64_t *refcounts; /* a bit for each cluster of a refcount block or of the refcount table */
};

static void
mark(struct q2_phases *phases, uint64_t offset, uint64_t length)
{
    unsigned bits = phases->scene->check->geometry.cluster_bits;
    uint64_t end = q2_min(q2_units(offset + length, bits), phases->clusters);
    for (uint64_t cluster = offset >> bits; cluster < end; cluster++)
        q2_bit_set(phases->refcounts, cluster);
}

int
q2_phases_new(struct q2_scene *scene, struct q2_phases **ret_phases, struct q2_error *err)
{
    const struct q2_check *check = scene->check;
    struct q2_phases *phases = calloc(1, sizeof *phases);
    if (!phases)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a repair");
    phases->scene = scene;
    phases->clusters = check->geometry.file_clusters;
    void *memory;
    int rc = q2_budget_calloc(&scene->budget, phases->clusters / 64 + 1, 8, "the order of writing",
                              &memory, err);
    if (rc < 0) {
        free(phases);
        return rc;
    }
    phases->refcounts = memory;
    for (uint64_t i = 0; i < check->refcount_entries; i++) {
        uint64_t block = q2_refcount_block(check, i);
        if (block > Q2_REFCOUNT_BLOCK_UNKNOWN)
            mark(phases, block, 1);
    }
    for (uint64_t i = 0; i < check->region_count; i++)
        if (check->regions[i].owner.kind == Q2_OWNER_REFCOUNT_TABLE)
            mark(phases, check->regions[i].offset, check->regions[i].length);
    *ret_phases = phases;
    return 0;
}

void
q2_phases_free(struct q2_phases *phases)
{
    if (!phases)
        return;
    q2_budget_free(&phases->scene->budget, phases->refcounts, phases->clusters / 64 + 1, 8);
    free(phases);
}

/* Whether anything referred to the cluster at `offset` in the image as it was; if that is not
 * known, it did. */
static bool
was_referred_to(const struct q2_scene *scene, uint64_t offset)
{
    const struct q2_check *before = scene->before;
    if (!before || !(before->usable & Q2_USABLE_GEOMETRY))
        return true;
    uint64_t cluster = offset >> before->geometry.cluster_bits;
    const struct q2_chunk *chunk = q2_tally_chunk(before->tally, cluster >> Q2_CHUNK_BITS);
    return chunk && q2_chunk_references(chunk, (unsigned)(cluster % Q2_CHUNK_CLUSTERS));
}

enum q2_apply_phase
q2_phases_of(void *data, uint64_t offset, uint64_t *ret_end)
{
    const struct q2_phases *phases = data;
    unsigned bits = phases->scene->check->geometry.cluster_bits;
    const struct q2_check *before = phases->scene->before;
    if (before && before->usable & Q2_USABLE_GEOMETRY && before->geometry.cluster_bits < bits)
        bits = before->geometry.cluster_bits;
    *ret_end = ((offset >> bits) + 1) << bits;
    uint64_t cluster = offset >> phases->scene->check->geometry.cluster_bits;
    if (cluster == 0)
        return Q2_PHASE_HEADER;
    if (!was_referred_to(phases->scene, offset))
        return Q2_PHASE_NEW;
    if (cluster < phases->clusters && q2_bit_test(phases->refcounts, cluster))
        return Q2_PHASE_REFCOUNTS;
    return Q2_PHASE_TABLES;
}
