/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Two layers that know nothing of each other: Landlock denies by kind of object, seccomp by system
 * call. Where the kernel has both, one hole in a list opens nothing. */

#include "checker/console/sandbox.h"

#include "checker/console/say.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef Q2_COVERAGE
void __gcov_dump(void);
#endif

/* The leak checker wants to open files of /proc and to stop the process when it ends, neither of
 * which a sandbox may allow. Tests of the libraries look for leaks. */
#if defined __has_feature
#if __has_feature(address_sanitizer)
#define Q2_ASAN
#endif
#elif defined __SANITIZE_ADDRESS__
#define Q2_ASAN
#endif
#ifdef Q2_ASAN
/* The run-time library finds it by its name. */
const char *__asan_default_options(void) __attribute__((visibility("default")));
const char *
__asan_default_options(void)
{
    return "detect_leaks=0";
}
#endif

/* ---- Landlock ---- */

/* The kernel's struct landlock_ruleset_attr of ABI 6; older kernels take it with zeros at its end,
 * and the headers that this is built with may be older than the kernel. */
struct ruleset {
    uint64_t file_system;
    uint64_t network;
    uint64_t scoped;
};

/* Everything that an ABI version can deny. */
static struct ruleset
ruleset_of(long abi)
{
    unsigned file_system_bits = abi >= 5 ? 16 : abi >= 3 ? 15 : abi >= 2 ? 14 : 13;
    return (struct ruleset){
        .file_system = (UINT64_C(1) << file_system_bits) - 1,
        .network = abi >= 4 ? 3 : 0,
        .scoped = abi >= 6 ? 3 : 0,
    };
}

/* A ruleset without rules: what is denied is denied everywhere. Returns a descriptor, or -1 where
 * the kernel has none of it. */
static int
prepare_landlock(void)
{
#if defined SYS_landlock_create_ruleset && defined SYS_landlock_restrict_self
    enum { WANT_VERSION = 1 };
    long abi = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, WANT_VERSION);
    if (abi < 1)
        return -1;
    struct ruleset ruleset = ruleset_of(abi);
    return (int)syscall(SYS_landlock_create_ruleset, &ruleset, sizeof ruleset, 0);
#else
    return -1;
#endif
}

static unsigned
enter_landlock(int ruleset)
{
    long failed = -1;
#ifdef SYS_landlock_restrict_self
    if (ruleset >= 0)
        failed = syscall(SYS_landlock_restrict_self, ruleset, 0);
#endif
    return failed ? 0 : SANDBOX_LANDLOCK;
}

/* ---- seccomp ---- */

static const int calls[] = {
    /* reading, and the report; which descriptors there are was decided before */
    SCMP_SYS(read),
    SCMP_SYS(readv),
    SCMP_SYS(pread64),
    SCMP_SYS(preadv),
    SCMP_SYS(preadv2),
    SCMP_SYS(lseek),
    SCMP_SYS(fstat),
    SCMP_SYS(fadvise64),
    SCMP_SYS(readahead),
    SCMP_SYS(write),
    SCMP_SYS(writev),
    SCMP_SYS(close),
    /* memory */
    SCMP_SYS(brk),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    /* threads */
    SCMP_SYS(futex),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    /* time, and what the C library asks for now and then */
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(getrandom),
    SCMP_SYS(sysinfo),
};

/* What a repair takes besides. */
static const int write_calls[] = {
    SCMP_SYS(pwrite64),  SCMP_SYS(pwritev),   SCMP_SYS(pwritev2),  SCMP_SYS(fsync),
    SCMP_SYS(fdatasync), SCMP_SYS(fallocate), SCMP_SYS(ftruncate), SCMP_SYS(sync_file_range),
};

/* A system call that is allowed only where one argument, masked, has a value. */
struct narrow_call {
    int call;
    unsigned argument;
    uint64_t mask;
    uint64_t value;
};

static const struct narrow_call narrow_calls[] = {
    {SCMP_SYS(clone), 0, CLONE_THREAD, CLONE_THREAD}, /* threads, no processes */
    {SCMP_SYS(mmap), 2, PROT_EXEC, 0},
    {SCMP_SYS(mprotect), 2, PROT_EXEC, 0},
    {SCMP_SYS(newfstatat), 3, AT_EMPTY_PATH, AT_EMPTY_PATH}, /* how glibc calls fstat */
    {SCMP_SYS(prlimit64), 2, UINT64_MAX, 0},                 /* ask, do not set */
    {SCMP_SYS(prctl), 0, UINT32_MAX, PR_SET_NAME},
    {SCMP_SYS(ioctl), 1, UINT32_MAX, BLKGETSIZE64},
    {SCMP_SYS(ioctl), 1, UINT32_MAX, TCGETS}, /* isatty, when stdio first writes */
    {SCMP_SYS(fcntl), 1, UINT32_MAX, F_GETFL},
    {SCMP_SYS(fcntl), 1, UINT32_MAX, F_OFD_GETLK},
    {SCMP_SYS(fcntl), 1, UINT32_MAX, F_OFD_SETLK},
};

/* Calls that the machine at hand does not have are no error, so results are looked at only where
 * missing the rule would leave the sandbox open; a missing allowance just denies. */
static int
add_rules(scmp_filter_ctx filter, bool write)
{
    for (size_t i = 0; write && i < sizeof write_calls / sizeof *write_calls; i++)
        seccomp_rule_add(filter, SCMP_ACT_ALLOW, write_calls[i], 0);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
    for (size_t i = 0; i < sizeof narrow_calls / sizeof *narrow_calls; i++) {
        const struct narrow_call *narrow = &narrow_calls[i];
        struct scmp_arg_cmp compare = {narrow->argument, SCMP_CMP_MASKED_EQ, narrow->mask,
                                       narrow->value};
        seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, narrow->call, 1, &compare);
    }
    /* abort() has to work; signals to anybody else do not. */
    struct scmp_arg_cmp self = {0, SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0};
    seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, &self);
    /* Its flags are behind a pointer, so that threads cannot be told from processes. */
    return seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

unsigned
q2_sandbox_enter(bool write)
{
    /* Both layers need it, and without it neither would be allowed to a common user. */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return 0;
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int failed = filter ? add_rules(filter, write) : -ENOMEM;
    int ruleset = prepare_landlock();
#ifdef Q2_COVERAGE
    __gcov_dump(); /* what follows takes away the means to write the counts */
#endif
    unsigned layers = enter_landlock(ruleset);
    if (ruleset >= 0)
        close(ruleset);
    if (!failed && seccomp_load(filter) == 0)
        layers |= SANDBOX_SECCOMP;
    if (filter)
        seccomp_release(filter);
    return layers;
}

void
sandbox_enter_or_say(bool write, bool quiet)
{
#ifdef Q2_COVERAGE
    /* The counts are written to files at the end. */
    (void)write;
    (void)quiet;
#else
    unsigned layers = q2_sandbox_enter(write);
    if (layers == SANDBOX_ALL || quiet)
        return;
    say_note("this system lacks %s; going on %s",
             layers == 0                ? "Landlock and seccomp"
             : layers & SANDBOX_SECCOMP ? "Landlock"
                                        : "seccomp",
             layers == 0 ? "without a sandbox" : "with the rest of the sandbox");
#endif
}
