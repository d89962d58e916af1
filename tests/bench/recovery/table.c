/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "tests/bench/recovery/table.h"

#include "core/base/checked.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct sum {
    unsigned cases, broken; /* `broken`: the process died, or it took too long */
    uint64_t exists, known;
    struct {
        unsigned ran, harmed, wrong, destroyed, again, failed, refused, clean, disagrees;
        uint64_t exists, recovered, known, recovered_known, harm;
        double slowest;
    } ways[WAY_COUNT];
};

static void
add(struct sum *sum, const struct result *result)
{
    if (result->begun && !result->done) {
        sum->cases++;
        sum->broken++;
    }
    if (!result->done || !result->applies)
        return;
    sum->cases++;
    sum->exists += result->exists;
    sum->known += result->known;
    for (unsigned way = 0; way < WAY_COUNT; way++) {
        const struct score *score = &result->scores[way];
        if (!score->ran)
            continue;
        sum->ways[way].ran++;
        sum->ways[way].harmed += score->harm > 0;
        sum->ways[way].wrong += score->wrong > 0;
        sum->ways[way].destroyed += score->destroyed > 0;
        sum->ways[way].again += score->again;
        sum->ways[way].disagrees += score->disagrees;
        sum->ways[way].failed += score->failed;
        sum->ways[way].refused += score->refused;
        sum->ways[way].clean += score->status == 0;
        sum->ways[way].exists += result->exists;
        sum->ways[way].recovered += score->recovered;
        sum->ways[way].known += result->known;
        sum->ways[way].recovered_known += score->recovered_known;
        sum->ways[way].harm += score->harm;
        if (score->seconds > sum->ways[way].slowest)
            sum->ways[way].slowest = score->seconds;
    }
}

static void
print_percent(uint64_t part, uint64_t all, bool ran)
{
    if (!ran)
        printf("%8s", "");
    else
        /* Rounded down: 100.0 is all of it. */
        printf(" %7.2f", all ? (double)(part * 10000 / all) / 100 : 100.0);
}

static void
print_line(const char *name, const struct sum *sum)
{
    printf("%-26s %5u", name, sum->cases);
    for (unsigned way = 0; way < WAY_COUNT; way++)
        print_percent(sum->ways[way].recovered, sum->ways[way].exists, sum->ways[way].ran > 0);
    print_percent(sum->ways[WAY_CERTAIN].recovered_known, sum->ways[WAY_CERTAIN].known,
                  sum->ways[WAY_CERTAIN].ran > 0);
    const unsigned ways[] = {WAY_CERTAIN, WAY_PEER};
    for (unsigned i = 0; i < 2; i++)
        printf(" | %4u %4u %4u %4u", sum->ways[ways[i]].harmed, sum->ways[ways[i]].wrong,
               sum->ways[ways[i]].destroyed, sum->ways[ways[i]].clean);
    printf(" | %3u %3u %3u %3u %5.1f\n", sum->ways[WAY_CERTAIN].again,
           sum->ways[WAY_CERTAIN].refused, sum->ways[WAY_CERTAIN].failed, sum->broken,
           sum->ways[WAY_CERTAIN].slowest);
}

static void
print_head(void)
{
    printf(
        "Guest clusters recovered of those whose bytes exist, in %%; the last of those whose L2\n"
        "entry is intact too. Then cases with harm, with wrong data, with data destroyed though\n"
        "the image is said to be clean, and cases that end clean: by default, and by the peer.\n"
        "Last, cases where a second run changes something, that were refused for want of a\n"
        "header that is certain, that failed, that died, and the longest time of a plan,\n"
        "seconds.\n\n");
    printf("%-26s %5s %7s %7s %7s %7s %7s %7s %7s | %4s %4s %4s %4s | %4s %4s %4s %4s | %3s %3s "
           "%3s %3s %5s\n",
           "class", "cases", "nothing", "certain", "likely", "guess", "salvage", "qemuimg",
           "c/known", "harm", "wrng", "dstr", "cln", "harm", "wrng", "dstr", "cln", "2nd", "ref",
           "err", "die", "max s");
}

/* ---- the worst ---- */

static const struct table *sorting;

/* What a case is judged by: the default, or the first of our own ways that ran. */
static const struct score *
judged(const struct result *result)
{
    enum way way = WAY_CERTAIN;
    while (way < WAY_SALVAGE && !result->scores[way].ran)
        way++;
    return &result->scores[way];
}

/* How bad a case is: harm first, then wrong data, then what is missing though it is known. */
static double
badness(unsigned index)
{
    const struct result *result = &sorting->results[index];
    const struct score *score = judged(result);
    if (result->begun && !result->done)
        return 4;
    if (!result->applies || !score->ran)
        return 0;
    double missing = result->known
                         ? (double)(result->known - score->recovered_known) / (double)result->known
                         : 0;
    return (score->harm > 0) * 3 + (score->wrong > 0) * 2 + (score->destroyed > 0) + score->again +
           score->disagrees + score->failed + missing;
}

static int
compare_badness(const void *left, const void *right)
{
    double a = badness(*(const unsigned *)left), b = badness(*(const unsigned *)right);
    return (a < b) - (a > b);
}

static void
print_case(const struct table *table, unsigned index)
{
    const struct case_id *id = &table->ids[index];
    const struct result *result = &table->results[index];
    const struct score *score = judged(result);
    printf("--image=%s --class=%s --seed=%" PRIu64 "\n", id->subject->name,
           damages[id->damage].name, id->seed);
    if (!result->done)
        printf("    died or took too long\n");
    else
        printf("    %s\n    exists %" PRIu64 ", known %" PRIu64 ", recovered %" PRIu64 " (%" PRIu64
               "), harm %" PRIu64 ", wrong %" PRIu64 ", destroyed %" PRIu64 "%s%s%s; %s\n",
               result->what, result->exists, result->known, score->recovered,
               score->recovered_known, score->harm, score->wrong, score->destroyed,
               score->again ? ", not idempotent" : "", score->disagrees ? ", QEMU disagrees" : "",
               score->failed    ? ", failed"
               : score->refused ? ", refused"
                                : "",
               score->note);
}

static void
print_worst(const struct table *table)
{
    unsigned *order = calloc(table->count + 1, sizeof *order), *seen = calloc(damage_count, 4);
    sorting = table;
    for (unsigned i = 0; order && i < table->count; i++)
        order[i] = i;
    if (order && seen) {
        qsort(order, table->count, sizeof *order, compare_badness);
        printf("\nThe worst cases, at most 3 of a class:\n");
        for (unsigned i = 0, shown = 0; i < table->count && shown < table->worst; i++)
            if (badness(order[i]) > 0.001 && seen[table->ids[order[i]].damage]++ < 3) {
                print_case(table, order[i]);
                shown++;
            }
    }
    free(order);
    free(seen);
}

/* ---- all ---- */

static unsigned
bar(const char *what, bool met)
{
    printf("%s  %s\n", met ? "PASS" : "MISS", what);
    return !met;
}

static double
share(uint64_t part, uint64_t all)
{
    return all ? (double)part / (double)all : 1;
}

unsigned
table_print(const struct table *table)
{
    struct sum total = {0}, lefts[2] = {{0}, {0}};
    unsigned missed = 0, low = 0;
    print_head();
    for (unsigned damage = 0; damage < damage_count; damage++) {
        struct sum sum = {0};
        for (unsigned i = 0; i < table->count; i++)
            if (table->ids[i].damage == damage) {
                add(&sum, &table->results[i]);
                add(&total, &table->results[i]);
                add(&lefts[damages[damage].left], &table->results[i]);
            }
        if (sum.cases == 0)
            continue;
        print_line(damages[damage].name, &sum);
        low += damages[damage].left == LEFT_ALL &&
               share(sum.ways[WAY_CERTAIN].recovered, sum.ways[WAY_CERTAIN].exists) < 0.99;
    }
    print_line("= information left", &lefts[LEFT_ALL]);
    print_line("= some of it lost", &lefts[LEFT_SOME]);
    print_line("= all", &total);
    print_worst(table);
    printf("\n");
    missed += bar("no harm at the default level", total.ways[WAY_CERTAIN].harmed == 0);
    missed +=
        bar("nothing silently wrong at the default level", total.ways[WAY_CERTAIN].wrong == 0);
    missed += bar("nothing destroyed that is then said to be clean",
                  total.ways[WAY_CERTAIN].destroyed == 0);
    missed += bar("a second run finds nothing to do", total.ways[WAY_CERTAIN].again == 0);
    missed += bar("QEMU finds clean and reads alike what is clean to us",
                  total.ways[WAY_CERTAIN].disagrees == 0);
    missed +=
        bar("nothing wrong in what a salvage calls certain", total.ways[WAY_SALVAGE].wrong == 0);
    missed += bar("no crash and no hang", total.broken == 0);
    missed += bar("recovered >= 99 % in each class that leaves the information", low == 0);
    missed += bar("recovered >= 95 % of all",
                  share(total.ways[WAY_CERTAIN].recovered, total.ways[WAY_CERTAIN].exists) >= 0.95);
    return missed;
}

void
table_print_csv(const struct table *table)
{
    printf("image,class,seed,way,own,exists,known,recovered,recovered-known,harm,wrong,destroyed,"
           "status,failed,again,grown,seconds\n");
    for (unsigned i = 0; i < table->count; i++) {
        const struct case_id *id = &table->ids[i];
        const struct result *result = &table->results[i];
        for (unsigned way = 0; way < WAY_COUNT; way++) {
            const struct score *score = &result->scores[way];
            if (score->ran)
                printf("%s,%s,%" PRIu64 ",%s,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64
                       ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%d,%d,%d,%" PRIu64
                       ",%.3f\n",
                       id->subject->name, damages[id->damage].name, id->seed, way_names[way],
                       result->own, result->exists, result->known, score->recovered,
                       score->recovered_known, score->harm, score->wrong, score->destroyed,
                       score->status, score->failed, score->again, score->bytes, score->seconds);
        }
    }
}
