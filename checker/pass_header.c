/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The first cluster: header, header extensions, backing file name. */

#include "checker/scan.h"
#include "core/base/checked.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    DEFAULT_AREA = 64 << 10, /* is read where the header does not say how large a cluster is */
    SECTOR = 512,            /* bytes */
};

static void
nothing(void *data, const struct q2_violation *violation)
{
    (void)data;
    (void)violation;
}

/* Add the name that the image's feature name table has for an unknown bit. */
static void
report_named(void *data, const struct q2_violation *violation)
{
    struct q2_check *check = data;
    struct q2_violation named = *violation;
    struct q2_text name;
    unsigned type;
    switch (violation->problem) {
    case Q2_PROBLEM_HEADER_INCOMPATIBLE_UNKNOWN:
        type = 0;
        break;
    case Q2_PROBLEM_HEADER_COMPATIBLE_UNKNOWN:
        type = 1;
        break;
    case Q2_PROBLEM_HEADER_AUTOCLEAR_UNKNOWN:
        type = 2;
        break;
    default:
        q2_findings_add_violation(&check->findings, violation);
        return;
    }
    if (q2_feature_name(&check->extensions, type, (unsigned)violation->got, &name)) {
        char text[80];
        snprintf(named.detail, sizeof named.detail, "bit %" PRIu64 ", \"%s\"", violation->got,
                 q2_printable(text, sizeof text, name.bytes, name.length));
    }
    q2_findings_add_violation(&check->findings, &named);
}

/* Whether the header, its extensions and the backing file's name end within the area. */
static bool
is_whole(const struct q2_check *check)
{
    const struct q2_header *header = &check->header;
    struct q2_extension extension;
    uint64_t offset = header->header_length;
    int more;
    do
        more = q2_extension_next(check->area, check->area_length, &offset, &extension);
    while (more > 0);
    return more == 0 && extension.type == Q2_EXTENSION_END && offset <= check->area_length &&
           (!header->backing_file_offset ||
            q2_range_inside(header->backing_file_offset, header->backing_file_size,
                            check->area_length));
}

/* Part of the first cluster cannot be read: do with what is in front of that, if it is all that
 * counts. Otherwise the area stays as it is, and `failure` is returned. */
static int
read_start(struct q2_check *check, int failure)
{
    uint64_t whole = check->area_length, length = 0;
    uint8_t *area = check->area;
    void *start;
    while (length < whole) {
        size_t piece = (size_t)q2_min(SECTOR, whole - length);
        if (q2_file_read_padded(check->file, length, area + length, piece, NULL) < 0)
            break;
        length += piece;
    }
    check->area_length = length;
    q2_header_decode(area, length, &check->header);
    if (length < Q2_HEADER_KNOWN_LENGTH || !is_whole(check) ||
        q2_budget_calloc(&check->budget, length, 1, "header area", &start, NULL) < 0) {
        check->area_length = whole;
        return failure;
    }
    memcpy(start, area, length);
    q2_budget_free(&check->budget, area, whole, 1);
    check->area = start;
    return 0;
}

/* Read as much of the file as its header area can have. */
static int
read_area(struct q2_check *check, uint64_t file_size, struct q2_error *err)
{
    uint8_t first[Q2_HEADER_KNOWN_LENGTH] = {0};
    int rc = q2_file_read_padded(check->file, 0, first, sizeof first, err);
    if (rc < 0)
        return rc;
    q2_header_decode(first, (size_t)q2_min(file_size, sizeof first), &check->header);

    unsigned bits = check->header.cluster_bits;
    bool known = bits >= Q2_MIN_CLUSTER_BITS && bits <= Q2_MAX_CLUSTER_BITS;
    check->area_length = q2_min(known ? UINT64_C(1) << bits : DEFAULT_AREA, file_size);
    void *area;
    rc = q2_budget_calloc(&check->budget, q2_max(check->area_length, 1), 1, "header area", &area,
                          err);
    if (rc < 0) {
        check->area_length = 0;
        return rc;
    }
    check->area = area;
    rc = q2_file_read_padded(check->file, 0, check->area, check->area_length, err);
    if (rc == Q2_ERR_IO)
        return read_start(check, rc);
    if (rc == 0)
        q2_header_decode(check->area, check->area_length, &check->header);
    return rc;
}

static int
refuse(const struct q2_check *check, uint64_t file_size, struct q2_error *err)
{
    if (check->header.magic == Q2_MAGIC && check->header.version == 1)
        return q2_error_set(err, Q2_ERR_NOT_QCOW2, "%s: a qcow image of version 1, not qcow2",
                            check->file->name);
    if (file_size < sizeof check->header.magic)
        return q2_error_set(err, Q2_ERR_NOT_QCOW2,
                            "%s: not a qcow2 image: %" PRIu64 " bytes are too few for one",
                            check->file->name, file_size);
    return q2_error_set(err, Q2_ERR_NOT_QCOW2,
                        "%s: not a qcow2 image: %" PRIu64 " bytes that begin with 0x%08" PRIx32
                        " instead of 0x%08" PRIx32,
                        check->file->name, file_size, check->header.magic, Q2_MAGIC);
}

/* Whether the header has lost track of something that owns clusters. The L1 table is not meant:
 * q2_references_complete asks for that by itself. */
static bool
lost_track(const struct q2_check *check)
{
    static const enum q2_problem problems[] = {
        Q2_PROBLEM_EXTENSION_PAST_AREA,
        Q2_PROBLEM_EXTENSION_CRYPTO_LENGTH,
        Q2_PROBLEM_EXTENSION_CRYPTO_MISSING,
        Q2_PROBLEM_EXTENSION_BITMAPS_LENGTH,
    };
    unsigned needed = Q2_USABLE_EXTENSIONS | Q2_USABLE_SNAPSHOTS;
    bool lost = (check->usable & needed) != needed;
    for (size_t i = 0; i < sizeof problems / sizeof problems[0]; i++)
        lost |= check->findings.totals[problems[i]].count > 0;
    return lost;
}

int
q2_pass_header(struct q2_check *check, struct q2_error *err)
{
    uint64_t file_size;
    int rc = q2_file_size(check->file, &file_size, err);
    if (rc == 0)
        rc = read_area(check, file_size, err);
    if (rc < 0)
        return rc;

    const struct q2_header *header = &check->header;
    bool magic = header->magic == Q2_MAGIC;
    if ((!magic && !q2_header_plausible(header, file_size)) || (magic && header->version == 1))
        return refuse(check, file_size, err);

    const struct q2_sink quiet = {.report = nothing};
    const struct q2_sink named = {.report = report_named, .data = check};
    const struct q2_sink sink = q2_findings_sink(&check->findings);
    if (!magic)
        q2_violate_expected(&sink, Q2_PROBLEM_HEADER_MAGIC, 0, 4, header->magic, Q2_MAGIC, "magic");
    /* The names of unknown feature bits are in the extensions, which the header has to locate. */
    check->usable = q2_header_validate(header, file_size, &quiet);
    q2_extensions_decode(header, check->usable, check->area, check->area_length, &quiet,
                         &check->extensions);
    q2_header_validate(header, file_size, &named);
    q2_extensions_decode(header, check->usable, check->area, check->area_length, &sink,
                         &check->extensions);
    check->unlocated = lost_track(check);
    if (!(check->usable & Q2_USABLE_GEOMETRY))
        return 0;

    q2_geometry_init(&check->geometry, header, file_size);
    /* Software counts a disk in whole sectors. */
    check->counts.total_clusters = q2_units(header->size & ~UINT64_C(511), header->cluster_bits);
    struct q2_owner owner = {.kind = Q2_OWNER_HEADER};
    return q2_check_add_region(check, &owner, 0, check->geometry.cluster_size, err);
}
