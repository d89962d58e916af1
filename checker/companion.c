/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/companion.h"

#include "checker/catalogue.h"
#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/format/extension.h"
#include "core/io/path.h"
#include "core/io/posix.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The first cluster of a file of the chain, decoded. */
struct head {
    uint8_t *area;
    size_t length;
    struct q2_header header;
    unsigned usable;
    struct q2_extensions extensions;
};

/* Count the rules that a file's header breaks badly enough for software to refuse it. */
static void
count_broken(void *data, const struct q2_violation *violation)
{
    struct q2_companion *companion = data;
    enum q2_severity severity = q2_catalogue(violation->problem)->severity;
    if (!companion || (severity != Q2_SEVERITY_CORRUPTION && severity != Q2_SEVERITY_ERROR))
        return;
    if (companion->broken++ == 0)
        companion->first_broken = violation->problem;
}

/* Read and decode the first cluster of `file`. What is wrong with it is counted in `companion`,
 * which may be NULL. Free `area` of the result. */
static int
read_head(struct q2_file *file, struct q2_companion *companion, struct head *ret_head,
          struct q2_error *err)
{
    struct head head = {0};
    uint64_t size;
    int rc = q2_file_size(file, &size, err);
    if (rc < 0)
        return rc;
    head.length = (size_t)q2_min(size, UINT64_C(1) << Q2_MAX_CLUSTER_BITS);
    Q2_AUTOFREE uint8_t *area = malloc(head.length ? head.length : 1);
    if (!area)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for the header", file->name);
    rc = q2_file_read(file, 0, area, head.length, err);
    if (rc < 0)
        return rc;
    q2_header_decode(area, head.length, &head.header);
    if (head.header.magic == Q2_MAGIC) {
        struct q2_sink sink = {.report = count_broken, .data = companion};
        head.usable = q2_header_validate(&head.header, size, &sink);
        q2_extensions_decode(&head.header, head.usable, area, head.length, &sink, &head.extensions);
    }
    head.area = Q2_STEAL(area);
    *ret_head = head;
    return 0;
}

/* ---- opening ---- */

/* Make a companion of the file that `text` names. `chain` are those before it, and `image` is the
 * canonical path of the image itself. */
static int
open_companion(const struct q2_text *text, const char *path, unsigned flags, const char *image,
               const struct q2_companions *chain, struct q2_companion *companion,
               struct q2_error *err)
{
    char printable[4 * Q2_MAX_NAME + 4];
    Q2_AUTOFREE char *name = strndup((const char *)text->bytes, text->length);
    companion->name = strdup(q2_printable(printable, sizeof printable, text->bytes, text->length));
    if (!name || !companion->name)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for a file name", path);

    const char *plain = strncmp(name, "file:", 5) == 0 ? name + 5 : name;
    companion->state = Q2_COMPANION_NOT_FOLLOWED;
    if (q2_path_has_protocol(plain))
        return 0;
    Q2_AUTOFREE char *joined = q2_path_beside(path, plain);
    if (!joined)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for a file name", path);

    companion->state = Q2_COMPANION_MISSING;
    companion->path = realpath(joined, NULL);
    if (!companion->path) {
        q2_error_set_errno(&companion->error, Q2_ERR_OPEN, errno, "%s", companion->name);
        return 0;
    }
    bool loop = strcmp(companion->path, image) == 0;
    for (size_t i = 0; i < chain->backing_count; i++)
        loop |= chain->backing[i].path && strcmp(chain->backing[i].path, companion->path) == 0;
    companion->state = loop ? Q2_COMPANION_LOOP : Q2_COMPANION_MISSING;
    if (!loop && q2_file_open(companion->path, flags, &companion->file, &companion->error) == 0)
        companion->state = Q2_COMPANION_OPEN;
    return 0;
}

static void
companion_destroy(struct q2_companion *companion)
{
    q2_file_close(companion->file);
    free(companion->name);
    free(companion->path);
}

static struct q2_companion *
append(struct q2_companions *companions, struct q2_error *err)
{
    size_t count = companions->backing_count;
    struct q2_companion *grown =
        realloc(companions->backing, (count + 1) * sizeof *companions->backing);
    if (!grown) {
        q2_error_set(err, Q2_ERR_NOMEM, "no memory for the chain of backing files");
        return NULL;
    }
    companions->backing = grown;
    grown[count] = (struct q2_companion){0};
    return &grown[count];
}

/* Open the backing file that `head`, read from `path`, names, and make `head` that file's.
 * *ret_more says whether there is one to go on with. */
static int
follow(struct q2_companions *companions, struct head *head, const char *path, unsigned flags,
       const char *image, bool *ret_more, struct q2_error *err)
{
    const struct q2_text *name = &head->extensions.backing_file;
    const struct q2_text *format = &head->extensions.backing_format;
    *ret_more = false;
    if (!name->bytes || name->length == 0)
        return 0;
    struct q2_companion *companion = append(companions, err);
    if (!companion)
        return Q2_ERR_NOMEM;
    if (format->bytes)
        q2_printable(companion->format, sizeof companion->format, format->bytes, format->length);
    int rc = open_companion(name, path, flags, image, companions, companion, err);
    companions->backing_count++;
    if (rc < 0 || companion->state != Q2_COMPANION_OPEN)
        return rc;
    if (companions->backing_count >= Q2_MAX_CHAIN) {
        companion->state = Q2_COMPANION_TOO_DEEP;
        return 0;
    }

    struct head next;
    if (read_head(companion->file, companion, &next, &companion->error) < 0) {
        companion->state = Q2_COMPANION_MISSING;
        return 0;
    }
    free(head->area);
    *head = next;
    rc = q2_file_size(companion->file, &companion->file_size, err);
    companion->has_magic = next.header.magic == Q2_MAGIC;
    companion->header = next.header;
    companion->usable = next.usable;
    *ret_more = companion->has_magic && strcmp(companion->format, "raw") != 0;
    return rc;
}

static int
open_data_file(struct q2_companions *companions, const struct head *head, const char *path,
               unsigned flags, const char *image, struct q2_error *err)
{
    bool used = head->header.incompatible_features & Q2_INCOMPATIBLE_DATA_FILE;
    if (!used || !head->extensions.data_file.bytes)
        return 0;
    struct q2_companion *companion = &companions->data_file;
    companions->has_data_file = true;
    int rc =
        open_companion(&head->extensions.data_file, path, flags, image, companions, companion, err);
    if (rc == 0 && companion->state == Q2_COMPANION_OPEN)
        rc = q2_file_size(companion->file, &companion->file_size, err);
    return rc;
}

static int
open_all(struct q2_companions *companions, struct q2_file *file, const char *path, unsigned flags,
         struct q2_error *err)
{
    struct head head;
    Q2_AUTOFREE char *image = realpath(path, NULL);
    if (!image)
        return q2_error_set_errno(err, Q2_ERR_OPEN, errno, "%s: no canonical path", path);
    int rc = read_head(file, NULL, &head, err);
    if (rc < 0)
        return rc;
    rc = open_data_file(companions, &head, image, flags, image, err);
    bool more = rc == 0;
    const char *at = image;
    while (more && rc == 0) {
        rc = follow(companions, &head, at, flags, image, &more, err);
        if (more)
            at = companions->backing[companions->backing_count - 1].path;
    }
    free(head.area);
    return rc;
}

int
q2_companions_open(struct q2_file *image, const char *path, bool force_share,
                   struct q2_companions **ret_companions, struct q2_error *err)
{
    struct q2_companions *companions = calloc(1, sizeof *companions);
    if (!companions)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the chain of backing files");
    int rc = open_all(companions, image, path, force_share ? Q2_OPEN_FORCE_SHARE : 0, err);
    if (rc < 0)
        q2_companions_free(companions);
    else
        *ret_companions = companions;
    return rc;
}

void
q2_companions_free(struct q2_companions *companions)
{
    if (!companions)
        return;
    for (size_t i = 0; i < companions->backing_count; i++)
        companion_destroy(&companions->backing[i]);
    free(companions->backing);
    companion_destroy(&companions->data_file);
    free(companions);
}
