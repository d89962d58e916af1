/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What is asked of ours: done by a child that stays for as long as it does not crash or hang,
 * because a process with sanitizers takes longer to fork than to answer. */

#include "fuzz/differential/worker.h"

#include "core/tool/tool.h"
#include "fuzz/differential/streams.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SECONDS = 60, /* that an answer may take, with sanitizers, on a busy machine */
    QUESTION_MAX = 1024,
    ARGUMENTS_MAX = 16,
    ANSWERS_MAX = 2000, /* of one child: what it may keep by mistake does not pile up */
};

/* The streams are shared with the child, and so is the place in them. */
static struct worker {
    pid_t pid; /* 0: none */
    int socket;
    struct streams streams;
    unsigned answers;
} worker;

/* ---- the child ---- */

static int
answer(int argc, char **argv)
{
    optind = 0; /* another command line than the one before */
    if (strcmp(argv[0], "report") == 0)
        return own_report(argv[1]);
    if (strcmp(argv[0], "repair") == 0)
        return own_repair(argv[1]);
    for (const struct tool_command *const *command = tool_commands; *command; command++)
        if (strcmp((*command)->name, argv[0]) == 0)
            return (*command)->run(argc, argv);
    return 2;
}

static void __attribute__((noreturn)) serve(int socket, const struct streams *streams)
{
    char question[QUESTION_MAX];
    streams_settle(streams);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (ssize_t length; (length = recv(socket, question, sizeof question, 0)) > 0;) {
        char *argv[ARGUMENTS_MAX + 1] = {0};
        int argc = 0;
        for (char *at = question; at < question + length && argc < ARGUMENTS_MAX;
             at += strlen(at) + 1)
            argv[argc++] = at;
        rewind(stdin);
        int status = answer(argc, argv);
        fflush(NULL);
        if (send(socket, &status, sizeof status, 0) < 0)
            break;
    }
    _exit(0);
}

/* ---- here ---- */

static void
start(void)
{
    int sockets[2];
    worker = (struct worker){.streams = streams_new(NULL)};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
        run_die("socket");
    fflush(NULL);
    worker.pid = fork();
    if (worker.pid < 0)
        run_die("fork");
    if (worker.pid == 0) {
        close(sockets[0]);
        serve(sockets[1], &worker.streams);
    }
    close(sockets[1]);
    worker.socket = sockets[0];
}

/* How the child ended, which it has, or must. */
static void
stop(bool hangs, struct outcome *outcome)
{
    int status;
    kill(worker.pid, hangs ? SIGKILL : 0);
    close(worker.socket);
    while (waitpid(worker.pid, &status, 0) < 0)
        if (errno != EINTR)
            run_die("wait");
    outcome_set(outcome, hangs, status);
    worker.pid = 0;
}

void
worker_stop(void)
{
    struct outcome ignored;
    if (worker.pid == 0)
        return;
    stop(false, &ignored);
    streams_close(&worker.streams);
}

static void
ask(const char *const *argv, struct outcome *outcome)
{
    char question[QUESTION_MAX];
    size_t length = 0;
    for (; *argv; argv++) {
        size_t size = strlen(*argv) + 1;
        if (size > sizeof question - length)
            run_die("question");
        memcpy(question + length, *argv, size);
        length += size;
    }
    struct pollfd poller = {.fd = worker.socket, .events = POLLIN};
    int ready = -1;
    if (send(worker.socket, question, length, MSG_NOSIGNAL) == (ssize_t)length)
        do {
            ready = poll(&poller, 1, SECONDS * 1000);
        } while (ready < 0 && errno == EINTR);
    if (ready != 1 || recv(worker.socket, &outcome->status, sizeof outcome->status, 0) <= 0)
        stop(ready == 0, outcome);
}

void
run_own(const char *const *argv, const char *input, struct outcome *ret_outcome)
{
    struct outcome outcome = {.end = RUN_EXIT};
    if (worker.pid == 0)
        start();
    streams_fill(&worker.streams, input);
    ask(argv, &outcome);
    streams_take(&worker.streams, &outcome);
    *ret_outcome = outcome;
    if (worker.pid == 0)
        streams_close(&worker.streams);
    else if (++worker.answers == ANSWERS_MAX)
        worker_stop();
}
