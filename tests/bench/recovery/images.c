/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The guest writes in an order of its own; qemu-io takes the bytes of each write from a file. All
 * that looks random depends on the image's name alone, so that a case can be repeated anywhere. */

#include "tests/bench/recovery/images.h"

#include "core/base/checked.h"
#include "tests/bench/recovery/subject.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum order { SEQUENTIAL, RANDOM, FILES };

static const struct spec {
    const char *name;
    const char *options; /* for qemu-img create */
    unsigned cluster;    /* bytes */
    unsigned disk;       /* clusters */
    unsigned used;       /* about so many of them get written */
    enum order order;
    unsigned snapshots;
    unsigned bitmaps;
    bool compressed;
    bool partial; /* writes that are no whole clusters */
    bool backing;
    const char *crypt; /* "luks", "aes" or NULL */
} specs[] = {
    {"seq-64k", "cluster_size=64k", 65536, 160, 120, .order = SEQUENTIAL},
    {"files-64k", "cluster_size=64k", 65536, 30000, 140, .order = FILES},
    {"random-64k-snap2", "cluster_size=64k", 65536, 20000, 100, .order = RANDOM, .snapshots = 2},
    {"full-512", "cluster_size=512", 512, 1024, 1024, .order = RANDOM},
    {"files-512-snap1", "cluster_size=512", 512, 2000, 700, .order = FILES, .snapshots = 1},
    {"seq-4k", "cluster_size=4k", 4096, 3000, 3000, .order = SEQUENTIAL},
    {"random-4k", "cluster_size=4k", 4096, 2600, 2600, .order = RANDOM},
    {"files-4k", "cluster_size=4k", 4096, 16000, 1200, .order = FILES},
    {"v2-4k-snap2", "compat=0.10,cluster_size=4k", 4096, 4000, 900, .order = FILES, .snapshots = 2},
    {"v2-64k", "compat=0.10,cluster_size=64k", 65536, 9000, 90, .order = FILES},
    {"seq-4k-snap3", "cluster_size=4k", 4096, 2000, 1500, .order = SEQUENTIAL, .snapshots = 3},
    {"files-4k-snap3", "cluster_size=4k", 4096, 9000, 1000, .order = FILES, .snapshots = 3},
    {"zlib-64k", "cluster_size=64k", 65536, 9000, 130, .order = FILES, .compressed = true},
    {"zstd-4k-snap1", "cluster_size=4k,compression_type=zstd", 4096, 3000, 900, .order = FILES,
     .snapshots = 1, .compressed = true},
    {"extended-64k", "cluster_size=64k,extended_l2=on", 65536, 9000, 110, .order = FILES,
     .partial = true},
    {"extended-16k-snap1", "cluster_size=16k,extended_l2=on", 16384, 4000, 300, .order = RANDOM,
     .snapshots = 1, .partial = true},
    {"bitmaps-64k", "cluster_size=64k", 65536, 4000, 100, .order = FILES, .bitmaps = 2},
    {"bitmaps-4k-snap1", "cluster_size=4k", 4096, 3000, 700, .order = FILES, .snapshots = 1,
     .bitmaps = 1},
    {"backing-4k", "cluster_size=4k", 4096, 3000, 600, .order = FILES, .partial = true,
     .backing = true},
    {"2m", "cluster_size=2m", 2 << 20, 300000, 9, .order = RANDOM},
    {"luks-4k", "cluster_size=4k", 4096, 3000, 600, .order = FILES, .crypt = "luks"},
    {"aes-4k", "cluster_size=4k", 4096, 3000, 600, .order = RANDOM, .crypt = "aes"},
    {"refcount-1-4k", "cluster_size=4k,refcount_bits=1", 4096, 3000, 900, .order = FILES},
    {"refcount-64-4k-snap1", "cluster_size=4k,refcount_bits=64", 4096, 3000, 900, .order = RANDOM,
     .snapshots = 1},
};

enum { SPECS = sizeof specs / sizeof *specs, SECTOR = 512 };

const char *
image_name(unsigned index)
{
    return index < SPECS ? specs[index].name : NULL;
}

static const struct spec *
spec_of(const char *name)
{
    for (unsigned i = 0; i < SPECS; i++)
        if (strcmp(specs[i].name, name) == 0)
            return &specs[i];
    return NULL;
}

bool
image_has_backing(const char *name)
{
    return spec_of(name)->backing;
}

bool
image_is_encrypted(const char *name)
{
    return spec_of(name)->crypt != NULL;
}

const char *
image_key_option(const char *name)
{
    return !spec_of(name)->crypt ? ""
           : strcmp(spec_of(name)->crypt, "luks") == 0
               ? "encrypt.format=luks,encrypt.key-secret=key,"
               : "encrypt.format=aes,encrypt.key-secret=key,";
}

/* ---- what a guest writes ---- */

struct making {
    const struct spec *spec;
    const char *folder;
    uint64_t random;
    uint64_t salt;
    unsigned writes;  /* in this script */
    unsigned version; /* what is written now, so that it differs from before */
    FILE *script;
    uint8_t *written; /* clusters; QEMU does not compress over what was written */
};

/* Each sector begins with a number that no other has. Files are text, tables of small numbers, and
 * what looks random, in runs of clusters. */
static void
sector_content(const struct making *making, uint64_t sector, uint8_t *bytes)
{
    uint64_t state = making->salt ^ sector * UINT64_C(0x9e3779b97f4a7c15) ^ making->version;
    uint64_t tag = random_next(&state);
    unsigned style = (unsigned)((sector * SECTOR / making->spec->cluster / 3 + making->salt) % 4);
    memcpy(bytes, &tag, 8);
    for (unsigned i = 8; i < SECTOR; i += 8) {
        uint64_t word = 0;
        if (style == 0 || making->spec->compressed)
            memcpy(&word, "qcow2 is", 8);
        else if (style == 1)
            word = (sector << 3 | i) << 32;
        else
            word = random_next(&state);
        memcpy(bytes + i, &word, 8);
    }
    if (making->spec->compressed && style == 3)
        for (unsigned i = 8; i < SECTOR / 2; i += 8) {
            uint64_t word = random_next(&state);
            memcpy(bytes + i, &word, 8);
        }
}

static bool
write_content(const struct making *making, const char *path, uint64_t offset, uint64_t length)
{
    FILE *file = fopen(path, "w");
    uint8_t bytes[SECTOR];
    for (uint64_t done = 0; file && done < length; done += SECTOR) {
        sector_content(making, (offset + done) / SECTOR, bytes);
        fwrite(bytes, 1, SECTOR, file);
    }
    return file && fclose(file) == 0;
}

static bool
put(struct making *making, uint64_t cluster, uint64_t count)
{
    const struct spec *spec = making->spec;
    char path[4096];
    uint64_t size = spec->cluster, offset = cluster * size, length = count * size;
    if (spec->partial && random_below(&making->random, 3) == 0) {
        uint64_t cut = random_below(&making->random, size / SECTOR) * SECTOR;
        offset += cut;
        length -= cut;
    }
    bool compress = spec->compressed && random_below(&making->random, 8) != 0;
    for (uint64_t i = 0; i < count; i++)
        compress = compress && !making->written[cluster + i];
    memset(making->written + cluster, 1, count);
    for (uint64_t at = 0, piece; at < length; at += piece) {
        piece = compress ? q2_min(size, length - at) : length;
        snprintf(path, sizeof path, "%s/part-%u", making->folder, making->writes++);
        if (!write_content(making, path, offset + at, piece))
            return false;
        fprintf(making->script, "write -q %s-s %s %llu %llu\n", compress ? "-c " : "", path,
                (unsigned long long)(offset + at), (unsigned long long)piece);
    }
    return true;
}

static bool
put_random(struct making *making, uint64_t clusters)
{
    const struct spec *spec = making->spec;
    uint64_t step = spec->cluster >= 65536 ? 1 : 4, slots = spec->disk / step;
    bool dense = spec->used >= spec->disk, ok = true;
    uint64_t *order = calloc(slots, sizeof *order);
    for (uint64_t i = 0; order && i < slots; i++) {
        uint64_t other = random_below(&making->random, i + 1);
        order[i] = order[other];
        order[other] = i;
    }
    if (order && !dense)
        order[0] = 0; /* the start of a disk is always in use */
    for (uint64_t i = 0; order && ok && i < slots && i * step < clusters; i++)
        ok = put(making, order[i] * step, step);
    free(order);
    return ok && slots > 0;
}

/* Groups of a file system, with files in them: runs with gaps between. */
static bool
put_files(struct making *making, uint64_t clusters)
{
    const struct spec *spec = making->spec;
    uint64_t done = 0, groups = 6, group = spec->disk / groups;
    bool ok = true;
    for (uint64_t g = 0; ok && done < clusters; g = (g + 1) % groups) {
        uint64_t at = g * group + random_below(&making->random, group / 3);
        for (unsigned files = 0; ok && files < 5 && done < clusters; files++) {
            uint64_t run = 1 + random_below(&making->random, 12);
            if (at + run > spec->disk)
                break;
            ok = put(making, at, run);
            done += run;
            at +=
                run + (random_below(&making->random, 3) ? 1 + random_below(&making->random, 9) : 0);
        }
    }
    return ok;
}

static bool
put_all(struct making *making, uint64_t clusters)
{
    switch (making->spec->order) {
    case RANDOM:
        return put_random(making, clusters);
    case FILES:
        return put_files(making, clusters);
    default:
        for (uint64_t at = 0; at < clusters; at += 8)
            if (!put(making, at, q2_min(8, clusters - at)))
                return false;
        return true;
    }
}

/* ---- running QEMU's tools ---- */

static bool
shell(const char *format, const char *a, const char *b, const char *c, const char *d)
{
    char command[16384];
    /* The arguments are literals of this file and the folder, which the caller has quoted. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(command, sizeof command, format, a, b, c, d);
#pragma GCC diagnostic pop
    if (system(command) == 0)
        return true;
    fprintf(stderr, "bench-recovery: failed: %s\n", command);
    return false;
}

static bool
guest_writes(struct making *making, const char *part, uint64_t clusters)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/script", making->folder);
    making->script = fopen(path, "w");
    making->writes = 0;
    bool ok = making->script && put_all(making, clusters);
    ok = making->script && fclose(making->script) == 0 && ok;
    ok = ok && shell("qemu-io --object secret,id=key,file='%s/" IMAGE_SECRET "' --image-opts "
                     "driver=qcow2,%scache.no-flush=on,file.filename='%s' < '%s' > /dev/null",
                     making->folder, image_key_option(making->spec->name), part, path);
    for (unsigned i = 0; i < making->writes; i++) {
        char used[4200];
        snprintf(used, sizeof used, "%s/part-%u", making->folder, i);
        unlink(used);
    }
    unlink(path);
    return ok;
}

static bool
create(struct making *making, const char *part)
{
    const struct spec *spec = making->spec;
    char options[512], size[32], path[4096];
    snprintf(size, sizeof size, "%llu", (unsigned long long)spec->disk * spec->cluster);
    snprintf(options, sizeof options, "%s%s%s%s%s%s%s", spec->options,
             spec->crypt ? ",encrypt.key-secret=key,encrypt.format=" : "",
             spec->crypt ? spec->crypt : "",
             spec->crypt && strcmp(spec->crypt, "luks") == 0 ? ",encrypt.iter-time=10" : "",
             spec->backing ? ",backing_fmt=raw,backing_file=" : "", spec->backing ? spec->name : "",
             spec->backing ? ".raw" : "");
    if (spec->backing) {
        snprintf(path, sizeof path, "%s/%s.raw", making->folder, spec->name);
        making->version = 1000;
        if (!write_content(making, path, 0, (uint64_t)spec->disk * spec->cluster))
            return false;
    }
    return shell("qemu-img create -q -f qcow2 --object secret,id=key,file='%s/" IMAGE_SECRET
                 "' -o '%s' '%s' %s",
                 making->folder, options, part, size);
}

static bool
make(struct making *making, const char *part)
{
    const struct spec *spec = making->spec;
    static const char *const names[] = {"first", "second", "third"};
    bool ok = create(making, part);
    making->version = 1;
    ok = ok && guest_writes(making, part, spec->used * 3 / 4);
    for (unsigned i = 0; ok && i < spec->bitmaps; i++)
        ok = shell("qemu-img bitmap -f qcow2 --add %s '%s' %s%s", "", part, "bitmap-", names[i]);
    for (unsigned i = 0; ok && i <= spec->snapshots; i++) {
        making->version++;
        if (i < spec->snapshots && spec->crypt)
            return false; /* QEMU would need more options for that */
        if (i < spec->snapshots && ok)
            ok = shell("qemu-img snapshot -q -c %s '%s'%s%s", names[i], part, "", "");
        if (ok && (spec->order != SEQUENTIAL || i == spec->snapshots))
            ok = guest_writes(making, part, q2_max(spec->used / 4, 3));
        if (ok && spec->order == SEQUENTIAL)
            ok = guest_writes(making, part,
                              i == spec->snapshots ? spec->used : spec->used / (2 + i));
    }
    return ok;
}

bool
image_make(const char *folder, const char *name)
{
    char path[4200], part[4200];
    struct making making = {.spec = spec_of(name), .folder = folder};
    for (const char *at = name; *at; at++)
        making.salt = making.salt * 31 + (unsigned char)*at;
    making.salt = making.salt * UINT64_C(0x9e3779b97f4a7c15);
    making.random = making.salt;
    snprintf(path, sizeof path, "%s/%s.qcow2", folder, name);
    if (access(path, R_OK) == 0)
        return true;
    snprintf(part, sizeof part, "%s/" IMAGE_SECRET, folder);
    FILE *secret = fopen(part, "w");
    if (!secret || fputs("open sesame", secret) < 0 || fclose(secret) != 0)
        return false;
    snprintf(part, sizeof part, "%s/%s.part", folder, name);
    making.written = calloc(making.spec->disk, 1);
    bool ok = making.written && make(&making, part) && rename(part, path) == 0;
    if (!ok)
        unlink(part);
    free(making.written);
    return ok;
}
