/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A sandbox is for good, so that each image needs a process of its own; and an image that brings
 * one down leaves the others alone. A process writes its report to a file in memory, from where it
 * is copied to the output when the reports before it are complete: reports never mix, and their
 * order does not depend on luck. */

#include "checker/tool/batch.h"

#include "checker/console/progress.h"
#include "checker/console/say.h"
#include "checker/format.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Reports that wait for one before them; more work is not begun until it is done. */
enum { WINDOW = 64 };

struct slot {
    pid_t pid; /* 0: ended */
    int fd;    /* the report; -1: none */
    int status;
};

struct batch {
    const struct options *options;
    const struct find_list *list;
    const struct output *output;
    struct slot slots[WINDOW]; /* of image i: slot i % WINDOW */
    size_t begun;              /* images */
    size_t ended;
    size_t printed;
    unsigned running;
    size_t totals[4];
    size_t not_supported;
    struct progress progress;
};

/* ---- the process of one image ---- */

/* Never returns. The descriptors of other reports are closed: a process that is taken over by an
 * image can spoil its own report at most. */
static void
work(const struct batch *batch, size_t image, int fd)
{
    for (size_t i = batch->printed; i < batch->begun; i++)
        if (batch->slots[i % WINDOW].fd >= 0)
            close(batch->slots[i % WINDOW].fd);
    struct output output = *batch->output;
    const char *name = batch->list->names[image];
    output.silent_notes |= image != 0;
    output.out = fdopen(fd, "w");
    if (!output.out) {
        say_error(name, "no memory for the report");
        exit(Q2_EXIT_INCOMPLETE);
    }
    int status = image_run(batch->options, name, &output);
    bool failed = ferror(output.out) != 0;
    if (fclose(output.out) != 0 || failed) {
        say_error(name, "no memory for the report");
        status = Q2_EXIT_INCOMPLETE;
    }
    exit(status);
}

/* ---- starting, waiting, printing ---- */

static void
start(struct batch *batch)
{
    size_t image = batch->begun;
    struct slot *slot = &batch->slots[image % WINDOW];
    *slot = (struct slot){.fd = memfd_create("report", MFD_CLOEXEC), .status = Q2_EXIT_INCOMPLETE};
    /* What stdio has not written yet must not be written by both processes. */
    fflush(stdout);
    progress_end(&batch->progress);
    pid_t pid = slot->fd < 0 ? -1 : fork();
    if (pid == 0)
        work(batch, image, slot->fd);
    batch->begun++;
    if (pid < 0) {
        say_error(batch->list->names[image], "no process to check it: %s", strerror(errno));
        batch->ended++;
        return;
    }
    slot->pid = pid;
    batch->running++;
}

static void
note_end(struct batch *batch, size_t image, int status)
{
    struct slot *slot = &batch->slots[image % WINDOW];
    const char *name = batch->list->names[image];
    slot->pid = 0;
    batch->running--;
    batch->ended++;
    if (WIFEXITED(status)) {
        slot->status = WEXITSTATUS(status);
        return;
    }
    char message[80];
    struct output output = *batch->output;
    snprintf(message, sizeof message, "the check was ended by signal %d (%s)", WTERMSIG(status),
             strsignal(WTERMSIG(status)));
    /* What it had written of its report is no whole line. */
    FILE *report = ftruncate(slot->fd, 0) == 0 ? fdopen(dup(slot->fd), "a") : NULL;
    output.out = report ? report : stdout;
    image_fail(batch->options, name, &output, Q2_EXIT_INCOMPLETE, message);
    if (report)
        fclose(report);
}

static void
await(struct batch *batch)
{
    int status;
    pid_t pid = waitpid(-1, &status, 0);
    for (size_t i = batch->printed; pid > 0 && i < batch->begun; i++)
        if (batch->slots[i % WINDOW].pid == pid)
            note_end(batch, i, status);
    if (pid < 0 && errno == ECHILD)
        batch->running = 0;
}

static void
copy_report(int fd)
{
    char buffer[16384];
    off_t offset = 0;
    for (ssize_t got; (got = pread(fd, buffer, sizeof buffer, offset)) > 0; offset += got)
        fwrite(buffer, 1, (size_t)got, stdout);
}

static void
print_next(struct batch *batch)
{
    struct slot *slot = &batch->slots[batch->printed % WINDOW];
    if (slot->fd >= 0) {
        progress_end(&batch->progress);
        copy_report(slot->fd);
        close(slot->fd);
        slot->fd = -1;
    }
    if (slot->status >= 0 && slot->status <= Q2_EXIT_LEAKS)
        batch->totals[slot->status]++;
    else if (slot->status == Q2_EXIT_NOT_SUPPORTED)
        batch->not_supported++;
    else
        batch->totals[Q2_EXIT_INCOMPLETE]++;
    batch->printed++;
}

static bool
is_printable(const struct batch *batch)
{
    return batch->printed < batch->begun && batch->slots[batch->printed % WINDOW].pid == 0;
}

/* ---- the whole ---- */

static void
append_total(char *line, size_t size, size_t *used, size_t count, const char *what)
{
    if (count)
        q2_format_append(line, size, used, "%s %zu %s", *used ? "," : "", count, what);
}

/* Behind the reports; beside them where those are JSON, to keep one shape of lines there. */
static void
print_summary(const struct batch *batch)
{
    char line[256] = "";
    size_t used = 0;
    append_total(line, sizeof line, &used, batch->totals[Q2_EXIT_CLEAN], "without errors");
    append_total(line, sizeof line, &used, batch->totals[Q2_EXIT_CORRUPT], "damaged");
    append_total(line, sizeof line, &used, batch->totals[Q2_EXIT_LEAKS], "with leaks only");
    append_total(line, sizeof line, &used, batch->totals[Q2_EXIT_INCOMPLETE],
                 "not checked completely");
    append_total(line, sizeof line, &used, batch->not_supported, "not qcow2");
    fprintf(batch->options->json ? stderr : stdout, "%s:%s\n",
            q2_format_plural(batch->list->count, "image").text, line);
}

static int
worst_status(const struct batch *batch)
{
    static const int worst_first[] = {Q2_EXIT_INCOMPLETE, Q2_EXIT_CORRUPT, Q2_EXIT_LEAKS};
    for (size_t i = 0; i < sizeof worst_first / sizeof *worst_first; i++)
        if (batch->totals[worst_first[i]])
            return worst_first[i];
    return batch->not_supported ? Q2_EXIT_NOT_SUPPORTED : Q2_EXIT_CLEAN;
}

int
batch_run(const struct options *options, const struct find_list *list, const struct output *output)
{
    struct batch batch = {.options = options, .list = list, .output = output};
    struct output of_one = *output;
    of_one.progress = false; /* lines of several processes would fight for one place */
    batch.output = &of_one;
    unsigned jobs = options->jobs ? options->jobs : 1;
    progress_init(&batch.progress, options->progress);
    while (batch.printed < list->count) {
        while (batch.running < jobs && batch.begun < list->count &&
               batch.begun < batch.printed + WINDOW)
            start(&batch);
        if (batch.running)
            await(&batch);
        while (is_printable(&batch))
            print_next(&batch);
        if (output->progress)
            progress_show_images(&batch.progress, batch.ended, list->count);
    }
    progress_end(&batch.progress);
    if (!options->quiet)
        print_summary(&batch);
    return worst_status(&batch);
}
