/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Pass phrases that other options name by id. They come from files and descriptors only: what is on
 * the command line, all users of the machine can read. */

#include "core/tool/secrets.h"

#include "core/codec/secret.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tool_secrets {
    struct tool_secrets *next;
    char *id;
    struct q2_secret secret;
};

const struct q2_secret *
tool_secret_find(const struct tool_secrets *secrets, const char *id)
{
    for (; secrets; secrets = secrets->next)
        if (strcmp(secrets->id, id) == 0)
            return &secrets->secret;
    tool_say("there is no secret '%s'; --object secret,id=%s,file=PATH gives one", id, id);
    return NULL;
}

void
tool_secrets_free(struct tool_secrets *secrets)
{
    while (secrets) {
        struct tool_secrets *next = secrets->next;
        q2_secret_destroy(&secrets->secret);
        free(secrets->id);
        free(secrets);
        secrets = next;
    }
}

static bool
parse_format(const struct tool_pairs *pairs, enum q2_secret_format *ret_format)
{
    const char *text = tool_pairs_get(pairs, "format");
    bool base64 = text && strcmp(text, "base64") == 0;
    if (text && !base64 && strcmp(text, "raw") != 0) {
        tool_say("the format of a secret is raw or base64, not '%s'", text);
        return false;
    }
    *ret_format = base64 ? Q2_SECRET_BASE64 : Q2_SECRET_RAW;
    return true;
}

/* Whether all keys are in `known`, which ends with NULL. */
static bool
keys_are_known(const struct tool_pairs *pairs, const char *const *known)
{
    for (size_t i = 0; i < pairs->count; i++) {
        size_t j = 0;
        while (known[j] && strcmp(known[j], pairs->pairs[i].key) != 0)
            j++;
        if (!known[j]) {
            tool_say("a secret has no property '%s'", pairs->pairs[i].key);
            return false;
        }
    }
    return true;
}

static bool
read_secret(const struct tool_pairs *pairs, const char *file, const char *fd_text,
            struct q2_secret *ret_secret)
{
    struct q2_error err = {0};
    enum q2_secret_format format;
    uint64_t fd;
    if (!parse_format(pairs, &format))
        return false;
    if (file) {
        if (q2_secret_read(file, format, ret_secret, &err) == 0)
            return true;
    } else {
        if (!tool_number_option("the descriptor of a secret", fd_text, 0, 1 << 20, &fd))
            return false;
        char name[32];
        snprintf(name, sizeof name, "descriptor %u", (unsigned)fd);
        if (q2_secret_read_fd((int)fd, name, format, ret_secret, &err) == 0)
            return true;
    }
    tool_fail(NULL, &err);
    return false;
}

static bool
add(struct tool_secrets **secrets, const struct tool_pairs *pairs, const char *file,
    const char *fd_text)
{
    const char *id = tool_pairs_get(pairs, "id");
    if (!id || !*id) {
        tool_say("a secret needs an id: id=NAME");
        return false;
    }
    for (const struct tool_secrets *other = *secrets; other; other = other->next)
        if (strcmp(other->id, id) == 0) {
            tool_say("there are two secrets '%s'", id);
            return false;
        }
    struct tool_secrets *entry = calloc(1, sizeof *entry);
    char *copy = strdup(id);
    if (!entry || !copy || !read_secret(pairs, file, fd_text, &entry->secret)) {
        if (!entry || !copy)
            tool_say("out of memory");
        free(entry);
        free(copy);
        return false;
    }
    entry->id = copy;
    entry->next = *secrets;
    *secrets = entry;
    return true;
}

static bool
add_object(struct tool_secrets **secrets, const struct tool_pairs *pairs)
{
    static const char *const known[] = {"qom-type", "id", "file", "format", "data", NULL};
    const char *type = tool_pairs_get(pairs, "qom-type");
    const char *file = tool_pairs_get(pairs, "file");
    if (!type || strcmp(type, "secret") != 0) {
        tool_say("--object makes secrets only, not '%s'", type ? type : "");
        return false;
    }
    if (!keys_are_known(pairs, known))
        return false;
    if (tool_pairs_get(pairs, "data")) {
        tool_say("a secret's data is not taken from the command line, which all users of this "
                 "machine can read; put it into a file and use file=PATH, or use --secret-fd");
        return false;
    }
    if (!file) {
        tool_say("a secret needs file=PATH");
        return false;
    }
    return add(secrets, pairs, file, NULL);
}

bool
tool_secrets_add_object(struct tool_secrets **secrets, const char *text)
{
    struct tool_pairs pairs = {0};
    bool good = tool_pairs_add(&pairs, text, "qom-type") && add_object(secrets, &pairs);
    tool_pairs_destroy(&pairs);
    return good;
}

bool
tool_secrets_add_fd(struct tool_secrets **secrets, const char *text)
{
    static const char *const known[] = {"id", "fd", "format", NULL};
    struct tool_pairs pairs = {0};
    bool good = tool_pairs_add(&pairs, text, NULL) && keys_are_known(&pairs, known);
    const char *fd_text = tool_pairs_get(&pairs, "fd");
    if (good && !fd_text) {
        tool_say("--secret-fd needs a descriptor: id=NAME,fd=NUMBER");
        good = false;
    }
    good = good && add(secrets, &pairs, NULL, fd_text);
    tool_pairs_destroy(&pairs);
    return good;
}
