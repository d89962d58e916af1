/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Files of the system: real ones for what the system does, and system calls that fail on cue (this
 * program's definitions take the place of the C library's) for what it does rarely. */

#include "core/io/posix.h"
#include "tests/unit/places.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- system calls on cue ---- */

enum call { PREADV, PWRITEV, FDATASYNC, FTRUNCATE, LSEEK, FALLOCATE, FSTAT, IOCTL, CALLS };

/* The next `times` calls fail with `errnum`; those of reads and writes that do not move at most
 * `at_most` bytes (0: any number) and none if `nothing`. */
static struct {
    int errnum;
    int times;
    size_t at_most;
    bool nothing;
} cues[CALLS];

static struct {
    uint64_t first, end;
    int calls;
} advised;

static bool
fails_on_cue(enum call call)
{
    if (cues[call].times == 0)
        return false;
    cues[call].times--;
    errno = cues[call].errnum;
    return true;
}

static void
fail_next(enum call call, int errnum, int times)
{
    cues[call].errnum = errnum;
    cues[call].times = times;
}

/* Move less than asked for, in one buffer. */
static ssize_t
move(enum call call, long number, int fd, const struct iovec *iov, int count, off_t offset)
{
    struct iovec one = iov[0];
    if (fails_on_cue(call))
        return -1;
    if (cues[call].nothing)
        return 0;
    if (cues[call].at_most) {
        one.iov_len = one.iov_len < cues[call].at_most ? one.iov_len : cues[call].at_most;
        iov = &one;
        count = 1;
    }
    return syscall(number, fd, iov, count, offset, 0);
}

ssize_t
preadv(int fd, const struct iovec *iov, int count, off_t offset)
{
    return move(PREADV, SYS_preadv, fd, iov, count, offset);
}

ssize_t
pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    return move(PWRITEV, SYS_pwritev, fd, iov, count, offset);
}

int
fdatasync(int fd)
{
    return fails_on_cue(FDATASYNC) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int
ftruncate(int fd, off_t size)
{
    return fails_on_cue(FTRUNCATE) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

off_t
lseek(int fd, off_t offset, int whence)
{
    return fails_on_cue(LSEEK) ? -1 : syscall(SYS_lseek, fd, offset, whence);
}

int
fallocate(int fd, int mode, off_t offset, off_t length)
{
    return fails_on_cue(FALLOCATE) ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

int
fstat(int fd, struct stat *ret_stat)
{
    return fails_on_cue(FSTAT) ? -1 : fstatat(fd, "", ret_stat, AT_EMPTY_PATH);
}

int
ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    va_start(args, request);
    void *argument = va_arg(args, void *);
    va_end(args);
    return fails_on_cue(IOCTL) ? -1 : (int)syscall(SYS_ioctl, fd, request, argument);
}

int
posix_fadvise(int fd, off_t offset, off_t length, int advice)
{
    cr_assert_eq(advice, POSIX_FADV_WILLNEED);
    cr_assert(advised.calls == 0 || (uint64_t)offset == advised.end, "step by step");
    if (advised.calls++ == 0)
        advised.first = (uint64_t)offset;
    advised.end = (uint64_t)(offset + length);
    return (int)syscall(SYS_fadvise64, fd, offset, length, advice);
}

/* ---- reading and writing ---- */

Test(posix, more_buffers_than_the_system_takes)
{
    enum { BUFFERS = 3000 };
    struct place place = place_new();
    Q2_AUTOCLOSE struct q2_file *file = create(&place);
    static struct iovec iov[BUFFERS];
    static uint8_t bytes[BUFFERS * 2], back[BUFFERS * 2 + 10];
    size_t total = 0, done = 0;
    for (size_t i = 0; i < BUFFERS; i++) {
        size_t length = i % 3; /* a third of them empty */
        iov[i] = (struct iovec){.iov_base = bytes + total, .iov_len = length};
        for (size_t j = 0; j < length; j++, total++)
            bytes[total] = (uint8_t)(total * 7 + 1);
    }
    cr_assert_eq(q2_file_pwritev(file, iov, BUFFERS, 3, NULL), 0);
    cr_assert_eq(size_of(file), total + 3);
    cr_assert_eq(q2_file_read(file, 3, back, total, NULL), 0);
    cr_assert_arr_eq(back, bytes, total);
    memset(bytes, 0, sizeof bytes);
    cr_assert_eq(q2_file_preadv(file, iov, BUFFERS, 3, &done, NULL), 0);
    cr_assert_eq(done, total);
    cr_assert_arr_eq(back, bytes, total);
    cr_assert_eq(q2_file_preadv(file, iov, BUFFERS, 103, &done, NULL), 0);
    cr_assert_eq(done, total - 100, "short at the end of the file only");
    place_free(&place);
}

Test(posix, interruptions_and_short_moves_are_made_good)
{
    struct place place = place_new();
    Q2_AUTOCLOSE struct q2_file *file = create(&place);
    uint8_t a[100], b[57], back[157];
    memset(a, 'a', sizeof a);
    memset(b, 'b', sizeof b);
    struct iovec iov[] = {{a, sizeof a}, {b, sizeof b}};
    cues[PWRITEV].at_most = 7;
    cues[PREADV].at_most = 13;
    fail_next(PWRITEV, EINTR, 3);
    fail_next(PREADV, EINTR, 3);
    cr_assert_eq(q2_file_pwritev(file, iov, 2, 10, NULL), 0);
    cr_assert_eq(q2_file_read(file, 10, back, sizeof back, NULL), 0);
    cr_assert_arr_eq(back, a, 100);
    cr_assert_arr_eq(back + 100, b, 57);
    fail_next(FDATASYNC, EINTR, 2);
    cr_assert_eq(q2_file_flush(file, NULL), 0);
    fail_next(FTRUNCATE, EINTR, 2);
    cr_assert_eq(q2_file_truncate(file, 50, NULL), 0);
    cr_assert_eq(size_of(file), 50);
    fail_next(FALLOCATE, EINTR, 2);
    cr_assert_eq(q2_file_punch(file, 0, 50, NULL), 0);
    place_free(&place);
}

Test(posix, errors_have_codes_and_say_where)
{
    static const struct {
        int errnum, code;
    } cases[] = {
        {ENOSPC, Q2_ERR_NOSPACE}, {EDQUOT, Q2_ERR_NOSPACE},  {EFBIG, Q2_ERR_NOSPACE},
        {ENOMEM, Q2_ERR_NOMEM},   {EROFS, Q2_ERR_READ_ONLY}, {EPERM, Q2_ERR_READ_ONLY},
        {EIO, Q2_ERR_IO},         {ESTALE, Q2_ERR_IO},
    };
    struct place place = place_new();
    Q2_AUTOCLOSE struct q2_file *file = create(&place);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct q2_error err = {0};
        fail_next(PWRITEV, cases[i].errnum, 1);
        cr_assert_eq(q2_file_write(file, 4096, "1234", 4, &err), cases[i].code);
        cr_assert(strstr(err.message, place.path) &&
                      strstr(err.message, "write 4 bytes at offset 4096") &&
                      strstr(err.message, strerror(cases[i].errnum)),
                  "%s", err.message);
        fail_next(FDATASYNC, cases[i].errnum, 1);
        cr_assert_eq(q2_file_flush(file, &err), cases[i].code);
        fail_next(FTRUNCATE, cases[i].errnum, 1);
        cr_assert_eq(q2_file_truncate(file, 12345, &err), cases[i].code);
        cr_assert(strstr(err.message, "12345"), "%s", err.message);
        fail_next(FALLOCATE, cases[i].errnum, 1);
        cr_assert_eq(q2_file_punch(file, 0, 4, &err), cases[i].code);
    }
    place_free(&place);
}

Test(posix, reading_and_asking_can_fail_too)
{
    struct place place = place_new();
    Q2_AUTOCLOSE struct q2_file *file = create(&place);
    struct q2_error err = {0};
    char back[4] = {0};
    uint64_t number = 42;
    bool data;
    cr_assert_eq(q2_file_write(file, 0, "1234", 4, NULL), 0);
    fail_next(PREADV, EIO, 1);
    cr_assert_eq(q2_file_read(file, 0, back, 4, &err), Q2_ERR_IO);
    cr_assert(strstr(err.message, "read 4 bytes at offset 0"), "%s", err.message);
    cues[PWRITEV].nothing = true;
    cr_assert_eq(q2_file_write(file, 0, "1", 1, NULL), Q2_ERR_IO, "no progress must not loop");
    fail_next(FSTAT, EIO, 1);
    cr_assert_eq(q2_file_size(file, &number, NULL), Q2_ERR_IO);
    fail_next(FSTAT, EIO, 1);
    cr_assert_eq(q2_file_allocated(file, &number, NULL), Q2_ERR_IO);
    fail_next(LSEEK, EIO, 1);
    cr_assert_eq(q2_file_extent(file, 0, &data, &number, &err), Q2_ERR_IO);
    cr_assert_eq(number, 42, "untouched on failure");
    place_free(&place);
}

Test(posix, the_system_limits_the_size)
{
    struct place place = place_new();
    Q2_AUTOCLOSE struct q2_file *file = create(&place);
    struct rlimit limit, before;
    uint8_t bytes[8192] = {0};
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 8192;
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_assert_eq(q2_file_write(file, 4096, bytes, sizeof bytes, NULL), Q2_ERR_NOSPACE);
    cr_assert_eq(q2_file_truncate(file, 8193, NULL), Q2_ERR_NOSPACE);
    cr_assert_eq(size_of(file), 8192, "the half that fits was written");
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &before), 0); /* or no coverage could be written */
    place_free(&place);
}

/* ---- sizes and holes ---- */

Test(posix, large_and_sparse)
{
    struct place place = place_new();
    Q2_AUTOCLOSE struct q2_file *file = create(&place);
    uint64_t five_gib = UINT64_C(5) << 30, bytes = UINT64_MAX;
    char back = 'x';
    cr_assert_eq(q2_file_truncate(file, five_gib, NULL), 0);
    cr_assert_eq(size_of(file), five_gib);
    cr_assert_eq(q2_file_write(file, five_gib - 1, "e", 1, NULL), 0);
    cr_assert_eq(q2_file_read(file, five_gib - 1, &back, 1, NULL), 0);
    cr_assert_eq(back, 'e');
    cr_assert_eq(q2_file_read(file, five_gib - 2, &back, 1, NULL), 0);
    cr_assert_eq(back, 0);
    cr_assert_eq(q2_file_allocated(file, &bytes, NULL), 0);
    cr_assert_lt(bytes, 1 << 20);
    cr_assert_eq(q2_file_truncate(file, 10, NULL), 0);
    cr_assert_eq(size_of(file), 10);
    place_free(&place);
}

/* All extents of a file, as a string of one letter per `unit` bytes: d for data, h for hole. */
static const char *
extents(struct q2_file *file, uint64_t unit)
{
    static char text[64];
    size_t used = 0;
    uint64_t size = size_of(file), end;
    for (uint64_t at = 0; at < size; at = end) {
        bool data;
        cr_assert_eq(q2_file_extent(file, at, &data, &end, NULL), 0);
        cr_assert(end > at && end <= size);
        for (uint64_t i = at; i < end && used < sizeof text - 1; i += unit)
            text[used++] = data ? 'd' : 'h';
    }
    text[used] = '\0';
    return text;
}

Test(posix, holes_are_seen_and_made)
{
    enum { UNIT = 64 * 1024 };
    struct place place = place_new();
    Q2_AUTOCLOSE struct q2_file *file = create(&place);
    static uint8_t bytes[2 * UNIT], back[UNIT], zeros[UNIT];
    memset(bytes, 0x11, sizeof bytes);
    cr_assert_eq(q2_file_write(file, 0, bytes, UNIT, NULL), 0);
    cr_assert_eq(q2_file_write(file, 2 * UNIT, bytes, 2 * UNIT, NULL), 0);
    cr_assert_eq(q2_file_truncate(file, 6 * UNIT, NULL), 0);
    cr_assert_eq(q2_file_flush(file, NULL), 0);
    if (strcmp(extents(file, UNIT), "dddddd") == 0)
        cr_skip_test("the file system does not tell holes");
    cr_assert_str_eq(extents(file, UNIT), "dhddhh");

    uint64_t before = 0, after = 0;
    cr_assert_eq(q2_file_allocated(file, &before, NULL), 0);
    cr_assert_eq(q2_file_punch(file, 2 * UNIT, UNIT, NULL), 0);
    cr_assert_eq(q2_file_allocated(file, &after, NULL), 0);
    cr_assert_eq(after, before - UNIT);
    cr_assert_str_eq(extents(file, UNIT), "dhhdhh");
    cr_assert_eq(q2_file_read(file, 2 * UNIT, back, UNIT, NULL), 0);
    cr_assert_arr_eq(back, zeros, UNIT);
    cr_assert_eq(q2_file_punch(file, 5 * UNIT, 10 * UNIT, NULL), 0);
    cr_assert_eq(size_of(file), 6 * UNIT, "punching keeps the size");
    place_free(&place);
}

Test(posix, where_there_are_no_holes)
{
    static const int errnums[] = {EOPNOTSUPP, ENOSYS, EINVAL, ENODEV};
    struct place place = place_new();
    Q2_AUTOCLOSE struct q2_file *file = create(&place);
    uint64_t end = 0;
    bool data = false;
    char back[6];
    for (size_t i = 0; i < 4; i++) {
        cr_assert_eq(q2_file_write(file, 0, "abcdef", 6, NULL), 0);
        fail_next(FALLOCATE, errnums[i], 1);
        cr_assert_eq(q2_file_punch(file, 1, 3, NULL), 0);
        cr_assert_eq(q2_file_read(file, 0, back, 6, NULL), 0);
        cr_assert_arr_eq(back, "a\0\0\0ef", 6);
    }
    fail_next(LSEEK, EINVAL, 1);
    cr_assert_eq(q2_file_extent(file, 2, &data, &end, NULL), 0);
    cr_assert(data && end == 6, "all is data");
    fail_next(LSEEK, EINVAL, 1);
    cr_assert_eq(q2_file_extent(file, 6, &data, &end, NULL), Q2_ERR_RANGE);
    place_free(&place);
}

Test(posix, space_is_reserved)
{
    static const int errnums[] = {0, EOPNOTSUPP, ENOSYS, ENODEV};
    for (size_t i = 0; i < 4; i++) {
        struct place place = place_new();
        Q2_AUTOCLOSE struct q2_file *file = create(&place);
        uint64_t size, taken;
        char back[3];
        cr_assert_eq(q2_file_write(file, 0, "ab", 2, NULL), 0);
        if (errnums[i])
            fail_next(FALLOCATE, errnums[i], 1);
        cr_assert_eq(q2_file_reserve(file, 1, (1 << 20) - 1, NULL), 0);
        cr_assert_eq(q2_file_size(file, &size, NULL), 0);
        cr_assert_eq(size, 1 << 20);
        cr_assert_eq(q2_file_flush(file, NULL), 0);
        cr_assert_eq(q2_file_allocated(file, &taken, NULL), 0);
        cr_assert_geq(taken, 1 << 20);
        cr_assert_eq(q2_file_read(file, 0, back, 3, NULL), 0);
        cr_assert_arr_eq(back, "ab\0", 3);
        fail_next(FALLOCATE, ENOSPC, 1);
        cr_assert_eq(q2_file_reserve(file, 0, 2 << 20, NULL), Q2_ERR_NOSPACE);
        place_free(&place);
    }
}

Test(posix, prefetch_goes_in_steps_and_ends)
{
    struct place place = place_new();
    Q2_AUTOCLOSE struct q2_file *file = create(&place);
    q2_file_prefetch(file, 1000, 300000);
    cr_assert_eq(advised.first, 1000);
    cr_assert_eq(advised.end, 301000);
    advised.calls = 0;
    q2_file_prefetch(file, 5, UINT64_C(1) << 62);
    cr_assert_eq(advised.first, 5);
    cr_assert_leq(advised.end, UINT64_C(1) << 30, "whatever the image claims");
    place_free(&place);
}

/* ---- block devices ---- */

enum { DEVICE_SIZE = 1 << 20 };

/* A loop device over the file, which goes away when the last descriptor is closed. */
static int
attach_loop(const char *path, char *ret_device, size_t device_size)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE, NULL);
    if (control >= 0)
        close(control);
    if (number < 0)
        return -1;
    snprintf(ret_device, device_size, "/dev/loop%d", number);
    int fd = open(ret_device, O_RDWR | O_CLOEXEC);
    struct loop_config config = {.fd = (uint32_t)open(path, O_RDWR | O_CLOEXEC),
                                 .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
    if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config) < 0) {
        close(fd);
        fd = -1;
    }
    close((int)config.fd);
    return fd;
}

static void
use_device(struct q2_file *file)
{
    uint8_t sector[512], back[512];
    uint64_t bytes = 0, end = 0;
    bool data = false;
    memset(sector, 0x44, sizeof sector);
    cr_assert_eq(size_of(file), DEVICE_SIZE);
    cr_assert_eq(q2_file_allocated(file, &bytes, NULL), 0);
    cr_assert_eq(bytes, DEVICE_SIZE);
    cr_assert_eq(q2_file_write(file, DEVICE_SIZE - 512, sector, 512, NULL), 0);
    cr_assert_eq(q2_file_read(file, DEVICE_SIZE - 512, back, 512, NULL), 0);
    cr_assert_arr_eq(back, sector, 512);
    cr_assert_eq(q2_file_write(file, DEVICE_SIZE - 256, sector, 512, NULL), Q2_ERR_NOSPACE);
    cr_assert_eq(q2_file_extent(file, 0, &data, &end, NULL), 0);
    cr_assert_leq(end, DEVICE_SIZE);
    cr_assert_eq(q2_file_punch(file, DEVICE_SIZE - 511, 10, NULL), 0, "not even a sector");
    memset(sector + 1, 0, 10);
    cr_assert_eq(q2_file_read(file, DEVICE_SIZE - 512, back, 512, NULL), 0);
    cr_assert_arr_eq(back, sector, 512);
    cr_assert_eq(q2_file_flush(file, NULL), 0);

    struct q2_error err = {0};
    cr_assert_eq(q2_file_truncate(file, DEVICE_SIZE, NULL), 0);
    cr_assert_eq(q2_file_truncate(file, 512, &err), Q2_ERR_UNSUPPORTED);
    cr_assert(strstr(err.message, "512") && strstr(err.message, "1048576"), "%s", err.message);
    cr_assert_eq(q2_file_truncate(file, DEVICE_SIZE + 1, NULL), Q2_ERR_NOSPACE);
    fail_next(IOCTL, EIO, 1);
    cr_assert_eq(q2_file_size(file, &bytes, NULL), Q2_ERR_IO);
    fail_next(LSEEK, EINVAL, 1);
    cr_assert_eq(q2_file_extent(file, 0, &data, &end, NULL), 0);
    cr_assert(data && end == DEVICE_SIZE);
}

Test(posix, block_devices, .timeout = 60)
{
    struct place place = place_new();
    struct q2_file *backing = create(&place), *file = NULL, *other = NULL;
    char device[32];
    struct q2_error err = {0};
    cr_assert_eq(q2_file_truncate(backing, DEVICE_SIZE, NULL), 0);
    q2_file_close(backing);
    int loop = attach_loop(place.path, device, sizeof device);
    if (loop < 0) {
        place_free(&place);
        cr_skip_test("no loop device to be had");
    }
    cr_assert_eq(q2_file_open(device, Q2_OPEN_WRITE, &file, &err), 0, "%s", err.message);
    close(loop);
    use_device(file);
    cr_assert_eq(q2_file_open(device, 0, &other, &err), Q2_ERR_LOCKED, "%s", err.message);
    q2_file_close(file);
    place_free(&place);
}
