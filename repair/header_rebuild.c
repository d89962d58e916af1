/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Writing a header that was carved, and how far it can be believed. Tables and refcounts may agree
 * perfectly; whether there was a backing file, of which only the lost cluster knew, they cannot
 * tell, unless the image maps its whole disk. */

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/format/extension.h"
#include "repair/header_carve.h"

#include <stdio.h>
#include <string.h>

enum {
    MAX_NEW_L1 = 1 << 20, /* bytes */
    /* How many times fewer faults another L1 table has to leave than one that can be read. */
    CONVINCING = 16,
    ZEROS = 4096,
};

/* ---- how sure ---- */

struct verdict {
    enum q2_confidence confidence;
    enum q2_size_source source;
    bool sparse; /* the image does not map all of its disk */
};

static const char *
source_text(enum q2_size_source source)
{
    switch (source) {
    case Q2_SIZE_HEADER:
        return "the header has";
    case Q2_SIZE_PARTITION:
        return "the guest's partition table names";
    case Q2_SIZE_SNAPSHOT:
        return "the newest snapshot has";
    default:
        return "the tables can map";
    }
}

static void
judge(const struct q2_carving *carving, const struct q2_candidate *best,
      const struct q2_check *check, struct verdict *verdict)
{
    struct q2_header header;
    q2_header_decode(best->bytes, sizeof best->bytes, &header);
    verdict->source = q2_carve_size_source(carving, &header, check);
    verdict->sparse = check->counts.allocated_clusters < check->counts.total_clusters;
    if (carving->has_known)
        return;
    if (verdict->source == Q2_SIZE_MAPPED)
        verdict->confidence = Q2_GUESS;
    else if ((verdict->sparse || best->faults || verdict->source == Q2_SIZE_SNAPSHOT) &&
             verdict->confidence == Q2_CERTAIN)
        verdict->confidence = Q2_LIKELY;
}

/* ---- writing ---- */

static void
name_all(struct q2_scene *scene, const struct q2_check *after)
{
    for (size_t i = 0; scene->check && i < q2_check_finding_count(scene->check); i++) {
        const struct q2_finding *finding = q2_check_finding(scene->check, i);
        if (q2_check_problem_count(after, finding->problem).count == 0)
            q2_plan_answer(&scene->plan, finding->problem, finding->host_offset, finding->count);
    }
    for (uint32_t i = 0; i < after->map_count; i++)
        q2_plan_change(&scene->plan, Q2_CHANGE_RECOVERED, i, 0, after->maps[i].limit);
}

static int
write_header(struct q2_scene *scene, const struct q2_candidate *candidate, struct q2_error *err)
{
    static const uint8_t marker[Q2_EXTENSION_HEADER_LENGTH];
    int rc =
        q2_scene_write(scene, Q2_OWNER_HEADER, 0, candidate->bytes, sizeof candidate->bytes, err);
    if (rc == 0 && candidate->fresh)
        rc = q2_scene_write(scene, Q2_OWNER_HEADER, sizeof candidate->bytes, marker, sizeof marker,
                            err);
    return rc;
}

static int
carry_out(struct q2_scene *scene, struct q2_carving *carving, struct q2_candidate *best,
          enum q2_confidence confidence, struct q2_error *err)
{
    struct q2_check *after = NULL;
    struct verdict verdict = {.confidence = confidence};
    struct q2_header header;
    q2_header_decode(best->bytes, sizeof best->bytes, &header);
    int rc = q2_trial_check(carving->trial, best, &after, err);
    if (rc < 0 || !after)
        return rc;
    judge(carving, best, after, &verdict);
    bool permitted = q2_plan_begin(
        &scene->plan, Q2_ACTION_REBUILD_HEADER, verdict.confidence, 0,
        "clusters of %llu bytes, an L1 table at 0x%llx, a refcount table at 0x%llx and %u "
        "snapshots were found, and %llu faults are left with them; the disk has the %llu bytes "
        "that %s%s",
        1ULL << header.cluster_bits, (unsigned long long)header.l1_table_offset,
        (unsigned long long)header.refcount_table_offset, header.nb_snapshots,
        (unsigned long long)best->faults, (unsigned long long)header.size,
        source_text(verdict.source),
        verdict.sparse && !carving->has_known
            ? "; if there was a backing file, what it held reads as zeros"
            : "");
    name_all(scene, after);
    q2_check_free(after);
    if (permitted)
        rc = write_header(scene, best, err);
    else
        scene->stop = true;
    q2_plan_end(&scene->plan);
    return rc;
}

/* ---- a new L1 table ---- */

/* Tables that were found, as L2 tables of the cluster size that they suggest. */
static bool
suggest_geometry(const struct q2_carving *carving, struct q2_header *header, uint64_t *ret_tables)
{
    const struct q2_sightings *sightings = &carving->sightings;
    uint64_t most = 0, tables = 0;
    for (unsigned extended = 0; extended <= 1; extended++)
        for (unsigned bits = Q2_MIN_CLUSTER_BITS; bits <= Q2_MAX_CLUSTER_BITS; bits++)
            if (sightings->strides[extended][bits] > most) {
                most = sightings->strides[extended][bits];
                header->cluster_bits = bits;
                header->incompatible_features = extended ? Q2_INCOMPATIBLE_EXTENDED_L2 : 0;
            }
    uint64_t last = UINT64_MAX;
    for (uint64_t i = 0; i < sightings->count && most; i++) {
        uint64_t cluster = sightings->places[i].offset >> header->cluster_bits;
        tables += cluster != last;
        last = cluster;
    }
    *ret_tables = tables;
    return most > 0;
}

/* A header that leads to a new, empty L1 table behind the end of the file. */
static bool
compose_empty(const struct q2_carving *carving, struct q2_header *header)
{
    struct q2_geometry geometry;
    uint64_t tables = 0, file_size = carving->trial->file_size;
    *header = (struct q2_header){
        .magic = Q2_MAGIC,
        .version = 3,
        .refcount_order = 4,
        .header_length = Q2_HEADER_KNOWN_LENGTH,
    };
    if (carving->has_known)
        *header = carving->known;
    else if (!suggest_geometry(carving, header, &tables))
        return false;
    q2_geometry_init(&geometry, header, file_size);
    if (!carving->has_known) {
        uint64_t second = carving->sightings.disk_size;
        /* One more: the first is often lost together with the header. */
        header->size =
            second && second != UINT64_MAX ? second : (tables + 1) * q2_l2_reach(&geometry);
    }
    uint64_t entries = q2_max(q2_l1_entries_for(&geometry, header->size), 1);
    header->l1_table_offset = geometry.file_clusters << geometry.cluster_bits;
    header->l1_size = (uint32_t)q2_min(entries, UINT32_MAX);
    return entries * 8 <= MAX_NEW_L1 && header->l1_table_offset < Q2_FILE_SIZE_MAX / 2;
}

static int
write_empty_l1(struct q2_scene *scene, const struct q2_header *header, struct q2_error *err)
{
    static const uint8_t zeros[ZEROS];
    uint64_t size = UINT64_C(1) << header->cluster_bits;
    uint64_t end = q2_units((uint64_t)header->l1_size * 8, header->cluster_bits) * size;
    int rc = 0;
    for (uint64_t at = 0; at < end && rc == 0; at += q2_min(ZEROS, size))
        rc = q2_scene_write(scene, Q2_OWNER_L1_TABLE, header->l1_table_offset + at, zeros,
                            (size_t)q2_min(ZEROS, size), err);
    return rc;
}

static int
begin_anew(struct q2_scene *scene, struct q2_carving *carving, struct q2_error *err)
{
    struct q2_header header;
    scene->stop = true;
    if (scene->options->fixed_size || carving->sightings.count == 0 ||
        !compose_empty(carving, &header))
        return 0;
    struct q2_candidate candidate = {.fresh = !carving->has_known};
    if (carving->has_known)
        memcpy(candidate.bytes, carving->trial->area, sizeof candidate.bytes);
    q2_header_encode(&header, candidate.bytes);
    bool permitted = q2_plan_begin(
        &scene->plan, Q2_ACTION_REBUILD_HEADER, Q2_GUESS, 0,
        "no L1 table can be found, but %llu stretches of what may be L2 tables of clusters of %llu "
        "bytes; a new, empty L1 table is to take up those that are",
        (unsigned long long)carving->sightings.count, 1ULL << header.cluster_bits);
    int rc = 0;
    if (permitted) {
        scene->stop = false;
        scene->keep_all = true;
        rc = write_empty_l1(scene, &header, err);
        if (rc == 0)
            rc = write_header(scene, &candidate, err);
    }
    q2_plan_change(&scene->plan, Q2_CHANGE_RECOVERED, 0, 0, header.size);
    q2_plan_end(&scene->plan);
    return rc;
}

static void
ignore(void *data, const struct q2_violation *violation)
{
    (void)data;
    (void)violation;
}

/* Whether the best that was found is to be written. */
static int
is_accepted(const struct q2_carving *carving, const struct q2_rebuild *rebuild,
            const struct q2_candidate *best, bool *ret_accepted, struct q2_error *err)
{
    *ret_accepted = true;
    if (rebuild->readable && !carving->lost_snapshots &&
        best->faults > carving->search.base.faults / CONVINCING)
        *ret_accepted = false;
    if (!rebuild->rival)
        return 0;
    struct q2_candidate rival = *rebuild->rival;
    int rc = q2_trial_check(carving->trial, &rival, NULL, err);
    *ret_accepted &= rc == 0 && best->faults < rival.faults;
    return rc;
}

int
q2_header_rebuild(struct q2_scene *scene, struct q2_trial *trial, const struct q2_rebuild *rebuild,
                  bool *ret_done, struct q2_error *err)
{
    struct q2_carving carving = {.trial = trial, .has_known = rebuild->known != NULL};
    const struct q2_sink quiet = {.report = ignore};
    struct q2_candidate base, best;
    enum q2_confidence confidence;
    bool found = false;
    q2_trial_identity(trial, &base);
    if (rebuild->known) {
        base = *rebuild->known;
        q2_header_decode(base.bytes, sizeof base.bytes, &carving.known);
        unsigned usable = q2_header_validate(&carving.known, trial->file_size, &quiet);
        carving.lost_snapshots = rebuild->readable && !(usable & Q2_USABLE_SNAPSHOTS);
    }
    q2_search_init(&carving.search, trial, &base);
    int rc = q2_header_scan(scene, &carving.sightings, err);
    if (rc == 0)
        rc = q2_carve_headers(&carving, err);
    if (rc == 0)
        rc = q2_search_decide(&carving.search, &found, &best, &confidence, err);
    if (rc == 0 && found)
        rc = is_accepted(&carving, rebuild, &best, &found, err);
    *ret_done = found || (!rebuild->readable && !rebuild->rival);
    if (rc == 0 && *ret_done)
        rc = found ? carry_out(scene, &carving, &best, confidence, err)
                   : begin_anew(scene, &carving, err);
    q2_sightings_destroy(&carving.sightings);
    return rc;
}
