/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Sequences of steps: chosen by a seed, run, shrunk, printed and read again. */

#include "tests/stress/sequence.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    PATIENCE = 60, /* seconds that a sequence may take */
    ROUNDS = 400,  /* runs that shrinking may take */
};

bool
sequence_choose(struct sequence *sequence, uint64_t seed, unsigned count, enum mode mode)
{
    uint64_t random = seed * UINT64_C(0xD1342543DE82EF95);
    sequence->steps = calloc(count, sizeof *sequence->steps);
    if (!sequence->steps)
        return false;
    sequence->count = count;
    params_choose(&sequence->params, &random);
    if (mode != MODE_MODEL)
        params_shrink(&sequence->params);
    if (mode == MODE_CRASH) /* one file alone is recorded */
        sequence->params.data_file = DATA_FILE_NONE;
    for (unsigned i = 0; i < count; i++)
        step_choose(&sequence->steps[i], &random);
    /* Each operation gets its turn to be the one that fails. */
    if (mode == MODE_FAULTS || mode == MODE_MEMORY)
        sequence->steps[count - 1].op = &ops[seed % op_count];
    return true;
}

void
sequence_destroy(struct sequence *sequence)
{
    free(sequence->steps);
    *sequence = (struct sequence){0};
}

/* ---- running ---- */

static bool
model_run(struct run *run, const struct sequence *sequence, const char *folder)
{
    if (!run_begin(run, &sequence->params))
        return false;
    for (unsigned i = 0; i < sequence->count; i++)
        if (!run_step(run, &sequence->steps[i]))
            return false;
    return verify_open(run) && run_close(run) && verify_clean(run, "at the end") &&
           (!folder || verify_peer(run, folder));
}

bool
sequence_run(const struct sequence *sequence, const struct how *how)
{
    struct run run = {.verbose = how->verbose};
    bool fine = how->mode == MODE_MODEL   ? model_run(&run, sequence, how->folder)
                : how->mode == MODE_CRASH ? crash_run(&run, sequence)
                                          : faults_run(&run, sequence, how->mode == MODE_MEMORY);
    if (!fine)
        printf("%s\n", run.message);
    run_end(&run);
    return fine;
}

bool
sequence_holds(const struct sequence *sequence, const struct how *how)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        exit(2);
    }
    if (child == 0) {
        int nowhere = how->verbose ? -1 : open("/dev/null", O_WRONLY | O_CLOEXEC);
        if (nowhere >= 0) {
            dup2(nowhere, STDOUT_FILENO);
            dup2(nowhere, STDERR_FILENO);
        }
        alarm(PATIENCE);
        exit(sequence_run(sequence, how) ? 0 : 1);
    }
    while (waitpid(child, &status, 0) < 0)
        ;
    if (how->verbose && WIFSIGNALED(status))
        printf("signal %d\n", WTERMSIG(status));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- shrinking ---- */

/* Whether it still fails without steps [first, first + count); then they are gone. */
static bool
drop(struct sequence *sequence, unsigned first, unsigned count, const struct how *how)
{
    struct sequence less = {.params = sequence->params, .count = sequence->count - count};
    less.steps = calloc(less.count + 1, sizeof *less.steps);
    if (!less.steps)
        return false;
    memcpy(less.steps, sequence->steps, first * sizeof *less.steps);
    memcpy(less.steps + first, sequence->steps + first + count,
           (less.count - first) * sizeof *less.steps);
    if (sequence_holds(&less, how)) {
        sequence_destroy(&less);
        return false;
    }
    sequence_destroy(sequence);
    *sequence = less;
    return true;
}

static void
simplify(struct sequence *sequence, const struct how *how)
{
    struct params *p = &sequence->params;
    unsigned *const all[] = {&p->lazy,   &p->zstd,  &p->extended, &p->data_file,    &p->discard,
                             &p->caches, &p->below, &p->crypt,    &p->preallocation};
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        unsigned was = *all[i];
        if (was == 0)
            continue;
        *all[i] = 0;
        if (sequence_holds(sequence, how))
            *all[i] = was;
    }
}

void
sequence_shrink(struct sequence *sequence, const struct how *how)
{
    int rounds = ROUNDS;
    for (unsigned chunk = sequence->count / 2 + 1; chunk > 0 && rounds > 0;) {
        bool any = false;
        for (unsigned at = sequence->count; at > 0 && rounds > 0;) {
            unsigned first = at > chunk ? at - chunk : 0;
            at = at > sequence->count ? sequence->count : at;
            rounds--;
            if (first < at && drop(sequence, first, at - first, how))
                any = true;
            at = first;
        }
        if (!any || chunk > 1)
            chunk = chunk == 1 && any ? 1 : chunk / 2;
    }
    simplify(sequence, how);
}

/* ---- scripts ---- */

void
sequence_print(const struct sequence *sequence, FILE *out)
{
    params_print(&sequence->params, out);
    for (unsigned i = 0; i < sequence->count; i++) {
        const struct step *step = &sequence->steps[i];
        fprintf(out, "%s", step->op->name);
        for (unsigned a = 0; a < 4; a++)
            fprintf(out, " %llu", (unsigned long long)step->arg[a]);
        fputc('\n', out);
    }
}

bool
sequence_read(struct sequence *sequence, FILE *in)
{
    char line[1024];
    if (!fgets(line, sizeof line, in) || !params_parse(&sequence->params, line))
        return false;
    while (fgets(line, sizeof line, in)) {
        char name[32];
        unsigned long long arg[4];
        struct step *steps = reallocarray(sequence->steps, sequence->count + 1, sizeof *steps);
        if (!steps)
            return false;
        sequence->steps = steps;
        if (sscanf(line, "%31s %llu %llu %llu %llu", name, &arg[0], &arg[1], &arg[2], &arg[3]) != 5)
            return false;
        struct step *step = &steps[sequence->count++];
        step->op = op_find(name);
        for (unsigned a = 0; a < 4; a++)
            step->arg[a] = arg[a];
        if (!step->op)
            return false;
    }
    return true;
}
