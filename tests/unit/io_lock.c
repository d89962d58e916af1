/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The locking protocol: among ourselves, byte for byte the same as QEMU's own programs hold, and
 * with those programs on the other side. The latter is skipped where they are not installed. */

#include "core/io/lock.h"
#include "core/io/posix.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- fcntl on cue: it takes the place of the C library's in this program ---- */

static struct {
    int cmd;
    int after; /* that many calls succeed first */
    int errnum;
} cue;

int
fcntl(int fd, int cmd, ...)
{
    va_list args;
    va_start(args, cmd);
    void *argument = va_arg(args, void *);
    va_end(args);
    if (cue.errnum && cmd == cue.cmd && cue.after-- <= 0) {
        errno = cue.errnum;
        return -1;
    }
    return (int)syscall(SYS_fcntl, fd, cmd, argument);
}

/* ---- places ---- */

struct place {
    char dir[32];
    char path[64];
};

static struct place
place_new(void)
{
    struct place place = {.dir = "/tmp/q2_lock_XXXXXX"};
    cr_assert_not_null(mkdtemp(place.dir));
    snprintf(place.path, sizeof place.path, "%s/disk.qcow2", place.dir);
    int fd = open(place.path, O_WRONLY | O_CREAT, 0600);
    cr_assert_geq(fd, 0);
    close(fd);
    return place;
}

static void
place_free(const struct place *place)
{
    cr_assert_eq(unlink(place->path), 0);
    cr_assert_eq(rmdir(place->dir), 0);
}

static struct q2_file *
open_ok(const struct place *place, unsigned flags)
{
    struct q2_file *file = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_file_open(place->path, flags, &file, &err), 0, "%s", err.message);
    return file;
}

static void
expect_locked(const struct place *place, unsigned flags, const char *why)
{
    struct q2_file *file = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_file_open(place->path, flags, &file, &err), Q2_ERR_LOCKED, "%s", err.message);
    cr_assert(strstr(err.message, place->path) && strstr(err.message, why), "%s", err.message);
    cr_assert_null(file);
}

enum { BYTES = 320 };

/* Which of the first bytes are locked by others, as text: one letter per byte, '-' for none. */
static void
locked_bytes(const struct place *place, char ret_text[BYTES + 1])
{
    int fd = open(place->path, O_RDWR);
    cr_assert_geq(fd, 0);
    for (int i = 0; i < BYTES; i++) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = i, .l_len = 1};
        cr_assert_eq(fcntl(fd, F_OFD_GETLK, &lock), 0);
        ret_text[i] = lock.l_type == F_RDLCK ? 'r' : lock.l_type == F_WRLCK ? 'w' : '-';
    }
    ret_text[BYTES] = '\0';
    close(fd);
}

static void
expect_bytes(const struct place *place, const int *bytes, size_t count)
{
    char text[BYTES + 1], expected[BYTES + 1];
    memset(expected, '-', BYTES);
    expected[BYTES] = '\0';
    for (size_t i = 0; i < count; i++)
        expected[bytes[i]] = 'r';
    locked_bytes(place, text);
    cr_assert_str_eq(text, expected);
}

/* ---- among ourselves ---- */

Test(lock, readers_coexist_and_a_writer_is_alone)
{
    struct place place = place_new();
    struct q2_file *reader = open_ok(&place, 0), *second = open_ok(&place, 0);
    expect_locked(&place, Q2_OPEN_WRITE, "lets no other write it (lock on byte 201)");
    q2_file_close(second);
    expect_locked(&place, Q2_OPEN_WRITE, "lock on byte 201");
    q2_file_close(reader);

    struct q2_file *writer = open_ok(&place, Q2_OPEN_WRITE);
    expect_locked(&place, 0, "has the image open to write it (lock on byte 101)");
    expect_locked(&place, Q2_OPEN_WRITE, "lock on byte 101");
    q2_file_close(writer);
    q2_file_close(open_ok(&place, Q2_OPEN_WRITE));
    place_free(&place);
}

Test(lock, forcing_takes_and_respects_none)
{
    struct place place = place_new();
    struct q2_file *writer = open_ok(&place, Q2_OPEN_WRITE);
    q2_file_close(open_ok(&place, Q2_OPEN_FORCE_SHARE));
    struct q2_file *forced = open_ok(&place, Q2_OPEN_WRITE | Q2_OPEN_FORCE_SHARE);
    q2_file_close(writer);
    expect_bytes(&place, NULL, 0);
    q2_file_close(open_ok(&place, Q2_OPEN_WRITE));
    q2_file_close(forced);
    place_free(&place);
}

Test(lock, a_created_file_is_locked_for_writing)
{
    struct place place = place_new();
    cr_assert_eq(unlink(place.path), 0);
    struct q2_file *file = open_ok(&place, Q2_OPEN_CREATE);
    expect_locked(&place, 0, "lock on byte 101");
    q2_file_close(file);
    place_free(&place);
}

Test(lock, bytes_that_are_held)
{
    static const int reader_bytes[] = {100, 201, 203}, writer_bytes[] = {100, 101, 103, 201, 203};
    struct place place = place_new();
    struct q2_file *file = open_ok(&place, 0);
    expect_bytes(&place, reader_bytes, 3);
    q2_file_close(file);
    expect_bytes(&place, NULL, 0);
    file = open_ok(&place, Q2_OPEN_WRITE);
    expect_bytes(&place, writer_bytes, 5);
    q2_file_close(file);
    expect_bytes(&place, NULL, 0);
    place_free(&place);
}

Test(lock, a_refusal_leaves_nothing_locked)
{
    static const int reader_bytes[] = {100, 201, 203};
    struct place place = place_new();
    bool locked = true;
    struct q2_error err = {0};
    int fd = open(place.path, O_RDWR), other = open(place.path, O_RDWR);
    cr_assert_eq(q2_lock_take(fd, "disk", false, &locked, &err), 0);
    cr_assert(locked);
    cr_assert_eq(q2_lock_take(other, "disk", true, &locked, &err), Q2_ERR_LOCKED);
    cr_assert(locked, "untouched on failure");
    close(fd); /* the refused descriptor stays open */
    expect_bytes(&place, NULL, 0);
    cr_assert_eq(q2_lock_take(other, "disk", false, &locked, &err), 0);
    expect_bytes(&place, reader_bytes, 3);
    close(other);
    place_free(&place);
}

static void
hold_byte(int fd, short type, int byte)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    cr_assert_eq(fcntl(fd, F_OFD_SETLK, &lock), 0);
}

Test(lock, every_byte_that_conflicts)
{
    static const struct {
        int byte;
        bool reader, writer; /* whether refused */
        const char *why;
    } cases[] = {
        {100, false, false, ""},
        {101, true, true, "open to write it"},
        {102, false, false, ""},
        {103, true, true, "open to resize it"},
        {104, false, false, ""},
        {200, true, true, "lets no other read it"},
        {201, false, true, "write"},
        {202, false, false, ""},
        {203, false, true, "lets no other resize it"},
    };
    struct place place = place_new();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd = open(place.path, O_RDWR);
        hold_byte(fd, F_RDLCK, cases[i].byte);
        if (cases[i].reader)
            expect_locked(&place, 0, cases[i].why);
        else
            q2_file_close(open_ok(&place, 0));
        if (cases[i].writer)
            expect_locked(&place, Q2_OPEN_WRITE, cases[i].why);
        else
            q2_file_close(open_ok(&place, Q2_OPEN_WRITE));
        close(fd);
    }
    place_free(&place);
}

Test(lock, exclusive_locks_are_respected)
{
    struct place place = place_new();
    int fd = open(place.path, O_RDWR);
    hold_byte(fd, F_WRLCK, 100);
    expect_locked(&place, 0, "exclusive lock");
    close(fd);
    place_free(&place);
}

Test(lock, where_the_system_cannot_lock_nothing_is_locked)
{
    static const int errnums[] = {EINVAL, ENOLCK, ENOSYS, EOPNOTSUPP};
    struct place place = place_new();
    for (size_t i = 0; i < 4; i++) {
        for (int after = 0; after < 10; after++) {
            /* A writer takes five locks and looks for five. */
            cue.cmd = after < 5 ? F_OFD_SETLK : F_OFD_GETLK;
            cue.after = after % 5;
            cue.errnum = errnums[i];
            bool locked = true;
            int fd = open(place.path, O_RDWR);
            cr_assert_eq(q2_lock_take(fd, "disk", true, &locked, NULL), 0);
            cr_assert_not(locked);
            cue.errnum = 0;
            close(fd);
        }
    }
    cue.cmd = F_OFD_SETLK;
    cue.after = 0;
    cue.errnum = ENOLCK;
    q2_file_close(open_ok(&place, Q2_OPEN_WRITE));
    cue.errnum = 0;
    place_free(&place);
}

Test(lock, half_a_lock_is_let_go)
{
    struct place place = place_new();
    bool locked = true;
    int fd = open(place.path, O_RDWR);
    cue.cmd = F_OFD_GETLK;
    cue.after = 1;
    cue.errnum = EINVAL;
    cr_assert_eq(q2_lock_take(fd, "disk", true, &locked, NULL), 0);
    cr_assert_not(locked);
    cue.errnum = 0;
    expect_bytes(&place, NULL, 0);
    close(fd);
    place_free(&place);
}

Test(lock, other_failures_are_errors)
{
    struct place place = place_new();
    struct q2_file *file = NULL;
    struct q2_error err = {0};
    cue.cmd = F_OFD_SETLK;
    cue.errnum = EIO;
    cr_assert_eq(q2_file_open(place.path, 0, &file, &err), Q2_ERR_IO);
    cr_assert(strstr(err.message, "cannot lock") && strstr(err.message, strerror(EIO)), "%s",
              err.message);
    cue.errnum = EACCES; /* some systems say this for EAGAIN */
    cr_assert_eq(q2_file_open(place.path, 0, &file, &err), Q2_ERR_LOCKED);
    cue.cmd = F_SETFL;
    cue.errnum = EIO;
    cr_assert_eq(q2_file_open(place.path, 0, &file, &err), Q2_ERR_OPEN);
    cr_assert_null(file);
    cue.errnum = 0;
    place_free(&place);
}

/* ---- with QEMU's programs ---- */

/* Run a program to its end. Returns its exit status, or -1 if there is no such program; its output
 * goes to `ret_output`. */
static int
run(char *const argv[], char *ret_output, size_t size)
{
    int out[2], status = -1;
    cr_assert_eq(pipe(out), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        dup2(out[1], 1);
        dup2(out[1], 2);
        close(out[0]);
        close(out[1]);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(out[1]);
    size_t used = 0;
    char drop[256];
    for (ssize_t got = 1; got > 0;) {
        bool full = used == size - 1;
        got = read(out[0], full ? drop : ret_output + used, full ? sizeof drop : size - 1 - used);
        used += got > 0 && !full ? (size_t)got : 0;
    }
    ret_output[used] = '\0';
    close(out[0]);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    return WEXITSTATUS(status) == 127 ? -1 : WEXITSTATUS(status);
}

#define RUN(output, ...) run((char *const[]){__VA_ARGS__, NULL}, output, sizeof output)

/* A place with an image in it; false where there is no QEMU. */
static bool
image_new(struct place *ret_place)
{
    char output[1024];
    struct place place = place_new();
    if (RUN(output, "qemu-img", "create", "-f", "qcow2", place.path, "16M") == 0 &&
        RUN(output, "qemu-io", "--version") == 0) {
        *ret_place = place;
        return true;
    }
    place_free(&place);
    return false;
}

/* A qemu-io that has the image open until its input ends. */
struct holder {
    pid_t child;
    int input;
    int output;
};

static struct holder
holder_new(const struct place *place, bool write)
{
    int in[2], out[2];
    cr_assert(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
    struct holder holder = {.child = fork(), .input = in[1], .output = out[0]};
    cr_assert_geq(holder.child, 0);
    if (holder.child == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(out[1], 2);
        if (write)
            execlp("qemu-io", "qemu-io", "-f", "qcow2", place->path, (char *)NULL);
        else
            execlp("qemu-io", "qemu-io", "-r", "-f", "qcow2", place->path, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    /* The prompt says that the image is open. */
    char prompt[256];
    size_t used = 0;
    do {
        ssize_t got = read(holder.output, prompt + used, sizeof prompt - 1 - used);
        cr_assert_gt(got, 0, "qemu-io ended: %.*s", (int)used, prompt);
        used += (size_t)got;
        prompt[used] = '\0';
    } while (!strstr(prompt, "qemu-io>"));
    return holder;
}

static void
holder_free(const struct holder *holder)
{
    int status;
    char drop[256];
    close(holder->input);
    while (read(holder->output, drop, sizeof drop) > 0)
        ;
    close(holder->output);
    cr_assert_eq(waitpid(holder->child, &status, 0), holder->child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

Test(lock_qemu, we_are_refused_while_qemu_writes, .timeout = 120)
{
    struct place place;
    if (!image_new(&place))
        cr_skip_test("qemu-img or qemu-io is not installed");
    struct holder holder = holder_new(&place, true);
    expect_locked(&place, 0, "has the image open to write it");
    expect_locked(&place, Q2_OPEN_WRITE, "has the image open to write it");
    q2_file_close(open_ok(&place, Q2_OPEN_FORCE_SHARE));
    holder_free(&holder);
    q2_file_close(open_ok(&place, Q2_OPEN_WRITE));
    place_free(&place);
}

Test(lock_qemu, we_read_while_qemu_reads, .timeout = 120)
{
    struct place place;
    if (!image_new(&place))
        cr_skip_test("qemu-img or qemu-io is not installed");
    struct holder holder = holder_new(&place, false);
    q2_file_close(open_ok(&place, 0));
    expect_locked(&place, Q2_OPEN_WRITE, "lets no other write it");
    holder_free(&holder);
    place_free(&place);
}

Test(lock_qemu, the_bytes_are_the_same, .timeout = 120)
{
    struct place place;
    if (!image_new(&place))
        cr_skip_test("qemu-img or qemu-io is not installed");
    for (unsigned flags = 0; flags <= Q2_OPEN_WRITE; flags++) {
        char ours[BYTES + 1], theirs[BYTES + 1];
        struct q2_file *file = open_ok(&place, flags);
        locked_bytes(&place, ours);
        q2_file_close(file);
        struct holder holder = holder_new(&place, flags & Q2_OPEN_WRITE);
        locked_bytes(&place, theirs);
        holder_free(&holder);
        cr_assert_str_eq(ours, theirs);
    }
    place_free(&place);
}

/* QEMU must treat us as it treats its own reader: the same exits and the same words. */
static void
expect_same_treatment(struct place *place, bool write)
{
    char *path = place->path, ours[6][1024], theirs[6][1024];
    int our_status[6], their_status[6];
    for (int turn = 0; turn < 2; turn++) {
        char(*output)[1024] = turn ? theirs : ours;
        int *status = turn ? their_status : our_status;
        struct holder holder = {0};
        struct q2_file *file = NULL;
        if (turn)
            holder = holder_new(place, write);
        else
            file = open_ok(place, write ? Q2_OPEN_WRITE : 0);
        status[0] = RUN(output[0], "qemu-img", "check", path);
        status[1] = RUN(output[1], "qemu-img", "check", "-r", "all", path);
        status[2] = RUN(output[2], "qemu-img", "info", "-U", path);
        status[3] = RUN(output[3], "qemu-io", "-f", "qcow2", "-c", "write 0 1k", path);
        status[4] = RUN(output[4], "qemu-io", "-r", "-f", "qcow2", "-c", "read 0 1k", path);
        status[5] = RUN(output[5], "qemu-img", "resize", path, "32M");
        q2_file_close(file);
        if (turn)
            holder_free(&holder);
    }
    for (int i = 0; i < 6; i++) {
        cr_assert_eq(our_status[i], their_status[i], "%d: %s", i, ours[i]);
        if (our_status[i])
            cr_assert_str_eq(ours[i], theirs[i]);
    }
    cr_assert_eq(our_status[0] == 0, !write, "%s", ours[0]);
    cr_assert_neq(our_status[1], 0);
    cr_assert(strstr(ours[1], "lock"), "%s", ours[1]);
    cr_assert_eq(our_status[2], 0, "%s", ours[2]);
    cr_assert_neq(our_status[3], 0);
    cr_assert_eq(our_status[4] == 0, !write, "%s", ours[4]);
    cr_assert_neq(our_status[5], 0);
}

Test(lock_qemu, qemu_is_refused_while_we_read_as_by_its_own_reader, .timeout = 120)
{
    struct place place;
    if (!image_new(&place))
        cr_skip_test("qemu-img or qemu-io is not installed");
    expect_same_treatment(&place, false);
    char output[1024];
    cr_assert_eq(RUN(output, "qemu-img", "check", "-r", "all", place.path), 0, "%s", output);
    place_free(&place);
}

Test(lock_qemu, qemu_is_refused_while_we_write_as_by_its_own_writer, .timeout = 120)
{
    struct place place;
    if (!image_new(&place))
        cr_skip_test("qemu-img or qemu-io is not installed");
    expect_same_treatment(&place, true);
    place_free(&place);
}
