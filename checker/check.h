/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Checking one image: the front of the checker library.
 *
 * The check reads, never writes, follows no other file unless it is handed in, and finishes on
 * arbitrary bytes: only the lack of memory, an unreadable header or a file that is no qcow2 image
 * end it early. Everything else is a finding. */

#ifndef Q2_CHECKER_CHECK_H
#define Q2_CHECKER_CHECK_H

#include "checker/finding.h"
#include "core/format/header.h"
#include "core/io/file.h"

struct q2_companions;

struct q2_progress {
    const char *phase; /* a few words, static */
    uint64_t done;     /* bytes */
    uint64_t total;    /* bytes; 0: unknown */
};

struct q2_check_options {
    bool deep;            /* read and decode all guest data too */
    uint64_t max_memory;  /* bytes; 0: derived from the size of the file */
    uint64_t max_work;    /* bytes that a walk may read; 0: derived from what the file occupies */
    unsigned threads;     /* 0: as many as are useful */
    uint64_t max_details; /* findings kept per problem, the rest is only counted; 0: 1000 */
    uint64_t now;         /* seconds since the Epoch, to judge dates by; 0: do not */
    /* The other files of the image, opened by the caller; NULL: they are not looked at. */
    const struct q2_companions *companions;
    /* Called now and then from the checking thread; may be NULL. */
    void (*progress)(void *data, const struct q2_progress *progress);
    void *progress_data;
};

/* The counters of `qemu-img check --output=json`, with the same meaning. */
struct q2_check_counts {
    uint64_t corruptions;
    uint64_t leaks;
    uint64_t check_errors;
    uint64_t image_end_offset; /* bytes */
    uint64_t total_clusters;
    uint64_t allocated_clusters;
    uint64_t fragmented_clusters;
    uint64_t compressed_clusters;
};

/* Faults of one problem beyond those that are kept as findings. */
struct q2_problem_count {
    uint64_t count;    /* faults in total */
    uint64_t findings; /* findings kept */
    uint64_t unlisted; /* faults that no kept finding stands for */
};

/* The exit status of qcow2-check, as that of `qemu-img check`. */
enum q2_check_exit {
    Q2_EXIT_CLEAN = 0,
    Q2_EXIT_INCOMPLETE = 1,
    Q2_EXIT_CORRUPT = 2,
    Q2_EXIT_LEAKS = 3,
    Q2_EXIT_NOT_SUPPORTED = 63,
};

struct q2_check;

/* Check `file`. Fails with Q2_ERR_NOT_QCOW2 (exit status 63), Q2_ERR_BUDGET, Q2_ERR_NOMEM, or
 * Q2_ERR_IO for a header that cannot be read; otherwise *ret_check has the result. */
int q2_check_run(struct q2_file *file, const struct q2_check_options *options,
                 struct q2_check **ret_check, struct q2_error *err);
void q2_check_free(struct q2_check *check);

/* ---- the result ---- */

const struct q2_check_counts *q2_check_counts(const struct q2_check *check);
enum q2_check_exit q2_check_exit(const struct q2_check *check);
const struct q2_header *q2_check_header(const struct q2_check *check);
/* False where the header is too broken to know the geometry; *ret_geometry is then untouched. */
bool q2_check_geometry(const struct q2_check *check, struct q2_geometry *ret_geometry);

/* Findings, ordered by severity, then problem, then position. */
size_t q2_check_finding_count(const struct q2_check *check);
const struct q2_finding *q2_check_finding(const struct q2_check *check, size_t index);
struct q2_problem_count q2_check_problem_count(const struct q2_check *check,
                                               enum q2_problem problem);

/* The snapshots of the image, as printable text; NULL past the last one. */
struct q2_snapshot_name {
    const char *id;
    const char *name;
    uint64_t disk_size; /* bytes */
};
size_t q2_check_snapshot_count(const struct q2_check *check);
const struct q2_snapshot_name *q2_check_snapshot(const struct q2_check *check, size_t index);

/* The members of a set of maps, ascending: 0 is the active map, i + 1 is snapshot i. */
size_t q2_check_maps(const struct q2_check *check, q2_map_set set, const uint32_t **ret_members);

/* ---- who owns a cluster ---- */

/* Walk the image and report each owner of the cluster at host `offset` (bytes) to `visit`, which
 * is called in the order of enum q2_owner_kind. `check` is the result of a check of the same file.
 * Also gives the refcount that the image records. */
int q2_check_owners(struct q2_check *check, struct q2_file *file, uint64_t offset,
                    void (*visit)(void *data, const struct q2_owner *owner), void *data,
                    uint64_t *ret_refcount, struct q2_error *err);

#endif
