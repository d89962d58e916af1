/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* New images by name. Options are held against the format, and files that exist are opened and
 * locked, before a byte of them changes; files that were made are removed if it comes to nothing.
 */

#include "core/base/cleanup.h"
#include "core/format/problem.h"
#include "core/image/create.h"
#include "core/io/path.h"
#include "core/io/posix.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct target {
    const char *path;
    struct q2_file *file;
    bool made; /* it was not there before */
};

static int
target_open(struct target *target, const char *path, struct q2_error *err)
{
    struct stat st;
    target->path = path;
    if (stat(path, &st) == 0)
        return q2_file_open(path, Q2_OPEN_WRITE, &target->file, err);
    int rc = q2_file_open(path, Q2_OPEN_CREATE, &target->file, err);
    target->made = rc == 0;
    return rc;
}

static void
target_close(struct target *target, bool keep)
{
    if (target->made && !keep)
        unlink(target->path);
    q2_file_close(target->file);
}

/* The data file is where those will look for it who open the image: beside it. */
static int
data_path(const char *image, const char *name, char **ret_path, struct q2_error *err)
{
    const char *plain = strncmp(name, "file:", 5) == 0 ? name + 5 : name;
    char printable[256];
    if (q2_path_has_protocol(plain))
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "data_file names a file by a protocol, which is not followed: %s",
                            q2_printable(printable, sizeof printable, name, strlen(name)));
    *ret_path = q2_path_beside(image, plain);
    return *ret_path ? 0 : q2_error_set(err, Q2_ERR_NOMEM, "no memory for a file name");
}

int
q2_image_create(const char *path, const struct q2_create_options *options, struct q2_error *err)
{
    struct target image = {0}, data = {0};
    Q2_AUTOFREE char *beside = NULL;
    int rc = q2_create_validate(options, err);
    if (rc == 0 && options->data_file)
        rc = data_path(path, options->data_file, &beside, err);
    if (rc == 0)
        rc = target_open(&image, path, err);
    if (rc == 0 && beside)
        rc = target_open(&data, beside, err);
    if (rc == 0)
        rc = q2_image_format(image.file, data.file, options, err);
    target_close(&data, rc == 0);
    target_close(&image, rc == 0);
    return rc;
}
