/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What our checker says of an image, made in a child so that a crash is a finding too. */

#include "checker/catalogue.h"
#include "checker/scan.h"
#include "core/io/posix.h"
#include "fuzz/differential/trial.h"
#include "fuzz/differential/worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The image's features, as words that rules can ask for. */
static void
print_features(const struct q2_header *header)
{
    const struct {
        bool has;
        const char *name;
    } features[] = {
        {header->version == 2, "+v2"},
        {header->backing_file_offset != 0, "+backing"},
        {header->crypt_method != 0, "+encrypted"},
        {header->incompatible_features & Q2_INCOMPATIBLE_DATA_FILE, "+data-file"},
        {header->incompatible_features & Q2_INCOMPATIBLE_EXTENDED_L2, "+extended"},
        {header->incompatible_features & Q2_INCOMPATIBLE_DIRTY, "+dirty"},
        {header->incompatible_features & Q2_INCOMPATIBLE_CORRUPT, "+marked-corrupt"},
        {header->autoclear_features & Q2_AUTOCLEAR_BITMAPS, "+bitmaps"},
        {header->nb_snapshots != 0, "+snapshots"},
    };
    for (size_t i = 0; i < sizeof features / sizeof *features; i++)
        if (features[i].has)
            printf("trait %s\n", features[i].name);
}

/* Twice what counts as a corruption. */
static void
print_problem(const struct q2_check *check, enum q2_problem problem)
{
    const char *id = q2_problem_id(problem);
    if (q2_check_problem_count(check, problem).count == 0)
        return;
    printf("trait %s\n", id);
    if (q2_catalogue(problem)->severity == Q2_SEVERITY_CORRUPTION)
        printf("trait ^%s\n", id);
}

static void
print_check(const struct q2_check *check)
{
    const struct q2_check_counts *counts = q2_check_counts(check);
    printf("corruptions %" PRIu64 "\nleaks %" PRIu64 "\ncheck-errors %" PRIu64
           "\nimage-end-offset %" PRIu64 "\ntotal-clusters %" PRIu64 "\nallocated-clusters %" PRIu64
           "\nfragmented-clusters %" PRIu64 "\ncompressed-clusters %" PRIu64 "\n",
           counts->corruptions, counts->leaks, counts->check_errors, counts->image_end_offset,
           counts->total_clusters, counts->allocated_clusters, counts->fragmented_clusters,
           counts->compressed_clusters);
    printf("disk %" PRIu64 "\n", q2_check_header(check)->size);
    print_features(q2_check_header(check));
    for (unsigned problem = 0; problem < Q2_PROBLEM_COUNT; problem++)
        print_problem(check, (enum q2_problem)problem);
    for (size_t i = 0; i < q2_check_snapshot_count(check); i++) {
        const struct q2_snapshot_name *snapshot = q2_check_snapshot(check, i);
        printf("snapshot %s\n", snapshot->id);
        if (snapshot->disk_size % 512)
            printf("trait +part-sector-snapshot\n");
    }
}

/* Only reading finds streams that cannot be decoded. */
static int
print_streams(struct q2_file *file, struct q2_error *err)
{
    const struct q2_check_options options = {.threads = 1, .deep = true};
    struct q2_check *check = NULL;
    int rc = q2_check_run(file, &options, &check, err);
    if (rc == 0 && q2_check_problem_count(check, Q2_PROBLEM_COMPRESSED_BROKEN).count > 0)
        printf("trait +broken-stream\n");
    q2_check_free(check);
    return rc;
}

int
own_report(const char *image)
{
    struct q2_error err = {0};
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    const struct q2_check_options options = {.threads = 1};
    struct q2_check *result = NULL;
    int rc = q2_file_open(image, Q2_OPEN_FORCE_SHARE, &file, &err);
    if (rc == 0)
        rc = q2_check_run(file, &options, &result, &err);
    if (rc == 0)
        rc = print_streams(file, &err);
    if (rc < 0) {
        q2_check_free(result);
        fprintf(stderr, "%s\n", err.message);
        return rc == Q2_ERR_NOT_QCOW2 ? Q2_EXIT_NOT_SUPPORTED : Q2_EXIT_INCOMPLETE;
    }
    printf("made 1\n");
    print_check(result);
    int status = (int)q2_check_exit(result);
    q2_check_free(result);
    return status;
}

/* Whether an id can be given to programs as it is. */
static bool
is_plain(const char *id)
{
    return id[0] != '\0' && strspn(id, "0123456789abcdefghijklmnopqrstuvwxyz-") == strlen(id);
}

static void
take_line(struct report *report, FILE *traits, const char *key, const char *value)
{
    if (strcmp(key, "made") == 0) {
        report->made = true;
    } else if (strcmp(key, "trait") == 0) {
        fprintf(traits, "%s,", value);
    } else if (strcmp(key, "disk") == 0) {
        report->disk_size = strtoull(value, NULL, 10);
    } else if (strcmp(key, "snapshot") == 0 && report->snapshots < MAX_SNAPSHOTS_ASKED &&
               is_plain(value)) {
        snprintf(report->snapshot_ids[report->snapshots++], sizeof *report->snapshot_ids, "%s",
                 value);
    }
}

void
report_make(const char *image, struct report *ret_report)
{
    struct report report = {0};
    size_t length;
    const char *const argv[] = {"report", image, NULL};
    run_own(argv, NULL, &report.run);
    FILE *traits = open_memstream(&report.traits, &length);
    char *text = strdup(report.run.output), *rest = text;
    if (!traits || !text) {
        perror("memory");
        exit(2);
    }
    fputc(',', traits);
    for (char *line; (line = strsep(&rest, "\n"));) {
        char *key = strsep(&line, " ");
        if (line)
            take_line(&report, traits, key, line);
    }
    if (!report.made)
        fputs("no-report,", traits);
    fclose(traits);
    free(text);
    *ret_report = report;
}

void
report_destroy(struct report *report)
{
    outcome_destroy(&report->run);
    free(report->traits);
}
