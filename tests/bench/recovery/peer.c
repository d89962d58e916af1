/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* QEMU's repair, on a copy of its own, with bounds: it hangs on some images and would fill the disk
 * for others. What it leaves is read by the same strict reader as ours, which opens more than QEMU
 * does. */

#include "tests/bench/recovery/images.h"
#include "tests/bench/recovery/measure.h"

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/io/posix.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PEER_SECONDS = 20, PEER_MEMORY = 2000000000 };

/* Disks that are larger are not read by QEMU: it takes too long for what cannot be read. */
#define PEER_DISK_MAX (UINT64_C(4) << 30)

static int
run(const char *const *argv, uint64_t most_bytes)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit size = {most_bytes, most_bytes}, memory = {PEER_MEMORY, PEER_MEMORY};
        int null = open("/dev/null", O_RDWR);
        setrlimit(RLIMIT_FSIZE, &size);
        setrlimit(RLIMIT_AS, &memory);
        signal(SIGXFSZ, SIG_IGN);
        alarm(PEER_SECONDS);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool
store(const char *path, const uint8_t *bytes, uint64_t length)
{
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    unlink(path);
    return q2_file_open(path, Q2_OPEN_CREATE, &file, NULL) == 0 &&
           q2_file_write(file, 0, bytes, length, NULL) == 0;
}

/* How QEMU opens the image at `path`. */
struct opening {
    char secret[4200];
    char image[8192];
};

static void
opening_init(struct opening *opening, const struct judgement *judgement,
             const struct case_options *options, const char *path)
{
    snprintf(opening->secret, sizeof opening->secret, "secret,id=key,file=%s/" IMAGE_SECRET,
             options->folder);
    snprintf(opening->image, sizeof opening->image, "driver=qcow2,%sfile.filename=%s",
             image_key_option(judgement->subject->name), path);
}

static int
check(const struct opening *opening, bool repair, uint64_t most_bytes)
{
    const char *look[] = {"qemu-img",     "check", "-q",     "--object",     opening->secret,
                          "--image-opts", "-T",    "unsafe", opening->image, NULL};
    const char *mend[] = {"qemu-img", "check",  "-q", "--object", opening->secret, "--image-opts",
                          "-T",       "unsafe", "-r", "all",      opening->image,  NULL};
    return run(repair ? mend : look, most_bytes);
}

static void
hash_raw(const struct subject *subject, const char *path, struct content *content)
{
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    uint64_t size = 0, cluster = subject->geometry.cluster_size, end;
    Q2_AUTOFREE uint8_t *bytes = malloc(cluster);
    bool data;
    if (!bytes || q2_file_open(path, 0, &file, NULL) < 0 || q2_file_size(file, &size, NULL) < 0)
        return;
    for (uint64_t i = 0; i < content->clusters && i * cluster < size; i++) {
        content->hash[i] = CONTENT_ZERO;
        if (q2_file_extent(file, i * cluster, &data, &end, NULL) == 0 && !data &&
            end >= q2_min(size, (i + 1) * cluster))
            continue;
        uint64_t length = q2_min(cluster, size - i * cluster);
        if (q2_file_read(file, i * cluster, bytes, length, NULL) == 0)
            content->hash[i] = content_hash(bytes, length);
    }
}

/* What `qemu-img convert --salvage` makes of a map of `file`, which is what `opening` opens. False
 * where it was not asked. */
static bool
peer_read(const struct judgement *judgement, const struct opening *opening, struct q2_file *file,
          const char *folder, unsigned map, struct content *content)
{
    const struct subject *subject = judgement->subject;
    char raw[4200], snapshot[1024];
    uint32_t index = judgement->after_map[map];
    const char *argv[20] = {"qemu-img",      "convert",      "-q",    "--object",
                            opening->secret, "--image-opts", "-O",    "raw",
                            "--salvage",     "-T",           "unsafe"};
    unsigned count = 11;
    uint64_t bytes = subject->truth[map].clusters << subject->geometry.cluster_bits;
    content->clusters = subject->truth[map].clusters;
    if (bytes > PEER_DISK_MAX)
        return false;
    for (uint64_t i = 0; i < content->clusters; i++)
        content->hash[i] = CONTENT_ERROR;
    snprintf(raw, sizeof raw, "%s/peer-%d.raw", folder, (int)getpid());
    if (map) {
        if (index == UINT32_MAX ||
            !subject_snapshot(subject, file, index - 1, snapshot, sizeof snapshot))
            snprintf(snapshot, sizeof snapshot, "snapshot.name=%s", subject->names[map]);
        argv[count++] = "-l";
        argv[count++] = snapshot;
    }
    argv[count++] = opening->image;
    argv[count++] = raw;
    run(argv, PEER_DISK_MAX * 2);
    hash_raw(subject, raw, content);
    unlink(raw);
    return true;
}

/* Where QEMU reads what it should and we do not, that counts. */
static void
take_better(struct judgement *judgement, const struct opening *opening, struct q2_file *file,
            const char *folder)
{
    const struct subject *subject = judgement->subject;
    struct content theirs;
    if (!content_new(subject, &theirs))
        return;
    for (unsigned map = 0; map < subject->maps; map++) {
        if (!peer_read(judgement, opening, file, folder, map, &theirs))
            continue;
        for (uint64_t i = 0; i < theirs.clusters; i++)
            if (theirs.hash[i] == subject->truth[map].hash[i])
                judgement->after[map].hash[i] = theirs.hash[i];
    }
    content_free(&theirs);
}

bool
peer_agrees(struct judgement *judgement, const struct case_options *options, struct q2_file *file)
{
    const struct subject *subject = judgement->subject;
    char path[4096];
    struct opening opening;
    struct content theirs;
    snprintf(path, sizeof path, "%s/cross-%d.qcow2", options->folder, (int)getpid());
    opening_init(&opening, judgement, options, path);
    if (judgement->after_map[0] == UINT32_MAX) /* its key is lost: there is nothing to compare */
        return true;
    if (!content_new(subject, &theirs))
        return false;
    bool agrees = file_keep(path, file) && check(&opening, false, PEER_DISK_MAX) == 0;
    if (!agrees && options->loud)
        printf("    qemu-img check finds something wrong\n");
    for (unsigned map = 0; agrees && map < subject->maps; map++) {
        if (judgement->after_map[map] == UINT32_MAX ||
            !peer_read(judgement, &opening, file, options->folder, map, &theirs))
            continue;
        for (uint64_t i = 0; agrees && i < theirs.clusters; i++) {
            /* It writes zeros for what it cannot read. */
            uint64_t ours = judgement->after[map].hash[i];
            agrees =
                theirs.hash[i] == ours || (ours == CONTENT_ERROR && theirs.hash[i] == CONTENT_ZERO);
            if (!agrees && options->loud)
                printf("    qemu-img reads something else of map %u, guest cluster %llu\n", map,
                       (unsigned long long)i);
        }
    }
    unlink(path);
    content_free(&theirs);
    return agrees;
}

void
peer_repair(struct judgement *judgement, const struct case_options *options, struct score *score)
{
    const struct hit *hit = judgement->hit;
    const char *folder = options->keep ? options->keep : options->folder;
    char path[4096];
    struct opening opening;
    struct q2_file *file = NULL;
    uint64_t size = 0, most = hit->length * 4 + (64 << 20);
    snprintf(path, sizeof path, "%s/peer-%d.qcow2", folder, (int)getpid());
    opening_init(&opening, judgement, options, path);
    if (!store(path, hit->bytes, hit->length))
        return;
    int rc = check(&opening, true, most);
    score->ran = true;
    score->failed = rc < 0;
    /* What it says in the next check, as the status after a repair is that of before. */
    score->status = rc < 0 ? 1 : check(&opening, false, most);
    if (options->loud)
        printf("qemu-img check -r all: %d, then %d\n", rc, score->status);
    if (q2_file_open(path, 0, &file, NULL) == 0) {
        q2_file_size(file, &size, NULL);
        score->bytes = size > hit->length ? size - hit->length : 0;
        judge_read(judgement, file);
        take_better(judgement, &opening, file, options->folder);
        judge(judgement, file, NULL, NULL, false, score);
        q2_file_close(file);
    }
    if (!options->keep)
        unlink(path);
}
