/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/tool/shut.h"

#include "checker/check.h"
#include "checker/console/sandbox.h"
#include "checker/console/say.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
enum { ENDS = sizeof ends / sizeof ends[0] };

static volatile sig_atomic_t child;
static volatile sig_atomic_t caught;

static void
pass_on(int signal)
{
    caught = signal;
    if (child > 0)
        kill((pid_t)child, signal);
}

static sigset_t
set_of_ends(void)
{
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < ENDS; i++)
        sigaddset(&set, ends[i]);
    return set;
}

void
shut_hold(void)
{
    sigset_t set = set_of_ends();
    sigprocmask(SIG_BLOCK, &set, NULL);
}

void
shut_release(void)
{
    sigset_t set = set_of_ends();
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

void *
shut_share(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static _Noreturn void
run_child(pid_t parent, bool write, bool quiet, int (*inside)(void *data), void *data)
{
    /* Nobody would see the end of a process whose parent is gone, nor know that it still writes. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(Q2_EXIT_INCOMPLETE);
    shut_release();
    sandbox_enter_or_say(write, quiet);
    int status = inside(data);
    errno = 0;
    if (fflush(stdout) != 0 || ferror(stdout)) {
        say_error(NULL, "the report could not be written%s%s", errno ? ": " : "",
                  errno ? strerror(errno) : "");
        status = Q2_EXIT_INCOMPLETE;
    }
    exit(status);
}

/* Wait for the child, and pass signals on meanwhile. */
static int
wait_for(pid_t pid)
{
    struct sigaction action = {.sa_handler = pass_on}, old[ENDS];
    int status = 0;
    child = pid;
    for (int i = 0; i < ENDS; i++)
        sigaction(ends[i], &action, &old[i]);
    shut_release();
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    child = 0;
    for (int i = 0; i < ENDS; i++)
        sigaction(ends[i], &old[i], NULL);
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    if (WTERMSIG(status) != caught)
        say_error(NULL, "ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    return Q2_EXIT_INCOMPLETE;
}

int
shut_in(bool write, bool quiet, int (*inside)(void *data), void *data)
{
    pid_t parent = getpid();
    fflush(stdout);
    shut_hold(); /* until both are ready for it */
    pid_t pid = fork();
    if (pid == 0)
        run_child(parent, write, quiet, inside, data);
    if (pid > 0)
        return wait_for(pid);
    shut_release();
    say_error(NULL, "cannot start a process: %s", strerror(errno));
    return Q2_EXIT_INCOMPLETE;
}

void
shut_raise(void)
{
    if (caught)
        raise(caught);
}
