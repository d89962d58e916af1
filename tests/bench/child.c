/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The kernel counts what a process takes before exec() to the program that it becomes, so that this
 * one stays small: no memory that it needs is kept while children run. */

#include "tests/bench/child.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CANNOT_START = 127 };

static double
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double
seconds(const struct timeval *time)
{
    return (double)time->tv_sec + (double)time->tv_usec / 1e6;
}

static void
become(const char *const *argv, int output)
{
    if (dup2(output, STDOUT_FILENO) >= 0 && dup2(output, STDERR_FILENO) >= 0)
        execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(CANNOT_START);
}

static pid_t
start(const char *const *argv, int output)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        become(argv, output);
    if (pid < 0)
        fprintf(stderr, "bench-check: no process for %s: %s\n", argv[0], strerror(errno));
    return pid;
}

static bool
finish(const char *const *argv, pid_t pid, struct child_cost *ret_cost)
{
    struct rusage usage;
    int status;
    while (wait4(pid, &status, 0, &usage) < 0)
        if (errno != EINTR)
            return false;
    if (WIFSIGNALED(status) || WEXITSTATUS(status) == CANNOT_START) {
        fprintf(stderr, "bench-check: %s %s\n", argv[0],
                WIFSIGNALED(status) ? "was ended by a signal" : "could not be started");
        return false;
    }
    ret_cost->cpu = seconds(&usage.ru_utime) + seconds(&usage.ru_stime);
    ret_cost->peak = (uint64_t)usage.ru_maxrss * 1024;
    ret_cost->status = WEXITSTATUS(status);
    return true;
}

bool
child_run(const char *const *argv, bool shown, struct child_cost *ret_cost)
{
    int output = shown ? dup(STDERR_FILENO) : open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (output < 0) {
        perror("bench-check");
        return false;
    }
    double begin = now();
    pid_t pid = start(argv, output);
    bool done = pid > 0 && finish(argv, pid, ret_cost);
    ret_cost->wall = now() - begin;
    close(output);
    return done;
}

bool
child_count_output(const char *const *argv, uint64_t *ret_bytes)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) {
        perror("bench-check");
        return false;
    }
    pid_t pid = start(argv, ends[1]);
    close(ends[1]);
    char buffer[16384];
    uint64_t bytes = 0;
    for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0;)
        bytes += (uint64_t)got;
    close(ends[0]);
    struct child_cost cost;
    *ret_bytes = bytes;
    return pid > 0 && finish(argv, pid, &cost);
}

bool
child_drop_caches(void)
{
    sync();
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, "3", 1) == 1;
    if (fd >= 0)
        close(fd);
    return done;
}
