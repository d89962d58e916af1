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

void
peer_repair(struct judgement *judgement, const struct case_options *options, struct score *score)
{
    const struct subject *subject = judgement->subject;
    const struct hit *hit = judgement->hit;
    char path[4096], secret[4200], image[8192];
    struct q2_file *file = NULL;
    snprintf(path, sizeof path, "%s/peer-%d.qcow2", options->keep ? options->keep : options->folder,
             (int)getpid());
    snprintf(secret, sizeof secret, "secret,id=key,file=%s/" IMAGE_SECRET, options->folder);
    snprintf(image, sizeof image, "driver=qcow2,%sfile.filename=%s",
             image_key_option(subject->name), path);
    if (!store(path, hit->bytes, hit->length))
        return;
    int rc = run((const char *const[]){"qemu-img", "check", "-q", "--object", secret,
                                       "--image-opts", "-T", "unsafe", "-r", "all", image, NULL},
                 hit->length * 4 + (64 << 20));
    score->ran = true;
    score->failed = rc < 0;
    /* What it says in the next check, as the status after a repair is that of before. */
    score->status = rc < 0 ? 1
                           : run((const char *const[]){"qemu-img", "check", "-q", "--object",
                                                       secret, "--image-opts", image, NULL},
                                 hit->length * 4 + (64 << 20));
    if (options->loud)
        printf("qemu-img check -r all: %d, then %d\n", rc, score->status);
    uint64_t size = 0;
    if (q2_file_open(path, 0, &file, NULL) == 0) {
        q2_file_size(file, &size, NULL);
        score->bytes = size > hit->length ? size - hit->length : 0;
        judge(judgement, file, NULL, false, score);
        q2_file_close(file);
    }
    if (!options->keep)
        unlink(path);
}
