/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Which kinds of images there are, and one line of text for each. */

#include "core/format/header.h"
#include "tests/stress/stress.h"

#include <stdlib.h>
#include <string.h>

/* `wide`: uint64_t, otherwise unsigned. */
static const struct field {
    const char *name;
    size_t offset;
    bool wide;
} fields[] = {
    {"version", offsetof(struct params, version), false},
    {"cluster-bits", offsetof(struct params, cluster_bits), false},
    {"refcount-bits", offsetof(struct params, refcount_bits), false},
    {"lazy", offsetof(struct params, lazy), false},
    {"zstd", offsetof(struct params, zstd), false},
    {"extended", offsetof(struct params, extended), false},
    {"data-file", offsetof(struct params, data_file), false},
    {"below", offsetof(struct params, below), false},
    {"crypt", offsetof(struct params, crypt), false},
    {"preallocation", offsetof(struct params, preallocation), false},
    {"caches", offsetof(struct params, caches), false},
    {"discard", offsetof(struct params, discard), false},
    {"size", offsetof(struct params, size), true},
    {"below-size", offsetof(struct params, below_size), true},
    {"most", offsetof(struct params, most), true},
    {"vm-most", offsetof(struct params, vm_most), true},
    {"seed", offsetof(struct params, seed), true},
    {"below-writes", offsetof(struct params, below_writes), false},
};
enum { FIELDS = sizeof fields / sizeof *fields };

static bool
chance(uint64_t *random, unsigned of)
{
    return random_below(random, of) == 0;
}

static unsigned
choose_cluster_bits(uint64_t *random, bool extended)
{
    static const unsigned usual[] = {9, 9, 9, 10, 11, 12, 12, 13, 14, 16, 16, 18, 21};
    static const unsigned large[] = {14, 14, 15, 16, 17, 21};
    return extended ? large[random_below(random, sizeof large / sizeof *large)]
                    : usual[random_below(random, sizeof usual / sizeof *usual)];
}

void
params_choose(struct params *params, uint64_t *random)
{
    struct params p = {.version = 3, .refcount_bits = 16, .seed = next_random(random)};
    p.vm_most = VM_USUAL;
    p.below_writes = BELOW_WRITES;
    p.version = chance(random, 5) ? 2 : 3;
    if (p.version == 3) {
        p.extended = chance(random, 4);
        p.lazy = chance(random, 4);
        p.zstd = chance(random, 3);
        if (chance(random, 2))
            p.refcount_bits = 1U << random_below(random, 7);
        if (chance(random, 6))
            p.data_file = chance(random, 2) ? DATA_FILE : DATA_FILE_RAW;
    }
    p.cluster_bits = choose_cluster_bits(random, p.extended);
    if (p.data_file != DATA_FILE_RAW && chance(random, 2))
        p.below = (unsigned)random_below(random, 3) + 1;
    if (!p.data_file && chance(random, 8))
        p.crypt = chance(random, 2) ? Q2_CRYPT_LUKS : Q2_CRYPT_AES;
    if (!p.below && !(p.crypt && p.version == 2) && chance(random, 8))
        p.preallocation = (unsigned)random_below(random, 4);
    if (chance(random, 3))
        p.caches = 9 + (unsigned)random_below(random, 6);
    p.discard = chance(random, 3);
    /* A few L2 tables of small clusters, several clusters of large ones. */
    uint64_t most = p.cluster_bits < 13 ? 256 << 10 : UINT64_C(24) << p.cluster_bits;
    p.most = most > 6 << 20 ? 6 << 20 : most;
    p.size = (random_below(random, p.most / 512) + 1) * 512;
    p.below_size = p.below ? (random_below(random, p.most / 512) + 1) * 512 : 0;
    *params = p;
}

void
params_print(const struct params *params, FILE *out)
{
    for (unsigned i = 0; i < FIELDS; i++) {
        const char *at = (const char *)params + fields[i].offset;
        uint64_t value;
        unsigned narrow;
        if (fields[i].wide) {
            memcpy(&value, at, sizeof value);
        } else {
            memcpy(&narrow, at, sizeof narrow);
            value = narrow;
        }
        fprintf(out, "%s%s=%llu", i ? " " : "", fields[i].name, (unsigned long long)value);
    }
    fputc('\n', out);
}

void
params_shrink(struct params *params)
{
    uint64_t most = params->extended ? 16 << 14 : 64 << 10;
    if (params->extended)
        params->cluster_bits = 14;
    else if (params->cluster_bits > 12)
        params->cluster_bits = 9 + params->cluster_bits % 4;
    if (params->crypt == Q2_CRYPT_LUKS)
        params->crypt = Q2_CRYPT_AES;
    if (params->size > most)
        params->size = (params->size / 512 * 7919 % (most / 512) + 1) * 512;
    if (params->below_size > most)
        params->below_size = (params->below_size / 512 * 7919 % (most / 512) + 1) * 512;
    params->most = most;
}

static bool
set(struct params *params, const char *name, size_t length, uint64_t value)
{
    for (unsigned i = 0; i < FIELDS; i++) {
        char *at = (char *)params + fields[i].offset;
        unsigned narrow = (unsigned)value;
        if (strlen(fields[i].name) != length || memcmp(fields[i].name, name, length) != 0)
            continue;
        if (fields[i].wide)
            memcpy(at, &value, sizeof value);
        else
            memcpy(at, &narrow, sizeof narrow);
        return true;
    }
    return false;
}

bool
params_parse(struct params *params, const char *text)
{
    params->vm_most = VM_USUAL;
    params->below_writes = BELOW_WRITES;
    for (const char *at = text; *at && *at != '\n';) {
        const char *equals = strchr(at, '=');
        char *end;
        if (!equals)
            return false;
        uint64_t value = strtoull(equals + 1, &end, 10);
        if (end == equals + 1 || !set(params, at, (size_t)(equals - at), value))
            return false;
        at = end + strspn(end, " ");
    }
    return true;
}
