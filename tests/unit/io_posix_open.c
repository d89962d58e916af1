/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What can be opened and how the rest is refused: with its name, its kind, and without waiting. */

#include "core/io/posix.h"
#include "tests/unit/places.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- looking fails on cue: these take the place of the C library's in this program ---- */

static int stat_errnum, fstat_errnum; /* of the next call; 0: none */

static bool
fails_on_cue(int *errnum)
{
    if (*errnum == 0)
        return false;
    errno = *errnum;
    *errnum = 0;
    return true;
}

int
stat(const char *restrict path, struct stat *restrict ret_stat)
{
    return fails_on_cue(&stat_errnum) ? -1 : fstatat(AT_FDCWD, path, ret_stat, 0);
}

int
fstat(int fd, struct stat *ret_stat)
{
    return fails_on_cue(&fstat_errnum) ? -1 : fstatat(fd, "", ret_stat, AT_EMPTY_PATH);
}

/* Opening must fail with the code, name the path and say `why`. */
static void
expect_refused(const char *path, unsigned flags, int code, const char *why)
{
    struct q2_file other, *file = &other;
    struct q2_error err = {0};
    cr_assert_eq(q2_file_open(path, flags, &file, &err), code, "%s", err.message);
    cr_assert(strstr(err.message, path) && strstr(err.message, why), "%s", err.message);
    cr_assert_eq(file, &other, "untouched on failure");
}

/* ---- opening ---- */

Test(posix_open, create_read_write_and_open_again)
{
    struct place place = place_new();
    struct q2_file *file = create(&place);
    cr_assert(file->writable);
    cr_assert_str_eq(file->name, place.path);
    cr_assert_eq(size_of(file), 0);
    cr_assert_eq(q2_file_write(file, 100, "hello", 5, NULL), 0);
    cr_assert_eq(q2_file_flush(file, NULL), 0);
    q2_file_close(file);

    char back[10];
    cr_assert_eq(q2_file_open(place.path, 0, &file, NULL), 0);
    cr_assert_not(file->writable);
    cr_assert_eq(size_of(file), 105);
    cr_assert_eq(q2_file_read(file, 95, back, 10, NULL), 0);
    cr_assert_arr_eq(back, "\0\0\0\0\0hello", 10);
    cr_assert_eq(q2_file_read(file, 96, back, 10, NULL), Q2_ERR_EOF);
    cr_assert_eq(q2_file_write(file, 0, "x", 1, NULL), Q2_ERR_READ_ONLY);
    q2_file_close(file);

    cr_assert_eq(q2_file_open(place.path, Q2_OPEN_WRITE, &file, NULL), 0);
    cr_assert_eq(q2_file_write(file, 0, "y", 1, NULL), 0);
    cr_assert_eq(size_of(file), 105);
    q2_file_close(file);
    place_free(&place);
}

Test(posix_open, create_never_opens_what_exists)
{
    struct place place = place_new();
    q2_file_close(create(&place));
    expect_refused(place.path, Q2_OPEN_CREATE, Q2_ERR_OPEN, "File exists");
    cr_assert_eq(unlink(place.path), 0);
    cr_assert_eq(symlink("elsewhere", place.path), 0);
    expect_refused(place.path, Q2_OPEN_CREATE | Q2_OPEN_WRITE, Q2_ERR_OPEN, "File exists");
    place_free(&place);
}

Test(posix_open, what_is_not_there)
{
    struct place place = place_new();
    expect_refused(place.path, 0, Q2_ERR_OPEN, "No such file or directory");
    expect_refused(place.path, Q2_OPEN_WRITE, Q2_ERR_OPEN, "cannot be opened for writing");
    expect_refused("nbd://localhost/disk", 0, Q2_ERR_OPEN, "No such file");
    place_free(&place);
}

Test(posix_open, links_are_followed)
{
    struct place place = place_new();
    char link[80];
    snprintf(link, sizeof link, "%s.link", place.path);
    q2_file_close(create(&place));
    cr_assert_eq(symlink("disk.qcow2", link), 0);
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    cr_assert_eq(q2_file_open(link, 0, &file, NULL), 0);
    cr_assert_eq(unlink(link), 0);
    place_free(&place);
}

static void
make_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
}

Test(posix_open, only_files_and_block_devices, .timeout = 20)
{
    struct place place = place_new();
    for (unsigned flags = 0; flags <= Q2_OPEN_WRITE; flags++) {
        cr_assert_eq(mkfifo(place.path, 0600), 0);
        expect_refused(place.path, flags, Q2_ERR_OPEN, "a fifo");
        cr_assert_eq(unlink(place.path), 0);
        cr_assert_eq(mkdir(place.path, 0700), 0);
        expect_refused(place.path, flags, Q2_ERR_OPEN, "a directory");
        cr_assert_eq(rmdir(place.path), 0);
        make_socket(place.path);
        expect_refused(place.path, flags, Q2_ERR_OPEN, "a socket");
        cr_assert_eq(unlink(place.path), 0);
        expect_refused("/dev/null", flags, Q2_ERR_OPEN, "a character device");
    }
    place_free(&place);
}

/* As if the path had changed between the look and the opening. */
Test(posix_open, a_fifo_put_in_place_meanwhile_is_not_waited_for, .timeout = 20)
{
    struct place place = place_new();
    cr_assert_eq(mkfifo(place.path, 0600), 0);
    for (unsigned flags = 0; flags <= Q2_OPEN_WRITE; flags++) {
        stat_errnum = ENOENT;
        expect_refused(place.path, flags, Q2_ERR_OPEN, "a fifo");
    }
    stat_errnum = ENOENT;
    fstat_errnum = EIO;
    expect_refused(place.path, 0, Q2_ERR_OPEN, "cannot be examined");
    place_free(&place);
}

Test(posix_open, descriptors_are_closed_and_not_inherited)
{
    struct place place = place_new();
    int before = dup(0), after;
    close(before);
    struct q2_file *file = create(&place);
    cr_assert_eq(fcntl(before, F_GETFD), FD_CLOEXEC, "the lowest free one was taken");
    cr_assert_eq(fcntl(before, F_GETFL) & (O_NONBLOCK | O_ACCMODE), O_RDWR);
    expect_refused("/dev/null", 0, Q2_ERR_OPEN, "a character device");
    stat_errnum = ENOENT;
    expect_refused("/dev/null", 0, Q2_ERR_OPEN, "a character device");
    q2_file_close(file);
    after = dup(0);
    close(after);
    cr_assert_eq(after, before);
    place_free(&place);
}
