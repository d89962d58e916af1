/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Who owns a cluster: the second phase of the check, asked about a single one. */

#include "checker/refcounts.h"
#include "checker/uses.h"

#include <inttypes.h>
#include <string.h>

static void
forget_suspects(struct q2_check *check)
{
    uint64_t number = 0;
    struct q2_chunk *chunk;
    for (; (chunk = q2_tally_next(check->tally, &number)) != NULL; number++)
        if (chunk->suspect)
            memset(chunk->suspect, 0, Q2_CHUNK_WORDS * sizeof *chunk->suspect);
}

static int
collect(struct q2_check *check, uint64_t cluster, struct q2_uses *uses, struct q2_error *err)
{
    struct q2_chunk *chunk = q2_tally_chunk(check->tally, cluster >> Q2_CHUNK_BITS);
    forget_suspects(check);
    if (!chunk)
        return 0;
    unsigned index = (unsigned)(cluster & (Q2_CHUNK_CLUSTERS - 1));
    int rc = q2_tally_suspect(check->tally, chunk, index / 64, UINT64_C(1) << index % 64, err);
    if (rc < 0)
        return rc;
    q2_uses_add_structures(uses);
    rc = q2_uses_add_maps(uses, NULL, true, false, err);
    return rc < 0 ? rc : q2_uses_settle(uses, err);
}

int
q2_check_owners(struct q2_check *check, struct q2_file *file, uint64_t offset,
                void (*visit)(void *data, const struct q2_owner *owner), void *data,
                uint64_t *ret_refcount, struct q2_error *err)
{
    if (!(check->usable & Q2_USABLE_GEOMETRY))
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: the header does not say how large clusters are", file->name);
    if (offset >= check->geometry.file_size)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "%s: offset %" PRIu64 " is past the end of the file, at %" PRIu64,
                            file->name, offset, check->geometry.file_size);

    uint64_t cluster = q2_cluster_of(check, offset);
    struct q2_refcount_reader reader;
    struct q2_uses uses;
    check->file = file;
    q2_work_reset(&check->work);
    q2_uses_init(&uses, check);
    int rc = q2_refcount_reader_init(&reader, check, err);
    if (rc == 0)
        rc = collect(check, cluster, &uses, err);
    for (uint64_t i = 0; rc == 0 && i < uses.count; i++)
        visit(data, &uses.items[i].owner);
    if (rc == 0)
        *ret_refcount = q2_refcount_of(&reader, cluster);
    q2_refcount_reader_destroy(&reader);
    q2_uses_destroy(&uses);
    check->file = NULL;
    return rc;
}
