/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A line that is drawn over and over, one per cent at a time; for who did not ask for it with -p, a
 * signal does. */

#include "core/tool/tool.h"

#include <signal.h>
#include <stdio.h>

static volatile sig_atomic_t asked;

static void
note_signal(int number)
{
    (void)number;
    asked = 1;
}

void
tool_progress_init(struct tool_progress *progress, bool enabled)
{
    *progress = (struct tool_progress){.enabled = enabled, .span = 100};
    struct sigaction action = {.sa_handler = note_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    if (enabled) {
        printf("    (%3.2f/100%%)\r", 0.0);
        fflush(stdout);
    }
}

void
tool_progress_part(struct tool_progress *progress, double per_cent)
{
    progress->base = progress->current;
    progress->span = per_cent;
}

static void
show(struct tool_progress *progress, double current)
{
    progress->current = current < 100 ? current : 100;
    if (asked && !progress->enabled) {
        fprintf(stderr, "    (%3.2f/100%%)\n", progress->current);
        asked = 0;
    }
    if (!progress->enabled || (progress->current - progress->shown < 1 && current < 100) ||
        (progress->shown >= 100))
        return;
    progress->shown = progress->current;
    printf("    (%3.2f/100%%)\r", progress->current);
    fflush(stdout);
}

void
tool_progress_update(void *data, uint64_t done, uint64_t total)
{
    struct tool_progress *progress = data;
    double part = total ? (double)done / (double)total : 1;
    show(progress, progress->base + progress->span * part);
}

void
tool_progress_end(struct tool_progress *progress, bool complete)
{
    if (complete)
        show(progress, 100);
    if (progress->enabled)
        putchar('\n');
    progress->enabled = false;
}
