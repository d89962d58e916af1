/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/match.h"

#include "core/base/checked.h"
#include "core/format/references.h"
#include "repair/survey_parts.h"

enum {
    DECODE_COST = 4, /* steps for each byte of a cluster that is decoded */
    TRY_COST = 16,   /* and for each pointer that is tried */
};

static uint64_t
source_bytes(const struct q2_geometry *geometry)
{
    return geometry->cluster_size * 2 + 512;
}

int
q2_matcher_init(struct q2_matcher *matcher, struct q2_survey *survey, struct q2_error *err)
{
    const struct q2_check *check = survey->scene->check;
    const struct q2_geometry *geometry = &check->geometry;
    struct q2_budget *budget = &survey->scene->budget;
    void *source = NULL, *decoded = NULL;
    *matcher = (struct q2_matcher){.survey = survey};
    int rc = q2_budget_calloc(budget, source_bytes(geometry), 1, "a cluster", &source, err);
    if (rc == 0)
        rc = q2_budget_calloc(budget, geometry->cluster_size, 1, "a cluster", &decoded, err);
    if (rc < 0) {
        q2_budget_free(budget, source, source_bytes(geometry), 1);
        *matcher = (struct q2_matcher){0};
        return rc;
    }
    matcher->source = source;
    matcher->decoded = decoded;
    /* An unknown type has no decoder, and so no compressed cluster is found. */
    if (!geometry->data_file && !geometry->encrypted &&
        q2_decoder_new(check->header.compression_type, &matcher->decoder, NULL) < 0)
        matcher->decoder = NULL;
    return 0;
}

void
q2_matcher_destroy(struct q2_matcher *matcher)
{
    if (!matcher->survey)
        return;
    const struct q2_geometry *geometry = &matcher->survey->scene->check->geometry;
    struct q2_budget *budget = &matcher->survey->scene->budget;
    q2_decoder_free(matcher->decoder);
    q2_budget_free(budget, matcher->source, source_bytes(geometry), 1);
    q2_budget_free(budget, matcher->decoded, geometry->cluster_size, 1);
}

bool
q2_matcher_decodes(struct q2_matcher *matcher, uint64_t raw, size_t *ret_used)
{
    const struct q2_check *check = matcher->survey->scene->check;
    struct q2_compressed_range range = q2_compressed_decode(&check->geometry, raw);
    size_t used = 0;
    q2_scene_work(matcher->survey->scene, DECODE_COST * check->geometry.cluster_size);
    if (q2_scene_exhausted(matcher->survey->scene) || !matcher->decoder ||
        range.length > source_bytes(&check->geometry) ||
        !q2_range_inside(range.offset, range.length,
                         check->geometry.file_clusters << check->geometry.cluster_bits) ||
        q2_file_read_padded(check->file, range.offset, matcher->source, range.length, NULL) < 0)
        return false;
    if (q2_decoder_run(matcher->decoder, matcher->source, range.length, matcher->decoded,
                       check->geometry.cluster_size, &used, NULL) < 0)
        return false;
    if (ret_used)
        *ret_used = used;
    return true;
}

bool
q2_match_lost(struct q2_matcher *matcher, uint64_t cluster)
{
    return (cluster && cluster == matcher->also) || q2_survey_lost(matcher->survey, cluster);
}

/* The clusters of a compressed cluster may have others packed into them, but no structures. */
static bool
leads_to_stream(struct q2_matcher *matcher, uint64_t raw, uint64_t first, uint64_t count,
                size_t *ret_used)
{
    const struct q2_survey *survey = matcher->survey;
    for (uint64_t cluster = first; cluster < first + count; cluster++)
        if (q2_bit_test(survey->structures, cluster) ||
            (survey->counts_help && !q2_bit_test(survey->counted, cluster)))
            return false;
    return q2_matcher_decodes(matcher, raw, ret_used);
}

static void
try_entry(struct q2_matcher *matcher, const struct q2_suspect *suspect, uint64_t raw,
          struct q2_matches *matches)
{
    const struct q2_geometry *geometry = &matcher->survey->scene->check->geometry;
    struct q2_l2_entry entry = {.raw = raw, .bitmap = suspect->entry.bitmap};
    uint64_t first = 0, count = 0;
    q2_scene_work(matcher->survey->scene, TRY_COST);
    if (q2_survey_entry_faults(geometry, &entry, suspect->guest))
        return;
    size_t used = 0;
    bool maps = q2_entry_clusters(geometry, raw, &first, &count),
         packed = raw & Q2_ENTRY_COMPRESSED;
    if (maps && packed && !leads_to_stream(matcher, raw, first, count, &used))
        return;
    if (maps && !packed && !q2_match_lost(matcher, first))
        return;
    uint64_t offset = packed ? q2_compressed_decode(geometry, raw).offset : 0;
    if (packed && q2_survey_claimed(matcher->survey, offset, suspect->guest))
        return;
    bool exact = packed && q2_compressed_encode(geometry, offset, used) == raw;
    if (matches->count < Q2_MATCHES_MAX)
        matches->items[matches->count] =
            (struct q2_match){.raw = raw,
                              .cluster = maps ? first : 0,
                              .distance = (unsigned)__builtin_popcountll(raw ^ suspect->entry.raw),
                              .exact = exact};
    matches->count++;
}

/* Leave out descriptors that are longer than need be, if there is one that is not. */
static void
prefer_exact(struct q2_matches *matches)
{
    size_t kept = matches->count < Q2_MATCHES_MAX ? matches->count : Q2_MATCHES_MAX, to = 0;
    bool any = false;
    for (size_t i = 0; i < kept; i++)
        any |= matches->items[i].exact;
    if (!any || kept < matches->count)
        return;
    for (size_t i = 0; i < kept; i++)
        if (matches->items[i].exact || !(matches->items[i].raw & Q2_ENTRY_COMPRESSED))
            matches->items[to++] = matches->items[i];
    matches->count = to;
}

void
q2_match_near(struct q2_matcher *matcher, const struct q2_suspect *suspect, unsigned distance,
              struct q2_matches *ret_matches)
{
    uint64_t raw = suspect->entry.raw;
    *ret_matches = (struct q2_matches){.count = 0};
    if (distance == 0)
        try_entry(matcher, suspect, raw, ret_matches);
    for (unsigned i = 0; distance && i < 64; i++) {
        uint64_t one = raw ^ UINT64_C(1) << i;
        if (distance == 1)
            try_entry(matcher, suspect, one, ret_matches);
        for (unsigned j = i + 1; distance == 2 && j < 64; j++)
            try_entry(matcher, suspect, one ^ UINT64_C(1) << j, ret_matches);
    }
    prefer_exact(ret_matches);
}

void
q2_match_take(struct q2_matcher *matcher, const struct q2_match *match)
{
    const struct q2_geometry *geometry = &matcher->survey->scene->check->geometry;
    uint64_t first, count;
    if (!q2_entry_clusters(geometry, match->raw, &first, &count))
        return;
    for (uint64_t cluster = first; cluster < first + count; cluster++)
        q2_bit_set(matcher->survey->sound, cluster);
}
