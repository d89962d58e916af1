/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/tool/journals.h"

#include "checker/console/say.h"
#include "core/base/cleanup.h"
#include "core/io/posix.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char suffix[] = ".qcow2kit-undo";

/* ---- names ---- */

/* A journal lies beside the image itself, not beside a link to it: whatever name the image is
 * called by next time, it is found. NULL for lack of memory. */
static char *
home_of(const char *image)
{
    struct stat st;
    char *real = NULL;
    if (lstat(image, &st) == 0 && S_ISLNK(st.st_mode))
        real = realpath(image, NULL);
    return real ? real : strdup(image);
}

static char *
name_of(const char *home, unsigned number)
{
    char *name = NULL;
    int length = number ? asprintf(&name, "%s%s.%u", home, suffix, number)
                        : asprintf(&name, "%s%s", home, suffix);
    return length < 0 ? NULL : name;
}

char *
journals_image(const char *name)
{
    size_t length = strlen(name), digits = 0;
    while (digits < length && strchr("0123456789", name[length - digits - 1]))
        digits++;
    if (digits && digits < length && name[length - digits - 1] == '.')
        length -= digits + 1;
    size_t end = sizeof suffix - 1;
    if (length <= end || memcmp(name + length - end, suffix, end) != 0)
        return NULL;
    return strndup(name, length - end);
}

/* ---- finding ---- */

static int
no_memory(const char *image, struct q2_error *err)
{
    return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory to look for undo journals", image);
}

static bool
is_there(const char *name)
{
    struct stat st;
    return stat(name, &st) == 0;
}

/* Takes `name`. */
static int
add(struct journals *journals, char *name, bool write, struct q2_error *err)
{
    Q2_AUTOFREE char *owned = name;
    if (!is_there(name))
        return 0;
    int rc = q2_file_open(name, write ? Q2_OPEN_WRITE : 0, &journals->files[journals->count], err);
    if (rc == 0)
        journals->names[journals->count++] = Q2_STEAL(owned);
    /* Who may read the image need not be allowed to read what undoes its repairs. */
    if (rc == Q2_ERR_OPEN && !write) {
        say_note("%s, so that it is not known whether a repair was interrupted", err->message);
        return 0;
    }
    return rc;
}

int
journals_find(const char *image, const char *also, bool write, struct journals *ret_journals,
              struct q2_error *err)
{
    struct journals journals = {.count = 0};
    Q2_AUTOFREE char *home = home_of(image);
    int rc = home ? 0 : no_memory(image, err);
    bool listed = false;
    for (unsigned i = 0; rc == 0 && i < JOURNALS_MAX; i++) {
        char *name = name_of(home, i);
        listed |= name && also && strcmp(name, also) == 0;
        rc = name ? add(&journals, name, write, err) : no_memory(image, err);
    }
    if (rc == 0 && also && !listed) {
        char *name = strdup(also);
        rc = name ? add(&journals, name, write, err) : no_memory(image, err);
    }
    if (rc < 0) {
        journals_close(&journals);
        return rc;
    }
    *ret_journals = journals;
    return 0;
}

void
journals_close(struct journals *journals)
{
    for (size_t i = 0; i < journals->count; i++) {
        q2_file_close(journals->files[i]);
        free(journals->names[i]);
    }
    journals->count = 0;
}

/* ---- making and removing ---- */

/* Make the folder that `name` is in durable. */
static int
sync_folder(const char *name, struct q2_error *err)
{
    const char *slash = strrchr(name, '/');
    Q2_AUTOFREE char *folder = !slash          ? strdup(".")
                               : slash == name ? strdup("/")
                                               : strndup(name, (size_t)(slash - name));
    if (!folder)
        return no_memory(name, err);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Some file systems know no such thing. */
    bool synced = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL || errno == EROFS);
    int rc = synced ? 0
                    : q2_error_set_errno(err, Q2_ERR_IO, errno,
                                         "%s: the folder it is in cannot be made durable", name);
    if (fd >= 0)
        close(fd);
    return rc;
}

static int
make(const char *name, struct q2_file **ret_file, struct q2_error *err)
{
    mode_t old = umask(077);
    int rc = q2_file_open(name, Q2_OPEN_WRITE | Q2_OPEN_CREATE, ret_file, err);
    umask(old);
    if (rc < 0)
        return rc;
    rc = sync_folder(name, err);
    if (rc < 0) {
        q2_file_close(*ret_file);
        *ret_file = NULL;
        unlink(name);
    }
    return rc;
}

int
journals_create(const char *image, const char *wanted, char **ret_name, struct q2_file **ret_file,
                struct q2_error *err)
{
    Q2_AUTOFREE char *home = home_of(image);
    Q2_AUTOFREE char *name = wanted ? strdup(wanted) : NULL;
    if (!home || (wanted && !name))
        return no_memory(image, err);
    for (unsigned i = 0; !name && i < JOURNALS_MAX; i++) {
        name = name_of(home, i);
        if (!name)
            return no_memory(image, err);
        if (is_there(name)) {
            free(name);
            name = NULL;
        }
    }
    if (!name)
        return q2_error_set(err, Q2_ERR_EXISTS,
                            "%s: there are %d undo journals beside it already; remove some", image,
                            JOURNALS_MAX);
    int rc = make(name, ret_file, err);
    if (rc == 0)
        *ret_name = Q2_STEAL(name);
    return rc;
}

void
journals_remove(const char *name)
{
    struct stat st;
    if (lstat(name, &st) == 0 && !S_ISREG(st.st_mode))
        return;
    if (unlink(name) < 0)
        say_error(name, "cannot be removed: %s", strerror(errno));
    else
        sync_folder(name, NULL);
}
