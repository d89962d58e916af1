/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What a process can still do in the sandbox, and what it no longer can. Each test enters it in a
 * process of its own and says by its exit status what failed. */

#include "checker/console/sandbox.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Coverage counts and the like must not be written from inside: it would fail, loudly. */
#define END(condition) _exit((condition) ? 0 : 1)

/* Run `inside` in a sandboxed child. Criterion's own process stays as it is. */
static void
expect_inside(bool write, void (*inside)(int fd))
{
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        /* Without seccomp there is nothing to test; 77 says so. */
        if (!(q2_sandbox_enter(write) & SANDBOX_SECCOMP))
            _exit(77);
        inside(fd);
        _exit(2);
    }
    close(fd);
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status), "ended by signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status) == 77)
        cr_skip_test("this system has no seccomp");
    cr_expect_eq(WEXITSTATUS(status), 0, "status %d", WEXITSTATUS(status));
}

#define INSIDE(name)                         \
    static void inside_##name(int fd);       \
    Test(sandbox, name)                      \
    {                                        \
        expect_inside(false, inside_##name); \
    }                                        \
    static void inside_##name(__attribute__((unused)) int fd)

static bool
is_denied(long result)
{
    return result == -1 && errno == EPERM;
}

/* ---- what no longer works ---- */

INSIDE(cannot_open)
{
    END(is_denied(open("/etc/passwd", O_RDONLY)) && is_denied(open("/dev/null", O_WRONLY)) &&
        is_denied(open("new-file", O_CREAT | O_WRONLY, 0600)));
}

INSIDE(cannot_remove_or_rename)
{
    END(is_denied(unlink("no-such-file")) && is_denied(rename("a", "b")) &&
        is_denied(mkdir("folder", 0700)));
}

INSIDE(cannot_reach_the_network)
{
    END(is_denied(socket(AF_INET, SOCK_STREAM, 0)) && is_denied(socket(AF_UNIX, SOCK_STREAM, 0)));
}

INSIDE(cannot_start_a_program)
{
    char *arguments[] = {(char *)"true", NULL};
    char *environment[] = {NULL};
    END(is_denied(execve("/bin/true", arguments, environment)));
}

INSIDE(cannot_start_a_process)
{
    END(is_denied(fork()));
}

INSIDE(cannot_signal_others)
{
    END(is_denied(kill(getppid(), 0)));
}

INSIDE(cannot_make_code)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    END(page != MAP_FAILED && is_denied(mprotect(page, 4096, PROT_READ | PROT_EXEC)) &&
        mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
}

INSIDE(cannot_truncate_or_trace)
{
    END(is_denied(ftruncate(fd, 0)) && is_denied(ptrace(PTRACE_TRACEME, 0, NULL, NULL)));
}

/* ---- what has to work ---- */

INSIDE(can_read_what_is_open)
{
    char magic[4];
    struct stat st;
    END(pread(fd, magic, 4, 0) == 4 && magic[1] == 'E' && fstat(fd, &st) == 0 && st.st_size > 4 &&
        lseek(fd, 0, SEEK_DATA) == 0);
}

static void *
read_in_thread(void *data)
{
    char magic[4];
    int fd = *(int *)data;
    void *memory = malloc(1 << 20);
    bool ok = memory && pread(fd, magic, 4, 0) == 4;
    free(memory);
    return ok ? data : NULL;
}

INSIDE(can_use_threads)
{
    pthread_t threads[4];
    bool ok = true;
    for (int i = 0; i < 4; i++)
        ok = ok && pthread_create(&threads[i], NULL, read_in_thread, &fd) == 0;
    for (int i = 0; ok && i < 4; i++) {
        void *result = NULL;
        ok = pthread_join(threads[i], &result) == 0 && result == &fd;
    }
    END(ok);
}

INSIDE(can_use_memory)
{
    size_t size = 64 << 20;
    char *memory = malloc(size);
    bool ok = memory != NULL;
    if (ok)
        memory[size / 2] = 1;
    char *larger = realloc(memory, 2 * size);
    ok = ok && larger && larger[size / 2] == 1;
    free(larger ? larger : memory);
    END(ok);
}

INSIDE(can_tell_the_time_and_write)
{
    struct timespec time;
    END(clock_gettime(CLOCK_MONOTONIC, &time) == 0 && write(STDERR_FILENO, "", 0) == 0);
}

INSIDE(can_be_entered_only_once_more_tightly)
{
    /* A second time, Landlock or prctl is no longer allowed: nothing gets wider. */
    END(q2_sandbox_enter(false) == 0);
}

/* ---- what a repair does ---- */

static FILE *image;

static void
write_everything(int fd)
{
    (void)fd;
    int file = fileno(image);
    END(pwrite(file, "abc", 3, 4096) == 3 && fsync(file) == 0 && ftruncate(file, 65536) == 0 &&
        fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0 &&
        is_denied(open("new-file", O_CREAT | O_WRONLY, 0600)) &&
        is_denied(unlink("no-such-file")) && is_denied(fork()));
}

static void
write_nothing(int fd)
{
    (void)fd;
    int file = fileno(image);
    END(is_denied(pwrite(file, "abc", 3, 4096)) && is_denied(ftruncate(file, 65536)));
}

Test(sandbox, writes_what_is_open_if_that_is_asked_for)
{
    image = tmpfile();
    cr_assert_not_null(image);
    expect_inside(true, write_everything);
    expect_inside(false, write_nothing);
    fclose(image);
}
