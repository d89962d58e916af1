/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Children with limits. */

#include "fuzz/differential/streams.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SECONDS = 10,      /* that a child may take; more than ten times what any needs */
    ERRORS_MAX = 4096, /* bytes kept of stderr */
    CRASHED = 99,      /* exit status of a sanitizer with something to say */
};
static const rlim_t memory_max = (rlim_t)2 << 30;
static const rlim_t file_max = (rlim_t)1 << 30; /* QEMU's repairs have grown files to terabytes */

/* What sanitizers read when they start; a crash must not look like an exit status. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
const char *
__asan_default_options(void)
{
    return "exitcode=99:quarantine_size_mb=16";
}
const char *
__ubsan_default_options(void)
{
    return "exitcode=99:print_stacktrace=1";
}

void
run_die(const char *what)
{
    fprintf(stderr, "differential: %s: %s\n", what, strerror(errno));
    exit(2);
}

static int
new_stream(void)
{
    int fd = memfd_create("stream", MFD_CLOEXEC);
    if (fd < 0)
        run_die("stream");
    return fd;
}

struct streams
streams_new(const char *text)
{
    const struct streams streams = {new_stream(), new_stream(), new_stream()};
    streams_fill(&streams, text);
    return streams;
}

static void
fill(int fd, const char *text)
{
    size_t length = text ? strlen(text) : 0;
    if (ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0 ||
        (length > 0 && write(fd, text, length) != (ssize_t)length) || lseek(fd, 0, SEEK_SET) < 0)
        run_die("stream");
}

void
streams_fill(const struct streams *streams, const char *text)
{
    fill(streams->in, text);
    fill(streams->out, NULL);
    fill(streams->err, NULL);
}

void
streams_settle(const struct streams *streams)
{
    const struct rlimit no_core = {0, 0}, files = {file_max, file_max};
    dup2(streams->in, STDIN_FILENO);
    dup2(streams->out, STDOUT_FILENO);
    dup2(streams->err, STDERR_FILENO);
    setrlimit(RLIMIT_CORE, &no_core);
    setrlimit(RLIMIT_FSIZE, &files);
    setpgid(0, 0);
}

static char *
read_stream(int fd, size_t most, size_t *ret_length)
{
    off_t size = lseek(fd, 0, SEEK_END);
    if (size < 0)
        run_die("stream");
    size_t length = (size_t)size < most ? (size_t)size : most;
    char *text = malloc(length + 1);
    if (!text || pread(fd, text, length, 0) != (ssize_t)length)
        run_die("stream");
    text[length] = '\0';
    *ret_length = length;
    return text;
}

void
streams_take(const struct streams *streams, struct outcome *outcome)
{
    size_t ignored;
    outcome->output = read_stream(streams->out, SIZE_MAX - 1, &outcome->length);
    outcome->errors = read_stream(streams->err, ERRORS_MAX, &ignored);
}

void
streams_close(const struct streams *streams)
{
    close(streams->in);
    close(streams->out);
    close(streams->err);
}

void
outcome_set(struct outcome *outcome, bool hangs, int status)
{
    if (hangs) {
        outcome->end = RUN_HANG;
    } else if (WIFSIGNALED(status)) {
        outcome->end = RUN_CRASH;
        outcome->status = WTERMSIG(status);
    } else {
        outcome->status = WEXITSTATUS(status);
        outcome->end = outcome->status == CRASHED ? RUN_CRASH : RUN_EXIT;
    }
}

/* Wait for the child, but not longer than it may take. */
static void
wait_for(pid_t pid, struct outcome *outcome)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        run_die("pidfd");
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    int ready;
    do {
        ready = poll(&poller, 1, SECONDS * 1000);
    } while (ready < 0 && errno == EINTR);
    close(fd);
    if (ready == 0)
        kill(-pid, SIGKILL);
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            run_die("wait");
    outcome_set(outcome, ready == 0, status);
}

void
run_program(const char *const *argv, const char *input, struct outcome *ret_outcome)
{
    const struct streams streams = streams_new(input);
    /* The memory of this process, with a sanitizer's, takes long to copy. */
    pid_t pid = vfork();
    if (pid == 0) {
        const struct rlimit memory = {memory_max, memory_max};
        streams_settle(&streams);
        setrlimit(RLIMIT_AS, &memory);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    if (pid < 0)
        run_die("fork");
    setpgid(pid, pid); /* whoever comes first, the child or this */
    struct outcome outcome = {0};
    wait_for(pid, &outcome);
    streams_take(&streams, &outcome);
    streams_close(&streams);
    *ret_outcome = outcome;
}

void
outcome_destroy(struct outcome *outcome)
{
    free(outcome->output);
    free(outcome->errors);
}

const char *
outcome_word(const struct outcome *outcome, char buffer[16])
{
    switch (outcome->end) {
    case RUN_HANG:
        return "hangs";
    case RUN_CRASH:
        return "crashes";
    default:
        snprintf(buffer, 16, "exit-%d", outcome->status);
        return buffer;
    }
}
