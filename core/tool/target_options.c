/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* One table, from which come the check of what is given, the help, and the line that `create`
 * prints, in whose order it is. */

#include "core/tool/target_options.h"

#include "core/format/problem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { Q = TOOL_OPTION_OF_QCOW2, R = TOOL_OPTION_OF_RAW, A = TOOL_OPTION_OF_AMEND };

static const struct tool_create_option options[] = {
    {"encryption", "bool (on/off)", Q, NULL, "The same as encrypt.format=aes (deprecated)"},
    {"encrypt.format", "str", Q, NULL, "How to encrypt: luks, or aes (deprecated)"},
    {"encrypt.key-secret", "str", Q, NULL, "ID of the secret that opens the image"},
    {"encrypt.cipher-alg", "str", Q, NULL, "Cipher (aes-128, aes-192, aes-256)"},
    {"encrypt.cipher-mode", "str", Q, NULL, "Mode of the cipher (xts, cbc, ecb)"},
    {"encrypt.ivgen-alg", "str", Q, NULL, "Initialization vectors (plain64, plain, essiv)"},
    {"encrypt.ivgen-hash-alg", "str", Q, NULL, "Hash of essiv"},
    {"encrypt.hash-alg", "str", Q, NULL, "Hash of the key slots (sha1, sha256, sha512)"},
    {"encrypt.state", "str", A, NULL, "Add a pass phrase (active) or erase some (inactive)"},
    {"encrypt.new-secret", "str", A, NULL, "ID of the secret to add"},
    {"encrypt.old-secret", "str", A, NULL, "ID of the secret whose key slots are meant"},
    {"encrypt.keyslot", "num", A, NULL, "Number of the key slot that is meant"},
    {"encrypt.iter-time", "num", Q | A, NULL, "Milliseconds that trying a pass phrase takes"},
    {"cluster_size", "size", Q, "65536", "Cluster size, 512 to 2M"},
    {"extended_l2", "bool (on/off)", Q, "off", "Allocation in 32nds of a cluster"},
    {"preallocation", "str", Q, NULL, "Allocate in advance (off, metadata, falloc, full)"},
    {"compression_type", "str", Q, "zlib", "Method for compressed clusters (zlib, zstd)"},
    {"size", "size", Q | R | A, NULL, "Size of the virtual disk"},
    {"preallocation", "str", R, NULL, "Allocate in advance (off, falloc, full)"},
    {"compat", "str", Q | A, NULL, "Version of the format: v2 (0.10) or v3 (1.1)"},
    {"backing_file", "str", Q | A, NULL, "File name of the backing image"},
    {"backing_fmt", "str", Q | A, NULL, "Format of the backing image"},
    {"data_file", "str", Q | A, NULL, "File name of an external data file"},
    {"data_file_raw", "bool (on/off)", Q | A, NULL, "The data file can be read as a raw image"},
    {"lazy_refcounts", "bool (on/off)", Q | A, "off", "Postpone updates of refcounts"},
    {"refcount_bits", "num", Q | A, "16", "Width of a refcount in bits, 1 to 64"},
    {"extent_size_hint", "size", Q | R, NULL, "Taken for qemu-img's sake, without effect"},
    {"nocow", "bool (on/off)", Q | R, NULL, "Taken for qemu-img's sake, without effect"},
};

enum { OPTION_COUNT = sizeof options / sizeof *options };

const struct tool_create_option *
tool_create_option_find(const char *key)
{
    static struct tool_create_option found;
    const struct tool_create_option *first = NULL;
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (strcmp(options[i].key, key) != 0)
            continue;
        if (!first) {
            first = &options[i];
            continue;
        }
        /* Listed once for each format. */
        found = *first;
        found.where |= options[i].where;
        return &found;
    }
    return first;
}

bool
tool_create_keys_check(const char *name, enum q2_disk_format format, const struct tool_pairs *pairs)
{
    for (size_t i = 0; i < pairs->count; i++) {
        const struct tool_create_option *option = tool_create_option_find(pairs->pairs[i].key);
        if (option && option->where & (format == Q2_DISK_QCOW2 ? Q : R))
            continue;
        tool_say("%s: an image of format %s has no option '%s'", name, q2_disk_format_name(format),
                 pairs->pairs[i].key);
        return false;
    }
    return true;
}

static int
compare_keys(const void *left, const void *right)
{
    const struct tool_create_option *const *a = left, *const *b = right;
    return strcmp((*a)->key, (*b)->key);
}

void
tool_create_option_list(unsigned where)
{
    const struct tool_create_option *sorted[OPTION_COUNT];
    size_t count = 0;
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (options[i].where & where)
            sorted[count++] = &options[i];
    qsort(sorted, count, sizeof *sorted, compare_keys);
    for (size_t i = 0; i < count; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s=<%s>", sorted[i]->key, sorted[i]->kind);
        printf("  %-22s - %s\n", name, sorted[i]->help);
    }
}

void
tool_target_help(enum q2_disk_format format)
{
    printf("Supported %s options:\n", q2_disk_format_name(format));
    tool_create_option_list(format == Q2_DISK_QCOW2 ? Q : R);
}

/* Commas are doubled, as in a list. */
static void
print_text(const char *text)
{
    char printable[4096];
    q2_printable(printable, sizeof printable, text, strlen(text));
    for (const char *c = printable; *c; c++) {
        if (*c == ',')
            putchar(',');
        putchar(*c);
    }
}

void
tool_create_tell(const char *name, enum q2_disk_format format, const struct tool_pairs *pairs)
{
    char printable[4096];
    unsigned where = format == Q2_DISK_QCOW2 ? Q : R;
    printf("Formatting '%s', fmt=%s", q2_printable(printable, sizeof printable, name, strlen(name)),
           q2_disk_format_name(format));
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const char *value = tool_pairs_get(pairs, options[i].key);
        uint64_t size;
        value = value ? value : options[i].preset;
        if (!value || !(options[i].where & where))
            continue;
        printf(" %s=", options[i].key);
        if (strcmp(options[i].kind, "size") == 0 &&
            tool_size_parse(value, 'B', &size) == TOOL_SIZE_OK)
            printf("%" PRIu64, size);
        else
            print_text(value);
    }
    putchar('\n');
}
